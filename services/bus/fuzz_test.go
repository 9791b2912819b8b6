package bus

import (
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
)

// Headers of any content are read without harm, and what was read is written
// and read again the same.
func FuzzHeaders(f *testing.F) {
	f.Add("12", "http=1,x=2", "a,b", "2/3")
	f.Add("-1", "=,==,a=99999999999999999999", ",", "/")
	f.Add("9223372036854775807", strings.Repeat("s=1,", 500), "\x00", "9/-9")
	f.Fuzz(func(t *testing.T, number, counts, keys, part string) {
		h := nats.Header{}
		for _, name := range []string{HeaderEpoch, HeaderFirst, HeaderRows, HeaderMark, HeaderIn, HeaderBytes, HeaderTime, HeaderSchema} {
			h[name] = []string{number}
		}
		h[HeaderSources], h[HeaderRefused], h[HeaderKeys], h[HeaderPart] = []string{counts}, []string{counts}, []string{keys}, []string{part}
		m := parseMeta(h)
		if m.Rows < 0 || m.First < 0 || m.Epoch < 0 || m.Bytes < 0 {
			t.Errorf("negative: %+v", m)
		}
		once := m.header()
		again := parseMeta(once)
		twice := again.header()
		for name, v := range once {
			if len(v) != 1 || v[0] != twice.Get(name) && len(twice[name]) != 0 && v[0] != twice[name][0] {
				t.Errorf("%s: %q, then %q", name, v, twice[name])
			}
		}
		if len(encodeCounts(m.Sources)) > maxCounts*(maxCountName+21)+64 {
			t.Errorf("counts of %d bytes", len(encodeCounts(m.Sources)))
		}
	})
}

// Any text gives a name, and a name is always a key.
func FuzzNames(f *testing.F) {
	for _, s := range []string{"", "a", "_a", "a.b", "ü\x00", strings.Repeat("x", 300)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if err := CheckName(NameFrom(s)); err != nil {
			t.Errorf("NameFrom(%q) = %q: %v", s, NameFrom(s), err)
		}
		if CheckName(s) == nil && checkKey(s) != nil {
			t.Errorf("%q is a name and no key", s)
		}
	})
}

package collector

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"
	"unicode/utf8"

	"github.com/opencoc/coc/services/event"
)

// FuzzLines: whatever a line holds, it is kept: as events that are valid.
func FuzzLines(f *testing.F) {
	for _, s := range []string{
		oldLine(1), "Mar 27 13:08:15 web1 sudo: jan : TTY=x ; USER=y ; COMMAND=z", "<34>1 2003-10-11T22:14:15.003Z h su 1 - [a b=\"c\"] x",
		"Mar 27 13:08:15 w sshd[1]: message repeated 9 times: [ Invalid user  from ]", "2026-03-27T13:06:56+01:00 h x: y", "pam_unix(a:b): session opened for user x by y(uid=0)",
		"Mar 27 13:08:15 h systemd-logind[1]: New session 'x' of user 'y'.", "Mar 27 13:08:15 h useradd: new user: name=, UID=", "Mar 27 13:08:15 h CRON: () CMD ()",
		"Mar 27 13:08:15 h sshd: Disconnected from invalid user  port ", "\x00\xff",
	} {
		f.Add(s)
	}
	p := newLineParser(formatSyslog, time.UTC, fixed(testNow), 2016)
	f.Fuzz(func(t *testing.T, line string) { keeps(t, p, line) })
}

// FuzzAccess: the same for access logs.
func FuzzAccess(f *testing.F) {
	for _, s := range []string{
		`1.2.3.4 - - [17/May/2015:10:05:03 +0000] "GET /a HTTP/1.1" 200 1 "r" "a" 0.1`, `h:1 1.2.3.4 - a b [17/May/2015:10:05:03 +0000] "x" 200 - "" "\"`,
		`1.2.3.4 - - [17/May/2015:10:05:03 +0000] "GET`, `a b c [`, `[17/May/2015:10:05:03 +0000]`,
	} {
		f.Add(s)
	}
	p := newLineParser(formatAccess, time.UTC, fixed(testNow), 0)
	f.Fuzz(func(t *testing.T, line string) { keeps(t, p, line) })
}

func keeps(t *testing.T, p *lineParser, line string) {
	if strings.ContainsAny(line, "\n") {
		return
	}
	drafts, err := p.parse(line)
	clean, _ := cleanLine(line)
	if strings.TrimSpace(clean) == "" {
		return
	}
	if err != nil || len(drafts) != 1 {
		t.Fatalf("%q gives %d events, %v", line, len(drafts), err)
	}
	d := &drafts[0]
	if d.Message != clean || !utf8.ValidString(d.Message) {
		t.Fatalf("%q is kept as %q", line, d.Message)
	}
	cutSecrets(&d.Event)
	replaceNames(&d.Event, []person{{"jan", "u-1"}})
	d.Cut()
	if err := d.Validate(event.Bounds{}); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
}

// FuzzIntakeBody: a body never panics, and what is accepted is valid.
func FuzzIntakeBody(f *testing.F) {
	good := `{"time":"2015-05-17T10:05:03Z","kind":"user","action":"x"}`
	for _, s := range []string{
		good, "[" + good + "," + good + "]", good + "\n" + good, "[", "{", "[[", `{"specversion":"1.0","id":"1","source":"s","type":"t","data":` + good + "}",
		`{"specversion":"1.0","id":"1","source":"s","type":"t","data_base64":"e30="}`, `{"labels":{"a":"b"}}`, "\xef\xbb\xbf[]", strings.Repeat("[", 1000),
	} {
		for _, kind := range []string{"", "application/json", "application/x-ndjson", "application/cloudevents+json"} {
			f.Add(s, kind)
		}
	}
	items := newItems()
	f.Fuzz(func(t *testing.T, body, contentType string) {
		items.reset(func(d *draft) error { return d.Validate(event.Bounds{}) })
		if err := items.read(contentType, nil, []byte(body)); err != nil {
			return
		}
		if int64(len(items.drafts))+items.badCount() != int64(items.count) {
			t.Fatalf("%d good and %d bad of %d items", len(items.drafts), items.badCount(), items.count)
		}
		for i := range items.drafts {
			if err := items.drafts[i].Validate(event.Bounds{}); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestLinesAreCutAtTheirLimitWithoutHoldingMore(t *testing.T) {
	long := strings.Repeat("x", 3*limitLine)
	for _, text := range []string{"a\nbb\n", "a\n\nb", long + "\nb\n", "b\n" + long, ""} {
		r := newLineReader(iotest.HalfReader(strings.NewReader(text)))
		var got []string
		total := int64(0)
		for {
			line, size, cut, err := r.next()
			if err != nil {
				if err != io.EOF {
					t.Fatal(err)
				}
				break
			}
			total += size
			if cut != (size > limitLine+1) || len(line) > limitLine || cap(r.line) > 2*limitLine {
				t.Errorf("a line of %d bytes gives %d, cut %v, holding %d", size, len(line), cut, cap(r.line))
			}
			got = append(got, string(line))
		}
		if line, size, _ := r.rest(); size > 0 {
			total += size
			got = append(got, string(line))
		}
		if total != int64(len(text)) {
			t.Errorf("%d bytes read of %d", total, len(text))
		}
		want := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
		if text == "" {
			want = nil
		}
		for i := range want {
			want[i] = want[i][:min(len(want[i]), limitLine)]
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("%d lines, want %d", len(got), len(want))
		}
	}
}

func TestALineReaderGoesOnWhenMoreComes(t *testing.T) {
	var b bytes.Buffer
	r := newLineReader(&b)
	b.WriteString("half")
	if _, _, _, err := r.next(); err != io.EOF {
		t.Fatalf("error %v", err)
	}
	b.WriteString(" and half\nnext")
	line, size, _, err := r.next()
	if err != nil || string(line) != "half and half" || size != 14 {
		t.Errorf("%q, %d, %v", line, size, err)
	}
}

package collector

import (
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/opencoc/coc/services/event"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestLinesBecomeTheEventsOfTheGoldenFile reads testdata/lines.golden: a line
// that begins with "# " names the format, the year and the zone from there on,
// "< " is a line of a log, each "> " below it an event it becomes, "! " why it is
// refused.
func TestLinesBecomeTheEventsOfTheGoldenFile(t *testing.T) {
	const file = "testdata/lines.golden"
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	var p *lineParser
	for _, line := range strings.Split(strings.TrimRight(string(data), "\n"), "\n") {
		switch {
		case strings.HasPrefix(line, "# "):
			f := strings.Fields(line)
			zone, err := time.LoadLocation(f[3])
			if err != nil {
				t.Fatal(err)
			}
			p = newLineParser(f[1], zone, fixed(testNow), int(digitsValue(f[2])))
		case strings.HasPrefix(line, "> "), strings.HasPrefix(line, "! "):
			continue
		}
		out.WriteString(line + "\n")
		if text, ok := strings.CutPrefix(line, "< "); ok {
			out.WriteString(goldenLine(p, strings.NewReplacer("{00}", "\x00", "{ff}", "\xff", "{tab}", "\t").Replace(text)))
		}
	}
	if *update {
		if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, got := strings.Split(string(data), "\n"), strings.Split(out.String(), "\n")
	for i := range max(len(want), len(got)) {
		w, g := "", ""
		if i < len(want) {
			w = want[i]
		}
		if i < len(got) {
			g = got[i]
		}
		if w != g {
			t.Fatalf("%s:%d:\n got %s\nwant %s\nif the new is right: go test -run Golden -update", file, i+1, g, w)
		}
	}
}

func goldenLine(p *lineParser, line string) string {
	drafts, err := p.parse(line)
	if err != nil {
		return "! " + err.Error() + "\n"
	}
	var b strings.Builder
	for i := range drafts {
		d := &drafts[i]
		e := d.Event
		e.Message = "" // the line itself
		b.WriteString("> ")
		if n := d.rows(); n > 1 {
			b.WriteString(itoa(int64(n)) + " × ")
		}
		b.Write(event.AppendJSON(nil, &e))
		if len(d.names) > 0 {
			b.WriteString(" names " + strings.Join(d.names, ", "))
		}
		b.WriteString("\n")
	}
	return b.String()
}

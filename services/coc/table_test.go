package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencoc/coc/services/event"
)

var updateGolden = flag.Bool("update", false, "write the golden files of this package anew")

// golden compares with testdata/golden/<name>.txt.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", "golden", name+".txt")
	if *updateGolden {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; write it with: go test ./services/coc -run %s -update", err, t.Name())
	}
	if string(want) != got {
		t.Errorf("%s differs; if that is meant, run: go test ./services/coc -run '%s' -update\n--- got\n%s\n--- want\n%s", path, t.Name(), got, want)
	}
}

func TestATableAlignsTextsLeftAndNumbersRight(t *testing.T) {
	tab := newTable(left("NAME"), right("N"), left("EMPTY"), left("LAST"))
	tab.add("ä", "1", "", "x")
	tab.add("longer name", "1,234", "", "")
	var b strings.Builder
	if err := tab.write(&b); err != nil {
		t.Fatal(err)
	}
	want := "" +
		"NAME             N  LAST\n" +
		"ä                1  x\n" +
		"longer name  1,234\n"
	if b.String() != want {
		t.Errorf("got\n%s, want\n%s", b.String(), want)
	}
}

func TestWhatATerminalWouldObeyIsShownInstead(t *testing.T) {
	for in, want := range map[string]string{
		"plain":               "plain",
		"Eigenschaften é ✓ 漢": "Eigenschaften é ✓ 漢",
		"\x1b[31mred\x1b[0m":  `\x1b[31mred\x1b[0m`,
		"a\nb\tc\rd":          `a\nb\tc\x0dd`,
		"\u009b31m":           `\x9b31m`,
		"\x9b31m":             `\x9b31m`,
		"a\u202egnp.exe":      `a\u202egnp.exe`,
		"zero\u200bwidth":     `zero\u200bwidth`,
		"line\u2028end":       `line\u2028end`,
		"\x00\x7f":            `\x00\x7f`,
		"bad\xff":             `bad\xff`,
	} {
		if got := safe(in); got != want {
			t.Errorf("%q is shown as %s, want %s", in, got, want)
		}
	}
	tab := newTable(left("X"))
	tab.add("\x1b]0;title\x07")
	var b strings.Builder
	if err := tab.write(&b); err != nil || strings.ContainsAny(b.String(), "\x1b\x07") {
		t.Errorf("a cell went through: %q, %v", b.String(), err)
	}
}

func TestNumbersAreWrittenForPeople(t *testing.T) {
	for _, c := range [][2]string{
		{number(0), "0"}, {number(999), "999"}, {number(1000), "1,000"}, {number(-1234567), "-1,234,567"}, {number(-123), "-123"},
		{amount(4, "copies"), "4 copies"}, {amount(1234.5, ""), "1,234.5"}, {amount(-0.25, ""), "-0.25"}, {amount(-1234.5, ""), "-1,234.5"}, {amount(0.126, "ms"), "0.13 ms"}, {amount(12345, ""), "12,345"},
		{amount(999, "bytes"), "999 B"}, {amount(1000, "bytes"), "1.0 kB"}, {amount(1234567, "bytes"), "1.2 MB"}, {amount(999_999, "bytes"), "1.0 MB"}, {amount(5e21, "bytes"), "5000.0 EB"},
		{share(1, 8), "12.5 %"}, {share(1, 0), ""}, {plural(1, "row", "rows"), "1 row"}, {plural(2000, "row", "rows"), "2,000 rows"},
		{cut("abc", 3), "abc"}, {cut("äbcd", 3), "äb…"},
	} {
		if c[0] != c[1] {
			t.Errorf("%q, want %q", c[0], c[1])
		}
	}
}

func TestMomentsAreShownInTheHostersZone(t *testing.T) {
	at := event.Stamp(time.Date(2026, 7, 1, 22, 30, 0, 0, time.UTC).UnixMilli())
	if got := moment(at, zoneOf("Europe/Amsterdam")); got != "2026-07-02 00:30:00" {
		t.Error(got)
	}
	if moment(0, time.UTC) != "" || zoneOf("Nowhere/Else") != time.UTC || zoneOf("") != time.UTC {
		t.Error("no moment is not empty, or a zone that is not known is not UTC")
	}
}

func FuzzSafe(f *testing.F) {
	f.Add("a\x1b[31m\u202e\x9b\xff")
	f.Fuzz(func(t *testing.T, s string) {
		got := safe(s)
		for _, r := range got {
			if dangerous(r) {
				t.Errorf("%q is shown as %q", s, got)
			}
		}
		if again := safe(got); again != got {
			t.Errorf("shown twice %q becomes %q", got, again)
		}
	})
}

package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/opencoc/coc/services/event"
)

// maxCell is where a cell of a table is cut, in characters: a line stays
// readable. What matters for programs is in --json, whole.
const maxCell = 80

// column is one column of a table for people.
type column struct {
	head  string
	right bool // numbers
}

// left and right name columns of texts and of numbers.
func left(head string) column  { return column{head: head} }
func right(head string) column { return column{head: head, right: true} }

// table gathers rows and writes them aligned.
type table struct {
	cols []column
	rows [][]string
	// keepEmpty also shows columns without any text; widths are the widest seen,
	// so that a table may be written in parts.
	keepEmpty bool
	widths    []int
	max       int // characters a cell may have
}

func newTable(cols ...column) *table { return &table{cols: cols, max: maxCell} }

// add takes one row; cells may come from outside, they are made safe here.
func (t *table) add(cells ...string) {
	row := make([]string, len(t.cols))
	for i := range row {
		if i < len(cells) {
			row[i] = cut(safe(cells[i]), t.max)
		}
	}
	t.rows = append(t.rows, row)
}

// write prints the head and the rows, two spaces between columns, none at the
// end of a line. Columns without any text are left out.
func (t *table) write(w io.Writer) error {
	width := t.measure()
	var b strings.Builder
	line := func(cell func(int) string) {
		var l strings.Builder
		for i, c := range t.cols {
			if width[i] == 0 {
				continue
			}
			if l.Len() > 0 {
				l.WriteString("  ")
			}
			text := cell(i)
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(text))
			if c.right {
				l.WriteString(pad + text)
			} else {
				l.WriteString(text + pad)
			}
		}
		b.WriteString(strings.TrimRight(l.String(), " "))
		b.WriteByte('\n')
	}
	line(func(i int) string { return t.cols[i].head })
	for _, row := range t.rows {
		line(func(i int) string { return row[i] })
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// measure gives each column's width, 0 for one that is left out.
func (t *table) measure() []int {
	if t.widths == nil {
		t.widths = make([]int, len(t.cols))
	}
	for i, c := range t.cols {
		for _, row := range t.rows {
			t.widths[i] = max(t.widths[i], utf8.RuneCountInString(row[i]))
		}
		if t.widths[i] > 0 || t.keepEmpty {
			t.widths[i] = max(t.widths[i], utf8.RuneCountInString(c.head))
		}
	}
	return t.widths
}

// safe makes a text from outside harmless on a terminal: control characters,
// and the marks that turn the direction of writing, are shown as escapes.
func safe(s string) string {
	clean := true
	for _, r := range s {
		if r == utf8.RuneError || dangerous(r) {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case dangerous(r) && r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		case dangerous(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
		i += size
	}
	return b.String()
}

// dangerous are control and format characters: Cc (with the C1 range that some
// terminals obey), Cf (zero width, direction), line and paragraph separators.
func dangerous(r rune) bool {
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp)
}

// cut shortens a text to n characters.
func cut(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	r := []rune(s)
	return string(r[:n-1]) + "…"
}

// number writes a whole number with its thousands apart.
func number(n int64) string {
	s := strconv.FormatInt(n, 10)
	sign := ""
	if n < 0 {
		sign, s = "-", s[1:]
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return sign + s
}

// amount writes a number with its unit, bytes with a fitting prefix.
func amount(v float64, unit string) string {
	if unit == "bytes" {
		return size(v)
	}
	text := strconv.FormatFloat(math.Round(v*100)/100, 'f', -1, 64)
	if whole, rest, _ := strings.Cut(text, "."); math.Abs(v) < 1e15 {
		n, _ := strconv.ParseInt(whole, 10, 64) // digits of a number below 1e15
		if text = number(n); n == 0 && v < 0 && rest != "" {
			text = "-0"
		}
		if rest != "" {
			text += "." + rest
		}
	}
	if unit != "" {
		text += " " + unit
	}
	return text
}

func size(v float64) string {
	const names = "kMGTPE"
	if math.Abs(v) < 1000 {
		return fmt.Sprintf("%.0f B", v)
	}
	i := -1
	for math.Abs(v) >= 999.95 && i < len(names)-1 {
		v /= 1000
		i++
	}
	return fmt.Sprintf("%.1f %cB", v, names[i])
}

// share writes a part of a whole in per cent; "" when there is no whole.
func share(part, whole int64) string {
	if whole == 0 {
		return ""
	}
	return percent(float64(part) / float64(whole))
}

func percent(v float64) string { return fmt.Sprintf("%.1f %%", 100*v) }

// plural writes a number with its noun: 1 finding, 3 findings.
func plural(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return number(n) + " " + many
}

// moment writes a time in a zone; "" for none.
func moment(s event.Stamp, zone *time.Location) string {
	if s == 0 {
		return ""
	}
	return time.UnixMilli(int64(s)).In(zone).Format(time.DateTime)
}

// zoneOf finds the zone that an instance names; UTC when this machine does not
// know it.
func zoneOf(name string) *time.Location {
	if z, err := time.LoadLocation(name); err == nil && name != "" {
		return z
	}
	return time.UTC
}

// isTerminal says whether a person is likely to watch w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	s, err := f.Stat()
	return err == nil && s.Mode()&os.ModeCharDevice != 0
}

const simulatedLine = "Simulated data: this instance holds made-up events.\n"

package rule

import (
	"fmt"
	"sort"
	"strings"
	"unicode/utf8"
)

// Error is one thing that is wrong with a set, and where.
type Error struct {
	File      string
	Line, Col int // from 1; 0 when the error is about the file as a whole
	Message   string
	Hint      string // what to do, or what may have been meant; may be empty
	Source    string // the line; empty when Line is 0
}

// Error writes file:line:col, the message, the line and a caret.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", e.Line, e.Col)
	}
	b.WriteString(": " + e.Message)
	if e.Hint != "" {
		b.WriteString("; " + e.Hint)
	}
	if e.Source != "" {
		line, col := clip(e.Source, e.Col)
		b.WriteString("\n  | " + line)
		b.WriteString("\n  | " + strings.Repeat(" ", col-1) + "^")
	}
	return b.String()
}

// clip shortens a long line around the column and replaces tabs, so that the
// caret stands below its place.
func clip(line string, col int) (string, int) {
	const width = 120
	runes := []rune(strings.ReplaceAll(line, "\t", " "))
	col = max(1, min(col, len(runes)+1))
	from := 0
	if col > width-20 {
		from = col - width/2
	}
	to := min(len(runes), from+width)
	return string(runes[from:to]), col - from
}

// Errors is everything that is wrong with a set, in order of file and line.
type Errors []*Error

// Error writes them all, with their number at the end.
func (e Errors) Error() string {
	var b strings.Builder
	for _, one := range e {
		b.WriteString(one.Error())
		b.WriteByte('\n')
	}
	if len(e) == 1 {
		b.WriteString("1 error")
	} else {
		fmt.Fprintf(&b, "%d errors", len(e))
	}
	b.WriteString(": the set was not loaded")
	return b.String()
}

func (e Errors) sorted() Errors {
	sort.SliceStable(e, func(i, j int) bool {
		if e[i].File != e[j].File {
			return e[i].File < e[j].File
		}
		if e[i].Line != e[j].Line {
			return e[i].Line < e[j].Line
		}
		return e[i].Col < e[j].Col
	})
	if len(e) > limitErrors {
		e = e[:limitErrors]
	}
	return e
}

// meant says which of the names was probably meant, or nothing. One edit in
// four letters, counting a swap of neighbours as one (Damerau, optimal string
// alignment).
func meant(got string, names []string) string {
	best, at := "", 1+len(got)/4
	if len(got) > 64 {
		return ""
	}
	for _, n := range names {
		if d := edits(strings.ToLower(got), strings.ToLower(n), at); d < at || d == at && best == "" {
			best, at = n, d
		}
	}
	if best == "" {
		// "user_name" or "username" for user.name.
		for _, n := range names {
			if squash(n) == squash(got) {
				best = n
				break
			}
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("did you mean %s?", best)
}

func squash(s string) string {
	return strings.ToLower(strings.NewReplacer("_", "", "-", "", ".", "").Replace(s))
}

func edits(a, b string, bound int) int {
	x, y := []rune(a), []rune(b)
	if len(x)-len(y) > bound || len(y)-len(x) > bound {
		return bound + 1
	}
	older, old, now := make([]int, len(y)+1), make([]int, len(y)+1), make([]int, len(y)+1)
	for j := range old {
		old[j] = j
	}
	for i := 1; i <= len(x); i++ {
		now[0] = i
		for j := 1; j <= len(y); j++ {
			cost := 1
			if x[i-1] == y[j-1] {
				cost = 0
			}
			now[j] = min(old[j]+1, now[j-1]+1, old[j-1]+cost)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				now[j] = min(now[j], older[j-2]+1)
			}
		}
		older, old, now = old, now, older
	}
	return old[len(y)]
}

// shorten keeps messages readable when a value is long.
func shorten(s string) string {
	if utf8.RuneCountInString(s) <= 40 {
		return s
	}
	return string([]rune(s)[:39]) + "…"
}

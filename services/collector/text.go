package collector

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// cleanLine makes a line into text that every later stage takes: no trailing
// carriage return, no NUL, valid UTF-8. A run of bytes that are no text becomes
// one U+FFFD. mark is "" or what was done, for event.marks.
func cleanLine(line string) (clean, mark string) {
	line = strings.TrimRight(line, "\r\n")
	if strings.IndexByte(line, 0) < 0 && utf8.ValidString(line) {
		return line, ""
	}
	mark = "utf8:message"
	if strings.IndexByte(line, 0) >= 0 {
		mark = "nul:message"
		line = strings.ReplaceAll(line, "\x00", "\xff") // one replacement for a mixed run
	}
	return strings.ToValidUTF8(line, "\ufffd"), mark
}

// printable replaces what is no character of a name: fields that are not free
// text take no control characters.
func printable(s string) string {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] == 0x7f {
			return strings.Map(func(r rune) rune {
				if r < 0x20 || r == 0x7f {
					return utf8.RuneError
				}
				return r
			}, s)
		}
	}
	return s
}

// itoa spares the callers a conversion.
func itoa(n int64) string { return strconv.FormatInt(n, 10) }

package collector

import (
	"strconv"
	"strings"
	"time"
)

// header is what stands before the message of a syslog line.
type header struct {
	// time is Unix milliseconds UTC; ok says that the line had a readable one.
	time int64
	ok   bool
	host string
	// tag is the program's name without path and pid.
	tag    string
	pid    int64
	hasPID bool
	msg    string
}

// readHeader splits a syslog line into its header and message. It reads
// RFC 3164 ("Mar 27 13:06:56 host prog[1]: msg"), the ISO times of today's
// rsyslog ("2026-03-27T13:06:56.1+01:00 host prog[1]: msg") and RFC 5424, each
// with or without "<priority>". A line without a readable time comes back
// whole as its message.
func readHeader(line string, c *clock) header {
	rest := line
	if len(rest) > 2 && rest[0] == '<' {
		if end := strings.IndexByte(rest, '>'); end > 1 && end <= 4 && digits(rest[1:end]) {
			rest = rest[end+1:]
			if strings.HasPrefix(rest, "1 ") {
				if h, ok := readHeader5424(rest[2:]); ok {
					return h
				}
			}
		}
	}
	at, rest, ok := readStamp(rest, c)
	if !ok {
		return header{msg: line}
	}
	h := header{time: at, ok: true}
	h.host, rest = cutWord(rest)
	h.host = printable(h.host)
	if strings.HasSuffix(h.host, ":") {
		// No host: what looked like one is the tag.
		rest = h.host + " " + rest
		h.host = ""
	}
	h.readTag(rest)
	return h
}

// readTag splits "prog[pid]: msg". A tag is short and has no spaces; what has
// none is all message.
func (h *header) readTag(rest string) {
	colon := strings.Index(rest, ": ")
	if colon < 0 && strings.HasSuffix(rest, ":") {
		colon = len(rest) - 1
	}
	if colon < 1 || colon > limitTag || strings.IndexByte(rest[:colon], ' ') >= 0 {
		h.msg = rest
		return
	}
	tag := rest[:colon]
	h.msg = strings.TrimPrefix(rest[colon+1:], " ")
	if open := strings.IndexByte(tag, '['); open > 0 && strings.HasSuffix(tag, "]") {
		if pid, err := strconv.ParseInt(tag[open+1:len(tag)-1], 10, 32); err == nil && pid >= 0 {
			h.pid, h.hasPID = pid, true
		}
		tag = tag[:open]
	}
	h.tag = printable(baseName(tag))
}

// readHeader5424 reads what follows the version of an RFC 5424 line: time,
// host, program, process id, message id and structured data, which is skipped.
func readHeader5424(rest string) (header, bool) {
	var h header
	stamp, rest := cutWord(rest)
	if stamp != "-" {
		at, err := time.Parse(time.RFC3339Nano, stamp)
		if err != nil {
			return h, false
		}
		h.time, h.ok = at.UnixMilli(), true
	}
	var pid string
	h.host, rest = cutWord(rest)
	h.tag, rest = cutWord(rest)
	pid, rest = cutWord(rest)
	_, rest = cutWord(rest) // message id
	if n, err := strconv.ParseInt(pid, 10, 32); err == nil && n >= 0 {
		h.pid, h.hasPID = n, true
	}
	h.host, h.tag = printable(noDash(h.host)), printable(baseName(noDash(h.tag)))
	switch {
	case rest == "-":
		rest = ""
	case strings.HasPrefix(rest, "- "):
		rest = rest[2:]
	case strings.HasPrefix(rest, "["):
		end := structuredEnd(rest)
		if end < 0 {
			return h, false
		}
		rest = strings.TrimPrefix(rest[end:], " ")
	default:
		return h, false
	}
	h.msg = strings.TrimPrefix(rest, "\ufeff")
	return h, true
}

// structuredEnd returns where the structured data at the start of s ends, or
// -1 when it does not.
func structuredEnd(s string) int {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == ']' && !quoted:
			if i+1 == len(s) || s[i+1] != '[' {
				return i + 1
			}
		}
	}
	return -1
}

// readStamp reads the time at the start of a line.
func readStamp(s string, c *clock) (at int64, rest string, ok bool) {
	if len(s) > 19 && s[4] == '-' && s[10] == 'T' {
		word, rest := cutWord(s)
		if t, err := time.Parse(time.RFC3339Nano, word); err == nil {
			at := t.UnixMilli()
			c.seen(at)
			return at, rest, true
		}
		if t, err := time.ParseInLocation("2006-01-02T15:04:05.999999999", word, c.zone); err == nil {
			at := t.UnixMilli()
			c.seen(at)
			return at, rest, true
		}
		return 0, s, false
	}
	if len(s) < 16 || s[3] != ' ' || s[6] != ' ' || s[9] != ':' || s[12] != ':' {
		return 0, s, false
	}
	month := monthOf(s[:3])
	day, ok1 := twoDigits(s[4], s[5], true)
	hour, ok2 := twoDigits(s[7], s[8], false)
	minute, ok3 := twoDigits(s[10], s[11], false)
	second, ok4 := twoDigits(s[13], s[14], false)
	if month == 0 || !ok1 || !ok2 || !ok3 || !ok4 || day < 1 || day > 31 || hour > 23 || minute > 59 || second > 60 {
		return 0, s, false
	}
	rest = s[15:]
	milli := 0
	if len(rest) > 1 && rest[0] == '.' { // some daemons add a fraction
		end := 1
		for end < len(rest) && isDigit(rest[end]) {
			if end <= 3 {
				milli = milli*10 + int(rest[end]-'0')
			}
			end++
		}
		for n := end - 1; n < 3; n++ {
			milli *= 10
		}
		rest = rest[end:]
	}
	if !strings.HasPrefix(rest, " ") {
		return 0, s, false
	}
	at, ok = c.resolve(month, day, hour, minute, second)
	return at + int64(milli), strings.TrimLeft(rest, " "), ok
}

func monthOf(s string) time.Month {
	switch s {
	case "Jan":
		return time.January
	case "Feb":
		return time.February
	case "Mar":
		return time.March
	case "Apr":
		return time.April
	case "May":
		return time.May
	case "Jun":
		return time.June
	case "Jul":
		return time.July
	case "Aug":
		return time.August
	case "Sep":
		return time.September
	case "Oct":
		return time.October
	case "Nov":
		return time.November
	case "Dec":
		return time.December
	}
	return 0
}

func twoDigits(a, b byte, blank bool) (int, bool) {
	if blank && a == ' ' {
		a = '0'
	}
	if !isDigit(a) || !isDigit(b) {
		return 0, false
	}
	return int(a-'0')*10 + int(b-'0'), true
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func digits(s string) bool {
	for i := range len(s) {
		if !isDigit(s[i]) {
			return false
		}
	}
	return s != ""
}

// cutWord splits at the first run of spaces.
func cutWord(s string) (word, rest string) {
	i := strings.IndexByte(s, ' ')
	if i < 0 {
		return s, ""
	}
	return s[:i], strings.TrimLeft(s[i:], " ")
}

func noDash(s string) string {
	if s == "-" {
		return ""
	}
	return s
}

// baseName is the last part of a path; unlike path.Base it never gives ".".
func baseName(s string) string {
	if i := strings.LastIndexByte(s, '/'); i >= 0 && i+1 < len(s) {
		return s[i+1:]
	}
	return s
}

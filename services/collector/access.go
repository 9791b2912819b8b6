package collector

import (
	"strconv"
	"strings"
	"time"
)

// parseAccess fills d from a line of an access log. A line that is none is kept
// as a log_line.
func (p *lineParser) parseAccess(d *draft, line string) {
	if readAccess(d, line) {
		p.clock.seen(d.Time)
		return
	}
	*d = draft{Event: d.Event}
	d.Labels = d.Labels[:0]
	d.what(kindSystem, actionLine, "")
	d.UserName, d.SourceIP = "", ""
	p.guessTime(d)
}

// readAccess reads the common and the combined format, with a virtual host
// before it and a duration behind it where they are:
//
//	1.2.3.4 - jan [17/May/2015:10:05:03 +0000] "GET /a?b HTTP/1.1" 200 203 "referer" "agent" 0.123
//
// A duration with a point is seconds (nginx's $request_time), one without is
// microseconds (Apache's %D).
func readAccess(d *draft, line string) bool {
	open := strings.Index(line, " [")
	if open < 0 {
		return false
	}
	shut := strings.IndexByte(line[open:], ']')
	if shut < 0 {
		return false
	}
	at, ok := accessTime(line[open+2 : open+shut])
	if !ok {
		return false
	}
	who := strings.Fields(line[:open])
	if len(who) < 3 {
		return false
	}
	if len(who) > 3 && looksLikeHost(who[0]) { // a virtual host stands first
		d.label("virtual_host", who[0])
		who = who[1:]
	}
	request, rest, ok := quotedText(strings.TrimLeft(line[open+shut+1:], " "))
	if !ok {
		return false
	}
	status, rest := cutWord(rest)
	size, rest := cutWord(rest)
	code, err := strconv.Atoi(status)
	if err != nil || code < 100 || code > 999 {
		return false
	}
	d.Time = at
	d.what(kindUser, "http_request", success)
	if code >= 400 {
		d.Outcome = failure
	}
	d.address(who[0])
	d.user(strings.Join(who[2:], " ")) // a name may hold spaces
	d.label("status", status)
	if n, err := strconv.ParseInt(size, 10, 64); err == nil && n >= 0 {
		d.SetBytes(n)
	}
	d.request(request)
	d.accessTail(rest)
	return true
}

// request: "GET /path HTTP/1.1". What is none, as scanners send, is kept whole.
func (d *draft) request(s string) {
	method, rest, ok := strings.Cut(s, " ")
	if !ok || !isMethod(method) {
		d.label("request", s)
		return
	}
	path, protocol, ok := cutLast(rest, " ")
	if !ok || !strings.HasPrefix(protocol, "HTTP/") {
		path, protocol = rest, ""
	}
	d.label("method", method)
	d.label("path", path)
	d.label("protocol", protocol)
}

// accessTail reads what follows the size: referer, agent, duration, each where
// it is. An agent without its closing quote, as a server writes that cuts long
// lines, reaches to the end.
func (d *draft) accessTail(rest string) {
	if referer, after, ok := quotedText(rest); ok {
		d.label("referer", noDash(referer))
		rest = after
		if agent, after, ok := quotedText(rest); ok {
			d.label("user_agent", noDash(agent))
			rest = after
		} else if open, is := strings.CutPrefix(rest, `"`); is {
			d.label("user_agent", open)
			return
		}
	}
	w, _ := cutWord(rest)
	w = strings.Trim(w, `"`)
	if w == "" || w == "-" {
		return
	}
	n, err := strconv.ParseFloat(w, 64)
	if err != nil || n < 0 || n > 1e12 {
		return
	}
	if strings.IndexByte(w, '.') >= 0 {
		d.SetDuration(n * 1000)
	} else {
		d.SetDuration(n / 1000)
	}
}

// accessTime reads 17/May/2015:10:05:03 +0000.
func accessTime(s string) (int64, bool) {
	if len(s) != len("02/Jan/2006:15:04:05 -0700") {
		return 0, false
	}
	t, err := time.Parse("02/Jan/2006:15:04:05 -0700", s)
	if err != nil {
		return 0, false
	}
	return t.UnixMilli(), true
}

// quotedText reads a text in double quotes, in which \" is a quote, and returns
// what follows.
func quotedText(s string) (text, rest string, ok bool) {
	if s == "" || s[0] != '"' {
		return "", s, false
	}
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return s[1:i], strings.TrimLeft(s[i+1:], " "), true
		}
	}
	return "", s, false
}

func isMethod(s string) bool {
	if s == "" || len(s) > 20 {
		return false
	}
	for i := range len(s) {
		if (s[i] < 'A' || s[i] > 'Z') && s[i] != '-' && s[i] != '_' {
			return false
		}
	}
	return true
}

// looksLikeHost says whether a first word is name[:port] rather than an address
// of a client followed by its two dashes.
func looksLikeHost(s string) bool {
	name, port, ok := cutLast(s, ":")
	if !ok {
		name, port = s, "0"
	}
	return strings.IndexByte(name, '.') > 0 && digits(port) && strings.ContainsAny(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
}

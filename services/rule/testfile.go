package rule

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/opencoc/coc/services/event"
)

// test is one test of a rule file.
type test struct {
	name   string
	line   int
	start  int64 // Unix ms
	with   []setting
	items  []item
	expect expectation
}

// setting gives one field of an event.
type setting struct {
	field int
	label string // of labels
	text  string // may hold {n}
	num   float64
}

// item is one event of a test, or several alike.
type item struct {
	at      int64 // Unix ms; -1: after the item before
	every   int64 // ms
	repeat  int
	setting []setting
}

// expectation is what a test asks of the findings that stand at its end.
type expectation struct {
	findings int
	key      map[string]string
	count    int64 // -1: any
	fired    int64 // Unix ms; -1: any
	severity string
}

func (l *loader) readTests(d *document, r *Rule, n ast.Node) {
	nodes, ok := d.list(n, "tests")
	if !ok {
		return
	}
	if len(nodes) > limitTests {
		d.failAt(n, "", "%d tests; at most %d are allowed", len(nodes), limitTests)
		return
	}
	for _, n := range nodes {
		if t := l.readTest(d, n); t != nil {
			r.tests = append(r.tests, t)
		}
	}
	r.Tests = len(r.tests)
}

func (l *loader) readTest(d *document, n ast.Node) *test {
	entries, ok := d.mapping(n, "a test")
	if !ok {
		return nil
	}
	d.known(entries, "a test", []string{"name", "start", "with", "events", "expect"})
	t := &test{start: time.Date(2026, 1, 5, 12, 0, 0, 0, l.zone).UnixMilli()}
	if p := position(n); p != nil {
		t.line = p.Line
	}
	seen := map[string]bool{}
	for _, e := range entries { // what the others count from
		if seen[e.key] = true; e.key == "start" {
			t.start = l.moment(d, e.value, "start", -1)
		}
	}
	for _, e := range entries {
		switch e.key {
		case "name":
			t.name, _ = d.text(e.value, "name", 300)
		case "with":
			pairs, _ := d.mapping(e.value, "with")
			t.with = readSettings(d, pairs)
		case "events":
			t.items = l.readItems(d, e.value, t.start)
		case "expect":
			t.expect = l.readExpectation(d, e.value, t.start)
		}
	}
	for _, k := range []string{"name", "events", "expect"} {
		if !seen[k] {
			d.failAt(n, "", "the test has no %s", k)
		}
	}
	return t
}

// moment reads a duration after start, or RFC 3339 when it has a date.
func (l *loader) moment(d *document, n ast.Node, what string, start int64) int64 {
	s, ok := d.text(n, what, 60)
	if !ok {
		return 0
	}
	if v, ok := ParseDuration(strings.TrimPrefix(s, "-")); ok && start >= 0 {
		if strings.HasPrefix(s, "-") {
			v = -v
		}
		return start + v.Milliseconds()
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02 15:04:05Z07:00"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UnixMilli()
		}
	}
	if t, err := time.ParseInLocation("2006-01-02T15:04:05", strings.Replace(s, " ", "T", 1), l.zone); err == nil {
		return t.UnixMilli()
	}
	hint := "write it as 2026-01-05T12:00:00+01:00"
	if start >= 0 {
		hint += ", or as a length of time after start, like 90s"
	}
	d.failAt(n, hint, "%s is no moment: %q", what, shorten(s))
	return 0
}

func (l *loader) readItems(d *document, n ast.Node, start int64) (out []item) {
	nodes, ok := d.list(n, "events")
	if !ok {
		return nil
	}
	if len(nodes) > limitItems {
		d.failAt(n, "use repeat", "%d items; at most %d are allowed", len(nodes), limitItems)
		return nil
	}
	total := 0
	for _, n := range nodes {
		pairs, ok := d.mapping(n, "an event")
		if !ok {
			continue
		}
		it := item{at: -1, repeat: 1}
		var rest []pair
		for _, e := range pairs {
			switch e.key {
			case "at":
				it.at = l.moment(d, e.value, "at", start)
			case "every":
				v, _ := d.duration(e.value, "every", 0, maxWindow)
				it.every = v.Milliseconds()
			case "repeat":
				it.repeat, _ = d.integer(e.value, "repeat", 1, limitRepeat)
			default:
				rest = append(rest, e)
			}
		}
		it.setting = readSettings(d, rest)
		if total += it.repeat; total > limitRepeat {
			d.failAt(n, "", "a test has at most %d events", limitRepeat)
			return nil
		}
		out = append(out, it)
	}
	return out
}

func readSettings(d *document, pairs []pair) (out []setting) {
	for _, e := range pairs {
		f := event.FieldByName(e.key)
		if label, ok := strings.CutPrefix(e.key, "labels."); ok && f < 0 {
			s, _ := d.text(e.value, e.key, event.LimitText)
			out = append(out, setting{field: event.FLabels, label: label, text: s})
			continue
		}
		switch {
		case f == event.FLabels:
			labels, _ := d.mapping(e.value, "labels")
			for _, l := range labels {
				s, _ := d.text(l.value, "a label", event.LimitText)
				out = append(out, setting{field: f, label: l.key, text: s})
			}
		case f < 0 || f == event.FTime || f == event.FEpoch || f == event.FSeq:
			hint := meant(e.key, append(FieldNames(), "at", "every", "repeat", "labels"))
			if f == event.FTime {
				hint = "write at"
			}
			d.failPos(e.at, hint, "an event has no %q here", shorten(e.key))
		case isText(f):
			s, _ := d.text(e.value, e.key, event.Fields[f].Limit)
			out = append(out, setting{field: f, text: s})
		default:
			v, _ := d.number(e.value, e.key)
			out = append(out, setting{field: f, num: v})
		}
	}
	return out
}

func (l *loader) readExpectation(d *document, n ast.Node, start int64) expectation {
	x := expectation{findings: -1, count: -1, fired: -1}
	entries, ok := d.mapping(n, "expect")
	if !ok {
		return x
	}
	d.known(entries, "expect", []string{"findings", "key", "count", "fired", "severity"})
	for _, e := range entries {
		switch e.key {
		case "findings":
			x.findings, _ = d.integer(e.value, "findings", 0, limitRepeat)
		case "key":
			pairs, _ := d.mapping(e.value, "key")
			x.key = map[string]string{}
			for _, p := range pairs {
				name := p.key
				if name == "user.name" {
					name = "user.hash"
				}
				if f := event.FieldByName(name); (f < 0 || !isText(f)) && !strings.HasPrefix(name, "labels.") {
					d.failPos(p.at, meant(name, FieldNames()), "a key has no %q", shorten(name))
				}
				x.key[name], _ = d.text(p.value, name, event.LimitText)
			}
		case "count":
			v, _ := d.integer(e.value, "count", 0, limitRepeat)
			x.count = int64(v)
		case "fired":
			x.fired = l.moment(d, e.value, "fired", start)
		case "severity":
			x.severity, _ = d.oneOf(e.value, "severity", severities)
		}
	}
	if x.findings < 0 {
		d.failAt(n, "write findings: 1, or findings: 0", "expect does not say how many findings")
	}
	return x
}

// events makes the events of a test, in the order in which they arrive.
func (t *test) events() []event.Event {
	var out []event.Event
	at := t.start
	for _, it := range t.items {
		if it.at >= 0 {
			at = it.at
		}
		for n := 1; n <= it.repeat; n++ {
			e := event.Event{Time: at, Collector: "test", Epoch: 1, Seq: int64(len(out) + 1), Source: "test"}
			for _, s := range t.with {
				s.apply(&e, n)
			}
			for _, s := range it.setting {
				s.apply(&e, n)
			}
			if e.UserHash == "" {
				e.UserHash = e.UserName
			}
			if e.Received == 0 {
				e.Received = e.Time
			}
			out = append(out, e)
			if n < it.repeat {
				at += it.every
			}
		}
		at += it.every
	}
	return slices.Clip(out)
}

func (s *setting) apply(e *event.Event, n int) {
	text := s.text
	if strings.Contains(text, "{n}") {
		text = strings.ReplaceAll(text, "{n}", strconv.Itoa(n))
	}
	switch {
	case s.field == event.FLabels:
		e.SetLabel(s.label, text)
	case isText(s.field):
		*e.Text(s.field) = text
	case event.Fields[s.field].Type == event.Float:
		p, has := e.Float(s.field)
		*p = s.num
		e.Has |= has
	default:
		p, has := e.Int(s.field)
		*p = int64(s.num)
		e.Has |= has
	}
}

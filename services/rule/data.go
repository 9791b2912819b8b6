package rule

import (
	"bufio"
	"bytes"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"

	"github.com/opencoc/coc/services/event"
)

// data is what stands beside the rules: lists, allowances, exceptions.
type data struct {
	lists      map[string]*list
	allowances []Allowance // by name
	exceptions []Exception
}

// Allowance is how much of something each tier may use.
type Allowance struct {
	Name, Unit string
	Title      Text
	Meter      Meter
	Tiers      map[string]float64
	Default    float64 // of a tier that is not in Tiers
}

// For returns what a tier is allowed.
func (a *Allowance) For(tier string) float64 {
	if v, ok := a.Tiers[tier]; ok {
		return v
	}
	return a.Default
}

// Meter says how the use that an allowance is about is measured.
type Meter struct {
	Where     map[string]string // dotted field to value; all must be equal
	Aggregate string            // count, sum or distinct
	Field     string            // dotted, of sum and distinct
	Window    time.Duration
}

// Exception drops events of a rule before they count.
type Exception struct {
	Rule, When, Reason, Owner string
	Expires                   time.Time // the first moment at which it is over
	File                      string
	Line                      int

	node ast.Node // of When, for errors
}

// List describes a list of the set.
type List struct {
	Name, Type, Description string // Type is text, cidr or map
	Len                     int
	File                    string
}

type list struct {
	List
	texts  map[string]struct{}
	nets   map[netip.Prefix]struct{} // masked
	bits   []int                     // prefix lengths in nets; IPv6 as 1000 + bits
	values map[string]string
}

func (l *list) has(s string) bool {
	switch l.Type {
	case "map":
		_, ok := l.values[s]
		return ok
	case "cidr":
		ip, err := netip.ParseAddr(s)
		if err != nil {
			return false
		}
		ip = ip.Unmap().WithZone("")
		for _, b := range l.bits {
			if (b >= 1000) != ip.Is6() {
				continue
			}
			if p, err := ip.Prefix(b % 1000); err == nil {
				if _, ok := l.nets[p]; ok {
					return true
				}
			}
		}
		return false
	}
	_, ok := l.texts[s]
	return ok
}

func (l *list) add(p netip.Prefix) {
	b := p.Bits()
	if p.Addr().Is6() {
		b += 1000
	}
	if !slices.Contains(l.bits, b) {
		l.bits = append(l.bits, b)
	}
	l.nets[p.Masked()] = struct{}{}
}

func (d *data) allowance(name string) *Allowance {
	i, ok := slices.BinarySearchFunc(d.allowances, name, func(a Allowance, n string) int { return strings.Compare(a.Name, n) })
	if !ok {
		return nil
	}
	return &d.allowances[i]
}

func (d *data) allowanceNames() []string {
	out := make([]string, len(d.allowances))
	for i := range d.allowances {
		out[i] = d.allowances[i].Name
	}
	return out
}

// readList reads a file of the folder lists.
func (l *loader) readList(file string, content []byte) {
	d := l.document(file)
	ext := path.Ext(file)
	name := strings.TrimSuffix(path.Base(file), ext)
	if l.data.lists[name] != nil {
		d.fail(0, 0, "rename one", "another file is a list %q too", name)
		return
	}
	out := &list{List: List{Name: name, File: file}}
	switch ext {
	case ".txt":
		d.lines = strings.Split(string(content), "\n")
		l.readPlainList(d, out, content)
	case ".yaml", ".yml":
		if !l.readYAMLList(d, out, content) {
			return
		}
	default:
		d.fail(0, 0, "", "a list ends in .txt or .yaml")
		return
	}
	l.data.lists[name] = out
}

func (l *loader) readPlainList(d *document, out *list, content []byte) {
	if len(content) > 16*limitFileBytes {
		d.fail(0, 0, "", "the file has %d bytes; at most %d are read", len(content), 16*limitFileBytes)
		return
	}
	if !utf8.Valid(content) {
		d.fail(0, 0, "save it as UTF-8", "the file is not text in UTF-8")
		return
	}
	var entries []string
	s := bufio.NewScanner(bytes.NewReader(content))
	s.Buffer(nil, limitFileBytes)
	for n := 1; s.Scan(); n++ {
		line, _, _ := strings.Cut(s.Text(), "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		if len(line) > event.LimitText {
			d.fail(n, 1, "", "an entry has %d bytes; at most %d are allowed", len(line), event.LimitText)
			return
		}
		entries = append(entries, line)
	}
	if len(entries) > limitListSize {
		d.fail(0, 0, "", "the list has %d entries; at most %d are allowed", len(entries), limitListSize)
		return
	}
	out.Type = "cidr"
	for _, e := range entries {
		if _, err := parseNet(e); err != nil {
			out.Type = "text"
		}
	}
	if len(entries) == 0 {
		out.Type = "text"
	}
	out.fill(entries)
}

func (l *list) fill(entries []string) {
	l.Len = len(entries)
	if l.Type == "cidr" {
		l.nets = map[netip.Prefix]struct{}{}
		for _, e := range entries {
			if p, err := parseNet(e); err == nil {
				l.add(p)
			}
		}
		return
	}
	l.texts = make(map[string]struct{}, len(entries))
	for _, e := range entries {
		l.texts[e] = struct{}{}
	}
}

func (l *loader) readYAMLList(d *document, out *list, content []byte) bool {
	body, ok := d.parse(content)
	if !ok || body == nil {
		return false
	}
	entries, ok := d.mapping(body, "a list")
	if !ok {
		return false
	}
	d.known(entries, "a list", []string{"type", "description", "owner", "entries"})
	out.Type = "text"
	var values ast.Node
	for _, e := range entries {
		switch e.key {
		case "type":
			if t, ok := d.oneOf(e.value, "type", []string{"text", "cidr", "map"}); ok {
				out.Type = t
			}
		case "description":
			out.Description, _ = d.text(e.value, "description", limitText)
		case "owner":
			d.text(e.value, "owner", limitText)
		case "entries":
			values = e.value
		}
	}
	if values == nil {
		d.failAt(body, "", "the list has no entries")
		return false
	}
	if out.Type == "map" {
		pairs, ok := d.mapping(values, "entries of a map")
		out.values = make(map[string]string, len(pairs))
		for _, p := range pairs {
			out.values[p.key], _ = d.text(p.value, "an entry", event.LimitText)
		}
		out.Len = len(pairs)
		return ok
	}
	nodes, ok := d.list(values, "entries")
	var texts []string
	for _, n := range nodes {
		s, ok := d.text(n, "an entry", event.LimitText)
		if _, err := parseNet(s); ok && err != nil && out.Type == "cidr" {
			d.failAt(n, "write it like 10.0.0.0/8", "%q is not a network", shorten(s))
		}
		texts = append(texts, s)
	}
	out.fill(texts)
	return ok
}

func (l *loader) readAllowances(file string, content []byte) {
	d := l.document(file)
	body, ok := d.parse(content)
	if !ok || body == nil {
		return
	}
	entries, _ := d.mapping(body, "allowances.yaml")
	if len(entries) > limitAllowance {
		d.fail(0, 0, "", "%d allowances; at most %d are allowed", len(entries), limitAllowance)
		return
	}
	for _, e := range entries {
		if a, ok := l.readAllowance(d, e); ok {
			l.data.allowances = append(l.data.allowances, a)
		}
	}
	slices.SortFunc(l.data.allowances, func(a, b Allowance) int { return strings.Compare(a.Name, b.Name) })
}

func (l *loader) readAllowance(d *document, at pair) (a Allowance, ok bool) {
	before := len(*d.errs)
	a = Allowance{Name: at.key, Tiers: map[string]float64{}}
	if len(at.key) > limitID {
		d.failPos(at.at, "", "the name has %d bytes; at most %d are allowed", len(at.key), limitID)
	}
	entries, _ := d.mapping(at.value, "an allowance")
	d.known(entries, "an allowance", []string{"title", "unit", "meter", "tiers", "default"})
	seen := map[string]bool{}
	for _, e := range entries {
		seen[e.key] = true
		switch e.key {
		case "title":
			a.Title, _ = d.texts(e.value, "title")
		case "unit":
			a.Unit, _ = d.text(e.value, "unit", 100)
		case "default":
			a.Default, _ = d.number(e.value, "default")
		case "meter":
			a.Meter = l.readMeter(d, e.value)
		case "tiers":
			tiers, _ := d.mapping(e.value, "tiers")
			if len(tiers) > limitTiers {
				d.failAt(e.value, "", "%d tiers; at most %d are allowed", len(tiers), limitTiers)
			}
			for _, t := range tiers {
				a.Tiers[t.key], _ = d.number(t.value, "what tier "+shorten(t.key)+" is allowed")
			}
		}
	}
	for _, k := range []string{"unit", "meter", "default"} {
		if !seen[k] {
			d.failPos(at.at, "", "the allowance %s has no %s", shorten(at.key), k)
		}
	}
	return a, len(*d.errs) == before
}

func (l *loader) readMeter(d *document, n ast.Node) Meter {
	m := Meter{Where: map[string]string{}}
	entries, _ := d.mapping(n, "meter")
	for _, e := range entries {
		switch e.key {
		case "window":
			m.Window, _ = d.duration(e.value, "window", minWindow, maxWindow)
		case "aggregate":
			s, _ := d.text(e.value, "aggregate", 100)
			m.Aggregate = s
			if name, rest, ok := strings.Cut(s, "("); ok && strings.HasSuffix(rest, ")") {
				m.Aggregate, m.Field = name, strings.TrimSuffix(rest, ")")
			}
			if m.Field == "user.name" {
				m.Field = "user.hash"
			}
			f := event.FieldByName(m.Field)
			if !(m.Aggregate == "count" && m.Field == "" || f >= 0 && (m.Aggregate == "sum" && isMeasure(f) || m.Aggregate == "distinct" && isText(f))) {
				d.failAt(e.value, "write count, sum(bytes) or distinct(user.hash)", "the aggregate %q is not known", shorten(s))
			}
		default:
			if f := event.FieldByName(e.key); f < 0 || event.Fields[f].Type != event.Dict || !event.Fields[f].Kept {
				d.failPos(e.at, meant(e.key, append(FieldNames(), "aggregate", "window")), "a meter cannot test %q", shorten(e.key))
				continue
			}
			m.Where[e.key], _ = d.text(e.value, e.key, event.LimitText)
		}
	}
	if m.Aggregate == "" || m.Window == 0 || len(m.Where) == 0 {
		d.failAt(n, "write {action: …, aggregate: count, window: 30d}", "a meter needs a field to test, an aggregate and a window")
	}
	return m
}

func (l *loader) readExceptions(file string, content []byte) {
	d := l.document(file)
	l.exceptionsDoc = d
	body, ok := d.parse(content)
	if !ok || body == nil {
		return
	}
	nodes, _ := d.list(body, "exceptions.yaml")
	if len(nodes) > limitExcept {
		d.fail(0, 0, "", "%d exceptions; at most %d are allowed", len(nodes), limitExcept)
		return
	}
	for _, n := range nodes {
		l.readException(d, n)
	}
}

func (l *loader) readException(d *document, n ast.Node) {
	entries, ok := d.mapping(n, "an exception")
	if !ok {
		return
	}
	d.known(entries, "an exception", []string{"rule", "when", "reason", "owner", "expires"})
	x := Exception{File: d.file}
	if p := position(n); p != nil {
		x.Line = p.Line
	}
	for _, e := range entries {
		switch e.key {
		case "rule":
			x.Rule, _ = d.text(e.value, "rule", limitID)
			l.exceptionRules = append(l.exceptionRules, reference{d, e.value, x.Rule})
		case "when":
			x.When, _ = d.text(e.value, "when", limitExpression)
			x.node = e.value
		case "reason":
			x.Reason, _ = d.text(e.value, "reason", limitText)
		case "owner":
			x.Owner, _ = d.text(e.value, "owner", limitText)
		case "expires":
			x.Expires = l.expiry(d, e.value)
		}
	}
	for _, k := range []string{"rule", "when", "reason", "owner", "expires"} {
		if !slices.ContainsFunc(entries, func(e pair) bool { return e.key == k }) {
			d.failAt(n, "an exception says for which rule, when, why, who answers for it and until when", "the exception has no %s", k)
		}
	}
	l.data.exceptions = append(l.data.exceptions, x)
}

func (l *loader) expiry(d *document, n ast.Node) time.Time {
	s, ok := d.text(n, "expires", 40)
	if !ok {
		return time.Time{}
	}
	if t, err := time.ParseInLocation("2006-01-02", s, l.zone); err == nil {
		return t.AddDate(0, 0, 1)
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		d.failAt(n, "write the last day as 2027-01-31", "expires is not a date: %q", shorten(s))
	}
	return t
}

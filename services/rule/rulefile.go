package rule

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/opencoc/coc/services/event"
)

// Text is a text by language: "en" is always there, "nl" may be.
type Text map[string]string

// In returns the text in a language, else in English.
func (t Text) In(lang string) string {
	if s, ok := t[lang]; ok {
		return s
	}
	return t["en"]
}

// Rule is one compiled rule. It is read only.
type Rule struct {
	ID, File                       string
	Line                           int
	Kind                           string // match or threshold
	Title, Description, Response   Text
	Class, Severity, Status, Owner string
	Tags                           []string
	Match, Condition               string   // as written
	GroupBy                        []string // dotted; user.name stands as user.hash
	Window, Suppress               time.Duration
	Logic                          string // hash of what decides, 16 hexadecimal digits
	Tests                          int

	windowHash string // hash of what a window's contents depend on
	groups     []groupField
	conjuncts  []conjunct
	residual   *program // nil when the conjuncts say it all
	cond       *condition
	spec       *windowSpec
	exceptions []exception
	cells      grid
	tests      []*test
	index      int // among the rules of its set
}

// groupField is one part of a key.
type groupField struct {
	name  string // dotted
	field int
	label string // of labels
}

type exception struct {
	when    *program
	expires int64 // Unix ms
}

var (
	classes    = []string{"abuse", "fair_use", "availability", "performance", "compliance"}
	severities = []string{"info", "low", "medium", "high", "critical"}
	statuses   = []string{"production", "shadow", "disabled"}
	ruleKeys   = []string{"id", "title", "class", "severity", "status", "description", "response", "owner", "tags", "match", "group_by", "window", "condition", "suppress", "tests"}
	idPattern  = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*(\.[a-z0-9][a-z0-9-]*)*$`)
)

// source is a rule as its file says it, before it is compiled.
type source struct {
	*Rule
	match, condition ast.Node
}

func (l *loader) readRule(file string, content []byte) {
	d := l.document(file)
	before := len(l.errs)
	body, ok := d.parse(content)
	if !ok {
		return
	}
	if body == nil {
		d.fail(0, 0, "delete it, or write a rule", "the file is empty")
		return
	}
	entries, ok := d.mapping(body, "a rule")
	if !ok {
		return
	}
	d.known(entries, "a rule", ruleKeys)
	s := &source{Rule: &Rule{File: file, Line: 1, Status: "production"}}
	seen := map[string]pair{}
	for _, e := range entries {
		seen[e.key] = e
		l.readKey(d, s, e)
	}
	s.require(d, body, seen)
	if e, ok := seen["id"]; ok && s.ID != "" {
		if first, twice := l.ids[s.ID]; twice {
			d.failAt(e.value, "", "the rule %s stands in %s already", s.ID, first)
		} else {
			l.ids[s.ID] = file
		}
	}
	l.compileRule(d, s)
	if len(l.errs) == before {
		l.rules = append(l.rules, s.Rule)
	}
}

func (s *source) require(d *document, body ast.Node, seen map[string]pair) {
	for _, k := range []string{"id", "title", "class", "severity", "match"} {
		if _, ok := seen[k]; !ok {
			d.failAt(body, "", "the rule has no %s", k)
		}
	}
	s.Kind = "match"
	w, hasWindow := seen["window"]
	c, hasCondition := seen["condition"]
	switch {
	case hasWindow && !hasCondition:
		d.failPos(w.at, "say what must be true of the window, like count >= 10", "a window needs a condition")
	case hasCondition && !hasWindow:
		d.failPos(c.at, "say over which time, like window: 10m", "a condition needs a window")
	case hasWindow:
		s.Kind = "threshold"
	}
	if s.Suppress == 0 {
		switch {
		case s.Kind == "threshold":
			s.Suppress = max(s.Window, minSuppress)
		case len(s.GroupBy) > 0:
			s.Suppress = time.Hour
		default:
			s.Suppress = time.Minute
		}
	}
}

func (l *loader) readKey(d *document, s *source, e pair) {
	switch e.key {
	case "id":
		s.ID, _ = d.text(e.value, "id", limitID)
		if !idPattern.MatchString(s.ID) {
			d.failAt(e.value, "write small letters, digits and dashes, words joined by dots: abuse.ssh-guessing", "%q is no rule id", shorten(s.ID))
		}
		if p := position(e.value); p != nil {
			s.Line = p.Line
		}
	case "title":
		s.Title, _ = d.texts(e.value, "title")
	case "description":
		s.Description, _ = d.texts(e.value, "description")
	case "response":
		s.Response, _ = d.texts(e.value, "response")
	case "class":
		s.Class, _ = d.oneOf(e.value, "class", classes)
	case "severity":
		s.Severity, _ = d.oneOf(e.value, "severity", severities)
	case "status":
		s.Status, _ = d.oneOf(e.value, "status", statuses)
	case "owner":
		s.Owner, _ = d.text(e.value, "owner", limitID)
	case "tags":
		nodes, _ := d.list(e.value, "tags")
		if len(nodes) > limitTags {
			d.failAt(e.value, "", "%d tags; at most %d are allowed", len(nodes), limitTags)
			return
		}
		for _, n := range nodes {
			t, _ := d.text(n, "a tag", limitID)
			s.Tags = append(s.Tags, t)
		}
	case "match":
		s.Match, _ = d.text(e.value, "match", 2*limitExpression)
		s.match = e.value
	case "condition":
		s.Condition, _ = d.text(e.value, "condition", 2*limitExpression)
		s.condition = e.value
	case "group_by":
		s.readGroups(d, e.value)
	case "window":
		s.Window, _ = d.duration(e.value, "window", minWindow, maxWindow)
	case "suppress":
		s.Suppress, _ = d.duration(e.value, "suppress", minSuppress, maxSuppress)
	case "tests":
		l.readTests(d, s.Rule, e.value)
	}
}

func (s *source) readGroups(d *document, n ast.Node) {
	nodes, ok := d.list(n, "group_by")
	if !ok {
		return
	}
	if len(nodes) > limitGroupBy {
		d.failAt(n, "", "%d fields in group_by; at most %d are allowed", len(nodes), limitGroupBy)
		return
	}
	for _, n := range nodes {
		name, ok := d.text(n, "a field of group_by", 200)
		if !ok {
			continue
		}
		g := groupField{name: name, field: event.FieldByName(name)}
		switch {
		case strings.HasPrefix(name, "labels.") && len(name) > len("labels."):
			g.field, g.label = event.FLabels, strings.TrimPrefix(name, "labels.")
		case g.field == event.FUserName:
			g.name, g.field = "user.hash", event.FUserHash
		case g.field < 0:
			hint := meant(name, FieldNames())
			if hint == "" {
				hint = "write a field like tenant.id, or labels.name"
			}
			d.failAt(n, hint, "there is no field %q", shorten(name))
			continue
		case !isText(g.field):
			d.failAt(n, "group by a field of text", "%s is a number and makes no key", name)
			continue
		case g.field == event.FMessage || g.field == event.FProcessCommandLine:
			d.failAt(n, "finding keys are kept and shown; group by a name or an id", "%s is free text and makes no key", name)
			continue
		}
		if slices.Contains(s.GroupBy, g.name) {
			d.failAt(n, "", "%s stands in group_by twice", g.name)
			continue
		}
		s.groups = append(s.groups, g)
		s.GroupBy = append(s.GroupBy, g.name)
	}
}

// expression vets the expression of a node and places its error.
func (l *loader) expression(d *document, n ast.Node, text string, m mode) *vetted {
	if n == nil || text == "" && len(l.errs) > 0 {
		return nil
	}
	v, p := l.language.vet(text, m)
	if p != nil {
		l.place(d, n, text, p)
		return nil
	}
	return v
}

func (l *loader) place(d *document, n ast.Node, text string, p *problem) {
	line, col := d.place(n, text, p.at)
	d.fail(line, col, p.hint, "%s", p.message)
}

func (l *loader) compileRule(d *document, s *source) {
	match := l.expression(d, s.match, s.Match, inMatch)
	cond := l.expression(d, s.condition, s.Condition, inCondition)
	if match == nil || s.Kind == "threshold" && cond == nil {
		return
	}
	conjuncts, rest := l.language.split(match.node)
	s.conjuncts = conjuncts
	if rest != nil {
		p, err := l.language.compile(match, rest)
		if err != nil {
			l.place(d, s.match, s.Match, problemOf(err))
			return
		}
		s.residual = p
	}
	if s.Kind == "threshold" {
		var err error
		s.cond, s.spec, err = l.language.compileCondition(cond, s.Condition, s.Window.Milliseconds(), s.groups)
		if err != nil {
			l.place(d, s.condition, s.Condition, problemOf(err))
			return
		}
	}
	s.cells = newGrid(s.Suppress, l.zone)
	s.hash(match, cond)
}

// hash computes what the identity of findings and of windows depends on. The
// expressions enter as trees, so their formatting does not matter.
func (s *source) hash(match, cond *vetted) {
	window := []string{"coc.window.1", s.ID, s.Kind, match.canonical, strings.Join(s.GroupBy, " "), FormatDuration(s.Window)}
	logic := []string{"coc.logic.1", s.Kind, match.canonical, strings.Join(s.GroupBy, " "), FormatDuration(s.Window)}
	if s.cond != nil {
		logic = append(logic, cond.canonical)
		for _, slot := range s.cond.slots {
			if slot.kind != slotAllowance {
				window = append(window, slot.written)
			}
		}
		window = append(window, fmt.Sprint(s.spec.own))
	}
	logic = append(logic, FormatDuration(s.Suppress))
	s.Logic, s.windowHash = hashOf(logic), hashOf(window)
}

func hashOf(parts []string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s,", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

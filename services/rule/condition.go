package rule

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/expr-lang/expr/ast"

	"github.com/opencoc/coc/services/event"
)

// slotKind is what a slot of a condition measures.
type slotKind uint8

const (
	slotCount slotKind = iota
	slotRate
	slotSum
	slotAvg
	slotMin
	slotMax
	slotQuantile
	slotDistinct
	slotShare
	slotAllowance
)

// slot is one measure of a condition: an aggregate over the window, or an
// allowance of the firing event. It becomes a variable of env.
type slot struct {
	kind      slotKind
	written   string // as a finding's term shows it
	field     int
	at        int // index into the window's values, distincts or shares
	quantile  float64
	share     *vetted
	allowance *Allowance
}

func (s *slot) whole() bool { return s.kind == slotCount || s.kind == slotDistinct }

// variable is the name of slot i in env.
func (s *slot) variable(i int) string {
	if s.whole() {
		return "N" + strconv.Itoa(i)
	}
	return "X" + strconv.Itoa(i)
}

// slot gives the measure a variable, the same for the same measure.
func (v *vetter) slot(n *ast.Node, s slot) {
	if v.problem != nil {
		return
	}
	i := slices.IndexFunc(v.slots, func(o slot) bool { return o.written == s.written })
	if i < 0 {
		if len(v.slots) == maxAggregates {
			v.fail(*n, "make it two rules", "a condition has at most %d different measures", maxAggregates)
			return
		}
		i = len(v.slots)
		v.slots = append(v.slots, s)
	}
	ast.Patch(n, &ast.IdentifierNode{Value: s.variable(i)})
}

var quantiles = map[string]float64{"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99}

// aggregate vets count, rate, sum(f) and the like.
func (v *vetter) aggregate(n *ast.Node, name string, x *ast.CallNode) {
	s := slot{written: name}
	if name == "count" || name == "rate" {
		if x != nil && len(x.Arguments) > 0 {
			v.fail(x, "use share(…), or put the test into match", "%s has no arguments: it counts all events of the window", name)
			return
		}
		if name == "rate" {
			s.kind = slotRate
		}
		v.slot(n, s)
		return
	}
	if len(x.Arguments) != 1 {
		v.fail(x, "", "%s has one argument, not %d", name, len(x.Arguments))
		return
	}
	s.written = x.String()
	if name == "share" {
		v.share(n, x, s)
		return
	}
	path, ok := dotted(x.Arguments[0])
	f := event.FieldByName(path)
	if !ok || f < 0 {
		v.inside = name
		v.node(&x.Arguments[0], 1) // finds the typo, if it is one
		v.inside = ""
		v.fail(x.Arguments[0], "", "%s(…) measures a field, not an expression", name)
		return
	}
	s.field = f
	switch {
	case name == "distinct":
		s.kind = slotDistinct
		if f == event.FUserName {
			s.field = event.FUserHash
			s.written = "distinct(user.hash)"
		}
		if !isText(f) {
			v.fail(x.Arguments[0], "", "distinct(…) is about a field of text, and %s is a number", path)
			return
		}
	case !isMeasure(f):
		v.fail(x.Arguments[0], "use duration, server.duration, bytes or value", "%s(…) cannot measure %s", name, path)
		return
	default:
		s.kind = map[string]slotKind{"sum": slotSum, "avg": slotAvg, "min": slotMin, "max": slotMax}[name]
		if q, ok := quantiles[name]; ok {
			s.kind, s.quantile = slotQuantile, q
		}
	}
	v.slot(n, s)
}

func isMeasure(f int) bool {
	return f == event.FDuration || f == event.FServerDuration || f == event.FBytes || f == event.FValue
}

func (v *vetter) share(n *ast.Node, x *ast.CallNode, s slot) {
	s.kind = slotShare
	inner := &vetter{language: v.language, mode: inMatch, inside: "share"}
	inner.node(&x.Arguments[0], 1)
	if inner.problem != nil {
		v.problem = inner.problem
		return
	}
	s.share = &vetted{node: x.Arguments[0], need: inner.need}
	v.slot(n, s)
}

// windowSpec is what a rule's window must remember of each event, and in how
// far it must add it up.
type windowSpec struct {
	length    int64 // ms
	values    []valueSpec
	distincts []int      // fields
	shares    []*program // asked once an event
	own       []int      // fields of the firing event that the condition reads
	ownNeed   need
	ownTenant int // place of tenant.id in own, or -1 when it is in the key
}

type valueSpec struct {
	field                  int
	sum, min, max, ordered bool // what the slots ask for
}

// condition is a compiled condition.
type condition struct {
	written string
	slots   []slot
	native  func(*measures) bool // nil: only the VM can
	code    *program
}

// measures holds the values of the slots while a condition is evaluated.
// What a window cannot tell (the average of nothing) is NaN.
type measures [maxAggregates]float64

// compileCondition makes the condition of a rule and the spec of its window.
func (l *language) compileCondition(v *vetted, written string, window int64, groupBy []groupField) (*condition, *windowSpec, error) {
	spec := &windowSpec{length: window, ownTenant: -1}
	for i := range v.slots {
		s := &v.slots[i]
		switch s.kind {
		case slotSum, slotAvg, slotMin, slotMax, slotQuantile:
			s.at = spec.value(s)
		case slotDistinct:
			s.at = indexOrAppend(&spec.distincts, s.field)
		case slotShare:
			if len(spec.shares) == maxShares {
				return nil, nil, &problem{0, fmt.Sprintf("a condition has at most %d different shares", maxShares), ""}
			}
			s.share.source = v.source
			if p := l.check(s.share); p != nil {
				return nil, nil, p
			}
			p, err := l.compile(s.share, s.share.node)
			if err != nil {
				return nil, nil, err
			}
			s.at = len(spec.shares)
			spec.shares = append(spec.shares, p)
		case slotAllowance:
			indexOrAppend(&spec.own, s.field)
		}
	}
	native := nativeCondition(v.node)
	code, err := l.compile(v, v.node)
	if err != nil {
		return nil, nil, err
	}
	for f := range event.Fields {
		if code.need&needs(f) != 0 && f != event.FTime {
			indexOrAppend(&spec.own, f)
		}
	}
	if !slices.ContainsFunc(groupBy, func(g groupField) bool { return g.field == event.FTenantID }) {
		spec.ownTenant = indexOrAppend(&spec.own, event.FTenantID)
	}
	for _, f := range spec.own {
		spec.ownNeed |= needs(f)
	}
	return &condition{written: written, slots: v.slots, native: native, code: code}, spec, nil
}

func indexOrAppend(list *[]int, v int) int {
	if i := slices.Index(*list, v); i >= 0 {
		return i
	}
	*list = append(*list, v)
	return len(*list) - 1
}

func (w *windowSpec) value(s *slot) int {
	i := slices.IndexFunc(w.values, func(v valueSpec) bool { return v.field == s.field })
	if i < 0 {
		i = len(w.values)
		w.values = append(w.values, valueSpec{field: s.field})
	}
	v := &w.values[i]
	switch s.kind {
	case slotSum, slotAvg:
		v.sum = true
	case slotMin:
		v.min = true
	case slotMax:
		v.max = true
	case slotQuantile:
		v.ordered = true
	}
	return i
}

// holds evaluates the condition for an event with the given own fields.
func (c *condition) holds(m *machine, x *measures) (bool, error) {
	if c.native != nil {
		return c.native(x), nil
	}
	for i := range c.slots {
		if c.slots[i].whole() {
			*m.slotN(i) = int(x[i])
		} else {
			*m.slotX(i) = x[i]
		}
	}
	return m.run(c.code)
}

func (m *machine) slotN(i int) *int {
	e := m.env
	return [...]*int{&e.N0, &e.N1, &e.N2, &e.N3, &e.N4, &e.N5, &e.N6, &e.N7, &e.N8, &e.N9, &e.N10, &e.N11, &e.N12, &e.N13, &e.N14, &e.N15}[i]
}

func (m *machine) slotX(i int) *float64 {
	e := m.env
	return [...]*float64{&e.X0, &e.X1, &e.X2, &e.X3, &e.X4, &e.X5, &e.X6, &e.X7, &e.X8, &e.X9, &e.X10, &e.X11, &e.X12, &e.X13, &e.X14, &e.X15}[i]
}

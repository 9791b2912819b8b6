package rule

import (
	"cmp"
	"slices"

	"github.com/opencoc/coc/services/event"
)

// index finds the rules that could match a row without looking at the others.
//
// Each rule hangs below the conjunct that the fewest rules share: action ==
// "login" rather than kind == "user". A field's values are looked up once per
// dictionary value of a batch, not once per row. Where many rules hang below
// one value, the node splits them by a further field; what no field separates
// is ordered by the bound of a numeric conjunct (duration > 2000), so that only
// rules whose bound is passed are visited.
type index struct {
	always *node // rules with no way in
	roots  []root
}

// root holds the rules that are entered by one field.
type root struct {
	field   int
	byValue map[string]*node
}

// node holds the rules that are left after the tests on the way to it.
type node struct {
	linear []*Rule
	splits []root
	ranges []bounded
}

// bounded holds rules in order of a numeric bound.
type bounded struct {
	field  int
	above  bool // rules ask for more than their bound, which rises; else for less, and it falls
	bounds []float64
	rules  []*Rule
}

// linearMost is how many rules a node tests one by one before it splits them:
// a test costs about 5 ns, a look-up in a map 20.
const linearMost = 8

func newIndex(rules []*Rule) *index {
	var active []*Rule
	for _, r := range rules {
		if r.Status != "disabled" {
			active = append(active, r)
		}
	}
	x := &index{}
	shared := sharing(active, 0)
	byField := map[int]map[string][]*Rule{}
	var always []*Rule
	for _, r := range active {
		c := best(r, shared, 0)
		if c == nil {
			always = append(always, r)
			continue
		}
		addByValue(byField, c, r)
	}
	for f := range event.Fields {
		if byField[f] != nil {
			x.roots = append(x.roots, root{f, nodesOf(byField[f], needs(f))})
		}
	}
	x.always = newNode(always, needAll)
	return x
}

func addByValue(byField map[int]map[string][]*Rule, c *conjunct, r *Rule) {
	if byField[c.field] == nil {
		byField[c.field] = map[string][]*Rule{}
	}
	values, _ := c.access()
	for _, v := range values {
		byField[c.field][v] = append(byField[c.field][v], r)
	}
}

func nodesOf(byValue map[string][]*Rule, used need) map[string]*node {
	out := make(map[string]*node, len(byValue))
	for v, rules := range byValue {
		out[v] = newNode(rules, used)
	}
	return out
}

type fieldValue struct {
	field int
	value string
}

// sharing counts the rules below each value of each field.
func sharing(rules []*Rule, used need) map[fieldValue]int {
	n := map[fieldValue]int{}
	for _, r := range rules {
		for i := range r.conjuncts {
			c := &r.conjuncts[i]
			if values, ok := c.access(); ok && used&needs(c.field) == 0 {
				for _, v := range values {
					n[fieldValue{c.field, v}]++
				}
			}
		}
	}
	return n
}

// best is the conjunct of a rule whose values the fewest rules share.
func best(r *Rule, shared map[fieldValue]int, used need) (out *conjunct) {
	least := 0
	for i := range r.conjuncts {
		c := &r.conjuncts[i]
		values, ok := c.access()
		if !ok || used&needs(c.field) != 0 {
			continue
		}
		most := 0
		for _, v := range values {
			most = max(most, shared[fieldValue{c.field, v}])
		}
		if out == nil || most < least || most == least && rank(c.field) < rank(out.field) {
			out, least = c, most
		}
	}
	return out
}

// rank prefers fields that few fields of an event leave at one value.
func rank(field int) int {
	switch field {
	case event.FAction:
		return 0
	case event.FKind, event.FOutcome:
		return 9
	}
	return 5
}

func newNode(rules []*Rule, used need) *node {
	n := &node{}
	if len(rules) <= linearMost {
		n.linear = rules
		return n
	}
	shared := sharing(rules, used)
	byField := map[int]map[string][]*Rule{}
	members := map[int]map[*Rule]bool{}
	if used != needAll {
		for _, r := range rules {
			if c := best(r, shared, used); c != nil {
				addByValue(byField, c, r)
				if members[c.field] == nil {
					members[c.field] = map[*Rule]bool{}
				}
				members[c.field][r] = true
			}
		}
	}
	left := rules
	for f := range event.Fields {
		// A field with one value separates nothing.
		if len(byField[f]) < 2 || len(members[f]) <= linearMost {
			continue
		}
		n.splits = append(n.splits, root{f, nodesOf(byField[f], used|needs(f))})
		left = slices.DeleteFunc(slices.Clone(left), func(r *Rule) bool { return members[f][r] })
	}
	n.byBounds(left)
	return n
}

// byBounds orders rules by a numeric bound where enough of them have one on
// the same field; the others stay to be tested one by one.
func (n *node) byBounds(rules []*Rule) {
	type side struct {
		field int
		above bool
	}
	groups := map[side][]*Rule{}
	bounds := map[*Rule]float64{}
	var order []side
	for _, r := range rules {
		for i := range r.conjuncts {
			c := &r.conjuncts[i]
			if c.op < opLess || c.op > opMoreOrEqual {
				continue
			}
			s := side{c.field, c.op >= opMore}
			if groups[s] == nil {
				order = append(order, s)
			}
			groups[s] = append(groups[s], r)
			bounds[r] = c.bound
			break
		}
	}
	for _, r := range rules {
		if _, ok := bounds[r]; !ok {
			n.linear = append(n.linear, r)
		}
	}
	for _, s := range order {
		g := groups[s]
		if len(g) <= linearMost {
			n.linear = append(n.linear, g...)
			continue
		}
		slices.SortStableFunc(g, func(a, b *Rule) int {
			if s.above {
				return cmp.Compare(bounds[a], bounds[b])
			}
			return cmp.Compare(bounds[b], bounds[a])
		})
		b := bounded{field: s.field, above: s.above, rules: g}
		for _, r := range g {
			b.bounds = append(b.bounds, bounds[r])
		}
		n.ranges = append(n.ranges, b)
	}
}

// lookup is what a runner keeps of the index for one batch.
type lookup struct {
	active []activeRoot
	codes  [][]*node // by root, reused
}

type activeRoot struct {
	codes []uint16
	nodes []*node // by code
}

// resolve looks up the dictionary values of a batch; roots none of whose
// values any rule names drop out.
func (l *lookup) resolve(x *index, b *event.Batch) {
	if len(l.codes) < len(x.roots) {
		l.codes = make([][]*node, len(x.roots))
	}
	l.active = l.active[:0]
	for i := range x.roots {
		r := &x.roots[i]
		nodes := l.codes[i][:0]
		found := false
		for code := range b.DictLen(r.field) {
			n := r.byValue[b.DictValue(r.field, uint16(code))]
			found = found || n != nil
			nodes = append(nodes, n)
		}
		l.codes[i] = nodes
		if found {
			l.active = append(l.active, activeRoot{b.Codes(r.field), nodes})
		}
	}
}

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
// rules whose bound is passed are visited. What the way to a rule has shown is
// not tested again.
type index struct {
	always *node // rules with no way in
	roots  []root
}

// root holds the rules that are entered by one field.
type root struct {
	field   int
	byValue map[string]*node // nil when there is one value only
	one     string
	only    *node
}

func (r *root) at(value string) *node {
	if r.byValue != nil {
		return r.byValue[value]
	}
	if value == r.one {
		return r.only
	}
	return nil
}

// node holds the rules that are left after the tests on the way to it.
type node struct {
	linear []candidate
	splits []root
	ranges []bounded
}

// candidate is a rule with what is left to test of it in place, the rarest
// first.
type candidate struct {
	rule  *Rule
	tests []conjunct
}

// bounded holds candidates in order of a numeric bound.
type bounded struct {
	field  int
	above  bool // rules ask for more than their bound, which rises; else for less, and it falls
	bounds []float64
	rules  []candidate
}

// linearMost is how many candidates a node tests one by one before it splits
// them: a test costs about 5 ns, a look-up in a map 20.
const linearMost = 8

func newIndex(rules []*Rule) *index {
	var active []candidate
	for _, r := range rules {
		if r.Status != "disabled" {
			active = append(active, candidate{r, r.conjuncts})
		}
	}
	shared := sharing(active)
	for i := range active {
		active[i].tests = slices.Clone(active[i].tests)
		slices.SortStableFunc(active[i].tests, func(a, b conjunct) int { return cmp.Compare(a.cost(shared), b.cost(shared)) })
	}
	x := &index{}
	byField := map[int]map[string][]candidate{}
	var always []candidate
	for _, c := range active {
		if i := best(&c, shared, nil); i >= 0 {
			addByValue(byField, c, i)
		} else {
			always = append(always, c)
		}
	}
	for f := range event.Fields {
		if byField[f] != nil {
			x.roots = append(x.roots, newRoot(f, byField[f]))
		}
	}
	x.always = newNode(always)
	return x
}

// cost puts the test that fails most often first: a value that few rules name
// is rare among events too; kind and outcome have few values; numbers come
// after the rare and before the common.
func (c *conjunct) cost(shared map[fieldValue]int) int {
	switch {
	case c.op == opText || c.op == opAny:
		return 1 << 28 // the dearest of the rare
	case rank(c.field) == 9:
		return 1 << 27
	case c.op == opIs && c.values == nil:
		return shared[fieldValue{c.field, c.one}]
	case c.op >= opLess && c.op <= opEqual:
		return 1 << 20
	}
	return 1 << 25
}

// addByValue hangs a candidate below the values of its test i, which is then
// done.
func addByValue(byField map[int]map[string][]candidate, c candidate, i int) {
	access := &c.tests[i]
	if byField[access.field] == nil {
		byField[access.field] = map[string][]candidate{}
	}
	rest := slices.Delete(slices.Clone(c.tests), i, i+1)
	values, _ := access.access()
	for _, v := range values {
		byField[access.field][v] = append(byField[access.field][v], candidate{c.rule, rest})
	}
}

func newRoot(field int, byValue map[string][]candidate) root {
	r := root{field: field}
	if len(byValue) == 1 {
		for v, list := range byValue {
			r.one, r.only = v, newNode(list)
		}
		return r
	}
	r.byValue = make(map[string]*node, len(byValue))
	for v, list := range byValue {
		r.byValue[v] = newNode(list)
	}
	return r
}

type fieldValue struct {
	field int
	value string
}

// sharing counts the candidates below each value of each field.
func sharing(list []candidate) map[fieldValue]int {
	n := map[fieldValue]int{}
	for _, c := range list {
		for i := range c.tests {
			if values, ok := c.tests[i].access(); ok {
				for _, v := range values {
					n[fieldValue{c.tests[i].field, v}]++
				}
			}
		}
	}
	return n
}

// best is the test of a candidate whose values the fewest share, among the
// fields allowed (nil: all); -1 when there is none.
func best(c *candidate, shared map[fieldValue]int, allowed func(field int) bool) int {
	out, least := -1, 0
	for i := range c.tests {
		values, ok := c.tests[i].access()
		if !ok || allowed != nil && !allowed(c.tests[i].field) {
			continue
		}
		most := 0
		for _, v := range values {
			most = max(most, shared[fieldValue{c.tests[i].field, v}])
		}
		if out < 0 || most < least || most == least && rank(c.tests[i].field) < rank(c.tests[out].field) {
			out, least = i, most
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

func newNode(list []candidate) *node {
	n := &node{}
	if len(list) <= linearMost {
		n.linear = list
		return n
	}
	shared := sharing(list)
	// A field whose one value all of them ask for still turns most events away,
	// unless it is one that nearly all events have alike.
	values := map[int]int{}
	for v := range shared {
		values[v.field]++
	}
	worth := func(f int) bool { return values[f] > 1 || rank(f) != 9 }
	chosen := make([]int, len(list))
	members := map[int]int{}
	for i := range list {
		if chosen[i] = best(&list[i], shared, worth); chosen[i] >= 0 {
			members[list[i].tests[chosen[i]].field]++
		}
	}
	byField := map[int]map[string][]candidate{}
	var left []candidate
	for i, c := range list {
		if chosen[i] >= 0 && members[c.tests[chosen[i]].field] > linearMost {
			addByValue(byField, c, chosen[i])
		} else {
			left = append(left, c)
		}
	}
	for f := range event.Fields {
		if byField[f] != nil {
			n.splits = append(n.splits, newRoot(f, byField[f]))
		}
	}
	n.byBounds(left)
	return n
}

// byBounds orders candidates by a numeric bound where enough of them have one
// on the same field; the others stay to be tested one by one.
func (n *node) byBounds(list []candidate) {
	type side struct {
		field int
		above bool
	}
	type bound struct {
		candidate
		at float64
	}
	groups := map[side][]bound{}
	var order []side
next:
	for _, c := range list {
		for i := range c.tests {
			if t := &c.tests[i]; t.op >= opLess && t.op <= opMoreOrEqual {
				s := side{t.field, t.op >= opMore}
				if groups[s] == nil {
					order = append(order, s)
				}
				groups[s] = append(groups[s], bound{c, t.bound})
				continue next
			}
		}
		n.linear = append(n.linear, c)
	}
	for _, s := range order {
		g := groups[s]
		if len(g) <= linearMost {
			for _, c := range g {
				n.linear = append(n.linear, c.candidate)
			}
			continue
		}
		slices.SortStableFunc(g, func(a, b bound) int {
			if s.above {
				return cmp.Compare(a.at, b.at)
			}
			return cmp.Compare(b.at, a.at)
		})
		b := bounded{field: s.field, above: s.above}
		for _, c := range g {
			b.rules = append(b.rules, c.candidate)
			b.bounds = append(b.bounds, c.at)
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
			n := r.at(b.DictValue(r.field, uint16(code)))
			found = found || n != nil
			nodes = append(nodes, n)
		}
		l.codes[i] = nodes
		if found {
			l.active = append(l.active, activeRoot{b.Codes(r.field), nodes})
		}
	}
}

package rule

import (
	"regexp"
	"strings"

	"github.com/expr-lang/expr/ast"

	"github.com/opencoc/coc/services/event"
)

// op is what a conjunct does with its field.
type op uint8

const (
	opIs  op = iota // text == one of values
	opNot           // text is none of values
	opLess
	opLessOrEqual
	opMore
	opMoreOrEqual
	opEqual
	opUnequal
	opText // a text passes a function
	opAny  // one of several lists of conjuncts holds
)

// conjunct is one && part of match that compares fields with constants: it is
// tested in place, on the columns of a batch, without the VM.
type conjunct struct {
	field  int
	op     op
	one    string              // the only value
	values map[string]struct{} // or several
	bound  float64
	whole  bool // bound is a whole number, and so is the field
	wbound int64
	more   *further // of opText and opAny
}

type further struct {
	test   func(string) bool
	negate bool
	any    [][]conjunct
}

// holds tests a row.
func (c *conjunct) holds(b *event.Batch, row int) bool {
	switch c.op {
	case opIs:
		s := b.Text(c.field, row)
		if c.values == nil {
			return s == c.one
		}
		_, ok := c.values[s]
		return ok
	case opNot:
		s := b.Text(c.field, row)
		if c.values == nil {
			return s != c.one
		}
		_, ok := c.values[s]
		return !ok
	case opText:
		return c.more.test(b.Text(c.field, row)) != c.more.negate
	case opAny:
		for _, all := range c.more.any {
			if allHold(all, b, row) {
				return true
			}
		}
		return false
	}
	if c.whole {
		v, _ := b.Int(c.field, row)
		return compare(c.op, v, c.wbound)
	}
	return compare(c.op, number(b, c.field, row), c.bound)
}

func allHold(list []conjunct, b *event.Batch, row int) bool {
	for i := range list {
		if !list[i].holds(b, row) {
			return false
		}
	}
	return true
}

// eachField calls f with each field that the conjunct reads.
func (c *conjunct) eachField(f func(int)) {
	if c.op != opAny {
		f(c.field)
		return
	}
	for _, all := range c.more.any {
		for i := range all {
			all[i].eachField(f)
		}
	}
}

// measure reads a numeric field, and whether it is there.
func measure(b *event.Batch, field, row int) (float64, bool) {
	if event.Fields[field].Type == event.Float {
		return b.Float(field, row)
	}
	v, ok := b.Int(field, row)
	return float64(v), ok
}

// number reads a numeric field as expressions see it: what is absent is 0.
func number(b *event.Batch, field, row int) float64 {
	v, ok := measure(b, field, row)
	if !ok {
		return 0
	}
	return v
}

func compare[T int64 | float64](o op, v, bound T) bool {
	switch o {
	case opLess:
		return v < bound
	case opLessOrEqual:
		return v <= bound
	case opMore:
		return v > bound
	case opMoreOrEqual:
		return v >= bound
	case opEqual:
		return v == bound
	}
	return v != bound
}

// access lists the values that the field must have one of; ok is false when
// the conjunct is no way into the index.
func (c *conjunct) access() (values []string, ok bool) {
	if c.op != opIs || event.Fields[c.field].Type != event.Dict {
		return nil, false
	}
	if c.values == nil {
		return []string{c.one}, true
	}
	for v := range c.values {
		values = append(values, v)
	}
	return values, true
}

// split takes a match apart: the conjuncts that can be tested in place, and
// the rest joined again, nil when nothing is left.
func (l *language) split(n ast.Node) (native []conjunct, rest ast.Node) {
	var walk func(ast.Node)
	walk = func(n ast.Node) {
		if b, ok := n.(*ast.BinaryNode); ok && b.Operator == "&&" {
			walk(b.Left)
			walk(b.Right)
			return
		}
		if c, ok := l.conjunctOf(n); ok {
			native = append(native, c)
			return
		}
		if rest == nil {
			rest = n
			return
		}
		and := &ast.BinaryNode{Operator: "&&", Left: rest, Right: n}
		and.SetLocation(n.Location())
		rest = and
	}
	walk(n)
	return native, rest
}

func (l *language) conjunctOf(n ast.Node) (conjunct, bool) {
	switch x := n.(type) {
	case *ast.UnaryNode:
		if x.Operator == "!" {
			if c, ok := l.conjunctOf(x.Node); ok {
				return c.negated()
			}
		}
	case *ast.CallNode:
		name, ok := x.Callee.(*ast.IdentifierNode)
		if ok && len(x.Arguments) == 1 && l.tests[name.Value] != nil {
			return textTest(x.Arguments[0], l.tests[name.Value])
		}
	case *ast.BinaryNode:
		switch x.Operator {
		case "||":
			return l.anyOf(x)
		case "in":
			return oneOf(x.Left, x.Right, opIs)
		case "not in":
			return oneOf(x.Left, x.Right, opNot)
		case "contains", "startsWith", "endsWith", "matches":
			return textOperator(x)
		}
		if c, ok := comparisonOf(x.Left, x.Right, x.Operator); ok {
			return c, true
		}
		return comparisonOf(x.Right, x.Left, swapped[x.Operator])
	}
	return conjunct{}, false
}

func (c conjunct) negated() (conjunct, bool) {
	switch c.op {
	case opIs, opNot:
		c.op = opIs + opNot - c.op
		return c, true
	case opText:
		c.more = &further{test: c.more.test, negate: !c.more.negate}
		return c, true
	}
	return c, false
}

func textTest(n ast.Node, test func(string) bool) (conjunct, bool) {
	f, ok := fieldOf(n)
	if !ok || !isText(f) {
		return conjunct{}, false
	}
	return conjunct{field: f, op: opText, more: &further{test: test}}, true
}

func textOperator(x *ast.BinaryNode) (conjunct, bool) {
	right, ok := x.Right.(*ast.StringNode)
	if !ok {
		return conjunct{}, false
	}
	part := right.Value
	test := func(s string) bool { return strings.Contains(s, part) }
	switch x.Operator {
	case "startsWith":
		test = func(s string) bool { return strings.HasPrefix(s, part) }
	case "endsWith":
		test = func(s string) bool { return strings.HasSuffix(s, part) }
	case "matches":
		pattern, err := regexp.Compile(part)
		if err != nil {
			return conjunct{}, false
		}
		test = pattern.MatchString
	}
	return textTest(x.Left, test)
}

// anyOf takes an || whose parts can all be tested in place. Each node is looked
// at once: a long chain must not cost more than its length.
func (l *language) anyOf(x *ast.BinaryNode) (conjunct, bool) {
	c := conjunct{op: opAny, more: &further{}}
	ok := true
	var walk func(ast.Node)
	walk = func(n ast.Node) {
		if b, is := n.(*ast.BinaryNode); is && b.Operator == "||" {
			walk(b.Left)
			walk(b.Right)
			return
		}
		if !ok {
			return
		}
		native, rest := l.split(n)
		ok = rest == nil
		c.more.any = append(c.more.any, native)
	}
	walk(x)
	if !ok {
		return c, false
	}
	if one, same := oneField(c.more.any); same {
		return one, true
	}
	return c, true
}

// oneField turns a == "x" || a == "y" into a in ["x", "y"], which the index
// can enter by.
func oneField(any [][]conjunct) (conjunct, bool) {
	c := conjunct{field: any[0][0].field, op: opIs, values: map[string]struct{}{}}
	for _, all := range any {
		p := &all[0]
		if len(all) != 1 || p.op != opIs || p.field != c.field {
			return c, false
		}
		if p.values == nil {
			c.values[p.one] = struct{}{}
		}
		for v := range p.values {
			c.values[v] = struct{}{}
		}
	}
	return c, true
}

var swapped = map[string]string{"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}

var numericOps = map[string]op{"<": opLess, "<=": opLessOrEqual, ">": opMore, ">=": opMoreOrEqual, "==": opEqual, "!=": opUnequal}

func fieldOf(n ast.Node) (int, bool) {
	id, ok := n.(*ast.IdentifierNode)
	if !ok {
		return 0, false
	}
	f, ok := flatFields[id.Value]
	return f, ok
}

func comparisonOf(l, r ast.Node, operator string) (conjunct, bool) {
	f, ok := fieldOf(l)
	if !ok {
		return conjunct{}, false
	}
	c := conjunct{field: f}
	if isText(f) {
		s, ok := r.(*ast.StringNode)
		if !ok || operator != "==" && operator != "!=" {
			return c, false
		}
		c.one = s.Value
		if operator == "!=" {
			c.op = opNot
		}
		return c, true
	}
	if c.op, ok = numericOps[operator]; !ok || f == event.FLabels {
		return c, false
	}
	negative := false
	if u, ok := r.(*ast.UnaryNode); ok && u.Operator == "-" {
		negative, r = true, u.Node
	}
	switch v := r.(type) {
	case *ast.IntegerNode:
		c.wbound, c.bound = int64(v.Value), float64(v.Value)
		c.whole = event.Fields[f].Type != event.Float
	case *ast.FloatNode:
		c.bound = v.Value
	default:
		return c, false
	}
	if negative {
		c.wbound, c.bound = -c.wbound, -c.bound
	}
	return c, true
}

func oneOf(l, r ast.Node, o op) (conjunct, bool) {
	f, ok := fieldOf(l)
	list, isList := r.(*ast.ArrayNode)
	if !ok || !isList || !isText(f) {
		return conjunct{}, false
	}
	c := conjunct{field: f, op: o, values: make(map[string]struct{}, len(list.Nodes))}
	for _, n := range list.Nodes {
		s, ok := n.(*ast.StringNode)
		if !ok {
			return c, false
		}
		c.values[s.Value] = struct{}{}
	}
	return c, true
}

package rule

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"

	"github.com/opencoc/coc/services/event"
)

// vetter walks an expression as it was parsed: it refuses what a rule may not
// use, by name and with a suggestion, and rewrites fields and functions to
// what env holds.
type vetter struct {
	*language
	mode    mode
	need    need
	slots   []slot
	inside  string // the aggregate whose argument is being vetted
	problem *problem
}

func (v *vetter) fail(n ast.Node, hint, format string, args ...any) {
	if v.problem == nil {
		v.problem = &problem{n.Location().From, fmt.Sprintf(format, args...), hint}
	}
}

var operators = []string{"==", "!=", "<", "<=", ">", ">=", "&&", "||", "and", "or", "in", "not in", "contains", "startsWith", "endsWith", "matches", "+", "-", "*", "/", "%", "^", "**", "??"}

// node vets *n and what is below it.
func (v *vetter) node(n *ast.Node, depth int) {
	if v.problem != nil {
		return
	}
	if depth > 4*limitDepth { // a chain of && leans to one side
		if _, ok := (*n).(*ast.BinaryNode); !ok || depth > limitNodes {
			v.fail(*n, "", "nested too deeply")
			return
		}
	}
	switch x := (*n).(type) {
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.StringNode:
	case *ast.IdentifierNode:
		v.name(n, x)
	case *ast.MemberNode:
		v.member(n, x, depth)
	case *ast.UnaryNode:
		v.node(&x.Node, depth+1)
	case *ast.BinaryNode:
		v.binary(x, depth)
	case *ast.ConditionalNode:
		v.node(&x.Cond, depth+1)
		v.node(&x.Exp1, depth+1)
		v.node(&x.Exp2, depth+1)
	case *ast.ArrayNode:
		if len(x.Nodes) > limitIn {
			v.fail(x, "put them into a list and use in_list", "%d values in brackets; at most %d are allowed", len(x.Nodes), limitIn)
		}
		for i := range x.Nodes {
			v.node(&x.Nodes[i], depth+1)
		}
	case *ast.BuiltinNode:
		v.builtin(x, depth)
	case *ast.CallNode:
		v.call(n, x, depth)
	case *ast.NilNode:
		v.fail(x, `absent texts are "" and absent numbers 0; has(f) tells whether a number is there`, "there is no nil")
	default:
		v.fail(x, "", "%q cannot be used in a rule", shorten(safeString(x)))
	}
}

func safeString(n ast.Node) (s string) {
	defer func() {
		if recover() != nil {
			s = "this"
		}
	}()
	return n.String()
}

func (v *vetter) binary(x *ast.BinaryNode, depth int) {
	switch x.Operator {
	case "..":
		v.fail(x, "write a >= 1 && a <= 3", "ranges are not known here")
		return
	case "matches":
		pattern, ok := x.Right.(*ast.StringNode)
		if !ok {
			v.fail(x.Right, "", "the pattern of matches must be a constant text")
			return
		}
		if size, err := patternSize(pattern.Value); err != nil {
			v.fail(pattern, "", "the pattern is not a regular expression: %v", err)
			return
		} else if size > limitPattern {
			v.fail(pattern, "make it shorter, or use a list", "the pattern has %d steps; at most %d are allowed", size, limitPattern)
			return
		}
	}
	if !slices.Contains(operators, x.Operator) {
		v.fail(x, "", "the operator %s is not known here", x.Operator)
		return
	}
	v.node(&x.Left, depth+1)
	v.node(&x.Right, depth+1)
}

// patternSize counts the instructions of a pattern: matching costs at most that
// many steps for each byte of a text.
func patternSize(pattern string) (int, error) {
	if _, err := regexp.Compile(pattern); err != nil {
		return 0, err
	}
	tree, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return 0, err
	}
	prog, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return 0, err
	}
	return len(prog.Inst), nil
}

func (v *vetter) builtin(x *ast.BuiltinNode, depth int) {
	if !slices.Contains(allowedBuiltins, x.Name) {
		v.unknownFunction(x, x.Name)
		return
	}
	for i := range x.Arguments {
		v.node(&x.Arguments[i], depth+1)
	}
}

// name vets a bare identifier: a field without a dot, a word of the calendar,
// an aggregate without an argument.
func (v *vetter) name(n *ast.Node, x *ast.IdentifierNode) {
	switch x.Value {
	case "night", "weekend", "office", "holiday":
		v.calendar(n, x, x.Value)
		return
	case "count", "rate":
		if v.mode == inCondition && v.inside == "" {
			v.aggregate(n, x.Value, nil)
			return
		}
	case "labels":
		v.fail(x, `write labels["name"]`, "labels cannot be used as a whole")
		return
	}
	if f := event.FieldByName(x.Value); f >= 0 {
		v.field(n, x, f)
		return
	}
	v.unknownName(x, x.Value)
}

func (v *vetter) unknownName(n ast.Node, name string) {
	var group []string
	for _, f := range FieldNames() {
		if strings.HasPrefix(f, name+".") {
			group = append(group, f)
		}
	}
	if len(group) > 0 {
		v.fail(n, "there is "+strings.Join(group, ", "), "%s is a group of fields", name)
		return
	}
	if slices.ContainsFunc(Functions(), func(f Function) bool { return f.Name == name }) {
		v.fail(n, "write "+name+"(…)", "%s is a function", name)
		return
	}
	hint := meant(name, append(FieldNames(), "night", "weekend", "office", "holiday", "count", "rate"))
	if hint == "" {
		hint = `texts stand in quotes; the fields are listed by "coc rules fields" and in the event's schema`
	}
	v.fail(n, hint, "there is no field %q", shorten(name))
}

// member vets a.b.c, labels["x"] and local(time).hour.
func (v *vetter) member(n *ast.Node, x *ast.MemberNode, depth int) {
	if x.Optional {
		v.fail(x, "write . instead", "?. is not needed: absent texts are \"\"")
		return
	}
	if call, ok := x.Node.(*ast.CallNode); ok {
		v.localPart(n, x, call)
		return
	}
	path, ok := dotted(x)
	if !ok {
		v.fail(x, "", "%q cannot be used in a rule", shorten(safeString(x)))
		return
	}
	if key, ok := strings.CutPrefix(path, "labels."); ok {
		v.label(n, x, key)
		return
	}
	if f := event.FieldByName(path); f >= 0 {
		v.field(n, x, f)
		return
	}
	v.unknownName(rootOf(x), path)
}

func rootOf(n ast.Node) ast.Node {
	for {
		m, ok := n.(*ast.MemberNode)
		if !ok {
			return n
		}
		n = m.Node
	}
}

func dotted(n ast.Node) (string, bool) {
	switch x := n.(type) {
	case *ast.IdentifierNode:
		return x.Value, true
	case *ast.MemberNode:
		p, ok := x.Property.(*ast.StringNode)
		if !ok || x.Optional {
			return "", false
		}
		base, ok := dotted(x.Node)
		return base + "." + p.Value, ok
	}
	return "", false
}

// field rewrites a field to its name in env.
func (v *vetter) field(n *ast.Node, at ast.Node, f int) {
	def := &event.Fields[f]
	if f == event.FEpoch || f == event.FSeq {
		v.fail(at, "", "%s numbers events; it says nothing about what happened", def.Name)
		return
	}
	if v.mode == inCondition && v.inside == "" {
		switch {
		case f == event.FUserName:
			v.fail(at, "use user.hash, or test the name in match", "a condition cannot look at user.name: windows keep no names")
			return
		case def.Class == event.Free:
			v.fail(at, "test it in match, or with share(…)", "a condition cannot look at %s: windows keep no free text", def.Name)
			return
		}
	}
	v.need |= needs(f)
	ast.Patch(n, &ast.IdentifierNode{Value: flatName(f)})
}

func (v *vetter) label(n *ast.Node, at ast.Node, key string) {
	if v.mode == inCondition && v.inside == "" {
		v.fail(at, "test them in match, or with share(…)", "a condition cannot look at labels: windows keep no free text")
		return
	}
	v.need |= needs(event.FLabels)
	v.function(n, "label", func(args []any) any {
		for _, l := range args[0].(labels) {
			if l.Key == key {
				return l.Value
			}
		}
		return ""
	}, new(func(labels) string), &ast.IdentifierNode{Value: "labels_"})
}

func (v *vetter) calendar(n *ast.Node, at ast.Node, part string) {
	v.need |= needLocal
	local := &ast.IdentifierNode{Value: "local_"}
	local.SetLocation(at.Location())
	property := &ast.StringNode{Value: part}
	property.SetLocation(at.Location())
	ast.Patch(n, &ast.MemberNode{Node: local, Property: property})
}

// localPart vets local(t).part.
func (v *vetter) localPart(n *ast.Node, x *ast.MemberNode, call *ast.CallNode) {
	name, _ := call.Callee.(*ast.IdentifierNode)
	part, ok := x.Property.(*ast.StringNode)
	if name == nil || name.Value != "local" || !ok || len(call.Arguments) != 1 {
		v.fail(x, "local(time).hour is known", "%q cannot be used in a rule", shorten(safeString(x)))
		return
	}
	if !slices.Contains(localNames, part.Value) {
		hint := meant(part.Value, localNames)
		if hint == "" {
			hint = "known are " + strings.Join(localNames, ", ")
		}
		v.fail(x, hint, "local time has no %q", shorten(part.Value))
		return
	}
	v.localOf(n, x, call.Arguments[0], part.Value)
}

// localOf rewrites a part of the local time of an argument. That of the
// event's own time is made once per event.
func (v *vetter) localOf(n *ast.Node, at ast.Node, arg ast.Node, part string) {
	if id, ok := arg.(*ast.IdentifierNode); ok && id.Value == "time" {
		v.calendar(n, at, part)
		return
	}
	v.node(&arg, 1)
	zone := v.zone
	var f ast.Node
	v.function(&f, "local", func(args []any) any { return localTime(toMillis(args[0]), zone) }, new(func(any) Local), arg)
	if f == nil {
		return
	}
	f.SetLocation(at.Location())
	property := &ast.StringNode{Value: part}
	property.SetLocation(at.Location())
	ast.Patch(n, &ast.MemberNode{Node: f, Property: property})
}

func toMillis(v any) int64 {
	switch v := v.(type) {
	case int64:
		return v
	case int:
		return int64(v)
	case float64:
		return int64(max(0, min(v, event.MaxTime)))
	}
	return 0
}

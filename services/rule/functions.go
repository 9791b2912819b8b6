package rule

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/builtin"

	"github.com/opencoc/coc/services/event"
)

// Function describes one function of the rule language, for help.
type Function struct{ Name, Signature, Doc string }

// Functions lists the functions that a rule may call.
func Functions() []Function { return slices.Clone(functionTable) }

var functionTable = []Function{
	{"local", "local(time).hour", "a part of a moment on the hoster's clock: " + strings.Join(localNames, ", ")},
	{"night", "night(time)", "between 21:00 and 07:00; bare night is that of the event"},
	{"weekend", "weekend(time)", "Saturday or Sunday"},
	{"office", "office(time)", "Monday to Friday from 08:00 to 18:00"},
	{"holiday", "holiday(time)", "a Dutch public holiday"},
	{"has", "has(duration)", "whether an optional number is there"},
	{"in_list", `in_list(source.ip, "scanners")`, "whether a text is in a list; in a list of networks, whether the address is inside one"},
	{"lookup", `lookup("owners", service.name)`, `the value of a map list, "" when absent`},
	{"cidr", `cidr(source.ip, "10.0.0.0/8")`, "whether an address is inside one of the networks"},
	{"private", "private(source.ip)", "whether an address is private, loopback or link-local"},
	{"allowance", `allowance("name", tenant.tier)`, "what a tier is allowed"},
	{"min", "min(a, b)", "the least of numbers; in a condition min(f) is the least of the window"},
	{"max", "max(a, b)", "the greatest of numbers; in a condition max(f) is the greatest of the window"},
	{"abs", "abs(n)", ""}, {"ceil", "ceil(n)", ""}, {"floor", "floor(n)", ""}, {"round", "round(n)", ""},
	{"int", "int(x)", ""}, {"float", "float(x)", ""}, {"string", "string(x)", ""},
	{"len", "len(text)", "in characters"},
	{"lower", "lower(text)", ""}, {"upper", "upper(text)", ""}, {"trim", "trim(text)", ""},
	{"hasPrefix", "hasPrefix(text, part)", ""}, {"hasSuffix", "hasSuffix(text, part)", ""}, {"indexOf", "indexOf(text, part)", "-1 when it is not there"},
}

// FieldNames lists the dotted names of the fields that a rule may use.
func FieldNames() []string {
	out := make([]string, 0, len(event.Fields))
	for i, f := range event.Fields {
		if i != event.FEpoch && i != event.FSeq && i != event.FLabels {
			out = append(out, f.Name)
		}
	}
	return out
}

// Kinds lists the kinds of rules.
func Kinds() []string { return []string{"match", "threshold"} }

// function registers fn under a name of its own and makes *n a call of it.
// Constant arguments are thus bound when a set is loaded.
func (v *vetter) function(n *ast.Node, name string, fn func([]any) any, signature any, args ...ast.Node) {
	if v.problem != nil {
		return
	}
	v.serial++
	own := fmt.Sprintf("%s_%d", name, v.serial)
	f := &builtin.Function{Name: own, Func: func(params ...any) (any, error) { return fn(params), nil }}
	f.Types = []reflect.Type{reflect.TypeOf(signature).Elem()}
	v.config.Functions[own] = f
	callee := &ast.IdentifierNode{Value: own}
	call := &ast.CallNode{Callee: callee, Arguments: args}
	if *n != nil {
		callee.SetLocation((*n).Location())
		ast.Patch(n, call)
		return
	}
	*n = call
}

// test is function for a test of one text; the index calls it without the VM
// when its argument is a field.
func (v *vetter) test(n *ast.Node, name string, f func(string) bool, arg ast.Node) {
	v.function(n, name, func(a []any) any { return f(a[0].(string)) }, new(func(string) bool), arg)
	if v.problem == nil {
		v.tests[fmt.Sprintf("%s_%d", name, v.serial)] = f
	}
}

var loops = []string{"all", "none", "any", "one", "filter", "map", "find", "findIndex", "findLast", "findLastIndex", "groupBy", "sortBy", "reduce"}

var aggregates = []string{"count", "rate", "sum", "avg", "min", "max", "distinct", "share", "p50", "p90", "p95", "p99"}

func (v *vetter) call(n *ast.Node, x *ast.CallNode, depth int) {
	id, ok := x.Callee.(*ast.IdentifierNode)
	if !ok {
		v.fail(x, "", "%q cannot be called", shorten(safeString(x.Callee)))
		return
	}
	name := id.Value
	if slices.Contains(aggregates, name) {
		if v.mode == inCondition && v.inside == "" {
			v.aggregate(n, name, x)
			return
		}
		if name != "min" && name != "max" {
			v.fail(x, "it measures a window and belongs into condition, outside of other measures", "%s(…) cannot be used here", name)
			return
		}
	}
	switch name {
	case "night", "weekend", "office", "holiday":
		if v.count(x, 1, 1) {
			v.localOf(n, x, x.Arguments[0], name)
		}
	case "local":
		v.fail(x, "write local(time).hour", "local time must be taken apart")
	case "has":
		v.has(n, x)
	case "in_list":
		v.inList(n, x)
	case "lookup":
		v.lookup(n, x)
	case "cidr":
		v.cidr(n, x)
	case "private":
		if v.count(x, 1, 1) {
			v.node(&x.Arguments[0], depth+1)
			v.test(n, name, isPrivate, x.Arguments[0])
		}
	case "allowance":
		v.allowance(n, x)
	case "min", "max":
		v.extreme(n, x, name, depth)
	default:
		v.unknownFunction(x, name)
	}
}

func (v *vetter) unknownFunction(n ast.Node, name string) {
	switch {
	case slices.Contains(loops, name):
		v.fail(n, "", "%s(…) loops over a list; rules have no loops", name)
	case name == "now" || name == "date" || name == "duration" || name == "timezone":
		v.fail(n, "the event's own time is `time`, on the hoster's clock local(time).hour", "%s(…) is not there: a rule knows no clock but the event's", name)
	default:
		names := append([]string{}, aggregates...)
		for _, f := range functionTable {
			names = append(names, f.Name)
		}
		v.fail(n, meant(name, names), "there is no function %q", shorten(name))
	}
}

func (v *vetter) count(x *ast.CallNode, least, most int) bool {
	if n := len(x.Arguments); n < least || n > most {
		name := x.Callee.(*ast.IdentifierNode).Value
		v.fail(x, "write "+v.signature(name), "%s has %d arguments", name, n)
		return false
	}
	return true
}

func (v *vetter) signature(name string) string {
	for _, f := range functionTable {
		if f.Name == name {
			return f.Signature
		}
	}
	return name + "(…)"
}

func (v *vetter) constant(n ast.Node, what string) (string, bool) {
	s, ok := n.(*ast.StringNode)
	if !ok {
		v.fail(n, "", "%s must be a constant text", what)
		return "", false
	}
	return s.Value, true
}

func (v *vetter) has(n *ast.Node, x *ast.CallNode) {
	if !v.count(x, 1, 1) {
		return
	}
	path, _ := dotted(x.Arguments[0])
	f := event.FieldByName(path)
	if f < 0 || event.Fields[f].Required || event.Fields[f].Type != event.Int && event.Fields[f].Type != event.Float {
		v.fail(x.Arguments[0], `a text is absent when it is ""`, "has(…) is about process.pid, duration, server.duration, bytes and value")
		return
	}
	v.need |= needs(f)
	ast.Patch(n, &ast.IdentifierNode{Value: "has_" + flatName(f)})
}

func (v *vetter) inList(n *ast.Node, x *ast.CallNode) {
	if !v.count(x, 2, 2) {
		return
	}
	l := v.list(x.Arguments[1])
	v.node(&x.Arguments[0], 1)
	if l == nil {
		return
	}
	v.test(n, "in_list", l.has, x.Arguments[0])
}

func (v *vetter) lookup(n *ast.Node, x *ast.CallNode) {
	if !v.count(x, 2, 2) {
		return
	}
	l := v.list(x.Arguments[0])
	v.node(&x.Arguments[1], 1)
	if l == nil {
		return
	}
	if l.Type != "map" {
		v.fail(x.Arguments[0], "use in_list", "the list %q is no map", l.Name)
		return
	}
	v.function(n, "lookup", func(a []any) any { return l.values[a[0].(string)] }, new(func(string) string), x.Arguments[1])
}

func (v *vetter) list(n ast.Node) *list {
	name, ok := v.constant(n, "the name of a list")
	if !ok {
		return nil
	}
	l := v.data.lists[name]
	if l == nil {
		names := make([]string, 0, len(v.data.lists))
		for n := range v.data.lists {
			names = append(names, n)
		}
		slices.Sort(names)
		hint := meant(name, names)
		if hint == "" {
			hint = fmt.Sprintf("make a file lists/%s.txt", name)
		}
		v.fail(n, hint, "there is no list %q", shorten(name))
	}
	return l
}

func (v *vetter) cidr(n *ast.Node, x *ast.CallNode) {
	if !v.count(x, 2, 50) {
		return
	}
	var nets []netip.Prefix
	for _, a := range x.Arguments[1:] {
		s, ok := v.constant(a, "a network")
		if !ok {
			return
		}
		p, err := parseNet(s)
		if err != nil {
			v.fail(a, "write it like 10.0.0.0/8", "%q is not a network", shorten(s))
			return
		}
		nets = append(nets, p)
	}
	v.node(&x.Arguments[0], 1)
	v.test(n, "cidr", func(s string) bool {
		ip, err := netip.ParseAddr(s)
		return err == nil && slices.ContainsFunc(nets, func(p netip.Prefix) bool { return p.Contains(ip.Unmap().WithZone("")) })
	}, x.Arguments[0])
}

func parseNet(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		ip, err := netip.ParseAddr(s)
		if err != nil {
			return netip.Prefix{}, err
		}
		return ip.Unmap().WithZone("").Prefix(ip.Unmap().BitLen())
	}
	p, err := netip.ParsePrefix(s)
	return p.Masked(), err
}

func isPrivate(s string) bool {
	ip, err := netip.ParseAddr(s)
	if err != nil {
		return false
	}
	ip = ip.Unmap()
	return ip.IsPrivate() || ip.IsLoopback() || ip.IsLinkLocalUnicast()
}

// allowance binds the name. In a condition it takes a slot, so that the
// finding can say what was allowed.
func (v *vetter) allowance(n *ast.Node, x *ast.CallNode) {
	if !v.count(x, 2, 2) {
		return
	}
	name, ok := v.constant(x.Arguments[0], "the name of an allowance")
	if !ok {
		return
	}
	a := v.data.allowance(name)
	if a == nil {
		v.fail(x.Arguments[0], meant(name, v.data.allowanceNames()), "there is no allowance %q in allowances.yaml", shorten(name))
		return
	}
	written := x.String()
	v.node(&x.Arguments[1], 1)
	if v.problem != nil {
		return
	}
	if id, ok := x.Arguments[1].(*ast.IdentifierNode); ok && v.mode == inCondition && v.inside == "" {
		if f, ok := flatFields[id.Value]; ok && isText(f) {
			v.slot(n, slot{kind: slotAllowance, written: written, field: f, allowance: a})
			return
		}
	}
	v.function(n, "allowance", func(args []any) any { return a.For(args[0].(string)) }, new(func(string) float64), x.Arguments[1])
}

func (v *vetter) extreme(n *ast.Node, x *ast.CallNode, name string, depth int) {
	if !v.count(x, 2, 10) {
		return
	}
	for i := range x.Arguments {
		v.node(&x.Arguments[i], depth+1)
	}
	v.function(n, name, func(a []any) any {
		best := toFloat(a[0])
		for _, o := range a[1:] {
			if name == "min" {
				best = min(best, toFloat(o))
			} else {
				best = max(best, toFloat(o))
			}
		}
		return best
	}, new(func(...any) float64), x.Arguments...)
}

func toFloat(v any) float64 {
	switch v := v.(type) {
	case int:
		return float64(v)
	case int64:
		return float64(v)
	case float64:
		return v
	}
	panic("not a number")
}

func isText(f int) bool {
	return event.Fields[f].Type == event.Dict || event.Fields[f].Type == event.Text
}

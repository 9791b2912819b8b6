package rule

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"time"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/builtin"
	"github.com/expr-lang/expr/checker"
	"github.com/expr-lang/expr/compiler"
	"github.com/expr-lang/expr/conf"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/optimizer"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/vm"

	"github.com/opencoc/coc/services/event"
)

// program is a compiled boolean expression and the fields it reads.
type program struct {
	code *vm.Program
	need need
}

// mode says where an expression stands, which decides what it may name.
type mode uint8

const (
	inMatch     mode = iota // match, share(...), an exception's when
	inCondition             // aggregates, and fields of the firing event
)

// language compiles the expressions of one set. It is not safe for concurrent
// use.
type language struct {
	config *conf.Config
	data   *data
	zone   *time.Location
	serial int
	tests  map[string]func(string) bool // functions of one text, by the names made for them
}

// allowedBuiltins are the functions of expr that a rule may call: they cost no
// more than the length of their arguments.
var allowedBuiltins = []string{"abs", "ceil", "float", "floor", "hasPrefix", "hasSuffix", "indexOf", "int", "len", "lower", "round", "string", "trim", "upper"}

func newLanguage(data *data, zone *time.Location) *language {
	c := conf.New(env{})
	c.Expect = reflect.Bool
	c.MaxNodes = limitNodes
	for name := range builtin.Index {
		if !contains(allowedBuiltins, name) {
			c.Disabled[name] = true
			delete(c.Builtins, name)
		}
	}
	// Loops of expr parse in their own way unless a function has their name;
	// as functions they come to vetting, which explains.
	for _, name := range []string{"all", "none", "any", "one", "filter", "map", "count", "sum", "find", "findIndex", "findLast", "findLastIndex", "groupBy", "sortBy", "reduce"} {
		c.Functions[name] = &builtin.Function{Name: name, Func: func(...any) (any, error) { return nil, errors.New("not a function") }}
	}
	return &language{config: c, data: data, zone: zone, tests: map[string]func(string) bool{}}
}

// problem is an error at a rune of an expression.
type problem struct {
	at      int
	message string
	hint    string
}

func (p *problem) Error() string { return p.message }

// vetted is an expression that names only what it may, with fields rewritten
// to those of env.
type vetted struct {
	source    file.Source
	node      ast.Node
	canonical string // the same for all ways to format it
	need      need
	slots     []slot // of a condition
}

// vet parses and vets an expression.
func (l *language) vet(text string, m mode) (*vetted, *problem) {
	if strings.TrimSpace(text) == "" {
		return nil, &problem{0, "the expression is empty", ""}
	}
	if len(text) > limitExpression {
		return nil, &problem{0, fmt.Sprintf("the expression has %d bytes; at most %d are allowed", len(text), limitExpression), "put values into a list and use in_list"}
	}
	if at := nestsTooDeep(text); at >= 0 {
		return nil, &problem{at, fmt.Sprintf("nested deeper than %d levels", limitDepth), ""}
	}
	tree, err := parser.ParseWithConfig(text, l.config)
	if err != nil {
		return nil, problemOf(err)
	}
	v := &vetter{language: l, mode: m}
	oneSpelling(tree.Node)
	canonical := tree.Node.String()
	v.node(&tree.Node, 0)
	if v.problem != nil {
		return nil, v.problem
	}
	out := &vetted{source: tree.Source, node: tree.Node, canonical: canonical, need: v.need, slots: v.slots}
	if p := l.check(out); p != nil {
		return nil, p
	}
	return out, nil
}

// oneSpelling writes and, or and not as &&, || and !, so that the spelling does
// not make another logic.
func oneSpelling(n ast.Node) {
	spelling := map[string]string{"and": "&&", "or": "||", "not": "!"}
	ast.Walk(&n, visitor(func(n ast.Node) {
		switch x := n.(type) {
		case *ast.BinaryNode:
			if s, ok := spelling[x.Operator]; ok {
				x.Operator = s
			}
		case *ast.UnaryNode:
			if s, ok := spelling[x.Operator]; ok {
				x.Operator = s
			}
		}
	}))
}

// nestsTooDeep bounds the recursion of the parser: brackets, and the operators
// that stack without one.
func nestsTooDeep(text string) int {
	depth, run := 0, 0
	for i, r := range []rune(text) {
		switch r {
		case '(', '[', '{':
			depth++
		case ')', ']', '}':
			depth--
		}
		switch r {
		case '!', '-', '+', '?':
			run++
		case ' ', '\t', '\n', '\r':
		default:
			run = 0
		}
		if depth > limitDepth || run > limitDepth {
			return i
		}
	}
	if strings.Count(text, "not ") > limitDepth || strings.Count(text, "?") > limitDepth || strings.Count(text, "else") > limitDepth {
		return 0
	}
	return -1
}

// check finds errors of types.
func (l *language) check(v *vetted) *problem {
	t, err := checker.Check(&parser.Tree{Node: v.node, Source: v.source}, l.config)
	if err == nil && t.Kind() == reflect.Bool {
		return joinsTexts(v.node)
	}
	if err == nil {
		return &problem{v.node.Location().From, fmt.Sprintf("the expression gives %s; it must be true or false", t), "compare it with something"}
	}
	p := problemOf(err)
	if got, ok := strings.CutPrefix(p.message, "expected bool, but got "); ok {
		p = &problem{v.node.Location().From, fmt.Sprintf("the expression gives %s; it must be true or false", got), "compare it with something"}
	}
	return p
}

// joinsTexts forbids what makes long texts out of short ones.
func joinsTexts(n ast.Node) (p *problem) {
	find := func(n ast.Node) {
		b, ok := n.(*ast.BinaryNode)
		if ok && b.Operator == "+" && b.Type() != nil && b.Type().Kind() == reflect.String && p == nil {
			p = &problem{b.Location().From, "texts cannot be joined here", "compare the parts"}
		}
	}
	ast.Walk(&n, visitor(find))
	return p
}

type visitor func(ast.Node)

func (v visitor) Visit(n *ast.Node) { v(*n) }

// compile makes a program out of a vetted tree; node may be part of it.
func (l *language) compile(v *vetted, node ast.Node) (p *program, err error) {
	defer func() {
		if r := recover(); r != nil { // the optimizer, on trees that its authors did not think of
			err = fmt.Errorf("the expression cannot be compiled: %v", r)
		}
	}()
	tree := &parser.Tree{Node: node, Source: v.source}
	if _, err := checker.Check(tree, l.config); err != nil {
		return nil, problemOf(err)
	}
	if err := optimizer.Optimize(&tree.Node, l.config); err != nil {
		return nil, problemOf(err)
	}
	code, err := compiler.Compile(tree, l.config)
	if err != nil {
		return nil, problemOf(err)
	}
	return &program{code: code, need: needOf(node)}, nil
}

// needOf finds the fields that a rewritten tree reads.
func needOf(n ast.Node) (sum need) {
	ast.Walk(&n, visitor(func(n ast.Node) {
		id, ok := n.(*ast.IdentifierNode)
		if !ok {
			return
		}
		switch id.Value {
		case "local_":
			sum |= needLocal
		case "labels_":
			sum |= needs(event.FLabels)
		default:
			name := strings.TrimPrefix(id.Value, "has_")
			if f, ok := flatFields[name]; ok {
				sum |= needs(f)
			}
		}
	}))
	return sum
}

var flatFields = func() map[string]int {
	m := map[string]int{}
	for i := range event.Fields {
		m[flatName(i)] = i
	}
	return m
}()

var undefined = regexp.MustCompile(`^unknown name `)

func problemOf(err error) *problem {
	var p *problem
	if errors.As(err, &p) {
		return p
	}
	var at *file.Error
	if errors.As(err, &at) {
		message := at.Message
		if undefined.MatchString(message) {
			message = "unknown " + strings.TrimPrefix(message, "unknown ")
		}
		return &problem{at.From, message, ""}
	}
	first, _, _ := strings.Cut(err.Error(), "\n")
	return &problem{0, first, ""}
}

package rule

import (
	"math"
	"strconv"

	"github.com/expr-lang/expr/ast"
)

// Most conditions compare measures with numbers, joined by && and ||. Those are
// turned into closures, at a tenth of the VM's cost; all others run in the VM.
// Both give the same answer (native_test.go): whole numbers below 2^53 are
// exact as float64, and expr compares mixed numbers as float64 too.

// nativeCondition returns nil when the tree holds anything else.
func nativeCondition(n ast.Node) func(*measures) bool {
	switch x := n.(type) {
	case *ast.UnaryNode:
		f := nativeCondition(x.Node)
		if f == nil || x.Operator != "!" && x.Operator != "not" {
			return nil
		}
		return func(m *measures) bool { return !f(m) }
	case *ast.BinaryNode:
		switch x.Operator {
		case "&&", "and", "||", "or":
			l, r := nativeCondition(x.Left), nativeCondition(x.Right)
			if l == nil || r == nil {
				return nil
			}
			if x.Operator == "&&" || x.Operator == "and" {
				return func(m *measures) bool { return l(m) && r(m) }
			}
			return func(m *measures) bool { return l(m) || r(m) }
		}
		return nativeComparison(x)
	}
	return nil
}

func nativeComparison(x *ast.BinaryNode) func(*measures) bool {
	l, r := nativeNumber(x.Left), nativeNumber(x.Right)
	if l == nil || r == nil {
		return nil
	}
	switch x.Operator {
	case "<":
		return func(m *measures) bool { return l(m) < r(m) }
	case "<=":
		return func(m *measures) bool { return l(m) <= r(m) }
	case ">":
		return func(m *measures) bool { return l(m) > r(m) }
	case ">=":
		return func(m *measures) bool { return l(m) >= r(m) }
	case "==":
		return func(m *measures) bool { return l(m) == r(m) }
	case "!=":
		return func(m *measures) bool { return l(m) != r(m) }
	}
	return nil
}

func nativeNumber(n ast.Node) func(*measures) float64 {
	switch x := n.(type) {
	case *ast.IntegerNode:
		v := float64(x.Value)
		if math.Abs(v) > 1<<53 {
			return nil
		}
		return func(*measures) float64 { return v }
	case *ast.FloatNode:
		v := x.Value
		return func(*measures) float64 { return v }
	case *ast.IdentifierNode:
		if len(x.Value) < 2 || x.Value[0] != 'N' && x.Value[0] != 'X' {
			return nil
		}
		i, err := strconv.Atoi(x.Value[1:])
		if err != nil || i < 0 || i >= maxAggregates {
			return nil
		}
		return func(m *measures) float64 { return m[i] }
	case *ast.UnaryNode:
		f := nativeNumber(x.Node)
		if f == nil || x.Operator != "-" {
			return nil
		}
		return func(m *measures) float64 { return -f(m) }
	case *ast.BinaryNode:
		return nativeArithmetic(x)
	}
	return nil
}

func nativeArithmetic(x *ast.BinaryNode) func(*measures) float64 {
	l, r := nativeNumber(x.Left), nativeNumber(x.Right)
	if l == nil || r == nil {
		return nil
	}
	switch x.Operator {
	case "+":
		return func(m *measures) float64 { return l(m) + r(m) }
	case "-":
		return func(m *measures) float64 { return l(m) - r(m) }
	case "*":
		return func(m *measures) float64 { return l(m) * r(m) }
	case "/":
		return func(m *measures) float64 { return l(m) / r(m) }
	}
	return nil
}

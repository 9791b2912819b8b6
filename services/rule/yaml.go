package rule

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// document is one YAML file while it is read: it knows the source lines, and
// collects what is wrong.
type document struct {
	file  string
	lines []string
	errs  *Errors
}

// pair is one key of a mapping with its value.
type pair struct {
	key   string
	at    *token.Position
	value ast.Node
}

// parse reads data as one YAML document. Anchors, aliases, tags and merge keys
// are refused: nothing here needs them, and they make small files big.
func (d *document) parse(data []byte) (ast.Node, bool) {
	d.lines = strings.Split(string(data), "\n")
	for i, l := range d.lines {
		d.lines[i] = strings.TrimSuffix(l, "\r")
	}
	if len(data) > limitFileBytes {
		d.fail(0, 0, "", "the file has %d bytes; at most %d are read", len(data), limitFileBytes)
		return nil, false
	}
	if !utf8.Valid(data) || bytes.IndexByte(data, 0) >= 0 {
		d.fail(0, 0, "save it as UTF-8", "the file is not text in UTF-8")
		return nil, false
	}
	data = bytes.TrimPrefix(bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n")), []byte("\uFEFF"))
	if line := tooDeep(d.lines); line > 0 {
		d.fail(line, 1, "", "nested deeper than %d levels", limitNesting)
		return nil, false
	}
	file, err := parser.ParseBytes(data, 0)
	if err != nil {
		var syntax *yaml.SyntaxError
		if errors.As(err, &syntax) && syntax.Token != nil {
			d.fail(syntax.Token.Position.Line, syntax.Token.Position.Column, "", "%s", syntax.Message)
		} else {
			d.fail(0, 0, "", "not YAML: %v", err)
		}
		return nil, false
	}
	if len(file.Docs) != 1 {
		d.fail(1, 1, "make it files of their own", "the file holds %d documents", len(file.Docs))
		return nil, false
	}
	body := file.Docs[0].Body
	if _, comment := body.(*ast.CommentGroupNode); body == nil || comment {
		return nil, true // empty, or comments only
	}
	return body, d.plain(body)
}

// tooDeep finds a line that nests too deeply before the parser recurses into
// it: by brackets or by dashes on a line. Indentation is bounded by the length
// of lines, which costs the square of the depth in bytes.
func tooDeep(lines []string) int {
	depth := 0
	for i, l := range lines {
		opens := strings.Count(l, "[") + strings.Count(l, "{")
		depth = max(0, depth+opens-strings.Count(l, "]")-strings.Count(l, "}"))
		indent := len(l) - len(strings.TrimLeft(l, " -?"))
		if depth > limitNesting || indent > 4*limitNesting || strings.Count(l, ": ") > 4*limitNesting+opens*1000 {
			return i + 1
		}
	}
	return 0
}

type plainVisitor struct {
	d  *document
	ok bool
}

func (v *plainVisitor) Visit(n ast.Node) ast.Visitor {
	what := ""
	switch n.(type) {
	case *ast.AnchorNode, *ast.AliasNode:
		what = "anchors and aliases"
	case *ast.TagNode:
		what = "tags"
	case *ast.MergeKeyNode:
		what = "merge keys"
	case *ast.DirectiveNode:
		what = "directives"
	}
	if what != "" && v.ok {
		v.d.failAt(n, "write it out", "%s are not read here", what)
		v.ok = false
	}
	return v
}

func (d *document) plain(n ast.Node) bool {
	v := &plainVisitor{d: d, ok: true}
	ast.Walk(v, n)
	return v.ok
}

func (d *document) fail(line, col int, hint, format string, args ...any) {
	e := &Error{File: d.file, Line: line, Col: col, Message: fmt.Sprintf(format, args...), Hint: hint}
	if line > 0 && line <= len(d.lines) {
		e.Source = d.lines[line-1]
		if e.Col <= 0 {
			e.Col = 1
		}
	}
	*d.errs = append(*d.errs, e)
}

func (d *document) failPos(p *token.Position, hint, format string, args ...any) {
	if p == nil {
		d.fail(0, 0, hint, format, args...)
		return
	}
	d.fail(p.Line, p.Column, hint, format, args...)
}

func (d *document) failAt(n ast.Node, hint, format string, args ...any) {
	d.failPos(position(n), hint, format, args...)
}

// position is where a node begins; a mapping says where its first key stands.
func position(n ast.Node) *token.Position {
	switch n := n.(type) {
	case nil:
		return nil
	case *ast.MappingNode:
		if !n.IsFlowStyle && len(n.Values) > 0 {
			return position(n.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return position(n.Key)
	}
	if t := n.GetToken(); t != nil {
		return t.Position
	}
	return nil
}

// mapping returns the entries in the order of the file.
func (d *document) mapping(n ast.Node, what string) ([]pair, bool) {
	var values []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingNode:
		values = n.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{n}
	default:
		d.failAt(n, "", "%s must be keys with values, not %s", what, kindOf(n))
		return nil, false
	}
	out := make([]pair, 0, len(values))
	for _, v := range values {
		key, ok := scalar(v.Key)
		if !ok {
			d.failAt(v.Key, "", "a key must be a word")
			continue
		}
		out = append(out, pair{key, position(v.Key), v.Value})
	}
	return out, true
}

// known reports the keys that are not among names.
func (d *document) known(entries []pair, what string, names []string) {
	for _, e := range entries {
		if !contains(names, e.key) {
			hint := meant(e.key, names)
			if hint == "" {
				hint = "known are " + strings.Join(names, ", ")
			}
			d.failPos(e.at, hint, "%s has no key %q", what, shorten(e.key))
		}
	}
}

func contains(names []string, s string) bool {
	for _, n := range names {
		if n == s {
			return true
		}
	}
	return false
}

func (d *document) list(n ast.Node, what string) ([]ast.Node, bool) {
	s, ok := n.(*ast.SequenceNode)
	if !ok {
		d.failAt(n, "", "%s must be a list, not %s", what, kindOf(n))
		return nil, false
	}
	return s.Values, true
}

// text reads a scalar as it is written; true, 10 and 10m are texts too.
func (d *document) text(n ast.Node, what string, limit int) (string, bool) {
	s, ok := scalar(n)
	switch {
	case !ok:
		d.failAt(n, "", "%s must be a text, not %s", what, kindOf(n))
	case len(s) > limit:
		d.failAt(n, "", "%s has %d bytes; at most %d are allowed", what, len(s), limit)
		ok = false
	}
	return s, ok
}

func scalar(n any) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.(ast.Node).GetToken().Value, true
	case *ast.MappingKeyNode:
		return scalar(n.Value)
	}
	return "", false
}

func kindOf(n ast.Node) string {
	switch n.(type) {
	case nil, *ast.NullNode:
		return "nothing"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "keys with values"
	case *ast.SequenceNode:
		return "a list"
	}
	return "a single value"
}

func (d *document) number(n ast.Node, what string) (float64, bool) {
	s, ok := d.text(n, what, 40)
	if !ok {
		return 0, false
	}
	v, err := strconv.ParseFloat(strings.ReplaceAll(s, "_", ""), 64)
	if err != nil || v != v || v > 1e300 || v < -1e300 {
		d.failAt(n, "", "%s must be a number, not %q", what, shorten(s))
		return 0, false
	}
	return v, true
}

func (d *document) integer(n ast.Node, what string, least, most int) (int, bool) {
	v, ok := d.number(n, what)
	if ok && (v != float64(int(v)) || v < float64(least) || v > float64(most)) {
		d.failAt(n, "", "%s must be a whole number from %d to %d", what, least, most)
		return 0, false
	}
	return int(v), ok
}

func (d *document) duration(n ast.Node, what string, least, most time.Duration) (time.Duration, bool) {
	s, ok := d.text(n, what, 40)
	if !ok {
		return 0, false
	}
	v, ok := ParseDuration(s)
	if !ok {
		d.failAt(n, "write a number with s, m, h, d or w, like 10m or 1h30m", "%s must be a length of time, not %q", what, shorten(s))
		return 0, false
	}
	if v < least || v > most {
		d.failAt(n, "", "%s must be from %s to %s", what, FormatDuration(least), FormatDuration(most))
		return 0, false
	}
	return v, true
}

// oneOf reads a word from a vocabulary.
func (d *document) oneOf(n ast.Node, what string, words []string) (string, bool) {
	s, ok := d.text(n, what, 100)
	if !ok {
		return "", false
	}
	if !contains(words, s) {
		hint := meant(s, words)
		if hint == "" {
			hint = "use one of " + strings.Join(words, ", ")
		}
		d.failAt(n, hint, "%s cannot be %q", what, shorten(s))
		return "", false
	}
	return s, true
}

// texts reads a text in one language or several.
func (d *document) texts(n ast.Node, what string) (Text, bool) {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
	default:
		s, ok := d.text(n, what, limitText)
		if ok && strings.TrimSpace(s) == "" {
			d.failAt(n, "", "%s is empty", what)
			return nil, false
		}
		return Text{"en": s}, ok
	}
	entries, _ := d.mapping(n, what)
	d.known(entries, what, []string{"en", "nl"})
	t := Text{}
	for _, e := range entries {
		if s, ok := d.text(e.value, what, limitText); ok {
			t[e.key] = s
		}
	}
	if t["en"] == "" {
		d.failAt(n, "", "%s has no text in English (en)", what)
		return t, false
	}
	return t, true
}

// place finds the line and column of a rune of a scalar's value in the file.
// Quotes, block styles and folding only change white space, so the rune is
// found by counting the others.
func (d *document) place(n ast.Node, value string, offset int) (line, col int) {
	p := position(n)
	if p == nil {
		return 0, 0
	}
	line, col = p.Line, p.Column // columns count runes, from 1
	switch s := n.(type) {
	case *ast.LiteralNode:
		line, col = s.Start.Position.Line+1, 1
	case *ast.StringNode:
		if t := s.GetToken().Type; t == token.DoubleQuoteType || t == token.SingleQuoteType {
			col++
		}
	}
	ahead := 0
	for i, r := range []rune(value) {
		if i == offset {
			break
		}
		if !unicode.IsSpace(r) {
			ahead++
		}
	}
	for ; line <= len(d.lines); line, col = line+1, 1 {
		runes := []rune(d.lines[line-1])
		for ; col <= len(runes); col++ {
			if unicode.IsSpace(runes[col-1]) {
				continue
			}
			if ahead == 0 {
				return line, col
			}
			ahead--
			if ahead == 0 && offset >= len([]rune(value)) {
				return line, col + 1
			}
		}
	}
	return p.Line, p.Column
}

// ParseDuration reads a number with s, m, h, d (24 hours) or w, or several of
// them: 90s, 1h30m, 30d. "0s" is zero.
func ParseDuration(s string) (time.Duration, bool) {
	units := map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour, 'w': 7 * 24 * time.Hour}
	var total time.Duration
	if s == "" {
		return 0, false
	}
	for s != "" {
		i := 0
		for i < len(s) && s[i] >= '0' && s[i] <= '9' {
			i++
		}
		if i == 0 || i > 9 || i == len(s) {
			return 0, false
		}
		n, _ := strconv.Atoi(s[:i])
		unit, ok := units[s[i]]
		if !ok {
			if strings.HasPrefix(s[i:], "ms") {
				unit, i = time.Millisecond, i+1
			} else {
				return 0, false
			}
		} else if strings.HasPrefix(s[i:], "ms") {
			unit, i = time.Millisecond, i+1
		}
		if total += time.Duration(n) * unit; total < 0 || time.Duration(n) > (1<<62)/unit {
			return 0, false
		}
		s = s[i+1:]
	}
	return total, true
}

// FormatDuration writes a duration as ParseDuration reads it.
func FormatDuration(d time.Duration) string {
	if d == 0 {
		return "0s"
	}
	var b strings.Builder
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}, {time.Millisecond, "ms"}} {
		if n := d / u.unit; n > 0 {
			b.WriteString(strconv.FormatInt(int64(n), 10) + u.name)
			d -= n * u.unit
		}
	}
	return b.String()
}

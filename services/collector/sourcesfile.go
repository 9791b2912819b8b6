package collector

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/opencoc/coc/services/bus"
	"github.com/opencoc/coc/services/event"
)

// SourceSet is what a sources.yaml says.
type SourceSet struct {
	File    string // "" built in
	Sources []Source
	// SystemAccounts are names, besides the built-in ones, that stay readable; a
	// trailing * stands for anything.
	SystemAccounts []string
}

// Source is one place events come from.
type Source struct {
	Name, Kind, Path, Format, TZ, Tenant, Host string
	Labels                                     map[string]string
	// Every is how often host and processes look; 0: the default.
	Every time.Duration
	// Expect is the longest expected silence; 0: none.
	Expect time.Duration
	// Lateness is how late its events may come; 0: the kind's default.
	Lateness time.Duration
	// Line is where it stands in the file; 0 built in.
	Line int
}

// DefaultSources are those of a collector without a sources.yaml: this machine,
// and whoever sends.
func DefaultSources() *SourceSet {
	s := &SourceSet{}
	for _, kind := range [...]string{"host", "processes", "journal", "http", "nats"} {
		s.Sources = append(s.Sources, Source{Name: kind, Kind: kind, Lateness: kindByName(kind).lateness})
	}
	return s
}

func (s *SourceSet) names() []string {
	var names []string
	for _, src := range s.Sources {
		names = append(names, src.Name)
	}
	return names
}

// SourceErrors are all errors of a sources.yaml.
type SourceErrors struct{ Errors []SourceError }

// SourceError is one of them. Line and Col count from 1; Source is the line
// itself.
type SourceError struct {
	File      string
	Line, Col int
	Text      string
	Source    string
}

// Error shows every error with its place, the line and a caret.
func (e *SourceErrors) Error() string {
	var b strings.Builder
	for i, x := range e.Errors {
		if i > 0 {
			b.WriteString("\n")
		}
		b.WriteString(x.Error())
	}
	return b.String()
}

// Error is "file:line:col: text", the line and a caret below the column.
func (e SourceError) Error() string {
	head := fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Col, e.Text)
	if e.Source == "" {
		return head
	}
	pad := []rune(e.Source)
	for i, r := range pad {
		if r != '\t' {
			pad[i] = ' '
		}
	}
	return head + "\n    " + e.Source + "\n    " + string(pad[:min(max(e.Col-1, 0), len(pad))]) + "^"
}

// LoadSources reads a sources.yaml. Errors of its content come as *SourceErrors,
// all at once.
func LoadSources(path string) (*SourceSet, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read sources: %w", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return nil, fmt.Errorf("read sources: %s is a folder: give the file, such as %s/sources.yaml", path, strings.TrimSuffix(path, "/"))
	}
	data, err := io.ReadAll(io.LimitReader(f, limitSourcesFile+1))
	if err != nil {
		return nil, fmt.Errorf("read sources: %w", err)
	}
	if len(data) > limitSourcesFile {
		return nil, fmt.Errorf("read sources: %s is larger than %d KiB", path, limitSourcesFile>>10)
	}
	return ParseSources(path, data)
}

// ParseSources reads the content of a sources.yaml; name stands in errors.
func ParseSources(name string, data []byte) (*SourceSet, error) {
	p := &sourcesParser{name: name, lines: strings.Split(string(data), "\n")}
	if i := slices.IndexFunc(data, func(c byte) bool { return c < 0x20 && c != '\n' && c != '\r' && c != '\t' }); i >= 0 {
		line := 1 + strings.Count(string(data[:i]), "\n")
		p.at(line, 1, "the line holds a byte that is no text (0x%02x)", data[i])
		return nil, p.err()
	}
	file, err := parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		var y yaml.Error
		if errors.As(err, &y) && y.GetToken() != nil && y.GetToken().Position != nil {
			p.at(y.GetToken().Position.Line, y.GetToken().Position.Column, "%s", y.GetMessage())
		} else {
			p.at(1, 1, "%s", strings.Split(err.Error(), "\n")[0])
		}
		return nil, p.err()
	}
	set := &SourceSet{File: name}
	if len(file.Docs) > 1 {
		p.node(file.Docs[1], "one document is read; remove the second")
	}
	if len(file.Docs) == 0 || file.Docs[0].Body == nil {
		p.at(1, 1, `the file is empty; write "sources:" and a list, or leave the file away for the built-in sources`)
		return nil, p.err()
	}
	p.top(file.Docs[0].Body, set)
	if err := p.err(); err != nil {
		return nil, err
	}
	return set, nil
}

// sourcesParser walks the document and collects errors.
type sourcesParser struct {
	name   string
	lines  []string
	errors []SourceError
}

func (p *sourcesParser) err() error {
	if len(p.errors) == 0 {
		return nil
	}
	slices.SortStableFunc(p.errors, func(a, b SourceError) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Col - b.Col
	})
	return &SourceErrors{p.errors}
}

func (p *sourcesParser) at(line, col int, format string, args ...any) {
	e := SourceError{File: p.name, Line: max(line, 1), Col: max(col, 1), Text: fmt.Sprintf(format, args...)}
	if line >= 1 && line <= len(p.lines) {
		e.Source = strings.TrimRight(p.lines[line-1], "\r")
	}
	p.errors = append(p.errors, e)
}

func (p *sourcesParser) node(n ast.Node, format string, args ...any) {
	if n == nil || n.GetToken() == nil || n.GetToken().Position == nil {
		p.at(1, 1, format, args...)
		return
	}
	pos := n.GetToken().Position
	p.at(pos.Line, pos.Column, format, args...)
}

// pairs calls fn for each key of a mapping; a key given twice is an error.
func (p *sourcesParser) pairs(n ast.Node, what string, fn func(key string, at, value ast.Node)) bool {
	var values []*ast.MappingValueNode
	switch m := n.(type) {
	case *ast.MappingNode:
		values = m.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{m}
	default:
		p.node(n, "%s must be a mapping (key: value)", what)
		return false
	}
	seen := map[string]bool{}
	for _, v := range values {
		key := v.Key.GetToken().Value
		if seen[key] {
			p.node(v.Key, "%s is given twice", key)
			continue
		}
		seen[key] = true
		fn(key, v.Key, v.Value)
	}
	return true
}

func (p *sourcesParser) top(n ast.Node, set *SourceSet) {
	found := false
	ok := p.pairs(n, "the file", func(key string, at, value ast.Node) {
		switch key {
		case "sources":
			found = true
			p.sources(value, set)
		case "system_accounts":
			set.SystemAccounts = p.texts(value, key)
		default:
			p.node(at, "unknown key %q; known are sources, system_accounts", key)
		}
	})
	if ok && !found {
		p.node(n, `there is no key "sources"`)
	}
}

func (p *sourcesParser) texts(n ast.Node, key string) (list []string) {
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		p.node(n, "%s must be a list", key)
		return nil
	}
	for _, v := range seq.Values {
		list = append(list, p.text(v, key))
	}
	return list
}

// text returns a scalar as it is written.
func (p *sourcesParser) text(n ast.Node, key string) string {
	switch v := n.(type) {
	case *ast.StringNode:
		return v.Value
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value
	case *ast.NullNode:
		p.node(n, "%s has no value", key)
	default:
		p.node(n, "%s must be a text", key)
	}
	return ""
}

func (p *sourcesParser) sources(n ast.Node, set *SourceSet) {
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		p.node(n, "sources must be a list (- name: …)")
		return
	}
	if len(seq.Values) > limitSources {
		p.node(n, "%d sources, at most %d are run", len(seq.Values), limitSources)
		return
	}
	names := map[string]int{}
	for _, item := range seq.Values {
		s, ok := p.source(item)
		if !ok {
			continue
		}
		if line := names[s.Name]; line != 0 && s.Name != "" {
			p.node(item, "source %q has the name of the one in line %d", s.Name, line)
		}
		names[s.Name] = s.Line
		set.Sources = append(set.Sources, s)
	}
	for _, kind := range [...]string{"http", "nats", "journal"} {
		p.once(set, kind)
	}
}

// once refuses a second source of a kind that there is one of.
func (p *sourcesParser) once(set *SourceSet, kind string) {
	line := 0
	for _, s := range set.Sources {
		if s.Kind != kind {
			continue
		}
		if line != 0 {
			p.at(s.Line, 1, "a second source of kind %s; the first is in line %d, and one is all there can be", kind, line)
		}
		line = s.Line
	}
}

func (p *sourcesParser) source(n ast.Node) (s Source, ok bool) {
	at := map[string]ast.Node{}
	keys := map[string]ast.Node{}
	ok = p.pairs(n, "a source", func(key string, k, value ast.Node) {
		at[key], keys[key] = value, k
	})
	if !ok {
		return s, false
	}
	start := n.GetToken().Position
	if m, is := n.(*ast.MappingNode); is && len(m.Values) > 0 {
		start = m.Values[0].Key.GetToken().Position
	}
	s.Line = start.Line
	if v := at["kind"]; v != nil {
		s.Kind = p.text(v, "kind")
	} else {
		p.at(start.Line, start.Column, "the source has no kind; known are %s", kindNames())
	}
	kind := kindByName(s.Kind)
	if kind == nil && s.Kind != "" {
		p.node(at["kind"], "unknown kind %q; known are %s", s.Kind, kindNames())
	}
	s.Name = s.Kind
	for key, value := range at {
		p.key(&s, kind, key, keys[key], value)
	}
	if s.Name != "" {
		if err := bus.CheckName(s.Name); err != nil {
			p.node(or(at["name"], n), "name %q: use 1 to 64 of A-Z a-z 0-9 - and _", s.Name)
		}
	}
	if s.Kind == "logfile" {
		p.logfile(&s, at, start)
	}
	if kind != nil && s.Lateness == 0 {
		s.Lateness = kind.lateness
	}
	return s, true
}

func or(a, b ast.Node) ast.Node {
	if a != nil {
		return a
	}
	return b
}

func (p *sourcesParser) key(s *Source, kind *sourceKind, key string, at, value ast.Node) {
	if key == "name" || key == "kind" {
		if key == "name" {
			s.Name = p.text(value, key)
		}
		return
	}
	if kind == nil {
		if !slices.Contains(allSourceKeys(), key) {
			p.node(at, "unknown key %q", key)
		}
		return
	}
	if !slices.Contains(kind.Keys, key) {
		p.node(at, "unknown key %q for kind %s; known are name, kind, %s", key, kind.Name, strings.Join(kind.Keys, ", "))
		return
	}
	switch key {
	case "path":
		s.Path = p.text(value, key)
	case "format":
		if s.Format = p.text(value, key); s.Format != "" && !knownFormat(s.Format) {
			p.node(value, "unknown format %q; known are %s", s.Format, formatNames())
		}
	case "tz":
		if s.TZ = p.text(value, key); s.TZ != "" {
			if _, err := loadZone(s.TZ); err != nil {
				p.node(value, "unknown time zone %q; write one such as Europe/Amsterdam or UTC", s.TZ)
			}
		}
	case "tenant":
		s.Tenant = p.bounded(value, key, 128)
	case "host":
		s.Host = p.bounded(value, key, 512)
	case "labels":
		p.labels(s, value)
	case "every":
		s.Every = p.duration(value, key, time.Second, time.Hour)
	case "expect":
		s.Expect = p.duration(value, key, time.Second, 366*24*time.Hour)
	case "lateness":
		s.Lateness = p.duration(value, key, time.Second, time.Hour)
	}
}

func (p *sourcesParser) bounded(n ast.Node, key string, limit int) string {
	s := p.text(n, key)
	if len(s) > limit {
		p.node(n, "%s has %d bytes, at most %d are accepted", key, len(s), limit)
	}
	if printable(s) != s {
		p.node(n, "%s holds a control character", key)
	}
	return s
}

func (p *sourcesParser) labels(s *Source, n ast.Node) {
	p.pairs(n, "labels", func(key string, at, value ast.Node) {
		if key == "" || len(key) > event.LimitLabelKey {
			p.node(at, "a label's key has 1 to %d bytes", event.LimitLabelKey)
			return
		}
		if s.Labels == nil {
			s.Labels = map[string]string{}
		}
		s.Labels[key] = p.bounded(value, "label "+key, event.LimitText)
	})
	if len(s.Labels) > event.LimitLabels/2 {
		p.node(n, "%d labels, at most %d may come from the source, so that its events have room for theirs", len(s.Labels), event.LimitLabels/2)
	}
}

var durationText = regexp.MustCompile(`^([0-9]+)(ms|s|m|h|d)$`)

// duration reads 10s, 5m, 6h, 30d.
func (p *sourcesParser) duration(n ast.Node, key string, least, most time.Duration) time.Duration {
	text := p.text(n, key)
	if text == "" {
		return 0
	}
	m := durationText.FindStringSubmatch(text)
	if m == nil || len(m[1]) > 9 {
		p.node(n, "%s is %q; write a duration such as 10s, 5m, 6h or 30d", key, text)
		return 0
	}
	count := time.Duration(digitsOf(m[1]))
	d := count * map[string]time.Duration{"ms": time.Millisecond, "s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}[m[2]]
	if d < least || d > most {
		p.node(n, "%s is %s; %v to %v is accepted", key, text, least, most)
	}
	return d
}

func digitsOf(s string) (n int64) {
	for i := range len(s) {
		n = n*10 + int64(s[i]-'0')
	}
	return n
}

func (p *sourcesParser) logfile(s *Source, at map[string]ast.Node, start *token.Position) {
	if at["path"] == nil {
		p.at(start.Line, start.Column, "a logfile has a path")
	} else if s.Path != "" && !strings.HasPrefix(s.Path, "/") {
		p.node(at["path"], "path %q is not absolute; write it from /, so that it does not depend on where coc was started", s.Path)
	}
	if at["format"] == nil {
		s.Format = formatSyslog
	}
}

func kindNames() string {
	var names []string
	for i := range sourceKinds {
		names = append(names, sourceKinds[i].Name)
	}
	return strings.Join(names, ", ")
}

func allSourceKeys() []string {
	var keys []string
	for i := range sourceKinds {
		keys = append(keys, sourceKinds[i].Keys...)
	}
	return keys
}

// loadZone is time.LoadLocation without its meaning of "" and "Local", which
// depend on the machine.
func loadZone(name string) (*time.Location, error) {
	if name == "" || name == "Local" {
		return nil, fmt.Errorf("unknown time zone %q", name)
	}
	return time.LoadLocation(name)
}

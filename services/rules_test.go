package services

import (
	"fmt"
	"go/ast"
	"go/token"
	"regexp"
	"slices"
	"strings"
)

// floors is the house: a folder imports folders of lower floors only. A folder
// that is not here has no place yet.
var floors = map[string]int{
	"schemas": 0, "event": 0,
	"rule": 1, "bus": 1, "store": 1,
	"collector": 2, "engine": 2, "sink": 2, "stats": 2, "console": 2,
	"coc": 3,
}

// owners says which folder alone may import a module: what knows NATS, SQL or
// expr stays in one place, so that it can be changed there. Tests may, since a
// test plays the outside world: a foreign NATS client, a reader of tables.
var owners = []struct{ prefix, folder string }{
	{"github.com/expr-lang/expr", "rule"},
	{"github.com/nats-io/", "bus"},
	{"github.com/synadia-io/orbit.go", "bus"},
	{"github.com/ClickHouse/", "store"},
	{"github.com/ebitengine/purego", "store"},
	{"github.com/alecthomas/kong", "coc"},
}

// schemasReader is the one folder whose code reads the contracts at run time.
const schemasReader = "store"

// importsDown complains about imports that go sideways or up.
func importsDown(folder string, test bool, imports []string) (complaints []string) {
	if folder == "services" {
		return nil // these tests
	}
	from, known := floors[folder]
	if !known {
		return []string{fmt.Sprintf("services/%s has no floor: give it one in the design and in services/rules_test.go", folder)}
	}
	for _, i := range imports {
		if !strings.HasPrefix(i, module+"/") {
			continue
		}
		to := folderOf(i)
		floor, known := floors[to]
		switch {
		case to == folder:
		case !known:
			complaints = append(complaints, fmt.Sprintf("services/%s imports %s, which has no floor: give it one in the design and in services/rules_test.go", folder, i))
		case to == "schemas" && (test || folder == schemasReader):
		case to == "schemas":
			complaints = append(complaints, fmt.Sprintf("services/%s imports schemas: only %s reads the contracts at run time; tests may", folder, schemasReader))
		case floor >= from:
			complaints = append(complaints, fmt.Sprintf("services/%s (floor %d) imports services/%s (floor %d): imports point down only; move what is shared to a lower floor, or let coc join the two", folder, from, to, floor))
		}
	}
	return complaints
}

// modulesOwned complains about a module imported outside its owner's folder.
func modulesOwned(s *source) (complaints []string) {
	if s.test {
		return nil
	}
	for _, i := range s.imports {
		for _, o := range owners {
			if s.folder != o.folder && (i == o.prefix || strings.HasPrefix(i, strings.TrimSuffix(o.prefix, "/")+"/")) {
				complaints = append(complaints, fmt.Sprintf("%s: imports %s, which belongs to services/%s alone: ask that package for what you need", s.path, i, o.folder))
			}
		}
	}
	return complaints
}

// process names what reads the environment or ends the process.
var process = map[string][]string{
	"os":      {"Getenv", "LookupEnv", "Environ", "ExpandEnv", "Setenv", "Unsetenv", "Clearenv", "UserHomeDir", "UserConfigDir", "UserCacheDir", "Args", "Exit"},
	"syscall": {"Getenv", "Environ", "Exit"},
	"log":     {"Fatal", "Fatalf", "Fatalln"},
	"flag":    {"Parse", "CommandLine"},
}

// environmentUnread complains about reading flags and environment, or ending the
// process, outside coc.
func environmentUnread(s *source) (complaints []string) {
	if s.test || s.folder == "coc" {
		return nil
	}
	ast.Inspect(s.file, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := sel.X.(*ast.Ident); ok && slices.Contains(process[s.aliases[x.Name]], sel.Sel.Name) {
			complaints = append(complaints, s.at(sel.Pos(), "%s.%s belongs to services/coc alone: take the value in your Config, return the error", x.Name, sel.Sel.Name))
		}
		return true
	})
	return complaints
}

const (
	maxFileLines     = 500
	maxFunctionLines = 70
)

// long finds a written reason for length.
var long = regexp.MustCompile(`(?m)^//\s?long: \S.{9,}`)

// short complains about long files and functions that give no reason in a
// comment "// long: …".
func short(s *source) (complaints []string) {
	if s.test || ast.IsGenerated(s.file) {
		return nil
	}
	reasoned := func(from, to token.Pos) bool {
		for _, g := range s.file.Comments {
			for _, c := range g.List {
				if c.Pos() >= from && c.Pos() < to && long.MatchString(c.Text) {
					return true
				}
			}
		}
		return false
	}
	head := s.file.End()
	for _, d := range s.file.Decls {
		if g, ok := d.(*ast.GenDecl); !ok || g.Tok != token.IMPORT {
			head = start(d)
			break
		}
	}
	if s.lines > maxFileLines && !reasoned(s.file.FileStart, head) {
		complaints = append(complaints, fmt.Sprintf("%s: %d lines, more than %d: cut it along its seams, or give the reason at its top in a comment that begins with \"long: \"", s.path, s.lines, maxFileLines))
	}
	for _, d := range s.file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		lines := s.set.Position(f.End()).Line - s.set.Position(f.Pos()).Line + 1
		if lines > maxFunctionLines && !reasoned(start(f), f.End()) {
			complaints = append(complaints, s.at(f.Pos(), "%s has %d lines, more than %d: cut it along its seams, or give the reason in a comment that begins with \"long: \"", f.Name.Name, lines, maxFunctionLines))
		}
	}
	return complaints
}

// start is where a declaration begins, with its comment.
func start(d ast.Decl) token.Pos {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Doc != nil {
			return d.Doc.Pos()
		}
	case *ast.GenDecl:
		if d.Doc != nil {
			return d.Doc.Pos()
		}
	}
	return d.Pos()
}

// contracts are methods whose meaning their interface gives.
var contracts = []string{"Error", "Unwrap", "Is", "As", "String", "GoString", "MarshalJSON", "UnmarshalJSON", "MarshalText", "UnmarshalText",
	"MarshalYAML", "UnmarshalYAML", "Len", "Less", "Swap", "ServeHTTP", "Describe", "Collect"}

// documented complains about exported names without a docstring that begins with
// the name.
func documented(s *source) (complaints []string) {
	if s.test || ast.IsGenerated(s.file) {
		return nil
	}
	need := func(p token.Pos, what, name string, doc *ast.CommentGroup) {
		if doc == nil {
			complaints = append(complaints, s.at(p, "%s %s is exported and has no docstring: say what it promises, with units, ranges, errors and ownership", what, name))
		} else if !beginsWith(doc.Text(), name) {
			complaints = append(complaints, s.at(p, "the docstring of %s %s does not begin with its name", what, name))
		}
	}
	for _, d := range s.file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if !d.Name.IsExported() || d.Recv != nil && (!ast.IsExported(receiver(d)) || slices.Contains(contracts, d.Name.Name)) {
				continue
			}
			need(d.Pos(), "func", d.Name.Name, d.Doc)
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					doc := spec.Doc
					if doc == nil && !d.Lparen.IsValid() {
						doc = d.Doc
					}
					if spec.Name.IsExported() {
						need(spec.Pos(), "type", spec.Name.Name, doc)
					}
				case *ast.ValueSpec:
					if exported := slices.IndexFunc(spec.Names, (*ast.Ident).IsExported); exported >= 0 && spec.Doc == nil && spec.Comment == nil && d.Doc == nil {
						complaints = append(complaints, s.at(spec.Pos(), "%s %s is exported and has no docstring, and neither has its group", d.Tok, spec.Names[exported].Name))
					}
				}
			}
		}
	}
	return complaints
}

// beginsWith reports whether a docstring's first words are the name, with an
// article or not.
func beginsWith(doc, name string) bool {
	for _, article := range []string{"A ", "An ", "The "} {
		doc = strings.TrimPrefix(doc, article)
	}
	rest, ok := strings.CutPrefix(doc, name)
	return ok && (rest == "" || strings.ContainsAny(rest[:1], " \n,.:;'’("))
}

// receiver is the name of a method's type.
func receiver(f *ast.FuncDecl) string {
	e := f.Recv.List[0].Type
	for {
		switch t := e.(type) {
		case *ast.StarExpr:
			e = t.X
		case *ast.IndexExpr:
			e = t.X
		case *ast.IndexListExpr:
			e = t.X
		case *ast.Ident:
			return t.Name
		default:
			return ""
		}
	}
}

// bounded complains about a package of the floors below coc without a limits.go:
// each of them takes something in from outside, and all bounds of a package stand
// in one place.
func bounded(dir string, files []*source) []string {
	folder := folderOf(dir)
	if floor, known := floors[folder]; !known || folder == "schemas" || floor > 2 || dir != "services/"+folder {
		return nil
	}
	for _, s := range files {
		if strings.HasSuffix(s.path, "/limits.go") {
			return nil
		}
	}
	return []string{fmt.Sprintf("%s: no limits.go: put every bound of buffers, requests and fields there as a named constant with its reason", dir)}
}

// units are no limits: kib, MiB.
var units = regexp.MustCompile(`(?i)^[kmg]i?b$`)

// limitsReasoned complains about bounds in a limits.go that say no reason: a
// comment of their own, or one directly above a run of lines that belong together.
func limitsReasoned(s *source) (complaints []string) {
	if s.test || !strings.HasSuffix(s.path, "/limits.go") {
		return nil
	}
	for _, d := range s.file.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST && g.Tok != token.VAR {
			continue
		}
		last := -1 // line of the last spec that is covered
		for _, spec := range g.Specs {
			v := spec.(*ast.ValueSpec)
			line := s.set.Position(v.Pos()).Line
			if units.MatchString(v.Names[0].Name) {
				continue
			}
			if v.Doc != nil || v.Comment != nil || g.Doc != nil || line == last+1 {
				last = s.set.Position(v.End()).Line
				continue
			}
			complaints = append(complaints, s.at(v.Pos(), "the limit %s gives no reason: why this much, and what happens beyond", v.Names[0].Name))
		}
	}
	return complaints
}

// unfinished are the marks of work that was left.
var unfinished = regexp.MustCompile(`\b(` + "TO" + `DO|FIX` + `ME|XX` + `X|HA` + `CK)\b|(?i)\bnot implemented\b`)

// finished complains about such marks in comments, in tests too.
func finished(s *source) (complaints []string) {
	for _, g := range s.file.Comments {
		for _, c := range g.List {
			if m := unfinished.FindString(c.Text); m != "" {
				complaints = append(complaints, s.at(c.Pos(), "%q in a comment: do it, or open an issue", m))
			}
		}
	}
	return complaints
}

// vague are names that say nothing about what is inside.
var vague = []string{"util", "utils", "common", "helper", "helpers", "misc", "shared", "base", "lib", "pkg", "internal", "models", "model", "manager", "types", "core"}

// packageNamed complains about folders and packages with vague names.
func packageNamed(dir, name string) (complaints []string) {
	for _, part := range append(strings.Split(dir, "/"), name) {
		if slices.Contains(vague, part) {
			complaints = append(complaints, fmt.Sprintf("%s: the name %q says nothing about what is inside: name it after what it is about", dir, part))
		}
	}
	return slices.Compact(complaints)
}

const (
	minPageLines = 3  // less is a title, not a page
	maxPageLines = 70 // more is not read
)

// packageDocumented complains about a package without a page that explains it:
// doc.go, or the package comment of its only file.
func packageDocumented(dir string, files []*source) []string {
	var page *source
	for _, s := range files {
		if s.file.Name.Name != files[0].file.Name.Name {
			return []string{fmt.Sprintf("%s: two packages in one folder, %s and %s", dir, s.file.Name.Name, files[0].file.Name.Name)}
		}
		if strings.HasSuffix(s.path, "/doc.go") || len(files) == 1 {
			page = s
		}
	}
	if page == nil {
		return []string{fmt.Sprintf("%s: no doc.go: write one page on what the package owns, what it promises, what it never does", dir)}
	}
	want := "Package " + page.file.Name.Name + " "
	if page.file.Name.Name == "main" {
		want = "Command "
	}
	text := page.file.Doc.Text()
	switch lines := strings.Count(text, "\n"); {
	case !strings.HasPrefix(text, want):
		return []string{fmt.Sprintf("%s: its package comment does not begin with %q", page.path, want)}
	case lines < minPageLines || lines > maxPageLines:
		return []string{fmt.Sprintf("%s: a package comment of %d lines; one page is %d to %d", page.path, lines, minPageLines, maxPageLines)}
	}
	return nil
}

package services

import (
	"strings"
	"testing"
)

// goFile parses a file for a table below.
func goFile(t *testing.T, name, text string) *source {
	t.Helper()
	s, err := parse(name, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// oneComplaint fails unless there is exactly one complaint, with the text; an
// empty text means none.
func oneComplaint(t *testing.T, got []string, want string) {
	t.Helper()
	switch {
	case want == "" && len(got) > 0:
		t.Errorf("complained without reason: %q", got)
	case want != "" && (len(got) != 1 || !strings.Contains(got[0], want)):
		t.Errorf("got complaints %q, want one with %q", got, want)
	}
}

func TestImportCheckRefusesSidewaysAndUp(t *testing.T) {
	f := func(folder string, test bool, imported, want string) {
		t.Helper()
		if !strings.Contains(imported, ".") && imported != "fmt" {
			imported = module + "/" + imported
		}
		oneComplaint(t, importsDown(folder, test, []string{"fmt", imported, "github.com/nats-io/nats.go"}), want)
	}
	f("rule", false, "services/event", "")
	f("console", false, "services/store", "")
	f("coc", false, "services/console", "")
	f("coc", false, "services/event", "")
	f("console", false, "services/console/web", "")
	f("store", false, "schemas", "")
	f("event", true, "schemas", "")

	f("event", false, "services/bus", "point down only")
	f("bus", false, "services/store", "services/bus (floor 1) imports services/store (floor 1)")
	f("engine", false, "services/collector", "point down only")
	f("sink", true, "services/engine", "point down only")
	f("console", false, "services/coc", "point down only")
	f("console/web", false, "services/event", "has no floor")
	f("collector", false, "schemas", "only store reads the contracts")
	f("parser", false, "services/event", "services/parser has no floor")
	f("rule", false, "services/parser", "which has no floor")
}

func TestFolderIsTheFirstBelowServices(t *testing.T) {
	f := func(dir, want string) {
		t.Helper()
		if got := folderOf(dir); got != want {
			t.Errorf("folderOf(%q) = %q, want %q", dir, got, want)
		}
	}
	f("services/bus", "bus")
	f("services/console/web/api", "console")
	f(module+"/services/store", "store")
	f(module+"/schemas", "schemas")
	f("schemas", "schemas")
	f("services", "services")
}

func TestModuleCheckRefusesForeignOwners(t *testing.T) {
	f := func(name, imported, want string) {
		t.Helper()
		oneComplaint(t, modulesOwned(goFile(t, name, "package x\nimport _ \""+imported+"\"\n")), want)
	}
	f("services/rule/a.go", "github.com/expr-lang/expr/vm", "")
	f("services/bus/a.go", "github.com/nats-io/nats.go/jetstream", "")
	f("services/store/a.go", "github.com/ClickHouse/clickhouse-go/v2", "")
	f("services/collector/a_test.go", "github.com/nats-io/nats.go", "")
	f("services/collector/a.go", "github.com/expr-lang/exprs", "")

	f("services/collector/a.go", "github.com/nats-io/nats.go", "belongs to services/bus alone")
	f("services/engine/a.go", "github.com/expr-lang/expr", "belongs to services/rule alone")
	f("services/sink/a.go", "github.com/ClickHouse/ch-go/proto", "belongs to services/store alone")
	f("services/coc/a.go", "github.com/ebitengine/purego", "belongs to services/store alone")
	f("services/console/a.go", "github.com/alecthomas/kong", "belongs to services/coc alone")
}

func TestEnvironmentCheckRefusesReadersAndEnders(t *testing.T) {
	f := func(name, imports, statement, want string) {
		t.Helper()
		oneComplaint(t, environmentUnread(goFile(t, name, "package x\n"+imports+"\nfunc f() { "+statement+" }\n")), want)
	}
	f("services/coc/a.go", `import "os"`, `os.Exit(1)`, "")
	f("services/bus/a_test.go", `import "os"`, `os.Getenv("A")`, "")
	f("services/bus/a.go", `import "os"`, `os.ReadFile("a")`, "")
	f("services/bus/a.go", `import "example.org/os2"`, `os2.Exit(1)`, "")

	f("services/bus/a.go", `import "os"`, `os.Exit(1)`, "services/bus/a.go:3: os.Exit belongs to services/coc alone")
	f("services/bus/a.go", `import system "os"`, `_ = system.Getenv("A")`, "system.Getenv")
	f("services/bus/a.go", `import "os"`, `g := os.LookupEnv; g("A")`, "os.LookupEnv")
	f("services/bus/a.go", `import "log"`, `log.Fatal("no")`, "log.Fatal")
	f("services/bus/a.go", `import "flag"`, `flag.Parse()`, "flag.Parse")
}

func TestLengthCheckWantsAReason(t *testing.T) {
	function := func(lines int, doc, inside string) string {
		return "package x\n\n" + doc + "func f() {\n" + inside + strings.Repeat("\n", lines-2-strings.Count(inside, "\n")) + "}\n"
	}
	file := func(lines int, head string) string {
		return head + "package x\n" + strings.Repeat("// a\n", lines-1-strings.Count(head, "\n"))
	}
	f := func(name, text, want string) {
		t.Helper()
		oneComplaint(t, short(goFile(t, name, text)), want)
	}
	f("services/x/a.go", function(70, "", ""), "")
	f("services/x/a.go", function(71, "", ""), "services/x/a.go:3: f has 71 lines")
	f("services/x/a.go", function(71, "// long: one table, read as a whole\n", ""), "")
	f("services/x/a.go", function(71, "", "\t// long: one table, read as a whole\n"), "")
	f("services/x/a.go", function(71, "// long: yes\n", ""), "f has 71 lines")
	f("services/x/a_test.go", function(171, "", ""), "")

	f("services/x/a.go", file(500, ""), "")
	f("services/x/a.go", file(501, ""), "services/x/a.go: 501 lines")
	f("services/x/a.go", file(501, "// long: generated from a table of names\n\n"), "")
	f("services/x/a.go", file(501, "// Code generated by hand. DO NOT EDIT.\n\n"), "")
	f("services/x/a_test.go", file(900, ""), "")
	f("services/x/a.go", file(501, "")+"func g() {\n// long: this reason is the function's\n}\n", "504 lines")
}

func TestDocumentationCheckWantsDocstrings(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		oneComplaint(t, documented(goFile(t, "services/x/a.go", "package x\n\n"+text+"\n")), want)
	}
	f("// Open opens.\nfunc Open() {}", "")
	f("func open() {}", "")
	f("func (t hidden) Open() {}", "")
	f("// A Table is one.\ntype Table struct{ A int }\n\nfunc (t *Table) String() string { return \"\" }", "")
	f("// The table of all.\nvar All = 1", "")
	f("// Kinds of rules.\nconst (\n\tA = 1\n\tB = 2\n)", "")
	f("const (\n\tA = 1 // the first\n\tb = 2\n)", "")
	f("type (\n\t// T is one.\n\tT int\n)", "")

	f("func Open() {}", "services/x/a.go:3: func Open is exported and has no docstring")
	f("// This opens.\nfunc Open() {}", "does not begin with its name")
	f("// OpenAll opens.\nfunc Open() {}", "does not begin with its name")
	f("// T is one.\ntype T[K any] struct{}\n\nfunc (t *T[K]) Open() {}", "func Open is exported")
	f("// Types.\ntype (\n\tT int\n)", "type T is exported")
	f("var A, b = 1, 2", "var A is exported")
}

func TestLimitCheckWantsReasons(t *testing.T) {
	f := func(name, text, want string) {
		t.Helper()
		oneComplaint(t, limitsReasoned(goFile(t, name, "package x\n\n"+text+"\n")), want)
	}
	f("services/x/limits.go", "const (\n\t// both hold one message.\n\ta = 1\n\tb = 2\n\n\tc = 3 // a page\n\tkib = 1 << 10\n)", "")
	f("services/x/other.go", "const a = 1", "")
	f("services/x/limits.go", "const a = 1", "services/x/limits.go:3: the limit a gives no reason")
	f("services/x/limits.go", "const (\n\t// one message.\n\ta = 1\n\n\tb = 2\n)", "the limit b gives no reason")
	f("services/x/limits.go", "var a = 1", "the limit a gives no reason")
}

func TestBoundCheckWantsAPlaceForLimits(t *testing.T) {
	a, limits := goFile(t, "services/bus/a.go", "package bus\n"), goFile(t, "services/bus/limits.go", "package bus\n")
	oneComplaint(t, bounded("services/bus", []*source{a, limits}), "")
	oneComplaint(t, bounded("services/bus", []*source{a}), "services/bus: no limits.go")
	oneComplaint(t, bounded("services/coc", []*source{goFile(t, "services/coc/a.go", "package main\n")}), "")
	oneComplaint(t, bounded("services/console/web", []*source{goFile(t, "services/console/web/a.go", "package web\n")}), "")
	oneComplaint(t, bounded("schemas", []*source{goFile(t, "schemas/a.go", "package schemas\n")}), "")
}

func TestUnfinishedCheckFindsMarks(t *testing.T) {
	f := func(comment, want string) {
		t.Helper()
		oneComplaint(t, finished(goFile(t, "services/x/a_test.go", "package x\n\n"+comment+"\nvar a = \"TO\"+\"DO\"\n")), want)
	}
	f("// a method of doing", "")
	f("// TODOs is a word of its own here", "")
	f("// "+"TO"+"DO: later", "services/x/a_test.go:3: \"TO"+"DO\" in a comment")
	f("/* "+"FIX"+"ME */", "in a comment")
	f("// this is "+"Not"+" implemented yet", "in a comment")
}

func TestNameCheckRefusesVagueNames(t *testing.T) {
	f := func(dir, name, want string) {
		t.Helper()
		oneComplaint(t, packageNamed(dir, name), want)
	}
	f("services/bus", "bus", "")
	f("services/utility", "utility", "")
	f("services/util", "util", `"util" says nothing`)
	f("services/console/internal/api", "api", `"internal" says nothing`)
	f("services/bus", "common", `"common" says nothing`)
}

func TestPageCheckWantsAPage(t *testing.T) {
	page := "// Package x owns a thing.\n//\n// It promises\n// much.\npackage x\n"
	f := func(want string, texts ...string) {
		t.Helper()
		var files []*source
		for i, text := range texts {
			files = append(files, goFile(t, "services/x/"+[]string{"doc.go", "a.go", "b.go"}[i], text))
		}
		oneComplaint(t, packageDocumented("services/x", files), want)
	}
	f("", page)
	f("", page, "package x\n")
	f("", "// Command x does.\n//\n// It promises\n// much.\npackage main\n")
	f("does not begin with", "// x owns a thing.\n//\n// It\n// promises.\npackage x\n")
	f("does not begin with", "package x\n", page)
	f("a package comment of 1 lines", "// Package x owns a thing.\npackage x\n", "package x\n")
	f("a package comment of 71 lines", "// Package x owns a thing.\n"+strings.Repeat("// More of it.\n", 70)+"package x\n")
	f("two packages in one folder", page, "package y\n")

	oneComplaint(t, packageDocumented("services/x", []*source{goFile(t, "services/x/a.go", page), goFile(t, "services/x/b.go", "package x\n")}), "no doc.go")
	oneComplaint(t, packageDocumented("services/x", []*source{goFile(t, "services/x/only.go", page)}), "")
}

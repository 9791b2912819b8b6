// Package services holds no code. Its tests hold the house to its plan: which
// package may import which, who may read the environment, how long a file and a
// function may be, what must be written down. The plan is README.md's chapter on
// the code; the tables below are its exact form.
//
// Each check is a function from source to complaints, so that checks_test.go can
// show that it fails when it should. A complaint names the place, the rule, and
// what to do.
package services

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	module = "github.com/opencoc/coc"
	root   = ".." // of the repository, seen from this folder
)

// source is one parsed Go file.
type source struct {
	path    string // from the repository's root, with slashes
	folder  string // below services, such as "bus"; "schemas" for the contracts
	test    bool
	lines   int
	set     *token.FileSet
	file    *ast.File
	imports []string
	aliases map[string]string // name in this file → import path
}

// at is a complaint about a place in the file.
func (s *source) at(p token.Pos, format string, args ...any) string {
	return fmt.Sprintf("%s:%d: %s", s.path, s.set.Position(p).Line, fmt.Sprintf(format, args...))
}

// parse reads one file's text.
func parse(name string, text []byte) (*source, error) {
	s := &source{path: name, folder: folderOf(path.Dir(name)), test: strings.HasSuffix(name, "_test.go"),
		lines: strings.Count(string(text), "\n"), set: token.NewFileSet(), aliases: map[string]string{}}
	var err error
	if s.file, err = parser.ParseFile(s.set, name, text, parser.ParseComments|parser.SkipObjectResolution); err != nil {
		return nil, err
	}
	for _, i := range s.file.Imports {
		p, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			return nil, fmt.Errorf("%s: import %s: %w", name, i.Path.Value, err)
		}
		s.imports = append(s.imports, p)
		alias := path.Base(p)
		if i.Name != nil {
			alias = i.Name.Name
		}
		s.aliases[alias] = p
	}
	return s, nil
}

// folderOf names the part of the house that a folder or import path of this
// module belongs to: "bus" for services/bus and all below it.
func folderOf(dir string) string {
	dir = strings.TrimPrefix(dir, module+"/")
	if rest, ok := strings.CutPrefix(dir, "services/"); ok {
		folder, _, _ := strings.Cut(rest, "/")
		return folder
	}
	folder, _, _ := strings.Cut(dir, "/")
	return folder
}

// listed is what go list knows of a package.
type listed struct {
	ImportPath, Dir, Name                   string
	GoFiles, Imports, TestImports           []string
	XTestGoFiles, XTestImports, TestGoFiles []string
}

// list asks go list for every package of the module.
func list(t *testing.T) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-buildvcs=false", "-json=ImportPath,Dir,Name,GoFiles,Imports,TestImports,XTestGoFiles,XTestImports,TestGoFiles", "./...")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %v\n%s", err, exit.Stderr)
		}
		t.Fatalf("go list: %v", err)
	}
	var all []listed
	d := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatalf("go list printed what is no JSON: %v", err)
		}
		all = append(all, p)
	}
}

// sources parses every Go file of the repository, for every system and build
// tag: go list shows only those of this one.
func sources(t *testing.T) []*source {
	t.Helper()
	var all []*source
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			hidden := strings.HasPrefix(d.Name(), ".") && name != root
			if hidden || slices.Contains([]string{"node_modules", "testdata"}, d.Name()) {
				return filepath.SkipDir
			}
			return nil
		}
		if filepath.Ext(name) != ".go" {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		s, err := parse(filepath.ToSlash(rel), text)
		if err == nil {
			all = append(all, s)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 20 {
		t.Fatalf("only %d Go files were found below %s: the checks would check nothing", len(all), root)
	}
	return all
}

func complain(t *testing.T, complaints []string) {
	t.Helper()
	for _, c := range complaints {
		t.Error(c)
	}
}

func TestImportsPointDownOnly(t *testing.T) {
	for _, p := range list(t) {
		complain(t, importsDown(folderOf(p.ImportPath), false, p.Imports))
		complain(t, importsDown(folderOf(p.ImportPath), true, append(p.TestImports, p.XTestImports...)))
	}
	// Again from the source, for the files of other systems.
	for _, s := range sources(t) {
		complain(t, importsDown(s.folder, s.test, s.imports))
	}
}

func TestModulesStayWithTheirOwner(t *testing.T) {
	for _, s := range sources(t) {
		complain(t, modulesOwned(s))
	}
}

func TestOnlyCocReadsTheEnvironmentAndEndsTheProcess(t *testing.T) {
	for _, s := range sources(t) {
		complain(t, environmentUnread(s))
	}
}

func TestFilesAndFunctionsAreShort(t *testing.T) {
	for _, s := range sources(t) {
		complain(t, short(s))
	}
}

func TestExportedNamesAreDocumented(t *testing.T) {
	for _, s := range sources(t) {
		complain(t, documented(s))
	}
}

func TestLimitsHaveReasons(t *testing.T) {
	for _, s := range sources(t) {
		complain(t, limitsReasoned(s))
	}
}

func TestNothingIsMarkedUnfinished(t *testing.T) {
	for _, s := range sources(t) {
		complain(t, finished(s))
	}
}

func TestPackagesHaveSpeakingNamesAPageAndLimits(t *testing.T) {
	files := map[string][]*source{}
	for _, s := range sources(t) {
		if !s.test {
			files[path.Dir(s.path)] = append(files[path.Dir(s.path)], s)
		}
	}
	for dir, list := range files {
		complain(t, packageNamed(dir, list[0].file.Name.Name))
		complain(t, packageDocumented(dir, list))
		complain(t, bounded(dir, list))
	}
}

func TestGoLivesInServicesAndSchemas(t *testing.T) {
	for _, s := range sources(t) {
		if top, _, _ := strings.Cut(s.path, "/"); top != "services" && top != "schemas" {
			t.Errorf("%s: Go code lives in services/ and schemas/; %s holds data", s.path, top)
		}
	}
}

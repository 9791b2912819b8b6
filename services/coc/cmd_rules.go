package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/opencoc/coc/services/rule"
)

// RulesCmd holds the commands about rule files.
type RulesCmd struct {
	Check RulesCheckCmd `cmd:"" help:"Check a folder of rules; name all errors with their place."`
	Test  RulesTestCmd  `cmd:"" help:"Run the tests that stand in rule files."`
}

// loadRules reads a folder for a command that works on files.
func loadRules(dir, zone string) (*rule.Set, error) {
	z, err := loadZone(zone)
	if err != nil {
		return nil, err
	}
	set, err := rule.LoadDir(dir, rule.Options{Zone: z})
	var list rule.Errors
	if errors.As(err, &list) {
		return nil, fmt.Errorf("%s in the rules of %s:\n%w", plural(int64(len(list)), "error", "errors"), safe(dir), err)
	}
	if err != nil {
		if strings.Contains(err.Error(), dir) {
			return nil, err
		}
		return nil, fmt.Errorf("the rules in %s: %w", safe(dir), err)
	}
	return set, nil
}

// RulesCheckCmd checks a folder of rules.
type RulesCheckCmd struct {
	Dir  string `arg:"" optional:"" default:"rules" help:"Folder of rules (default: ${default})."`
	Zone string `default:"${zone}" env:"COC_ZONE" placeholder:"ZONE" help:"The hoster's time zone (default: ${default})."`
	JSON bool   `name:"json" help:"Print JSON, one rule a line (default: a table)."`
}

type ruleLine struct {
	ID       string   `json:"id"`
	Kind     string   `json:"kind"`
	Class    string   `json:"class"`
	Severity string   `json:"severity"`
	Status   string   `json:"status"`
	Title    string   `json:"title"`
	File     string   `json:"file"`
	GroupBy  []string `json:"group_by"`
	Window   string   `json:"window,omitempty"`
	Suppress string   `json:"suppress,omitempty"`
	Logic    string   `json:"logic"`
	Tests    int      `json:"tests"`
}

func lineOf(r *rule.Rule) ruleLine {
	l := ruleLine{ID: r.ID, Kind: r.Kind, Class: r.Class, Severity: r.Severity, Status: r.Status, Title: r.Title.In("en"), File: r.File,
		GroupBy: r.GroupBy, Logic: r.Logic, Tests: r.Tests}
	if l.GroupBy == nil {
		l.GroupBy = []string{}
	}
	if r.Window > 0 {
		l.Window = rule.FormatDuration(r.Window)
	}
	if r.Suppress > 0 {
		l.Suppress = rule.FormatDuration(r.Suppress)
	}
	return l
}

// Run loads the folder as an engine would.
func (c *RulesCheckCmd) Run(g *Globals) error {
	set, err := loadRules(c.Dir, c.Zone)
	if err != nil {
		return err
	}
	var lines []ruleLine
	untested := int64(0)
	t := newTable(left("RULE"), left("KIND"), left("CLASS"), left("SEVERITY"), left("STATUS"), left("WINDOW"), right("TESTS"), left("TITLE"))
	for _, r := range set.Rules() {
		l := lineOf(r)
		lines = append(lines, l)
		t.add(l.ID, l.Kind, l.Class, l.Severity, l.Status, l.Window, number(int64(l.Tests)), l.Title)
		if l.Tests == 0 {
			untested++
		}
	}
	if c.JSON {
		return writeLines(g.Stdout, lines)
	}
	fmt.Fprintf(g.Stdout, "%s is in order: %s, %s, %s and %s; set %.12s\n\n", safe(c.Dir), plural(int64(len(lines)), "rule", "rules"),
		plural(int64(len(set.Lists())), "list", "lists"), plural(int64(len(set.Allowances())), "allowance", "allowances"),
		plural(int64(len(set.Exceptions())), "exception", "exceptions"), set.Digest())
	if err := t.write(g.Stdout); err != nil {
		return err
	}
	if untested > 0 {
		_, err := fmt.Fprintf(g.Stdout, "\n%s without a test: add some under tests.\n", plural(untested, "rule", "rules"))
		return err
	}
	return nil
}

// RulesTestCmd runs the tests in rule files.
type RulesTestCmd struct {
	Dir  string `arg:"" optional:"" default:"rules" help:"Folder of rules (default: ${default})."`
	Rule string `placeholder:"ID" help:"Only the tests of this rule (default: all)."`
	Zone string `default:"${zone}" env:"COC_ZONE" placeholder:"ZONE" help:"The hoster's time zone (default: ${default})."`
	JSON bool   `name:"json" help:"Print JSON, one test a line (default: those that failed, and a sum)."`
	All  bool   `help:"List also the tests that passed (default: only those that failed)."`
}

type testLine struct {
	Rule    string  `json:"rule"`
	Test    string  `json:"test"`
	File    string  `json:"file"`
	Line    int     `json:"line"`
	Passed  bool    `json:"passed"`
	Problem string  `json:"problem,omitempty"`
	Millis  float64 `json:"ms"`
}

// Run runs them; one that fails makes the exit code 1.
func (c *RulesTestCmd) Run(g *Globals) error {
	set, err := loadRules(c.Dir, c.Zone)
	if err != nil {
		return err
	}
	if c.Rule != "" && set.Rule(c.Rule) == nil {
		return usageError{fmt.Errorf("there is no rule %s in %s: coc rules check lists them", safe(c.Rule), safe(c.Dir))}
	}
	began := g.Now()
	var list []testLine
	for _, r := range rule.RunTests(set) {
		if c.Rule == "" || r.Rule == c.Rule {
			list = append(list, testLine{Rule: r.Rule, Test: r.Name, File: r.File, Line: r.Line, Passed: r.Passed, Problem: r.Problem, Millis: float64(r.Took.Microseconds()) / 1000})
		}
	}
	if c.JSON {
		err = writeLines(g.Stdout, list)
	} else {
		err = c.print(g.Stdout, list, g.Now().Sub(began))
	}
	if err != nil {
		return err
	}
	if n := failed(list); n > 0 {
		return fmt.Errorf("%s of %s failed", plural(n, "test", "tests"), number(int64(len(list))))
	}
	return nil
}

func failed(list []testLine) (n int64) {
	for _, t := range list {
		if !t.Passed {
			n++
		}
	}
	return n
}

func (c *RulesTestCmd) print(w io.Writer, list []testLine, took time.Duration) error {
	rules := map[string]bool{}
	for _, t := range list {
		rules[t.Rule] = true
		switch {
		case !t.Passed:
			fmt.Fprintf(w, "FAILED  %s: %s\n        %s:%d: ", safe(t.Rule), safe(t.Test), safe(t.File), t.Line)
			fmt.Fprintln(w, indented(t.Problem))
		case c.All:
			fmt.Fprintf(w, "passed  %s: %s\n", safe(t.Rule), safe(t.Test))
		}
	}
	if len(list) == 0 {
		_, err := fmt.Fprintf(w, "There are no tests: write some under tests in the rule files.\n")
		return err
	}
	if n := failed(list); n == 0 {
		_, err := fmt.Fprintf(w, "%s of %s passed in %.1f s\n", plural(int64(len(list)), "test", "tests"), plural(int64(len(rules)), "rule", "rules"), took.Seconds())
		return err
	}
	return nil
}

// indented puts a problem of several lines under its first.
func indented(text string) string {
	out := ""
	for i, l := range splitLines(text) {
		if i > 0 {
			out += "\n        "
		}
		out += safe(l)
	}
	return out
}

package rule

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/opencoc/coc/services/event"
)

// TestResult is how one test of a rule file went.
type TestResult struct {
	Rule, Name, File string
	Line             int
	Passed           bool
	Problem          string // what was expected, what was found, and the nearest miss
	Findings         []event.Finding
	Took             time.Duration // of the machine, not of the simulated time
}

// RunTests runs the tests of all rules of a set, in order of files, by the
// Runner that production uses, with one rule at a time.
func RunTests(set *Set) []TestResult {
	rules := slices.Clone(set.rules)
	slices.SortStableFunc(rules, func(a, b *Rule) int { return strings.Compare(a.File, b.File) })
	var out []TestResult
	for _, r := range rules {
		alone := aloneWith(set, r)
		for _, t := range r.tests {
			out = append(out, runTest(alone, r, t))
		}
	}
	return out
}

// aloneWith is the set with one rule, which runs even when it is disabled.
func aloneWith(set *Set, r *Rule) *Set {
	one := *r
	one.index = 0
	if one.Status == "disabled" {
		one.Status = "production"
	}
	return &Set{rules: []*Rule{&one}, data: set.data, zone: set.zone, index: newIndex([]*Rule{&one}), fields: fieldsOf([]*Rule{&one})}
}

// miss is the window that came nearest to firing.
type miss struct {
	key   string
	time  int64
	terms measures
	any   bool
}

func runTest(set *Set, rule *Rule, t *test) TestResult {
	began := time.Now()
	out := TestResult{Rule: rule.ID, Name: t.name, File: rule.File, Line: t.line}
	r := NewRunner(set, RunnerOptions{})
	var near miss
	r.observe = func(_ *Rule, key string, at int64, x *measures, fired bool) {
		if !fired && (!near.any || x[0] > near.terms[0]) {
			near = miss{key, at, *x, true}
		}
	}
	c := newCollected()
	events := t.events()
	err := feedTest(r, c, events)
	out.Took = time.Since(began)
	if err != nil {
		out.Problem = fmt.Sprintf("the events cannot be made: %v", err)
		return out
	}
	out.Findings = c.standing()
	out.Problem = t.problem(rule, out.Findings)
	if out.Passed = out.Problem == ""; !out.Passed {
		out.Problem += t.nearest(rule, r, &near, len(events), len(out.Findings))
	}
	return out
}

func feedTest(r *Runner, c *collected, events []event.Event) error {
	var least []int64
	for i := range events {
		if i%replayRows == 0 {
			least = append(least, events[i].Time)
		}
		least[len(least)-1] = min(least[len(least)-1], events[i].Time)
		if err := validate(&events[i]); err != nil {
			return fmt.Errorf("event %d: %w", i+1, err)
		}
	}
	f := &feeder{runner: r, domain: "test", into: c, marks: marksOf(least)}
	for i := range events {
		if err := f.add(&events[i]); err != nil {
			return fmt.Errorf("event %d: %w", i+1, err)
		}
	}
	return f.flush()
}

// validate refuses what no collector would let through.
func validate(e *event.Event) error {
	switch {
	case e.Kind == "" || e.Action == "":
		return fmt.Errorf("it has no kind or no action; give both in with")
	case e.Kind != "system" && e.Kind != "process" && e.Kind != "user":
		return fmt.Errorf("its kind is %q; it must be system, process or user", e.Kind)
	case e.Time < event.MinTime || e.Time > event.MaxTime:
		return fmt.Errorf("its time is out of bounds")
	}
	return nil
}

// problem compares findings with what is expected; empty is a pass.
func (t *test) problem(rule *Rule, found []event.Finding) string {
	x := &t.expect
	if len(found) != x.findings {
		s := fmt.Sprintf("expected %s, found %d", countOf(int64(x.findings), "finding"), len(found))
		for i, f := range found {
			if i == 5 {
				s += "\n  …"
				break
			}
			s += "\n  found: " + describe(&f)
		}
		return s
	}
	if x.findings == 0 || x.key == nil && x.count < 0 && x.fired < 0 && x.severity == "" {
		return ""
	}
	var misses []string
	for i := range found {
		d := x.differs(&found[i])
		if d == "" {
			return ""
		}
		misses = append(misses, fmt.Sprintf("\n  found: %s: %s", describe(&found[i]), d))
	}
	return "no finding is as expected" + strings.Join(misses, "")
}

func (x *expectation) differs(f *event.Finding) string {
	for _, name := range slices.Sorted(maps.Keys(x.key)) {
		if got, ok := f.Key[name]; !ok {
			return fmt.Sprintf("its key has no %s", name)
		} else if got != x.key[name] {
			return fmt.Sprintf("expected %s %q, found %q", name, x.key[name], got)
		}
	}
	switch {
	case x.count >= 0 && f.Count != x.count:
		return fmt.Sprintf("expected count %d, found %d", x.count, f.Count)
	case x.fired >= 0 && int64(f.Fired) != x.fired:
		return fmt.Sprintf("expected fired %s, found %s", event.FormatTime(x.fired), event.FormatTime(int64(f.Fired)))
	case x.severity != "" && f.Severity != x.severity:
		return fmt.Sprintf("expected severity %s, found %s", x.severity, f.Severity)
	}
	return ""
}

func describe(f *event.Finding) string {
	return fmt.Sprintf("%s at %s, %s (%s)", keyText(f.Key), event.FormatTime(int64(f.Fired)), countOf(f.Count, "event"), f.How)
}

func keyText(key map[string]string) string {
	if len(key) == 0 {
		return "no key"
	}
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(key)) {
		parts = append(parts, k+" "+key[k])
	}
	return strings.Join(parts, ", ")
}

// nearest says how near a test came that found too little.
func (t *test) nearest(rule *Rule, r *Runner, near *miss, events, found int) string {
	if found >= t.expect.findings {
		return ""
	}
	st := r.stats[0]
	if st.Matches == 0 {
		s := fmt.Sprintf("\n  nearest: none of %s matched", countOf(int64(events), "event"))
		switch {
		case st.NoKey > 0:
			s = fmt.Sprintf("\n  nearest: %s matched but had no value for group_by", countOf(st.NoKey, "event"))
		case st.Excepted > 0:
			s = fmt.Sprintf("\n  nearest: %s matched but an exception dropped them", countOf(st.Excepted, "event"))
		case st.LastError != "":
			s += ": " + st.LastError
		}
		return s
	}
	if !near.any {
		return fmt.Sprintf("\n  nearest: %s matched", countOf(st.Matches, "event"))
	}
	var terms []string
	for i := range rule.cond.slots {
		terms = append(terms, fmt.Sprintf("%s was %g", rule.cond.slots[i].written, near.terms[i]))
	}
	return fmt.Sprintf("\n  nearest: %s at %s: %s; the rule asks for %s",
		keyText(keyValues(rule, near.key)), event.FormatTime(near.time), strings.Join(terms, ", "), rule.Condition)
}

package main

import (
	"context"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/opencoc/coc/services/collector"
	"github.com/opencoc/coc/services/event"
	"github.com/opencoc/coc/services/rule"
)

const shippedRules = "../../rules"

// shippedZone is the hoster's zone that the shipped rules are written for.
func shippedZone(t *testing.T) *time.Location {
	t.Helper()
	zone, err := time.LoadLocation("Europe/Amsterdam")
	if err != nil {
		t.Fatal(err)
	}
	return zone
}

func shippedSet(t *testing.T) *rule.Set {
	t.Helper()
	set, err := rule.LoadDir(shippedRules, rule.Options{Zone: shippedZone(t)})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// shippedFile is what the loader does not tell of a rule file.
type shippedFile struct {
	Tests []struct {
		Expect struct {
			Findings int `yaml:"findings"`
		} `yaml:"expect"`
	} `yaml:"tests"`
}

func TestShippedRulesPassTheirOwnTests(t *testing.T) {
	results := rule.RunTests(shippedSet(t))
	if len(results) < 100 {
		t.Errorf("%d tests ran; the shipped rules have more", len(results))
	}
	for _, r := range results {
		if !r.Passed {
			t.Errorf("%s:%d: %s: %s: %s", r.File, r.Line, r.Rule, r.Name, r.Problem)
		}
	}
}

func TestShippedRulesAreComplete(t *testing.T) {
	set := shippedSet(t)
	if n := len(set.Rules()); n < 14 {
		t.Errorf("%d rules", n)
	}
	attack := regexp.MustCompile(`^attack\.(t\d{4}(\.\d{3})?|[a-z_]+)$`)
	for _, r := range set.Rules() {
		for what, text := range map[string]rule.Text{"title": r.Title, "description": r.Description, "response": r.Response} {
			for _, lang := range []string{"en", "nl"} {
				if strings.TrimSpace(text[lang]) == "" {
					t.Errorf("%s: no %s in %q", r.ID, what, lang)
				}
			}
			if text["en"] == text["nl"] {
				t.Errorf("%s: its %s is the same in both languages", r.ID, what)
			}
		}
		for _, lang := range []string{"en", "nl"} {
			if steps := strings.Count("\n"+r.Response[lang], "\n1. ") + strings.Count(r.Response[lang], "\n2. "); steps != 2 {
				t.Errorf("%s: the response in %q is no list of steps", r.ID, lang)
			}
		}
		if strings.Count(r.Response["en"], "\n") != strings.Count(r.Response["nl"], "\n") {
			t.Errorf("%s: the response has other steps in English than in Dutch", r.ID)
		}
		if r.Owner == "" || len(r.Tags) == 0 || len(r.GroupBy) == 0 {
			t.Errorf("%s: owner %q, tags %q, group_by %q", r.ID, r.Owner, r.Tags, r.GroupBy)
		}
		for _, tag := range r.Tags {
			if strings.HasPrefix(tag, "attack") && !attack.MatchString(tag) {
				t.Errorf("%s: %q is no technique or tactic of ATT&CK", r.ID, tag)
			}
		}
		if want := strings.Replace(r.ID, ".", "/", 1) + ".yaml"; filepath.ToSlash(r.File) != want && !strings.HasSuffix(filepath.ToSlash(r.File), "/"+want) {
			t.Errorf("%s stands in %s, not in %s", r.ID, r.File, want)
		}
		if class, _, _ := strings.Cut(r.ID, "."); strings.ReplaceAll(class, "-", "_") != r.Class {
			t.Errorf("%s has class %s", r.ID, r.Class)
		}
	}
}

func TestShippedRulesHaveATestThatFiresAndOneThatDoesNot(t *testing.T) {
	for _, r := range shippedSet(t).Rules() {
		fires, quiet := 0, 0
		for _, test := range readShipped(t, r).Tests {
			if test.Expect.Findings > 0 {
				fires++
			} else {
				quiet++
			}
		}
		if fires == 0 || quiet == 0 {
			t.Errorf("%s: %d tests fire, %d do not", r.ID, fires, quiet)
		}
	}
}

func readShipped(t *testing.T, r *rule.Rule) shippedFile {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(shippedRules, strings.Replace(r.ID, ".", "/", 1)+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var f shippedFile
	if err := yaml.Unmarshal(data, &f); err != nil {
		t.Fatalf("%s: %v", r.File, err)
	}
	return f
}

var allowanceName = regexp.MustCompile(`allowance\("([^"]+)"`)

func TestShippedFairUseIsAboutTenantsNeverAboutPeople(t *testing.T) {
	set := shippedSet(t)
	meters := map[string]rule.Allowance{}
	for _, a := range set.Allowances() {
		meters[a.Name] = a
	}
	for _, r := range set.Rules() {
		if r.Class != "fair_use" {
			continue
		}
		if !slices.Equal(r.GroupBy, []string{"tenant.id"}) {
			t.Errorf("%s is grouped by %q", r.ID, r.GroupBy)
		}
		if !strings.Contains(r.Match, `user.type != "staff"`) {
			t.Errorf("%s counts staff: %s", r.ID, r.Match)
		}
		for lang, words := range map[string][]string{"en": {"intended for", "Alternatives:"}, "nl": {"bedoeld", "Alternatieven:"}} {
			for _, w := range words {
				if !strings.Contains(strings.Join(strings.Fields(r.Description[lang]), " "), w) {
					t.Errorf("%s: the description in %q does not say %q", r.ID, lang, w)
				}
			}
		}
		names := allowanceName.FindAllStringSubmatch(r.Condition, -1)
		if len(names) == 0 {
			t.Errorf("%s asks no allowance", r.ID)
		}
		for _, n := range names {
			a := meters[n[1]]
			if a.Meter.Window != r.Window {
				t.Errorf("%s has a window of %s, the meter %s one of %s", r.ID, r.Window, n[1], a.Meter.Window)
			}
			if !strings.Contains(r.Match, `"`+a.Meter.Where["action"]+`"`) {
				t.Errorf("%s and the meter %s are about different actions", r.ID, n[1])
			}
		}
	}
}

func TestShippedDataIsUsedAndExplained(t *testing.T) {
	set := shippedSet(t)
	var all strings.Builder
	for _, r := range set.Rules() {
		all.WriteString(r.Match + "\n" + r.Condition + "\n")
	}
	for _, a := range set.Allowances() {
		if !strings.Contains(all.String(), `allowance("`+a.Name+`"`) {
			t.Errorf("no rule asks for the allowance %s", a.Name)
		}
		if a.Title["en"] == "" || a.Title["nl"] == "" || a.Unit == "" {
			t.Errorf("allowance %s: title %v, unit %q", a.Name, a.Title, a.Unit)
		}
		if tiers := slices.Sorted(maps.Keys(a.Tiers)); !slices.Equal(tiers, []string{"accountancy_lite", "large", "medium", "small"}) {
			t.Errorf("allowance %s has the tiers %q", a.Name, tiers)
		}
		if a.Tiers["small"] > a.Tiers["medium"] || a.Tiers["medium"] > a.Tiers["large"] {
			t.Errorf("allowance %s gives a larger tier less: %v", a.Name, a.Tiers)
		}
	}
	for _, l := range set.Lists() {
		if !strings.Contains(all.String(), `"`+l.Name+`"`) {
			t.Errorf("no rule asks for the list %s", l.Name)
		}
		if l.Len == 0 {
			t.Errorf("list %s is empty", l.Name)
		}
	}
	if len(set.Exceptions()) == 0 {
		t.Error("no exception shows how one is written")
	}
	for _, e := range set.Exceptions() {
		if set.Rule(e.Rule) == nil || e.Reason == "" || e.Owner == "" || e.Expires.IsZero() {
			t.Errorf("exception for %s: reason %q, owner %q, expires %s", e.Rule, e.Reason, e.Owner, e.Expires)
		}
	}
}

func TestShippedReadmeListsEveryRuleAsItIs(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(shippedRules, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]string{}
	for line := range strings.Lines(string(readme)) {
		if id, _, ok := strings.Cut(strings.TrimPrefix(line, "| ["), "]("); ok && strings.HasPrefix(line, "| [") {
			rows[id] = strings.TrimSpace(line)
		}
	}
	for _, r := range shippedSet(t).Rules() {
		row := rows[r.ID]
		delete(rows, r.ID)
		start := "| [" + r.ID + "](" + strings.Replace(r.ID, ".", "/", 1) + ".yaml) | " + r.Severity + " | "
		end := " | " + strings.Join(r.GroupBy, ", ") + " |"
		if !strings.HasPrefix(row, start) || !strings.HasSuffix(row, end) {
			t.Errorf("rules/README.md has for %s\n%s\nwant\n%s…%s", r.ID, row, start, end)
		}
	}
	for id := range rows {
		t.Errorf("rules/README.md names %s, which is not there", id)
	}
}

func TestShippedReadmeExampleWorks(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(shippedRules, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(readme), "```yaml\n")
	example, _, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatal("rules/README.md has no example")
	}
	set, err := rule.Load(fstest.MapFS{"abuse/portal-guessing.yaml": {Data: []byte(example)}}, rule.Options{Zone: shippedZone(t)})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rule.RunTests(set) {
		if !r.Passed {
			t.Errorf("%s: %s", r.Name, r.Problem)
		}
	}
}

func TestShippedReadmeNamesEveryFieldAndFunction(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(shippedRules, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range rule.FieldNames() {
		if !strings.Contains(string(readme), "`"+name+"`") {
			t.Errorf("rules/README.md does not name the field %s", name)
		}
	}
	for _, f := range rule.Functions() {
		if !strings.Contains(string(readme), "`"+f.Name+"`") && !strings.Contains(string(readme), "`"+f.Name+"(") {
			t.Errorf("rules/README.md does not name the function %s", f.Name)
		}
	}
	for _, k := range rule.Kinds() {
		if !strings.Contains(string(readme), "**"+k+"**") {
			t.Errorf("rules/README.md does not explain the kind %s", k)
		}
	}
}

// sharedLog finds a log that others made, beside the project.
func sharedLog(t *testing.T, name string) string {
	t.Helper()
	file := filepath.Join("..", "..", "..", "shared", "data", "logs", name)
	if _, err := os.Stat(file); err != nil {
		t.Skipf("%s is not there: this test reads a real log that is not part of the project", file)
	}
	return file
}

// parseLog reads a log as an import would.
func parseLog(t *testing.T, file string, year int) []event.Event {
	t.Helper()
	var events []event.Event
	_, err := collector.ParsePath(context.Background(), file, collector.ImportOptions{Format: "sshd", Year: year}, time.Now(), shippedZone(t), func(e *event.Event) error {
		c := *e
		c.Labels = slices.Clone(e.Labels)
		events = append(events, c)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return events
}

func backtest(t *testing.T, set *rule.Set, events []event.Event) map[string][]event.Finding {
	t.Helper()
	result, err := rule.Backtest(context.Background(), set, func() iter.Seq2[*event.Event, error] {
		return func(yield func(*event.Event, error) bool) {
			for i := range events {
				if e := events[i]; !yield(&e, nil) {
					return
				}
			}
		}
	}, rule.BacktestOptions{})
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]event.Finding{}
	for _, f := range result.Findings {
		found[f.Rule] = append(found[f.Rule], f)
	}
	for _, r := range result.Rules {
		if r.Errors > 0 || r.Late > 0 || r.Evicted > 0 {
			t.Errorf("%s: %d errors (%s), %d late, %d evicted", r.Rule, r.Errors, r.LastError, r.Late, r.Evicted)
		}
	}
	return found
}

func keysOf(findings []event.Finding, field string) []string {
	keys := map[string]bool{}
	for _, f := range findings {
		keys[f.Key[field]] = true
	}
	return slices.Sorted(maps.Keys(keys))
}

// naiveAddresses are the addresses with n failed logins within ten minutes,
// found by looking at all pairs.
func naiveAddresses(events []event.Event, n int) []string {
	times := map[string][]int64{}
	for _, e := range events {
		if e.Action == "login" && e.Outcome == "failure" {
			times[e.SourceIP] = append(times[e.SourceIP], e.Time)
		}
	}
	hits := map[string]bool{}
	for ip, ts := range times {
		slices.Sort(ts)
		for i := n - 1; i < len(ts); i++ {
			if ts[i]-ts[i-n+1] < 10*time.Minute.Milliseconds() {
				hits[ip] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(hits))
}

func TestShippedRulesFindTheGuessersOfARealLog(t *testing.T) {
	events := parseLog(t, sharedLog(t, "sshd_auth.log"), 2016)
	found := backtest(t, shippedSet(t), events)

	guessers := keysOf(found["abuse.password-guessing-address"], "source.ip")
	if len(guessers) != 10 || !slices.Equal(guessers, naiveAddresses(events, 10)) {
		t.Errorf("10 or more failures within 10 minutes: %d addresses %q, a count by hand gives %q", len(guessers), guessers, naiveAddresses(events, 10))
	}
	if n := len(found["abuse.user-created"]); n == 0 {
		t.Error("ten accounts were made in this log, and no finding says so")
	}
	for id, findings := range found {
		if !strings.HasPrefix(id, "abuse.") {
			t.Errorf("%d findings of %s in a log of sshd", len(findings), id)
		}
	}
}

func TestShippedGuessingRuleWithALowerBoundFindsTheRest(t *testing.T) {
	events := parseLog(t, sharedLog(t, "sshd_auth.log"), 2016)
	const file = "abuse/password-guessing-address.yaml"
	text, err := os.ReadFile(filepath.Join(shippedRules, file))
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(text), "condition: count >= 10", "condition: count >= 5", 1)
	set, err := rule.Load(fstest.MapFS{file: {Data: []byte(changed)}}, rule.Options{Zone: shippedZone(t)})
	if err != nil {
		t.Fatal(err)
	}
	got := keysOf(backtest(t, set, events)["abuse.password-guessing-address"], "source.ip")
	if len(got) != 101 || !slices.Equal(got, naiveAddresses(events, 5)) {
		t.Errorf("5 or more failures within 10 minutes: %d addresses, want 101", len(got))
	}
}

func TestShippedRulesFindWhatIsWrongInASimulatedHouseAndNothingElse(t *testing.T) {
	var events []event.Event
	copies := map[string]int{}
	err := collector.Simulate(context.Background(), collector.SimulateOptions{Tenants: 40, Days: 8, Seed: 1, End: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC), Zone: shippedZone(t)}, func(e *event.Event) error {
		c := *e
		c.Labels = slices.Clone(e.Labels)
		c.UserHash = c.UserName // a backtest gets events that are hashed
		events = append(events, c)
		if e.Action == "backup_copy_requested" {
			copies[e.TenantID]++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	greedy := slices.MaxFunc(slices.Collect(maps.Keys(copies)), func(a, b string) int { return copies[a] - copies[b] })
	found := backtest(t, shippedSet(t), events)

	if got := keysOf(found["fair-use.backup-copies"], "tenant.id"); !slices.Equal(got, []string{greedy}) {
		t.Errorf("more copies than allowed: %q, want %q, which asked for %d", got, greedy, copies[greedy])
	}
	slow := keysOf(found["performance.window-slow"], "resource.name")
	if len(slow) != 1 || len(keysOf(found["performance.window-slow"], "service.version")) != 1 {
		t.Errorf("windows that are slow since a version: %q, want one", slow)
	}
	for id, findings := range found {
		for _, f := range findings {
			switch {
			case f.Class == "fair_use" && f.Key["tenant.id"] == greedy:
			case f.Class == "performance" && slices.Contains(slow, f.Key["resource.name"]):
			case id == "compliance.backup-failed": // one in 2,000 does
			default:
				t.Errorf("%s found %v: %s", id, f.Key, f.How)
			}
		}
	}
}

func TestShippedRulesFolderHoldsDataOnly(t *testing.T) {
	err := fs.WalkDir(os.DirFS(shippedRules), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		switch ext := path.Ext(p); {
		case p == "README.md", ext == ".yaml", ext == ".txt" && path.Dir(p) == "lists":
		default:
			t.Errorf("rules/%s is no data of rules", p)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

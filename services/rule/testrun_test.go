package rule

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"
	_ "time/tzdata"

	"github.com/opencoc/coc/services/event"
)

func amsterdam(t fataler) *time.Location {
	t.Helper()
	z, err := time.LoadLocation("Europe/Amsterdam")
	if err != nil {
		t.Fatal(err)
	}
	return z
}

func loadFiles(t fataler, files map[string]string) *Set {
	t.Helper()
	s, err := tryLoad(t, files)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func tryLoad(t fataler, files map[string]string) (*Set, error) {
	t.Helper()
	m := fstest.MapFS{}
	for n, c := range files {
		m[n] = &fstest.MapFile{Data: []byte(c)}
	}
	return Load(m, Options{Zone: amsterdam(t)})
}

const guessing = `id: abuse.guessing
title: {en: Guessing, nl: Raden}
class: abuse
severity: medium
match: kind == "user" && action == "login" && outcome == "failure"
group_by: [source.ip]
window: 10m
condition: count >= 10
suppress: 1h
tests:
  - name: ten failures
    with: {kind: user, action: login, outcome: failure, source.ip: 203.0.113.9}
    events:
      - {repeat: 9, every: 30s}
      - {at: 5m, user.name: root}
    expect: {findings: 1, key: {source.ip: 203.0.113.9}, count: 10, fired: 5m}
  - name: nine are fine
    with: {kind: user, action: login, outcome: failure, source.ip: 203.0.113.9}
    events: [{repeat: 9, every: 30s}]
    expect: {findings: 0}
`

func TestRuleFileTestsRun(t *testing.T) {
	s := loadFiles(t, map[string]string{"abuse/guessing.yaml": guessing})
	for _, r := range RunTests(s) {
		if !r.Passed {
			t.Errorf("%s: %s", r.Name, r.Problem)
		}
	}
}

// fataler is what helpers need of testing.TB and of rapid.T.
type fataler interface {
	Helper()
	Fatal(args ...any)
}

func TestAFailingTestSaysWhatCameNearest(t *testing.T) {
	f := func(tests string, want ...string) {
		t.Helper()
		rule, _, _ := strings.Cut(guessing, "tests:")
		s := loadFiles(t, map[string]string{"r.yaml": rule + "tests:\n" + tests})
		r := RunTests(s)[0]
		if r.Passed {
			t.Errorf("passed:\n%s", tests)
		}
		for _, w := range want {
			if !strings.Contains(r.Problem, w) {
				t.Errorf("%q does not say %q", r.Problem, w)
			}
		}
	}
	with := "    with: {kind: user, action: login, outcome: failure, source.ip: 10.0.0.1}\n"
	f("  - name: too few\n"+with+"    events: [{repeat: 8, every: 1m}]\n    expect: {findings: 1}\n",
		"expected 1 finding, found 0", "nearest: source.ip 10.0.0.1 at 2026-01-05T11:07:00.000Z: count was 8; the rule asks for count >= 10")
	f("  - name: other\n    with: {kind: user, action: logout}\n    events: [{repeat: 8}]\n    expect: {findings: 1}\n", "none of 8 events matched")
	f("  - name: no key\n    with: {kind: user, action: login, outcome: failure}\n    events: [{repeat: 12}]\n    expect: {findings: 1}\n", "12 events matched but had no value for group_by")
	f("  - name: too many\n"+with+"    events: [{repeat: 10, every: 1s}]\n    expect: {findings: 0}\n", "expected 0 findings, found 1", "source.ip 10.0.0.1 at 2026-01-05T11:00:09.000Z, 10 events")
	f("  - name: other key\n"+with+"    events: [{repeat: 10, every: 1s}]\n    expect: {findings: 1, key: {source.ip: 10.0.0.2}}\n", "expected source.ip \"10.0.0.2\", found \"10.0.0.1\"")
	f("  - name: other count\n"+with+"    events: [{repeat: 10, every: 1s}]\n    expect: {findings: 1, count: 11}\n", "expected count 11, found 10")
	f("  - name: other time\n"+with+"    events: [{repeat: 10, every: 1s}]\n    expect: {findings: 1, fired: 10s}\n", "expected fired 2026-01-05T11:00:10.000Z, found 2026-01-05T11:00:09.000Z")
	f("  - name: no kind\n    with: {action: login}\n    events: [{repeat: 1}]\n    expect: {findings: 0}\n", "no kind")
}

func TestATestSaysMuchInFewLines(t *testing.T) {
	s := loadFiles(t, map[string]string{"r.yaml": head + `match: action == "login" && labels["site"] == "a"
group_by: [user.name, source.ip]
status: disabled
tests:
  - name: one finding each
    start: 2026-03-29T01:59:30+01:00
    with: {kind: user, action: login, labels: {site: a}, user.name: "u{n}"}
    events:
      - {repeat: 3, every: 10s, source.ip: "10.0.0.{n}"}
      - {at: -1h, user.name: early, source.ip: 10.0.0.9, bytes: 12, duration: 3.5}
      - {at: 2026-03-29T12:00:00, user.name: local, source.ip: 10.0.0.9}
      - {user.name: later, source.ip: 10.0.0.9, labels.site: b}
    expect: {findings: 5, key: {user.name: u2, source.ip: 10.0.0.2}, count: 1, fired: 10s, severity: low}
`})
	r := RunTests(s)[0]
	if !r.Passed {
		t.Fatal(r.Problem)
	}
	last := r.Findings[4]
	if last.Key["user.hash"] != "local" || event.FormatTime(int64(last.Fired)) != "2026-03-29T10:00:00.000Z" {
		t.Errorf("%s", text(last))
	}
}

func fileOf(events []event.Event) func() iter.Seq2[*event.Event, error] {
	return func() iter.Seq2[*event.Event, error] {
		return func(yield func(*event.Event, error) bool) {
			for i := range events {
				if !yield(&events[i], nil) {
					return
				}
			}
		}
	}
}

// However a file is ordered, nothing in it is late and the findings are the same.
func TestABacktestDoesNotMindTheOrderOfAFile(t *testing.T) {
	set := loadFiles(t, map[string]string{"r.yaml": guessing})
	events := make([]event.Event, 20_000)
	r := rand.New(rand.NewPCG(3, 3))
	for i := range events {
		events[i] = event.Event{Time: 1767610800000 + int64(i)*700, Received: 1, Kind: "user", Action: "login", Outcome: "failure",
			SourceIP: fmt.Sprintf("10.0.0.%d", r.IntN(80)), ID: fmt.Sprintf("e%05d", i)}
	}
	run := func(events []event.Event) string {
		t.Helper()
		out, err := Backtest(context.Background(), set, fileOf(events), BacktestOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if out.Events != 20_000 || out.First != 1767610800000 || len(out.Findings) < 50 || out.Rules[0].Late != 0 {
			t.Errorf("%d events, %d findings, %d late", out.Events, len(out.Findings), out.Rules[0].Late)
		}
		for i := range out.Findings {
			out.Findings[i].Revision = 0
		}
		return text(out.Findings)
	}
	want := run(events)
	slices.Reverse(events)
	if run(events) != want {
		t.Error("a file from back to front has other findings")
	}
	r.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
	if run(events) != want {
		t.Error("a shuffled file has other findings")
	}
}

func TestABacktestStopsAtWhatItCannotRead(t *testing.T) {
	set := loadFiles(t, map[string]string{"r.yaml": guessing})
	broken := errors.New("no JSON")
	_, err := Backtest(context.Background(), set, func() iter.Seq2[*event.Event, error] {
		return func(yield func(*event.Event, error) bool) {
			_ = yield(&event.Event{Kind: "user", Action: "a"}, nil) && yield(nil, broken)
		}
	}, BacktestOptions{})
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "event 2") {
		t.Errorf("%v", err)
	}
	if out, err := Backtest(context.Background(), set, fileOf(nil), BacktestOptions{}); err != nil || len(out.Findings) != 0 {
		t.Errorf("an empty file: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Backtest(ctx, set, fileOf(manyEvents(3)), BacktestOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled run: %v", err)
	}
}

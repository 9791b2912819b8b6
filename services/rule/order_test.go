package rule

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/opencoc/coc/services/event"
)

// naive evaluates one threshold rule over the whole of its events, in the
// simplest way: for each event, look at all others.
type naive struct {
	window int64
	grid   grid
	holds  func(window []event.Event, at event.Event) bool
	key    func(event.Event) string
}

type naiveFinding struct {
	Key               string
	Cell              int64
	Fired, First, End int64
	FiredBy           string
	Count             int64
	Evidence          []string
	Continues         bool
}

func (n *naive) findings(events []event.Event) []naiveFinding {
	byKey := map[string][]event.Event{}
	for _, e := range events {
		if k := n.key(e); k != "" {
			byKey[k] = append(byKey[k], e)
		}
	}
	out := []naiveFinding{}
	for k, list := range byKey {
		slices.SortFunc(list, func(a, b event.Event) int {
			return cmp.Or(cmp.Compare(a.Time, b.Time), cmp.Compare(a.Collector, b.Collector), cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Seq, b.Seq))
		})
		between := func(from, to int64) (in []event.Event) { // (from, to]
			for _, e := range list {
				if from < e.Time && e.Time <= to {
					in = append(in, e)
				}
			}
			return in
		}
		cells := map[int64][]event.Event{} // firings
		for _, e := range list {
			if n.holds(between(e.Time-n.window, e.Time), e) {
				from, _ := n.grid.cell(e.Time)
				cells[from] = append(cells[from], e)
			}
		}
		for from, firings := range cells {
			first, last := firings[0], firings[len(firings)-1]
			// Of a tie, the event with which it became true.
			for _, e := range firings {
				if e.Time != first.Time {
					break
				}
				upTo := between(e.Time-n.window, e.Time-1)
				for _, tie := range between(e.Time-1, e.Time) {
					upTo = append(upTo, tie)
					if tie.Identity() == e.Identity() {
						break
					}
				}
				if n.holds(upTo, e) {
					first = e
					break
				}
			}
			in := between(first.Time-n.window, last.Time)
			f := naiveFinding{Key: k, Cell: from, Fired: first.Time, FiredBy: first.EventID(), Count: int64(len(in)), First: in[0].Time, End: in[len(in)-1].Time}
			for i, e := range in {
				if i < 10 || i >= len(in)-10 {
					f.Evidence = append(f.Evidence, e.EventID())
				}
			}
			before, _ := n.grid.cell(from - 1)
			f.Continues = len(cells[before]) > 0
			out = append(out, f)
		}
	}
	sortNaive(out)
	return out
}

func sortNaive(f []naiveFinding) {
	slices.SortFunc(f, func(a, b naiveFinding) int { return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Cell, b.Cell)) })
}

func asNaive(list []event.Finding) []naiveFinding {
	out := []naiveFinding{}
	for _, f := range list {
		out = append(out, naiveFinding{Key: f.Key["tenant.id"], Cell: int64(f.Cell.From), Fired: int64(f.Fired), FiredBy: f.FiredBy,
			Count: f.Count, First: int64(f.FirstSeen), End: int64(f.LastSeen), Evidence: f.Evidence, Continues: f.Continues != ""})
	}
	sortNaive(out)
	return out
}

// conditions that both the Runner and a few lines of Go can say.
var naiveConditions = []struct {
	text  string
	holds func(w []event.Event, at event.Event) bool
}{
	{"count >= 3", func(w []event.Event, _ event.Event) bool { return len(w) >= 3 }},
	{"count == 2", func(w []event.Event, _ event.Event) bool { return len(w) == 2 }},
	{"sum(bytes) > 40", func(w []event.Event, _ event.Event) bool { return total(w) > 40 }},
	{"avg(bytes) > 8 && count > 1", func(w []event.Event, _ event.Event) bool {
		v := bytesOf(w)
		return len(v) > 0 && total(w)/float64(len(v)) > 8 && len(w) > 1
	}},
	{"max(bytes) - min(bytes) >= 12", func(w []event.Event, _ event.Event) bool {
		v := bytesOf(w)
		return len(v) > 0 && slices.Max(v)-slices.Min(v) >= 12
	}},
	{"distinct(source.ip) >= 3", func(w []event.Event, _ event.Event) bool {
		seen := map[string]bool{}
		for _, e := range w {
			if e.SourceIP != "" {
				seen[e.SourceIP] = true
			}
		}
		return len(seen) >= 3
	}},
	{`share(outcome == "failure") > 0.5 and count >= 2`, func(w []event.Event, _ event.Event) bool {
		n := 0
		for _, e := range w {
			if e.Outcome == "failure" {
				n++
			}
		}
		return float64(n)/float64(len(w)) > 0.5 && len(w) >= 2
	}},
	{"p90(bytes) >= 14 || p50(bytes) == 7", func(w []event.Event, _ event.Event) bool {
		v := bytesOf(w)
		slices.Sort(v)
		at := func(q float64) float64 { return v[max(0, int(math.Ceil(q*float64(len(v))))-1)] }
		return len(v) > 0 && (at(0.9) >= 14 || at(0.5) == 7)
	}},
	{`count > allowance("few", tenant.tier)`, func(w []event.Event, at event.Event) bool {
		return float64(len(w)) > map[string]float64{"small": 1, "large": 4}[at.TenantTier]
	}},
	{`count >= 2 && user.type == "staff" && bytes >= 4`, func(w []event.Event, at event.Event) bool {
		return len(w) >= 2 && at.UserType == "staff" && at.Bytes >= 4
	}},
	{"rate * 60 >= 4", func(w []event.Event, _ event.Event) bool { return false }},
}

func bytesOf(w []event.Event) (out []float64) {
	for _, e := range w {
		if e.Has&event.HasBytes != 0 {
			out = append(out, float64(e.Bytes))
		}
	}
	return out
}

func total(w []event.Event) (sum float64) {
	for _, v := range bytesOf(w) {
		sum += v
	}
	return sum
}

const fewAllowance = "few: {unit: events, meter: {action: a, aggregate: count, window: 1h}, tiers: {small: 1, large: 4}, default: 0}\n"

func thresholdRule(window, suppress, condition string) map[string]string {
	return map[string]string{
		"allowances.yaml": fewAllowance,
		"r.yaml": fmt.Sprintf("id: r\ntitle: t\nclass: abuse\nseverity: low\nmatch: action == 'a'\ngroup_by: [tenant.id]\nwindow: %s\nsuppress: %s\ncondition: |\n  %s\n",
			window, suppress, condition),
	}
}

// drawEvents makes events of two collectors with ties, gaps and a few keys.
func drawEvents(t *rapid.T, n int, step int64) []event.Event {
	base := int64(1767610800000) - 5000
	at := map[string]int64{"c1": base, "c2": base}
	seq := map[string]int64{}
	out := make([]event.Event, n)
	for i := range out {
		c := rapid.SampledFrom([]string{"c1", "c2"}).Draw(t, "collector")
		if rapid.Bool().Draw(t, "moves") {
			at[c] += rapid.Int64Range(0, step).Draw(t, "step")
		}
		seq[c]++
		e := event.Event{Time: at[c], Received: at[c], Kind: "user", Action: "a", Collector: c, Epoch: 1, Seq: seq[c]}
		e.TenantID = rapid.SampledFrom([]string{"t1", "t2", ""}).Draw(t, "tenant")
		e.TenantTier = rapid.SampledFrom([]string{"small", "large"}).Draw(t, "tier")
		e.UserType = rapid.SampledFrom([]string{"staff", "customer"}).Draw(t, "type")
		e.SourceIP = rapid.SampledFrom([]string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", ""}).Draw(t, "ip")
		e.Outcome = rapid.SampledFrom([]string{"failure", "success"}).Draw(t, "outcome")
		if rapid.Bool().Draw(t, "sized") {
			e.SetBytes(rapid.Int64Range(0, 20).Draw(t, "bytes"))
		}
		if rapid.Bool().Draw(t, "named") {
			e.ID = fmt.Sprintf("id-%d", i)
		}
		out[i] = e
	}
	return out
}

func encode(t fataler, events []event.Event) *event.Batch {
	b := event.NewBuilder()
	for i := range events {
		if err := b.Append(&events[i]); err != nil {
			t.Fatal(err)
		}
	}
	data, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	batch, err := event.Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	return batch
}

// encodeFor holds only what a set reads.
func encodeFor(t fataler, set *Set, events []event.Event) *event.Batch {
	b := event.NewBuilder()
	for i := range events {
		if err := b.Append(&events[i]); err != nil {
			t.Fatal(err)
		}
	}
	data, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	batch, err := event.DecodeFields(data, set.Fields())
	if err != nil {
		t.Fatal(err)
	}
	return batch
}

// shuffle moves events by at most a number of places.
func shuffle(t *rapid.T, events []event.Event, most int) []event.Event {
	type placed struct {
		event.Event
		at int
	}
	list := make([]placed, len(events))
	for i, e := range events {
		list[i] = placed{e, i + rapid.IntRange(0, most).Draw(t, "late")}
	}
	slices.SortStableFunc(list, func(a, b placed) int { return cmp.Compare(a.at, b.at) })
	out := make([]event.Event, len(list))
	for i := range list {
		out[i] = list[i].Event
	}
	return out
}

// feed gives events to a Runner in messages of random length, with honest marks.
func feed(t *rapid.T, r *Runner, events []event.Event) *collected {
	c := newCollected()
	for i := 0; i < len(events); {
		n := rapid.IntRange(1, 12).Draw(t, "rows")
		chunk := events[i:min(len(events), i+n)]
		i += len(chunk)
		mark := int64(0)
		for _, e := range events[i:] {
			if mark == 0 || e.Time < mark {
				mark = e.Time
			}
		}
		b := encodeFor(t, r.set, chunk)
		c.once(t, r.Message(Input{Seq: uint64(i), Batch: b, Import: "x", Mark: mark}))
		b.Release()
	}
	return c
}

func (c *collected) once(t *rapid.T, list []event.Finding) {
	seen := map[string]bool{}
	for _, f := range list {
		if seen[f.ID] {
			t.Fatalf("finding %s has two revisions from one message", f.ID)
		}
		seen[f.ID] = true
		if old, ok := c.last[f.ID]; f.Revision != old.Revision+1 || ok && f.Logic != old.Logic {
			t.Fatalf("finding %s: revision %d follows %d", f.ID, f.Revision, old.Revision)
		}
	}
	c.add(list)
}

func TestFindingsAreThoseOfANaiveEvaluatorInAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		i := rapid.IntRange(0, len(naiveConditions)-1).Draw(t, "condition")
		window := rapid.SampledFrom([]string{"2s", "10s", "45s", "3m"}).Draw(t, "window")
		suppress := rapid.SampledFrom([]string{"1m", "90s", "5m", "1d"}).Draw(t, "suppress")
		set := loadFiles(t, thresholdRule(window, suppress, naiveConditions[i].text))
		rule := set.rules[0]
		n := &naive{window: rule.Window.Milliseconds(), grid: rule.cells, holds: naiveConditions[i].holds, key: func(e event.Event) string { return e.TenantID }}
		if strings.HasPrefix(naiveConditions[i].text, "rate") {
			n.holds = func(w []event.Event, _ event.Event) bool {
				return float64(len(w))/(float64(n.window)/1000)*60 >= 4
			}
		}
		events := drawEvents(t, rapid.IntRange(1, 120).Draw(t, "n"), 20_000)
		want := n.findings(events)
		arrived := shuffle(t, events, rapid.SampledFrom([]int{0, 3, 40}).Draw(t, "disorder"))
		got := feed(t, NewRunner(set, RunnerOptions{}), arrived).standing()
		if a, b := text(asNaive(got)), text(want); a != b {
			t.Fatalf("%s over %s, cells of %s\n got %s\nwant %s", naiveConditions[i].text, window, suppress, a, b)
		}
	})
}

func text(v any) string {
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		panic(err)
	}
	return string(b)
}

// With marks that promise too much some events are late: they are counted and
// do not matter otherwise, and what is in time may still come in any order.
func TestLateEventsAreLeftOutAndCounted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		i := rapid.IntRange(0, 9).Draw(t, "condition")
		set := loadFiles(t, thresholdRule("10s", "1m", naiveConditions[i].text))
		rule := set.rules[0]
		n := &naive{window: rule.Window.Milliseconds(), grid: rule.cells, holds: naiveConditions[i].holds, key: func(e event.Event) string { return e.TenantID }}
		events := shuffle(t, drawEvents(t, rapid.IntRange(1, 100).Draw(t, "n"), 20_000), 30)
		lateness := rapid.Int64Range(0, 60_000).Draw(t, "lateness")
		live := rapid.Bool().Draw(t, "live")
		r, c := NewRunner(set, RunnerOptions{}), newCollected()
		horizon, newest, late := int64(never), int64(never), int64(0)
		var inTime []event.Event
		for len(events) > 0 {
			chunk := events[:min(len(events), rapid.IntRange(1, 12).Draw(t, "rows"))]
			events = events[len(chunk):]
			for _, e := range chunk {
				newest = max(newest, e.Time)
				switch {
				case e.TenantID == "":
				case e.Time < horizon:
					late++
				default:
					inTime = append(inTime, e)
				}
			}
			in := Input{Batch: encode(t, chunk), Collector: "c1", Mark: newest - lateness}
			if live {
				in.BusTime = newest + 1000
			} else {
				in.Import = "x"
			}
			horizon = max(horizon, in.Mark)
			c.once(t, r.Message(in))
			in.Batch.Release()
			if rapid.IntRange(0, 5).Draw(t, "restart") == 0 {
				late -= r.Stats()[0].Late // what it counted goes with it
				r = moved(t, r)
			}
		}
		if a, b := text(asNaive(c.standing())), text(n.findings(inTime)); a != b {
			t.Fatalf("%s\n got %s\nwant %s", naiveConditions[i].text, a, b)
		}
		if got := r.Stats()[0].Late; got != late {
			t.Fatalf("%d are counted as late, want %d", got, late)
		}
	})
}

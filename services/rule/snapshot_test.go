package rule

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/opencoc/coc/services/event"
)

// moved is a Runner with the state of another, through bytes.
func moved(t fataler, r *Runner) *Runner {
	to := NewRunner(r.set, RunnerOptions{NoLanes: true})
	for lane := range lanes {
		var a, b bytes.Buffer
		if err := r.Snapshot(lane, &a); err != nil {
			t.Fatal(err)
		}
		if err := to.Restore(lane, bytes.NewReader(a.Bytes())); err != nil {
			t.Fatal(err)
		}
		if err := to.Snapshot(lane, &b); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a.Bytes(), b.Bytes()) {
			t.Fatal(fmt.Sprintf("lane %d: the restored state has other bytes", lane))
		}
	}
	return to
}

func mixedSet(t fataler) *Set {
	files := map[string]string{"allowances.yaml": fewAllowance}
	for i, c := range naiveConditions {
		files[fmt.Sprintf("c%d.yaml", i)] = fmt.Sprintf("id: c%d\ntitle: t\nclass: abuse\nseverity: low\nmatch: action == 'a'\ngroup_by: [tenant.id]\nwindow: 20s\nsuppress: 1m\ncondition: |\n  %s\n", i, c.text)
	}
	files["m.yaml"] = "id: m\ntitle: t\nclass: abuse\nseverity: low\nmatch: action == 'a' && source.ip == '10.0.0.1'\ngroup_by: [tenant.id, user.type]\n"
	files["n.yaml"] = "id: n\ntitle: t\nclass: abuse\nseverity: low\nmatch: action == 'a' && source.ip != '10.0.0.1'\n"
	return loadFiles(t, files)
}

func TestARestoredRunnerGoesOnAsTheUndisturbedOne(t *testing.T) {
	set := mixedSet(t)
	rapid.Check(t, func(t *rapid.T) {
		events := shuffle(t, drawEvents(t, rapid.IntRange(1, 60).Draw(t, "n"), 20_000), 20)
		whole, broken := NewRunner(set, RunnerOptions{}), NewRunner(set, RunnerOptions{})
		for i := 0; i < len(events); {
			n := min(len(events)-i, rapid.IntRange(1, 15).Draw(t, "rows"))
			b := encode(t, events[i:i+n])
			in := Input{Seq: uint64(i), Batch: b, Collector: "c1", BusTime: events[i].Time + 1000, Mark: events[i].Time - 100_000}
			if rapid.IntRange(0, 3).Draw(t, "import") == 0 {
				in.Import, in.Mark = "i", events[i].Time-50_000
			}
			want, got := text(whole.Message(in)), text(broken.Message(in))
			b.Release()
			if want != got {
				t.Fatalf("at %d\n got %s\nwant %s", i, got, want)
			}
			i += n
			if rapid.Bool().Draw(t, "restart") {
				broken = moved(t, broken)
			}
		}
	})
}

// manyEvents are more of one key than are kept one by one.
func manyEvents(n int) []event.Event {
	r := rand.New(rand.NewPCG(7, 7))
	events := make([]event.Event, n)
	for i := range events {
		e := &events[i]
		*e = event.Event{Time: 1767610800000 + int64(i)*100, Received: 1, Kind: "user", Action: "a", Collector: "c", Epoch: 1, Seq: int64(i + 1), TenantID: "t1",
			SourceIP: fmt.Sprintf("10.0.%d.%d", r.IntN(40), r.IntN(250)), Outcome: []string{"failure", "success"}[r.IntN(2)]}
		e.SetBytes(int64(r.ExpFloat64() * 1000))
	}
	return events
}

func TestBeyondTheExactNumberAWindowIsApproximate(t *testing.T) {
	const n = 30_000
	set := loadFiles(t, thresholdRule("30d", "60d",
		fmt.Sprintf("count >= %d && sum(bytes) > 0 && min(bytes) >= 0 && max(bytes) > 0 && share(outcome == 'failure') > 0 && distinct(source.ip) > 0 && p50(bytes) > 0 && p99(bytes) > 0", n)))
	r, c := NewRunner(set, RunnerOptions{}), newCollected()
	events := manyEvents(n)
	for i := 0; i < n; i += 1000 {
		b := encode(t, events[i:i+1000])
		c.add(r.Message(Input{Batch: b, Import: "x"}))
		b.Release()
		if i%7000 == 0 {
			r = moved(t, r)
		}
	}
	list := c.standing()
	if len(list) != 1 {
		t.Fatalf("%d findings, want 1", len(list))
	}
	f := list[0]
	if !f.Approximate || f.Count != n || f.FiredBy != fmt.Sprintf("c-1-%d", n) {
		t.Errorf("approximate %v, count %d, fired by %s", f.Approximate, f.Count, f.FiredBy)
	}
	w := bytesOf(events)
	seen := map[string]bool{}
	failures := 0
	for _, e := range events {
		seen[e.SourceIP] = true
		if e.Outcome == "failure" {
			failures++
		}
	}
	near := func(expr string, want, off float64) {
		for _, term := range f.Terms {
			if term.Expr == expr {
				if term.Value < want*(1-off) || term.Value > want*(1+off) {
					t.Errorf("%s is %g, want %g within %g %%", expr, term.Value, want, off*100)
				}
				return
			}
		}
		t.Errorf("no term %s among %v", expr, f.Terms)
	}
	near("count", n, 0)
	near("sum(bytes)", total(events), 0)
	near(`share(outcome == "failure")`, float64(failures)/n, 0)
	near("distinct(source.ip)", float64(len(seen)), 0.07)
	near("p50(bytes)", quantileOf(w, 0.5), 0.011)
	near("p99(bytes)", quantileOf(w, 0.99), 0.011)
	if k := r.domains[1].lanes[f.Lane].stores[0].newest; len(k.entries) > MaxExact {
		t.Errorf("%d entries are kept, more than %d", len(k.entries), MaxExact)
	}
}

func TestAWindowThatGrowsSmallIsExactAgain(t *testing.T) {
	set := loadFiles(t, thresholdRule("10m", "10m", "count >= 3 && distinct(source.ip) >= 2 && max(bytes) > 5"))
	r, c := NewRunner(set, RunnerOptions{}), newCollected()
	events := manyEvents(9000)
	last := events[len(events)-1].Time
	for i := range 5 {
		e := events[i]
		e.Time, e.Seq = last+3_600_000+int64(i)*1000, int64(9001+i)
		e.SetBytes(10)
		events = append(events, e)
	}
	for i := 0; i < len(events); i += 500 {
		b := encode(t, events[i:min(len(events), i+500)])
		c.add(r.Message(Input{Batch: b, Collector: "c", BusTime: events[min(len(events)-1, i+499)].Time, Mark: events[i].Time}))
		b.Release()
	}
	list := c.standing()
	f := list[len(list)-1]
	if f.Approximate || f.Count != 5 || f.FiredBy != "c-1-9003" {
		t.Errorf("the last finding: %s", text(f))
	}
}

// Windows live on in checkpoints: the names of people must not.
func TestCheckpointsAndFindingsHoldNoNames(t *testing.T) {
	const name = "Planted Name"
	s := newStream(t, map[string]string{
		"a.yaml": strings.Replace(head, "id: r", "id: a", 1) + "match: user.name == '" + name + "'\ngroup_by: [user.name]\nwindow: 1h\ncondition: count >= 2 && distinct(user.name) >= 1 && distinct(message) >= 1 && share(user.name != '') > 0\n",
		"b.yaml": strings.Replace(head, "id: r", "id: b", 1) + "match: message contains '" + name + "' and labels.who == '" + name + "'\ngroup_by: [user.hash, tenant.id]\n",
	})
	var events []event.Event
	for i := range 30 {
		e := event.Event{Time: s.now + int64(i), UserName: name, UserHash: "hash", TenantID: "t", Message: "by " + name, ResourceTitle: name, ProcessCommandLine: name}
		e.SetLabel("who", name)
		events = append(events, e)
	}
	s.send(s.now, events...)
	list := s.c.standing()
	if len(list) != 2 || strings.Contains(text(list), "Planted") || list[0].Key["user.hash"] != "hash" {
		t.Errorf("%s", text(list))
	}
	for lane := range lanes {
		var buf bytes.Buffer
		if err := s.Snapshot(lane, &buf); err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(buf.Bytes(), []byte("Planted")) {
			t.Errorf("the checkpoint of lane %d holds the name", lane)
		}
	}
}

// More events of one moment than are kept one by one.
func TestAFloodOfOneMomentIsCounted(t *testing.T) {
	s := newStream(t, thresholdRule("10m", "1h", "count >= 20000 && distinct(source.ip) > 0 && p50(bytes) >= 0"))
	at := s.now
	for range 4 {
		events := manyEvents(6000)
		for i := range events {
			events[i].Time = at
		}
		s.send(at, events...)
		s.Runner = moved(t, s.Runner)
	}
	list := s.c.standing()
	if len(list) != 1 || list[0].Count != 24_000 || !list[0].Approximate {
		t.Fatalf("%s", text(list))
	}
	s.send(at, tenant("t1", at+9*minute))
	s.send(at, tenant("t1", at+11*minute))
	if st := s.stat("r"); st.Suppressed != 1 {
		t.Errorf("the flood counts nine minutes later and not eleven: %+v", st)
	}
}

func FuzzRestore(f *testing.F) {
	set := mixedSet(f)
	r := NewRunner(set, RunnerOptions{})
	events := manyEvents(300)
	for i := range events {
		events[i].TenantID = fmt.Sprintf("t%d", i%9)
	}
	b := encode(f, events)
	r.Message(Input{Batch: b, Collector: "c", BusTime: events[0].Time, Mark: 1})
	for lane := range lanes {
		var buf bytes.Buffer
		if err := r.Snapshot(lane, &buf); err != nil {
			f.Fatal(err)
		}
		if lane < 4 {
			f.Add(buf.Bytes())
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := NewRunner(set, RunnerOptions{NoLanes: true})
		for lane := range lanes {
			if err := r.Restore(lane, bytes.NewReader(data)); err == nil {
				r.Message(Input{Batch: b, Collector: "c", BusTime: events[0].Time + 1})
				var buf bytes.Buffer
				if err := r.Snapshot(lane, &buf); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

func quantileOf(v []float64, q float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[nearestRank(q, int64(len(s)))]
}

package rule

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/opencoc/coc/services/event"
)

const minute = int64(60_000)

// stream feeds a Runner with messages of the live domain.
type stream struct {
	*Runner
	t   *testing.T
	seq int64
	c   *collected
	now int64 // bus clock
}

func newStream(t *testing.T, files map[string]string) *stream {
	return &stream{Runner: NewRunner(loadFiles(t, files), RunnerOptions{}), t: t, c: newCollected(), now: 1767610800000}
}

// send gives one message of events that happened some time before now.
func (s *stream) send(mark int64, events ...event.Event) []event.Finding {
	s.t.Helper()
	for i := range events {
		e := &events[i]
		s.seq++
		e.Seq, e.Epoch, e.Received, e.Kind = s.seq, 1, s.now, cmp.Or(e.Kind, "user")
		e.Collector, e.Action = cmp.Or(e.Collector, "c"), cmp.Or(e.Action, "a")
	}
	in := Input{Seq: uint64(s.seq), Collector: "c", Mark: mark, BusTime: s.now}
	if len(events) > 0 {
		in.Batch = encode(s.t, events)
		defer in.Batch.Release()
	}
	out := s.Message(in)
	s.c.add(out)
	return out
}

func (s *stream) stat(id string) RuleStats {
	for _, st := range s.Stats() {
		if st.Rule == id {
			return st
		}
	}
	return RuleStats{}
}

func tenant(id string, at int64) event.Event { return event.Event{TenantID: id, Time: at} }

func TestAStragglerMakesTrueAndUntrue(t *testing.T) {
	s := newStream(t, thresholdRule("10m", "1h", "count == 3"))
	now := s.now
	mark := now - 30*minute
	s.send(mark, tenant("t", now-9*minute), tenant("t", now-8*minute), tenant("t", now-7*minute))
	if list := s.c.standing(); len(list) != 1 || list[0].Count != 3 {
		t.Fatalf("three events: %s", text(list))
	}
	out := s.send(mark, tenant("t", now-8*minute-1)) // now four at the third event, three at the second
	if len(out) != 1 || out[0].Withdrawn || out[0].Revision != 2 || int64(out[0].Fired) != now-8*minute || out[0].Count != 3 {
		t.Fatalf("a straggler in between: %s", text(out))
	}
	out = s.send(mark, tenant("t", now-8*minute)) // a tie: three becomes four
	if len(out) != 1 || !out[0].Withdrawn || out[0].Revision != 3 || out[0].Count != 0 {
		t.Fatalf("a tie: %s", text(out))
	}
	if len(s.c.standing()) != 0 {
		t.Errorf("a withdrawn finding stands: %s", text(s.c.standing()))
	}
	if st := s.stat("r"); st.Withdrawn != 1 || st.Findings != 1 || st.Revisions != 3 {
		t.Errorf("%+v", st)
	}
}

func TestTheHorizonIsTheLeastMarkHeard(t *testing.T) {
	s := newStream(t, thresholdRule("10m", "1h", "count >= 1"))
	now := s.now
	s.send(now - 5*minute)
	s.Message(Input{Collector: "d", Mark: now - 20*minute, BusTime: now}) // one that is behind; the horizon does not fall
	if h := s.Totals().Horizon; h != now-5*minute {
		t.Errorf("horizon %d, want %d", h-now, -5*minute)
	}
	s.send(now, tenant("t", now-6*minute), tenant("t", now-5*minute))
	if st := s.stat("r"); st.Late != 1 || st.Matches != 2 || st.LateBy["c"] != 1 {
		t.Errorf("one of two is late: %+v", st)
	}
	s.now += 4 * minute
	s.send(s.now) // d is behind by 24 minutes and was heard: the horizon waits
	if h := s.Totals().Horizon; h != now-5*minute {
		t.Errorf("horizon %d, want %d", h-now, -5*minute)
	}
	s.now += 2 * minute
	s.send(s.now) // d was not heard for 6 minutes
	if h := s.Totals().Horizon; h != s.now {
		t.Errorf("horizon %d behind the clock, want none", s.now-h)
	}
	s.send(s.now + 30*minute) // a clock ahead
	if h := s.Totals().Horizon; h != s.now {
		t.Errorf("horizon %d ahead of the clock", h-s.now)
	}
	s.Tick(0, s.now+3*60*minute)
	if h := s.Totals().Horizon; h != s.now+2*60*minute {
		t.Errorf("after hours of silence the horizon is %d minutes behind the clock, want 60", (s.now+3*60*minute-h)/minute)
	}
}

func TestAnImportIsATimeDomainOfItsOwn(t *testing.T) {
	s := newStream(t, thresholdRule("10m", "1h", "count >= 3"))
	now := s.now
	s.send(now, tenant("t", now), tenant("t", now)) // two live ones
	old := now - 300*24*60*minute
	in := func(end bool, mark int64, events ...event.Event) []event.Finding {
		b := encode(t, events)
		defer b.Release()
		return s.Message(Input{Batch: b, Collector: "i", Import: "imp", Mark: mark, ImportEnd: end, BusTime: now})
	}
	one := func(at int64) event.Event {
		return event.Event{Time: at, Received: now, Kind: "user", Action: "a", TenantID: "t", Collector: "i", Epoch: 1, Seq: at}
	}
	if out := in(false, old, one(old), one(old+1)); len(out) != 0 {
		t.Errorf("two of an import: %s", text(out))
	}
	out := in(false, old, one(old+2))
	if len(out) != 1 || out[0].Import != "imp" || out[0].Count != 3 {
		t.Errorf("three of an import: %s", text(out))
	}
	if out := in(true, 0, one(now)); len(out) != 0 || s.Totals().Imports != 0 {
		t.Errorf("an import's event counted live, or its windows are still there: %s", text(out))
	}
	if out := s.send(now, tenant("t", now)); len(out) != 1 || out[0].Import != "" || out[0].Count != 3 {
		t.Errorf("the third live one: %s", text(out))
	}
	for i := range maxImports + 5 {
		s.Message(Input{Import: fmt.Sprint(i), BusTime: now + int64(i)})
	}
	if n := s.Totals().Imports; n != maxImports {
		t.Errorf("%d imports are held, want %d", n, maxImports)
	}
	s.Tick(0, now+25*60*minute)
	if n := s.Totals().Imports; n != 0 {
		t.Errorf("%d imports are held a day after their last message", n)
	}
}

// Which lanes a Runner has must not matter to what it finds in them.
func TestLanesAreIndependent(t *testing.T) {
	set := mixedSet(t)
	rapid.Check(t, func(t *rapid.T) {
		events := shuffle(t, drawEvents(t, rapid.IntRange(1, 80).Draw(t, "n"), 20_000), 20)
		mask := Lanes(rapid.Uint16().Draw(t, "lanes"))
		whole, some, others := NewRunner(set, RunnerOptions{}), NewRunner(set, RunnerOptions{Lanes: mask, NoLanes: true}), NewRunner(set, RunnerOptions{Lanes: ^mask, NoLanes: true})
		for len(events) > 0 {
			n := min(len(events), 20)
			b := encode(t, events[:n])
			in := Input{Batch: b, Collector: "c1", BusTime: events[0].Time, Mark: events[0].Time - 60_000}
			var want [2][]event.Finding
			for _, f := range whole.Message(in) {
				i := 0
				if !mask.Has(f.Lane) {
					i = 1
				}
				want[i] = append(want[i], f)
			}
			for i, r := range []*Runner{some, others} {
				if a, b := text(r.Message(in)), text(want[i]); a != b {
					t.Fatalf("with %016b\n got %s\nwant %s", mask, a, b)
				}
			}
			b.Release()
			events = events[n:]
		}
	})
}

func TestMatchFindingsAreThoseOfANaiveCountInAnyOrder(t *testing.T) {
	set := loadFiles(t, map[string]string{"r.yaml": head + "match: outcome == 'failure'\ngroup_by: [tenant.id]\nsuppress: 1m\n"})
	grid := set.rules[0].cells
	rapid.Check(t, func(t *rapid.T) {
		events := drawEvents(t, rapid.IntRange(1, 120).Draw(t, "n"), 20_000)
		n := &naive{window: 0, grid: grid, key: func(e event.Event) string {
			if e.Outcome != "failure" {
				return ""
			}
			return e.TenantID
		}}
		want := n.matches(events)
		got := feed(t, NewRunner(set, RunnerOptions{}), shuffle(t, events, 40)).standing()
		if a, b := text(asNaive(got)), text(want); a != b {
			t.Fatalf("got %s\nwant %s", a, b)
		}
	})
}

func (n *naive) matches(events []event.Event) []naiveFinding {
	type cell struct {
		key  string
		from int64
	}
	cells := map[cell][]event.Event{}
	for _, e := range events {
		if k := n.key(e); k != "" {
			from, _ := n.grid.cell(e.Time)
			cells[cell{k, from}] = append(cells[cell{k, from}], e)
		}
	}
	out := []naiveFinding{}
	for c, list := range cells {
		slices.SortFunc(list, func(a, b event.Event) int {
			return cmp.Or(cmp.Compare(a.Time, b.Time), cmp.Compare(a.Collector, b.Collector), cmp.Compare(a.Seq, b.Seq))
		})
		f := naiveFinding{Key: c.key, Cell: c.from, Fired: list[0].Time, FiredBy: list[0].EventID(), Count: int64(len(list)), First: list[0].Time, End: list[len(list)-1].Time}
		for i, e := range list {
			if i < 10 || i >= len(list)-10 {
				f.Evidence = append(f.Evidence, e.EventID())
			}
		}
		before, _ := n.grid.cell(c.from - 1)
		f.Continues = len(cells[cell{c.key, before}]) > 0
		out = append(out, f)
	}
	sortNaive(out)
	return out
}

func TestASwitchKeepsWindowsButNotAnswers(t *testing.T) {
	s := newStream(t, thresholdRule("10m", "1h", "count >= 3"))
	now, mark := s.now, s.now-30*minute
	first := s.send(mark, tenant("t", now-9*minute), tenant("t", now-8*minute), tenant("t", now-7*minute))
	// The same logic under another title: the finding goes on.
	files := thresholdRule("10m", "1h", "count   >= 3")
	files["r.yaml"] = strings.Replace(files["r.yaml"], "title: t", "title: new", 1)
	s.Switch(loadFiles(t, files))
	out := s.send(mark, tenant("t", now-6*minute))
	if len(out) != 1 || out[0].ID != first[0].ID || out[0].Revision != 2 || out[0].Title != "new" || out[0].Count != 4 {
		t.Errorf("after a new title: %s", text(out))
	}
	// Another bound: windows are full, findings are new ones.
	s.Switch(loadFiles(t, thresholdRule("10m", "1h", "count >= 5")))
	out = s.send(mark, tenant("t", now-5*minute))
	if len(out) != 1 || out[0].ID == first[0].ID || out[0].Revision != 1 || out[0].Count != 5 {
		t.Errorf("after a new bound: %s", text(out))
	}
	// A straggler does not let the new logic judge what the old one judged.
	s.Switch(loadFiles(t, thresholdRule("10m", "1h", "count >= 1")))
	out = s.send(mark, tenant("t", now-9*minute-1))
	if len(out) != 1 || out[0].Count != 1 {
		t.Errorf("a straggler after a switch: %s", text(out))
	}
	// Another window: a new start.
	s.Switch(loadFiles(t, thresholdRule("11m", "1h", "count >= 5")))
	if out := s.send(mark, tenant("t", now-4*minute)); len(out) != 0 || s.stat("r").Keys != 1 {
		t.Errorf("after a new window: %s", text(out))
	}
	s.Switch(loadFiles(t, map[string]string{"other.yaml": strings.Replace(head, "id: r", "id: other", 1) + "match: true\n"}))
	if tot := s.Totals(); tot.Keys != 0 || tot.MemoryBytes != 0 {
		t.Errorf("a rule that is gone left %+v", tot)
	}
}

func TestExceptionsDropEventsUntilTheyExpire(t *testing.T) {
	files := thresholdRule("10m", "1h", "count >= 1")
	files["exceptions.yaml"] = "- {rule: r, when: 'tenant.id == \"t1\"', reason: r, owner: o, expires: 2026-01-05}\n"
	s := newStream(t, files)
	s.now += 24 * 60 * minute
	day := int64(24 * 60 * minute)
	out := s.send(s.now, tenant("t1", s.now-day), tenant("t2", s.now-day), tenant("t1", s.now))
	if len(out) != 2 || out[0].Key["tenant.id"] != "t2" || int64(out[1].Fired) != s.now {
		t.Errorf("%s", text(out))
	}
	if st := s.stat("r"); st.Excepted != 1 || st.Matches != 2 {
		t.Errorf("%+v", st)
	}
}

func TestStalestKeysAreEvictedAndCounted(t *testing.T) {
	set := loadFiles(t, thresholdRule("10m", "1h", "count >= 2"))
	r := NewRunner(set, RunnerOptions{MaxKeys: 160})
	events := make([]event.Event, 4000)
	for i := range events {
		events[i] = event.Event{Time: 1767610800000 + int64(i), Received: 1, Kind: "user", Action: "a", TenantID: fmt.Sprintf("t%d", i), Collector: "c", Epoch: 1, Seq: int64(i)}
	}
	b := encode(t, events)
	defer b.Release()
	r.Message(Input{Batch: b, Collector: "c"})
	st := r.Stats()[0]
	if st.Keys > 160 || st.Evicted != 4000-st.Keys {
		t.Errorf("%d keys, %d evicted", st.Keys, st.Evicted)
	}
	for lane := range lanes {
		for _, k := range r.domains[0].lanes[lane].stores[0].keys {
			if k.entries[0].time < events[3000].Time {
				t.Fatalf("key %s stayed, which is older than what was evicted", k.name)
			}
		}
	}
}

func TestMemoryIsBounded(t *testing.T) {
	set := mixedSet(t)
	r := NewRunner(set, RunnerOptions{MemoryBytes: 2 << 20})
	for n := range 4 {
		events := manyEvents(5000)
		for i := range events {
			events[i].TenantID, events[i].UserType = fmt.Sprintf("t%d", (n*5000+i)/3), "staff"
		}
		b := encode(t, events)
		r.Message(Input{Batch: b, Collector: "c"})
		b.Release()
	}
	if tot := r.Totals(); tot.MemoryBytes > 2<<20 || tot.MemoryBytes < 1<<20 {
		t.Errorf("%d bytes are held, the bound is %d", tot.MemoryBytes, 2<<20)
	}
	evicted := int64(0)
	for _, st := range r.Stats() {
		evicted += st.Evicted
	}
	if evicted == 0 {
		t.Error("nothing was evicted")
	}
	// What is counted is what is there.
	var sum int64
	for lane := range lanes {
		for _, s := range r.domains[0].lanes[lane].stores {
			if s != nil {
				for _, k := range s.keys {
					sum += k.size
				}
			}
		}
	}
	if tot := r.Totals(); sum != tot.MemoryBytes {
		t.Errorf("%d bytes are counted, the keys hold %d", tot.MemoryBytes, sum)
	}
}

func TestIdleKeysAreForgotten(t *testing.T) {
	s := newStream(t, thresholdRule("10m", "1h", "count >= 2"))
	s.send(s.now, tenant("a", s.now), tenant("a", s.now), tenant("b", s.now))
	for range 10 {
		s.now += 60 * minute
		s.send(s.now)
	}
	if tot := s.Totals(); tot.Keys != 0 || tot.MemoryBytes != 0 {
		t.Errorf("hours later there are %d keys of %d bytes", tot.Keys, tot.MemoryBytes)
	}
}

// A finding that lasts longer than its window keeps its count and evidence.
func TestAFindingOutlivesItsWindow(t *testing.T) {
	s := newStream(t, thresholdRule("1m", "1d", "count >= 2"))
	start, n := s.now, 0
	for i := range 200 {
		at := s.now
		s.send(at, tenant("t", at), tenant("t", at+1))
		n += 2
		s.now += minute / 2
		if i%50 == 49 {
			var buf bytes.Buffer
			for lane := range lanes {
				if err := s.Snapshot(lane, &buf); err != nil {
					t.Fatal(err)
				}
			}
			s.Runner = moved(t, s.Runner)
		}
	}
	list := s.c.standing()
	if len(list) != 1 {
		t.Fatalf("%d findings", len(list))
	}
	f := list[0]
	if f.Count != int64(n) || int64(f.FirstSeen) != start || len(f.Evidence) != 20 || f.Evidence[0] != "c-1-1" || f.Evidence[9] != "c-1-10" || f.Evidence[19] != fmt.Sprintf("c-1-%d", n) || f.Evidence[10] != fmt.Sprintf("c-1-%d", n-9) {
		t.Errorf("%s", text(f))
	}
	for _, d := range s.domains {
		for lane := range d.lanes {
			for _, st := range d.lanes[lane].stores {
				if st != nil && len(st.newest.entries) > 600 {
					t.Errorf("%d entries are kept", len(st.newest.entries))
				}
			}
		}
	}
}

func TestARunTimeErrorIsNoMatchAndCounted(t *testing.T) {
	s := newStream(t, map[string]string{"r.yaml": head + "match: int(message) > 3\n"})
	out := s.send(s.now, event.Event{Time: s.now, Message: "four"}, event.Event{Time: s.now, Message: "4"})
	if st := s.stat("r"); len(out) != 1 || out[0].Count != 1 || st.Errors != 1 || !strings.Contains(st.LastError, "match:") {
		t.Errorf("%s\n%+v", text(out), st)
	}
}

func TestEventsWithoutAValueForTheKeyDoNotCount(t *testing.T) {
	s := newStream(t, thresholdRule("10m", "1h", "count >= 1"))
	s.send(s.now, tenant("", s.now))
	if st := s.stat("r"); st.NoKey != 1 || st.Matches != 0 {
		t.Errorf("%+v", st)
	}
}

func TestKeysOfSeveralFieldsAreNotConfused(t *testing.T) {
	s := newStream(t, map[string]string{"r.yaml": head + "match: true\ngroup_by: [tenant.id, session.id, labels.x]\n"})
	make := func(a, b, x string) event.Event {
		e := event.Event{Time: s.now, TenantID: a, SessionID: b}
		e.SetLabel("x", x)
		return e
	}
	out := s.send(s.now, make("a", "bc", "d"), make("ab", "c", "d"), make("a", "b", "cd"), make("a", "bc", "d"))
	if len(out) != 3 || out[0].Count != 2 || out[0].Key["session.id"] != "bc" || out[0].Key["labels.x"] != "d" || out[0].Tenant != "a" {
		t.Errorf("%s", text(out))
	}
}

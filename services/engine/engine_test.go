package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"iter"
	"testing"
	"time"

	"github.com/opencoc/coc/services/bus"
	"github.com/opencoc/coc/services/event"
	"github.com/opencoc/coc/services/rule"
)

func TestFindingsAreThoseOfTheRecordedStream(t *testing.T) {
	h := newHouse(t)
	e := h.start(Config{Set: ruleSet(t, 5)})
	h.await("the rules are in force", func() bool { return e.Status().Digest != "" })
	h.publish("c1", logins(2000, 1), 300)
	h.awaitThrough(e)
	h.check()
	if s := e.Status(); s.Lanes != rule.AllLanes || !s.Running || s.Findings == 0 {
		t.Errorf("status: %+v", s)
	}
}

// Whoever waits until the engine runs finds the rules in force.
func TestARunningEngineHasItsRules(t *testing.T) {
	h := newHouse(t)
	e := h.start(Config{Set: ruleSet(t, 5)})
	h.await("the engine runs", func() bool { return e.Status().Running })
	h.publish("c1", logins(2000, 11), 500)
	h.awaitThrough(e)
	r, err := h.bus.Events(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if m, err := r.Next(t.Context()); err != nil || m.Meta.Control != bus.ControlRules {
		t.Errorf("the first message is %+v, not the switch to the rules: %v", m.Meta, err)
	}
	h.check()
}

func TestARestartFindsTheSameOnce(t *testing.T) {
	h := newHouse(t)
	set := ruleSet(t, 5)
	events := logins(4000, 2)
	for i := range 4 {
		e := h.start(Config{Set: set})
		h.await("the rules are in force", func() bool { return e.Status().Digest != "" })
		h.publish("c1", events[i*1000:(i+1)*1000], 90)
		if i%2 == 0 {
			h.awaitThrough(e)
		}
		if err := e.stop(); err != nil {
			t.Fatal(err)
		}
		for lane := range bus.Lanes {
			if cp, err := h.bus.Checkpoint(t.Context(), lane); err != nil || cp.Seq > e.Through() || i%2 == 0 && cp.Seq != e.Through() {
				t.Fatalf("lane %d: checkpoint at %d, engine through %d: %v", lane, cp.Seq, e.Through(), err)
			}
		}
	}
	e := h.start(Config{Set: set})
	h.awaitThrough(e)
	h.check()
}

// The whole process dies: the bus is gone before the engine can write.
func TestAfterACrashNothingIsFoundTwice(t *testing.T) {
	h := newHouse(t)
	set := ruleSet(t, 5)
	events := logins(3000, 3)
	for i := range 3 {
		e := h.start(Config{Set: set, Every: []time.Duration{time.Hour, 20 * time.Millisecond, time.Hour}[i]})
		h.await("the rules are in force", func() bool { return e.Status().Digest != "" })
		h.publish("c1", events[i*1000:(i+1)*1000], 70)
		if i < 2 {
			h.await("something is found", func() bool { return e.Status().Findings > 0 })
		} else {
			h.awaitThrough(e)
		}
		h.close()
		if err := e.stop(); err != nil {
			t.Logf("the engine ended: %v", err)
		}
		h.open()
	}
	e := h.start(Config{Set: set})
	h.awaitThrough(e)
	h.check()
}

func TestASecondEngineStandsByAndTakesOver(t *testing.T) {
	h := newHouse(t)
	set := ruleSet(t, 5)
	one := h.start(Config{Set: set})
	h.await("the first owns all lanes", func() bool { return one.Status().Lanes == rule.AllLanes })
	two := h.start(Config{Set: set})
	h.await("the second stands by", func() bool { return two.Status().Problem != "" })
	events := logins(2000, 4)
	h.publish("c1", events[:1000], 100)
	h.awaitThrough(one)
	if err := one.stop(); err != nil {
		t.Fatal(err)
	}
	h.publish("c1", events[1000:], 100)
	h.await("the second owns all lanes", func() bool { return two.Status().Lanes == rule.AllLanes })
	h.awaitThrough(two)
	h.check()
}

// Another owner writes first, as one that took over a frozen engine's lane
// would; the frozen one wakes, is refused, and starts over.
func TestAFencedEngineStartsOverFromItsCheckpoint(t *testing.T) {
	h := newHouse(t)
	set := ruleSet(t, 5)
	e := h.start(Config{Set: set})
	h.await("the rules are in force", func() bool { return e.Status().Digest != "" })
	events := logins(2000, 5)
	h.publish("c1", events[:1000], 100)
	h.awaitThrough(e)
	if err := e.stop(); err != nil {
		t.Fatal(err)
	}
	// The frozen engine: it has loaded its lanes, and writes only later.
	frozen, err := New(Config{Bus: h.bus, Set: set, Every: time.Hour, Tick: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	cohorts, err := frozen.load(t.Context(), []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15})
	if err != nil {
		t.Fatal(err)
	}
	h.publish("c1", events[1000:], 100)
	other := h.start(Config{Set: set})
	h.awaitThrough(other)
	s := &session{Engine: frozen, cohorts: cohorts, held: newLeases(frozen), keeper: newKeeper(frozen)}
	if s.reader, err = h.bus.Events(t.Context(), cohorts[0].seq+1); err != nil {
		t.Fatal(err)
	}
	defer s.reader.Close()
	for err = nil; err == nil; {
		var m bus.Message
		if m, err = s.reader.Next(t.Context()); err == nil {
			err = s.message(t.Context(), m)
		}
	}
	if !errors.Is(err, bus.ErrFenced) {
		t.Errorf("the frozen engine was not refused: %v", err)
	}
	h.check()
}

func TestASwitchOfRulesStandsInTheStream(t *testing.T) {
	h := newHouse(t)
	events := logins(3000, 6)
	for i, bound := range []int{5, 3, 8} {
		set := ruleSet(t, bound)
		e := h.start(Config{Set: set})
		h.await("its rules are in force", func() bool { return e.Status().Digest == set.Digest() })
		h.publish("c1", events[i*1000:(i+1)*1000], 100)
		h.awaitThrough(e)
		if err := e.stop(); err != nil {
			t.Fatal(err)
		}
	}
	e := h.start(Config{}) // whatever is active
	h.publish("c1", logins(500, 7), 100)
	h.awaitThrough(e)
	h.check()
}

func TestAnImportFindsWhatABacktestFinds(t *testing.T) {
	h := newHouse(t)
	set := ruleSet(t, 5)
	e := h.start(Config{Set: set})
	h.await("the rules are in force", func() bool { return e.Status().Digest != "" })
	events := logins(5000, 8)
	for i := range events {
		events[i].Time -= 400 * 24 * 3600 * 1000 // long ago
	}
	h.publishImport("imp", events, 777)
	h.awaitThrough(e)
	result, err := rule.Backtest(t.Context(), set, func() iter.Seq2[*event.Event, error] {
		return func(yield func(*event.Event, error) bool) {
			for i := range events {
				if !yield(&events[i], nil) {
					return
				}
			}
		}
	}, rule.BacktestOptions{Import: "imp"})
	if err != nil {
		t.Fatal(err)
	}
	live := map[string]event.Finding{}
	for _, lane := range h.stored() {
		for line := range bytes.Lines(lane) {
			var f event.Finding
			if err := json.Unmarshal(line, &f); err != nil {
				t.Fatal(err)
			}
			live[f.ID] = f
		}
	}
	n := 0
	for _, want := range result.Findings {
		got := live[want.ID]
		got.Revision, want.Revision = 0, 0 // counts messages
		a, _ := json.Marshal(got)
		b, _ := json.Marshal(want)
		if !bytes.Equal(a, b) {
			t.Errorf("\nimport   %s\nbacktest %s", a, b)
		}
		delete(live, want.ID)
		n++
	}
	for id, f := range live {
		if !f.Withdrawn {
			t.Errorf("the import finds %s of %s, the backtest does not", id, f.Rule)
		}
	}
	if n < 20 {
		t.Errorf("only %d findings: the test shows nothing", n)
	}
}

// The context ends between judging an input and storing what it found.
func TestAStateAheadOfItsFindingsIsNoCheckpoint(t *testing.T) {
	h := newHouse(t)
	set := ruleSet(t, 5)
	first := h.start(Config{Set: set})
	h.await("the rules are in force", func() bool { return first.Status().Digest != "" })
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	h.publish("c1", logins(1000, 9), 1000)
	e, err := New(Config{Bus: h.bus, Set: set})
	if err != nil {
		t.Fatal(err)
	}
	cohorts, err := e.load(t.Context(), []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15})
	if err != nil {
		t.Fatal(err)
	}
	before := cohorts[0].seq
	s := &session{Engine: e, cohorts: cohorts, held: newLeases(e), keeper: newKeeper(e)}
	if s.reader, err = h.bus.Events(t.Context(), before+1); err != nil {
		t.Fatal(err)
	}
	defer s.reader.Close()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for err = nil; err == nil; {
		var m bus.Message
		if m, err = s.reader.Next(t.Context()); err == nil {
			err = s.message(ended, m)
		}
	}
	if err := s.end(err); err != nil {
		t.Fatal(err)
	}
	for lane := range bus.Lanes {
		if cp, err := h.bus.Checkpoint(t.Context(), lane); err != nil || cp.Seq != before {
			t.Errorf("lane %d: checkpoint at %d, findings out through %d: %v", lane, cp.Seq, before, err)
		}
	}
	last := h.start(Config{Set: set})
	h.awaitThrough(last)
	h.check()
}

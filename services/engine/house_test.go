package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"testing"
	"testing/fstest"
	"time"
	_ "time/tzdata"

	"github.com/opencoc/coc/services/bus"
	"github.com/opencoc/coc/services/event"
	"github.com/opencoc/coc/services/rule"
)

// house is a bus on a folder that survives being closed.
type house struct {
	*testing.T
	dir string
	bus *bus.Bus
}

func newHouse(t *testing.T) *house {
	h := &house{T: t, dir: t.TempDir()}
	h.open()
	t.Cleanup(func() { h.close() })
	return h
}

func (h *house) open() {
	h.Helper()
	b, err := bus.Open(context.Background(), bus.Config{StoreDir: h.dir, Name: "test", Log: quiet()})
	if err != nil {
		h.Fatal(err)
	}
	h.bus = b
}

func (h *house) close() {
	if h.bus == nil {
		return
	}
	if err := h.bus.Close(context.Background()); err != nil {
		h.Error(err)
	}
	h.bus = nil
}

func quiet() *slog.Logger {
	if testing.Verbose() {
		return slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return slog.New(slog.DiscardHandler)
}

// running is an engine that a test started.
type running struct {
	*Engine
	stop func() error
}

func (h *house) start(c Config) *running {
	h.Helper()
	c.Bus, c.Log = h.bus, quiet()
	if c.Every == 0 {
		c.Every = time.Hour // only at the end
	}
	if c.Tick == 0 {
		c.Tick = time.Hour
	}
	e, err := New(c)
	if err != nil {
		h.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	stopped := false
	r := &running{Engine: e}
	r.stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(20 * time.Second):
			return errors.New("the engine did not stop within 20 s")
		}
	}
	h.Cleanup(func() {
		if err := r.stop(); err != nil {
			h.Error(err)
		}
	})
	return r
}

// await waits for a condition with a deadline.
func (h *house) await(what string, f func() bool) {
	h.Helper()
	for end := time.Now().Add(30 * time.Second); !f(); {
		if time.Now().After(end) {
			h.Fatalf("waited in vain until %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (h *house) awaitThrough(e *running) {
	h.Helper()
	last, err := h.bus.LastEvent(h.Context())
	if err != nil {
		h.Fatal(err)
	}
	h.await(fmt.Sprintf("the engine is through message %d", last), func() bool { return e.Through() >= last })
}

const rules = `id: few.%s
title: t
class: abuse
severity: low
match: action == "login" && outcome == "failure"
group_by: [source.ip]
window: 10m
condition: count >= %d
suppress: 1h
`

const each = "id: each\ntitle: t\nclass: abuse\nseverity: low\nmatch: action == 'root'\ngroup_by: [host.name]\n"

func ruleSet(t *testing.T, bound int) *rule.Set {
	t.Helper()
	zone, err := time.LoadLocation("Europe/Amsterdam")
	if err != nil {
		t.Fatal(err)
	}
	set, err := rule.Load(fstest.MapFS{
		"few.yaml":  {Data: fmt.Appendf(nil, rules, "failures", bound)},
		"each.yaml": {Data: []byte(each)},
	}, rule.Options{Zone: zone})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// logins are events of many addresses, a little out of order.
func logins(n int, seed uint64) []event.Event {
	r := rand.New(rand.NewPCG(seed, 1))
	out := make([]event.Event, n)
	base := time.Now().Add(-time.Hour).UnixMilli()
	for i := range out {
		e := &out[i]
		*e = event.Event{Time: base + int64(i)*300 - int64(r.IntN(20_000)), Received: base, Kind: "user", Action: "login", Outcome: "failure",
			SourceIP: fmt.Sprintf("10.0.0.%d", r.IntN(60)), HostName: fmt.Sprintf("h%d", r.IntN(9)), ID: fmt.Sprintf("e%d-%d", seed, i)}
		switch r.IntN(10) {
		case 0:
			e.Action = "root"
		case 1, 2, 3:
			e.Outcome = "success"
		}
	}
	return out
}

// publish sends events in messages of some size, as a collector does.
func (h *house) publish(collector string, events []event.Event, size int) {
	h.Helper()
	p, err := h.bus.NewPublisher(h.Context(), collector)
	if err != nil {
		h.Fatal(err)
	}
	b := event.NewBuilder()
	for len(events) > 0 {
		n := min(size, len(events))
		m := bus.Meta{Epoch: p.Epoch(), First: p.Next(), Rows: int64(n), Schema: 1}
		mark := int64(0)
		for i := range events[:n] {
			e := events[i]
			e.Collector, e.Epoch, e.Seq = collector, p.Epoch(), m.First+int64(i)
			if err := b.Append(&e); err != nil {
				h.Fatal(err)
			}
		}
		for _, e := range events[n:] {
			if mark == 0 || e.Time < mark {
				mark = e.Time
			}
		}
		data, err := b.Encode()
		if err != nil {
			h.Fatal(err)
		}
		m.Mark, m.Bytes = mark, int64(len(data))
		if _, err := p.Publish(h.Context(), m, data); err != nil {
			h.Fatal(err)
		}
		events = events[n:]
	}
}

// stored reads FINDINGS: the lines of each lane in order.
func (h *house) stored() (lanes [bus.Lanes][]byte) {
	h.Helper()
	r, err := h.bus.Findings(h.Context(), 1)
	if err != nil {
		h.Fatal(err)
	}
	defer r.Close()
	for {
		ctx, cancel := context.WithTimeout(h.Context(), 300*time.Millisecond)
		m, err := r.Next(ctx)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			return lanes
		}
		if err != nil {
			h.Fatal(err)
		}
		lanes[m.Meta.Lane] = append(lanes[m.Meta.Lane], m.Data...)
	}
}

// undisturbed computes what one engine finds in the recorded stream.
func (h *house) undisturbed() (lanes [bus.Lanes][]byte) {
	h.Helper()
	last, err := h.bus.LastEvent(h.Context())
	if err != nil {
		h.Fatal(err)
	}
	r, err := h.bus.Events(h.Context(), 1)
	if err != nil {
		h.Fatal(err)
	}
	defer r.Close()
	var run *rule.Runner
	for seq := uint64(0); seq < last; {
		m, err := r.Next(h.Context())
		if err != nil {
			h.Fatal(err)
		}
		seq = m.Seq
		var list []event.Finding
		switch {
		case m.Meta.Control == bus.ControlRules:
			data, err := h.bus.GetRules(h.Context(), m.Meta.Digest)
			if err != nil {
				h.Fatal(err)
			}
			set, err := rule.Open(data)
			if err != nil {
				h.Fatal(err)
			}
			if run == nil {
				run = rule.NewRunner(set, rule.RunnerOptions{})
			} else {
				run.Switch(set)
			}
		case run == nil:
		case m.Meta.Control == bus.ControlTick:
			list = run.Tick(m.Seq, m.Meta.Time)
		default:
			batch, err := event.Decode(m.Data)
			if err != nil {
				h.Fatal(err)
			}
			list = run.Message(rule.Input{Seq: m.Seq, Batch: batch, Collector: m.Meta.Collector, Mark: m.Meta.Mark,
				Import: m.Meta.Import, ImportEnd: m.Meta.ImportEnd, BusTime: m.Time.UnixMilli()})
			batch.Release()
		}
		for i := range list {
			line, err := json.Marshal(&list[i])
			if err != nil {
				h.Fatal(err)
			}
			lanes[list[i].Lane] = append(append(lanes[list[i].Lane], line...), '\n')
		}
	}
	return lanes
}

// check compares what is stored with what an undisturbed engine computes.
func (h *house) check() {
	h.Helper()
	got, want := h.stored(), h.undisturbed()
	total := 0
	for lane := range want {
		total += bytes.Count(want[lane], []byte("\n"))
		if !bytes.Equal(got[lane], want[lane]) {
			h.Errorf("lane %d: %d revisions are stored, an undisturbed engine finds %d, or others:\n got %.600s\nwant %.600s", lane,
				bytes.Count(got[lane], []byte("\n")), bytes.Count(want[lane], []byte("\n")), got[lane], want[lane])
		}
	}
	if total < 20 {
		h.Errorf("only %d findings: the test shows nothing", total)
	}
}

func (h *house) publishImport(id string, events []event.Event, size int) {
	h.Helper()
	p, err := h.bus.NewPublisher(h.Context(), "import-"+id)
	if err != nil {
		h.Fatal(err)
	}
	b := event.NewBuilder()
	for len(events) > 0 {
		n := min(size, len(events))
		m := bus.Meta{Epoch: p.Epoch(), First: p.Next(), Rows: int64(n), Schema: 1, Import: id, ImportEnd: n == len(events)}
		for i := range events[:n] {
			e := events[i]
			e.Collector, e.Epoch, e.Seq = "import-"+id, p.Epoch(), m.First+int64(i)
			if err := b.Append(&e); err != nil {
				h.Fatal(err)
			}
		}
		for _, e := range events[n:] {
			if m.Mark == 0 || e.Time < m.Mark {
				m.Mark = e.Time
			}
		}
		data, err := b.Encode()
		if err != nil {
			h.Fatal(err)
		}
		m.Bytes = int64(len(data))
		if _, err := p.Publish(h.Context(), m, data); err != nil {
			h.Fatal(err)
		}
		events = events[n:]
	}
}

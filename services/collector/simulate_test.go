package collector

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencoc/coc/services/event"
)

var simEnd = time.Date(2026, 11, 20, 12, 34, 0, 0, time.UTC)

func simulated(t testing.TB, o SimulateOptions) []byte {
	t.Helper()
	r := SimulateReader(t.Context(), o)
	data, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	return data
}

func TestTheSameSeedGivesTheSameHoster(t *testing.T) {
	o := SimulateOptions{Tenants: 12, Days: 3, Seed: 1, End: simEnd}
	a, b := simulated(t, o), simulated(t, o)
	if !bytes.Equal(a, b) {
		t.Error("two runs differ")
	}
	o.Seed = 2
	if bytes.Equal(a, simulated(t, o)) {
		t.Error("another seed gives the same")
	}
}

// census is what a simulation comes to.
type census struct {
	o       SimulateOptions
	change  int64
	last    int64
	count   int
	actions map[string]int
	tiers   map[string]bool
	copies  map[string]int
	windows map[string]map[string]bool // name → tenants

	day, night, slowBefore, slowAfter, over, openings int
}

func (c *census) add(t *testing.T, e *event.Event) {
	if e.Time < c.last || e.Time < c.o.End.Add(-14*24*time.Hour).UnixMilli() || e.Time >= c.o.End.UnixMilli() {
		t.Fatalf("an event of %d after %d", e.Time, c.last)
	}
	if err := e.Validate(event.Bounds{}); err != nil {
		t.Fatalf("%v in %s", err, event.AppendJSON(nil, e))
	}
	if e.Label("simulated") != "true" || e.TenantID == "" || e.TenantTier == "" {
		t.Fatalf("not marked: %s", event.AppendJSON(nil, e))
	}
	c.last = e.Time
	c.count++
	c.actions[e.Action]++
	c.tiers[e.TenantTier] = true
	if e.Action == "backup_copy_requested" {
		c.copies[e.TenantID]++
	}
	if e.ResourceType == "window" {
		c.window(e)
	}
}

func (c *census) window(e *event.Event) {
	if c.windows[e.ResourceName] == nil {
		c.windows[e.ResourceName] = map[string]bool{}
	}
	c.windows[e.ResourceName][e.TenantID] = true
	if hour := time.UnixMilli(e.Time).In(c.o.Zone).Hour(); hour >= 8 && hour < 18 {
		c.day++
	} else {
		c.night++
	}
	slow := e.ResourceName == slowWindow && e.ServiceName == slowService
	switch {
	case !slow:
		c.openings++
		if e.Duration > 2000 {
			c.over++
		}
	case e.Duration > 2000 && e.Time < c.change:
		c.slowBefore++
	case e.Duration > 2000:
		c.slowAfter++
	}
}

func TestASimulatedHosterIsBelievable(t *testing.T) {
	o := SimulateOptions{Tenants: 40, Days: 14, Seed: 1, End: simEnd}
	must(t, o.Validate())
	c := &census{
		o: o, change: o.End.Add(-7 * 24 * time.Hour).UnixMilli(),
		actions: map[string]int{}, tiers: map[string]bool{}, copies: map[string]int{}, windows: map[string]map[string]bool{},
	}
	must(t, Simulate(t.Context(), o, func(e *event.Event) error {
		c.add(t, e)
		return nil
	}))
	for _, action := range []string{"login", "window_opened", "job_queued", "job_finished", "backup_finished", "backup_copy_requested", "connector_call", "document_downloaded", "data_exported"} {
		if c.actions[action] < 20 {
			t.Errorf("%d events of %s", c.actions[action], action)
		}
	}
	if n := c.actions["backup_finished"]; n < 40*14*4-40 || n > 40*14*4 {
		t.Errorf("%d back-ups", n)
	}
	if c.day < 5*c.night {
		t.Errorf("%d openings by day, %d by night", c.day, c.night)
	}
	if c.slowAfter < 5*max(1, c.slowBefore) || c.over*50 > c.openings {
		t.Errorf("slow window %d before, %d after; others %d of %d over 2 s", c.slowBefore, c.slowAfter, c.over, c.openings)
	}
	copies := slices.Sorted(maps.Values(c.copies))
	if n := len(copies); copies[n-1] < 20 || copies[n-2] > 4 {
		t.Errorf("copies %v", copies)
	}
	few, many := 0, 0
	for _, tenants := range c.windows {
		if len(tenants) < 11 {
			few++
		} else {
			many++
		}
	}
	if few == 0 || many < 5 || len(c.tiers) != 4 {
		t.Errorf("%d windows are used by fewer than 11 tenants, %d by more; %d tiers", few, many, len(c.tiers))
	}
	if c.count < 20_000 || c.count > 200_000 {
		t.Errorf("%d events", c.count)
	}
}

func TestASimulationEndsWhenItsReaderDoes(t *testing.T) {
	r := SimulateReader(t.Context(), SimulateOptions{Tenants: 100, Days: 100, Seed: 1, End: simEnd})
	if _, err := io.ReadFull(r, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	must(t, r.Close())
}

func TestASimulationIsImported(t *testing.T) {
	h := testHouse(t, httpOnly, nil)
	o := SimulateOptions{Tenants: 12, Days: 2, Seed: 1, End: simEnd}
	open := func() (io.ReadCloser, error) { return SimulateReader(t.Context(), o), nil }
	c := h.importer()
	sum, err := c.ImportFrom(t.Context(), "simulated", open, ImportOptions{}, nil)
	if err != nil || sum.Format != formatJSON || sum.Events == 0 || len(sum.Refused) != 0 {
		t.Fatalf("%+v, %v", sum, err)
	}
	if again, err := c.ImportFrom(t.Context(), "simulated", open, ImportOptions{}, nil); err != nil || !again.Known {
		t.Errorf("again %+v, %v", again, err)
	}
	for _, e := range h.events() {
		if e.UserName != "" && !strings.HasPrefix(e.UserName, "koppeling") && e.UserHash == e.UserName {
			t.Fatalf("not sealed: %s", event.AppendJSON(nil, &e))
		}
	}
}

func TestImpossibleSimulationsAreRefused(t *testing.T) {
	for _, o := range []SimulateOptions{{}, {Tenants: 1}, {Tenants: 10_001, Days: 1}, {Tenants: 1, Days: 401}} {
		if err := o.Validate(); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
}

package collector

import (
	"bytes"
	"errors"
	"io"
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

func TestASimulatedHosterIsBelievable(t *testing.T) {
	last := int64(0)
	actions, tiers := map[string]int{}, map[string]map[string]bool{}
	copies := map[string]int{}
	users := map[string]map[string]bool{} // resource.name → tenants
	var day, night, slowBefore, slowAfter, over, openings int
	zone, err := time.LoadLocation("Europe/Amsterdam")
	must(t, err)
	o := SimulateOptions{Tenants: 40, Days: 14, Seed: 1, End: simEnd}
	must(t, o.Validate())
	change := o.End.Add(-7 * 24 * time.Hour).UnixMilli()
	count := 0
	err = Simulate(t.Context(), o, func(e *event.Event) error {
		count++
		if e.Time < last || e.Time < o.End.Add(-14*24*time.Hour).UnixMilli() || e.Time >= o.End.UnixMilli() {
			t.Fatalf("an event of %d after %d", e.Time, last)
		}
		last = e.Time
		if err := e.Validate(event.Bounds{}); err != nil {
			t.Fatalf("%v in %s", err, event.AppendJSON(nil, e))
		}
		if e.Label("simulated") != "true" || e.TenantID == "" || e.TenantTier == "" {
			t.Fatalf("not marked: %s", event.AppendJSON(nil, e))
		}
		actions[e.Action]++
		if tiers[e.TenantTier] == nil {
			tiers[e.TenantTier] = map[string]bool{}
		}
		tiers[e.TenantTier][e.TenantID] = true
		if e.ResourceType == "window" {
			if users[e.ResourceName] == nil {
				users[e.ResourceName] = map[string]bool{}
			}
			users[e.ResourceName][e.TenantID] = true
			if hour := time.UnixMilli(e.Time).In(zone).Hour(); hour >= 8 && hour < 18 {
				day++
			} else {
				night++
			}
			slow := e.ResourceName == slowWindow && e.ServiceName == slowService
			switch {
			case slow && e.Time < change && e.Duration > 2000:
				slowBefore++
			case slow && e.Time >= change && e.Duration > 2000:
				slowAfter++
			case !slow:
				openings++
				if e.Duration > 2000 {
					over++
				}
			}
		}
		if e.Action == "backup_copy_requested" {
			copies[e.TenantID]++
		}
		return nil
	})
	must(t, err)
	for _, action := range []string{"login", "window_opened", "job_queued", "job_finished", "backup_finished", "backup_copy_requested", "connector_call", "document_downloaded", "data_exported"} {
		if actions[action] < 20 {
			t.Errorf("%d events of %s", actions[action], action)
		}
	}
	if n := actions["backup_finished"]; n < 40*14*4-40 || n > 40*14*4 {
		t.Errorf("%d back-ups", n)
	}
	if day < 5*night {
		t.Errorf("%d openings by day, %d by night", day, night)
	}
	if slowAfter < 5*max(1, slowBefore) || over*50 > openings {
		t.Errorf("slow window %d before, %d after; others %d of %d over 2 s", slowBefore, slowAfter, over, openings)
	}
	most, second := 0, 0
	for _, n := range copies {
		if n > most {
			most, second = n, most
		} else if n > second {
			second = n
		}
	}
	if most < 20 || second > 4 {
		t.Errorf("copies %v", copies)
	}
	few, many := 0, 0
	for _, tenants := range users {
		if len(tenants) < 11 {
			few++
		} else {
			many++
		}
	}
	if few == 0 || many < 5 || len(tiers) != 4 {
		t.Errorf("%d windows are used by fewer than 11 tenants, %d by more; %d tiers", few, many, len(tiers))
	}
	if count < 20_000 || count > 200_000 {
		t.Errorf("%d events", count)
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

package stats

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencoc/coc/services/bus"
	"github.com/opencoc/coc/services/event"
	"github.com/opencoc/coc/services/store"
)

// aDay makes the events of many tenants on one day: common and rare resources,
// tiers of many and of few tenants, one resource that a single tenant uses
// above all, times on the borders of buckets.
func aDay(day time.Time, seed uint64) []event.Event {
	r := rand.New(rand.NewPCG(seed, 1))
	tiers := []string{"small", "small", "small", "medium", "medium", "large"}
	var list []event.Event
	for n := range 6000 {
		tenant := r.IntN(40)
		e := event.Event{
			Time: day.Add(time.Duration(r.Int64N(int64(24 * time.Hour)))).UnixMilli(), Kind: "user", Action: "window_opened", Outcome: "success",
			TenantID: fmt.Sprintf("planted-tenant-%d", tenant), TenantTier: tiers[tenant%len(tiers)],
			UserName: fmt.Sprintf("planted-name-%d", n%97), UserHash: fmt.Sprintf("planted-hash-%d", r.IntN(9)), SourceIP: fmt.Sprintf("203.0.113.%d", n%250),
			SessionID: "planted-session", Message: "planted words", ServiceName: []string{"profit", "insite"}[r.IntN(2)], ServiceVersion: []string{"12", "13"}[r.IntN(2)],
			ResourceType: "window", ResourceName: fmt.Sprintf("window-%d", r.IntN(4)), ResourceTitle: "planted title", Ticket: "planted-ticket",
		}
		e.SetLabel("planted", "label")
		switch {
		case tenant < 8 && n%3 == 0: // few tenants
			e.ResourceName = "rare"
		case tenant == 0 || n%50 == 0: // many tenants, one of them above half
			e.ResourceName = "favourite"
		}
		if n%10 == 0 {
			e.Outcome = "failure"
		}
		if n%5 != 0 {
			e.SetDuration([]float64{0, 99.9, 100, 100.1, 200, 500, 1000, 2000, 2000.5, 5000, 10000, 10001, 90000}[r.IntN(13)])
		}
		if n%11 == 0 { // no user's doing, and no tenant's: not counted
			e.Kind = "system"
		} else if n%13 == 0 {
			e.TenantID = ""
		}
		list = append(list, e)
	}
	return list
}

type usageKey struct{ service, version, rtype, rname, tier string }

// plain counts a day's release as the issue words it, without SQL.
func plain(day store.Day, events []event.Event) (rows []store.UsageRow, few, dominated int64) {
	type tally struct {
		row     store.UsageRow
		tenants map[string]int64
		users   map[[2]string]bool
	}
	all := map[usageKey]*tally{}
	for i := range events {
		e := &events[i]
		if e.Kind != "user" || e.TenantID == "" {
			continue
		}
		for _, k := range []usageKey{
			{e.ServiceName, e.ServiceVersion, e.ResourceType, e.ResourceName, e.TenantTier}, {e.ServiceName, e.ServiceVersion, e.ResourceType, e.ResourceName, "*"},
			{e.ServiceName, e.ServiceVersion, "*", "*", e.TenantTier}, {e.ServiceName, e.ServiceVersion, "*", "*", "*"},
		} {
			t := all[k]
			if t == nil {
				t = &tally{tenants: map[string]int64{}, users: map[[2]string]bool{}}
				t.row = store.UsageRow{Day: day, Service: k.service, Version: k.version, ResourceType: k.rtype, ResourceName: k.rname, Tier: k.tier}
				all[k] = t
			}
			t.row.Uses++
			t.tenants[e.TenantID]++
			t.users[[2]string{e.TenantID, e.UserHash}] = true
			if e.Outcome == "failure" {
				t.row.Failures++
			}
			if e.Has&event.HasDuration != 0 {
				t.row.Timed++
				b, _ := slices.BinarySearch(store.BucketBounds[:], e.Duration)
				t.row.Buckets[b]++
			}
		}
	}
	for _, t := range all {
		largest := int64(0)
		for _, n := range t.tenants {
			largest = max(largest, n)
		}
		t.row.Tenants, t.row.Users = int64(len(t.tenants)), int64(len(t.users))
		switch {
		case len(t.tenants) < 11:
			few++
		case 2*largest > t.row.Uses:
			dominated++
		default:
			rows = append(rows, t.row)
		}
	}
	slices.SortFunc(rows, byPlace)
	return rows, few, dominated
}

func byPlace(a, b store.UsageRow) int {
	return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Version, b.Version), cmp.Compare(a.ResourceType, b.ResourceType),
		cmp.Compare(a.ResourceName, b.ResourceName), cmp.Compare(a.Tier, b.Tier))
}

// The day has 25 hours: the clock goes back in the night.
func TestAReleaseIsWhatAPlainCountGives(t *testing.T) {
	day := local(2025, 10, 26, 0)
	events := aDay(day, 1)
	hour25 := events[0]
	hour25.Time, hour25.Kind, hour25.TenantID = local(2025, 10, 27, 0).Add(-time.Millisecond).UnixMilli(), "user", "planted-tenant-1"
	next := hour25
	next.Time++
	insert(t, day, append(slices.Clone(events), hour25, next))
	s := newStats(t, local(2025, 10, 28, 0), nil)
	pass(t, s)
	rows, few, dominated := plain("2025-10-26", append(events, hour25))
	got := usage(t, "2025-10-26")
	slices.SortFunc(got.Rows, byPlace)
	if len(got.Days) != 1 || got.Days[0].FewTenants != few || got.Days[0].Dominated != dominated || got.Days[0].Rows != int64(len(rows)) {
		t.Errorf("the day is %+v, a plain count has %d rows, %d of few tenants, %d dominated", got.Days, len(rows), few, dominated)
	}
	if few == 0 || dominated == 0 || len(rows) < 20 {
		t.Errorf("the test shows little: %d rows, %d of few tenants, %d dominated", len(rows), few, dominated)
	}
	if !slices.Equal(got.Rows, rows) {
		for i := range max(len(rows), len(got.Rows)) {
			if i >= len(rows) || i >= len(got.Rows) || rows[i] != got.Rows[i] {
				t.Fatalf("row %d of %d: released\n%+v\ncounted\n%+v", i, len(rows), got.Rows[min(i, len(got.Rows)-1)], rows[min(i, len(rows)-1)])
			}
		}
	}
	if st := s.Status(); st.Released != 1 || st.Passes != 1 || st.Failures != 0 || st.LastPass == 0 {
		t.Errorf("the status is %+v", st)
	}
}

func TestADayIsReleasedADayAfterItsEndAndNotBefore(t *testing.T) {
	insert(t, local(2025, 11, 3, 12), aDay(local(2025, 11, 3, 0), 2))
	pass(t, newStats(t, local(2025, 11, 5, 0).Add(-time.Millisecond), nil))
	if got := usage(t, "2025-11-03"); len(got.Days) != 0 {
		t.Errorf("released within 24 hours after its end: %+v", got.Days)
	}
	pass(t, newStats(t, local(2025, 11, 5, 0), nil))
	if got := usage(t, "2025-11-03"); len(got.Days) != 1 {
		t.Error("not released 24 hours after its end")
	}
}

func TestAReleaseIsMadeOnceAndWhatComesLaterIsCounted(t *testing.T) {
	insert(t, local(2025, 12, 1, 12), aDay(local(2025, 12, 1, 0), 3))
	at := local(2025, 12, 3, 1)
	pass(t, newStats(t, at, nil))
	before := usage(t, "2025-12-01")
	late := aDay(local(2025, 12, 1, 0), 4)
	insert(t, at.Add(time.Minute), late)
	counted := int64(0)
	for _, e := range late {
		if e.Kind == "user" && e.TenantID != "" {
			counted++
		}
	}
	for i := range 3 { // each is a restart
		s := newStats(t, at.Add(time.Duration(i+1)*2*time.Hour), nil)
		pass(t, s)
		if i == 2 && s.Status().Released != 0 {
			t.Errorf("released again: %+v", s.Status())
		}
	}
	after := usage(t, "2025-12-01")
	if !slices.Equal(before.Rows, after.Rows) || after.Days[0].Released != before.Days[0].Released {
		t.Error("the release changed")
	}
	if after.Days[0].Late != counted {
		t.Errorf("%d events came late, %d are counted", counted, after.Days[0].Late)
	}
}

func TestNothingOfAPersonOrTenantStandsInARelease(t *testing.T) {
	insert(t, local(2026, 1, 5, 12), aDay(local(2026, 1, 5, 0), 5))
	pass(t, newStats(t, local(2026, 1, 7, 0), nil))
	if len(usage(t, "2026-01-05").Rows) == 0 {
		t.Fatal("nothing was released")
	}
	// What product teams may read, whole.
	for _, table := range []string{"release_days", "release_usage", "release_late"} {
		_, err := house.store.SQL(t.Context(), store.Reader{Role: store.RoleProduct}, "SELECT * FROM "+table, 100_000, func(_ []store.Column, row []any) error {
			text, err := json.Marshal(row)
			for _, secret := range []string{"planted", "203.0.113"} {
				if strings.Contains(string(text), secret) {
					t.Errorf("%s holds %s", table, text)
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(table, err)
		}
	}
}

func TestNoDayIsReleasedHalf(t *testing.T) {
	at := local(2026, 2, 4, 1)
	insert(t, at.Add(-time.Second), aDay(local(2026, 2, 2, 0), 6))
	released := func() bool { return len(usage(t, "2026-02-02").Days) == 1 }
	busy := newStats(t, at, func(c *Config) {
		c.Busy = func(context.Context) (bool, error) { return true, nil }
	})
	if pass(t, busy); released() || busy.Status().Waiting == "" {
		t.Error("released while an import runs")
	}
	fresh := newStats(t, at, func(c *Config) { c.Quiet = time.Minute })
	if pass(t, fresh); released() || fresh.Status().Waiting == "" || !fresh.soon {
		t.Errorf("released a second after an event came in for it: %+v", fresh.Status())
	}
	// The sink is behind by a message that is older than a few minutes.
	p, err := house.bus.NewPublisher(t.Context(), "behind")
	if err != nil {
		t.Fatal(err)
	}
	seq, err := p.Publish(t.Context(), bus.Meta{Epoch: p.Epoch(), First: p.Next(), Schema: 1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(time.Hour)
	behind := newStats(t, later, func(c *Config) { c.Bus = house.bus })
	if pass(t, behind); released() || behind.Status().Waiting == "" {
		t.Errorf("released while the sink is behind: %+v", behind.Status())
	}
	cut, err := house.bus.LoadCut(t.Context(), "events")
	if err != nil {
		t.Fatal(err)
	}
	cut.Done = seq
	if _, err := house.bus.SaveCut(t.Context(), "events", cut); err != nil {
		t.Fatal(err)
	}
	failing := newStats(t, at, func(c *Config) {
		c.Busy = func(context.Context) (bool, error) { return false, fmt.Errorf("no answer") }
	})
	if err := failing.Pass(t.Context()); err == nil || released() || failing.Status().Error == "" {
		t.Error("released without knowing whether an import runs")
	}
	if pass(t, newStats(t, later, func(c *Config) { c.Bus = house.bus })); !released() {
		t.Error("not released when everything is stored and quiet")
	}
}

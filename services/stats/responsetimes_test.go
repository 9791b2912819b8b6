package stats

import (
	"context"
	"testing"
	"time"

	"github.com/opencoc/coc/services/bus"
	"github.com/opencoc/coc/services/event"
	"github.com/opencoc/coc/services/store"
)

func openings(day time.Time, tenant string, millis ...float64) (list []event.Event) {
	for i, ms := range millis {
		e := event.Event{Time: day.Add(time.Duration(i) * time.Minute).UnixMilli(), Kind: "user", Action: "window_opened", Outcome: "success",
			TenantID: tenant, TenantTier: "small", ServiceName: "desktop", ResourceType: "window", ResourceName: "Eigenschappen Medewerker", UserHash: "u"}
		if ms >= 0 {
			e.SetDuration(ms)
		}
		list = append(list, e)
	}
	return list
}

func times(t *testing.T, tenant string) []store.ResponseTime {
	t.Helper()
	list, _, err := house.store.ResponseTimes(t.Context(), admin, store.ResponseTimeFilter{Tenant: tenant})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestResponseTimesFollowWhatComesIn(t *testing.T) {
	first := local(2026, 3, 2, 9)
	insert(t, first, openings(first, "rt", 90, 2000, 2000.1, -1))
	at := first.Add(time.Hour)
	s := newStats(t, at, func(c *Config) { c.Now = func() time.Time { return at } })
	pass(t, s)
	want := store.ResponseTime{Tenant: "rt", Day: "2026-03-02", Window: "Eigenschappen Medewerker", Client: "desktop", Openings: 4, Timed: 3, Above: 1, Buckets: [8]int64{1, 0, 0, 0, 1, 1, 0, 0}}
	if got := times(t, "rt"); len(got) != 1 || got[0] != want {
		t.Errorf("the times are %+v, want %+v", got, want)
	}
	// More for the same day, and an old day that an import brings.
	insert(t, at, openings(first, "rt", 50))
	insert(t, at, openings(local(2026, 2, 16, 23), "rt", 10_001))
	at = at.Add(time.Minute)
	pass(t, s)
	got := times(t, "rt")
	if len(got) != 2 || got[1].Openings != 5 || got[1].Buckets[0] != 2 || got[0].Day != "2026-02-16" || got[0].Buckets[7] != 1 {
		t.Errorf("the times are %+v", got)
	}
}

func TestAPositionSparesWhatWasBuilt(t *testing.T) {
	old := local(2026, 4, 6, 9)
	insert(t, old, openings(old, "rp", 1))
	at := local(2026, 6, 1, 12)
	start := func() *Stats {
		return newStats(t, at, func(c *Config) { c.Bus, c.Now = house.bus, func() time.Time { return at } })
	}
	kv, err := house.bus.KV(bus.BucketCursors)
	if err != nil {
		t.Fatal(err)
	}
	if err := kv.Delete(t.Context(), positionKey); err != nil {
		t.Fatal(err)
	}
	s := start()
	pass(t, s)
	if s.Status().Built == 0 || len(times(t, "rp")) != 1 {
		t.Fatalf("the first pass built %d days", s.Status().Built)
	}
	at = at.Add(time.Minute)
	insert(t, at, openings(local(2026, 5, 30, 9), "rp", 2))
	restarted := start()
	pass(t, restarted)
	if got := restarted.Status().Built; got != 1 || len(times(t, "rp")) != 2 {
		t.Errorf("after a restart %d days were built, want the one that something came in for", got)
	}
	// A position that cannot be read is as good as none.
	if _, err := kv.Put(t.Context(), positionKey, []byte("yesterday")); err != nil {
		t.Fatal(err)
	}
	lost := start()
	pass(t, lost)
	if lost.Status().Built < 2 {
		t.Errorf("without a position %d days were built, want all", lost.Status().Built)
	}
}

func TestRunMakesPassesUntilItIsStopped(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := newStats(t, local(2026, 7, 1, 0), func(c *Config) { c.Every = 10 * time.Millisecond })
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()
	deadline := time.Now().Add(20 * time.Second)
	for s.Status().Passes < 2 {
		if time.Now().After(deadline) {
			t.Fatal("no second pass")
		}
		time.Sleep(5 * time.Millisecond)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestAConfigurationWithoutStoreIsRefused(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("it was taken")
	}
	if err := Run(t.Context(), Config{}); err == nil {
		t.Error("it ran")
	}
}

package store

import (
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/opencoc/coc/services/event"
)

func TestATenantStandsAgainstItsAllowance(t *testing.T) {
	at := time.Date(2025, 8, 31, 12, 0, 30, 0, time.UTC)
	var events []event.Event
	copies := func(tenant, tier string, before time.Duration, bytes int64) {
		e := event.Event{Time: at.Add(-before).UnixMilli(), Received: at.UnixMilli(), Kind: "user", Action: "backup_copy_requested", Collector: "standing", Epoch: 1,
			Seq: int64(len(events) + 1), TenantID: tenant, TenantTier: tier, UserHash: fmt.Sprint("u", len(events)%2)}
		e.SetBytes(bytes)
		events = append(events, e)
	}
	const d = 24 * time.Hour
	for i := range 5 {
		copies("s-over", "small", time.Duration(i)*d, 100) // the fifth at the very moment
	}
	copies("s-over", "small", 40*d, 1)
	copies("s-even", "small", d, 100)
	copies("s-even", "small", 30*d, 100)                  // just outside the window, in the one before
	copies("s-even", "small", 30*d-time.Millisecond, 100) // just inside
	copies("s-gone", "small", 45*d, 100)
	copies("s-none", "free", d, 100)
	copies("s-free", "other", d, 100)
	copies("s-later", "small", -time.Second, 100)
	put(t, "standing", events...)

	count := Meter{Name: "copies", Unit: "copies", Kind: "user", Action: "backup_copy_requested", Aggregate: "count", Window: 30 * d,
		Allowance: map[string]float64{"small": 4, "free": 0}}
	bytes := count
	bytes.Name, bytes.Aggregate, bytes.Allowance = "bytes", "sum(bytes)", map[string]float64{"*": 1000}
	people := count
	people.Name, people.Aggregate, people.Allowance = "people", "distinct(user.hash)", map[string]float64{"small": 1}
	list, more, err := house.Tenants(t.Context(), Reader{Role: RoleAccountManager}, []Meter{count, bytes, people}, at, StandingFilter{})
	if err != nil || more {
		t.Fatal(more, err)
	}
	got := map[string]Standing{}
	for _, s := range list {
		got[s.Tenant+" "+s.Meter] = s
	}
	check := func(key string, used, previous, ratio float64, above bool, since time.Time) {
		t.Helper()
		s := got[key]
		if s.Used != used || s.Previous != previous || math.Abs(s.Ratio-ratio) > 1e-9 || s.Above != above || !s.Since.Equal(since) {
			t.Errorf("%s stands at %+v", key, s)
		}
	}
	check("s-over copies", 5, 1, 1.25, true, at.Truncate(time.Minute))
	check("s-over bytes", 500, 1, 0.5, false, time.Time{})
	check("s-over people", 2, 1, 2, true, time.Time{})
	check("s-even copies", 2, 1, 0.5, false, time.Time{})
	check("s-gone copies", 0, 1, 0, false, time.Time{})
	check("s-none copies", 1, 0, noAllowance, true, at.Add(-d).Truncate(time.Minute))
	if s := got["s-free copies"]; s.Allowed || s.Above || s.Used != 1 {
		t.Errorf("a tier without an allowance is judged: %+v", s)
	}
	if s := got["s-over copies"]; s.Trend != 4 || s.Tier != "small" {
		t.Errorf("from 1 to 5 the trend is %v, tier %q", s.Trend, s.Tier)
	}
	if _, ok := got["s-later copies"]; ok {
		t.Error("what comes after the moment counts")
	}
	if list[0].Ratio < list[1].Ratio {
		t.Error("the highest ratio does not come first")
	}
	list, _, err = house.Tenants(t.Context(), admin, []Meter{count, bytes}, at, StandingFilter{Tenant: "s-over", OnlyAbove: true})
	if err != nil || len(list) != 1 || list[0].Meter != "copies" {
		t.Errorf("one tenant, only above: %+v, %v", list, err)
	}
	count.Aggregate = "count(); DROP TABLE events"
	if _, _, err := house.Tenants(t.Context(), admin, []Meter{count}, at, StandingFilter{}); !errors.Is(err, ErrInvalid) {
		t.Errorf("an unknown aggregate gives %v", err)
	}
}

func TestSinceWhenLooksThroughDips(t *testing.T) {
	at := day0
	m := func(before int, amount float64) use {
		return use{at.Add(-time.Duration(before) * time.Minute), amount}
	}
	f := func(want int, uses ...use) {
		t.Helper()
		since := lastRise(uses, 10, time.Hour, at)
		if want < 0 && !since.IsZero() || want >= 0 && !since.Equal(at.Add(-time.Duration(want)*time.Minute)) {
			t.Errorf("%v: above since %v, wanted %d minutes before", uses, since, want)
		}
	}
	f(-1)
	f(-1, m(30, 10))
	f(30, m(30, 11))
	f(10, m(50, 6), m(10, 5))
	f(50, m(50, 11), m(10, 5))
	f(20, m(90, 11), m(20, 11))         // came back at 30, rose again at 20
	f(90, m(90, 11), m(40, 11))         // never came back
	f(-1, m(90, 11), m(40, 5))          // came back
	f(5, m(100, 20), m(30, 6), m(5, 5)) // an old rise does not count
}

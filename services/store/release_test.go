package store

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/opencoc/coc/services/event"
)

// user is an event of a tenant's user, on a day of the test's own.
func user(at time.Time, seq int64, tenant, resource string) event.Event {
	return event.Event{
		Time: at.UnixMilli(), Received: at.Add(time.Second).UnixMilli(), Kind: "user", Action: "window_opened", Outcome: "success",
		Collector: "release", Epoch: 1, Seq: seq, TenantID: tenant, TenantTier: "small", UserHash: tenant + "-u", ServiceName: "profit", ServiceVersion: "5",
		ResourceType: "window", ResourceName: resource, ResourceTitle: secret, SessionID: secret, SourceIP: secret, Message: secret,
	}
}

func TestAReleaseShowsOnlyWhatNobodyCanBeReadFrom(t *testing.T) {
	zone := house.Zone()
	from, _, err := Day("2025-06-02").Bounds(zone)
	if err != nil {
		t.Fatal(err)
	}
	var events []event.Event
	add := func(tenant, resource string, n int, duration float64) {
		for range n {
			e := user(from.Add(time.Duration(len(events))*time.Second), int64(len(events)+1), tenant, resource)
			e.SetDuration(duration)
			if len(events)%50 == 0 {
				e.Outcome = "failure"
			}
			events = append(events, e)
		}
	}
	for i := range 11 {
		add(fmt.Sprint("r", i), "shown", 2, []float64{100, 100.5, 200, 500, 1000, 2000, 2000.1, 5000, 10000, 10001, 7}[i])
	}
	for i := range 10 {
		add(fmt.Sprint("r", i), "ten tenants", 1, 1)
	}
	for i := range 11 {
		add(fmt.Sprint("r", i), "half", 1, 1)
	}
	add("r0", "half", 9, 1) // 10 of 20: half is not more than half
	for i := range 11 {
		add(fmt.Sprint("r", i), "dominated", 1, 1)
	}
	add("r0", "dominated", 10, 1) // 11 of 21
	for i := range 11 {
		add(fmt.Sprint("r", i), "*", 1, 1)
	}
	// Not counted: no tenant, not a user's, the days beside it.
	other := user(from, 901, "", "shown")
	system := user(from, 902, "r1", "shown")
	system.Kind = "system"
	before, after := user(from.Add(-time.Millisecond), 903, "r1", "shown"), user(from.Add(24*time.Hour), 904, "r1", "shown")
	put(t, "release-1", append(slices.Clone(events), other, system, before, after)...)

	now := from.Add(48*time.Hour + time.Second)
	days, err := house.ClosedDays(t.Context(), now, zone, 0)
	if err != nil || !slices.Contains(days, "2025-06-02") || !slices.Contains(days, "2025-06-01") || slices.Contains(days, "2025-06-03") {
		t.Fatalf("closed days: %v, %v", days, err)
	}
	if days, err = house.ClosedDays(t.Context(), now.Add(-2*time.Second), zone, 0); err != nil || slices.Contains(days, "2025-06-02") {
		t.Errorf("a day is closed before it is over for 24 hours: %v, %v", days, err)
	}
	if days, err = house.ClosedDays(t.Context(), now, zone, 49*time.Hour); err != nil || slices.Contains(days, "2025-06-02") {
		t.Errorf("a day is closed that something came for within the quiet time: %v, %v", days, err)
	}
	made, err := house.Release(t.Context(), "2025-06-02", zone, now)
	if err != nil {
		t.Fatal(err)
	}
	// Shown: shown, half, (*), and their four totals … times resource and tier.
	if made.Rows != 2*3+2 || made.FewTenants != 2 || made.Dominated != 2 || made.Simulated || made.Zone != "Europe/Amsterdam" || !made.Released.Equal(now.Truncate(time.Millisecond)) {
		t.Errorf("the release is %+v", made)
	}
	report, err := house.Usage(t.Context(), Reader{Role: RoleProduct}, "2025-06-02", "2025-06-02")
	if err != nil || len(report.Days) != 1 || len(report.Rows) != int(made.Rows) {
		t.Fatal(report, err)
	}
	rows := map[string]UsageRow{}
	for _, r := range report.Rows {
		rows[r.ResourceType+"/"+r.ResourceName+"/"+r.Tier] = r
	}
	want := UsageRow{Day: "2025-06-02", Service: "profit", Version: "5", ResourceType: "window", ResourceName: "shown", Tier: "small",
		Tenants: 11, Users: 11, Uses: 22, Failures: 1, Timed: 22, Buckets: [8]int64{4, 4, 2, 2, 2, 4, 2, 2}}
	if got := rows["window/shown/small"]; got != want {
		t.Errorf("the row is\n%+v, wanted\n%+v", got, want)
	}
	want.Tier = All
	if got := rows["window/shown/*"]; got != want {
		t.Errorf("over all tiers it is\n%+v, wanted\n%+v", got, want)
	}
	if got := rows["*/*/*"]; got.Tenants != 11 || got.Uses != int64(len(events)) || got.Users != 11 {
		t.Errorf("over all resources and tiers it is %+v, wanted %d uses", got, len(events))
	}
	if _, ok := rows["window/(*)/small"]; !ok {
		t.Error("a resource that is called * is taken for all resources")
	}
	if _, ok := rows["window/dominated/small"]; ok {
		t.Error("a row with one tenant above half is shown")
	}
}

func TestAReleaseIsMadeOnce(t *testing.T) {
	zone := house.Zone()
	const day = Day("2025-06-10")
	from, _, err := day.Bounds(zone)
	if err != nil {
		t.Fatal(err)
	}
	var events []event.Event
	for i := range 12 {
		e := user(from, int64(2000+i), fmt.Sprint("once", i), "shown")
		e.SetLabel("simulated", "true")
		events = append(events, e)
	}
	put(t, "once-1", events[:11]...)
	now := from.Add(72 * time.Hour)
	first, err := house.Release(t.Context(), day, zone, now)
	if err != nil || first.Rows != 4 || !first.Simulated {
		t.Fatal(first, err)
	}
	put(t, "once-2", events[11:]...)
	if _, err := house.Release(t.Context(), day, zone, now.Add(time.Hour)); !errors.Is(err, ErrReleased) {
		t.Errorf("a second release gives %v", err)
	}
	// What two processes at the same moment would do: both computed, one wins.
	doc, err := house.computeRelease(t.Context(), day, zone)
	if err != nil || doc.Rows[0].Tenants != 12 {
		t.Fatal(doc, err)
	}
	if err := house.makeRelease(t.Context(), day, zone, now, doc); err != nil {
		t.Fatal(err)
	}
	if n := scalar[uint64](t, "SELECT count() FROM release_made WHERE day = '2025-06-10'"); n != 1 {
		t.Errorf("the day has %d releases", n)
	}
	// A crash after the document and before its copies is mended by the next call.
	sync := clickhouse.Context(t.Context(), clickhouse.WithSettings(clickhouse.Settings{"mutations_sync": 2}))
	if err := house.conn.Exec(sync, "ALTER TABLE release_usage DELETE WHERE day = '2025-06-10'"); err != nil {
		t.Fatal(err)
	}
	if _, err := house.Release(t.Context(), day, zone, now); !errors.Is(err, ErrReleased) {
		t.Errorf("mending gives %v", err)
	}
	report, err := house.Usage(t.Context(), admin, day, day)
	if err != nil || len(report.Rows) != 4 || report.Rows[0].Tenants != 11 {
		t.Errorf("after mending the rows are %+v, %v", report.Rows, err)
	}
	if days, err := house.ClosedDays(t.Context(), now, zone, 0); err != nil || slices.Contains(days, day) {
		t.Errorf("a released day is closed again: %v, %v", days, err)
	}
	for range 2 {
		if late, err := house.LateCount(t.Context(), day); err != nil || late != 1 {
			t.Errorf("%d events came late, %v", late, err)
		}
	}
	days, err := house.ReleasedDays(t.Context(), day, day)
	if err != nil || len(days) != 1 || days[0].Late != 1 || days[0].LateCounted.IsZero() {
		t.Errorf("the day is listed as %+v, %v", days, err)
	}
	if _, err := house.LateCount(t.Context(), "2025-06-11"); !errors.Is(err, ErrNotFound) {
		t.Errorf("late events of a day without a release: %v", err)
	}
	if yes, err := house.Simulated(t.Context()); err != nil || !yes {
		t.Errorf("simulated events are there: %v, %v", yes, err)
	}
}

func TestNothingOfAPersonIsInARelease(t *testing.T) {
	const day = Day("2025-06-20")
	from, _, err := day.Bounds(house.Zone())
	if err != nil {
		t.Fatal(err)
	}
	var events []event.Event
	for i := range 12 {
		events = append(events, user(from, int64(5000+i), fmt.Sprint("once", i), "shown"))
	}
	put(t, "person", events...)
	if _, err := house.Release(t.Context(), day, house.Zone(), from.Add(72*time.Hour)); err != nil {
		t.Fatal(err)
	}
	for _, table := range []string{"release_made", "release_usage", "release_days", "release_late"} {
		if n := scalar[uint64](t, "SELECT countIf(position(toString(tuple(*)), '"+secret+"') > 0 OR position(toString(tuple(*)), 'once1') > 0) FROM "+table); n != 0 {
			t.Errorf("%s holds a secret in %d rows", table, n)
		}
	}
}

// What a release names of an event is of class public; the rest are counts. A
// column added to it has to be put into one of the two.
func TestAReleaseNamesPublicFieldsOnly(t *testing.T) {
	named := map[string]int{"service": event.FieldByName("service.name"), "version": event.FieldByName("service.version"),
		"resource_type": event.FieldByName("resource.type"), "resource_name": event.FieldByName("resource.name")}
	others := []string{"day", "zone", "released", "counted", "rows", "few_tenants", "dominated", "late", "simulated", "tenants", "users", "uses", "failures", "timed"}
	for _, table := range releaseTables {
		rows, err := house.conn.Query(t.Context(), "SELECT name, type FROM system.columns WHERE database = 'coc' AND table = '"+table+"'")
		if err != nil {
			t.Fatal(err)
		}
		columns := 0
		for rows.Next() {
			var name, kind string
			if err := rows.Scan(&name, &kind); err != nil {
				t.Fatal(err)
			}
			columns++
			field, isNamed := named[name]
			switch {
			case isNamed && (field < 0 || event.Fields[field].Class != event.Public):
				t.Errorf("%s.%s comes from a field that is not of class public", table, name)
			case isNamed, name == "tier", name == "zone", slices.Contains(others, name), strings.HasPrefix(name, "ms_"):
				// The tier is the tenant's contract, not the tenant: at least 11 share it in a row.
			default:
				t.Errorf("%s.%s: say what it is made of", table, name)
			}
			if !isNamed && name != "tier" && name != "zone" && strings.Contains(kind, "String") {
				t.Errorf("%s.%s is a text (%s)", table, name, kind)
			}
		}
		if err := rows.Err(); err != nil || columns < 3 {
			t.Fatalf("%s has %d columns, %v", table, columns, err)
		}
		_ = rows.Close()
	}
}

func TestResponseTimesAreBuiltPerTenantDayWindowAndClient(t *testing.T) {
	zone := house.Zone()
	const day = Day("2025-03-30") // 23 hours long in Amsterdam
	from, to, err := day.Bounds(zone)
	if err != nil || to.Sub(from) != 23*time.Hour {
		t.Fatal(to.Sub(from), err)
	}
	var events []event.Event
	for i, d := range []float64{50, 150, 2000, 2000.5, 20000} {
		e := user(from.Add(time.Duration(i)*time.Hour), int64(3000+i), "rt", "Eigenschappen Medewerker")
		e.SetDuration(d)
		events = append(events, e)
	}
	untimed := user(to.Add(-time.Millisecond), 3010, "rt", "Eigenschappen Medewerker")
	next := user(to, 3011, "rt", "Eigenschappen Medewerker")
	job := user(from, 3012, "rt", "Eigenschappen Medewerker")
	job.ResourceType = "job"
	put(t, "rt-1", append(events, untimed, next, job)...)
	touched, err := house.TouchedDays(t.Context(), from, zone)
	if err != nil || !slices.Contains(touched, day) || !slices.Contains(touched, "2025-03-31") {
		t.Errorf("touched days: %v, %v", touched, err)
	}
	for range 2 {
		if n, err := house.BuildResponseTimes(t.Context(), day, zone); err != nil || n != 1 {
			t.Fatal(n, err)
		}
	}
	got, more, err := house.ResponseTimes(t.Context(), Reader{Role: RoleAccountManager}, ResponseTimeFilter{Tenant: "rt", From: day, To: day})
	want := []ResponseTime{{Tenant: "rt", Day: day, Window: "Eigenschappen Medewerker", Client: "profit", Openings: 6, Timed: 5, Above: 2, Buckets: [8]int64{1, 1, 0, 0, 1, 1, 0, 1}}}
	if err != nil || more || !reflect.DeepEqual(got, want) {
		t.Errorf("read %+v, %v\nwanted %+v", got, err, want)
	}
	if _, _, err := house.ResponseTimes(t.Context(), admin, ResponseTimeFilter{From: "2025-13-01"}); !errors.Is(err, ErrInvalid) {
		t.Errorf("a day that does not exist gives %v", err)
	}
}

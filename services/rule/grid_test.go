package rule

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestCellsOfDaysFollowTheLocalCalendar(t *testing.T) {
	zone := amsterdam(t)
	f := func(length time.Duration, at, from, to string) {
		t.Helper()
		g := newGrid(length, zone)
		parse := func(s string) int64 {
			v, err := time.Parse(time.RFC3339, s)
			if err != nil {
				t.Fatal(err)
			}
			return v.UnixMilli()
		}
		a, b := g.cell(parse(at))
		if a != parse(from) || b != parse(to) {
			t.Errorf("%s of %s: %s to %s, want %s to %s", at, FormatDuration(length), time.UnixMilli(a).In(zone).Format(time.RFC3339), time.UnixMilli(b).In(zone).Format(time.RFC3339), from, to)
		}
	}
	day := 24 * time.Hour
	f(day, "2027-03-28T00:00:00+01:00", "2027-03-28T00:00:00+01:00", "2027-03-29T00:00:00+02:00") // 23 hours
	f(day, "2027-03-28T23:59:59+02:00", "2027-03-28T00:00:00+01:00", "2027-03-29T00:00:00+02:00")
	f(day, "2027-10-31T02:30:00+02:00", "2027-10-31T00:00:00+02:00", "2027-11-01T00:00:00+01:00") // 25 hours
	f(day, "2027-10-31T02:30:00+01:00", "2027-10-31T00:00:00+02:00", "2027-11-01T00:00:00+01:00")
	f(7*day, "2026-01-05T00:00:00+01:00", "2026-01-05T00:00:00+01:00", "2026-01-12T00:00:00+01:00") // a Monday
	f(7*day, "2026-01-11T23:59:59+01:00", "2026-01-05T00:00:00+01:00", "2026-01-12T00:00:00+01:00")
	f(7*day, "1969-12-29T00:00:00+01:00", "1969-12-29T00:00:00+01:00", "1970-01-05T00:00:00+01:00")
	f(7*day, "1969-12-28T23:00:00+01:00", "1969-12-22T00:00:00+01:00", "1969-12-29T00:00:00+01:00")
	f(time.Hour, "2027-10-31T02:30:00+02:00", "2027-10-31T02:00:00+02:00", "2027-10-31T02:00:00+01:00")
	f(time.Hour, "2027-10-31T02:30:00+01:00", "2027-10-31T02:00:00+01:00", "2027-10-31T03:00:00+01:00")
	f(90*time.Minute, "1970-01-01T01:00:00Z", "1970-01-01T00:00:00Z", "1970-01-01T01:30:00Z")
	f(36*time.Hour, "1970-01-02T13:00:00Z", "1970-01-02T12:00:00Z", "1970-01-04T00:00:00Z")
}

func TestCellsPartTimeWithoutGapOrOverlap(t *testing.T) {
	zone := amsterdam(t)
	rapid.Check(t, func(t *rapid.T) {
		length := time.Duration(rapid.SampledFrom([]int{1, 7, 60, 90, 1440, 2160, 10080, 43200}).Draw(t, "minutes")) * time.Minute
		g := newGrid(length, zone)
		at := rapid.Int64Range(-1e12, 9e12).Draw(t, "time")
		from, to := g.cell(at)
		if at < from || at >= to {
			t.Fatalf("%d is not in %d to %d", at, from, to)
		}
		if a, b := g.cell(from); a != from || b != to {
			t.Fatalf("the cell of its own start is %d to %d, not %d to %d", a, b, from, to)
		}
		if a, _ := g.cell(to); a != to {
			t.Fatalf("the next cell begins at %d, not %d", a, to)
		}
		if _, b := g.cell(from - 1); b != from {
			t.Fatalf("the cell before ends at %d, not %d", b, from)
		}
	})
}

func TestTheHostersClock(t *testing.T) {
	zone := amsterdam(t)
	f := func(at string, want Local) {
		t.Helper()
		v, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		got := localTime(v.UnixMilli(), zone)
		want.Year, want.Second, want.YearDay, want.Week = got.Year, got.Second, got.YearDay, got.Week
		if got != want {
			t.Errorf("%s:\n got %+v\nwant %+v", at, got, want)
		}
	}
	f("2026-01-05T08:00:00+01:00", Local{Month: 1, Day: 5, Hour: 8, Weekday: 1, Office: true})
	f("2026-01-05T18:00:00+01:00", Local{Month: 1, Day: 5, Hour: 18, Weekday: 1})
	f("2026-01-05T06:59:00+01:00", Local{Month: 1, Day: 5, Hour: 6, Minute: 59, Weekday: 1, Night: true})
	f("2026-01-05T07:00:00+01:00", Local{Month: 1, Day: 5, Hour: 7, Weekday: 1})
	f("2026-01-05T21:00:00+01:00", Local{Month: 1, Day: 5, Hour: 21, Weekday: 1, Night: true})
	f("2026-01-10T12:00:00+01:00", Local{Month: 1, Day: 10, Hour: 12, Weekday: 6, Weekend: true})
	f("2026-07-05T22:30:00Z", Local{Month: 7, Day: 6, Hour: 0, Minute: 30, Weekday: 1, Night: true})
	f("2027-03-28T00:59:59Z", Local{Month: 3, Day: 28, Hour: 1, Minute: 59, Weekday: 7, Night: true, Weekend: true, Holiday: true}) // Easter Sunday
	f("2027-03-28T01:00:00Z", Local{Month: 3, Day: 28, Hour: 3, Weekday: 7, Night: true, Weekend: true, Holiday: true})
	f("2027-10-31T00:59:59Z", Local{Month: 10, Day: 31, Hour: 2, Minute: 59, Weekday: 7, Night: true, Weekend: true})
	f("2027-10-31T01:00:00Z", Local{Month: 10, Day: 31, Hour: 2, Weekday: 7, Night: true, Weekend: true})
}

func TestDutchHolidays(t *testing.T) {
	// As published for 2025 to 2027.
	for _, day := range []string{
		"2025-01-01", "2025-04-20", "2025-04-21", "2025-04-26", "2025-05-05", "2025-05-29", "2025-06-08", "2025-06-09", "2025-12-25", "2025-12-26",
		"2026-01-01", "2026-04-05", "2026-04-06", "2026-04-27", "2026-05-14", "2026-05-24", "2026-05-25", "2026-12-25", "2026-12-26",
		"2027-03-28", "2027-03-29", "2027-04-27", "2027-05-06", "2027-05-16", "2027-05-17",
	} {
		d, err := time.Parse("2006-01-02", day)
		if err != nil {
			t.Fatal(err)
		}
		if !localTime(d.UnixMilli(), time.UTC).Holiday {
			t.Errorf("%s is a holiday", day)
		}
	}
	n := 0
	for d := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC); d.Year() == 2026; d = d.AddDate(0, 0, 1) {
		if localTime(d.UnixMilli(), time.UTC).Holiday {
			n++
		}
	}
	if n != 9 {
		t.Errorf("2026 has %d holidays, want 9", n)
	}
}

func TestDurations(t *testing.T) {
	for s, want := range map[string]time.Duration{"10m": 10 * time.Minute, "1h30m": 90 * time.Minute, "30d": 720 * time.Hour, "2w": 336 * time.Hour, "0s": 0, "1500ms": 1500 * time.Millisecond} {
		got, ok := ParseDuration(s)
		if !ok || got != want {
			t.Errorf("%s is %v, want %v", s, got, want)
		}
		if again, ok := ParseDuration(FormatDuration(got)); !ok || again != got {
			t.Errorf("%v is written as %s", got, FormatDuration(got))
		}
	}
	for _, s := range []string{"", "10", "m", "-1m", "1.5h", "10min", "1h 30m", "9999999999s", "999999999w", "10m10"} {
		if v, ok := ParseDuration(s); ok {
			t.Errorf("%q was read as %v", s, v)
		}
	}
}

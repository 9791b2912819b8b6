package store

import (
	"fmt"
	"time"
)

// Day is a calendar day in the hoster's zone, as 2026-11-23.
type Day string

const dayLayout = "2006-01-02"

// DayOf gives the day of a moment in the zone.
func DayOf(t time.Time, zone *time.Location) Day { return Day(t.In(zone).Format(dayLayout)) }

// Bounds gives the moments between which the day lies: from <= t < to. They are
// 23 or 25 hours apart where the clock changes.
func (d Day) Bounds(zone *time.Location) (from, to time.Time, err error) {
	t, err := time.ParseInLocation(dayLayout, string(d), zone)
	if err != nil {
		return t, t, fmt.Errorf("day %.20q: %w: write it as 2026-11-23", string(d), ErrInvalid)
	}
	// Where midnight does not exist, time.Date gives the moment after the gap.
	return t, time.Date(t.Year(), t.Month(), t.Day()+1, 0, 0, 0, 0, zone), nil
}

// check refuses what is not a day.
func (d Day) check() error {
	_, _, err := d.Bounds(time.UTC)
	return err
}

// days adds a range of days, both ends included; "" is no bound.
func (w *where) days(from, to Day) error {
	for _, b := range []struct {
		day        Day
		term, name string
	}{{from, "day >= {from_day:Date}", "from_day"}, {to, "day <= {to_day:Date}", "to_day"}} {
		if b.day == "" {
			continue
		}
		if err := b.day.check(); err != nil {
			return err
		}
		w.add(b.term, b.name, string(b.day))
	}
	return nil
}

// zoneName is the zone as ClickHouse knows it; both use the tz database.
func zoneName(zone *time.Location) (string, error) {
	name := zone.String()
	if name == "Local" || name == "" {
		return "", fmt.Errorf("zone %q: %w: give it by its name, such as Europe/Amsterdam", name, ErrInvalid)
	}
	return name, nil
}

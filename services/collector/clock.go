package collector

import (
	"time"

	"github.com/opencoc/coc/services/event"
)

// clock gives times without a year, or without a zone, their place.
//
// An import names the year of its first line. From there a line more than
// backwards days before the one before it belongs to the next year (nobody
// writes a log that disordered, and concatenated rotations overlap by less),
// and one more than ahead days after it is a straggler from before the year
// changed. Where no year is named each line is in the latest year in which it is
// not in the future: right for every log of less than a year that ends now.
type clock struct {
	zone *time.Location
	// now bounds times without a year: they are at most a day in the future,
	// for clocks and zones that disagree.
	now func() time.Time
	// year is that of the first line; 0: not known, then each line is for itself.
	year int
	// last is the last time seen, Unix milliseconds; 0: none.
	last int64
}

const (
	backwards = 31 * 24 * time.Hour
	ahead     = 330 * 24 * time.Hour
)

// seen remembers a time that a line stated in full, unless no event may have it.
func (c *clock) seen(at int64) {
	if at > event.MinTime && at < event.MaxTime {
		c.last = at
	}
}

// resolve finds the year of a time that states none.
func (c *clock) resolve(month time.Month, day, hour, minute, second int) (int64, bool) {
	in := func(year int) (time.Time, bool) {
		t := time.Date(year, month, day, hour, minute, second, 0, c.zone)
		// 29 February, or 31 April: time.Date moves it to the next month.
		return t, t.Day() == day || t.Month() == month
	}
	var t time.Time
	var ok bool
	switch {
	case c.year != 0 && c.last != 0:
		last := time.UnixMilli(c.last).In(c.zone)
		t, ok = in(last.Year())
		if back := last.Sub(t); back > backwards {
			t, ok = in(last.Year() + 1)
		} else if -back > ahead {
			t, ok = in(last.Year() - 1)
		}
	case c.year != 0:
		t, ok = in(c.year)
	default:
		limit := c.now().Add(24 * time.Hour)
		t, ok = in(limit.In(c.zone).Year())
		// A leap day may lie up to eight years back.
		for back := 0; back < 8 && (!ok || t.After(limit)); back++ {
			t, ok = in(limit.In(c.zone).Year() - back - 1)
		}
	}
	if !ok {
		return 0, false
	}
	c.last = t.UnixMilli()
	return c.last, true
}

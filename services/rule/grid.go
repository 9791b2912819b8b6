package rule

import "time"

// grid divides time into cells of one length. A length of whole days is a grid
// of local days, counted from Monday 29 December 1969 so that weeks begin on
// Mondays; such a day may last 23 or 25 hours. Any other length is a grid of
// steps from the Unix epoch in UTC, which no change of clocks touches.
type grid struct {
	length int64 // ms
	days   int   // 0: steps in UTC
	zone   *time.Location
}

const dayMillis = 24 * 60 * 60 * 1000

func newGrid(length time.Duration, zone *time.Location) grid {
	g := grid{length: length.Milliseconds(), zone: zone}
	if g.length%dayMillis == 0 {
		g.days = int(g.length / dayMillis)
	}
	return g
}

// cell returns the cell that holds t: from <= t < to, Unix ms.
func (g *grid) cell(t int64) (from, to int64) {
	if g.days == 0 {
		from = floorDiv(t, g.length) * g.length
		return from, from + g.length
	}
	y, m, d := time.UnixMilli(t).In(g.zone).Date()
	day := floorDiv(time.Date(y, m, d, 0, 0, 0, 0, time.UTC).Unix(), 86400)
	const monday = 3 // 1 January 1970 was a Thursday, the day 3 of its week
	first := floorDiv(day+monday, int64(g.days))*int64(g.days) - monday
	return g.midnight(first), g.midnight(first + int64(g.days))
}

func (g *grid) midnight(day int64) int64 {
	y, m, d := time.Unix(day*86400, 0).UTC().Date()
	return time.Date(y, m, d, 0, 0, 0, 0, g.zone).UnixMilli()
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b != 0 && (a < 0) != (b < 0) {
		q--
	}
	return q
}

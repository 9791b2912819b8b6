package console

import (
	"fmt"
	"strings"
	"time"
)

// ParseWhen reads a moment as people write it: RFC 3339 (2026-11-23T14:05:00Z),
// a date (2026-11-23, its first moment in zone), or how long ago (90s, 15m,
// 24h, 7d, 2w, and sums such as 1d12h). Empty is the zero time: no bound.
func ParseWhen(s string, now time.Time, zone *time.Location) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	if t, err := time.ParseInLocation(time.DateOnly, s, zone); err == nil {
		return t, nil
	}
	if d, err := ParseSpan(s); err == nil {
		return now.Add(-d), nil
	}
	return time.Time{}, fmt.Errorf("%.40q is no moment: write 2026-11-23T14:05:00Z, 2026-11-23, or how long ago, such as 24h or 7d", s)
}

// maxSpan is the longest stretch of time that is read: ten years.
const maxSpan = 10 * 366 * 24 * time.Hour

var units = []struct {
	name string
	size time.Duration
}{{"w", 7 * 24 * time.Hour}, {"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}}

// ParseSpan reads a stretch of time: whole numbers with w, d, h, m or s, each
// unit at most once, from large to small; a day is 24 hours.
func ParseSpan(s string) (time.Duration, error) {
	bad := fmt.Errorf("%.40q is no stretch of time: write 90s, 15m, 24h, 7d or 1d12h, at most ten years", s)
	rest, unit, total := s, 0, time.Duration(0)
	for rest != "" {
		n, digits := 0, 0
		for digits < len(rest) && rest[digits] >= '0' && rest[digits] <= '9' {
			if digits > 9 {
				return 0, bad
			}
			n = n*10 + int(rest[digits]-'0')
			digits++
		}
		rest = rest[digits:]
		for unit < len(units) && !strings.HasPrefix(rest, units[unit].name) {
			unit++
		}
		if digits == 0 || unit == len(units) || n > int(maxSpan/units[unit].size) {
			return 0, bad
		}
		total += time.Duration(n) * units[unit].size
		rest = rest[len(units[unit].name):]
		unit++
	}
	if total <= 0 || total > maxSpan {
		return 0, bad
	}
	return total, nil
}

// formatSpan writes a stretch of time with the largest unit below a week that
// divides it.
func formatSpan(d time.Duration) string {
	for _, u := range units[1:] {
		if d >= u.size && d%u.size == 0 {
			return fmt.Sprintf("%d%s", d/u.size, u.name)
		}
	}
	return d.String()
}

package store

import (
	"context"
	"fmt"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// ResponseTime is how fast a window opened for a tenant on a day, in a client.
type ResponseTime struct {
	Tenant         string
	Day            Day
	Window, Client string // resource.name and service.name
	Openings       int64
	Timed          int64 // those with a duration
	Above          int64 // those over 2 seconds, the hoster's promise
	Buckets        [BucketCount]int64
}

// ResponseTimeFilter says which; empty is no bound, days are included.
type ResponseTimeFilter struct {
	Tenant, Window, Client string
	From, To               Day
	Limit                  int // default 10,000, at most 100,000
}

// ResponseTimes lists response times by tenant, day, window and client; the
// second result says that Limit cut the list.
func (s *Store) ResponseTimes(ctx context.Context, r Reader, f ResponseTimeFilter) ([]ResponseTime, bool, error) {
	if err := r.read(tableResponseTimes); err != nil {
		return nil, false, err
	}
	limit, err := limitOf("listing response times", f.Limit, defaultTimes, maxTimes)
	if err != nil {
		return nil, false, err
	}
	var w where
	w.equal("tenant_id", f.Tenant)
	w.equal("window_name", f.Window)
	w.equal("client", f.Client)
	if err := w.days(f.From, f.To); err != nil {
		return nil, false, err
	}
	query := "SELECT tenant_id, toString(day), window_name, client, openings, timed, above_2s, " + bucketColumns +
		" FROM tenant_response_times FINAL" + w.String() + " ORDER BY tenant_id, day, window_name, client LIMIT {limit:UInt64}"
	var list []ResponseTime
	err = s.each(ctx, query, append(w.args, clickhouse.Named("limit", limit+1)), func(rows driver.Rows) error {
		var t ResponseTime
		into := append([]any{&t.Tenant, (*string)(&t.Day), &t.Window, &t.Client, &t.Openings, &t.Timed, &t.Above}, bucketTargets(&t.Buckets)...)
		err := rows.Scan(into...)
		list = append(list, t)
		return err
	})
	if err != nil {
		return nil, false, wrap("reading response times", err)
	}
	if len(list) > limit {
		return list[:limit], true, nil
	}
	return list, false, nil
}

// opening is what counts as the opening of a window.
const opening = "action = 'window_opened' AND resource_type = 'window' AND tenant_id != ''"

// TouchedDays lists the days of which window openings were received since then,
// oldest first: their response times are due to be built again.
func (s *Store) TouchedDays(ctx context.Context, receivedSince time.Time, zone *time.Location) ([]Day, error) {
	name, err := zoneName(zone)
	if err != nil {
		return nil, err
	}
	var w where
	w.add(opening, "", nil)
	w.from("received", "since", receivedSince)
	query := "SELECT DISTINCT toString(toDate(time, {zone:String})) AS day FROM events" + w.String() + " ORDER BY day LIMIT {limit:UInt64}"
	days, err := s.days(ctx, query, append(w.args, clickhouse.Named("zone", name), clickhouse.Named("limit", maxTouchedDays))...)
	return days, wrap("looking for days with window openings", err)
}

func (s *Store) days(ctx context.Context, query string, args ...any) ([]Day, error) {
	var list []Day
	err := s.each(ctx, query, args, func(rows driver.Rows) error {
		var d string
		err := rows.Scan(&d)
		list = append(list, Day(d))
		return err
	})
	return list, err
}

// BuildResponseTimes computes the response times of a day from its events and
// replaces what was there. It returns how many rows it wrote. Building a day
// again is harmless, as long as its events are kept.
func (s *Store) BuildResponseTimes(ctx context.Context, day Day, zone *time.Location) (rows int64, err error) {
	from, to, err := day.Bounds(zone)
	if err != nil {
		return 0, err
	}
	var w where
	w.add(opening, "", nil)
	w.from("time", "from", from)
	w.before("time", "to", to)
	query := "INSERT INTO tenant_response_times (tenant_id, day, window_name, client, openings, timed, above_2s, " + bucketColumns + ", built)" +
		" SELECT tenant_id, {day:Date}, resource_name, service_name, toInt64(count()), toInt64(count(duration))," +
		fmt.Sprintf(" toInt64(countIf(duration > %d)), ", promisedMillis) + bucketCounts() +
		", fromUnixTimestamp64Milli({now:Int64}, 'UTC') FROM events" + w.String() + " GROUP BY tenant_id, resource_name, service_name"
	args := append(w.args, clickhouse.Named("day", string(day)), clickhouse.Named("now", s.config.Now().UnixMilli()))
	var sum summary
	if err := s.conn.Exec(withSummary(waitForEnd(ctx), &sum), query, args...); err != nil {
		return 0, wrap("building the response times of "+string(day), err)
	}
	return sum.writtenRows, nil
}

// waitForEnd makes a server answer when all is written, so that the summary is
// whole and an error comes as the status.
func waitForEnd(ctx context.Context) context.Context {
	return clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{"wait_end_of_query": 1, "async_insert": 0}))
}

package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// All stands for all resources (in type and name) and for all tiers.
const All = "*"

// UsageRow is a row of the anonymous statistics: how a part of the product was
// used on a day, by at least 11 tenants of which none made more than half of
// the uses.
type UsageRow struct {
	Day          Day    `json:"day"`
	Service      string `json:"service"`
	Version      string `json:"version"`
	ResourceType string `json:"resource_type"`
	ResourceName string `json:"resource_name"`
	Tier         string `json:"tier"`
	Tenants      int64  `json:"tenants"`
	Users        int64  `json:"users"`
	Uses         int64  `json:"uses"`
	Failures     int64  `json:"failures"`
	// Timed are the uses with a duration; Buckets add up to them.
	Timed   int64              `json:"timed"`
	Buckets [BucketCount]int64 `json:"buckets"`
}

// UsageDay says what was released when.
type UsageDay struct {
	Day      Day
	Zone     string
	Released time.Time
	// Rows are shown; FewTenants and Dominated are suppressed: of fewer than 11
	// tenants, and with one tenant above half of the uses. A row that is both
	// counts as FewTenants.
	Rows, FewTenants, Dominated int64
	Late                        int64 // events of the day that came after its release
	LateCounted                 time.Time
	Simulated                   bool // made from simulated events too
}

// document is a release whole, as it stands in release_made.
type document struct {
	FewTenants int64      `json:"few_tenants"`
	Dominated  int64      `json:"dominated"`
	Rows       []UsageRow `json:"rows"`
}

// used is what counts for a release: what users of a tenant did.
const used = "kind = 'user' AND tenant_id != ''"

// ClosedDays lists the days with events of users that are over for 24 hours and
// have no release, oldest first, at most 400. With quiet above 0 a day waits
// until nothing was received for it within quiet: so an import of history is
// not released half-way.
func (s *Store) ClosedDays(ctx context.Context, now time.Time, zone *time.Location, quiet time.Duration) ([]Day, error) {
	name, err := zoneName(zone)
	if err != nil {
		return nil, err
	}
	var w where
	w.add(used, "", nil)
	// The day that holds now - 24 h is not over for 24 hours, those before are.
	last, _, err := DayOf(now.Add(-dayCloses), zone).Bounds(zone)
	if err != nil {
		return nil, err
	}
	w.before("time", "closed", last)
	query := "SELECT toString(day) FROM (SELECT toDate(time, {zone:String}) AS day, max(received) AS latest FROM events" + w.String() +
		" GROUP BY day HAVING latest <= fromUnixTimestamp64Milli({quiet:Int64}, 'UTC'))" +
		" WHERE day NOT IN (SELECT day FROM release_made) ORDER BY day LIMIT {limit:UInt64}"
	before := now.Add(-quiet)
	if quiet <= 0 {
		before = now.Add(100 * 365 * 24 * time.Hour)
	}
	args := append(w.args, clickhouse.Named("zone", name), clickhouse.Named("quiet", clampMilli(before)), clickhouse.Named("limit", maxClosedDays))
	days, err := s.days(ctx, query, args...)
	return days, wrap("looking for closed days", err)
}

// Release makes the release of a day, once: what it holds is computed now and
// never again. ErrReleased says that there is one. A crash in the middle leaves
// either nothing or a release that the next call completes and reports as
// ErrReleased. The caller takes care that the day is closed (ClosedDays).
func (s *Store) Release(ctx context.Context, day Day, zone *time.Location, now time.Time) (UsageDay, error) {
	what := "releasing " + string(day)
	if err := day.check(); err != nil {
		return UsageDay{}, err
	}
	if _, made, err := s.madeRelease(ctx, day); err != nil {
		return UsageDay{}, wrap(what, err)
	} else if made {
		if err := s.publishRelease(ctx, day); err != nil {
			return UsageDay{}, wrap(what, err)
		}
		return UsageDay{}, fmt.Errorf("%s: %w", what, ErrReleased)
	}
	doc, err := s.computeRelease(ctx, day, zone)
	if err != nil {
		return UsageDay{}, wrap(what, err)
	}
	if err := s.makeRelease(ctx, day, zone, now, doc); err != nil {
		return UsageDay{}, wrap(what, err)
	}
	if err := s.publishRelease(ctx, day); err != nil {
		return UsageDay{}, wrap(what, err)
	}
	days, err := s.ReleasedDays(ctx, day, day)
	if err != nil {
		return UsageDay{}, err
	}
	if len(days) != 1 {
		return UsageDay{}, fmt.Errorf("%s: the release was written but does not stand in release_days: %w", what, ErrUnavailable)
	}
	return days[0], nil
}

// computeRelease counts the day's uses per row and decides which are shown.
func (s *Store) computeRelease(ctx context.Context, day Day, zone *time.Location) (document, error) {
	from, to, err := day.Bounds(zone)
	if err != nil {
		return document{}, err
	}
	var w where
	w.add(used, "", nil)
	w.from("time", "from", from)
	w.before("time", "to", to)
	args := append(w.args, clickhouse.Named("limit", maxReleaseRows+1))
	doc, seen := document{Rows: []UsageRow{}}, 0
	err = s.each(ctx, releaseQuery(w.String()), args, func(rows driver.Rows) error {
		r := UsageRow{Day: day}
		var largest int64
		into := append([]any{&r.Service, &r.Version, &r.ResourceType, &r.ResourceName, &r.Tier, &r.Tenants, &r.Users, &r.Uses, &r.Failures, &r.Timed, &largest}, bucketTargets(&r.Buckets)...)
		if err := rows.Scan(into...); err != nil {
			return err
		}
		switch {
		case r.Tenants < minTenants:
			doc.FewTenants++
		case 2*largest > r.Uses:
			doc.Dominated++
		default:
			doc.Rows = append(doc.Rows, r)
		}
		if seen++; seen > maxReleaseRows {
			return fmt.Errorf("%w: more than %d rows: something that differs from user to user stands in resource.name or service.version; see SELECT resource_type, uniq(resource_name) FROM events GROUP BY 1 ORDER BY 2 DESC", ErrInvalid, maxReleaseRows)
		}
		return nil
	})
	return doc, err
}

// releaseQuery counts per tenant first, in the four sets of rows (each resource
// and tier, and both totals), then over tenants: so the largest tenant of every
// row is known. A resource or tier that is called '*' itself is written '(*)'.
func releaseQuery(where string) string {
	inner := "SELECT service_name, service_version, tenant_id," +
		" grouping(resource_name) = 1 AS all_resources, grouping(tenant_tier) = 1 AS all_tiers," +
		" if(all_resources, '*', if(resource_type = '*', '(*)', toString(resource_type))) AS rtype," +
		" if(all_resources, '*', if(resource_name = '*', '(*)', toString(resource_name))) AS rname," +
		" if(all_tiers, '*', if(tenant_tier = '*', '(*)', toString(tenant_tier))) AS tier," +
		" toInt64(count()) AS tenant_uses, toInt64(uniqExactIf(user_hash, user_hash != '')) AS tenant_users, toInt64(countIf(outcome = 'failure')) AS tenant_failures," +
		" toInt64(count(duration)) AS tenant_timed, " + bucketCounts() +
		" FROM events" + where + " GROUP BY GROUPING SETS (" +
		"(service_name, service_version, resource_type, resource_name, tenant_tier, tenant_id)," +
		" (service_name, service_version, resource_type, resource_name, tenant_id)," +
		" (service_name, service_version, tenant_tier, tenant_id)," +
		" (service_name, service_version, tenant_id))"
	return "SELECT service_name, service_version, rtype, rname, tier, toInt64(count()), sum(tenant_users), sum(tenant_uses), sum(tenant_failures), sum(tenant_timed)," +
		" max(tenant_uses), " + bucketSums() + " FROM (" + inner + ") GROUP BY service_name, service_version, rtype, rname, tier" +
		" ORDER BY service_name, service_version, rtype, rname, tier LIMIT {limit:UInt64}"
}

// madeRelease reads the day's document, if there is one.
func (s *Store) madeRelease(ctx context.Context, day Day) (document, bool, error) {
	var doc document
	made := false
	err := s.each(ctx, "SELECT document FROM release_made WHERE day = {day:Date} LIMIT 1", []any{clickhouse.Named("day", string(day))}, func(rows driver.Rows) error {
		var text string
		if err := rows.Scan(&text); err != nil {
			return err
		}
		made = true
		if err := json.Unmarshal([]byte(text), &doc); err != nil {
			return fmt.Errorf("reading the document of the release: %w", err)
		}
		return nil
	})
	return doc, made, err
}

// makeRelease writes the document in one row under the day's token: a second
// one, by another process at the same moment, is dropped.
func (s *Store) makeRelease(ctx context.Context, day Day, zone *time.Location, now time.Time, doc document) error {
	from, to, err := day.Bounds(zone)
	if err != nil {
		return err
	}
	text, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	var w where
	w.from("time", "from", from)
	w.before("time", "to", to)
	w.add("kind = 'user'", "", nil)
	var events, noTenant, simulated int64
	count := "SELECT toInt64(countIf(tenant_id != '')), toInt64(countIf(tenant_id = '')), toInt64(countIf(tenant_id != '' AND labels['simulated'] = 'true')) FROM events" + w.String()
	if err := s.conn.QueryRow(ctx, count, w.args...).Scan(&events, &noTenant, &simulated); err != nil {
		return err
	}
	ctx = clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{
		"insert_deduplication_token": "release:" + string(day), "async_insert": 0, "wait_end_of_query": 1,
	}))
	batch, err := s.conn.PrepareBatch(ctx, "INSERT INTO release_made (day, zone, released, events, no_tenant, simulated, document)")
	if err != nil {
		return err
	}
	if err := batch.Append(string(day), zone.String(), now, events, noTenant, simulated, string(text)); err != nil {
		_ = batch.Close()
		return err
	}
	return batch.Send()
}

// publishRelease copies the day's document into the tables that are read.
// Copying twice leaves one copy.
func (s *Store) publishRelease(ctx context.Context, day Day) error {
	doc, made, err := s.madeRelease(ctx, day)
	if err != nil || !made {
		return err
	}
	into := "INSERT INTO release_usage (day, service, version, resource_type, resource_name, tier, tenants, users, uses, failures, timed, " + bucketColumns + ")"
	err = insertRows(ctx, s, into, doc.Rows, func(b driver.Batch, r *UsageRow) error {
		return b.Append(append([]any{string(r.Day), r.Service, r.Version, r.ResourceType, r.ResourceName, r.Tier, r.Tenants, r.Users, r.Uses, r.Failures, r.Timed}, bucketValues(&r.Buckets)...)...)
	})
	if err != nil {
		return err
	}
	// The day last: it says that its rows are there.
	const publish = `INSERT INTO release_days (day, zone, released, rows, few_tenants, dominated, simulated)
		SELECT day, zone, released, {rows:Int64}, {few:Int64}, {dominated:Int64}, simulated > 0 FROM release_made WHERE day = {day:Date} LIMIT 1`
	return s.conn.Exec(waitForEnd(ctx), publish, clickhouse.Named("rows", len(doc.Rows)), clickhouse.Named("few", doc.FewTenants),
		clickhouse.Named("dominated", doc.Dominated), clickhouse.Named("day", string(day)))
}

// LateCount counts the events of a released day that came after its release,
// and records the number. The count never falls: events that retention has
// removed were counted before.
func (s *Store) LateCount(ctx context.Context, day Day) (int64, error) {
	what := "counting what came late for " + string(day)
	if err := day.check(); err != nil {
		return 0, err
	}
	var zone string
	var released, before int64
	found := false
	const made = `SELECT zone, events, ifNull((SELECT max(late) FROM release_late WHERE day = {day:Date}), 0) FROM release_made WHERE day = {day:Date} LIMIT 1`
	err := s.each(ctx, made, []any{clickhouse.Named("day", string(day))}, func(rows driver.Rows) error {
		found = true
		return rows.Scan(&zone, &released, &before)
	})
	if err != nil {
		return 0, wrap(what, err)
	}
	if !found {
		return 0, fmt.Errorf("%s: it has no release: %w", what, ErrNotFound)
	}
	location, err := time.LoadLocation(zone)
	if err != nil {
		return 0, fmt.Errorf("%s: its zone %q is not known here: %w", what, zone, err)
	}
	from, to, err := day.Bounds(location)
	if err != nil {
		return 0, err
	}
	var w where
	w.add(used, "", nil)
	w.from("time", "from", from)
	w.before("time", "to", to)
	var events int64
	if err := s.conn.QueryRow(ctx, "SELECT toInt64(count()) FROM events"+w.String(), w.args...).Scan(&events); err != nil {
		return 0, wrap(what, err)
	}
	late := max(events-released, before)
	const record = `INSERT INTO release_late (day, late, counted) SELECT {day:Date}, {late:Int64}, fromUnixTimestamp64Milli({now:Int64}, 'UTC')`
	err = s.conn.Exec(waitForEnd(ctx), record, clickhouse.Named("day", string(day)), clickhouse.Named("late", late), clickhouse.Named("now", s.config.Now().UnixMilli()))
	return late, wrap(what, err)
}

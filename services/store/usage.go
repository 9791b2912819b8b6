package store

import (
	"context"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// UsageReport is the anonymous statistics of a range of days. More says that it
// was cut: ask for fewer days.
type UsageReport struct {
	Days []UsageDay
	Rows []UsageRow
	More bool
}

// Usage gives the releases of a range of days, both ends included; "" is no
// bound. Every role may see them.
func (s *Store) Usage(ctx context.Context, r Reader, from, to Day) (UsageReport, error) {
	if err := r.read(tableReleaseUsage); err != nil {
		return UsageReport{}, err
	}
	days, err := s.ReleasedDays(ctx, from, to)
	if err != nil {
		return UsageReport{}, err
	}
	var w where
	if err := w.days(from, to); err != nil {
		return UsageReport{}, err
	}
	report := UsageReport{Days: days, More: len(days) == maxUsageDays}
	query := "SELECT toString(day), service, version, resource_type, resource_name, tier, tenants, users, uses, failures, timed, " + bucketColumns +
		" FROM release_usage FINAL" + w.String() + " ORDER BY day, service, version, resource_type, resource_name, tier LIMIT {limit:UInt64}"
	err = s.each(ctx, query, append(w.args, clickhouse.Named("limit", maxUsageRows+1)), func(rows driver.Rows) error {
		var u UsageRow
		into := append([]any{(*string)(&u.Day), &u.Service, &u.Version, &u.ResourceType, &u.ResourceName, &u.Tier, &u.Tenants, &u.Users, &u.Uses, &u.Failures, &u.Timed}, bucketTargets(&u.Buckets)...)
		err := rows.Scan(into...)
		report.Rows = append(report.Rows, u)
		return err
	})
	if err != nil {
		return UsageReport{}, wrap("reading the anonymous statistics", err)
	}
	if len(report.Rows) > maxUsageRows {
		report.Rows, report.More = report.Rows[:maxUsageRows], true
	}
	return report, nil
}

// ReleasedDays lists the releases of a range of days, both ends included, by
// day; "" is no bound. At most 4,000.
func (s *Store) ReleasedDays(ctx context.Context, from, to Day) ([]UsageDay, error) {
	var w where
	if err := w.days(from, to); err != nil {
		return nil, err
	}
	query := "SELECT toString(day), zone, released, rows, few_tenants, dominated, simulated, late, counted" +
		" FROM release_days FINAL LEFT JOIN (SELECT * FROM release_late FINAL) AS l USING (day)" + w.String() + " ORDER BY day LIMIT {limit:UInt64}"
	var list []UsageDay
	err := s.each(ctx, query, append(w.args, clickhouse.Named("limit", maxUsageDays)), func(rows driver.Rows) error {
		var d UsageDay
		err := rows.Scan((*string)(&d.Day), &d.Zone, &d.Released, &d.Rows, &d.FewTenants, &d.Dominated, &d.Simulated, &d.Late, &d.LateCounted)
		if d.LateCounted.Equal(time.UnixMilli(0)) {
			d.LateCounted = time.Time{}
		}
		list = append(list, d)
		return err
	})
	return list, wrap("reading the released days", err)
}

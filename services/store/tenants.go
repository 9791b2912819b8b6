package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// Meter is something a tenant may use so much of: which events count, how, over
// which stretch, and what each tier may.
type Meter struct {
	Name, Unit string
	// Action is required; the others bound it further, "" is no bound.
	Kind, Action, Outcome, ResourceType, Service string
	// Aggregate is count, sum(bytes), sum(duration), sum(value), max(value),
	// distinct(user.hash), distinct(session.id) or distinct(resource.name).
	Aggregate string
	Window    time.Duration // 1 minute to 400 days
	// Allowance is by tier; "*" is every other tier. A tier without one is
	// measured, not judged.
	Allowance map[string]float64
}

// Standing is how a tenant stands against a meter.
type Standing struct {
	Tenant, Tier, Meter, Unit string
	Window                    time.Duration
	// Used is over the window that ends now (from < t <= to, as rules count),
	// Previous over the one before it.
	Used, Previous float64
	Trend          float64 // (Used-Previous)/Previous; 0 when Previous is 0
	Allowed        bool    // there is an allowance for the tier
	Allowance      float64
	Ratio          float64 // Used/Allowance; 1e9 for use where nothing is allowed
	Above          bool
	// Since is when it went above without coming back, to the minute; if that is
	// longer ago than a window, it is so since then at the latest. Zero when it
	// is not above, and for max and distinct, where nobody looked.
	Since time.Time
}

// StandingFilter says which; empty is no bound.
type StandingFilter struct {
	Tenant, Meter string
	OnlyAbove     bool
	Limit         int // default 10,000, at most 100,000 rows
}

// aggregates are the ways to measure: over a condition {if} and per minute.
var aggregates = map[string]struct{ sum, column string }{
	"count":                   {"toFloat64(countIf(%s))", ""},
	"sum(bytes)":              {"ifNull(sumIf(toFloat64(bytes), %s), 0)", "bytes"},
	"sum(duration)":           {"ifNull(sumIf(duration, %s), 0)", "duration"},
	"sum(value)":              {"ifNull(sumIf(value, %s), 0)", "value"},
	"max(value)":              {"ifNull(maxIf(value, %s), 0)", "value"},
	"distinct(user.hash)":     {"toFloat64(uniqExactIf(user_hash, user_hash != '' AND %s))", "user_hash"},
	"distinct(session.id)":    {"toFloat64(uniqExactIf(session_id, session_id != '' AND %s))", "session_id"},
	"distinct(resource.name)": {"toFloat64(uniqExactIf(resource_name, resource_name != '' AND %s))", "resource_name"},
}

// noAllowance is the ratio of a use where nothing is allowed.
const noAllowance = 1e9

func (m *Meter) validate() error {
	switch {
	case m.Name == "" || m.Action == "":
		return fmt.Errorf("meter %q: %w: it needs a name and an action", m.Name, ErrInvalid)
	case aggregates[m.Aggregate].sum == "":
		return fmt.Errorf("meter %s: %w: aggregate %q is not known", m.Name, ErrInvalid, m.Aggregate)
	case m.Window < minMeterWindow || m.Window > maxMeterWindow:
		return fmt.Errorf("meter %s: %w: window %s, give %s to %s", m.Name, ErrInvalid, m.Window, minMeterWindow, maxMeterWindow)
	}
	return nil
}

// Tenants gives the standing of every tenant that used something in the last
// two windows, the highest share of an allowance first. The second result says
// that the limit cut the list.
func (s *Store) Tenants(ctx context.Context, r Reader, meters []Meter, at time.Time, f StandingFilter) ([]Standing, bool, error) {
	if err := r.read(viewStanding); err != nil {
		return nil, false, err
	}
	limit, err := limitOf("listing standings", f.Limit, defaultStandings, maxStandings)
	if err != nil {
		return nil, false, err
	}
	if len(meters) > maxMeters {
		return nil, false, fmt.Errorf("listing standings: %w: %d meters, give at most %d", ErrInvalid, len(meters), maxMeters)
	}
	var list []Standing
	for i := range meters {
		m := &meters[i]
		if err := m.validate(); err != nil {
			return nil, false, err
		}
		if f.Meter != "" && f.Meter != m.Name {
			continue
		}
		some, err := s.standing(ctx, m, at, f)
		if err != nil {
			return nil, false, wrap("measuring "+m.Name, err)
		}
		list = append(list, some...)
	}
	slices.SortStableFunc(list, func(a, b Standing) int {
		return cmp.Or(cmp.Compare(b.Ratio, a.Ratio), cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Meter, b.Meter))
	})
	more := len(list) > limit
	list = list[:min(limit, len(list))]
	for i := range meters {
		if err := s.sinceWhen(ctx, &meters[i], at, list); err != nil {
			return nil, false, wrap("looking since when "+meters[i].Name+" is above", err)
		}
	}
	return list, more, nil
}

// where is which events count for the meter, in the last two windows.
func (m *Meter) where(at time.Time) *where {
	var w where
	w.add("tenant_id != ''", "", nil)
	w.equal("action", m.Action)
	w.equal("kind", m.Kind)
	w.equal("outcome", m.Outcome)
	w.equal("resource_type", m.ResourceType)
	w.equal("service_name", m.Service)
	w.from("time", "start", at.Add(-2*m.Window).Add(time.Millisecond))
	w.before("time", "end", at.Add(time.Millisecond))
	return &w
}

// standing measures one meter for all tenants.
func (s *Store) standing(ctx context.Context, m *Meter, at time.Time, f StandingFilter) ([]Standing, error) {
	w := m.where(at)
	w.equal("tenant_id", f.Tenant)
	const middle = "fromUnixTimestamp64Milli({middle:Int64}, 'UTC')"
	sum := aggregates[m.Aggregate].sum
	query := "SELECT tenant_id, argMax(tenant_tier, time), " + fmt.Sprintf(sum, "time > "+middle) + ", " + fmt.Sprintf(sum, "time <= "+middle) +
		" FROM events" + w.String() + " GROUP BY tenant_id ORDER BY tenant_id LIMIT {limit:UInt64}"
	args := append(w.args, clickhouse.Named("middle", clampMilli(at.Add(-m.Window))), clickhouse.Named("limit", maxStandings))
	var list []Standing
	err := s.each(ctx, query, args, func(rows driver.Rows) error {
		v := Standing{Meter: m.Name, Unit: m.Unit, Window: m.Window}
		if err := rows.Scan(&v.Tenant, &v.Tier, &v.Used, &v.Previous); err != nil {
			return err
		}
		v.judge(m)
		if v.Above || !f.OnlyAbove {
			list = append(list, v)
		}
		return nil
	})
	return list, err
}

func (v *Standing) judge(m *Meter) {
	if v.Previous != 0 {
		v.Trend = (v.Used - v.Previous) / v.Previous
	}
	if v.Allowance, v.Allowed = m.Allowance[v.Tier]; !v.Allowed {
		v.Allowance, v.Allowed = m.Allowance["*"]
	}
	if !v.Allowed {
		return
	}
	v.Above = v.Used > v.Allowance
	switch {
	case v.Allowance > 0:
		v.Ratio = min(v.Used/v.Allowance, noAllowance)
	case v.Used > 0:
		v.Ratio = noAllowance
	}
}

// sinceWhen fills Since for the tenants above the meter's allowance, from what
// they used minute by minute.
func (s *Store) sinceWhen(ctx context.Context, m *Meter, at time.Time, list []Standing) error {
	if m.Aggregate != "count" && aggregates[m.Aggregate].column != "bytes" && m.Aggregate != "sum(duration)" && m.Aggregate != "sum(value)" {
		return nil
	}
	above := map[string]*Standing{}
	var tenants []string
	for i := range list {
		if v := &list[i]; v.Above && v.Meter == m.Name && len(tenants) < maxSinceTenants {
			above[v.Tenant] = v
			tenants = append(tenants, v.Tenant)
		}
	}
	if len(tenants) == 0 {
		return nil
	}
	w := m.where(at)
	w.add("tenant_id IN {tenants:Array(String)}", "tenants", tenants)
	query := "SELECT tenant_id, toStartOfMinute(time) AS minute, " + fmt.Sprintf(aggregates[m.Aggregate].sum, "true") +
		" FROM events" + w.String() + " GROUP BY tenant_id, minute ORDER BY tenant_id, minute"
	used := map[string][]use{}
	err := s.each(ctx, query, w.args, func(rows driver.Rows) error {
		var tenant string
		var u use
		err := rows.Scan(&tenant, &u.at, &u.amount)
		used[tenant] = append(used[tenant], u)
		return err
	})
	if err != nil {
		return err
	}
	for tenant, v := range above {
		v.Since = lastRise(used[tenant], v.Allowance, m.Window, at)
	}
	return nil
}

// use is what a tenant used in a minute.
type use struct {
	at     time.Time
	amount float64
}

// lastRise gives the minute in which the sum over the window last went above
// the allowance without coming back by at; zero if it is not above. The list
// begins two windows before at, so a rise within the last window is exact; of an
// earlier one the sum misses what came before the list, and the true rise may
// lie before the given one.
func lastRise(uses []use, allowance float64, window time.Duration, at time.Time) time.Time {
	var since time.Time
	sum, first := 0.0, 0
	leave := func(now time.Time) {
		for first < len(uses) && !uses[first].at.Add(window).After(now) {
			sum -= uses[first].amount
			if first++; sum <= allowance {
				since = time.Time{}
			}
		}
	}
	for _, u := range uses {
		leave(u.at)
		if sum += u.amount; sum > allowance && since.IsZero() {
			since = u.at.UTC()
		}
	}
	leave(at)
	return since
}

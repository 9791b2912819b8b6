package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/opencoc/coc/services/event"
)

// FindingFilter says which findings. Empty texts and zero times are no bound.
type FindingFilter struct {
	Rule, Class, Severity, Tenant, Import string
	// Since and Until bound what a finding covers: last_seen >= Since and
	// first_seen < Until.
	Since, Until time.Time
	Withdrawn    bool // also withdrawn ones
	Shadow       bool // also those of shadow rules
	Live         bool // none of imports
	Limit        int  // default 10,000, at most 100,000
}

// FindingPage is a list of findings; More says that Limit cut it.
type FindingPage struct {
	Findings []event.Finding
	More     bool
}

// where collects conditions and their bound values.
type where struct {
	terms []string
	args  []any
}

func (w *where) add(term, name string, value any) {
	w.terms = append(w.terms, term)
	if name != "" {
		w.args = append(w.args, clickhouse.Named(name, value))
	}
}

// equal adds "column = value" unless value is empty.
func (w *where) equal(column, value string) {
	if value != "" {
		w.add(column+" = {"+column+":String}", column, value)
	}
}

// from and before add a bound in time unless it is zero. DateTime64 of
// milliseconds: what is finer is dropped.
func (w *where) from(column, name string, t time.Time) {
	if !t.IsZero() {
		w.add(column+" >= fromUnixTimestamp64Milli({"+name+":Int64}, 'UTC')", name, clampMilli(t))
	}
}

func (w *where) before(column, name string, t time.Time) {
	if !t.IsZero() {
		w.add(column+" < fromUnixTimestamp64Milli({"+name+":Int64}, 'UTC')", name, clampMilli(t))
	}
}

// clampMilli keeps a time within what DateTime64 compares rightly.
func clampMilli(t time.Time) int64 { return min(max(t.UnixMilli(), event.MinTime), event.MaxTime) }

func (w *where) String() string {
	if len(w.terms) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(w.terms, " AND ")
}

// limitOf checks a list's limit and gives the default for none.
func limitOf(what string, limit, usual, most int) (int, error) {
	switch {
	case limit == 0:
		return usual, nil
	case limit < 0 || limit > most:
		return 0, fmt.Errorf("%s: %w: limit %d, give 1 to %d", what, ErrInvalid, limit, most)
	}
	return limit, nil
}

// Findings lists the last revisions of findings, newest first by the moment
// that fired them.
func (s *Store) Findings(ctx context.Context, r Reader, f FindingFilter) (FindingPage, error) {
	limit, err := limitOf("listing findings", f.Limit, defaultFindings, maxFindings)
	if err != nil {
		return FindingPage{}, err
	}
	var w where
	w.equal("rule", f.Rule)
	w.equal("class", f.Class)
	w.equal("severity", f.Severity)
	w.equal("tenant", f.Tenant)
	w.equal("import", f.Import)
	w.from("last_seen", "since", f.Since)
	w.before("first_seen", "until", f.Until)
	if !f.Withdrawn {
		w.add("NOT withdrawn", "", nil)
	}
	if !f.Shadow {
		w.add("status != 'shadow'", "", nil)
	}
	if f.Live {
		w.add("import = ''", "", nil)
	}
	list, err := s.findings(ctx, r, "findings FINAL", &w, "fired DESC, id", limit+1)
	if err != nil {
		return FindingPage{}, err
	}
	if len(list) > limit {
		return FindingPage{Findings: list[:limit], More: true}, nil
	}
	return FindingPage{Findings: list}, nil
}

// Finding gives a finding's last revision, withdrawn or not, or ErrNotFound.
func (s *Store) Finding(ctx context.Context, r Reader, id string) (event.Finding, error) {
	var w where
	w.add("id = {id:String}", "id", id)
	list, err := s.findings(ctx, r, "findings FINAL", &w, "id", 1)
	if err != nil {
		return event.Finding{}, err
	}
	if len(list) == 0 {
		return event.Finding{}, fmt.Errorf("finding %.64q: %w", id, ErrNotFound)
	}
	return list[0], nil
}

// FindingRevisions gives the revisions of a finding that have not been merged
// away yet, newest first; there is no promise that older ones are still there.
func (s *Store) FindingRevisions(ctx context.Context, r Reader, id string) ([]event.Finding, error) {
	var w where
	w.add("id = {id:String}", "id", id)
	return s.findings(ctx, r, "findings", &w, "revision DESC LIMIT 1 BY revision", maxFindings)
}

// findings selects what a finding holds, as far as the reader may see it.
func (s *Store) findings(ctx context.Context, r Reader, from string, w *where, order string, limit int) ([]event.Finding, error) {
	if err := r.read(tableFindings); err != nil {
		return nil, err
	}
	see := func(column string) string {
		class, _ := ClassOf(tableFindings, column)
		switch {
		case column == "key" && r.Role.MaySee(class):
			return shownKey(r.Role)
		case r.Role.MaySee(class):
			return column
		}
		return "defaultValueOfArgumentType(" + column + ")"
	}
	query := "SELECT id, rule, logic, title, class, severity, status, lane, cell_from, cell_to, " + see("key") + ", " + see("tenant") + ", " +
		see("terms_expr") + ", " + see("terms_value") + ", window_from, window_to, " + see("how") +
		", fired, fired_by, first_seen, last_seen, count, revision, evidence, continues, import, withdrawn, approximate FROM " +
		from + w.String() + " ORDER BY " + order + " LIMIT {limit:UInt64}"
	var list []event.Finding
	err := s.each(ctx, query, append(w.args, clickhouse.Named("limit", limit)), func(rows driver.Rows) error {
		f, err := scanFinding(rows)
		list = append(list, f)
		return err
	})
	return list, wrap("reading findings", err)
}

func scanFinding(rows driver.Rows) (event.Finding, error) {
	var f event.Finding
	var lane uint8
	var revision uint64
	var exprs []string
	var values []float64
	var cellFrom, cellTo, windowFrom, windowTo, fired, first, last time.Time
	err := rows.Scan(&f.ID, &f.Rule, &f.Logic, &f.Title, &f.Class, &f.Severity, &f.Status, &lane, &cellFrom, &cellTo, &f.Key, &f.Tenant,
		&exprs, &values, &windowFrom, &windowTo, &f.How, &fired, &f.FiredBy, &first, &last, &f.Count, &revision,
		&f.Evidence, &f.Continues, &f.Import, &f.Withdrawn, &f.Approximate)
	if err != nil {
		return f, err
	}
	f.Lane, f.Revision = int(lane), int64(revision)
	f.Cell, f.Window = event.Span{From: stamp(cellFrom), To: stamp(cellTo)}, event.Span{From: stamp(windowFrom), To: stamp(windowTo)}
	f.Fired, f.FirstSeen, f.LastSeen = stamp(fired), stamp(first), stamp(last)
	f.Terms = make([]event.Term, min(len(exprs), len(values)))
	for i := range f.Terms {
		f.Terms[i] = event.Term{Expr: exprs[i], Value: values[i]}
	}
	return f, nil
}

func stamp(t time.Time) event.Stamp { return event.Stamp(t.UnixMilli()) }

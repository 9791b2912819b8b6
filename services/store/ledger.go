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

// LedgerExtra is what the bus knows of a source in an hour and batches does not
// hold yet: Received counts the waiting and the dead-lettered given here.
type LedgerExtra struct {
	Source                          string
	Hour                            time.Time
	Received, DeadLettered, Waiting int64
}

// LedgerRow balances a source's events of an hour: Received = Stored + Refused
// + DeadLettered + Waiting, or Difference says by how much not.
type LedgerRow struct {
	Source                                                       string
	Hour                                                         time.Time // UTC, of the bus's time of the message
	Received, Stored, Refused, DeadLettered, Waiting, Difference int64
}

// Ledger gives the balance of every source and hour in from <= t < to, widened
// to whole hours, by hour and source. An event belongs to the hour in which the
// bus stored its message, whatever its own time: both sides of the balance are
// then about the same events.
func (s *Store) Ledger(ctx context.Context, r Reader, from, to time.Time, extra []LedgerExtra) ([]LedgerRow, error) {
	if err := r.read(viewLedger); err != nil {
		return nil, err
	}
	from, to = from.UTC().Truncate(time.Hour), to.UTC().Add(time.Hour-1).Truncate(time.Hour)
	if !from.Before(to) {
		return nil, fmt.Errorf("the ledger: %w: from %s to %s is no stretch of time", ErrInvalid, from, to)
	}
	book := map[ledgerKey]*LedgerRow{}
	for _, fill := range []func(context.Context, ledger, time.Time, time.Time) error{s.ledgerReceived, s.ledgerRefused, s.ledgerStored} {
		if err := fill(ctx, book, from, to); err != nil {
			return nil, wrap("the ledger", err)
		}
	}
	for _, e := range extra {
		hour := e.Hour.UTC().Truncate(time.Hour)
		if hour.Before(from) || !hour.Before(to) {
			continue
		}
		row := ledger(book).row(e.Source, hour)
		row.Received += e.Received
		row.DeadLettered += e.DeadLettered
		row.Waiting += e.Waiting
	}
	list := make([]LedgerRow, 0, len(book))
	for _, row := range book {
		row.Difference = row.Received - row.Stored - row.Refused - row.DeadLettered - row.Waiting
		list = append(list, *row)
	}
	slices.SortFunc(list, func(a, b LedgerRow) int { return cmp.Or(a.Hour.Compare(b.Hour), cmp.Compare(a.Source, b.Source)) })
	return list, nil
}

type ledgerKey struct {
	source string
	hour   int64
}

type ledger map[ledgerKey]*LedgerRow

func (l ledger) row(source string, hour time.Time) *LedgerRow {
	k := ledgerKey{source, hour.Unix()}
	if l[k] == nil {
		l[k] = &LedgerRow{Source: source, Hour: hour.UTC()}
	}
	return l[k]
}

// fill runs a question that gives source, hour and a number.
func (s *Store) fillLedger(ctx context.Context, book ledger, query string, args []any, add func(*LedgerRow, int64)) error {
	return s.each(ctx, query, append(args, clickhouse.Named("limit", maxLedgerRows+1)), func(rows driver.Rows) error {
		var source string
		var hour time.Time
		var n int64
		if err := rows.Scan(&source, &hour, &n); err != nil {
			return err
		}
		if add(book.row(source, hour), n); len(book) > maxLedgerRows {
			return fmt.Errorf("%w: more than %d rows, ask for a shorter time", ErrInvalid, maxLedgerRows)
		}
		return nil
	})
}

func batchesBetween(from, to time.Time) *where {
	var w where
	w.from("bus_time", "from", from)
	w.before("bus_time", "to", to)
	return &w
}

// ledgerReceived counts the rows of messages; those of excluded messages went
// to the dead letters.
func (s *Store) ledgerReceived(ctx context.Context, book ledger, from, to time.Time) error {
	for _, excluded := range []bool{false, true} {
		w := batchesBetween(from, to)
		w.add("excluded = {excluded:Bool}", "excluded", excluded)
		query := "SELECT source, toStartOfHour(bus_time) AS hour, toInt64(sum(n)) FROM (SELECT bus_time, sources FROM batches FINAL" + w.String() +
			") ARRAY JOIN mapKeys(sources) AS source, mapValues(sources) AS n GROUP BY source, hour LIMIT {limit:UInt64}"
		err := s.fillLedger(ctx, book, query, w.args, func(row *LedgerRow, n int64) {
			row.Received += n
			if excluded {
				row.DeadLettered += n
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// ledgerRefused counts what collectors refused, under "source:reason".
func (s *Store) ledgerRefused(ctx context.Context, book ledger, from, to time.Time) error {
	w := batchesBetween(from, to)
	query := "SELECT substring(item, 1, length(item) - length(splitByChar(':', item)[-1]) - 1) AS source, toStartOfHour(bus_time) AS hour, toInt64(sum(n)) FROM" +
		" (SELECT bus_time, refused FROM batches FINAL" + w.String() +
		") ARRAY JOIN mapKeys(refused) AS item, mapValues(refused) AS n GROUP BY source, hour LIMIT {limit:UInt64}"
	return s.fillLedger(ctx, book, query, w.args, func(row *LedgerRow, n int64) {
		row.Received += n
		row.Refused += n
	})
}

// ledgerStored counts events by the hour of their message. A collector numbers
// and sends in order, so its numbers of an hour are one stretch, and an ASOF
// join with the few stretches finds the hour of each event (150 ns an event).
// Most events are received just before the bus has them: only if those are not
// as many as the messages hold, the days that a spool may hold are read as well.
func (s *Store) ledgerStored(ctx context.Context, book ledger, from, to time.Time) error {
	w := batchesBetween(from, to)
	w.add("rows > 0 AND NOT excluded", "", nil)
	var expected int64
	if err := s.conn.QueryRow(ctx, "SELECT toInt64(sum(rows)) FROM batches FINAL"+w.String(), w.args...).Scan(&expected); err != nil {
		return err
	}
	stretches := "SELECT toString(collector_id) AS collector_id, collector_epoch, toStartOfHour(bus_time) AS hour, min(first) AS low, max(first + rows) AS high FROM batches FINAL" +
		w.String() + " GROUP BY collector_id, collector_epoch, hour"
	query := "SELECT event_source, hour, toInt64(count()) FROM" +
		" (SELECT toString(event_source) AS event_source, toString(collector_id) AS collector_id, collector_epoch, collector_seq FROM events" +
		" WHERE received >= fromUnixTimestamp64Milli({oldest:Int64}, 'UTC') AND received < fromUnixTimestamp64Milli({newest:Int64}, 'UTC')) AS e" +
		" ASOF JOIN (" + stretches + ") AS b" +
		" ON e.collector_id = b.collector_id AND e.collector_epoch = b.collector_epoch AND e.collector_seq >= b.low" +
		" WHERE collector_seq < high GROUP BY event_source, hour LIMIT {limit:UInt64}"
	for _, slack := range []time.Duration{time.Hour, ledgerSlack} {
		found := ledger{}
		args := append(w.args[:len(w.args):len(w.args)], clickhouse.Named("oldest", clampMilli(from.Add(-slack))), clickhouse.Named("newest", clampMilli(to.Add(time.Hour))))
		var stored int64
		err := s.fillLedger(ctx, found, query, args, func(row *LedgerRow, n int64) {
			row.Stored += n
			stored += n
		})
		if err != nil {
			return err
		}
		if stored != expected && slack != ledgerSlack {
			continue
		}
		for k, v := range found {
			book.row(k.source, v.Hour).Stored += v.Stored
		}
		return nil
	}
	return nil
}

// Gap is a stretch of numbers of a collector that no message holds, or that two
// hold (Overlap).
type Gap struct {
	Collector       string
	Epoch, From, To int64 // numbers From to To, both included
	Overlap         bool
	Seq             uint64    // of the message after it
	Time            time.Time // when the bus stored that message
}

// Gaps lists breaks in the numbering of collectors, in messages stored since
// then, at most 1,000. Messages without rows number nothing.
func (s *Store) Gaps(ctx context.Context, r Reader, since time.Time) ([]Gap, error) {
	if err := r.read(viewLedger); err != nil {
		return nil, err
	}
	var w where
	w.add("rows > 0", "", nil)
	w.from("bus_time", "since", since)
	query := "SELECT collector_id, collector_epoch, next, first, seq, bus_time FROM" +
		" (SELECT collector_id, collector_epoch, first, seq, bus_time," +
		" lagInFrame(first + rows, 1, first) OVER (PARTITION BY collector_id, collector_epoch ORDER BY first, seq ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS next" +
		" FROM batches FINAL" + w.String() + ") WHERE next != first ORDER BY bus_time, collector_id, first LIMIT {limit:UInt64}"
	var list []Gap
	err := s.each(ctx, query, append(w.args, clickhouse.Named("limit", maxGaps)), func(rows driver.Rows) error {
		var g Gap
		var next, first int64
		if err := rows.Scan(&g.Collector, &g.Epoch, &next, &first, &g.Seq, &g.Time); err != nil {
			return err
		}
		if g.From, g.To = next, first-1; first < next {
			g.From, g.To, g.Overlap = first, next-1, true
		}
		list = append(list, g)
		return nil
	})
	return list, wrap("looking for gaps", err)
}

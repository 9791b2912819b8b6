package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/opencoc/coc/services/event"
)

// InsertEvents writes one cut of the stream: frames are the pieces of one Arrow
// stream as event.Splice returns them, in order; they are read only, and may be
// reused afterwards. rows is what the headers say, for the bounds.
//
// The same token with the same bytes again writes nothing a second time and
// gives the same count, for the last 10,000 tokens of the table: so a cut may
// be repeated when its outcome is not known. written is what ClickHouse counted;
// it accepts a stream that stops between two frames, so the caller compares.
//
// ErrData: the bytes are at fault, repeating them is useless, nothing of them
// is stored. ErrUnavailable, or an error of ctx: the outcome is unknown, repeat.
func (s *Store) InsertEvents(ctx context.Context, token string, frames [][]byte, rows int) (written int64, err error) {
	if token == "" {
		return 0, fmt.Errorf("inserting events: %w: no token, so a repetition would double them", ErrInvalid)
	}
	if rows < 0 || rows > maxBlockRows {
		return 0, fmt.Errorf("inserting events %s: %w: %d rows, at most %d fit one insert", token, ErrInvalid, rows, maxBlockRows)
	}
	if len(frames) == 0 {
		return 0, fmt.Errorf("inserting events %s: %w: no bytes", token, ErrData)
	}
	var sum summary
	ctx = clickhouse.Context(withSummary(ctx, &sum), clickhouse.WithSettings(insertSettings(token)))
	if err := s.conn.InsertFormat(ctx, "ArrowStream", "INSERT INTO events", readerOf(frames)); err != nil {
		return 0, wrapInsert(fmt.Sprintf("inserting %d events as %s", rows, token), err)
	}
	if !sum.known {
		return 0, fmt.Errorf("inserting events %s: ClickHouse did not say how many rows it wrote; is there a proxy before it that drops the header %s?", token, summaryHeader)
	}
	return sum.writtenRows, nil
}

// readerOf reads the frames one after the other.
func readerOf(frames [][]byte) io.Reader {
	readers := make([]io.Reader, len(frames))
	for i, f := range frames {
		readers[i] = bytes.NewReader(f)
	}
	return io.MultiReader(readers...)
}

// insertSettings make a cut one block, and so one part per partition.
func insertSettings(token string) clickhouse.Settings {
	return clickhouse.Settings{
		"insert_deduplication_token": token, "insert_deduplicate": 1, "async_insert": 0, "wait_end_of_query": 1,
		"min_insert_block_size_rows": maxBlockRows, "min_insert_block_size_bytes": maxBlockBytes,
		"max_insert_block_size": maxBlockRows, "max_insert_threads": 1,
		"input_format_skip_unknown_fields": 1, "input_format_arrow_case_insensitive_column_matching": 0,
	}
}

// wrapInsert says of a refused insert whether its bytes are at fault.
func wrapInsert(what string, err error) error {
	var ex *clickhouse.Exception
	if errors.As(err, &ex) && dataCodes[ex.Code] {
		return fmt.Errorf("%s: %w: %w", what, ErrData, &serverError{ex, said(ex)})
	}
	return wrap(what, err)
}

// BatchRow is one message of EVENTS, as its headers and the bus tell of it.
type BatchRow struct {
	Seq                       uint64
	BusTime                   time.Time // when the bus stored it
	Collector                 string
	Epoch, First, Rows, Bytes int64 // First: number of its first event; Bytes: as stored on the bus
	Mark                      time.Time
	Schema, Import            string
	Sources                   map[string]int64 // rows by source
	Refused                   map[string]int64 // refused since the message before, by "source:reason"
	Excluded                  bool             // it went to DEADLETTER instead of events
}

// InsertBatches records messages. Writing a row twice leaves one.
func (s *Store) InsertBatches(ctx context.Context, rows []BatchRow) error {
	const into = "INSERT INTO batches (seq, bus_time, collector_id, collector_epoch, first, rows, bytes, mark, schema, import, sources, refused, excluded)"
	return insertRows(ctx, s, into, rows, func(b driver.Batch, r *BatchRow) error {
		return b.Append(r.Seq, r.BusTime, r.Collector, r.Epoch, r.First, r.Rows, r.Bytes, r.Mark, r.Schema, r.Import, notNil(r.Sources), notNil(r.Refused), r.Excluded)
	})
}

// FindingRow is a revision of a finding, and the FINDINGS message it came in.
type FindingRow struct {
	event.Finding
	Seq uint64
}

// InsertFindings writes revisions; of one id the highest counts. Writing one
// twice is harmless.
func (s *Store) InsertFindings(ctx context.Context, rows []FindingRow) error {
	const into = `INSERT INTO findings (id, rule, logic, title, class, severity, status, lane, cell_from, cell_to, key, tenant,
		terms_expr, terms_value, window_from, window_to, how, fired, fired_by, first_seen, last_seen, count, revision,
		evidence, continues, import, withdrawn, approximate, seq)`
	return insertRows(ctx, s, into, rows, func(b driver.Batch, r *FindingRow) error {
		if r.Revision < 0 || r.Lane < 0 || r.Lane > 255 {
			return fmt.Errorf("%w: finding %s has revision %d and lane %d", ErrData, r.ID, r.Revision, r.Lane)
		}
		exprs, values := make([]string, len(r.Terms)), make([]float64, len(r.Terms))
		for i, t := range r.Terms {
			exprs[i], values[i] = t.Expr, t.Value
		}
		return b.Append(r.ID, r.Rule, r.Logic, r.Title, r.Class, r.Severity, r.Status, uint8(r.Lane),
			moment(r.Cell.From), moment(r.Cell.To), notNil(r.Key), r.Tenant, exprs, values,
			moment(r.Window.From), moment(r.Window.To), r.How, moment(r.Fired), r.FiredBy, moment(r.FirstSeen), moment(r.LastSeen),
			r.Count, uint64(r.Revision), noNil(r.Evidence), r.Continues, r.Import, r.Withdrawn, r.Approximate, r.Seq)
	})
}

// Identity is a person's name, sealed, under the hash that stands for it.
type Identity struct {
	Tenant, Hash        string
	Sealed              []byte
	Key                 string // id of the key that sealed it
	FirstSeen, LastSeen time.Time
	Revision            uint64 // sequence of the message that brought it; the highest counts
}

// InsertIdentities writes sealed names. Writing one twice is harmless.
func (s *Store) InsertIdentities(ctx context.Context, rows []Identity) error {
	const into = "INSERT INTO identities (tenant_id, user_hash, sealed, key_id, first_seen, last_seen, revision)"
	return insertRows(ctx, s, into, rows, func(b driver.Batch, r *Identity) error {
		return b.Append(r.Tenant, r.Hash, string(r.Sealed), r.Key, r.FirstSeen, r.LastSeen, r.Revision)
	})
}

// WorkRow is one change on the stream WORK.
type WorkRow struct {
	Kind, ID            string
	Seq                 uint64
	Time                time.Time
	Actor, Role, Reason string
	Data                string // the new state, JSON
	Hash, Previous      string // of this record and of the one before it
}

// InsertWork records changes. Writing one twice is harmless.
func (s *Store) InsertWork(ctx context.Context, rows []WorkRow) error {
	const into = "INSERT INTO work (kind, id, seq, time, actor, role, reason, data, hash, previous)"
	return insertRows(ctx, s, into, rows, func(b driver.Batch, r *WorkRow) error {
		return b.Append(r.Kind, r.ID, r.Seq, r.Time, r.Actor, r.Role, r.Reason, r.Data, r.Hash, r.Previous)
	})
}

// insertRows writes rows in blocks of at most maxInsertRows.
func insertRows[T any](ctx context.Context, s *Store, into string, rows []T, add func(driver.Batch, *T) error) error {
	for len(rows) > 0 {
		n := min(len(rows), maxInsertRows)
		if err := insertBlock(ctx, s, into, rows[:n], add); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}

func insertBlock[T any](ctx context.Context, s *Store, into string, rows []T, add func(driver.Batch, *T) error) (err error) {
	what := fmt.Sprintf("%d rows: %.40s…", len(rows), into)
	ctx = clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{"async_insert": 0, "wait_end_of_query": 1}))
	batch, err := s.conn.PrepareBatch(ctx, into)
	if err != nil {
		return wrap(what, err)
	}
	for i := range rows {
		if err := add(batch, &rows[i]); err != nil {
			return errors.Join(wrap(what, fmt.Errorf("%w: row %d: %w", ErrData, i, err)), batch.Close())
		}
	}
	if err := batch.Send(); err != nil {
		return wrapInsert(what, err)
	}
	return nil
}

// moment is a finding's time as the driver takes it.
func moment(s event.Stamp) time.Time { return time.UnixMilli(int64(s)).UTC() }

func notNil[V any](m map[string]V) map[string]V {
	if m == nil {
		return map[string]V{}
	}
	return m
}

func noNil(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

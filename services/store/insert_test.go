package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/opencoc/coc/services/event"
)

// day0 is where the tests' events lie.
var day0 = time.Date(2026, 3, 10, 9, 0, 0, 0, time.UTC)

// encode makes one message of events.
func encode(t testing.TB, events ...event.Event) []byte {
	t.Helper()
	b := event.NewBuilder()
	for i := range events {
		if err := b.Append(&events[i]); err != nil {
			t.Fatal(err)
		}
	}
	msg, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return append([]byte(nil), msg...)
}

// put stores events of a collector as one cut.
func put(t testing.TB, token string, events ...event.Event) {
	t.Helper()
	frames, rows, err := event.Splice([][]byte{encode(t, events...)})
	if err != nil {
		t.Fatal(err)
	}
	written, err := house.InsertEvents(t.Context(), token, frames, rows)
	if err != nil {
		t.Fatal(err)
	}
	if written != int64(len(events)) {
		t.Fatalf("wrote %d of %d rows", written, len(events))
	}
}

func scalar[T any](t testing.TB, query string, args ...any) T {
	t.Helper()
	var v T
	if err := house.conn.QueryRow(t.Context(), query, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return v
}

func TestATokenWritesItsRowsOnce(t *testing.T) {
	var events []event.Event
	for i := range 100 {
		e := event.Event{
			Time: day0.Add(time.Duration(i) * time.Second).UnixMilli(), Received: day0.AddDate(0, 0, i%3).UnixMilli(),
			Kind: "user", Action: "login", Collector: "token", Epoch: 1, Seq: int64(i + 1), TenantID: fmt.Sprint("t", i%7),
			Message: "DROP TABLE events;\n\n; SELECT 1",
		}
		e.SetDuration(float64(i))
		e.SetLabel("k", "v")
		events = append(events, e)
	}
	for range 3 {
		put(t, "token-1", events...)
	}
	if n := scalar[uint64](t, "SELECT count() FROM events WHERE collector_id = 'token'"); n != 100 {
		t.Errorf("100 rows under one token, three times over three days: %d rows stored", n)
	}
	if id := scalar[string](t, "SELECT id FROM events WHERE collector_id = 'token' AND collector_seq = 7"); id != "token-1-7" {
		t.Errorf("id is %q", id)
	}
	put(t, "token-2", events...)
	if n := scalar[uint64](t, "SELECT count() FROM events WHERE collector_id = 'token'"); n != 200 {
		t.Errorf("another token is another insert, yet %d rows are stored", n)
	}
}

// mixed gives n events of a collector with dictionaries that differ from
// message to message, nulls, maps and long texts.
func mixed(collector string, first int64, n int) []event.Event {
	list := make([]event.Event, n)
	for i := range list {
		seq := first + int64(i)
		e := event.Event{
			Time: day0.UnixMilli() + 10*seq, Received: day0.UnixMilli() + seq, Kind: "user", Action: fmt.Sprint("a", seq%97), Outcome: []string{"success", "failure", ""}[seq%3],
			Message: fmt.Sprintf("line %d \n\n; \x00 %d", seq, seq*seq), Source: "s", Collector: collector, Epoch: 1, Seq: seq,
			TenantID: fmt.Sprint("t", seq%31), UserHash: fmt.Sprint("u", seq%1999), SourceIP: fmt.Sprintf("192.0.2.%d", seq%251), ServiceName: fmt.Sprint("svc", seq/1000),
		}
		if seq%2 == 0 {
			e.SetDuration(float64(seq) / 3)
			e.SetBytes(-seq)
		}
		if seq%5 == 0 {
			e.SetPID(seq)
			e.SetValue(math.Copysign(0, -1))
			e.SetLabel(fmt.Sprint("k", seq%7), fmt.Sprint(seq))
		}
		list[i] = e
	}
	return list
}

// checksum is over every column of a collector's events, by number.
func checksum(t testing.TB, collector string) string {
	t.Helper()
	return scalar[string](t, "SELECT toString(groupBitXor(cityHash64(toString(tuple(* EXCEPT (collector_id, id)))))) || '/' || toString(count()) || '/' || toString(sum(collector_seq)) FROM events WHERE collector_id = {c:String}",
		clickhouse.Named("c", collector))
}

func TestSplicedMessagesAreTheRowsOfTheirMessages(t *testing.T) {
	events := mixed("spliced", 1, 5000)
	var messages [][]byte
	for rest, size := events, 1; len(rest) > 0; size = size*3 + 1 {
		n := min(size, len(rest))
		messages = append(messages, encode(t, rest[:n]...))
		rest = rest[n:]
	}
	frames, rows, err := event.Splice(messages)
	if err != nil || rows != len(events) {
		t.Fatal(rows, err)
	}
	if n, err := house.InsertEvents(t.Context(), "spliced", frames, rows); err != nil || n != 5000 {
		t.Fatalf("wrote %d of %d: %v", n, rows, err)
	}
	// The same events one message at a time, by other inserts.
	single := mixed("single", 1, 5000)
	for i := 0; i < len(single); i += 1250 {
		put(t, fmt.Sprint("single-", i), single[i:i+1250]...)
	}
	if a, b := checksum(t, "spliced"), checksum(t, "single"); a != b {
		t.Errorf("%d messages spliced give %s, one by one %s", len(messages), a, b)
	}
}

func TestBadBytesAreDataErrorsAndStoreNothing(t *testing.T) {
	first, second := encode(t, mixed("bad", 1, 300)...), encode(t, mixed("bad", 301, 300)...)
	frames, rows, err := event.Splice([][]byte{first, second})
	if err != nil {
		t.Fatal(err)
	}
	refused := func(name string, frames [][]byte) {
		t.Helper()
		if n, err := house.InsertEvents(t.Context(), "bad-"+name, frames, rows); !errors.Is(err, ErrData) {
			t.Errorf("%s: wrote %d, %v", name, n, err)
		}
	}
	flipped := append([]byte(nil), frames[0]...)
	for i := len(flipped) / 2; i < len(flipped)/2+64; i++ {
		flipped[i] ^= 0xff
	}
	refused("nothing", nil)
	refused("rubbish", [][]byte{[]byte("SELECT 1; DROP TABLE events")})
	refused("torn", [][]byte{frames[0][:len(frames[0])-100]})
	refused("flipped", [][]byte{flipped, frames[1], frames[2]})
	if n := scalar[uint64](t, "SELECT count() FROM events WHERE collector_id = 'bad'"); n != 0 {
		t.Errorf("%d rows of refused inserts are stored", n)
	}
	// ClickHouse takes a stream that ends between two frames: the count tells.
	if n, err := house.InsertEvents(t.Context(), "bad-short", frames[:1], rows); err != nil || n != 300 {
		t.Errorf("a stream without its second message: wrote %d, %v", n, err)
	}
	// After refusals the store works on.
	put(t, "bad-after", mixed("bad-after", 1, 10)...)
	for _, bad := range []struct {
		token string
		rows  int
	}{{"", 1}, {"t", -1}, {"t", maxBlockRows + 1}} {
		if _, err := house.InsertEvents(t.Context(), bad.token, frames, bad.rows); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v gives %v", bad, err)
		}
	}
}

// An insert whose time is over may or may not be stored: repeated, it is there once.
func TestAnInsertThatIsBrokenOffCanBeRepeated(t *testing.T) {
	var messages [][]byte
	for i := range 20 {
		messages = append(messages, encode(t, mixed("broken", int64(i*2000+1), 2000)...))
	}
	frames, rows, err := event.Splice(messages)
	if err != nil {
		t.Fatal(err)
	}
	stopped := 0
	for _, after := range []time.Duration{0, time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond, 30 * time.Millisecond, 40 * time.Millisecond} {
		ctx, cancel := context.WithTimeout(t.Context(), after)
		_, err := house.InsertEvents(ctx, "broken", frames, rows)
		cancel()
		if err != nil {
			stopped++
			if errors.Is(err, ErrData) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("after %s it gives %v", after, err)
			}
		}
	}
	if stopped == 0 {
		t.Error("no insert was broken off")
	}
	if n, err := house.InsertEvents(t.Context(), "broken", frames, rows); err != nil || n != int64(rows) {
		t.Errorf("at last: wrote %d of %d, %v", n, rows, err)
	}
	if n := scalar[uint64](t, "SELECT count() FROM events WHERE collector_id = 'broken'"); n != uint64(rows) {
		t.Errorf("%d of %d rows are stored", n, rows)
	}
}

// Were an insert ever cut into several blocks, its token must still hold.
func TestATokenHoldsOverSeveralBlocks(t *testing.T) {
	frames, rows, err := event.Splice([][]byte{encode(t, mixed("blocks", 1, 1000)...), encode(t, mixed("blocks", 1001, 1000)...), encode(t, mixed("blocks", 2001, 1000)...)})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		settings := insertSettings("blocks")
		settings["min_insert_block_size_rows"], settings["min_insert_block_size_bytes"], settings["max_insert_block_size"] = 500, 0, 500
		var sum summary
		ctx := clickhouse.Context(withSummary(t.Context(), &sum), clickhouse.WithSettings(settings))
		if err := house.conn.InsertFormat(ctx, "ArrowStream", "INSERT INTO events", readerOf(frames)); err != nil || sum.writtenRows != int64(rows) {
			t.Fatal(sum, err)
		}
	}
	if n := scalar[uint64](t, "SELECT count() FROM events WHERE collector_id = 'blocks'"); n != 3000 {
		t.Errorf("%d of 3000 rows are stored", n)
	}
	if n := scalar[uint64](t, "SELECT uniq(_part) FROM events WHERE collector_id = 'blocks'"); n == 0 {
		t.Error("no part")
	}
}

func TestNothingStoredIsLostByKillMinusNine(t *testing.T) {
	dir := t.TempDir()
	out := again(t, "killed", dir)
	if out != "stored\n" {
		t.Fatalf("the process that was killed said %q", out)
	}
	if out := again(t, "count", dir); out != "2000 <nil>\n" {
		t.Errorf("after kill -9 there are %s of 2000 rows", out)
	}
}

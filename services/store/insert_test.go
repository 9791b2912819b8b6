package store

import (
	"fmt"
	"testing"
	"time"

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

package store

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/opencoc/coc/services/event"
)

// numbered stores count events of a collector, numbered from first, and gives
// the row of their message.
func numbered(t testing.TB, collector string, first, count int64, source string, received, bus time.Time, seq uint64) BatchRow {
	t.Helper()
	var events []event.Event
	for i := range count {
		events = append(events, event.Event{Time: received.UnixMilli(), Received: received.UnixMilli(), Kind: "system", Action: "ledger", Source: source, Collector: collector, Epoch: 1, Seq: first + i})
	}
	put(t, fmt.Sprint(collector, first, "-", seq), events...)
	return BatchRow{Seq: seq, BusTime: bus, Collector: collector, Epoch: 1, First: first, Rows: count, Bytes: 100, Mark: received, Schema: "1", Sources: map[string]int64{source: count}}
}

func TestTheLedgerBalancesBySourceAndHour(t *testing.T) {
	hour := time.Date(2025, 9, 1, 10, 0, 0, 0, time.UTC)
	rows := []BatchRow{
		numbered(t, "led", 1, 5, "http", hour.Add(59*time.Minute), hour.Add(59*time.Minute), 1),
		// Received before the hour, on the bus after it: it belongs to the bus's hour.
		numbered(t, "led", 6, 3, "http", hour.Add(59*time.Minute), hour.Add(time.Hour), 2),
		// From the spool, days later.
		numbered(t, "led2", 1, 4, "journal", hour.Add(-5*24*time.Hour), hour.Add(time.Minute), 3),
		{Seq: 4, BusTime: hour.Add(2 * time.Minute), Collector: "led2", Epoch: 1, First: 5, Rows: 2, Sources: map[string]int64{"journal": 2}, Excluded: true},
		{Seq: 5, BusTime: hour.Add(3 * time.Minute), Collector: "led2", Epoch: 1, First: 7, Refused: map[string]int64{"a:b:too_old": 3, "http:bad_json": 1}},
		// On the bus, but never stored.
		{Seq: 6, BusTime: hour.Add(4 * time.Minute), Collector: "led3", Epoch: 1, First: 1, Rows: 7, Sources: map[string]int64{"lost": 7}},
	}
	for range 2 {
		if err := house.InsertBatches(t.Context(), rows); err != nil {
			t.Fatal(err)
		}
	}
	got, err := house.Ledger(t.Context(), Reader{Role: RoleOperator}, hour, hour.Add(61*time.Minute), []LedgerExtra{
		{Source: "http", Hour: hour.Add(time.Hour), Received: 10, Waiting: 9, DeadLettered: 1}, {Source: "http", Hour: hour.Add(-time.Hour), Received: 1},
	})
	want := []LedgerRow{
		{Source: "a:b", Hour: hour, Received: 3, Refused: 3},
		{Source: "http", Hour: hour, Received: 6, Stored: 5, Refused: 1},
		{Source: "journal", Hour: hour, Received: 6, Stored: 4, DeadLettered: 2},
		{Source: "lost", Hour: hour, Received: 7, Difference: 7},
		{Source: "http", Hour: hour.Add(time.Hour), Received: 13, Stored: 3, Waiting: 9, DeadLettered: 1},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("the ledger is\n%+v, %v\nwanted\n%+v", got, err, want)
	}
}

// A row that goes missing from ClickHouse after it was stored, or comes to be
// there twice, is a difference of its source and hour.
func TestALostOrDoubledRowIsSeen(t *testing.T) {
	hour := time.Date(2025, 9, 3, 10, 0, 0, 0, time.UTC)
	row := numbered(t, "loss", 1, 5, "http", hour.Add(time.Minute), hour.Add(time.Minute), 201)
	if err := house.InsertBatches(t.Context(), []BatchRow{row}); err != nil {
		t.Fatal(err)
	}
	hold := func(when string, stored int64) {
		t.Helper()
		got, err := house.Ledger(t.Context(), admin, hour, hour.Add(time.Hour), nil)
		want := []LedgerRow{{Source: "http", Hour: hour, Received: 5, Stored: stored, Difference: 5 - stored}}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s the ledger is\n%+v, %v\nwanted\n%+v", when, got, err, want)
		}
	}
	hold("when all is there", 5)
	sync := clickhouse.Context(t.Context(), clickhouse.WithSettings(clickhouse.Settings{"mutations_sync": 2}))
	if err := house.conn.Exec(sync, "ALTER TABLE events DELETE WHERE collector_id = 'loss' AND collector_seq = 3"); err != nil {
		t.Fatal(err)
	}
	hold("with one row lost", 4)
	again := event.Event{Time: hour.UnixMilli(), Received: hour.Add(time.Minute).UnixMilli(), Kind: "system", Action: "ledger", Source: "http", Collector: "loss", Epoch: 1}
	three, four := again, again
	three.Seq, four.Seq = 3, 4
	put(t, "loss again", three, four)
	hold("with one row twice", 6)
}

func TestGapsInTheNumberingAreFound(t *testing.T) {
	bus := time.Date(2025, 9, 5, 10, 0, 0, 0, time.UTC)
	row := func(collector string, epoch, first, rows int64, seq uint64) BatchRow {
		return BatchRow{Seq: seq, BusTime: bus.Add(time.Duration(seq) * time.Second), Collector: collector, Epoch: epoch, First: first, Rows: rows}
	}
	err := house.InsertBatches(t.Context(), []BatchRow{
		row("gap", 1, 1, 10, 101), row("gap", 1, 11, 0, 102), row("gap", 1, 11, 5, 103), row("gap", 1, 20, 5, 104), row("gap", 1, 24, 2, 105), row("gap", 2, 1, 3, 106), row("gap", 2, 4, 1, 107),
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := house.Gaps(t.Context(), admin, bus)
	var mine []Gap
	for _, g := range got {
		if g.Collector == "gap" {
			mine = append(mine, g)
		}
	}
	want := []Gap{
		{Collector: "gap", Epoch: 1, From: 16, To: 19, Seq: 104, Time: bus.Add(104 * time.Second)},
		{Collector: "gap", Epoch: 1, From: 24, To: 24, Overlap: true, Seq: 105, Time: bus.Add(105 * time.Second)},
	}
	if err != nil || !reflect.DeepEqual(mine, want) {
		t.Errorf("the gaps are\n%+v, %v\nwanted\n%+v", mine, err, want)
	}
}

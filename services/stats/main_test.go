package stats

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencoc/coc/services/bus"
	"github.com/opencoc/coc/services/event"
	"github.com/opencoc/coc/services/store"
)

// house is the real bus and engine of the package's tests: a process can have
// one engine. Tests keep apart by month, and each has its own clock.
var house struct {
	bus   *bus.Bus
	store *store.Store
	zone  *time.Location
	seq   int64
}

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "coc-stats-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	library := os.Getenv("COC_LIBCHDB")
	if library == "" {
		library, _ = filepath.Abs("../../bin/libchdb.so")
	}
	if house.zone, err = time.LoadLocation("Europe/Amsterdam"); err == nil {
		house.bus, err = bus.Open(ctx, bus.Config{StoreDir: filepath.Join(dir, "nats")})
	}
	if err == nil {
		house.store, err = store.Open(ctx, store.Config{Dir: filepath.Join(dir, "clickhouse"), Library: library, Zone: house.zone})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "the tests of stats need the real bus and engine:", err)
		return 1
	}
	code := m.Run()
	for _, err := range []error{house.store.Close(), house.bus.Close(ctx)} {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	return code
}

// insert stores events as the sink does, received at the time given.
func insert(t testing.TB, received time.Time, events []event.Event) {
	t.Helper()
	for len(events) > 0 {
		b := event.NewBuilder()
		for len(events) > 0 && !b.Full(2000) {
			e := &events[0]
			house.seq++
			e.Collector, e.Epoch, e.Seq, e.Received = "stats", 1, house.seq, received.UnixMilli()
			if err := b.Append(e); err != nil {
				t.Fatal(err)
			}
			events = events[1:]
		}
		msg, err := b.Encode()
		if err != nil {
			t.Fatal(err)
		}
		frames, rows, err := event.Splice([][]byte{msg})
		if err != nil {
			t.Fatal(err)
		}
		written, err := house.store.InsertEvents(t.Context(), fmt.Sprint("stats:", house.seq), frames, rows)
		if err != nil || written != int64(rows) {
			t.Fatal(written, rows, err)
		}
	}
}

// newStats is one process' statistics, at a moment.
func newStats(t testing.TB, at time.Time, change func(*Config)) *Stats {
	t.Helper()
	c := Config{Store: house.store, Zone: house.zone, Quiet: -1, Now: func() time.Time { return at }}
	if change != nil {
		change(&c)
	}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func pass(t testing.TB, s *Stats) {
	t.Helper()
	if err := s.Pass(t.Context()); err != nil {
		t.Fatal(err)
	}
}

var admin = store.Reader{Role: store.RoleAdministrator}

func usage(t testing.TB, day store.Day) store.UsageReport {
	t.Helper()
	r, err := house.store.Usage(t.Context(), admin, day, day)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func local(year int, month time.Month, day, hour int) time.Time {
	return time.Date(year, month, day, hour, 0, 0, 0, house.zone)
}

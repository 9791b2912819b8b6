package sink

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencoc/coc/services/bus"
	"github.com/opencoc/coc/services/event"
	"github.com/opencoc/coc/services/store"
)

// The tests run on the real embedded NATS and the real embedded ClickHouse.
// Each has its own bus and its own database: tokens name sequences, and those
// begin at 1 in every bus.

var databases atomic.Int64

func openStore(t testing.TB) *store.Store {
	t.Helper()
	library := os.Getenv("COC_LIBCHDB")
	if library == "" {
		library, _ = filepath.Abs("../../bin/libchdb.so")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, err := store.Open(ctx, store.Config{Dir: engineDir, Library: library, Database: fmt.Sprintf("sink_%d", databases.Add(1)), Log: testLog(t)})
	if err != nil {
		t.Fatalf("the tests of sink need the real engine: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

var engineDir string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "coc-sink-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer func() { _ = os.RemoveAll(dir) }()
		engineDir = dir
		return m.Run()
	}())
}

const houseSecret = "secret of the test"

func openBus(t testing.TB) *bus.Bus {
	t.Helper()
	const mib = 1 << 20
	b, err := bus.Open(t.Context(), bus.Config{StoreDir: t.TempDir(), Listen: "127.0.0.1:0", Secret: houseSecret, Name: "test", Log: testLog(t), EventsBytes: 256 * mib, FindingsBytes: 16 * mib,
		IntakeBytes: 16 * mib, DeadLetterBytes: 16 * mib, WorkBytes: 16 * mib, AuditBytes: 16 * mib, StateBytes: 16 * mib})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return b
}

func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// faulty is the real store with faults put before and after its inserts.
type faulty struct {
	*store.Store
	mu            sync.Mutex
	before, after func(what string) error
	tokens        []string
}

func (f *faulty) around(what string, do func() error) error {
	f.mu.Lock()
	before, after := f.before, f.after
	f.mu.Unlock()
	if before != nil {
		if err := before(what); err != nil {
			return err
		}
	}
	if err := do(); err != nil {
		return err
	}
	if after != nil {
		return after(what)
	}
	return nil
}

func (f *faulty) set(before, after func(string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before, f.after = before, after
}

func (f *faulty) InsertEvents(ctx context.Context, token string, frames [][]byte, rows int) (n int64, err error) {
	f.mu.Lock()
	f.tokens = append(f.tokens, token)
	f.mu.Unlock()
	err = f.around("events", func() (err error) { n, err = f.Store.InsertEvents(ctx, token, frames, rows); return err })
	return n, err
}

func (f *faulty) InsertBatches(ctx context.Context, rows []store.BatchRow) error {
	return f.around("batches", func() error { return f.Store.InsertBatches(ctx, rows) })
}

func (f *faulty) InsertFindings(ctx context.Context, rows []store.FindingRow) error {
	return f.around("findings", func() error { return f.Store.InsertFindings(ctx, rows) })
}

// house is a bus, a store and what is sent.
type house struct {
	t     testing.TB
	bus   *bus.Bus
	store *faulty
	p     *bus.Publisher
	sent  int64 // events
}

func newHouse(t testing.TB) *house {
	t.Helper()
	h := &house{t: t, bus: openBus(t), store: &faulty{Store: openStore(t)}}
	var err error
	if h.p, err = h.bus.NewPublisher(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	return h
}

// message encodes n events numbered from the publisher's next.
func (h *house) message(n int) []byte {
	h.t.Helper()
	b := event.NewBuilder()
	now := h.bus.Now().UnixMilli()
	for i := range n {
		seq := h.p.Next() + int64(i)
		// Received over three days: three partitions an insert, under one token.
		e := event.Event{Time: now, Received: now - seq%3*24*3_600_000, Kind: "user", Action: "window_opened", Outcome: "success", Source: "http",
			Collector: "c", Epoch: h.p.Epoch(), Seq: seq, TenantID: fmt.Sprintf("t%d", seq%7), UserName: "PLANTED name",
			UserHash: "h", ResourceName: "window", Duration: float64(seq), Has: event.HasDuration}
		if err := b.Append(&e); err != nil {
			h.t.Fatal(err)
		}
	}
	data, err := b.Encode()
	if err != nil {
		h.t.Fatal(err)
	}
	return data
}

// send publishes one message of n events; 0 is a heartbeat.
func (h *house) send(n int) {
	h.t.Helper()
	var data []byte
	if n > 0 {
		data = h.message(n)
	}
	h.sendBytes(int64(n), data)
	h.sent += int64(n)
}

func (h *house) sendBytes(rows int64, data []byte) {
	h.t.Helper()
	m := bus.Meta{Epoch: h.p.Epoch(), First: h.p.Next(), Rows: rows, Bytes: 100 * rows, Schema: 1, Mark: h.bus.Now().UnixMilli(), Sources: map[string]int64{"http": rows}}
	if _, err := h.p.Publish(h.t.Context(), m, data); err != nil {
		h.t.Fatal(err)
	}
}

// publishRaw publishes as a client of NATS that knows nothing of the bus does.
func (h *house) publishRaw(subject string, data []byte) {
	h.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(h.bus.ClientURL(), "nats://"))
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, err = fmt.Fprintf(conn, "CONNECT {\"verbose\":false,\"auth_token\":%q}\r\nPUB %s %d\r\n%s\r\nPING\r\n", houseSecret, subject, len(data), data)
	if err != nil {
		h.t.Fatal(err)
	}
	for lines := bufio.NewScanner(conn); lines.Scan(); { // INFO, then PONG when it is taken
		if lines.Text() == "PONG" {
			return
		}
		if strings.HasPrefix(lines.Text(), "-ERR") {
			h.t.Fatal(lines.Text())
		}
	}
	h.t.Fatal("the server closed the connection")
}

// start runs a sink until stop is called; stop returns what Run did.
func (h *house) start() (s *Sink, stop func() error) {
	h.t.Helper()
	s, err := New(Config{Bus: h.bus, Store: h.store, Log: testLog(h.t)})
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(h.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	var once sync.Once
	var result error
	stop = func() error {
		once.Do(func() { cancel(); result = <-ended })
		return result
	}
	h.t.Cleanup(func() { _ = stop() })
	return s, stop
}

// stored waits until the sink is through all of EVENTS and stops it.
func (h *house) stored() *Sink {
	h.t.Helper()
	s, stop := h.start()
	h.through(s)
	if err := stop(); err != nil {
		h.t.Fatal(err)
	}
	return s
}

func (h *house) through(s *Sink) {
	h.t.Helper()
	last, err := h.bus.LastEvent(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	eventually(h.t, "the sink is through", func() bool { return s.Through() >= last })
}

// exact checks that every number sent is in the table once.
func (h *house) exact() {
	h.t.Helper()
	n := h.p.Next() - 1
	if got := h.ask("SELECT count(), uniqExact(collector_seq), sum(collector_seq), sum(duration) FROM events"); got != fmt.Sprintf("%d %d %d %d", n, n, n*(n+1)/2, n*(n+1)/2) {
		h.t.Errorf("events are %s, sent were %d", got, n)
	}
}

// ask runs a query of one row and returns its values.
func (h *house) ask(query string) string {
	h.t.Helper()
	var out []string
	_, err := h.store.SQL(h.t.Context(), store.Reader{Role: store.RoleAdministrator, Token: "test"}, query, 1, func(_ []store.Column, row []any) error {
		for _, v := range row {
			if n, ok := v.(json.Number); ok {
				v = strings.TrimSuffix(n.String(), ".0")
			}
			out = append(out, fmt.Sprint(v))
		}
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return strings.Join(out, " ")
}

func (h *house) deadLetters() (list []bus.DeadLetter) {
	h.t.Helper()
	r, err := h.bus.DeadLetters(h.t.Context(), 0)
	if err != nil {
		h.t.Fatal(err)
	}
	defer r.Close()
	for r.Pending() > 0 {
		ctx, cancel := context.WithTimeout(h.t.Context(), 10*time.Second)
		m, err := r.Next(ctx)
		cancel()
		if err != nil {
			h.t.Fatal(err)
		}
		d, err := bus.ParseDeadLetter(m)
		if err != nil {
			h.t.Fatal(err)
		}
		list = append(list, d)
	}
	return list
}

// eventually waits for a condition, at most 30 s.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	end := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(end) {
			t.Fatalf("not within 30 s: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

var errFault = errors.New("fault put in by the test")

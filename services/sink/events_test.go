package sink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/opencoc/coc/services/bus"
	"github.com/opencoc/coc/services/store"
)

func TestEverythingArrivesOnce(t *testing.T) {
	h := newHouse(t)
	for i := range 40 { // large, small, heartbeats and the clock in turn
		switch i % 4 {
		case 0:
			h.send(2000)
		case 1, 2:
			h.send(7)
		default:
			h.send(0)
			if _, err := h.bus.PublishControl(t.Context(), bus.Meta{Control: bus.ControlTick, Time: h.bus.Now().UnixMilli()}); err != nil {
				t.Fatal(err)
			}
		}
	}
	s := h.stored()
	h.exact()
	if got, want := h.ask("SELECT count(), sum(rows), sum(sources['http']), countIf(excluded) FROM batches FINAL"), fmt.Sprintf("40 %d %d 0", h.sent, h.sent); got != want {
		t.Errorf("batches are %s, want %s", got, want)
	}
	if n, err := h.bus.LastNumbers(t.Context(), "c"); err != nil || n.Last != h.sent {
		t.Errorf("numbers %+v, want %d: %v", n, h.sent, err)
	}
	st := s.Status()
	if st.State != stopped || st.Events.Rows != h.sent || st.Events.Error != "" || st.Events.Through != 50 || st.Events.Messages != 50 {
		t.Errorf("status %+v", st)
	}
	// And what comes later, to the next sink.
	h.send(100)
	h.stored()
	h.exact()
}

// A sink that falls at any step of a cut leaves a cut that the next one ends.
func TestFallAtAnyStepStoresEachEventOnce(t *testing.T) {
	for _, step := range []string{"before events", "after events", "before batches", "after batches"} {
		t.Run(step, func(t *testing.T) {
			h := newHouse(t)
			for range 5 {
				h.send(1000)
				h.send(3)
			}
			s, stop := h.start()
			fallen := make(chan struct{})
			when, what, _ := strings.Cut(step, " ")
			var once atomic.Bool
			fault := func(w string) error {
				if w != what {
					return nil
				}
				if once.CompareAndSwap(false, true) {
					close(fallen)
				}
				return fmt.Errorf("%w: %w", store.ErrUnavailable, errFault)
			}
			if when == "before" {
				h.store.set(fault, nil)
			} else {
				h.store.set(nil, fault)
			}
			<-fallen
			h.send(50) // what comes meanwhile must not get into the repeated cut
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			if s.Through() != 0 {
				t.Fatalf("through %d in spite of the fall", s.Through())
			}
			cut, err := h.bus.LoadCut(t.Context(), bus.CutEvents)
			if err != nil || !cut.Open() {
				t.Fatalf("no open cut is recorded: %+v, %v", cut, err)
			}
			h.store.set(nil, nil)
			tokens := len(h.store.tokens)
			h.stored()
			h.exact()
			if want := fmt.Sprintf("events:%d-%d", cut.First, cut.Last); h.store.tokens[tokens] != want {
				t.Errorf("the next sink begins with %s, want the open cut %s", h.store.tokens[tokens], want)
			}
			if got := h.ask("SELECT count() FROM batches FINAL"); got != "11" {
				t.Errorf("%s batches", got)
			}
		})
	}
}

// Messages that cannot be stored go to the dead letters, the others arrive.
func TestPoisonIsFoundAmongGoodMessages(t *testing.T) {
	h := newHouse(t)
	var poison []uint64
	send := func(kind string) {
		data := h.message(600)
		switch kind {
		case "truncated":
			data = data[:len(data)/2]
		case "rows":
			h.sendBytes(601, data)
			return
		case "damaged": // frames and rows are right, the packed bytes are not
			clear(data[len(data)-400 : len(data)-100])
		case "garbage":
			data = bytes.Repeat([]byte("garbage"), 100)
		}
		h.sendBytes(600, data)
	}
	for i, kind := range []string{"", "truncated", "", "", "damaged", "", "rows", "", "", "garbage", "damaged", ""} {
		send(kind)
		if kind != "" {
			poison = append(poison, uint64(i+1))
		}
	}
	s := h.stored()
	if got := h.ask("SELECT count(), uniqExact(collector_seq) FROM events"); got != "4200 4200" {
		t.Errorf("events: %s, want 7 good messages of 600", got)
	}
	if got := h.ask("SELECT count(), sumIf(rows, excluded), countIf(excluded) FROM batches FINAL"); got != "12 3001 5" {
		t.Errorf("batches: %s", got)
	}
	var seqs []uint64
	for _, d := range h.deadLetters() {
		seqs = append(seqs, d.Seq)
		if d.From != "sink" || d.Source != "c" || d.Reason == "" || d.Detail == "" || len(d.Data) == 0 {
			t.Errorf("dead letter %+v", d)
		}
		if d.Reason == "rows_differ" && bytes.Contains(d.Data, []byte("PLANTED")) {
			t.Error("a dead letter keeps the name of a person")
		}
	}
	slices.Sort(seqs)
	if !slices.Equal(seqs, poison) {
		t.Errorf("dead letters of %v, want %v", seqs, poison)
	}
	if st := s.Status(); st.Events.DeadLettered != int64(len(poison)) || st.Events.Through != 12 {
		t.Errorf("status %+v", st.Events)
	}
}

// Whoever has the right to publish may publish anything: it stops nothing.
func TestForeignMessagesDoNotStopTheSink(t *testing.T) {
	h := newHouse(t)
	h.send(10)
	h.publishRaw("coc.events.a.b", []byte("no headers"))
	h.publishRaw("coc.events._other", nil)
	h.publishRaw("coc.events.d", h.message(5)) // events without a header that says so
	h.publishRaw("coc.events.big", bytes.Repeat([]byte("x"), 1000<<10))
	h.publishRaw("coc.events.e", nil)
	h.send(10)
	h.stored()
	h.exact()
	var reasons []string
	for _, d := range h.deadLetters() {
		reasons = append(reasons, d.Reason)
	}
	slices.Sort(reasons)
	if got := fmt.Sprint(reasons); got != "[bad_message bad_subject rows_differ]" {
		t.Errorf("dead letters for %s", got)
	}
}

// A fall while the message at fault is being looked for.
func TestFallWithPoisonInTheCut(t *testing.T) {
	h := newHouse(t)
	for i := range 8 {
		data := h.message(600)
		if i == 5 {
			clear(data[len(data)-400 : len(data)-100])
		}
		h.sendBytes(600, data)
	}
	for inserts := 1; ; inserts++ { // let one more insert through at every life
		var n atomic.Int32
		fallen := make(chan struct{}, 100)
		h.store.set(func(what string) error {
			if what == "events" && int(n.Add(1)) > inserts {
				fallen <- struct{}{}
				return fmt.Errorf("%w: %w", store.ErrUnavailable, errFault)
			}
			return nil
		}, nil)
		s, stop := h.start()
		done := make(chan struct{})
		go func() {
			defer close(done)
			eventually(t, "through or fallen", func() bool { return s.Through() == 8 || len(fallen) > 0 })
		}()
		<-done
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if s.Through() == 8 {
			break
		}
	}
	if got := h.ask("SELECT count(), uniqExact(collector_seq) FROM events"); got != "4200 4200" {
		t.Errorf("events: %s", got)
	}
	if d := h.deadLetters(); len(d) != 1 || d[0].Seq != 6 || d[0].Reason != "refused_by_clickhouse" {
		t.Errorf("dead letters %+v", d)
	}
}

func TestRowsThatClickHouseDidNotWriteHoldTheSink(t *testing.T) {
	h := newHouse(t)
	h.send(100)
	short := &shortStore{faulty: h.store}
	short.short.Store(true)
	s, err := New(Config{Bus: h.bus, Store: short, Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	eventually(t, "the difference is told", func() bool {
		err := s.Ready()
		return err != nil && strings.Contains(err.Error(), "wrote 99 of 100 rows")
	})
	if s.Through() != 0 {
		t.Error("the position moved")
	}
	short.short.Store(false)
	h.through(s)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	h.exact()
}

// shortStore says that a row less was written.
type shortStore struct {
	*faulty
	short atomic.Bool
}

func (s *shortStore) InsertEvents(ctx context.Context, token string, frames [][]byte, rows int) (int64, error) {
	n, err := s.faulty.InsertEvents(ctx, token, frames, rows)
	if s.short.Load() {
		n--
	}
	return n, err
}

func TestAbsentClickHouseIsWaitedForAndToldOnce(t *testing.T) {
	h := newHouse(t)
	var tries atomic.Int32
	h.store.set(func(what string) error {
		if what == "events" {
			tries.Add(1)
			return fmt.Errorf("%w: %w", store.ErrUnavailable, errFault)
		}
		return nil
	}, nil)
	s, stop := h.start()
	h.send(10)
	eventually(t, "several tries", func() bool { return tries.Load() >= 3 })
	st := s.Status()
	if st.State != waiting || !strings.Contains(st.Detail, errFault.Error()) || s.Ready() == nil || st.Events.Retries < 2 {
		t.Errorf("status %+v, ready: %v", st, s.Ready())
	}
	h.send(10)
	h.store.set(nil, nil)
	h.through(s)
	if err := s.Ready(); err != nil {
		t.Error(err)
	}
	if st := s.Status(); st.State != storing {
		t.Errorf("state %s", st.State)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	h.exact()
}

func TestEndFinishesWhatIsInHand(t *testing.T) {
	h := newHouse(t)
	s, stop := h.start()
	eventually(t, "active", func() bool { return s.Status().State == storing })
	h.send(10)
	eventually(t, "it is being gathered", func() bool { return s.state.events.pending.Load() == 0 && s.Status().State == storing })
	h.send(10)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	// What was read is stored, what was not is there for the next.
	h.stored()
	h.exact()
	lease, err := h.bus.Acquire(t.Context(), bus.SinkLease)
	if err != nil {
		t.Fatalf("the lease was not given back: %v", err)
	}
	if err := lease.Release(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestSecondSinkStandsByAndTakesOver(t *testing.T) {
	h := newHouse(t)
	one, stopOne := h.start()
	eventually(t, "the first is active", func() bool { return one.Status().State == storing })
	two, stopTwo := h.start()
	h.send(100)
	h.through(one)
	h.through(two) // it sees how far the first is
	if st := two.Status(); st.State != standby || two.Ready() != nil {
		t.Errorf("the second is %s", st.State)
	}
	if err := stopOne(); err != nil {
		t.Fatal(err)
	}
	h.send(100)
	h.through(two)
	if st := two.Status(); st.State != storing {
		t.Errorf("the second is %s", st.State)
	}
	if err := stopTwo(); err != nil {
		t.Fatal(err)
	}
	h.exact()
}

// Two sinks at once, as when a frozen one wakes: the recorded cut lets one on.
func TestTwoActiveSinksFenceEachOther(t *testing.T) {
	h := newHouse(t)
	for range 3 {
		h.send(500)
	}
	follow := func() *follower {
		s, err := New(Config{Bus: h.bus, Store: h.store, Log: testLog(t)})
		if err != nil {
			t.Fatal(err)
		}
		f := &follower{Sink: s, name: bus.CutEvents, p: &s.state.events, reading: t.Context(), writing: t.Context()}
		if err := f.begin(); err != nil {
			t.Fatal(err)
		}
		return f
	}
	gather := func(f *follower) []item {
		r, err := f.open(f.bus.Events)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		items, err := (&gatherer{f: f, r: r}).gather()
		if err != nil {
			t.Fatal(err)
		}
		return items
	}
	frozen, fresh := follow(), follow()
	a, b := gather(frozen), gather(fresh)
	if err := frozen.record(bus.Cut{First: 1, Last: 2, Rows: 1000}); err != nil {
		t.Fatal(err)
	}
	if err := fresh.put(b); !errors.Is(err, errLost) { // it began before the other recorded
		t.Errorf("error is %v", err)
	}
	next := follow()
	if err := next.finishOpen(&gatherer{f: next, r: mustRead(t, h.bus)}); err != nil {
		t.Fatal(err)
	}
	if err := frozen.put(a); !errors.Is(err, errLost) {
		t.Errorf("the frozen one wakes: error is %v", err)
	}
	h.stored()
	h.exact()
}

func mustRead(t *testing.T, b *bus.Bus) *bus.Reader {
	t.Helper()
	r, err := b.Events(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func TestPositionOfAnotherBusIsTold(t *testing.T) {
	h := newHouse(t)
	if _, err := h.bus.SaveCut(t.Context(), bus.CutEvents, bus.Cut{Done: 1000}); err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{Bus: h.bus, Store: h.store, Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	err = s.Run(t.Context())
	var purged *bus.PurgedError
	if !errors.As(err, &purged) || purged.Wanted != 1001 {
		t.Errorf("error is %v", err)
	}
}

func TestSmallMessagesAreRebuiltTheSameEveryTime(t *testing.T) {
	h := newHouse(t)
	for i := range 120 {
		h.send([]int{1, 30, 511, 600, 200, 100}[i%6])
	}
	s, err := New(Config{Bus: h.bus, Store: h.store})
	if err != nil {
		t.Fatal(err)
	}
	f := &follower{Sink: s, name: bus.CutEvents, p: &s.state.events, reading: t.Context(), writing: t.Context()}
	items, err := (&gatherer{f: f, r: mustRead(t, h.bus)}).through(120)
	if err != nil {
		t.Fatal(err)
	}
	list, rows := kept(items)
	if rows != h.sent || len(rebuild(list)) >= 60 {
		t.Errorf("%d rows of %d, %d messages made of 120", rows, h.sent, len(rebuild(list)))
	}
	one, _, err := stream(list)
	if err != nil {
		t.Fatal(err)
	}
	two, _, _ := stream(list)
	if !bytes.Equal(bytes.Join(one, nil), bytes.Join(two, nil)) {
		t.Error("the same messages give different bytes")
	}
	h.stored()
	h.exact()
}

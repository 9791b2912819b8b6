package bus

import (
	"context"
	"errors"
	"testing"
	"time"
)

// done says that every lane and the sink are through seq.
func done(t testing.TB, b *Bus, seq uint64) {
	t.Helper()
	for lane := range Lanes {
		checkpoint(t, b, lane, seq)
	}
	c := must[Cut](t)(b.LoadCut(t.Context(), CutEvents))
	c.Done = seq
	must[Cut](t)(b.SaveCut(t.Context(), CutEvents, c))
}

func TestReaderGivesEverythingFromItsPositionInOrder(t *testing.T) {
	b := open(t, config(t))
	p := must[*Publisher](t)(b.NewPublisher(t.Context(), "c"))
	const n = 2000
	for range n {
		publish(t, p, 1, []byte("some data"))
	}
	for _, from := range []uint64{0, 1, 2, 1500, n} {
		r := must[*Reader](t)(b.Events(t.Context(), from))
		for want := max(1, from); want <= n; want++ {
			if m := next(t, r); m.Seq != want || m.Meta.First != int64(want) {
				t.Fatalf("from %d: got %d, want %d", from, m.Seq, want)
			}
		}
		if r.Pending() != 0 {
			t.Errorf("%d pending at the end", r.Pending())
		}
		r.Close()
		_, err := r.Next(t.Context())
		wantErr(t, err, ErrClosed)
	}
}

func TestNextGivenUpLosesNothing(t *testing.T) {
	b := open(t, config(t))
	p := must[*Publisher](t)(b.NewPublisher(t.Context(), "c"))
	r := must[*Reader](t)(b.Events(t.Context(), 1)) // of what is not there yet
	defer r.Close()
	gaveUp := 0
	for want := uint64(1); want <= 50; {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		m, err := r.Next(ctx)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			gaveUp++
			publish(t, p, 1, nil)
			continue
		}
		if err != nil || m.Seq != want {
			t.Fatalf("got %d, want %d: %v", m.Seq, want, err)
		}
		want++
	}
	if gaveUp == 0 {
		t.Error("never had to wait: the test shows nothing")
	}
}

func TestPurgedPositionIsAnErrorNotASkip(t *testing.T) {
	b := open(t, config(t))
	p := must[*Publisher](t)(b.NewPublisher(t.Context(), "c"))
	for range 10 {
		publish(t, p, 1, nil)
	}
	r := must[*Reader](t)(b.Events(t.Context(), 1))
	defer r.Close()
	done(t, b, 5)
	if err := b.Purge(t.Context(), time.Nanosecond); err != nil {
		t.Fatal(err)
	}
	var purged *PurgedError
	if _, err := b.Events(t.Context(), 3); !errors.As(err, &purged) || purged.First != 6 {
		t.Errorf("error is %v", err)
	}
	if _, err := b.Events(t.Context(), 12); !errors.As(err, &purged) || purged.Last != 10 {
		t.Errorf("a position ahead of the end: error is %v", err)
	}
	again := must[*Reader](t)(b.Events(t.Context(), 6))
	defer again.Close()
	if m := next(t, again); m.Seq != 6 {
		t.Errorf("first is %d", m.Seq)
	}
	whatever := must[*Reader](t)(b.Events(t.Context(), 0))
	defer whatever.Close()
	if m := next(t, whatever); m.Seq != 6 {
		t.Errorf("first is %d", m.Seq)
	}
}

func TestReaderLeftAloneComesBack(t *testing.T) {
	t.Parallel()
	b := open(t, config(t))
	p := must[*Publisher](t)(b.NewPublisher(t.Context(), "c"))
	for range 2000 {
		publish(t, p, 1, make([]byte, 100))
	}
	r := must[*Reader](t)(b.Events(t.Context(), 1))
	defer r.Close()
	next(t, r)
	// Its consumer ends, as after a long pause of its caller.
	for c := range b.streams[streamEvents].ListConsumers(t.Context()).Info() {
		if err := b.js.DeleteConsumer(t.Context(), streamEvents, c.Name); err != nil {
			t.Fatal(err)
		}
	}
	for want := uint64(2); want <= 2000; want++ {
		if m := next(t, r); m.Seq != want {
			t.Fatalf("got %d, want %d", m.Seq, want)
		}
	}
}

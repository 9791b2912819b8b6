package bus

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// publish stores one message of so many rows and returns its sequence.
func publish(t testing.TB, p *Publisher, rows int64, data []byte) uint64 {
	t.Helper()
	seq, err := p.Publish(t.Context(), Meta{Epoch: p.Epoch(), First: p.Next(), Rows: rows}, data)
	if err != nil {
		t.Fatal(err)
	}
	return seq
}

func next(t testing.TB, r *Reader) Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	m, err := r.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMetaSurvivesTheHeaders(t *testing.T) {
	b := open(t, config(t))
	p := must[*Publisher](t)(b.NewPublisher(t.Context(), "web-1"))
	want := Meta{
		Collector: "web-1", Epoch: p.Epoch(), First: 1, Rows: 12, Bytes: 4096, Mark: 1_790_000_000_123, Schema: 1,
		Import: "imp-1", ImportEnd: true, Sources: map[string]int64{"http": 9, "journal": 3},
		Refused: map[string]int64{"http:too_old": 2}, Keys: []string{"k1", "k2"},
	}
	must[uint64](t)(p.Publish(t.Context(), want, []byte("data")))
	r := must[*Reader](t)(b.Events(t.Context(), 0))
	defer r.Close()
	m := next(t, r)
	if fmt.Sprint(m.Meta) != fmt.Sprint(want) {
		t.Errorf("got  %+v\nwant %+v", m.Meta, want)
	}
	if string(m.Data) != "data" || m.Seq != 1 || time.Since(m.Time).Abs() > time.Minute || m.IsControl() {
		t.Errorf("message %+v", m)
	}
}

func TestCountsKeepTheirTotalBeyondTheirBound(t *testing.T) {
	counts := map[string]int64{"a,b=c\n": 5}
	for i := range 3 * maxCounts {
		counts[fmt.Sprintf("s%d", i)] = 2
	}
	got := decodeCounts(encodeCounts(counts))
	var sum int64
	for _, n := range got {
		sum += n
	}
	if len(got) > maxCounts+1 || sum != 5+2*3*maxCounts || got["a-b-c-"] != 5 {
		t.Errorf("%d names, sum %d, %v", len(got), sum, got["a-b-c-"])
	}
}

func TestRestartContinuesTheNumbering(t *testing.T) {
	c := config(t)
	b := open(t, c)
	p := must[*Publisher](t)(b.NewPublisher(t.Context(), "c"))
	publish(t, p, 10, []byte("a"))
	publish(t, p, 5, []byte("b"))
	publish(t, p, 0, nil) // a heartbeat takes no number
	epoch := p.Epoch()
	closeBus(t, b)
	b = open(t, c)
	p = must[*Publisher](t)(b.NewPublisher(t.Context(), "c"))
	if p.Epoch() != epoch || p.Next() != 16 {
		t.Fatalf("continues at %d-%d, want %d-16", p.Epoch(), p.Next(), epoch)
	}
	_, err := p.Publish(t.Context(), Meta{Epoch: epoch, First: 11, Rows: 5}, nil)
	wantErr(t, err, ErrNumber)
	publish(t, p, 1, []byte("c"))
}

func TestNewEpochNamesTheOneBefore(t *testing.T) {
	b := open(t, config(t))
	p := must[*Publisher](t)(b.NewPublisher(t.Context(), "c"))
	publish(t, p, 7, nil)
	old := p.Epoch()
	p.NewEpoch()
	if p.Epoch() <= old || p.Next() != 1 {
		t.Fatalf("epoch %d after %d, next %d", p.Epoch(), old, p.Next())
	}
	publish(t, p, 1, nil)
	publish(t, p, 1, nil)
	r := must[*Reader](t)(b.Events(t.Context(), 2))
	defer r.Close()
	if m := next(t, r); m.Meta.Previous != fmt.Sprintf("%d-7", old) {
		t.Errorf("previous is %q", m.Meta.Previous)
	}
	if m := next(t, r); m.Meta.Previous != "" {
		t.Errorf("the second message names %q", m.Meta.Previous)
	}
}

func TestNumbersContinueAfterThePurge(t *testing.T) {
	b := open(t, config(t))
	p := must[*Publisher](t)(b.NewPublisher(t.Context(), "c"))
	publish(t, p, 42, nil)
	if err := b.PutNumbers(t.Context(), "c", Numbers{p.Epoch(), 42}); err != nil {
		t.Fatal(err)
	}
	if err := b.streams[streamEvents].Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	fresh := must[*Publisher](t)(b.NewPublisher(t.Context(), "c"))
	if fresh.Epoch() != p.Epoch() || fresh.Next() != 43 {
		t.Fatalf("continues at %d-%d", fresh.Epoch(), fresh.Next())
	}
	publish(t, p, 1, nil) // the old one notices the purge and goes on
	_, err := fresh.Publish(t.Context(), Meta{Epoch: fresh.Epoch(), First: 43, Rows: 1}, nil)
	wantErr(t, err, ErrFenced)
}

func TestTwoPublishersOfOneCollectorFenceEachOther(t *testing.T) {
	b := open(t, config(t))
	one := must[*Publisher](t)(b.NewPublisher(t.Context(), "c"))
	publish(t, one, 1, []byte("1"))
	two := must[*Publisher](t)(b.NewPublisher(t.Context(), "c"))
	publish(t, two, 1, []byte("2"))
	for range 2 {
		_, err := one.Publish(t.Context(), Meta{Epoch: one.Epoch(), First: one.Next(), Rows: 1}, []byte("late"))
		wantErr(t, err, ErrFenced)
	}
	publish(t, two, 1, []byte("3"))
	other := must[*Publisher](t)(b.NewPublisher(t.Context(), "other"))
	publish(t, other, 1, []byte("4")) // another collector is not concerned
	if last := must[uint64](t)(b.LastEvent(t.Context())); last != 4 {
		t.Errorf("%d messages, want 4", last)
	}
}

// A publish whose acknowledgement is lost is decided by what the stream holds.
func TestUnclearOutcomeIsDecided(t *testing.T) {
	b := open(t, config(t))
	p := must[*Publisher](t)(b.NewPublisher(t.Context(), "c"))
	publish(t, p, 1, []byte("first"))

	// storeUnseen stores a message as p would and lets p see no answer.
	storeUnseen := func(m Meta, data []byte) {
		a := p.attempt(m, len(data))
		p.remember(a)
		m.Collector = "c"
		h := m.header()
		h.Set(headerTry, a.try)
		if _, err := b.publishFenced(t.Context(), &nats.Msg{Subject: p.subject, Header: h, Data: data}, p.last); err != nil {
			t.Fatal(err)
		}
	}
	m := Meta{Epoch: p.Epoch(), First: p.Next(), Rows: 3, Mark: 9}
	storeUnseen(m, []byte("second"))
	seq, err := p.Publish(t.Context(), m, []byte("second"))
	if err != nil || seq != 2 || p.Next() != 5 {
		t.Fatalf("repeat gives sequence %d, next %d: %v", seq, p.Next(), err)
	}

	// A heartbeat may be dropped; its late arrival does not fence its publisher.
	storeUnseen(Meta{Epoch: p.Epoch(), First: p.Next(), Mark: 10}, nil)
	if seq := publish(t, p, 1, []byte("third")); seq != 4 {
		t.Errorf("stored at %d, want 4", seq)
	}

	// Numbers that were given away in an unclear outcome cannot be given again.
	storeUnseen(Meta{Epoch: p.Epoch(), First: p.Next(), Rows: 2}, []byte("fourth"))
	_, err = p.Publish(t.Context(), Meta{Epoch: p.Epoch(), First: p.Next(), Rows: 1}, []byte("different"))
	wantErr(t, err, ErrNumber)
	if p.Next() != 8 {
		t.Errorf("next is %d, want 8", p.Next())
	}
	publish(t, p, 1, []byte("fifth"))
	if last := must[uint64](t)(b.LastEvent(t.Context())); last != 6 {
		t.Errorf("%d messages, want 6", last)
	}
}

func TestPublishWithoutBusIsAwayAndThenStoredOnce(t *testing.T) {
	t.Parallel()
	c := config(t)
	c.Listen, c.Secret = "127.0.0.1:0", "s3cret-of-the-house"
	server := open(t, c)
	b := open(t, Config{URL: server.ClientURL(), Secret: c.Secret, Log: testLog(t)})
	p := must[*Publisher](t)(b.NewPublisher(t.Context(), "c"))
	publish(t, p, 1, []byte("a"))
	r := must[*Reader](t)(b.Events(t.Context(), 1))
	defer r.Close()
	next(t, r)

	c.Listen = server.ClientURL()[len("nats://"):]
	closeBus(t, server)
	m := Meta{Epoch: p.Epoch(), First: p.Next(), Rows: 1}
	_, err := p.Publish(t.Context(), m, []byte("b"))
	wantErr(t, err, ErrAway)
	wantErr(t, b.Healthy(t.Context()), ErrAway)

	open(t, c)
	eventually(t, "the publisher is through", func() bool {
		_, err = p.Publish(t.Context(), m, []byte("b"))
		return err == nil
	})
	publish(t, p, 1, []byte("c"))
	for want := uint64(2); want <= 3; want++ { // the reader came back too
		if got := next(t, r); got.Seq != want || string(got.Data) != string(rune('a'+want-1)) {
			t.Errorf("read %d %q", got.Seq, got.Data)
		}
	}
}

func TestFullStreamRefusesAndRecoversAfterThePurge(t *testing.T) {
	c := config(t)
	c.EventsBytes = 8 * mib
	b := open(t, c)
	p := must[*Publisher](t)(b.NewPublisher(t.Context(), "c"))
	data := bytes.Repeat([]byte("x"), 900*kib)
	var err error
	for err == nil {
		_, err = p.Publish(t.Context(), Meta{Epoch: p.Epoch(), First: p.Next(), Rows: 1}, data)
	}
	wantErr(t, err, ErrFull)
	stored := must[uint64](t)(b.LastEvent(t.Context()))
	if err := b.Purge(t.Context(), time.Nanosecond); err != nil {
		t.Fatal(err)
	}
	if s := b.PurgeState(); s.Through != 0 || s.HeldBy != "sink" {
		t.Errorf("purge went by %+v", s)
	}
	done(t, b, stored-2)
	if err := b.Purge(t.Context(), time.Nanosecond); err != nil {
		t.Fatal(err)
	}
	if seq := publish(t, p, 1, data); seq != stored+1 || p.Next() != int64(stored)+2 {
		t.Errorf("stored at %d, next %d", seq, p.Next())
	}
}

func TestTooMuchIsRefusedByName(t *testing.T) {
	b := open(t, config(t))
	p := must[*Publisher](t)(b.NewPublisher(t.Context(), "c"))
	f := func(want error, m Meta, size int) {
		t.Helper()
		m.Epoch, m.First = p.Epoch(), p.Next()
		_, err := p.Publish(t.Context(), m, make([]byte, size))
		wantErr(t, err, want)
	}
	f(ErrTooBig, Meta{Rows: 1}, MaxMessageBytes+1)
	f(ErrTooBig, Meta{Rows: 1, Keys: make([]string, MaxKeys+1)}, 1)
	f(ErrInvalid, Meta{Rows: 1, Keys: []string{"a b"}}, 1)
	f(ErrInvalid, Meta{Rows: 1, Import: "x\r\nCoc-Rows: 9"}, 1)
	keys := make([]string, MaxKeys)
	for i := range keys {
		keys[i] = fmt.Sprintf("%064d", i)
	}
	big := Meta{Epoch: p.Epoch(), First: p.Next(), Rows: 1, Keys: keys, Sources: map[string]int64{}, Refused: map[string]int64{}}
	for i := range 2 * maxCounts {
		name := fmt.Sprintf("%0200d", i)
		big.Sources[name], big.Refused[name] = 1<<60, 1<<60
	}
	if _, err := p.Publish(t.Context(), big, make([]byte, MaxMessageBytes)); err != nil {
		t.Errorf("the largest message there can be: %v", err)
	}
	// and its numbers can be read back, whole
	if n := must[Numbers](t)(b.LastNumbers(t.Context(), "c")); n.Last != 1 {
		t.Errorf("last number %d", n.Last)
	}
	for _, name := range []string{"", "_control", "a.b", "a b", "a>", "ü", string(bytes.Repeat([]byte("a"), 65))} {
		_, err := b.NewPublisher(t.Context(), name)
		wantErr(t, err, ErrInvalid)
		if CheckName(NameFrom(name)) != nil {
			t.Errorf("NameFrom(%q) = %q is not valid", name, NameFrom(name))
		}
	}
}

func TestControlStandsInTheSameOrder(t *testing.T) {
	b := open(t, config(t))
	p := must[*Publisher](t)(b.NewPublisher(t.Context(), "c"))
	publish(t, p, 1, nil)
	must[uint64](t)(b.PublishControl(t.Context(), Meta{Control: ControlTick, Time: 1000}))
	must[uint64](t)(b.PublishControl(t.Context(), Meta{Control: ControlRules, Digest: "ab12"}))
	publish(t, p, 1, nil)
	_, err := b.PublishControl(t.Context(), Meta{Control: "stop"})
	wantErr(t, err, ErrInvalid)
	r := must[*Reader](t)(b.Events(t.Context(), 1))
	defer r.Close()
	next(t, r)
	if m := next(t, r); !m.IsControl() || m.Meta.Control != ControlTick || m.Meta.Time != 1000 {
		t.Errorf("second is %+v", m)
	}
	if m := next(t, r); !m.IsControl() || m.Meta.Digest != "ab12" {
		t.Errorf("third is %+v", m)
	}
	if m := next(t, r); m.IsControl() || m.Seq != 4 {
		t.Errorf("fourth is %+v", m)
	}
}

func TestRecentGivesTheKeysOfStoredRequests(t *testing.T) {
	b := open(t, config(t))
	p := must[*Publisher](t)(b.NewPublisher(t.Context(), "c"))
	other := must[*Publisher](t)(b.NewPublisher(t.Context(), "d"))
	since := b.Now().Add(-time.Minute)
	collect := func(since time.Time) (keys []string) {
		err := b.Recent(t.Context(), "c", since, func(m Message) error { keys = append(keys, m.Meta.Keys...); return nil })
		if err != nil {
			t.Fatal(err)
		}
		return keys
	}
	if got := collect(since); got != nil {
		t.Errorf("of nothing: %v", got)
	}
	for i := range 3 {
		m := Meta{Epoch: p.Epoch(), First: p.Next(), Rows: 1, Keys: []string{fmt.Sprintf("k%d", i)}}
		must[uint64](t)(p.Publish(t.Context(), m, nil))
		publish(t, other, 1, nil)
	}
	if got := fmt.Sprint(collect(since)); got != "[k0 k1 k2]" {
		t.Error(got)
	}
	if got := collect(b.Now().Add(time.Minute)); got != nil {
		t.Errorf("of the future: %v", got)
	}
}

package bus

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// checkpoint moves a lane's pointer.
func checkpoint(t testing.TB, b *Bus, lane int, seq uint64) Checkpoint {
	t.Helper()
	c, err := b.Checkpoint(t.Context(), lane)
	if err != nil && !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	c.Seq = seq
	return must[Checkpoint](t)(b.SaveCheckpoint(t.Context(), lane, c, strings.NewReader("state")))
}

func TestCheckpointComesBackAndOnlyOneSaverWins(t *testing.T) {
	b := open(t, config(t))
	_, _, err := b.LoadCheckpoint(t.Context(), 3)
	wantErr(t, err, ErrNotFound)
	blob := bytes.Repeat([]byte("0123456789abcdef"), 200_000) // several chunks
	saved := must[Checkpoint](t)(b.SaveCheckpoint(t.Context(), 3, Checkpoint{Seq: 7, Digest: "d1", In: 6}, bytes.NewReader(blob)))
	load := func() (Checkpoint, []byte) {
		c, r, err := b.LoadCheckpoint(t.Context(), 3)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = r.Close() }()
		return c, must[[]byte](t)(io.ReadAll(r))
	}
	c, got := load()
	if !bytes.Equal(got, blob) || c != saved || c.Seq != 7 || c.Digest != "d1" || c.In != 6 || c.Size != int64(len(blob)) {
		t.Fatalf("loaded %+v with %d bytes, saved %+v", c, len(got), saved)
	}
	next := saved
	next.Seq = 9
	next = must[Checkpoint](t)(b.SaveCheckpoint(t.Context(), 3, next, strings.NewReader("newer")))
	saved.Seq = 8 // the owner before, late
	_, err = b.SaveCheckpoint(t.Context(), 3, saved, strings.NewReader("late"))
	wantErr(t, err, ErrConflict)
	if c, got := load(); c.Seq != 9 || string(got) != "newer" || c.Revision != next.Revision {
		t.Errorf("loaded %+v %q", c, got)
	}
	objects := must[[]*jetstream.ObjectInfo](t)(b.state.List(t.Context(), jetstream.ListObjectsShowDeleted()))
	if len(objects) != 1 {
		t.Errorf("%d objects and markers are left, want 1", len(objects))
	}
}

func TestLeftOverCheckpointsAreSwept(t *testing.T) {
	b := open(t, config(t))
	c := checkpoint(t, b, 1, 1)
	c = checkpoint(t, b, 1, 2)
	older := fmt.Sprintf("%s%d.crashed", objectPrefix(1), c.Revision-1)
	current := fmt.Sprintf("%s%d.underway", objectPrefix(1), c.Revision+1000)
	for _, name := range []string{older, current} {
		must[*jetstream.ObjectInfo](t)(b.state.PutString(t.Context(), name, "x"))
	}
	b.sweep(t.Context(), 1, c)
	if _, err := b.state.GetInfo(t.Context(), older); !errors.Is(err, jetstream.ErrObjectNotFound) {
		t.Errorf("a blob that cannot be named any more is still there: %v", err)
	}
	if _, err := b.state.GetInfo(t.Context(), current); err != nil {
		t.Errorf("the blob of a save under way was removed: %v", err)
	}
	_, r, err := b.LoadCheckpoint(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
}

func TestRuleSetsByDigest(t *testing.T) {
	b := open(t, config(t))
	_, err := b.GetRules(t.Context(), "ab")
	wantErr(t, err, ErrNotFound)
	for range 2 {
		if err := b.PutRules(t.Context(), strings.Repeat("ab", 32), []byte("rules")); err != nil {
			t.Fatal(err)
		}
	}
	if got := must[[]byte](t)(b.GetRules(t.Context(), strings.Repeat("ab", 32))); string(got) != "rules" {
		t.Errorf("%q", got)
	}
	wantErr(t, b.PutRules(t.Context(), "../x", nil), ErrInvalid)
}

func TestCutIsComparedAndSet(t *testing.T) {
	b := open(t, config(t))
	zero := must[Cut](t)(b.LoadCut(t.Context(), CutEvents))
	if zero.Open() {
		t.Error("no cut is open")
	}
	one := must[Cut](t)(b.SaveCut(t.Context(), CutEvents, Cut{First: 1, Last: 9, Rows: 100, Excluded: []uint64{4}}))
	got := must[Cut](t)(b.LoadCut(t.Context(), CutEvents))
	if !got.Open() || got.Last != 9 || got.Rows != 100 || len(got.Excluded) != 1 || got.Revision != one.Revision {
		t.Errorf("%+v", got)
	}
	_, err := b.SaveCut(t.Context(), CutEvents, zero) // a second sink
	wantErr(t, err, ErrConflict)
	got.Done = 9
	got = must[Cut](t)(b.SaveCut(t.Context(), CutEvents, got))
	if got.Open() {
		t.Error("a cut that is done is open")
	}
}

func TestPurgeTakesNothingThatAnybodyNeeds(t *testing.T) {
	b := open(t, config(t))
	p := must[*Publisher](t)(b.NewPublisher(t.Context(), "c"))
	for range 20 {
		publish(t, p, 1, nil)
	}
	first := func() uint64 {
		t.Helper()
		if err := b.Purge(t.Context(), time.Nanosecond); err != nil {
			t.Fatal(err)
		}
		return must[[]StreamInfo](t)(b.Info(t.Context()))[0].FirstSeq
	}
	if got := first(); got != 1 {
		t.Errorf("with no position at all it begins at %d", got)
	}
	for lane := range Lanes - 1 {
		checkpoint(t, b, lane, 15)
	}
	cut := must[Cut](t)(b.SaveCut(t.Context(), CutEvents, Cut{Done: 18}))
	if got := first(); got != 1 || b.PurgeState().HeldBy != "lane 15" {
		t.Errorf("one lane has no checkpoint: begins at %d, held by %s", got, b.PurgeState().HeldBy)
	}
	checkpoint(t, b, 15, 8)
	if got := first(); got != 9 || b.PurgeState().HeldBy != "lane 15" {
		t.Errorf("lane 15 is through 8: begins at %d, held by %s", got, b.PurgeState().HeldBy)
	}
	checkpoint(t, b, 15, 17)
	if got := first(); got != 16 {
		t.Errorf("other lanes are through 15: begins at %d", got)
	}
	for lane := range Lanes {
		checkpoint(t, b, lane, 20)
	}
	if got := first(); got != 19 || b.PurgeState().HeldBy != "sink" {
		t.Errorf("the sink is through 18: begins at %d, held by %s", got, b.PurgeState().HeldBy)
	}
	cut.Done = 20
	must[Cut](t)(b.SaveCut(t.Context(), CutEvents, cut))
	if err := b.Purge(t.Context(), time.Hour); err != nil {
		t.Fatal(err)
	}
	if got := must[[]StreamInfo](t)(b.Info(t.Context()))[0].FirstSeq; got != 19 || b.PurgeState().HeldBy != "keep" {
		t.Errorf("what is younger than an hour stays: begins at %d, held by %s", got, b.PurgeState().HeldBy)
	}
	if got := first(); got != 21 {
		t.Errorf("everybody is through: begins at %d", got)
	}
	publish(t, p, 1, nil) // over the purge of its fence
}

func TestFirstSinceFindsTheBorder(t *testing.T) {
	b := open(t, config(t))
	p := must[*Publisher](t)(b.NewPublisher(t.Context(), "c"))
	publish(t, p, 1, nil)
	publish(t, p, 1, nil)
	r := must[*Reader](t)(b.Events(t.Context(), 1))
	defer r.Close()
	one, two := next(t, r), next(t, r)
	for want, at := range map[uint64]time.Time{1: one.Time, 2: two.Time, 3: two.Time.Add(1)} {
		if got := must[uint64](t)(b.firstSince(t.Context(), at)); got != want {
			t.Errorf("since %v: %d, want %d", at, got, want)
		}
	}
}

func TestPurgeKeepsEachLanesLastFindings(t *testing.T) {
	b := open(t, config(t))
	lanes := []*Lane{must[*Lane](t)(b.OpenLane(t.Context(), 0)), must[*Lane](t)(b.OpenLane(t.Context(), 15))}
	for in := uint64(1); in <= 4; in++ { // stored at 1..8, lanes in turn
		for _, l := range lanes {
			if err := l.Publish(t.Context(), in, []byte("f")); err != nil {
				t.Fatal(err)
			}
		}
	}
	cut := must[Cut](t)(b.SaveCut(t.Context(), CutFindings, Cut{Done: 3}))
	left := func() (seqs []uint64) {
		t.Helper()
		if err := b.Purge(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		r := must[*Reader](t)(b.Findings(t.Context(), 0))
		defer r.Close()
		for len(seqs) == 0 || r.Pending() > 0 {
			seqs = append(seqs, next(t, r).Seq)
		}
		return seqs
	}
	if got := fmt.Sprint(left()); got != "[4 5 6 7 8]" {
		t.Errorf("the sink is through 3; left: %s", got)
	}
	cut.Done = 8
	must[Cut](t)(b.SaveCut(t.Context(), CutFindings, cut))
	if got := fmt.Sprint(left()); got != "[7 8]" {
		t.Errorf("the sink is through 8; left: %s", got)
	}
	if l := must[*Lane](t)(b.OpenLane(t.Context(), 0)); l.In() != 4 {
		t.Errorf("lane 0 is out through %d", l.In())
	}
}

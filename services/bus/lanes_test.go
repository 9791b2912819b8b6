package bus

import (
	"bytes"
	"errors"
	"testing"
	"time"
)

func TestFindingsCarryTheirInputAndContinueAfterARestart(t *testing.T) {
	b := open(t, config(t))
	l := must[*Lane](t)(b.OpenLane(t.Context(), 7))
	if l.In() != 0 {
		t.Errorf("a new lane is out through %d", l.In())
	}
	if err := l.Publish(t.Context(), 5, []byte("a"), []byte("b")); err != nil {
		t.Fatal(err)
	}
	wantErr(t, l.Publish(t.Context(), 5, []byte("again")), ErrNumber)
	l = must[*Lane](t)(b.OpenLane(t.Context(), 7))
	if l.In() != 5 {
		t.Errorf("out through %d, want 5", l.In())
	}
	if err := l.Publish(t.Context(), 9, []byte("c")); err != nil {
		t.Fatal(err)
	}
	r := must[*Reader](t)(b.Findings(t.Context(), 1))
	defer r.Close()
	for i, want := range []struct {
		data        string
		in          uint64
		part, parts int
	}{{"a", 5, 1, 2}, {"b", 5, 2, 2}, {"c", 9, 1, 1}} {
		m := next(t, r)
		if string(m.Data) != want.data || m.Meta.In != want.in || m.Meta.Part != want.part || m.Meta.Parts != want.parts || m.Meta.Lane != 7 {
			t.Errorf("message %d: %q %+v", i, m.Data, m.Meta)
		}
	}
}

func TestLateOwnersFindingsAreRefused(t *testing.T) {
	b := open(t, config(t))
	late := must[*Lane](t)(b.OpenLane(t.Context(), 2))
	if err := late.Publish(t.Context(), 1, []byte("a")); err != nil {
		t.Fatal(err)
	}
	owner := must[*Lane](t)(b.OpenLane(t.Context(), 2))
	if err := owner.Publish(t.Context(), 2, []byte("b")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		wantErr(t, late.Publish(t.Context(), 2, []byte("b")), ErrFenced)
	}
	if err := owner.Publish(t.Context(), 3, []byte("c")); err != nil {
		t.Fatal(err)
	}
}

// An owner that dies between two messages of one input.
func TestPartlyPublishedInputIsResumed(t *testing.T) {
	b := open(t, config(t))
	l := must[*Lane](t)(b.OpenLane(t.Context(), 2))
	l.partial = partial{in: 10, parts: 3}
	if err := l.publishPart(t.Context(), []byte("1")); err != nil {
		t.Fatal(err)
	}
	next1 := must[*Lane](t)(b.OpenLane(t.Context(), 2))
	if next1.In() != 9 {
		t.Errorf("out through %d, want 9: input 10 is not whole", next1.In())
	}
	wantErr(t, next1.Publish(t.Context(), 10, []byte("1")), ErrNumber) // computed differently
	if err := next1.Publish(t.Context(), 10, []byte("1"), []byte("2"), []byte("3")); err != nil {
		t.Fatal(err)
	}
	r := must[*Reader](t)(b.Findings(t.Context(), 1))
	defer r.Close()
	for _, want := range []string{"1", "2", "3"} {
		if m := next(t, r); string(m.Data) != want {
			t.Errorf("got %q, want %q", m.Data, want)
		}
	}
	if r.Pending() != 0 {
		t.Error("a part stands there twice")
	}
}

func TestFindingsBoundsAreNamed(t *testing.T) {
	b := open(t, config(t))
	l := must[*Lane](t)(b.OpenLane(t.Context(), 0))
	wantErr(t, l.Publish(t.Context(), 1, make([]byte, MaxFindingsBytes+1)), ErrTooBig)
	wantErr(t, l.Publish(t.Context(), 1, make([][]byte, MaxFindingsParts+1)...), ErrTooBig)
	if err := l.Publish(t.Context(), 1, bytes.Repeat([]byte("x"), MaxFindingsBytes)); err != nil {
		t.Error(err)
	}
	_, err := b.OpenLane(t.Context(), Lanes)
	wantErr(t, err, ErrInvalid)
}

func TestLeaseIsHeldReleasedAndTakenOver(t *testing.T) {
	b := open(t, config(t))
	l := must[*Lease](t)(b.Acquire(t.Context(), LaneLease(3)))
	_, err := b.Acquire(t.Context(), LaneLease(3))
	wantErr(t, err, ErrHeld)
	holders := must[map[string]Holder](t)(b.Leases(t.Context()))
	if h := holders["lane.03"]; len(holders) != 1 || h.Owner == "" || time.Since(h.Since).Abs() > time.Minute {
		t.Errorf("holders %+v", holders)
	}
	if err := l.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-l.Lost():
	default:
		t.Error("released, and not lost")
	}
	l2 := must[*Lease](t)(b.Acquire(t.Context(), LaneLease(3)))
	if err := l.Release(t.Context()); err != nil { // again, late: not the other's
		t.Error(err)
	}
	_, err = b.Acquire(t.Context(), LaneLease(3))
	wantErr(t, err, ErrHeld)
	if err := l2.Release(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestLeaseNotRenewedIsTakenOverAndItsOwnerKnowsBefore(t *testing.T) {
	t.Parallel()
	b := open(t, config(t))
	frozen := must[*Lease](t)(b.acquire(t.Context(), SinkLease, time.Hour)) // never renews
	start := time.Now()
	l := must[*Lease](t)(b.AcquireWait(t.Context(), SinkLease))
	took := time.Since(start)
	if took < LeaseTTL-2*time.Second || took > LeaseTTL+5*time.Second {
		t.Errorf("taken over after %v, want about %v", took, LeaseTTL)
	}
	if err := frozen.renew(t.Context(), time.Second); !errors.Is(err, ErrHeld) {
		t.Errorf("the frozen owner wakes and renews: %v", err)
	}
	if err := l.Release(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestLeaseOutlivesItsTTLWhenRenewed(t *testing.T) {
	t.Parallel()
	b := open(t, config(t))
	l := must[*Lease](t)(b.acquire(t.Context(), SinkLease, time.Second))
	select {
	case <-l.Lost():
		t.Fatal("lost")
	case <-time.After(LeaseTTL + time.Second):
	}
	_, err := b.Acquire(t.Context(), SinkLease)
	wantErr(t, err, ErrHeld)
}

func TestRenewalWithALostAnswerKeepsTheLease(t *testing.T) {
	b := open(t, config(t))
	l := must[*Lease](t)(b.acquire(t.Context(), SinkLease, time.Hour))
	must[uint64](t)(b.kvs[bucketLeases].Update(t.Context(), SinkLease, l.value, l.revision)) // stored, answer not seen
	if err := l.renew(t.Context(), time.Second); err != nil {
		t.Fatal(err)
	}
	if err := l.renew(t.Context(), time.Second); err != nil {
		t.Fatal(err)
	}
}

func TestRestartDoesNotWaitForItsOwnOldLeases(t *testing.T) {
	c := config(t)
	b := open(t, c)
	must[*Lease](t)(b.Acquire(t.Context(), SinkLease)) // and not released, as after a kill
	closeBus(t, b)
	b = open(t, c)
	must[*Lease](t)(b.Acquire(t.Context(), SinkLease))
}

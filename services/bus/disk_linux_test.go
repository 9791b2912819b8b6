package bus

import (
	"strings"
	"syscall"
	"testing"
)

// A disk that fills faster than the guard looks: nothing acknowledged is lost,
// and what to do is said. It needs the right to mount.
func TestDiskFullWhileWriting(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=16m"); err != nil {
		t.Skipf("cannot mount a small disk: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	c := config(t)
	c.StoreDir = dir
	c.free = func(string) (int64, error) { return 10 * gib, nil } // the guard sees nothing
	b := open(t, c)
	p := must[*Publisher](t)(b.NewPublisher(t.Context(), "c"))
	var stored uint64
	var err error
	m := func() Meta { return Meta{Epoch: p.Epoch(), First: p.Next(), Rows: 1} }
	for err == nil {
		var seq uint64
		if seq, err = p.Publish(t.Context(), m(), make([]byte, 900*kib)); err == nil {
			stored = seq
		}
	}
	_, err = p.Publish(t.Context(), m(), make([]byte, 900*kib))
	wantErr(t, err, ErrFull)
	if err := b.Healthy(t.Context()); err == nil || !strings.Contains(err.Error(), "free some and restart") {
		t.Errorf("health is %v", err)
	}
	closeBus(t, b)
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	b = open(t, c)
	if last := must[uint64](t)(b.LastEvent(t.Context())); last < stored {
		t.Errorf("%d acknowledged, %d there", stored, last)
	}
	p = must[*Publisher](t)(b.NewPublisher(t.Context(), "c"))
	publish(t, p, 1, []byte("again"))
}

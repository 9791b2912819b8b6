package bus

import (
	"context"
	"fmt"
)

// watchDisk stops writing before the disk is full. A file store that meets "no
// space left" refuses everything until its process restarts; one that is held
// back goes on as soon as there is room.
func (b *Bus) watchDisk(context.Context) {
	free, err := b.cfg.free(b.cfg.StoreDir)
	if err != nil {
		b.cfg.Log.Warn("cannot read the free space of the bus's disk", "error", err)
		return
	}
	low := free < minFreeBytes
	if b.diskLow.Swap(low) == low {
		return
	}
	if low {
		b.cfg.Log.Error("the bus's disk is nearly full: writing is held back until there is room", "dir", b.cfg.StoreDir, "free_bytes", free, "needed_bytes", int64(minFreeBytes))
		return
	}
	b.cfg.Log.Info("the bus's disk has room again", "dir", b.cfg.StoreDir, "free_bytes", free)
}

// checkDisk is asked before every write.
func (b *Bus) checkDisk() error {
	if b.server != nil && b.server.log.broken.Load() {
		return fmt.Errorf("bus: the disk of %s became full while the bus wrote; what was acknowledged is stored; free some and restart: %w", b.cfg.StoreDir, ErrFull)
	}
	if b.diskLow.Load() {
		return fmt.Errorf("bus: the disk of %s has less than %d MiB left, free some: %w", b.cfg.StoreDir, minFreeBytes/mib, ErrFull)
	}
	return nil
}

// NeedsRestart says that the embedded server gave up writing on a full disk,
// which it does not take back, and that there is room again: opening the bus
// anew mends it. What was acknowledged is stored.
func (b *Bus) NeedsRestart() bool {
	if b.server == nil || b.diskLow.Load() {
		return false
	}
	return b.server.log.broken.Load() || !b.server.srv.JetStreamEnabled()
}

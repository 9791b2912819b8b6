package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/opencoc/coc/services/bus"
)

// leases is which lanes this engine owns, over its sessions.
type leases struct {
	engine *Engine
	held   map[int]*bus.Lease
}

func newLeases(e *Engine) *leases { return &leases{engine: e, held: map[int]*bus.Lease{}} }

// try takes every lane that is free and drops those that were lost. It returns
// how many it took or dropped.
func (l *leases) try(ctx context.Context) (changed int, err error) {
	for lane := range bus.Lanes {
		if h := l.held[lane]; h != nil {
			if !lost(h) {
				continue
			}
			delete(l.held, lane)
			changed++
		}
		lease, err := l.engine.Bus.Acquire(ctx, bus.LaneLease(lane))
		switch {
		case err == nil:
			l.held[lane] = lease
			changed++
		case errors.Is(err, bus.ErrHeld):
		default:
			return changed, fmt.Errorf("take the lease of lane %d: %w", lane, err)
		}
	}
	return changed, nil
}

// take waits until at least one lane is owned.
func (l *leases) take(ctx context.Context) error {
	for {
		_, err := l.try(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && !busy(err):
			return err
		case err == nil && len(l.held) > 0:
			return nil
		}
		problem := "stands by: every lane has an owner"
		if err != nil {
			problem = err.Error()
		}
		l.engine.update(func(s *Status) { s.Problem = problem })
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lanesEvery):
		}
	}
}

// busy says that the bus cannot take anything now and may later: nothing that
// an engine should end for.
func busy(err error) bool { return errors.Is(err, bus.ErrAway) || errors.Is(err, bus.ErrFull) }

// anyLost says whether a lane that we worked on is ours no more.
func (l *leases) anyLost() bool {
	for _, h := range l.held {
		if lost(h) {
			return true
		}
	}
	return false
}

func lost(h *bus.Lease) bool {
	select {
	case <-h.Lost():
		return true
	default:
		return false
	}
}

// release gives all lanes back, so that others have them at once.
func (l *leases) release() {
	ctx, cancel := context.WithTimeout(context.Background(), endWithin)
	defer cancel()
	for lane, h := range l.held {
		if err := h.Release(ctx); err != nil {
			l.engine.Log.Warn("a lease could not be given back; it ends by itself within 10 s", "lane", lane, "error", err)
		}
		delete(l.held, lane)
	}
}

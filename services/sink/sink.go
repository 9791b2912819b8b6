package sink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/opencoc/coc/services/bus"
	"github.com/opencoc/coc/services/store"
)

// Store is what the sink needs of ClickHouse; *store.Store is one. InsertEvents
// stores the same token's rows once; store.ErrData from any of them says that
// the same data will be refused again, every other error that it may be
// repeated.
type Store interface {
	InsertEvents(ctx context.Context, token string, frames [][]byte, rows int) (written int64, err error)
	InsertBatches(ctx context.Context, rows []store.BatchRow) error
	InsertFindings(ctx context.Context, rows []store.FindingRow) error
	InsertIdentities(ctx context.Context, rows []store.Identity) error
	InsertWork(ctx context.Context, rows []store.WorkRow) error
}

var _ Store = (*store.Store)(nil)

// Config of a sink. Bus and Store are the caller's: Run closes neither.
type Config struct {
	Bus   *bus.Bus
	Store Store
	Log   *slog.Logger // default discards
}

// Sink is one sink, active or standing by. Its methods besides Run may be
// called at any time by any goroutine.
type Sink struct {
	bus   *bus.Bus
	store Store
	log   *slog.Logger
	state status
}

// New checks the configuration; it starts nothing.
func New(c Config) (*Sink, error) {
	if c.Bus == nil || c.Store == nil {
		return nil, errors.New("sink: it needs a bus to read and a store to write")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &Sink{bus: c.Bus, store: c.Store, log: c.Log}
	s.state.init(c.Bus.Now)
	return s, nil
}

// Run is New and Sink.Run.
func Run(ctx context.Context, c Config) error {
	s, err := New(c)
	if err != nil {
		return err
	}
	return s.Run(ctx)
}

// errLost ends an active sink: another one is at work.
var errLost = errors.New("sink: another sink is at work")

// Run stands by until the lease is free, then stores until ctx ends: it
// finishes the cut in hand within 5 s, gives the lease back and returns nil. A
// sink that loses its lease stands by again. It returns an error only when
// going on is impossible: a *bus.PurgedError, when its position is not in the
// stream. Run may be called once.
func (s *Sink) Run(ctx context.Context) error {
	defer s.state.set(stopped)
	for {
		lease, err := s.standBy(ctx)
		if err != nil {
			return err
		}
		if lease == nil { // ctx ended
			return nil
		}
		s.state.set(storing)
		s.log.Info("this sink is active")
		err = s.active(ctx, lease)
		releasing, cancel := context.WithTimeout(context.WithoutCancel(ctx), graceTime)
		if e := lease.Release(releasing); e != nil {
			s.log.Debug("the sink's lease was not given back; it ends by itself", "error", e)
		}
		cancel()
		switch {
		case ctx.Err() != nil && (err == nil || errors.Is(err, errLost)):
			return nil
		case errors.Is(err, errLost):
			s.log.Warn("another sink took over; this one stands by")
		case err != nil:
			return err
		}
	}
}

// standBy waits for the lease and meanwhile shows how far the active sink is.
// It returns nil when ctx ends.
func (s *Sink) standBy(ctx context.Context) (*bus.Lease, error) {
	s.state.set(standby)
	for {
		lease, err := s.bus.Acquire(ctx, bus.SinkLease)
		switch {
		case ctx.Err() != nil:
			if lease != nil {
				return lease, nil
			}
			return nil, nil
		case err == nil:
			return lease, nil
		case errors.Is(err, bus.ErrHeld):
			s.lookAtPositions(ctx)
		case errors.Is(err, bus.ErrClosed):
			return nil, fmt.Errorf("sink: %w", err)
		}
		wait(ctx, standbyEvery)
	}
}

func (s *Sink) lookAtPositions(ctx context.Context) {
	for _, w := range []struct {
		name string
		p    *progress
	}{{bus.CutEvents, &s.state.events}, {bus.CutFindings, &s.state.findings}, {bus.CutWork, &s.state.work}} {
		if c, err := s.bus.LoadCut(ctx, w.name); err == nil {
			w.p.through.Store(c.Done)
		}
	}
}

// active stores all three streams until ctx ends or one of them cannot go on.
func (s *Sink) active(ctx context.Context, lease *bus.Lease) error {
	reading, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	// What is being written when reading ends may be finished; not so after
	// the lease is lost, for then the next sink repeats it.
	writing, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	unhook := context.AfterFunc(reading, func() {
		if errors.Is(context.Cause(reading), errLost) {
			cancel()
			return
		}
		time.AfterFunc(graceTime, cancel)
	})
	defer unhook()
	var tasks sync.WaitGroup
	errs := make([]error, 3)
	for i, run := range []func(reading, writing context.Context) error{s.followEvents, s.followFindings, s.followWork} {
		tasks.Go(func() {
			if errs[i] = run(reading, writing); errs[i] != nil {
				stop(errs[i])
			}
		})
	}
	ended := make(chan struct{})
	go func() { tasks.Wait(); close(ended) }()
	select {
	case <-lease.Lost():
		stop(errLost)
	case <-ended:
	}
	<-ended
	for _, err := range errs {
		if err != nil && !errors.Is(err, errLost) {
			return err
		}
	}
	if errors.Is(context.Cause(reading), errLost) {
		return errLost
	}
	return nil
}

package sink

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/opencoc/coc/services/bus"
	"github.com/opencoc/coc/services/store"
)

// follower is what the three streams' loops share.
type follower struct {
	*Sink
	name string // of its position: bus.CutEvents …
	p    *progress
	cut  bus.Cut // as recorded
	// reading ends when nothing new is to be begun, writing when what is in
	// hand must be left as well.
	reading, writing context.Context
}

// final reports errors that repeating cannot mend.
func final(err error) bool {
	var purged *bus.PurgedError
	return errors.Is(err, store.ErrData) || errors.Is(err, errLost) || errors.Is(err, bus.ErrClosed) ||
		errors.Is(err, bus.ErrTooBig) || errors.Is(err, bus.ErrConflict) || errors.As(err, &purged)
}

// errEnded: the sink is to end, and what is in hand is left to its next start.
var errEnded = errors.New("sink: it is ending")

// repeat does a step until it succeeds, with growing pauses, and says once that
// it has to and once that it is over. It returns final errors, and errEnded
// when the sink is to end and the step does not succeed.
func (f *follower) repeat(what string, step func(context.Context) error) error {
	pause := retryFirst
	for {
		ctx, cancel := context.WithTimeout(f.writing, insertTimeout)
		err := step(ctx)
		cancel()
		if err == nil {
			f.recovered()
			return nil
		}
		if final(err) {
			return err
		}
		if f.reading.Err() != nil {
			f.log.Info("the sink ends before it could finish; its next start does", "step", what, "stream", f.name, "error", err)
			return errEnded
		}
		f.p.retries.Add(1)
		if f.p.failing(fmt.Sprintf("cannot %s: %v", what, err), f.bus.Now()) {
			f.log.Warn("the sink waits and repeats", "step", what, "stream", f.name, "error", err)
		}
		wait(f.reading, pause/2+rand.N(pause/2))
		pause = min(2*pause, retryMost)
	}
}

func (f *follower) recovered() {
	if f.p.failing("", f.bus.Now()) {
		f.log.Info("the sink stores again", "stream", f.name)
	}
}

// begin reads the recorded position.
func (f *follower) begin() error {
	return f.repeat("read its position", func(ctx context.Context) (err error) {
		f.cut, err = f.bus.LoadCut(ctx, f.name)
		f.p.through.Store(f.cut.Done)
		return err
	})
}

// record writes a cut down by compare-and-set. Where an answer was lost and
// the cut stands there after all, it is known by its time; anything else there
// is another sink's.
func (f *follower) record(c bus.Cut) error {
	c.Revision, c.Saved = f.cut.Revision, f.bus.Now().UTC()
	return f.repeat("record its cut", func(ctx context.Context) error {
		saved, err := f.bus.SaveCut(ctx, f.name, c)
		if errors.Is(err, bus.ErrConflict) {
			saved, err = f.bus.LoadCut(ctx, f.name)
			if err == nil && !saved.Saved.Equal(c.Saved) {
				return errLost
			}
		}
		if err == nil {
			f.cut = saved
		}
		return err
	})
}

// open opens a reader behind what is done.
func (f *follower) open(read func(context.Context, uint64) (*bus.Reader, error)) (r *bus.Reader, err error) {
	err = f.repeat("read the bus", func(ctx context.Context) error {
		r, err = read(ctx, f.cut.Done+1)
		return err
	})
	return r, err
}

// next waits for a message until the time given (zero: until reading ends).
// It returns false when there is none in time.
func (f *follower) next(r *bus.Reader, until time.Time) (bus.Message, bool, error) {
	ctx := f.reading
	if !until.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, until)
		defer cancel()
	}
	m, err := r.Next(ctx)
	switch {
	case err == nil:
		f.p.pending.Store(r.Pending())
		return m, true, nil
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), f.reading.Err() != nil:
		return bus.Message{}, false, nil
	}
	return bus.Message{}, false, fmt.Errorf("sink: %w", err)
}

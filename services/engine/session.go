package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/opencoc/coc/services/bus"
	"github.com/opencoc/coc/services/event"
	"github.com/opencoc/coc/services/rule"
)

// session is one ownership of a set of lanes.
type session struct {
	*Engine
	held    *leases
	cohorts []*cohort // the furthest behind first; one when all have met
	reader  *bus.Reader
	keeper  *keeper
	// torn says that the state is ahead of its outputs: an input was judged and
	// its findings are not all out. Such a state must not become a checkpoint.
	torn bool

	events     int64 // since the last checkpoint
	checkpoint time.Time
	statusAt   time.Time
	lookedAt   time.Time
}

// session evaluates the lanes held until they change or ctx ends.
func (e *Engine) session(ctx context.Context, held *leases) (err error) {
	numbers := slices.Sorted(maps.Keys(held.held))
	cohorts, err := e.load(ctx, numbers)
	if err != nil {
		return err
	}
	from := cohorts[0].seq
	reader, err := e.Bus.Events(ctx, from+1)
	if err != nil {
		return fmt.Errorf("read EVENTS from message %d: %w", from+1, err)
	}
	defer reader.Close()
	// The configured rules are put in force before the engine says that it runs,
	// so that who waits for that has no event judged by older rules, or by none.
	switched := e.Set == nil || held.held[0] == nil
	if !switched {
		switched = e.activate(ctx) == nil // else lead tries again and says why
	}
	s := &session{Engine: e, held: held, cohorts: cohorts, reader: reader, keeper: newKeeper(e), checkpoint: time.Now(), lookedAt: time.Now()}
	e.through.Store(from)
	var lanes rule.Lanes
	for _, n := range numbers {
		lanes |= 1 << n
	}
	e.update(func(st *Status) { st.Running, st.Lanes, st.Problem = true, lanes, "" })
	e.Log.Info("engine evaluates", "lanes", len(numbers), "from_message", from+1)

	duties, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if held.held[0] != nil {
			e.lead(duties, switched)
		}
	}()
	defer func() {
		stop()
		<-done
		err = errors.Join(err, s.end(err))
	}()
	return s.loop(ctx)
}

// end writes a last checkpoint after an orderly end, so that the next owner has
// nothing to replay.
func (s *session) end(cause error) error {
	orderly := cause == nil || errors.Is(cause, context.Canceled) || errors.Is(cause, errAgain)
	if err := s.keeper.wait(); err != nil {
		return err
	}
	if orderly && !s.torn && len(s.cohorts) == 1 && !s.held.anyLost() {
		s.save()
	}
	return s.keeper.wait()
}

func (s *session) loop(ctx context.Context) error {
	for {
		wait, cancel := context.WithTimeout(ctx, statusEvery)
		m, err := s.reader.Next(wait)
		cancel()
		var purged *bus.PurgedError
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, context.DeadlineExceeded):
		case errors.As(err, &purged):
			return fmt.Errorf("the stream does not hold what comes after the checkpoints: %w; was the bus's folder replaced? Remove the checkpoints' buckets with it", err)
		case err != nil:
			return fmt.Errorf("read EVENTS: %w", err)
		default:
			if err := s.message(ctx, m); err != nil {
				return err
			}
		}
		if err := s.chores(ctx); err != nil {
			return err
		}
	}
}

// message lets every cohort that has not seen it judge the message.
func (s *session) message(ctx context.Context, m bus.Message) error {
	var set *rule.Set
	if m.Meta.Control == bus.ControlRules {
		var err error
		if set, err = s.ruleSet(ctx, m.Meta.Digest); err != nil {
			return err
		}
	}
	var batch *event.Batch
	if !m.IsControl() && m.Meta.Rows > 0 {
		if batch = s.decode(m); batch != nil {
			defer batch.Release()
			s.events += int64(batch.Rows())
		}
	}
	for _, c := range s.cohorts {
		if c.seq >= m.Seq {
			continue
		}
		if set != nil {
			c.switchTo(set)
		}
		findings := c.judge(m, batch)
		c.seq = m.Seq
		if err := s.publish(ctx, c, m.Seq, findings); err != nil {
			s.torn = true
			return err
		}
	}
	if err := s.meet(); err != nil {
		return err
	}
	s.through.Store(s.cohorts[0].seq)
	return nil
}

// decode returns nil for a message that is not one of ours. Every engine and
// every replay skips it alike, so the findings stay a function of the stream.
func (s *session) decode(m bus.Message) *event.Batch {
	var want event.FieldSet
	for _, c := range s.cohorts {
		if c.runner != nil {
			want |= c.runner.Set().Fields()
		}
	}
	batch, err := event.DecodeFields(m.Data, want)
	if err != nil {
		if n := s.skipped.Add(1); n == 1 {
			s.Log.Error("a message of EVENTS cannot be decoded; it is not judged, and the sink keeps it as a dead letter", "message", m.Seq, "collector", m.Meta.Collector, "error", err)
		}
		return nil
	}
	return batch
}

func (c *cohort) judge(m bus.Message, batch *event.Batch) []event.Finding {
	switch {
	case c.runner == nil || m.Meta.Control == bus.ControlRules:
		return nil
	case m.Meta.Control == bus.ControlTick:
		return c.runner.Tick(m.Seq, m.Meta.Time)
	}
	return c.runner.Message(rule.Input{Seq: m.Seq, Batch: batch, Collector: m.Meta.Collector, Mark: m.Meta.Mark,
		Import: m.Meta.Import, ImportEnd: m.Meta.ImportEnd, BusTime: m.Time.UnixMilli()})
}

// meet joins cohorts that came to stand at the same place.
func (s *session) meet() error {
	for len(s.cohorts) > 1 && s.cohorts[0].seq >= s.cohorts[1].seq {
		if err := s.cohorts[0].join(s.cohorts[1]); err != nil {
			return err
		}
		s.cohorts = slices.Delete(s.cohorts, 1, 2)
	}
	return nil
}

// chores are what is due by the clock rather than by a message.
func (s *session) chores(ctx context.Context) error {
	now := time.Now()
	if now.Sub(s.statusAt) >= statusEvery {
		s.statusAt = now
		s.report()
	}
	if err := s.keeper.failed(); err != nil {
		return err
	}
	if (now.Sub(s.checkpoint) >= s.Every || s.events >= checkpointEvents) && len(s.cohorts) == 1 {
		s.checkpoint, s.events = now, 0
		s.save()
	}
	if now.Sub(s.lookedAt) >= lanesEvery {
		s.lookedAt = now
		if changed, err := s.held.try(ctx); err != nil && !busy(err) {
			return err
		} else if changed > 0 {
			return errAgain
		}
	}
	return nil
}

func (s *session) report() {
	c := s.cohorts[0]
	pending := s.reader.Pending()
	s.update(func(st *Status) {
		st.Pending, st.Digest = pending, c.digest
		if c.runner != nil {
			st.Rules, st.Totals = c.runner.Stats(), c.runner.Totals()
		}
	})
}

package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/opencoc/coc/services/bus"
)

// keeper writes checkpoints beside the evaluation: the state is copied between
// two messages, the bus takes it while the next ones are judged. One set of
// checkpoints is on its way at a time.
type keeper struct {
	engine *Engine
	busy   chan struct{} // holds a token while a set is being written
	err    chan error
}

type snapshot struct {
	lane  *lane
	point bus.Checkpoint
	blob  []byte
}

func newKeeper(e *Engine) *keeper {
	return &keeper{engine: e, busy: make(chan struct{}, 1), err: make(chan error, 1)}
}

// save copies the state of the one cohort and hands it to the keeper. While the
// one before is still being written it does nothing: the next call comes soon.
func (s *session) save() {
	select {
	case s.keeper.busy <- struct{}{}:
	default:
		return
	}
	c := s.cohorts[0]
	var list []snapshot
	for _, l := range c.lanes {
		if l.checkpoint.Seq == c.seq && l.checkpoint.Revision > 0 {
			continue // nothing came since
		}
		var blob bytes.Buffer
		if c.runner != nil {
			if err := c.runner.Snapshot(l.number, &blob); err != nil {
				s.keeper.report(fmt.Errorf("copy the state of lane %d: %w", l.number, err))
				break
			}
		}
		list = append(list, snapshot{l, bus.Checkpoint{Seq: c.seq, Digest: c.digest, In: l.out.In(), Revision: l.checkpoint.Revision}, blob.Bytes()})
	}
	go s.keeper.write(list)
}

func (k *keeper) write(list []snapshot) {
	defer func() { <-k.busy }()
	ctx, cancel := context.WithTimeout(context.Background(), checkpointEvery)
	defer cancel()
	for _, s := range list {
		saved, err := k.engine.Bus.SaveCheckpoint(ctx, s.lane.number, s.point, bytes.NewReader(s.blob))
		switch {
		case err == nil:
			s.lane.checkpoint = saved // read again only after busy is free
		case busy(err) || errors.Is(err, context.DeadlineExceeded):
			k.engine.Log.Warn("a checkpoint could not be written; the next one is tried in its turn", "lane", s.lane.number, "error", err)
			return
		default:
			k.report(fmt.Errorf("write the checkpoint of lane %d: %w", s.lane.number, err))
			return
		}
	}
	k.engine.update(func(st *Status) { st.Checkpoints++; st.LastCheckpoint = time.Now() })
}

func (k *keeper) report(err error) {
	select {
	case k.err <- err:
	default: // one is enough to end the session
	}
}

// failed returns the error that the session must end with, if there is one.
func (k *keeper) failed() error {
	select {
	case err := <-k.err:
		return err
	default:
		return nil
	}
}

// wait waits for what is being written and returns what failed.
func (k *keeper) wait() error {
	select {
	case k.busy <- struct{}{}:
		<-k.busy
		return k.failed()
	case <-time.After(endWithin):
		k.engine.Log.Warn("a checkpoint is still being written at the end; the next start replays a little more")
		return nil
	}
}

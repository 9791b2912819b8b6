package sink

import (
	"bytes"
	"context"
	"time"

	"github.com/opencoc/coc/services/bus"
)

// gatherer makes cuts of what it reads.
type gatherer struct {
	f     *follower
	r     *bus.Reader
	spare *item // read, belongs to the next cut
}

// run gives cut after cut to ready, and closes it when reading ends, on an
// error, or when nobody takes them any more.
func (g *gatherer) run(taken context.Context, ready chan<- []item) error {
	defer close(ready)
	for {
		items, err := g.gather()
		if len(items) > 0 {
			select {
			case ready <- items:
			case <-taken.Done():
				return nil
			}
		}
		if err != nil || g.f.reading.Err() != nil {
			return err
		}
	}
}

// gather collects the messages of the next cut: what comes within a second,
// up to the bounds and to where the schema changes. The message that did not
// fit any more is kept for the cut after.

func (g *gatherer) gather() ([]item, error) {
	var items []item
	var weight int64
	var schema []byte
	var until time.Time // of the first message on; zero: wait for one
	for len(items) < cutMessages {
		it, ok, err := g.next(until)
		if err != nil || !ok {
			return items, err
		}
		full := len(items) > 0 && weight+it.weight() > cutWeight
		changed := schema != nil && it.schema != nil && !bytes.Equal(schema, it.schema)
		if full || changed {
			g.spare = &it
			return items, nil
		}
		if len(items) == 0 {
			until = time.Now().Add(cutTime)
		}
		if it.schema != nil {
			schema = it.schema
		}
		items = append(items, it)
		weight += it.weight()
	}
	return items, nil
}

// through collects exactly the messages through a sequence, for a cut that was
// recorded before.
func (g *gatherer) through(last uint64) ([]item, error) {
	var items []item
	for {
		it, ok, err := g.next(time.Time{})
		if err != nil || !ok {
			return nil, err
		}
		items = append(items, it)
		if it.Seq >= last {
			return items, nil
		}
	}
}

func (g *gatherer) next(until time.Time) (item, bool, error) {
	if g.spare != nil {
		it := *g.spare
		g.spare = nil
		return it, true, nil
	}
	m, ok, err := g.f.next(g.r, until)
	if err != nil || !ok {
		return item{}, false, err
	}
	return inspect(m), true, nil
}

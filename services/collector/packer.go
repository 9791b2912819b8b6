package collector

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/opencoc/coc/services/event"
)

// packer gathers a source's drafts into parcels that fit, each with the place
// where the source goes on after it. One goroutine at a time.
type packer struct {
	// put hands a parcel over; it blocks while too much is waiting.
	put func(context.Context, *parcel) error
	// seal takes names and secrets out, waiting while the bus is away.
	seal func(context.Context, []draft) error
	now  func() int64
	from *sourceState
	name string
	// done is called for each parcel when it is stored or given up.
	done func(outcome)

	open  *parcel
	last  *event.Event
	place place
}

// place is where a source goes on: at, and of what it reads there the first
// skip events were handed over before. A line that says that it happened 5,000
// times may not fit into one message, hence skip.
type place struct {
	At   any `json:"at"` // made into JSON when a parcel is closed only
	Skip int `json:"skip,omitempty"`
}

// kept is a place as it is read back.
type kept struct {
	At   json.RawMessage `json:"at"`
	Skip int             `json:"skip"`
}

// resume reads the source's position into at, and returns how many events of
// what it reads there are to be left out. found is false when it has none.
func (s *sourceState) resume(at any) (skip int, found bool, err error) {
	raw := s.c.pos.cursor(s.Name)
	if raw == nil {
		return 0, false, nil
	}
	var k kept
	if err = json.Unmarshal(raw, &k); err == nil {
		err = json.Unmarshal(k.At, at)
	}
	if err != nil {
		return 0, false, fmt.Errorf("the position of source %s is not readable: %w", s.Name, err)
	}
	return k.Skip, true, nil
}

// packer returns one for the source's own goroutine.
func (s *sourceState) packer() *packer {
	return &packer{put: s.c.batch.put, seal: s.sealWaiting, now: s.c.now, from: s, name: s.Name}
}

// add takes the drafts that one line became; before and after are the places
// around it, skip how many of its events are to be left out. The drafts may be
// used again when it returns.
func (k *packer) add(ctx context.Context, drafts []draft, before, after any, skip int) error {
	if err := k.seal(ctx, drafts); err != nil {
		return err
	}
	given := 0 // events of this line that are handed over or skipped
	for i := range drafts {
		d := &drafts[i]
		left := d.rows()
		if skip > 0 {
			out := min(skip, left)
			skip, left, given = skip-out, left-out, given+out
		}
		for left > 0 {
			n := k.fit(d, left)
			if n == 0 {
				if given > 0 {
					k.place = place{before, given}
				}
				if err := k.flush(ctx); err != nil {
					return err
				}
				continue
			}
			k.take(d, n)
			left, given = left-n, given+n
			k.place = place{before, given}
		}
	}
	k.place = place{At: after}
	return nil
}

// fit says how many of n repeats of d the open parcel still takes.
func (k *packer) fit(d *draft, n int) int {
	if k.open == nil {
		k.open = &parcel{from: k.from, name: k.name, done: k.done}
		k.last = nil
	}
	first := rawSize(&d.Event, k.last)
	again := rawSize(&d.Event, &d.Event)
	room := limitParcelBytes - k.open.bytes - first
	if k.open.rows > 0 && (room < 0 || k.open.rows >= limitParcelRows) {
		return 0
	}
	return max(1, min(n, limitParcelRows-k.open.rows, 1+max(0, room)/again))
}

func (k *packer) take(d *draft, n int) {
	p := k.open
	p.bytes += rawSize(&d.Event, k.last) + (n-1)*rawSize(&d.Event, &d.Event)
	p.rows += n
	p.drafts = append(p.drafts, *d)
	c := &p.drafts[len(p.drafts)-1]
	c.Labels, c.names, c.times = slices.Clone(d.Labels), nil, n
	k.last = &c.Event
}

// flush hands the open parcel over, with the place reached. Without one it does
// nothing: a place alone is noted with the next events.
func (k *packer) flush(ctx context.Context) error {
	p := k.open
	if p == nil || p.rows == 0 {
		return nil
	}
	if k.place.At != nil {
		cursor, err := json.Marshal(k.place)
		if err != nil {
			return fmt.Errorf("place of %s: %w", k.name, err)
		}
		p.cursor = cursor
	}
	p.received, p.claim = k.now(), k.from.claim.Load()
	k.open, k.last = nil, nil
	return k.put(ctx, p)
}

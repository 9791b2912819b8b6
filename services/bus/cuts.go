package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Cut is the sink's position in a stream and what it is writing: messages
// through Done are in ClickHouse; where First is above Done, the messages
// First to Last less Excluded, Rows events in all, are being inserted as one.
type Cut struct {
	Done     uint64    `json:"done"`
	First    uint64    `json:"first,omitempty"`
	Last     uint64    `json:"last,omitempty"`
	Rows     int64     `json:"rows,omitempty"`
	Excluded []uint64  `json:"excluded,omitempty"`
	Saved    time.Time `json:"saved"`
	Revision uint64    `json:"-"` // for the next SaveCut; 0: there was none
}

// Open reports whether a cut was recorded and not done.
func (c Cut) Open() bool { return c.First > c.Done && c.Last >= c.First }

func cutKey(name string) string { return "sink." + name }

// LoadCut reads the position of a name (CutEvents, CutFindings, CutWork); zero
// when there is none yet.
func (b *Bus) LoadCut(ctx context.Context, name string) (Cut, error) {
	e, err := b.kvs[bucketPositions].Get(ctx, cutKey(name))
	if errors.Is(err, ErrNotFound) {
		return Cut{}, nil
	}
	if err != nil {
		return Cut{}, err
	}
	var c Cut
	if err := json.Unmarshal(e.Value, &c); err != nil {
		return Cut{}, fmt.Errorf("bus: the sink's position %s is not readable: %w", name, err)
	}
	c.Revision = e.Revision
	return c, nil
}

// SaveCut records a cut on condition that the one recorded is still that of
// c.Revision, and returns it with its new revision. ErrConflict: another sink
// is at work. Saved is now where it is zero; a caller that sets it knows its own
// cut again after an answer was lost.
func (b *Bus) SaveCut(ctx context.Context, name string, c Cut) (Cut, error) {
	if len(c.Excluded) > maxExcluded {
		return c, fmt.Errorf("bus: cut excludes %d messages: %w (at most %d)", len(c.Excluded), ErrTooBig, maxExcluded)
	}
	if c.Saved.IsZero() {
		c.Saved = b.Now().UTC()
	}
	data, err := json.Marshal(c)
	if err != nil {
		return c, fmt.Errorf("bus: cut %s: %w", name, err)
	}
	revision, err := b.kvs[bucketPositions].Update(ctx, cutKey(name), data, c.Revision)
	if err != nil {
		return c, err
	}
	c.Revision = revision
	return c, nil
}

// Names of the sink's positions, by stream.
const (
	CutEvents   = "events"
	CutFindings = "findings"
	CutWork     = "work"
)

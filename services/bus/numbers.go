package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
)

// Numbers is how far a collector's numbering is stored.
type Numbers struct {
	Epoch int64 `json:"epoch"`
	Last  int64 `json:"last"` // number of the last event stored; 0: none of this epoch
}

// LastNumbers returns the last numbers stored for a collector: from its last
// message in EVENTS, or, when that is purged, from what the sink wrote down.
// Zero when the collector is new.
func (b *Bus) LastNumbers(ctx context.Context, collector string) (Numbers, error) {
	if err := CheckName(collector); err != nil {
		return Numbers{}, err
	}
	last, err := b.lastOf(ctx, streamEvents, subjectEvents+collector)
	if err == nil {
		return last.Numbers(), nil
	}
	if !errors.Is(err, ErrNotFound) {
		return Numbers{}, err
	}
	return b.keptNumbers(ctx, collector)
}

// keptNumbers reads what the sink wrote down; zero when nothing.
func (b *Bus) keptNumbers(ctx context.Context, collector string) (Numbers, error) {
	e, err := b.kvs[bucketNumbers].Get(ctx, collector)
	if errors.Is(err, ErrNotFound) {
		return Numbers{}, nil
	}
	if err != nil {
		return Numbers{}, err
	}
	var n Numbers
	if err := json.Unmarshal(e.Value, &n); err != nil {
		return Numbers{}, fmt.Errorf("bus: numbers of collector %s are not readable: %w", collector, err)
	}
	return n, nil
}

// PutNumbers writes down how far a collector's events are in ClickHouse. The
// sink does so before its position moves, so that a purge never takes the last
// trace of a collector's numbering.
func (b *Bus) PutNumbers(ctx context.Context, collector string, n Numbers) error {
	data, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("bus: numbers of %s: %w", collector, err)
	}
	_, err = b.kvs[bucketNumbers].Put(ctx, collector, data)
	return err
}

// Numbers of a message of EVENTS: through its last event.
func (m Message) Numbers() Numbers {
	return Numbers{Epoch: m.Meta.Epoch, Last: max(0, m.Meta.First+m.Meta.Rows-1)}
}

// lastOf returns the last message of a subject, ErrNotFound when there is none.
func (b *Bus) lastOf(ctx context.Context, stream, subject string) (Message, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	raw, err := b.streams[stream].GetLastMsgForSubject(ctx, subject)
	if err != nil {
		return Message{}, explain(err, "bus: cannot read the last message of "+subject)
	}
	return fromRaw(raw), nil
}

package collector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/opencoc/coc/services/bus"
	"github.com/opencoc/coc/services/event"
)

var schemaVersion = func() int {
	n, err := strconv.Atoi(event.SchemaVersion)
	if err != nil {
		panic("event.SchemaVersion is not a number")
	}
	return n
}()

// connect opens the publisher, for as long as it takes, and decides the epoch.
// It returns false when end came first.
func (b *batcher) connect(end context.Context) bool {
	for pause := retryFirst; ; pause = min(2*pause, retryLast) {
		pub, err := b.bus.NewPublisher(end, b.id)
		if err == nil {
			first := b.pub == nil
			b.pub = pub
			if first && b.pos != nil {
				b.pos.resolve(pub.Epoch(), pub.Next()-1)
			}
			b.chooseEpoch()
			b.epoch.Store(pub.Epoch())
			b.next.Store(pub.Next())
			b.set(statePublishing, "")
			return true
		}
		if end.Err() != nil {
			return false
		}
		b.trouble(err)
		if sleep(end, pause) != nil {
			return false
		}
	}
}

// chooseEpoch begins a new epoch when this collector's state and the bus do not
// belong together: the state folder was lost while the bus knows numbers, or the
// bus was lost while the state knows numbers.
func (b *batcher) chooseEpoch() {
	if b.pos == nil { // an import: its numbers are a function of its content
		return
	}
	known, epoch, last := b.pos.numbers()
	switch {
	case !known && b.pub.Next() > 1:
		b.log.Warn("this collector has no state of its own but the bus knows numbers of it: it starts a new epoch", "collector", b.id, "epoch", b.pub.Epoch(), "last", b.pub.Next()-1)
		b.pub.NewEpoch()
	case known && (b.pub.Epoch() < epoch || b.pub.Epoch() == epoch && b.pub.Next() <= last):
		b.log.Warn("the bus has forgotten numbers that this collector gave: it starts a new epoch", "collector", b.id, "epoch", epoch, "last", last, "bus_epoch", b.pub.Epoch(), "bus_last", b.pub.Next()-1)
		b.pub.NewEpoch()
	}
}

// flush publishes the batch and does not return before it is stored, unless end
// comes first: then its parcels are told so. An empty batch is a heartbeat.
func (b *batcher) flush(end context.Context) {
	rows := b.builder.Rows()
	meta := b.meta(rows)
	data, err := b.builder.Encode()
	if err != nil || len(data) > bus.MaxMessageBytes {
		b.tooBig(end, err)
		return
	}
	seq, err := b.store(end, &meta, data)
	if err != nil {
		b.settle(func(p *parcel) outcome { return outcome{err: err} })
		return
	}
	b.refusedStored(meta.Refused)
	b.lastMark = meta.Mark
	b.lastMarkShown.Store(meta.Mark)
	b.messages.Add(1)
	b.rows.Add(int64(rows))
	b.bytes.Add(int64(len(data)))
	b.epoch.Store(b.pub.Epoch())
	b.next.Store(b.pub.Next())
	if rows > 0 {
		b.lastStored.Store(b.now())
	}
	b.set(statePublishing, "")
	first := meta.First
	b.settle(func(p *parcel) outcome {
		o := outcome{epoch: meta.Epoch, first: first, rows: p.rows, seq: seq}
		first += int64(p.rows)
		return o
	})
	// A message costs its readers about half a millisecond whatever it holds, so
	// a quiet collector sends fewer.
	if rows >= lingerFew {
		b.linger = lingerShort
	} else {
		b.linger = min(2*b.linger, b.longest)
	}
}

// settle ends the batch.
func (b *batcher) settle(of func(*parcel) outcome) {
	parcels := b.parcels
	b.parcels, b.keys = nil, 0
	b.builder.Reset()
	for _, p := range parcels {
		b.finish(p, of(p))
	}
}

// meta describes the batch as it is.
func (b *batcher) meta(rows int) bus.Meta {
	m := bus.Meta{
		Epoch: b.pub.Epoch(), First: b.pub.Next(), Rows: int64(rows), Bytes: int64(b.builder.RawBytes()),
		Schema: schemaVersion, Refused: b.takeRefused(),
	}
	if rows > 0 {
		m.Sources = make(map[string]int64)
	}
	at := 0
	for _, p := range b.parcels {
		m.Sources[p.name] += int64(p.rows)
		if p.claim > p.from.sent.Load() {
			p.from.sent.Store(p.claim)
		}
		for _, k := range p.keys {
			m.Keys = append(m.Keys, k.hash+"-"+strconv.Itoa(at+k.first)+"-"+strconv.Itoa(k.rows))
		}
		at += p.rows
	}
	// The parcels of this batch are no longer pending for the mark.
	for _, p := range b.parcels {
		p.from.pending.Add(-1)
	}
	m.Mark = max(b.lastMark, b.mark(b.now()))
	for _, p := range b.parcels {
		p.from.pending.Add(1)
	}
	return m
}

// store publishes until the message is stored or end comes. Another publisher
// of the same name makes it number the batch anew.
func (b *batcher) store(end context.Context, m *bus.Meta, data []byte) (uint64, error) {
	cursors := b.cursors()
	for pause := retryFirst; ; pause = min(2*pause, retryLast) {
		if b.pos != nil {
			// What is about to be sent is noted first, so that after a crash the
			// bus's numbers tell whether these cursors count.
			if err := b.pos.prepare(m.Epoch, m.First, m.Rows, cursors); err != nil {
				b.set(stateAway, err.Error())
				if sleep(end, pause) != nil {
					return 0, errStopped
				}
				continue
			}
		}
		seq, err := b.pub.Publish(end, *m, data)
		switch {
		case err == nil:
			if b.pos != nil {
				b.pos.confirm(b.pub.Epoch(), b.pub.Next()-1)
			}
			return seq, nil
		case errors.Is(err, bus.ErrFenced), errors.Is(err, bus.ErrNumber):
			b.log.Error("another collector publishes under this name: give each an id of its own", "collector", b.id, "error", err)
			if data, err = b.renumber(end, m); err != nil {
				return 0, err
			}
		case end.Err() != nil:
			return 0, fmt.Errorf("%w: %w", errStopped, err)
		default:
			b.trouble(err)
		}
		if sleep(end, pause) != nil {
			return 0, errStopped
		}
	}
}

// renumber opens a new publisher and encodes the batch with its numbers.
func (b *batcher) renumber(end context.Context, m *bus.Meta) ([]byte, error) {
	if !b.connect(end) {
		return nil, errStopped
	}
	b.builder.Reset()
	for _, p := range b.parcels {
		b.append(p)
	}
	m.Epoch, m.First = b.pub.Epoch(), b.pub.Next()
	return b.builder.Encode()
}

// cursors returns where the sources of this batch go on after it.
func (b *batcher) cursors() map[string]json.RawMessage {
	var c map[string]json.RawMessage
	for _, p := range b.parcels {
		if p.cursor != nil {
			if c == nil {
				c = make(map[string]json.RawMessage)
			}
			c[p.name] = p.cursor
		}
	}
	return c
}

// tooBig handles a batch that does not fit the bus in spite of its measures:
// its parcels are sent one by one, and one that is too big by itself is
// refused.
func (b *batcher) tooBig(end context.Context, err error) {
	parcels := b.parcels
	b.parcels, b.keys = nil, 0
	b.builder.Reset()
	if len(parcels) == 1 {
		p := parcels[0]
		b.log.Error("a parcel is too big for the bus", "source", p.name, "rows", p.rows, "error", err)
		p.from.refuse(p.name, event.TooLong, int64(p.rows))
		b.finish(p, outcome{err: fmt.Errorf("%d events do not fit into one message of the bus: send fewer at once", p.rows)})
		return
	}
	for _, p := range parcels {
		b.parcels = []*parcel{p}
		b.keys = len(p.keys)
		b.append(p)
		b.flush(end)
	}
}

// lowWater is the collector's low-water mark: the least of what its sources
// have handed over, each less how late its events may come.
func lowWater(sources []*sourceState, now int64) int64 {
	mark := now - latenessRemote.Milliseconds()
	found := false
	for _, s := range sources {
		at, ok := s.progress(now)
		if !ok {
			continue
		}
		if at -= s.Lateness.Milliseconds(); !found || at < mark {
			mark, found = at, true
		}
	}
	return mark
}

package collector

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/opencoc/coc/services/bus"
	"github.com/opencoc/coc/services/event"
)

// What the publisher is at.
const (
	stateStarting   = "starting"
	statePublishing = "publishing"
	stateFull       = "bus full"
	stateAway       = "bus away"
	stateStopped    = "stopped"
)

var (
	errFull    = errors.New("too much is waiting for the bus")
	errAway    = errors.New("the bus does not answer")
	errStopped = errors.New("the collector is ending")
)

// batcher gathers parcels into messages and publishes them one after another.
// Any goroutine may put parcels; one goroutine runs it.
type batcher struct {
	bus  *bus.Bus
	log  *slog.Logger
	id   string
	now  func() int64 // the bus's clock, Unix ms
	pos  *positions
	mark func(now int64) int64
	// stored is called for each parcel once it is on the bus.
	stored func(*parcel, outcome)

	queue chan *parcel
	room  *semaphore.Weighted // bytes that wait
	// closed is shut when no parcel is taken any more.
	closed chan struct{}
	// gate is held while a parcel is put without waiting, so that none slips in
	// behind the last look into the queue.
	gate    sync.RWMutex
	closing sync.Once
	waiting atomic.Int64 // events in queue and batch

	mu      sync.Mutex
	state   string
	lastErr string
	refused map[string]int64 // since the last message, by "source:reason"

	pub      *bus.Publisher
	builder  *event.Builder
	parcels  []*parcel // of the open batch
	keys     int
	carry    *parcel // did not fit into the batch before
	linger   time.Duration
	longest  time.Duration // lingerLong
	lastMark int64

	epoch, next, messages, rows, bytes, lastStored, lastMarkShown atomic.Int64
}

func newBatcher(b *bus.Bus, log *slog.Logger, id string, pos *positions) *batcher {
	return &batcher{
		bus: b, log: log, id: id, pos: pos, state: stateStarting,
		now:   func() int64 { return b.Now().UnixMilli() },
		queue: make(chan *parcel, limitQueue), room: semaphore.NewWeighted(limitQueueBytes),
		closed: make(chan struct{}), refused: make(map[string]int64),
		builder: event.NewBuilder(), linger: lingerShort, longest: lingerLong,
	}
}

// put hands a parcel over and waits while too much is waiting. It returns
// ctx's error, or errStopped; the parcel was then not taken.
func (b *batcher) put(ctx context.Context, p *parcel) error {
	if err := b.room.Acquire(ctx, int64(p.bytes)); err != nil {
		return err
	}
	p.from.pending.Add(1)
	b.waiting.Add(int64(p.rows))
	select {
	case <-b.closed:
	case <-ctx.Done():
	default:
		select {
		case b.queue <- p:
			return nil
		case <-b.closed:
		case <-ctx.Done():
		}
	}
	p.from.pending.Add(-1)
	b.waiting.Add(-int64(p.rows))
	b.room.Release(int64(p.bytes))
	if err := ctx.Err(); err != nil {
		return err
	}
	return errStopped
}

// tryPut is put for a sender that is told to come again: it never waits.
func (b *batcher) tryPut(p *parcel) error {
	switch state, _ := b.status(); state {
	case stateFull:
		return errFull
	case stateAway, stateStarting:
		return errAway
	case stateStopped:
		return errStopped
	}
	if !b.room.TryAcquire(int64(p.bytes)) {
		return errFull
	}
	p.from.pending.Add(1)
	b.waiting.Add(int64(p.rows))
	err := b.enqueue(p)
	if err == nil {
		return nil
	}
	p.from.pending.Add(-1)
	b.waiting.Add(-int64(p.rows))
	b.room.Release(int64(p.bytes))
	return err
}

// enqueue puts a parcel into the queue if there is room.
func (b *batcher) enqueue(p *parcel) error {
	b.gate.RLock()
	defer b.gate.RUnlock()
	select {
	case <-b.closed:
		return errStopped
	default:
	}
	select {
	case b.queue <- p:
		return nil
	default:
		return errFull
	}
}

// shut lets no parcel in any more.
func (b *batcher) shut() {
	b.closing.Do(func() {
		b.gate.Lock()
		close(b.closed)
		b.gate.Unlock()
	})
}

func (b *batcher) refuse(name, reason string, n int64) {
	b.mu.Lock()
	b.refused[name+":"+reason] += n
	b.mu.Unlock()
}

func (b *batcher) status() (state, lastErr string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state, b.lastErr
}

func (b *batcher) set(state, lastErr string) {
	b.mu.Lock()
	changed := b.state != state
	b.state = state
	if lastErr != "" {
		b.lastErr = lastErr
	}
	b.mu.Unlock()
	if changed {
		switch {
		case state == stateStopped: // why is for whoever started it
			b.log.Info("the collector has stopped")
		case lastErr != "":
			b.log.Warn("the collector cannot send: events wait here, and senders are told to come again", "state", state, "error", lastErr)
		default:
			b.log.Info("the collector is " + state)
		}
	}
}

// trouble shows an error of the bus in the state.
func (b *batcher) trouble(err error) {
	switch {
	case errors.Is(err, bus.ErrFull):
		b.set(stateFull, err.Error())
	default:
		b.set(stateAway, err.Error())
	}
}

// run publishes until ctx ends; then what was taken before is flushed until
// the deadline that end gives.
//
// It must have been connected. An error is a defect of coc: what was taken and
// is not stored was told so.
func (b *batcher) run(ctx, end context.Context) (err error) {
	defer b.set(stateStopped, "")
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("a defect of coc in the collector's publisher, at %s: %v; please report it", panicPlace(), p)
		}
		b.giveUp(errStopped)
	}()
	idle := time.NewTimer(heartbeatEvery)
	defer idle.Stop()
	for {
		idle.Reset(heartbeatEvery)
		if p := b.carry; p != nil {
			b.carry = nil
			b.add(p)
		} else {
			select {
			case p := <-b.queue:
				b.add(p)
			case <-idle.C:
				b.flush(end)
				continue
			case <-ctx.Done():
				b.drain(end)
				return nil
			}
		}
		b.gather(ctx)
		b.flush(end)
	}
}

// drain flushes what is still in the queue, and closes it. Sources and handlers
// have ended, or are told no.
func (b *batcher) drain(end context.Context) {
	b.shut()
	for {
		if p := b.carry; p != nil {
			b.carry = nil
			b.add(p)
		}
		for b.carry == nil {
			select {
			case p := <-b.queue:
				b.add(p)
				continue
			default:
			}
			break
		}
		if len(b.parcels) == 0 {
			break
		}
		b.flush(end)
		if end.Err() != nil {
			break
		}
	}
	b.flush(end) // the last mark and counts
}

// giveUp tells whoever still waits that their parcels are not stored.
func (b *batcher) giveUp(err error) {
	b.shut()
	if p := b.carry; p != nil {
		b.carry = nil
		b.finish(p, outcome{err: err})
	}
	for {
		select {
		case p := <-b.queue:
			b.finish(p, outcome{err: err})
			continue
		default:
		}
		break
	}
	for _, p := range b.parcels {
		b.finish(p, outcome{err: err})
	}
	b.parcels = nil
}

// gather fills the batch until it is full or has waited long enough.
func (b *batcher) gather(ctx context.Context) {
	timer := time.NewTimer(b.linger)
	defer timer.Stop()
	for b.carry == nil && b.builder.Rows() < event.LimitRows {
		select {
		case p := <-b.queue:
			b.add(p)
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// add takes a parcel into the batch, or carries it to the next when it does not
// fit: a parcel is never cut over two messages.
func (b *batcher) add(p *parcel) {
	if len(b.parcels) > 0 && (b.builder.Rows()+p.rows > event.LimitRows || b.builder.Full(p.bytes) || b.keys+len(p.keys) > bus.MaxKeys) {
		b.carry = p
		return
	}
	b.parcels = append(b.parcels, p)
	b.keys += len(p.keys)
	b.append(p)
}

// append numbers a parcel's events and puts them into the builder.
func (b *batcher) append(p *parcel) {
	for i := range p.drafts {
		e := &p.drafts[i].Event
		e.Collector, e.Epoch, e.Received, e.Source = b.id, b.pub.Epoch(), p.received, p.name
		for range p.drafts[i].rows() {
			e.Seq = b.pub.Next() + int64(b.builder.Rows())
			if err := b.builder.Append(e); err != nil {
				// Parcels are measured before; a full builder here is a defect, and
				// going on would lose an event.
				panic(fmt.Sprintf("collector: a parcel of %d rows does not fit behind %d: %v", p.rows, b.builder.Rows(), err))
			}
		}
	}
}

func (b *batcher) finish(p *parcel, o outcome) {
	b.room.Release(int64(p.bytes))
	b.waiting.Add(-int64(p.rows))
	p.from.pending.Add(-1)
	if o.err == nil && b.stored != nil {
		b.stored(p, o)
	}
	if p.done != nil {
		p.done(o)
	}
}

// takeRefused returns what was refused since the last message.
func (b *batcher) takeRefused() map[string]int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.refused) == 0 {
		return nil
	}
	return maps.Clone(b.refused)
}

// refusedStored takes what a stored message told off the counts.
func (b *batcher) refusedStored(told map[string]int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for k, n := range told {
		if b.refused[k] -= n; b.refused[k] == 0 {
			delete(b.refused, k)
		}
	}
}

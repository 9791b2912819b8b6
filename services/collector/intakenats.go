package collector

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/opencoc/coc/services/bus"
	"github.com/opencoc/coc/services/event"
)

// natsGlobsEvery is how often the tenants of NATS senders are asked for at most.
const natsGlobsEvery = 200 * time.Millisecond

// startNATS takes JSON from the stream INTAKE. A message is acknowledged when
// its events are in EVENTS. A message with an event that is refused goes to the
// dead letters whole, as a request is refused whole.
func startNATS(c *Collector, s *sourceState) func(context.Context) error {
	return func(ctx context.Context) error {
		s.set(sourceRunning, "coc.intake.<source> on the bus")
		n := &natsIntake{c: c, s: s, asking: make(chan struct{}, 1)}
		n.pool.New = func() any { return newItems() }
		return ignoreEnd(ctx, c.cfg.Bus.ConsumeIntake(ctx, n.take))
	}
}

type natsIntake struct {
	c    *Collector
	s    *sourceState
	pool sync.Pool // of *items

	mu    sync.Mutex
	globs map[string][]string // of tenants, by source
	read  time.Time           // by the bus's clock

	asking chan struct{}
}

// take stores one message. An error means that it comes again.
func (n *natsIntake) take(ctx context.Context, m bus.IntakeMessage) error {
	hash := keyHash("nats", "message", m.Key())
	e, mine := n.c.intake.idem.reserve(hash, n.c.cfg.Now())
	if !mine {
		select {
		case <-e.done:
			if e.ok {
				return nil // stored before; its acknowledgement was lost
			}
			return errors.New("not stored the first time")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	what, err := n.store(ctx, m, hash)
	n.c.intake.idem.finish(hash, e, err == nil, what)
	return err
}

func (n *natsIntake) store(ctx context.Context, m bus.IntakeMessage, hash string) (stored, error) {
	globs, err := n.tenants(ctx, m.Source, m.Time)
	if err != nil {
		return stored{}, err
	}
	t := n.pool.Get().(*items)
	defer n.pool.Put(t)
	t.reset(n.checker(globs))
	if err := t.read(m.ContentType, nil, m.Data); err != nil {
		return stored{}, n.deadLetter(ctx, m, &event.Refusal{Reason: "content_type", Detail: err.Error()}, 1)
	}
	if t.full() {
		return stored{}, n.deadLetter(ctx, m, &event.Refusal{Reason: event.TooMany, Detail: fmt.Sprintf("more than %d events in one message", event.LimitRows)}, 1)
	}
	if bad := t.badCount(); bad > 0 {
		// A message stands or falls as a whole, as a request does.
		why := &event.Refusal{Reason: t.bad[0].Reason, Field: t.bad[0].Field, Detail: fmt.Sprintf("item %d", t.bad[0].Index)}
		return stored{}, n.deadLetter(ctx, m, why, int64(t.count))
	}
	if len(t.drafts) == 0 {
		return stored{}, n.deadLetter(ctx, m, &event.Refusal{Reason: "empty", Detail: "the message holds no event"}, 1)
	}
	if err := n.c.seal.seal(ctx, t.drafts); err != nil {
		n.c.batch.trouble(err)
		return stored{}, err
	}
	done := make(chan outcome, 1)
	p := &parcel{from: n.s, name: m.Source, drafts: t.drafts, received: n.c.now(), done: func(o outcome) { done <- o }}
	p.claim = p.received
	p.measure()
	p.keys = []parcelKey{{hash, 0, p.rows}}
	if p.bytes > event.LimitBatchBytes {
		return stored{}, n.deadLetter(ctx, m, &event.Refusal{Reason: event.TooLong, Detail: "its events do not fit into one message of the bus"}, int64(p.rows))
	}
	if err := n.c.batch.put(ctx, p); err != nil {
		return stored{}, err
	}
	o := <-done // the publisher answers in every case; until then the drafts are its own
	return stored{o.epoch, o.first, o.rows}, o.err
}

// deadLetter keeps a refused message, sealed, and counts its events.
func (n *natsIntake) deadLetter(ctx context.Context, m bus.IntakeMessage, why *event.Refusal, events int64) error {
	if err := n.s.refuseItem(ctx, m.Source, why, m.Data, "coc.intake."+m.Source, m.Seq); err != nil {
		return err
	}
	if events > 1 {
		n.s.refuse(m.Source, why.Reason, events-1)
	}
	return nil
}

// checker is the intake's, with the tenants of all tokens of the source.
func (n *natsIntake) checker(globs []string) func(*draft) error {
	bounds := event.LiveBounds(n.c.cfg.Bus.Now())
	return func(d *draft) error {
		var err error
		for _, glob := range globs {
			if err = (sender{bus.Token{TenantGlob: glob}}).tenant(d); err == nil {
				break
			}
		}
		if err != nil {
			return err
		}
		for k, v := range n.s.Labels {
			if d.Label(k) == "" {
				d.label(k, v)
			}
		}
		return d.Validate(bounds)
	}
}

// tenants returns the globs of all intake tokens of a source, as of a message's
// time or later: a token that was used to publish it is among them. A token lets
// its holder publish to its source's subject only, so whoever published holds
// one of them, or belongs to the house: a source without any token is the
// house's. Revoked and expired ones count, so that revoking the last one opens
// nothing.
func (n *natsIntake) tenants(ctx context.Context, source string, at time.Time) ([]string, error) {
	if globs, ok := n.cached(source, at); ok {
		return globs, nil
	}
	select { // one at a time asks
	case n.asking <- struct{}{}:
		defer func() { <-n.asking }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if globs, ok := n.cached(source, at); ok {
		return globs, nil
	}
	n.mu.Lock()
	wait := natsGlobsEvery - n.c.cfg.Bus.Now().Sub(n.read)
	n.mu.Unlock()
	if err := sleep(ctx, max(0, min(wait, natsGlobsEvery))); err != nil {
		return nil, err
	}
	now := n.c.cfg.Bus.Now()
	list, err := n.c.cfg.Bus.Tokens(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the tenants of intake tokens: %w", err)
	}
	globs := make(map[string][]string)
	for _, t := range list {
		if t.Role == RoleIntake {
			globs[t.Source] = append(globs[t.Source], t.TenantGlob)
		}
	}
	n.mu.Lock()
	n.globs, n.read = globs, now
	n.mu.Unlock()
	return globs[source], nil
}

func (n *natsIntake) cached(source string, at time.Time) (globs []string, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.globs[source], n.read.After(at)
}

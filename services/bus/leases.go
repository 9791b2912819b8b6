package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// SinkLease is the lease of the active sink.
const SinkLease = "sink"

// LaneLease names the lease of a lane.
func LaneLease(lane int) string { return fmt.Sprintf("lane.%02d", lane) }

// Holder is who has a lease.
type Holder struct {
	Owner   string    `json:"owner"` // name of the process, its host and number
	Since   time.Time `json:"since"`
	Renewed time.Time `json:"-"`

	Nonce string `json:"nonce"`
}

// Lease is held until it is released or lost. It renews itself; whoever works
// under it watches Lost. A lease saves work and decides nothing: the fences of
// Publisher and Lane do.
type Lease struct {
	bus    *Bus
	name   string
	value  []byte
	nonce  string
	cancel context.CancelFunc
	lost   chan struct{}

	mu       sync.Mutex
	revision uint64
}

// Acquire takes a lease, or returns ErrHeld with its holder's name.
func (b *Bus) Acquire(ctx context.Context, name string) (*Lease, error) {
	return b.acquire(ctx, name, leaseEvery)
}

func (b *Bus) acquire(ctx context.Context, name string, every time.Duration) (*Lease, error) {
	host, _ := os.Hostname()
	l := &Lease{bus: b, name: name, nonce: randomText(), lost: make(chan struct{})}
	var err error
	l.value, err = json.Marshal(Holder{Owner: fmt.Sprintf("%s@%s/%d", b.cfg.Name, host, os.Getpid()), Since: b.Now().UTC(), Nonce: l.nonce})
	if err != nil {
		return nil, fmt.Errorf("bus: lease %s: %w", name, err)
	}
	asked := time.Now()
	l.revision, err = b.kvs[bucketLeases].Create(ctx, name, l.value)
	if errors.Is(err, ErrConflict) {
		return nil, fmt.Errorf("bus: lease %s: %w by %s", name, ErrHeld, b.holderName(ctx, name))
	}
	if err != nil {
		return nil, err
	}
	running, cancel := context.WithCancel(b.running)
	l.cancel = cancel
	b.tasks.Go(func() { defer cancel(); l.keep(running, asked, every) })
	return l, nil
}

// AcquireWait takes a lease as soon as it is free. It returns ctx's error when
// that ends first, and waits over times when the bus is away.
func (b *Bus) AcquireWait(ctx context.Context, name string) (*Lease, error) {
	for {
		l, err := b.Acquire(ctx, name)
		if err == nil {
			return l, nil
		}
		if !errors.Is(err, ErrHeld) && !errors.Is(err, ErrAway) && !errors.Is(err, ErrFull) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(leasePoll):
		}
	}
}

// Lost is closed when the lease is lost or released.
func (l *Lease) Lost() <-chan struct{} { return l.lost }

// Release gives the lease back, so that another has it at once.
func (l *Lease) Release(ctx context.Context) error {
	l.cancel()
	<-l.lost
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.bus.kvs[bucketLeases].bucket.Delete(ctx, l.name, jetstream.LastRevision(l.revision))
	if err == nil || isWrongSequence(err) { // taken over already
		return nil
	}
	return explain(err, "bus: cannot release the lease "+l.name)
}

// keep renews until ctx ends or the lease is another's. The time it may stay
// away counts from when the last successful renewal was asked for, by this
// process's own clock, so the owner stops before the server lets another in.
func (l *Lease) keep(ctx context.Context, renewed time.Time, every time.Duration) {
	defer close(l.lost)
	wait := every
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		limit := LeaseTTL - leaseMargin - time.Since(renewed)
		if limit <= 0 {
			l.bus.cfg.Log.Warn("a lease could not be renewed in time and is lost", "lease", l.name)
			return
		}
		asked := time.Now()
		err := l.renew(ctx, min(limit, requestTimeout))
		switch {
		case err == nil:
			renewed, wait = asked, every
		case errors.Is(err, ErrHeld):
			l.bus.cfg.Log.Warn("a lease was taken over", "lease", l.name)
			return
		default:
			wait = min(every, time.Second/2)
		}
	}
}

func (l *Lease) renew(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	l.mu.Lock()
	defer l.mu.Unlock()
	leases := l.bus.kvs[bucketLeases]
	rev, err := leases.Update(ctx, l.name, l.value, l.revision)
	if err == nil {
		l.revision = rev
		return nil
	}
	if !errors.Is(err, ErrConflict) {
		return err
	}
	// An earlier renewal whose answer did not come may stand there.
	e, err := leases.Get(ctx, l.name)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	var h Holder
	if err == nil && json.Unmarshal(e.Value, &h) == nil && h.Nonce == l.nonce {
		l.revision = e.Revision
		return nil
	}
	return ErrHeld
}

// Leases lists who holds what.
func (b *Bus) Leases(ctx context.Context) (map[string]Holder, error) {
	leases := b.kvs[bucketLeases]
	names, err := leases.Keys(ctx)
	if err != nil {
		return nil, err
	}
	holders := make(map[string]Holder, len(names))
	for _, name := range names {
		e, err := leases.Get(ctx, name)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		var h Holder
		if err := json.Unmarshal(e.Value, &h); err != nil {
			return nil, fmt.Errorf("bus: lease %s is not readable: %w", name, err)
		}
		h.Renewed = e.Time
		holders[name] = h
	}
	return holders, nil
}

func (b *Bus) holderName(ctx context.Context, name string) string {
	e, err := b.kvs[bucketLeases].Get(ctx, name)
	var h Holder
	if err != nil || json.Unmarshal(e.Value, &h) != nil {
		return "another process"
	}
	return h.Owner
}

// dropStaleLeases frees what a process before this one held. On a server that
// nobody else can reach, whoever held a lease has ended: the folder's lock says
// so. Without this, everything would stand still for LeaseTTL after a kill.
func (b *Bus) dropStaleLeases(ctx context.Context) error {
	if b.server == nil || b.cfg.Listen != "" {
		return nil
	}
	stream, err := b.js.Stream(ctx, "KV_"+string(bucketLeases))
	if err == nil {
		err = stream.Purge(ctx)
	}
	return explain(err, "bus: cannot free the leases of the process before")
}

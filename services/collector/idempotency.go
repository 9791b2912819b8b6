package collector

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencoc/coc/services/bus"
)

// idempotency remembers for ten minutes which requests and CloudEvents are on
// the bus, so that a sender that repeats one has it stored once. What it knows
// travels in the messages' headers, so that it survives a restart.
type idempotency struct {
	mu      sync.Mutex
	entries map[string]*idemEntry
	order   []idemAge // oldest first
}

type idemEntry struct {
	done chan struct{} // shut when ok and what are decided
	ok   bool
	what stored
}

type idemAge struct {
	hash  string
	entry *idemEntry
	at    time.Time
}

// stored are the numbers that a request's events got.
type stored struct {
	epoch, first int64
	rows         int
}

func newIdempotency() *idempotency {
	return &idempotency{entries: make(map[string]*idemEntry)}
}

// keyHash names a sender's key. Keys of two senders never meet.
func keyHash(sender, kind, key string) string {
	sum := sha256.Sum256([]byte(sender + "\x00" + kind + "\x00" + key))
	return hex.EncodeToString(sum[:12])
}

// reserve takes a key for a request. mine says that the caller must store and
// then call finish; else the entry is another's, decided or not.
func (i *idempotency) reserve(hash string, now time.Time) (e *idemEntry, mine bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.forget(now)
	if e := i.entries[hash]; e != nil {
		return e, false
	}
	e = &idemEntry{done: make(chan struct{})}
	i.keep(hash, e, now)
	return e, true
}

// keep remembers an entry. The lock is held.
func (i *idempotency) keep(hash string, e *idemEntry, now time.Time) {
	i.entries[hash] = e
	i.order = append(i.order, idemAge{hash, e, now})
}

// forget drops what is too old or too much. The lock is held.
func (i *idempotency) forget(now time.Time) {
	n := 0
	for n < len(i.order) && (now.Sub(i.order[n].at) > idempotencyFor || len(i.order)-n > limitIdempotency) {
		if o := i.order[n]; i.entries[o.hash] == o.entry {
			delete(i.entries, o.hash)
		}
		n++
	}
	if n > 0 {
		i.order = append(i.order[:0], i.order[n:]...)
	}
}

// finish decides an entry. What was not stored may be tried again.
func (i *idempotency) finish(hash string, e *idemEntry, ok bool, what stored) {
	i.mu.Lock()
	e.ok, e.what = ok, what
	if !ok && i.entries[hash] == e {
		delete(i.entries, hash)
	}
	i.mu.Unlock()
	close(e.done)
}

// remember reads the keys of a collector's recent messages.
func (i *idempotency) remember(ctx context.Context, b *bus.Bus, collector string) error {
	return b.Recent(ctx, collector, b.Now().Add(-idempotencyFor), func(m bus.Message) error {
		i.mu.Lock()
		defer i.mu.Unlock()
		for _, key := range m.Meta.Keys {
			hash, first, rows, ok := parseKey(key)
			if !ok {
				continue
			}
			e := &idemEntry{done: make(chan struct{}), ok: true, what: stored{m.Meta.Epoch, m.Meta.First + first, rows}}
			close(e.done)
			i.keep(hash, e, m.Time)
		}
		return nil
	})
}

// parseKey reads "<hash>-<first row>-<rows>".
func parseKey(key string) (hash string, first int64, rows int, ok bool) {
	hash, rest, ok1 := strings.Cut(key, "-")
	a, b, ok2 := strings.Cut(rest, "-")
	first, err1 := strconv.ParseInt(a, 10, 32)
	rows, err2 := strconv.Atoi(b)
	return hash, first, rows, ok1 && ok2 && err1 == nil && err2 == nil
}

package bus

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// KV is one key-value bucket. Keys are of A-Z a-z 0-9 - _ / = and . (not first
// or last), at most 200 characters; values at most MaxValueBytes.
type KV struct {
	bucket jetstream.KeyValue
	name   Bucket
	bus    *Bus
	memory bool // not on the disk
}

// Entry is one revision of a key.
type Entry struct {
	Key      string
	Value    []byte
	Revision uint64
	Time     time.Time
	Deleted  bool // only from Watch
}

// KV returns a bucket of the topology.
func (b *Bus) KV(name Bucket) (*KV, error) {
	switch name {
	case BucketImports, BucketKeys, BucketHouse, BucketCursors, BucketSeen:
		return b.kvs[name], nil
	}
	return nil, fmt.Errorf("bus: bucket %q: %w", name, ErrNotFound)
}

// Get returns the value of a key, ErrNotFound when there is none.
func (k *KV) Get(ctx context.Context, key string) (Entry, error) {
	if err := checkKey(key); err != nil {
		return Entry{}, err
	}
	e, err := k.bucket.Get(ctx, key)
	if err != nil {
		return Entry{}, k.explain(err, "read", key)
	}
	return entry(e), nil
}

// Put sets a key whatever was there.
func (k *KV) Put(ctx context.Context, key string, value []byte) (uint64, error) {
	if err := k.check(key, value); err != nil {
		return 0, err
	}
	rev, err := k.bucket.Put(ctx, key, value)
	return rev, k.explain(err, "write", key)
}

// Create sets a key that is not there, else ErrConflict.
func (k *KV) Create(ctx context.Context, key string, value []byte) (uint64, error) {
	if err := k.check(key, value); err != nil {
		return 0, err
	}
	rev, err := k.bucket.Create(ctx, key, value)
	return rev, k.explain(err, "create", key)
}

// Update sets a key that still has the revision given, else ErrConflict.
// Revision 0 means that there is none yet.
func (k *KV) Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	if revision == 0 {
		return k.Create(ctx, key, value)
	}
	if err := k.check(key, value); err != nil {
		return 0, err
	}
	rev, err := k.bucket.Update(ctx, key, value, revision)
	return rev, k.explain(err, "change", key)
}

// Delete removes a key and its history.
func (k *KV) Delete(ctx context.Context, key string) error {
	if err := checkKey(key); err != nil {
		return err
	}
	return k.explain(k.bucket.Purge(ctx, key), "delete", key)
}

// Keys lists the keys, in no order.
func (k *KV) Keys(ctx context.Context) ([]string, error) {
	keys, err := k.bucket.Keys(ctx)
	if errors.Is(err, jetstream.ErrNoKeysFound) {
		return nil, nil
	}
	return keys, k.explain(err, "list", ">")
}

// Watch calls fn with every key's value and then with every change, until ctx
// ends (nil) or fn fails (its error). pattern is a key, or a beginning ended by
// ">" ("lane.>"), or ">" for all.
func (k *KV) Watch(ctx context.Context, pattern string, fn func(Entry) error) error {
	w, err := k.bucket.Watch(ctx, pattern)
	if err != nil {
		return k.explain(err, "watch", pattern)
	}
	defer func() { _ = w.Stop() }()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-w.Updates():
			if !ok {
				if ctx.Err() != nil {
					return nil
				}
				return fmt.Errorf("bus: watch of %s/%s ended: %w", k.name, pattern, ErrClosed)
			}
			if e == nil { // end of the current values
				continue
			}
			if err := fn(entry(e)); err != nil {
				return err
			}
		}
	}
}

func entry(e jetstream.KeyValueEntry) Entry {
	return Entry{Key: e.Key(), Value: e.Value(), Revision: e.Revision(), Time: e.Created(), Deleted: e.Operation() != jetstream.KeyValuePut}
}

func (k *KV) check(key string, value []byte) error {
	if err := checkKey(key); err != nil {
		return err
	}
	if len(value) > MaxValueBytes {
		return fmt.Errorf("bus: value of %s/%s has %d bytes: %w (at most %d)", k.name, key, len(value), ErrTooBig, MaxValueBytes)
	}
	if k.memory {
		return nil
	}
	return k.bus.checkDisk()
}

func checkKey(key string) error {
	ok := key != "" && len(key) <= maxKey && key[0] != '.' && key[len(key)-1] != '.' && !strings.Contains(key, "..")
	for i := 0; ok && i < len(key); i++ {
		ok = nameByte(key[i]) || strings.IndexByte("/=.", key[i]) >= 0
	}
	if !ok {
		return fmt.Errorf("bus: key %.80q: %w: use 1 to %d of A-Z a-z 0-9 - _ / = and . (not first or last)", key, ErrInvalid, maxKey)
	}
	return nil
}

func (k *KV) explain(err error, verb, key string) error {
	if err == nil {
		return nil
	}
	what := fmt.Sprintf("bus: cannot %s %s/%s", verb, k.name, key)
	if errors.Is(err, jetstream.ErrKeyExists) {
		return fmt.Errorf("%s: %w", what, ErrConflict)
	}
	if errors.Is(err, nats.ErrConnectionClosed) {
		return fmt.Errorf("%s: %w", what, ErrClosed)
	}
	return explain(err, what)
}

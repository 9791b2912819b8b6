package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go/jetstream"
)

// applyTopology makes streams and buckets what the tables say: missing ones
// are created, drifted ones updated. What JetStream cannot change on a stream
// that exists is an error that says so.
func (b *Bus) applyTopology(ctx context.Context) error {
	scale, err := b.sizeScale(ctx)
	if err != nil {
		return err
	}
	for _, s := range streams {
		if err := b.applyStream(ctx, s, scale); err != nil {
			return err
		}
	}
	for _, spec := range buckets {
		kv, err := b.js.CreateOrUpdateKeyValue(ctx, spec.config(b.cfg.Replicas))
		if err != nil {
			return explain(err, fmt.Sprintf("bus: cannot make the bucket %s", spec.name))
		}
		b.kvs[spec.name] = &KV{bucket: kv, name: spec.name, bus: b, memory: spec.memory}
	}
	size := b.cfg.StateBytes
	if size == 0 {
		size = scaled(defaultStateBytes, scale)
	}
	b.state, err = b.js.ObjectStore(ctx, objectState)
	if errors.Is(err, jetstream.ErrBucketNotFound) || b.cfg.StateBytes != 0 {
		b.state, err = b.js.CreateOrUpdateObjectStore(ctx, jetstream.ObjectStoreConfig{
			Bucket: objectState, Description: "checkpoints and rule sets", MaxBytes: size,
			Storage: jetstream.FileStorage, Replicas: b.cfg.Replicas,
		})
	}
	return explain(err, "bus: cannot make the object store "+objectState)
}

func (b *Bus) applyStream(ctx context.Context, s streamSpec, scale float64) error {
	want := s.config(b.cfg.Replicas, s.size(&b.cfg))
	have, err := b.js.Stream(ctx, s.name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		if want.MaxBytes == 0 {
			want.MaxBytes = scaled(s.standard, scale)
		}
		return b.createStream(ctx, want)
	}
	if err != nil {
		return explain(err, "bus: cannot read the stream "+s.name)
	}
	info := have.CachedInfo()
	if want.MaxBytes == 0 { // chosen when it was created, or by the operator since
		want.MaxBytes = info.Config.MaxBytes
	}
	if used := info.State.Bytes; uint64(want.MaxBytes) < used && want.MaxBytes > 0 {
		return fmt.Errorf("bus: stream %s holds %d MiB, more than the bound of %d MiB that is asked for: let it be purged first, or give a larger bound", s.name, used/mib, want.MaxBytes/mib)
	}
	if !drifted(info.Config, want) {
		b.streams[s.name] = have
		return nil
	}
	if c := info.Config; c.Retention != want.Retention || c.Storage != want.Storage {
		return fmt.Errorf("bus: the stream %s exists with %v retention on %v storage and must have %v on %v, which JetStream cannot change: was it made by another program? Move it away (nats stream backup, then rm) and start again",
			s.name, c.Retention, c.Storage, want.Retention, want.Storage)
	}
	updated, err := b.js.UpdateStream(ctx, merged(info.Config, want))
	if err != nil {
		return explain(err, "bus: the stream "+s.name+" differs from what it must be and cannot be changed")
	}
	b.streams[s.name] = updated
	b.cfg.Log.Warn("a stream was not as declared and was put right", "stream", s.name)
	return nil
}

func (b *Bus) createStream(ctx context.Context, want jetstream.StreamConfig) error {
	made, err := b.js.CreateStream(ctx, want)
	b.streams[want.Name] = made
	return explain(err, "bus: cannot make the stream "+want.Name)
}

// drifted compares what matters to the protocols; names and texts do not.
func drifted(have, want jetstream.StreamConfig) bool {
	return !slices.Equal(have.Subjects, want.Subjects) ||
		have.Retention != want.Retention || have.Storage != want.Storage ||
		have.Discard != want.Discard || have.DiscardNewPerSubject ||
		have.Replicas != want.Replicas || have.MaxBytes != want.MaxBytes || have.MaxMsgs != want.MaxMsgs ||
		have.MaxAge != want.MaxAge || have.MaxMsgSize != want.MaxMsgSize ||
		have.MaxMsgsPerSubject != want.MaxMsgsPerSubject || have.AllowDirect != want.AllowDirect ||
		(want.Duplicates != 0 && have.Duplicates != want.Duplicates)
}

// merged keeps what an operator set beside the protocols (placement, tags).
func merged(have, want jetstream.StreamConfig) jetstream.StreamConfig {
	m := have
	m.Description, m.Subjects, m.Discard, m.DiscardNewPerSubject = want.Description, want.Subjects, want.Discard, false
	m.Replicas, m.MaxBytes, m.MaxMsgs, m.MaxAge = want.Replicas, want.MaxBytes, want.MaxMsgs, want.MaxAge
	m.MaxMsgSize, m.MaxMsgsPerSubject, m.AllowDirect = want.MaxMsgSize, want.MaxMsgsPerSubject, want.AllowDirect
	if want.Duplicates != 0 {
		m.Duplicates = want.Duplicates
	}
	return m
}

// sizeScale shrinks the default bounds so that all streams together stay below
// diskShare of the free disk. A server given by URL has its own limits.
func (b *Bus) sizeScale(_ context.Context) (float64, error) {
	if b.server == nil {
		return 1, nil
	}
	free, err := b.cfg.free(b.cfg.StoreDir)
	if err != nil {
		return 0, err
	}
	total := int64(defaultStateBytes) + int64(len(buckets))*bucketBytes
	for _, s := range streams {
		total += s.standard
	}
	return min(1, diskShare*float64(free)/float64(total)), nil
}

func scaled(standard int64, scale float64) int64 {
	return max(int64(float64(standard)*scale), min(standard, minEventsBytes))
}

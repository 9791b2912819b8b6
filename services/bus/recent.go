package bus

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Recent gives fn the stored messages of one collector since a time, oldest
// first, without waiting for new ones: after a restart a collector reads in
// Meta.Keys which requests it has stored. At least what the purge keeps
// (DefaultKeep) is there. It returns fn's first error.
func (b *Bus) Recent(ctx context.Context, collector string, since time.Time, fn func(Message) error) error {
	if err := CheckName(collector); err != nil {
		return err
	}
	nc, err := b.dial(ctx, "recent")
	if err != nil {
		return err
	}
	defer nc.Close()
	last, err := b.lastOf(ctx, streamEvents, subjectEvents+collector)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if last.Time.Before(since) {
		return nil
	}
	iter, err := openIterator(ctx, nc, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{subjectEvents + collector}, HeadersOnly: true,
		DeliverPolicy: jetstream.DeliverByStartTimePolicy, OptStartTime: &since,
	}, streamEvents)
	if err != nil {
		return err
	}
	defer iter.Stop()
	for {
		msg, err := iter.Next(jetstream.NextContext(ctx))
		if err != nil {
			return explain(err, "bus: cannot read the recent messages of "+collector)
		}
		m, _, err := fromDelivered(msg)
		if err != nil {
			return err
		}
		if err := fn(m); err != nil || m.Seq >= last.Seq {
			return err
		}
	}
}

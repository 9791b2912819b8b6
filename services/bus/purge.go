package bus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// PurgeState says what the last purge of EVENTS went by.
type PurgeState struct {
	Through uint64 // messages up to here are purged
	HeldBy  string // whose position is the least: "lane 3", "sink", "keep"
	At      time.Time
}

// PurgeState returns the outcome of this process's last purge.
func (b *Bus) PurgeState() PurgeState {
	if s := b.purged.Load(); s != nil {
		return *s
	}
	return PurgeState{}
}

// RunPurge purges each period until ctx ends, then returns nil. Zero values are
// the defaults. Several processes may run it: it goes by stored positions only.
func (b *Bus) RunPurge(ctx context.Context, every, keep time.Duration) error {
	if every <= 0 {
		every = DefaultPurgeEvery
	}
	failing := false
	b.every(ctx, every, func(ctx context.Context) {
		err := b.Purge(ctx, keep)
		switch {
		case ctx.Err() != nil:
		case err != nil && !failing:
			failing = true
			b.cfg.Log.Warn("the bus is not purged", "error", err)
		case err == nil && failing:
			failing = false
			b.cfg.Log.Info("the bus is purged again")
		}
	})
	return nil
}

// Purge removes once, from EVENTS, what every lane's checkpoint and the sink
// have behind them and what is older than keep (0: DefaultKeep); from FINDINGS
// what the sink has, always keeping each lane's last message, its fence.
func (b *Bus) Purge(ctx context.Context, keep time.Duration) error {
	if keep <= 0 {
		keep = DefaultKeep
	}
	return errors.Join(b.purgeEvents(ctx, keep), b.purgeFindings(ctx))
}

func (b *Bus) purgeEvents(ctx context.Context, keep time.Duration) error {
	stream := b.streams[streamEvents]
	info, err := stream.Info(ctx)
	if err != nil {
		return explain(err, "bus: cannot read EVENTS")
	}
	through, who, err := b.leastPosition(ctx)
	if err != nil {
		return err
	}
	first := info.State.FirstSeq
	if through >= first { // only then is it worth asking for the hour
		young, err := b.firstSince(ctx, b.Now().Add(-keep))
		if err != nil {
			return err
		}
		if young <= through {
			through, who = young-1, "keep"
		}
	}
	b.noteHeld(info, PurgeState{Through: through, HeldBy: who, At: b.Now()})
	if through < first {
		return nil
	}
	return explain(stream.Purge(ctx, jetstream.WithPurgeSequence(through+1)), "bus: cannot purge EVENTS")
}

// leastPosition returns the sequence through which everybody is done, and who
// is last. A lane without checkpoint and a sink without position hold all.
func (b *Bus) leastPosition(ctx context.Context) (uint64, string, error) {
	cut, err := b.LoadCut(ctx, CutEvents)
	if err != nil {
		return 0, "", err
	}
	least, who := cut.Done, "sink"
	for lane := range Lanes {
		c, err := b.Checkpoint(ctx, lane)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return 0, "", err
		}
		if c.Seq < least {
			least, who = c.Seq, "lane "+strconv.Itoa(lane)
		}
	}
	return least, who, nil
}

// noteHeld names who holds a bus that is getting full.
func (b *Bus) noteHeld(info *jetstream.StreamInfo, now PurgeState) {
	b.purged.Store(&now)
	limit := info.Config.MaxBytes
	full := limit > 0 && float64(info.State.Bytes) > fullShare*float64(limit)
	if b.nearlyFull.Swap(full) == full {
		return
	}
	if full {
		b.cfg.Log.Error("bus full: EVENTS is nearly at its bound and its slowest reader stands still", "held_by", now.HeldBy, "at", now.Through, "last", info.State.LastSeq, "bytes", info.State.Bytes, "bound_bytes", limit)
		return
	}
	b.cfg.Log.Info("the bus has room again")
}

// firstSince returns the sequence of the first message stored at t or later,
// or the one after the last. A consumer that begins at a time knows it without
// delivering anything.
func (b *Bus) firstSince(ctx context.Context, t time.Time) (uint64, error) {
	consumer, err := b.js.CreateConsumer(ctx, streamEvents, jetstream.ConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartTimePolicy, OptStartTime: &t,
		AckPolicy: jetstream.AckNonePolicy, HeadersOnly: true, MemoryStorage: true, InactiveThreshold: 5 * time.Second, Replicas: 1,
	})
	if err != nil {
		return 0, explain(err, "bus: cannot find the last hour in EVENTS")
	}
	info := consumer.CachedInfo()
	_ = b.js.DeleteConsumer(ctx, streamEvents, info.Name) // else it ends by itself in 5 s
	return info.Delivered.Stream + 1, nil
}

// purgeFindings goes lane by lane, for the last message of each must stay.
func (b *Bus) purgeFindings(ctx context.Context) error {
	cut, err := b.LoadCut(ctx, CutFindings)
	if err != nil || cut.Done == 0 {
		return err
	}
	stream := b.streams[streamFindings]
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(subjectFindings+"*"))
	if err != nil {
		return explain(err, "bus: cannot read FINDINGS")
	}
	if info.State.FirstSeq > cut.Done {
		return nil
	}
	for subject, n := range info.State.Subjects {
		if n < 2 {
			continue
		}
		last, err := b.lastOf(ctx, streamFindings, subject)
		if err != nil {
			return err
		}
		// Purging at or below the last message keeps it, also when another
		// is stored meanwhile.
		below := min(cut.Done+1, last.Seq)
		if err := stream.Purge(ctx, jetstream.WithPurgeSubject(subject), jetstream.WithPurgeSequence(below)); err != nil {
			return explain(err, fmt.Sprintf("bus: cannot purge %s", subject))
		}
	}
	return nil
}

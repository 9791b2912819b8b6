package bus

import (
	"context"
	"sync/atomic"
	"time"
)

// clock is the difference between the server's clock and this process's.
type clock struct{ offset atomic.Int64 }

// Offset is the bus's clock less the local one; beyond ClockSkewAlarm, either
// way, one of the two is wrong.
func (b *Bus) Offset() time.Duration { return time.Duration(b.clock.offset.Load()) }

// Now is the bus's clock: the local one, corrected. All of the house measures
// `received` by it.
func (b *Bus) Now() time.Time { return b.cfg.Now().Add(b.Offset()) }

// measureClock reads the server's time from a stream's info. The answer was
// made at some moment between asking and hearing; the middle is at most half a
// round trip wrong, so of three tries the shortest counts.
func (b *Bus) measureClock(ctx context.Context) error {
	best := time.Duration(1<<63 - 1)
	for range 3 {
		asked := b.cfg.Now()
		stream, err := b.js.Stream(ctx, streamEvents)
		if err != nil {
			return explain(err, "bus: cannot read the server's clock")
		}
		heard := b.cfg.Now()
		server := stream.CachedInfo().TimeStamp
		if server.IsZero() {
			return nil // a server before 2.10 does not tell
		}
		if trip := heard.Sub(asked); trip < best {
			best = trip
			b.clock.offset.Store(int64(server.Sub(asked.Add(trip / 2))))
		}
	}
	return nil
}

func (b *Bus) remeasureClock(ctx context.Context) {
	before := b.Offset()
	if err := b.measureClock(ctx); err != nil {
		return // the connection's own handlers tell of it; the last offset stands
	}
	was, is := before.Abs() > ClockSkewAlarm, b.Offset().Abs() > ClockSkewAlarm
	if is && !was {
		b.cfg.Log.Error("clock skew: this machine's clock and the bus's differ; set one of them right", "offset", b.Offset())
	}
	if was && !is {
		b.cfg.Log.Info("this machine's clock and the bus's agree again", "offset", b.Offset())
	}
}

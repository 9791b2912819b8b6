package stats

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/opencoc/coc/services/bus"
)

// responseTimes builds the days that openings came in for since the position.
// The position moves to what was stored when the pass began, so nothing stored
// meanwhile is missed.
func (s *Stats) responseTimes(ctx context.Context) error {
	if err := s.loadPosition(ctx); err != nil {
		return fmt.Errorf("statistics: cannot read their position: %w", err)
	}
	began := s.Now()
	through, err := s.storedThrough(ctx)
	if err != nil {
		return fmt.Errorf("statistics: cannot tell what is stored: %w", err)
	}
	since := s.position
	if !since.IsZero() {
		since = since.Add(-overlap)
		if began.Sub(s.lastWide) >= wideEvery {
			since = since.Add(-wide)
		}
	}
	days, err := s.Store.TouchedDays(ctx, since, s.Zone)
	if err != nil {
		return fmt.Errorf("statistics: cannot look for days with new openings: %w", err)
	}
	for _, d := range days {
		if len(s.retry) < retryMost {
			s.retry[d] = true
		}
	}
	if began.Sub(s.lastWide) >= wideEvery {
		s.lastWide = began
	}
	for d := range s.retry {
		if _, err := s.Store.BuildResponseTimes(ctx, d, s.Zone); err != nil {
			return fmt.Errorf("statistics: cannot build the response times of %s: %w", d, err)
		}
		delete(s.retry, d)
		s.update(func(st *Status) { st.Built++ })
	}
	return s.savePosition(ctx, through)
}

// positionKey is where the position stands in the bus's bucket of cursors.
const positionKey = "stats.response_times"

func (s *Stats) loadPosition(ctx context.Context) error {
	if s.loaded || s.Bus == nil {
		s.loaded = true
		return nil
	}
	kv, err := s.Bus.KV(bus.BucketCursors)
	if err != nil {
		return err
	}
	e, err := kv.Get(ctx, positionKey)
	if err != nil && !errors.Is(err, bus.ErrNotFound) {
		return err
	}
	if err == nil {
		// One that cannot be read is as good as none: all is built anew.
		if t, bad := time.Parse(time.RFC3339Nano, string(e.Value)); bad == nil {
			s.position = t
		} else {
			s.Log.Warn("the statistics' position cannot be read; all response times are built anew", "error", bad)
		}
	}
	s.loaded = true
	return nil
}

func (s *Stats) savePosition(ctx context.Context, t time.Time) error {
	if !t.After(s.position) {
		return nil
	}
	if s.Bus != nil {
		kv, err := s.Bus.KV(bus.BucketCursors)
		if err != nil {
			return err
		}
		if _, err := kv.Put(ctx, positionKey, []byte(t.UTC().Format(time.RFC3339Nano))); err != nil {
			return fmt.Errorf("statistics: cannot keep their position: %w", err)
		}
	}
	s.position = t
	return nil
}

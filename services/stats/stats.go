package stats

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/opencoc/coc/services/bus"
	"github.com/opencoc/coc/services/event"
	"github.com/opencoc/coc/services/store"
)

// Config is what the statistics stand on.
type Config struct {
	Store *store.Store // required
	// Bus keeps the position between starts, and tells whether the sink has
	// stored all there is. nil: a start builds all response times anew, and the
	// sink is trusted to be near.
	Bus   *bus.Bus
	Zone  *time.Location // the hoster's; default that of Store
	Every time.Duration  // between passes; default 1 min
	// Quiet is how long nothing may have come in for a day before it is
	// released; default 30 s, negative: do not ask.
	Quiet time.Duration
	// Busy says that an import is in progress: nothing is released meanwhile.
	// nil: never.
	Busy func(ctx context.Context) (bool, error)
	Log  *slog.Logger // default: discards
	Now  func() time.Time
}

func (c Config) complete() (Config, error) {
	if c.Store == nil {
		return c, errors.New("stats: Store is required")
	}
	if c.Zone == nil {
		c.Zone = c.Store.Zone()
	}
	if c.Every <= 0 {
		c.Every = defaultEvery
	}
	if c.Quiet == 0 {
		c.Quiet = defaultQuiet
	}
	if c.Busy == nil {
		c.Busy = func(context.Context) (bool, error) { return false, nil }
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c, nil
}

// Status is what the statistics did since they were made. Counts start at 0 with
// the process.
type Status struct {
	Passes   int64       `json:"passes"`
	LastPass event.Stamp `json:"last_pass,omitempty"` // end of the last pass that came to its end
	Waiting  string      `json:"waiting,omitempty"`   // why nothing is released just now
	Released int64       `json:"released"`            // days
	Built    int64       `json:"built"`               // days of response times, each time counted
	Late     int64       `json:"late"`                // events that came after a release, as far as counted in this process
	Failures int64       `json:"failures"`
	Error    string      `json:"error,omitempty"` // of the last pass, if it failed
}

// Stats makes the reports. Pass and Run belong to one goroutine; Status may be
// called from any.
type Stats struct {
	Config
	position time.Time // received before it has been looked at
	loaded   bool
	lastWide time.Time
	soon     bool               // there is something to release, only not yet
	retry    map[store.Day]bool // days whose building failed
	lateOf   map[store.Day]int64

	mu     sync.Mutex
	status Status
}

// New checks the configuration and starts nothing.
func New(c Config) (*Stats, error) {
	c, err := c.complete()
	if err != nil {
		return nil, err
	}
	return &Stats{Config: c, retry: map[store.Day]bool{}, lateOf: map[store.Day]int64{}}, nil
}

// Run is New and then Stats.Run.
func Run(ctx context.Context, c Config) error {
	s, err := New(c)
	if err != nil {
		return err
	}
	return s.Run(ctx)
}

// Run makes a pass at once and then every Config.Every, until ctx ends; then it
// returns nil. A pass that fails is told and repeated.
func (s *Stats) Run(ctx context.Context) error {
	for {
		if err := s.Pass(ctx); err != nil && ctx.Err() == nil {
			s.Log.Error("statistics: a pass failed, it is repeated", "error", err, "again_in", s.Every.String())
		}
		wait := s.Every
		if s.soon && s.Quiet > 0 {
			wait = min(wait, s.Quiet)
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		}
	}
}

// Status tells what was done.
func (s *Stats) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

func (s *Stats) update(fn func(*Status)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fn(&s.status)
}

// Pass does what there is to do now. Each step is tried, whatever became of the
// others; the error joins theirs.
func (s *Stats) Pass(ctx context.Context) error {
	err := errors.Join(s.release(ctx), s.countLate(ctx), s.responseTimes(ctx))
	s.update(func(st *Status) {
		st.Passes++
		st.Error = ""
		if err != nil {
			st.Failures++
			st.Error = err.Error()
			return
		}
		st.LastPass = event.Stamp(s.Now().UnixMilli())
	})
	return err
}

// release makes the releases of the days that are closed and quiet.
func (s *Stats) release(ctx context.Context) error {
	s.soon = false
	now := s.Now()
	closed, err := s.Store.ClosedDays(ctx, now, s.Zone, 0)
	if err != nil {
		return fmt.Errorf("statistics: cannot look for closed days: %w", err)
	}
	if len(closed) == 0 {
		s.update(func(st *Status) { st.Waiting = "" })
		return nil
	}
	s.soon = true
	why, err := s.waiting(ctx)
	if err != nil {
		return fmt.Errorf("statistics: cannot tell whether days are complete: %w", err)
	}
	if why != "" {
		s.update(func(st *Status) { st.Waiting = why })
		return nil
	}
	days := closed
	if s.Quiet > 0 {
		if days, err = s.Store.ClosedDays(ctx, now, s.Zone, s.Quiet); err != nil {
			return fmt.Errorf("statistics: cannot look for closed days: %w", err)
		}
	}
	if s.soon = len(days) < len(closed); s.soon {
		why = "events came in within " + s.Quiet.String() + " for a day that is closed"
	}
	s.update(func(st *Status) { st.Waiting = why })
	return s.releaseDays(ctx, days, now)
}

func (s *Stats) releaseDays(ctx context.Context, days []store.Day, now time.Time) error {
	for _, day := range days {
		made, err := s.Store.Release(ctx, day, s.Zone, now)
		if errors.Is(err, store.ErrReleased) { // another process was first
			continue
		}
		if err != nil {
			return fmt.Errorf("statistics: cannot release %s: %w", day, err)
		}
		s.update(func(st *Status) { st.Released++ })
		s.Log.Info("day released", "day", day, "rows", made.Rows, "few_tenants", made.FewTenants, "dominated", made.Dominated)
	}
	return nil
}

// waiting says why no day may be released now: it would be released half.
func (s *Stats) waiting(ctx context.Context) (string, error) {
	busy, err := s.Busy(ctx)
	if err != nil {
		return "", err
	}
	if busy {
		return "an import is running", nil
	}
	through, err := s.storedThrough(ctx)
	if err != nil {
		return "", err
	}
	if s.Now().Sub(through) > overlap {
		return "the sink has not stored what the bus holds", nil
	}
	return "", nil
}

// storedThrough is the time up to which all that the bus took in is stored.
func (s *Stats) storedThrough(ctx context.Context) (time.Time, error) {
	now := s.Now()
	if s.Bus == nil {
		return now, nil
	}
	cut, err := s.Bus.LoadCut(ctx, "events")
	if err != nil {
		return now, err
	}
	last, err := s.Bus.LastEvent(ctx)
	if err != nil || cut.Done >= last {
		return now, err
	}
	r, err := s.Bus.Events(ctx, cut.Done+1)
	var purged *bus.PurgedError
	if errors.As(err, &purged) {
		r, err = s.Bus.Events(ctx, 0)
	}
	if err != nil {
		return now, err
	}
	defer r.Close()
	m, err := r.Next(ctx)
	if err != nil {
		return now, err
	}
	if m.Time.Before(now) {
		return m.Time, nil
	}
	return now, nil
}

// countLate counts anew what came for released days after their release, the
// day counted longest ago first.
func (s *Stats) countLate(ctx context.Context) error {
	days, err := s.Store.ReleasedDays(ctx, "", "")
	if err != nil {
		return fmt.Errorf("statistics: cannot list the released days: %w", err)
	}
	now := s.Now()
	days = slices.DeleteFunc(days, func(d store.UsageDay) bool { return now.Sub(latest(d.LateCounted, d.Released)) < recount })
	slices.SortStableFunc(days, func(a, b store.UsageDay) int {
		return latest(a.LateCounted, a.Released).Compare(latest(b.LateCounted, b.Released))
	})
	for _, d := range days[:min(len(days), recountMost)] {
		late, err := s.Store.LateCount(ctx, d.Day)
		if err != nil {
			return fmt.Errorf("statistics: cannot count what came late for %s: %w", d.Day, err)
		}
		if late > d.Late {
			s.Log.Warn("events came after their day was released; they are counted, not added", "day", d.Day, "events", late)
		}
		s.lateOf[d.Day] = late
	}
	var sum int64
	for _, n := range s.lateOf {
		sum += n
	}
	s.update(func(st *Status) { st.Late = sum })
	return nil
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

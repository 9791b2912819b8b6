package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencoc/coc/services/bus"
	"github.com/opencoc/coc/services/rule"
)

// Config of an engine. Zero values take the defaults named.
type Config struct {
	Bus *bus.Bus
	// Set is what should run. When the stream has another set active, the owner
	// of lane 0 stores this one and switches to it. nil: run what is active, and
	// wait while there is none.
	Set *rule.Set
	// Every is the time between checkpoints, default 30 s; Tick between ticks,
	// default 10 s.
	Every, Tick time.Duration
	Log         *slog.Logger
}

// Validate fills in the defaults and refuses what would fail later.
func (c *Config) Validate() error {
	if c.Bus == nil {
		return errors.New("the engine needs a bus")
	}
	if c.Every < 0 || c.Tick < 0 {
		return errors.New("the engine's times between checkpoints and ticks cannot be negative")
	}
	if c.Every == 0 {
		c.Every = checkpointEvery
	}
	if c.Tick == 0 {
		c.Tick = tickEvery
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Engine evaluates the lanes that it can get.
type Engine struct {
	Config

	through atomic.Uint64
	skipped atomic.Int64

	mu     sync.Mutex
	status Status
}

// Status is what an engine tells of itself.
type Status struct {
	Lanes   rule.Lanes `json:"lanes"` // owned, by bit
	Running bool       `json:"running"`
	// Problem says why it does not run, or what it met last; "" is fine.
	Problem string `json:"problem,omitempty"`
	Digest  string `json:"digest"` // of the rule set in force, "" before the first
	// Through is the sequence of EVENTS up to which all findings are out, Pending
	// how many messages stand behind it.
	Through uint64 `json:"through"`
	Pending uint64 `json:"pending"`
	// Skipped counts messages that could not be decoded.
	Skipped        int64            `json:"skipped"`
	Published      int64            `json:"published"` // messages of findings
	Findings       int64            `json:"findings"`  // revisions of findings
	Checkpoints    int64            `json:"checkpoints"`
	LastCheckpoint time.Time        `json:"last_checkpoint"`
	Rules          []rule.RuleStats `json:"rules"`
	Totals         rule.RunnerStats `json:"totals"`
}

// New returns an engine that Run starts.
func New(c Config) (*Engine, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return &Engine{Config: c}, nil
}

// Run is New and (*Engine).Run.
func Run(ctx context.Context, c Config) error {
	e, err := New(c)
	if err != nil {
		return err
	}
	return e.Run(ctx)
}

// Status returns the latest figures, at most a second old.
func (e *Engine) Status() Status {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.status
	s.Through, s.Skipped = e.through.Load(), e.skipped.Load()
	return s
}

// Through is the sequence of EVENTS up to which all findings of this engine's
// lanes are out.
func (e *Engine) Through() uint64 { return e.through.Load() }

func (e *Engine) update(f func(*Status)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f(&e.status)
}

// errAgain ends a session whose successor should begin at once.
var errAgain = errors.New("lanes changed")

// Run evaluates until ctx ends, and returns nil then. It returns an error when
// going on makes no sense: a rule set that cannot be loaded, a position that the
// stream no longer holds. Starting it again later is harmless.
func (e *Engine) Run(ctx context.Context) error {
	held := newLeases(e)
	defer held.release()
	for ctx.Err() == nil {
		if err := held.take(ctx); err != nil {
			if ctx.Err() != nil {
				break
			}
			return err
		}
		err := e.session(ctx, held)
		e.update(func(s *Status) { s.Running, s.Lanes = false, 0 })
		switch {
		case ctx.Err() != nil || errors.Is(err, errAgain):
		case errors.Is(err, bus.ErrFenced) || errors.Is(err, bus.ErrConflict):
			// Another engine is ahead: what we computed is worth nothing. The lease we
			// believed in was not ours, so give it up before asking again.
			e.Log.Warn("another engine owns a lane of ours; starting over from its checkpoint", "error", err)
			held.release()
		case err != nil:
			e.update(func(s *Status) { s.Problem = err.Error() })
			return fmt.Errorf("engine stopped: %w", err)
		}
	}
	return nil
}

package collector

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/opencoc/coc/services/bus"
)

// Config says what a collector collects and where it brings it.
type Config struct {
	// Bus is where events go. Required.
	Bus *bus.Bus
	// ID names this collector in every event's identity: [A-Za-z0-9_-]{1,64}.
	// No two running collectors may share one. Default: from the host's name.
	ID string
	// StateDir holds positions of sources; made when absent. Required. When it is
	// lost the collector starts a new epoch and reads its files from the start.
	StateDir string
	// IdentityKey wraps the tenants' keys, IdentityKeySize bytes. Required.
	IdentityKey []byte
	// Sources to run. nil: DefaultSources.
	Sources *SourceSet
	// Without lists names or kinds of sources not to start.
	Without []string
	// Zone is that of logs whose source has no tz. Default Europe/Amsterdam.
	Zone *time.Location
	// Intake bounds senders by HTTP.
	Intake IntakeLimits
	// Through says how far engine and sink are; nil: an import's state never
	// becomes "through".
	Through func(ctx context.Context) (Positions, error)
	// Log gets one line an incident. Default: none.
	Log *slog.Logger
	// Now is the local clock, for the pace of things. What is stored carries the
	// bus's clock.
	Now func() time.Time
}

// Positions are the last sequences of EVENTS that all lanes of the engine and
// the sink have passed.
type Positions struct{ Engine, Sink uint64 }

// Validate fills in defaults and refuses what would fail later.
func (c *Config) Validate() error {
	if c.Bus == nil {
		return errors.New("collector: no bus")
	}
	if c.StateDir == "" {
		return errors.New("collector: no state folder: it keeps the positions of the sources")
	}
	if len(c.IdentityKey) != IdentityKeySize {
		return fmt.Errorf("collector: the identity key has %d bytes, want %d random ones", len(c.IdentityKey), IdentityKeySize)
	}
	if c.ID == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("collector: this machine has no name: set the collector's id: %w", err)
		}
		c.ID = bus.NameFrom(host)
	}
	if err := bus.CheckName(c.ID); err != nil {
		return fmt.Errorf("collector: id: %w", err)
	}
	if strings.HasPrefix(c.ID, importPrefix) {
		return fmt.Errorf("collector: id %q: names that begin with %s belong to imports", c.ID, importPrefix)
	}
	if c.Zone == nil {
		zone, err := time.LoadLocation("Europe/Amsterdam")
		if err != nil {
			return fmt.Errorf("collector: %w", err)
		}
		c.Zone = zone
	}
	if c.Sources == nil {
		c.Sources = DefaultSources()
	}
	for _, w := range c.Without {
		if !slices.ContainsFunc(c.Sources.Sources, func(s Source) bool { return s.Name == w || s.Kind == w }) && kindByName(w) == nil {
			return fmt.Errorf("collector: there is no source %q to leave out; there are %s", w, strings.Join(c.Sources.names(), ", "))
		}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c.Intake.Validate()
}

// Collector brings events from its sources to the bus.
type Collector struct {
	cfg     Config
	log     *slog.Logger
	seal    *sealer
	pos     *positions
	batch   *batcher
	sources []*sourceState
	push    *sourceState // of senders by HTTP
	intake  *intake
	imports *imports
}

// New prepares a collector and starts nothing: its handlers answer 503 until
// Run is up.
func New(cfg Config) (*Collector, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
		return nil, fmt.Errorf("collector: cannot make its state folder: %w", err)
	}
	keys, err := newKeyring(cfg.Bus, cfg.IdentityKey)
	if err != nil {
		return nil, err
	}
	pos, err := openPositions(cfg.StateDir)
	if err != nil {
		return nil, err
	}
	c := &Collector{cfg: cfg, log: cfg.Log.With("role", "collector", "collector", cfg.ID), pos: pos}
	c.seal = newSealer(cfg.Bus, keys, newAccountList(cfg.Sources.SystemAccounts))
	c.batch = newBatcher(cfg.Bus, c.log, cfg.ID, pos)
	c.batch.mark = func(now int64) int64 { return lowWater(c.sources, now) }
	c.batch.stored = func(p *parcel, _ outcome) { p.from.count(p) }
	for _, s := range cfg.Sources.Sources {
		c.addSource(s)
	}
	c.intake = newIntake(c)
	c.imports = newImports(c)
	return c, nil
}

func (c *Collector) addSource(s Source) {
	kind := kindByName(s.Kind)
	if s.Lateness == 0 {
		s.Lateness = kind.lateness
	}
	st := &sourceState{Source: s, kind: kind, c: c, log: c.log.With("source", s.Name, "kind", s.Kind), state: sourceWaiting}
	if slices.Contains(c.cfg.Without, s.Name) || slices.Contains(c.cfg.Without, s.Kind) {
		st.state, st.detail = sourceOff, "left out by --without"
	} else if s.Kind == "http" {
		c.push = st
	}
	c.sources = append(c.sources, st)
}

// now is the bus's clock in Unix milliseconds.
func (c *Collector) now() int64 { return c.cfg.Bus.Now().UnixMilli() }

// Run collects until ctx ends; then it flushes what it accepted, within five
// seconds, notes its positions and returns nil. It owns every goroutine it
// starts. What it could not flush was not acknowledged to anybody.
func (c *Collector) Run(ctx context.Context) error {
	end, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	late := context.AfterFunc(ctx, func() { time.AfterFunc(flushAtEnd, stop) })
	defer late()

	// Until the bus answers, nothing knows where its sources go on.
	opening, opened := context.WithCancel(end)
	cancelled := context.AfterFunc(ctx, opened)
	ok := c.batch.connect(opening)
	cancelled()
	opened()
	if !ok {
		c.batch.giveUp(errStopped)
		c.batch.set(stateStopped, "")
		return nil
	}
	if err := c.checkKey(end); err != nil {
		c.batch.giveUp(errStopped)
		c.batch.set(stateStopped, err.Error())
		return err
	}
	c.intake.remember(ctx)

	var publisher errgroup.Group
	working, sourcesEnded := context.WithCancel(end)
	publisher.Go(func() error { return c.batch.run(working, end) })
	c.runSources(ctx)
	c.imports.wait()
	sourcesEnded()
	err := publisher.Wait()
	if saveErr := c.pos.save(); saveErr != nil {
		err = errors.Join(err, saveErr)
	}
	return err
}

// checkKey refuses to run with an identity key that is not the house's: nothing
// could be sealed. That the bus does not answer is found out later.
func (c *Collector) checkKey(ctx context.Context) error {
	_, err := c.seal.keys.of(ctx, "")
	if errors.Is(err, errWrongKey) {
		return fmt.Errorf("collector: %w", err)
	}
	return nil
}

// Run is New and Collector.Run for those who need no handlers.
func Run(ctx context.Context, cfg Config) error {
	c, err := New(cfg)
	if err != nil {
		return err
	}
	return c.Run(ctx)
}

// runSources runs every source and returns when ctx has ended and they all have.
func (c *Collector) runSources(ctx context.Context) {
	var running sync.WaitGroup
	c.intake.open()
	for _, s := range c.sources {
		s.began.Store(c.now())
		switch {
		case s.state == sourceOff:
		case s.kind.start == nil:
			s.set(sourceRunning, s.kind.Doc)
		default:
			run := s.kind.start(c, s)
			running.Go(func() { s.supervise(ctx, run) })
		}
	}
	<-ctx.Done()
	c.intake.shut()
	running.Wait()
}

// Ready is nil while events reach the bus; else it says why they do not.
func (c *Collector) Ready() error {
	state, last := c.batch.status()
	if state == statePublishing {
		return nil
	}
	if last != "" {
		return fmt.Errorf("collector: %s: %s", state, last)
	}
	return fmt.Errorf("collector: %s", state)
}

// sealBytes seals what was refused: it may hold names, and dead letters are
// kept.
func (c *Collector) sealBytes(ctx context.Context, data []byte) ([]byte, error) {
	k, err := c.seal.keys.of(ctx, "")
	if err != nil {
		return nil, err
	}
	box, err := sealed(k.seal, data, letterLabel)
	if err != nil {
		return nil, err
	}
	return append([]byte(sealedPrefix), box...), nil
}

const (
	// sealedPrefix begins data that sealBytes made.
	sealedPrefix = "coc-sealed-1:"
	letterLabel  = "coc dead letter 1"
)

// Unseal returns what a dead letter of this package held. Data that is not
// sealed comes back as it is.
func (c *Collector) Unseal(ctx context.Context, data []byte) ([]byte, error) {
	box, ok := strings.CutPrefix(string(data), sealedPrefix)
	if !ok {
		return data, nil
	}
	k, err := c.seal.keys.of(ctx, "")
	if err != nil {
		return nil, err
	}
	plain, err := opened(k.seal, []byte(box), letterLabel)
	if err != nil {
		return nil, fmt.Errorf("the dead letter does not open with the house key: %w", err)
	}
	return plain, nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/opencoc/coc/services/bus"
	"github.com/opencoc/coc/services/store"
)

const (
	// stopWithin bounds a stop as a whole; systemd and people wait no longer.
	stopWithin = 9 * time.Second
	// goMemory is the soft limit of Go's own heap. The embedded ClickHouse has its
	// own; together they stay below what the README promises.
	goMemory = 200 << 20
	// A role that fails is started again after retryMin, doubled up to retryMax.
	retryMin, retryMax = time.Second, 30 * time.Second
	// awaitWithin bounds how long the start waits for the engine.
	awaitWithin = 20 * time.Second
	// restartLook is how often the process looks whether it must start anew.
	restartLook = 2 * time.Second
)

// node is the roles of one process with what they share. Whoever starts a
// thing registers its stop at once; stops run last in, first out.
type node struct {
	g     *Globals
	flags *CommonFlags
	log   *slog.Logger
	zone  *time.Location

	server *server
	bus    *bus.Bus
	store  *store.Store

	stops  []func(context.Context) error
	failed chan error // what ends the process: the HTTP listener, a role that must not go on
}

func newNode(g *Globals, flags *CommonFlags) (*node, error) {
	zone, err := flags.zone()
	if err != nil {
		return nil, err
	}
	log := flags.logger(g)
	g.Log = log
	if debug.SetMemoryLimit(-1) == noMemoryLimit { // GOMEMLIMIT not given
		debug.SetMemoryLimit(goMemory)
	}
	return &node{g: g, flags: flags, log: log, zone: zone, failed: make(chan error, 8)}, nil
}

// noMemoryLimit is what the runtime reports when GOMEMLIMIT is not set.
const noMemoryLimit = 1<<63 - 1

func (n *node) onStop(f func(context.Context) error) { n.stops = append(n.stops, f) }

// stop runs the stops, newest first, within stopWithin.
func (n *node) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopWithin)
	defer cancel()
	var errs []error
	for i := len(n.stops) - 1; i >= 0; i-- {
		errs = append(errs, n.stops[i](ctx))
	}
	return errors.Join(errs...)
}

// openBus starts the embedded server or connects.
func (n *node) openBus(c bus.Config) error {
	b, err := bus.Open(n.g.Ctx, c)
	if err != nil {
		return err
	}
	n.bus = b
	n.onStop(b.Close)
	n.server.addCheck("bus", b.Healthy)
	return nil
}

// openStore starts the embedded engine or connects, and migrates.
func (n *node) openStore(c store.Config) error {
	s, err := store.Open(n.g.Ctx, c)
	if err != nil && c.URL != "" {
		return fmt.Errorf("%w; see that it runs, and check --clickhouse and the user and password beside it", err)
	}
	if err != nil {
		return err
	}
	n.store = s
	n.onStop(func(context.Context) error { return s.Close() })
	n.server.addCheck("store", s.Health)
	return nil
}

// start runs a role until the node stops, and again after it failed: one that
// dies at night should not need a person when a second try would do. Between
// tries /readyz names it.
func (n *node) start(name string, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	var mu sync.Mutex
	var last error
	n.server.addCheck(name, func(context.Context) error {
		mu.Lock()
		defer mu.Unlock()
		return last
	})
	set := func(err error) { mu.Lock(); last = err; mu.Unlock() }
	go func() {
		defer close(done)
		for wait := retryMin; ; wait = min(2*wait, retryMax) {
			began := time.Now()
			err := run(ctx)
			if ctx.Err() != nil {
				if err != nil && !errors.Is(err, context.Canceled) {
					n.log.Error("role ended with an error while stopping", "role", name, "error", err)
				}
				return
			}
			if err == nil {
				err = errors.New("it ended by itself")
			}
			if time.Since(began) > 2*retryMax {
				wait = retryMin
			}
			set(fmt.Errorf("failed, next try in %v: %w", wait, err))
			n.log.Error("role failed", "role", name, "error", err, "again_in", wait.String())
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
			set(nil)
		}
	}()
	n.onStop(func(stop context.Context) error {
		cancel()
		select {
		case <-done:
			return nil
		case <-stop.Done():
			return fmt.Errorf("%s did not end within %v; nothing accepted is lost, it is taken up at the next start", name, stopWithin)
		}
	})
}

// await waits at the start until a role is so far. A role that cannot get there
// says so in /readyz, and the process goes on without it.
func (n *node) await(ok func() bool) error {
	limit := time.After(awaitWithin)
	for !ok() {
		select {
		case <-n.g.Ctx.Done():
			return n.g.Ctx.Err()
		case <-limit:
			n.log.Warn("the engine is not running yet; the collector starts all the same")
			return nil
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

// startServer serves HTTP; its stop comes before the roles' stops, so that
// nothing new is accepted while they finish.
func (n *node) startServer() {
	go func() {
		if err := n.server.serve(); err != nil {
			n.failed <- err
		}
	}()
	n.onStop(func(ctx context.Context) error {
		n.server.open.Store(false)
		short, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		if err := n.server.http.Shutdown(short); err != nil {
			return n.server.http.Close() // streams such as tail do not end by themselves
		}
		return nil
	})
}

// errRestart ends a process that a new start mends; main starts it in its place.
var errRestart = errors.New("starting again, now that the disk has room")

// wait blocks until the process is told to stop or cannot go on.
func (n *node) wait() error {
	look := time.NewTicker(restartLook)
	defer look.Stop()
	for {
		select {
		case <-n.g.Ctx.Done():
			return nil
		case err := <-n.failed:
			return err
		case <-look.C:
			if n.bus.NeedsRestart() {
				return errRestart
			}
		}
	}
}

package collector

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// limitProcessEvents bounds the batches of kernel events between reading and
// telling. When they are not told in time the socket's buffer fills; when that
// is full the kernel drops some and says so, and what runs is read anew.
const limitProcessEvents = 64

// lossesTolerated within lossWindow the connector is given up: who loses events
// all the time tells no more than one who looks.
const (
	lossesTolerated = 10
	lossWindow      = time.Minute
)

// procSource is where process events come from: a connector.
type procSource interface {
	next(to []procEvent) ([]procEvent, error)
	close()
}

// listen tells processes as the kernel does. It returns an error when the
// connector may not be used here, or not any more.
func (w *processWatcher) listen(ctx context.Context) error {
	c, err := openConnector()
	if err != nil {
		return fmt.Errorf("the kernel's process connector may not be used: %w", err)
	}
	return w.follow(ctx, c)
}

// procBatch is what one read gave.
type procBatch struct {
	events []procEvent
	err    error
}

// follow tells what a source says, until ctx or the source ends. It closes the
// source.
func (w *processWatcher) follow(ctx context.Context, from procSource) error {
	batches, stop := readAhead(ctx, from)
	defer stop()
	// A namespace of its own hears nothing: have a process start, and listen.
	if err := w.heard(ctx, batches); err != nil {
		return err
	}
	w.s.set(sourceRunning, netlinkDetail)
	tick := time.NewTicker(lingerShort)
	defer tick.Stop()
	came := false
	var lost losses
	for {
		select {
		case <-ctx.Done():
			return nil
		case b, ok := <-batches:
			if !ok {
				return ctx.Err()
			}
			came = true
			for i := range b.events {
				if err := w.kernelEvent(ctx, &b.events[i]); err != nil {
					return err
				}
			}
			switch {
			case errors.Is(b.err, errLost):
				if lost.add(w.s.c.cfg.Now()) > lossesTolerated {
					return fmt.Errorf("the kernel's process connector is given up: %w more than %d times within %v", b.err, lossesTolerated, lossWindow)
				}
				w.s.log.Warn("some processes may have been told late or not at all: reading anew what runs", "error", b.err)
				if err := w.catchUp(ctx); err != nil {
					return err
				}
			case b.err != nil:
				return fmt.Errorf("the kernel's process connector failed: %w", b.err)
			}
		case <-tick.C:
			if err := w.pack.flush(ctx); err != nil {
				return err
			}
			if !came {
				w.s.idle()
			}
			came = false
		}
	}
}

// readAhead passes on what a source says until stop, which also closes the source.
func readAhead(ctx context.Context, from procSource) (batches chan procBatch, stop func()) {
	batches = make(chan procBatch, limitProcessEvents)
	ctx, cancel := context.WithCancel(ctx)
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(batches)
		for ctx.Err() == nil {
			events, err := from.next(nil)
			if len(events) == 0 && err == nil {
				continue
			}
			select {
			case batches <- procBatch{events, err}:
			case <-ctx.Done():
			}
			if err != nil && !errors.Is(err, errLost) {
				return
			}
		}
	})
	return batches, func() {
		cancel()
		reading.Wait()
		from.close()
	}
}

const netlinkDetail = "netlink process connector"

// losses counts those of the last lossWindow.
type losses struct{ at []time.Time }

func (l *losses) add(now time.Time) int {
	n := 0
	for n < len(l.at) && now.Sub(l.at[n]) > lossWindow {
		n++
	}
	l.at = append(l.at[n:], now)
	return len(l.at)
}

// heard makes sure that this process's own doings are heard.
func (w *processWatcher) heard(ctx context.Context, batches <-chan procBatch) error {
	path, err := exec.LookPath("true")
	if err != nil {
		return nil // cannot be tried here
	}
	p, err := os.StartProcess(path, []string{"true"}, &os.ProcAttr{})
	if err != nil {
		return fmt.Errorf("start a process to be heard: %w", err)
	}
	defer func() { _, _ = p.Wait() }()
	timeout := time.NewTimer(3 * time.Second)
	defer timeout.Stop()
	for {
		select {
		case b, ok := <-batches:
			if !ok {
				return nil // ctx ended
			}
			if b.err != nil && !errors.Is(b.err, errLost) {
				return b.err
			}
			for i := range b.events {
				if id := b.events[i].tgid; id == p.Pid || id == os.Getpid() {
					return nil
				}
			}
		case <-timeout.C:
			return errors.New("the kernel's process connector is silent in this namespace")
		case <-ctx.Done():
			return nil
		}
	}
}

// catchUp tells what changed while something was not heard.
func (w *processWatcher) catchUp(ctx context.Context) error {
	changes, err := w.scan(false)
	if err != nil {
		return err
	}
	for i := range changes {
		if err := w.tell(ctx, &changes[i]); err != nil {
			return err
		}
	}
	return w.pack.flush(ctx)
}

// kernelEvent tells one start or end.
func (w *processWatcher) kernelEvent(ctx context.Context, e *procEvent) error {
	if !e.exit {
		p, ok := w.read(e.tgid)
		if !ok {
			// It ended before it could be looked at; that it was there is told.
			p = process{pid: e.tgid, began: w.s.c.now()}
		}
		if len(w.known) < limitProcesses {
			w.known[e.tgid] = p
		}
		return w.tell(ctx, &change{p, "process_started", 0})
	}
	if e.pid != e.tgid {
		return nil // a thread
	}
	p, ok := w.known[e.tgid]
	if !ok {
		return nil // forked and never became a program of its own
	}
	delete(w.known, p.pid)
	return w.tell(ctx, &change{p, "process_exited", int(e.exitStatus>>8) & 0xff})
}

// ownerOf returns the user id of a file's owner.
func ownerOf(info os.FileInfo) (string, bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "", false
	}
	return strconv.FormatUint(uint64(st.Uid), 10), true
}

package collector

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
)

// limitProcessEvents bounds the kernel's messages that wait. When more come the
// kernel drops some and says so, and what runs is read anew.
const limitProcessEvents = 8192

// listen tells processes as the kernel does. It returns an error when the
// connector may not be used here.
func (w *processWatcher) listen(ctx context.Context) error {
	events := make(chan netlink.ProcEvent, limitProcessEvents)
	failed := make(chan error, 2)
	done := make(chan struct{})
	if err := netlink.ProcEventMonitor(events, done, failed); err != nil {
		return fmt.Errorf("the kernel's process connector may not be used: %w", err)
	}
	defer func() {
		close(done)
		drain(events)
	}()
	// A namespace of its own hears nothing: have a process start, and listen.
	if err := w.heard(ctx, events, failed); err != nil {
		return err
	}
	w.s.set(sourceRunning, "netlink process connector")
	tick := time.NewTicker(lingerShort)
	defer tick.Stop()
	came := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			w.s.log.Warn("the kernel's process connector failed; some processes may not have been told", "error", err)
			return w.again(ctx)
		case e, ok := <-events:
			if !ok {
				events = nil // the error follows
				continue
			}
			came = true
			if err := w.kernelEvent(ctx, &e); err != nil {
				return err
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

// drain takes what the monitor still sends, so that it does not stay behind
// blocked on us. It ends when its socket is closed.
func drain(events <-chan netlink.ProcEvent) {
	timeout := time.NewTimer(2 * time.Second)
	defer timeout.Stop()
	for {
		select {
		case _, ok := <-events:
			if !ok {
				return
			}
		case <-timeout.C:
			return
		}
	}
}

// heard makes sure that this process's own doings are heard.
func (w *processWatcher) heard(ctx context.Context, events <-chan netlink.ProcEvent, failed <-chan error) error {
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
		case e := <-events:
			if e.Msg != nil && (int(e.Msg.Tgid()) == p.Pid || int(e.Msg.Tgid()) == os.Getpid()) {
				return nil
			}
		case err := <-failed:
			return err
		case <-timeout.C:
			return errors.New("the kernel's process connector is silent in this namespace")
		case <-ctx.Done():
			return nil
		}
	}
}

// again tells what changed while nothing was heard, and ends: the source is
// started anew.
func (w *processWatcher) again(ctx context.Context) error {
	changes, err := w.scan(false)
	if err != nil {
		return err
	}
	for i := range changes {
		if err := w.tell(ctx, &changes[i]); err != nil {
			return err
		}
	}
	return errors.Join(w.pack.flush(ctx), w.poll(ctx))
}

// kernelEvent tells one start or end.
func (w *processWatcher) kernelEvent(ctx context.Context, e *netlink.ProcEvent) error {
	switch m := e.Msg.(type) {
	case *netlink.ExecProcEvent:
		pid := int(m.ProcessTgid)
		p, ok := w.read(pid)
		if !ok {
			// It ended before it could be looked at; that it was there is told.
			p = process{pid: pid, began: w.s.c.now()}
		}
		if len(w.known) < limitProcesses {
			w.known[pid] = p
		}
		return w.tell(ctx, &change{p, "process_started", 0})
	case *netlink.ExitProcEvent:
		if m.ProcessPid != m.ProcessTgid {
			return nil // a thread
		}
		p, ok := w.known[int(m.ProcessTgid)]
		if !ok {
			return nil // forked and never became a program of its own
		}
		delete(w.known, p.pid)
		return w.tell(ctx, &change{p, "process_exited", int(m.ExitCode>>8) & 0xff})
	}
	return nil
}

// ownerOf returns the user id of a file's owner.
func ownerOf(info os.FileInfo) (string, bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "", false
	}
	return strconv.FormatUint(uint64(st.Uid), 10), true
}

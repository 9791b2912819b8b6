package collector

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencoc/coc/services/bus"
	"github.com/opencoc/coc/services/event"
)

// Kind describes a kind of source for people.
type Kind struct {
	Name, Doc string
	// Keys are those a sources.yaml may set for it, besides name and kind.
	Keys []string
}

// sourceKind is a kind of source: how it is described, and how it is run.
type sourceKind struct {
	Kind
	lateness time.Duration
	// push says that senders come to it, so that it never has a backlog of its
	// own.
	push bool
	// start returns what runs until ctx ends or it fails; nil when handlers do
	// all of its work.
	start func(c *Collector, s *sourceState) func(ctx context.Context) error
}

// sourceKinds is the list of all kinds of sources.
var sourceKinds = []sourceKind{
	{Kind: Kind{"host", "CPU, memory, disks, network, load and uptime of this machine", []string{"every", "host", "labels", "expect", "lateness"}}, lateness: latenessLive, start: startHost},
	{Kind: Kind{"processes", "processes of this machine as they start and end", []string{"every", "host", "labels", "expect", "lateness"}}, lateness: latenessLive, start: startProcesses},
	{Kind: Kind{"journal", "the systemd journal of this machine", []string{"host", "tenant", "labels", "expect", "lateness"}}, lateness: latenessLive, start: startJournal},
	{Kind: Kind{"logfile", "a file that grows by lines, followed through rotations", []string{"path", "format", "tz", "host", "tenant", "labels", "expect", "lateness"}}, lateness: latenessLive, start: startLogfile},
	{Kind: Kind{"http", "JSON by POST /v1/events", []string{"labels", "expect", "lateness"}}, lateness: latenessRemote, push: true},
	{Kind: Kind{"nats", "JSON by NATS on coc.intake.<source>", []string{"labels", "expect", "lateness"}}, lateness: latenessRemote, push: true, start: startNATS},
}

// Kinds lists the kinds of sources.
func Kinds() []Kind {
	kinds := make([]Kind, len(sourceKinds))
	for i := range sourceKinds {
		kinds[i] = sourceKinds[i].Kind
	}
	return kinds
}

func kindByName(name string) *sourceKind {
	for i := range sourceKinds {
		if sourceKinds[i].Name == name {
			return &sourceKinds[i]
		}
	}
	return nil
}

// States of a source.
const (
	sourceRunning = "running"
	sourceWaiting = "waiting" // for its file, or to be tried again
	sourceFailed  = "failed"
	sourceOff     = "off"
)

// sourceState is a source at work: its counts, how far it is, and its way to
// the publisher.
type sourceState struct {
	Source
	kind *sourceKind
	c    *Collector
	log  *slog.Logger

	// claim: all events up to here are handed over; Unix ms, 0 before the first
	// reading. sent: the claim of the last parcel in a message. pending: parcels
	// handed over and not yet in a message.
	claim, sent atomic.Int64
	pending     atomic.Int64

	events, secrets, cut, unknown atomic.Int64
	restarts                      atomic.Int64
	lastEvent                     atomic.Int64 // time of the latest event
	lastArrival, began            atomic.Int64 // when the last event came, and when the source started: for expect

	mu      sync.Mutex
	state   string
	detail  string
	refused map[string]int64 // by reason, since start
}

// errAbsent is returned by a source whose object is not there or not allowed:
// no failure, but nothing to do either. It is looked at again every minute.
type errAbsent struct{ detail string }

func (e *errAbsent) Error() string { return e.detail }

func (s *sourceState) set(state, detail string) {
	s.mu.Lock()
	changed := s.state != state || s.detail != detail
	s.state, s.detail = state, detail
	s.mu.Unlock()
	if changed && state != sourceRunning {
		s.log.Warn("source is not running", "state", state, "detail", detail)
	}
}

// refuse counts n refused events of the named sender by reason: here for people,
// and for the next message's headers, which the ledger reads.
func (s *sourceState) refuse(name, reason string, n int64) {
	s.mu.Lock()
	if s.refused == nil {
		s.refused = make(map[string]int64)
	}
	s.refused[reason] += n
	s.mu.Unlock()
	s.c.batch.refuse(name, reason, n)
}

// progress is what the low-water mark may rely on: everything up to here is in
// this message or an earlier one. ok is false for a source that has not begun.
func (s *sourceState) progress(now int64) (at int64, ok bool) {
	if s.pending.Load() > 0 {
		at = s.sent.Load()
		if at == 0 { // its first parcels are still on their way
			return 0, s.claim.Load() != 0 || s.kind.push
		}
		return at, true
	}
	if s.kind.push {
		return now, true
	}
	at = s.claim.Load()
	return at, at != 0
}

// idle says that the source was read to its end just now.
func (s *sourceState) idle() { s.claim.Store(s.c.now()) }

// sealWaiting seals, and waits with growing pauses while the bus does not take
// the sealed names.
func (s *sourceState) sealWaiting(ctx context.Context, drafts []draft) error {
	for pause := retryFirst; ; pause = min(2*pause, retryLast) {
		err := s.c.seal.seal(ctx, drafts)
		if err == nil {
			return nil
		}
		s.c.batch.trouble(err)
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
}

// count adds what a parcel brought.
func (s *sourceState) count(p *parcel) {
	s.lastArrival.Store(p.received)
	for i := range p.drafts {
		d := &p.drafts[i]
		s.events.Add(int64(d.rows()))
		if d.Time > s.lastEvent.Load() {
			s.lastEvent.Store(d.Time)
		}
		if d.secrets != 0 {
			s.secrets.Add(int64(d.secrets * d.rows()))
		}
		if d.cut != 0 {
			s.cut.Add(int64(d.cut * d.rows()))
		}
		if d.Action == actionLine {
			s.unknown.Add(int64(d.rows()))
		}
	}
}

// refuseItem counts an event that was refused where no sender waits for an
// answer, and keeps it, sealed, among the dead letters.
func (s *sourceState) refuseItem(ctx context.Context, name string, err error, data []byte, subject string, seq uint64) error {
	reason, detail := "refused", err.Error()
	if r := new(event.Refusal); asRefusal(err, &r) {
		reason = r.Reason
		detail = r.Field // the detail may quote what somebody wrote
	}
	box, sealErr := s.c.sealBytes(ctx, data)
	if sealErr != nil {
		return sealErr
	}
	letter := bus.DeadLetter{Reason: reason, From: "collector", Source: name, Detail: detail, Time: s.c.cfg.Bus.Now(), Seq: seq, Subject: subject, Data: box}
	if err := s.c.cfg.Bus.DeadLetter(ctx, letter); err != nil {
		return fmt.Errorf("keep a refused event of %s among the dead letters: %w", name, err)
	}
	s.refuse(name, reason, 1)
	return nil
}

// supervise runs a source until ctx ends: what it returns or panics with is
// shown and it is started again after a pause that grows to a minute.
func (s *sourceState) supervise(ctx context.Context, run func(context.Context) error) {
	pause := time.Second
	for ctx.Err() == nil {
		began := time.Now()
		err := protect(ctx, run)
		if ctx.Err() != nil {
			return
		}
		var absent *errAbsent
		switch {
		case errors.As(err, &absent):
			s.set(sourceOff, absent.detail)
			pause = restartLast
		case err == nil:
			s.set(sourceWaiting, "it ended; it is started again")
			s.restarts.Add(1)
		default:
			s.set(sourceFailed, err.Error())
			s.restarts.Add(1)
		}
		if time.Since(began) > restartLast && absent == nil {
			pause = time.Second
		}
		if sleep(ctx, pause) != nil {
			return
		}
		pause = min(2*pause, restartLast)
	}
}

// protect turns a panic into an error with the place where it happened.
func protect(ctx context.Context, run func(context.Context) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("a defect of coc in a source, at %s: %v; please report it", panicPlace(), p)
		}
	}()
	return run(ctx)
}

// sleep waits, or returns the context's error when that ends first.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

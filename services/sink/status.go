package sink

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// States of a sink.
const (
	standby = "standby" // another sink is active
	storing = "storing"
	waiting = "waiting" // for ClickHouse or the bus
	stopped = "stopped"
)

// Status is a snapshot of what a sink does.
type Status struct {
	State                  string // standby, storing, waiting, stopped
	Detail                 string // waiting: what for, and why
	Since                  time.Time
	Events, Findings, Work Progress
}

// Progress is how far one stream is stored.
type Progress struct {
	Through      uint64 // sequence through which all is in ClickHouse
	Pending      uint64 // messages behind it, when last read
	Cuts         int64  // inserts done
	Messages     int64
	Rows         int64
	DeadLettered int64     // messages that went to DEADLETTER
	Retries      int64     // inserts and other steps that had to be repeated
	LastTime     time.Time // bus time of the last message stored
	LastWrite    time.Time // when it was stored
	LastRows     int64
	LastDuration time.Duration // of the last cut, from recording to done
	Error        string        // why it is being repeated now, "" when it is not
}

// status is the live form of Status.
type status struct {
	now                    func() time.Time
	mu                     sync.Mutex
	state                  string
	since                  time.Time
	events, findings, work progress
}

// progress is the live form of Progress: counters for any reader, the rest
// under the lock.
type progress struct {
	through, pending                            atomic.Uint64
	cuts, messages, rows, deadLettered, retries atomic.Int64
	mu                                          sync.Mutex
	lastTime, lastWrite                         time.Time
	lastRows                                    int64
	lastDuration                                time.Duration
	failure                                     string
	since                                       time.Time
}

func (s *status) init(now func() time.Time) {
	s.now = now
	s.set(standby)
}

func (s *status) set(state string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != state {
		s.state, s.since = state, s.now()
	}
}

// wrote records one finished cut.
func (p *progress) wrote(through uint64, messages, rows int64, last, now time.Time, took time.Duration) {
	p.through.Store(through)
	p.messages.Add(messages)
	p.rows.Add(rows)
	if rows > 0 {
		p.cuts.Add(1)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lastTime, p.lastWrite, p.lastRows, p.lastDuration = last, now, rows, took
}

// failing notes why a step is repeated ("" when it succeeded) and reports
// whether that is news.
func (p *progress) failing(why string, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	news := (why == "") != (p.failure == "")
	if news {
		p.since = now
	}
	p.failure = why
	return news
}

func (p *progress) snapshot() (Progress, time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Progress{
		Through: p.through.Load(), Pending: p.pending.Load(), Cuts: p.cuts.Load(), Messages: p.messages.Load(), Rows: p.rows.Load(),
		DeadLettered: p.deadLettered.Load(), Retries: p.retries.Load(),
		LastTime: p.lastTime, LastWrite: p.lastWrite, LastRows: p.lastRows, LastDuration: p.lastDuration, Error: p.failure,
	}, p.since
}

// Status returns what the sink does now.
func (s *Sink) Status() Status {
	s.state.mu.Lock()
	st := Status{State: s.state.state, Since: s.state.since}
	s.state.mu.Unlock()
	for _, w := range []struct {
		live *progress
		to   *Progress
	}{{&s.state.events, &st.Events}, {&s.state.findings, &st.Findings}, {&s.state.work, &st.Work}} {
		var since time.Time
		*w.to, since = w.live.snapshot()
		if st.State == storing && w.to.Error != "" {
			st.State, st.Detail, st.Since = waiting, w.to.Error, since
		}
	}
	return st
}

// Ready returns nil while the sink stores or stands by, else why it does not.
func (s *Sink) Ready() error {
	switch st := s.Status(); st.State {
	case waiting:
		return fmt.Errorf("sink: nothing is stored since %s: %s", st.Since.UTC().Format(time.RFC3339), st.Detail)
	case stopped:
		return errors.New("sink: it has stopped")
	}
	return nil
}

// Through is the sequence of EVENTS through which all events are in
// ClickHouse. A sink that stands by knows it to the second.
func (s *Sink) Through() uint64 { return s.state.events.through.Load() }

// ThroughFindings is the same of FINDINGS.
func (s *Sink) ThroughFindings() uint64 { return s.state.findings.through.Load() }

// wait waits, or less when ctx ends.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

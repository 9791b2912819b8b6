package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Publisher writes the events of one collector, one message after another. It
// belongs to one goroutine.
//
// Each message is stored on condition that the subject's last message is the
// one this publisher knows. So a message repeated after an unclear outcome is
// refused when its first copy arrived, and of two publishers of one collector
// only one goes on.
type Publisher struct {
	bus       *Bus
	collector string
	subject   string
	nonce     string // of this publisher, so that its own attempts are known again
	attempts  uint64

	epoch    int64
	next     int64
	previous string // of the epoch before, until a message of the new one is stored
	last     uint64 // sequence of the subject's last message, 0 none: the fence
	open     []attempt
	fenced   bool
}

// attempt is a message whose outcome is not known.
type attempt struct {
	try   string
	epoch int64
	first int64
	rows  int64
	mark  int64
	size  int
}

func (a attempt) same(b attempt) bool { b.try = a.try; return a == b }

// NewPublisher reads how far the collector's events are stored and goes on
// behind them. A collector that was never seen begins an epoch named by the
// bus's clock in Unix seconds, so that it cannot repeat numbers of a bus that
// was thrown away.
func (b *Bus) NewPublisher(ctx context.Context, collector string) (*Publisher, error) {
	if err := CheckName(collector); err != nil {
		return nil, err
	}
	p := &Publisher{bus: b, collector: collector, subject: subjectEvents + collector, nonce: randomText()}
	last, err := b.lastOf(ctx, streamEvents, p.subject)
	var n Numbers
	switch {
	case err == nil:
		n, p.last = last.Numbers(), last.Seq
	case errors.Is(err, ErrNotFound):
		if n, err = b.keptNumbers(ctx, collector); err != nil {
			return nil, err
		}
	default:
		return nil, err
	}
	if n.Epoch == 0 {
		n.Epoch = b.Now().Unix()
	}
	p.epoch, p.next = n.Epoch, n.Last+1
	return p, nil
}

// Epoch is the epoch of the next message.
func (p *Publisher) Epoch() int64 { return p.epoch }

// Next is the number of the next event.
func (p *Publisher) Next() int64 { return p.next }

// NewEpoch begins numbering at 1 again, for a collector that cannot know which
// numbers it gave (a lost spool). The next message names the last number of
// the epoch before.
func (p *Publisher) NewEpoch() {
	p.previous = strconv.FormatInt(p.epoch, 10) + "-" + strconv.FormatInt(p.next-1, 10)
	p.epoch = max(p.epoch+1, p.bus.Now().Unix())
	p.next = 1
}

// Publish stores one message and returns its sequence. m.Epoch and m.First
// must be Epoch and Next, else ErrNumber; m.Rows 0 is a heartbeat. data is not
// kept.
//
// ErrFull: nothing was stored; wait and repeat. ErrAway: the outcome is not
// known; repeat the same message until it is (it is never stored twice); only a
// heartbeat may be dropped instead. ErrFenced: another publisher has the
// subject; this one is of no use any more. ErrTooBig: it can never be stored.
func (p *Publisher) Publish(ctx context.Context, m Meta, data []byte) (uint64, error) {
	m.Collector, m.Previous = p.collector, p.previous
	if err := p.check(m, data); err != nil {
		return 0, err
	}
	if err := p.bus.checkDisk(); err != nil {
		return 0, err
	}
	a := p.attempt(m, len(data))
	header := m.header()
	header.Set(headerTry, a.try)
	if n := headerSize(header); n > maxHeaders {
		return 0, fmt.Errorf("bus: headers of %d bytes for collector %s: %w (at most %d)", n, p.collector, ErrTooBig, maxHeaders)
	}
	msg := &nats.Msg{Subject: p.subject, Header: header, Data: data}
	// Each round either ends or learns of one own attempt that was stored or
	// of a purge; more rounds than attempts cannot be needed.
	for range len(p.open) + 2 {
		seq, err := p.bus.publishFenced(ctx, msg, p.last)
		switch {
		case err == nil:
			p.stored(a, seq)
			return seq, nil
		case isWrongSequence(err):
			seq, err := p.settle(ctx, a)
			if err != nil || seq != 0 {
				return seq, err
			}
		case isAway(err):
			p.remember(a)
			return 0, fmt.Errorf("bus: message %d-%d of collector %s: %w (%w)", m.Epoch, m.First, p.collector, ErrAway, err)
		default:
			return 0, explain(err, "bus: cannot store events of collector "+p.collector)
		}
	}
	return 0, fmt.Errorf("bus: the subject of collector %s keeps changing: %w", p.collector, ErrFenced)
}

func (p *Publisher) check(m Meta, data []byte) error {
	switch {
	case p.fenced:
		return fmt.Errorf("bus: collector %s: %w", p.collector, ErrFenced)
	case m.Epoch != p.epoch || m.First != p.next || m.Rows < 0:
		return fmt.Errorf("bus: collector %s: %w: message begins at %d-%d, next is %d-%d", p.collector, ErrNumber, m.Epoch, m.First, p.epoch, p.next)
	case len(data) > MaxMessageBytes:
		return fmt.Errorf("bus: message of %d bytes of collector %s: %w (at most %d)", len(data), p.collector, ErrTooBig, MaxMessageBytes)
	case len(m.Keys) > MaxKeys:
		return fmt.Errorf("bus: %d idempotency keys in one message of collector %s: %w (at most %d)", len(m.Keys), p.collector, ErrTooBig, MaxKeys)
	}
	for _, k := range m.Keys {
		if !validText(k, maxName) {
			return fmt.Errorf("bus: idempotency key %q: %w: use 1 to 64 of A-Z a-z 0-9 - and _", k, ErrInvalid)
		}
	}
	if m.Import != "" && !validText(m.Import, maxName) {
		return fmt.Errorf("bus: import id %q: %w: use 1 to 64 of A-Z a-z 0-9 - and _", m.Import, ErrInvalid)
	}
	return nil
}

func (p *Publisher) attempt(m Meta, size int) attempt {
	p.attempts++
	return attempt{
		try:   p.nonce + "." + strconv.FormatUint(p.attempts, 10),
		epoch: m.Epoch, first: m.First, rows: m.Rows, mark: m.Mark, size: size,
	}
}

func (p *Publisher) remember(a attempt) {
	p.open = append(p.open, a)
	if len(p.open) > 64 { // of one message repeated for minutes; the oldest cannot be under way any more
		p.open = p.open[1:]
	}
}

func (p *Publisher) stored(a attempt, seq uint64) {
	p.last, p.next, p.open, p.previous = seq, a.first+a.rows, nil, ""
}

// settle finds out why the fence refused: an earlier attempt of this message
// was stored (its sequence is returned), one of another message of this
// publisher was, or the last message was purged (0, nil: try again), or another
// publisher wrote (ErrFenced).
func (p *Publisher) settle(ctx context.Context, a attempt) (uint64, error) {
	last, err := p.bus.lastOf(ctx, streamEvents, p.subject)
	if errors.Is(err, ErrNotFound) {
		return 0, p.settlePurged(ctx)
	}
	if err != nil {
		p.remember(a)
		return 0, err
	}
	try := last.header.Get(headerTry)
	i := slices.IndexFunc(append(p.open, a), func(o attempt) bool { return o.try == try })
	if i < 0 {
		p.fenced = true
		return 0, fmt.Errorf("bus: collector %s: message %d of another publisher stands there: %w", p.collector, last.Seq, ErrFenced)
	}
	mine := append(p.open, a)[i]
	p.stored(mine, last.Seq)
	switch {
	case mine.same(a):
		return last.Seq, nil
	case a.epoch == p.epoch && a.first == p.next:
		return 0, nil
	}
	return 0, fmt.Errorf("bus: collector %s: %w: numbers from %d-%d were given to another message, which is stored", p.collector, ErrNumber, mine.epoch, mine.first)
}

// settlePurged: the subject has no message any more. The sink writes numbers
// down before anything is purged, so another publisher's would show there.
func (p *Publisher) settlePurged(ctx context.Context) error {
	n, err := p.bus.keptNumbers(ctx, p.collector)
	if err != nil {
		return err
	}
	if p.last == 0 || n.Epoch > p.epoch || (n.Epoch == p.epoch && n.Last >= p.next) {
		p.fenced = true
		return fmt.Errorf("bus: collector %s: numbers through %d-%d are stored already: %w", p.collector, n.Epoch, n.Last, ErrFenced)
	}
	p.last = 0
	return nil
}

// publishFenced stores msg if last is the sequence of the subject's last
// message, and returns JetStream's error as it is.
func (b *Bus) publishFenced(ctx context.Context, msg *nats.Msg, last uint64) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	ack, err := b.js.PublishMsg(ctx, msg, jetstream.WithExpectLastSequencePerSubject(last))
	if err != nil {
		return 0, err
	}
	return ack.Sequence, nil
}

// PublishControl stores a tick or a switch of rules, which every reader of
// EVENTS meets at the same place. It is not fenced: twice is harmless.
func (b *Bus) PublishControl(ctx context.Context, m Meta) (uint64, error) {
	switch {
	case m.Control == ControlTick && m.Time > 0:
	case m.Control == ControlRules && checkDigest(m.Digest) == nil:
	default:
		return 0, fmt.Errorf("bus: control message %q with time %d and digest %q: %w", m.Control, m.Time, m.Digest, ErrInvalid)
	}
	return b.publish(ctx, &nats.Msg{Subject: subjectControl, Header: m.header()}, "a control message")
}

// publish stores a message that needs no fence.
func (b *Bus) publish(ctx context.Context, msg *nats.Msg, what string, opts ...jetstream.PublishOpt) (uint64, error) {
	if err := b.checkDisk(); err != nil {
		return 0, err
	}
	if len(msg.Data) > MaxMessageBytes || headerSize(msg.Header) > maxHeaders {
		return 0, fmt.Errorf("bus: %s of %d bytes: %w (at most %d)", what, len(msg.Data), ErrTooBig, MaxMessageBytes)
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	ack, err := b.js.PublishMsg(ctx, msg, opts...)
	if err != nil {
		return 0, explain(err, "bus: cannot store "+what)
	}
	return ack.Sequence, nil
}

func headerSize(h nats.Header) int {
	n := 128 // status line and JetStream's own headers
	for name, values := range h {
		for _, v := range values {
			n += len(name) + len(v) + 4
		}
	}
	return n
}

// validText: what may stand in a header's list, a subject or a bucket's key.
func validText(s string, limit int) bool {
	if s == "" || len(s) > limit {
		return false
	}
	for i := range len(s) {
		if !nameByte(s[i]) {
			return false
		}
	}
	return true
}

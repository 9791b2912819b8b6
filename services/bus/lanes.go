package bus

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"
)

// Lanes is the fixed number of lanes; a key's lane is its FNV-1a mod Lanes.
const Lanes = 16

// Lane writes the findings of one lane. It belongs to one goroutine. Another
// process that opens the lane and publishes fences this one off.
type Lane struct {
	bus     *Bus
	lane    int
	subject string
	nonce   string
	last    uint64 // sequence of the subject's last message: the fence
	in      uint64
	partial partial
	fenced  bool
}

// partial is an input only some of whose messages are out.
type partial struct {
	in          uint64
	done, parts int
}

// OpenLane reads how far the findings of a lane are out.
func (b *Bus) OpenLane(ctx context.Context, lane int) (*Lane, error) {
	if lane < 0 || lane >= Lanes {
		return nil, fmt.Errorf("bus: lane %d: %w: lanes are 0 to %d", lane, ErrInvalid, Lanes-1)
	}
	l := &Lane{bus: b, lane: lane, subject: subjectFindings + strconv.Itoa(lane), nonce: randomText()}
	last, err := b.lastOf(ctx, streamFindings, l.subject)
	if errors.Is(err, ErrNotFound) { // the purge keeps the last message: none was ever written
		return l, nil
	}
	if err != nil {
		return nil, err
	}
	l.last, l.in = last.Seq, last.Meta.In
	if m := last.Meta; m.Part < m.Parts && m.In > 0 {
		l.in, l.partial = m.In-1, partial{in: m.In, done: m.Part, parts: m.Parts}
	}
	return l, nil
}

// In is the last input all of whose findings are out: up to it, compute and
// publish nothing.
func (l *Lane) In() uint64 { return l.in }

// Publish stores the findings of input in (above In) as one message per part,
// each NDJSON of at most MaxFindingsBytes. It returns nil when all are stored.
// After ErrAway or ErrFull, and after a restart, the same call goes on where
// it stopped: the parts of one input must be the same every time. ErrFenced:
// another process owns the lane; throw its state away.
func (l *Lane) Publish(ctx context.Context, in uint64, parts ...[]byte) error {
	if err := l.check(in, parts); err != nil {
		return err
	}
	if len(parts) == 0 {
		return nil
	}
	if l.partial.in != in {
		l.partial = partial{in: in, parts: len(parts)}
	}
	for l.partial.done < len(parts) {
		if err := l.publishPart(ctx, parts[l.partial.done]); err != nil {
			return err
		}
		l.partial.done++
	}
	l.in, l.partial = in, partial{}
	return nil
}

func (l *Lane) check(in uint64, parts [][]byte) error {
	switch {
	case l.fenced:
		return fmt.Errorf("bus: lane %d: %w", l.lane, ErrFenced)
	case in <= l.in:
		return fmt.Errorf("bus: lane %d: %w: findings of input %d, and those through %d are out", l.lane, ErrNumber, in, l.in)
	case l.partial.done > 0 && (in != l.partial.in || len(parts) != l.partial.parts):
		return fmt.Errorf("bus: lane %d: %w: %d of %d messages of input %d are out; now %d of input %d are given: this input was computed differently before",
			l.lane, ErrNumber, l.partial.done, l.partial.parts, l.partial.in, len(parts), in)
	case len(parts) > MaxFindingsParts:
		return fmt.Errorf("bus: lane %d: %d messages of findings for input %d: %w (at most %d)", l.lane, len(parts), in, ErrTooBig, MaxFindingsParts)
	}
	for _, p := range parts {
		if len(p) > MaxFindingsBytes {
			return fmt.Errorf("bus: lane %d: findings of %d bytes in one message: %w (at most %d)", l.lane, len(p), ErrTooBig, MaxFindingsBytes)
		}
	}
	return l.bus.checkDisk()
}

func (l *Lane) publishPart(ctx context.Context, data []byte) error {
	p := l.partial
	m := Meta{In: p.in, Part: p.done + 1, Parts: p.parts}
	header := m.header()
	try := fmt.Sprintf("%s.%d.%d", l.nonce, m.In, m.Part)
	header.Set(headerTry, try)
	seq, err := l.bus.publishFenced(ctx, &nats.Msg{Subject: l.subject, Header: header, Data: data}, l.last)
	if isWrongSequence(err) {
		seq, err = l.settle(ctx, try)
		if err != nil {
			return err
		}
	}
	if err != nil {
		return explain(err, fmt.Sprintf("bus: cannot store findings of lane %d", l.lane))
	}
	l.last = seq
	return nil
}

// settle: the fence refused. Either an earlier try of this very part arrived
// after all, or another process writes here.
func (l *Lane) settle(ctx context.Context, try string) (uint64, error) {
	last, err := l.bus.lastOf(ctx, streamFindings, l.subject)
	if err != nil {
		return 0, err
	}
	if last.header.Get(headerTry) == try {
		return last.Seq, nil
	}
	l.fenced = true
	return 0, fmt.Errorf("bus: lane %d: message %d of another owner stands there: %w", l.lane, last.Seq, ErrFenced)
}

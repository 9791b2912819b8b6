package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// DeadLetter is something that could not be taken, kept with the reason.
type DeadLetter struct {
	Reason  string    `json:"reason"`  // snake_case, counted by
	From    string    `json:"from"`    // who gave it up: "intake", "sink"
	Source  string    `json:"source"`  // where it came from: the configured source or the collector
	Detail  string    `json:"detail"`  // one sentence
	Time    time.Time `json:"time"`    // when it was given up; zero: now
	Seq     uint64    `json:"seq"`     // of the message it came from, 0 none
	Subject string    `json:"subject"` // of that message
	Data    []byte    `json:"-"`       // the message as it came
}

const headerDeadLetter = "Coc-Dead-Letter"

// DeadLetter keeps d. One with a Seq is kept once for its From, however often
// it is given: a crash between keeping and going on is harmless.
func (b *Bus) DeadLetter(ctx context.Context, d DeadLetter) error {
	from := NameFrom(d.From)
	if d.Time.IsZero() {
		d.Time = b.Now()
	}
	d.Time = d.Time.UTC()
	d.Detail, d.Reason, d.Source, d.Subject = cut(d.Detail, maxDetail), cut(d.Reason, maxName), cut(d.Source, maxName), cut(d.Subject, maxKey)
	head, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("bus: dead letter: %w", err)
	}
	msg := &nats.Msg{Subject: subjectDeadLetter + from, Header: nats.Header{headerDeadLetter: {string(head)}}, Data: d.Data}
	var opts []jetstream.PublishOpt
	if d.Seq != 0 {
		msg.Subject += "." + strconv.FormatUint(d.Seq, 10)
		opts = append(opts, jetstream.WithExpectLastSequencePerSubject(0))
	}
	_, err = b.publish(ctx, msg, "a dead letter of "+from, opts...)
	if errors.Is(err, ErrConflict) { // it is kept already
		return nil
	}
	return err
}

// ParseDeadLetter reads a message of DEADLETTER.
func ParseDeadLetter(m Message) (DeadLetter, error) {
	var d DeadLetter
	if err := json.Unmarshal([]byte(m.header.Get(headerDeadLetter)), &d); err != nil {
		return d, fmt.Errorf("bus: message %d of %s is not a dead letter: %w", m.Seq, m.Subject, err)
	}
	d.Data = m.Data
	return d, nil
}

// DropDeadLetter removes one for good.
func (b *Bus) DropDeadLetter(ctx context.Context, seq uint64) error {
	return explain(b.streams[streamDeadLetter].SecureDeleteMsg(ctx, seq), fmt.Sprintf("bus: cannot drop dead letter %d", seq))
}

// cut shortens at a character's border.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && s[limit]&0xC0 == 0x80 {
		limit--
	}
	return s[:limit]
}

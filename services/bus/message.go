package bus

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Message is one stored message. Data belongs to whoever received it.
type Message struct {
	Seq     uint64    // in its stream, from 1
	Time    time.Time // when it was stored, by the bus's clock
	Subject string
	Meta    Meta
	Data    []byte

	header nats.Header
}

// IsControl reports whether this is a tick or a switch of rules.
func (m Message) IsControl() bool { return m.Subject == subjectControl }

// WorkKind returns kind and id of a message of WORK, else empty texts.
func (m Message) WorkKind() (kind, id string) {
	rest, ok := strings.CutPrefix(m.Subject, subjectWork)
	if !ok {
		return "", ""
	}
	kind, id, _ = strings.Cut(rest, ".")
	return kind, id
}

// fromDelivered makes a Message of one that a consumer delivered.
func fromDelivered(m jetstream.Msg) (Message, uint64, error) {
	md, err := m.Metadata()
	if err != nil {
		return Message{}, 0, fmt.Errorf("bus: a message without metadata: %w", err)
	}
	return message(md.Sequence.Stream, md.Timestamp, m.Subject(), m.Headers(), m.Data()), md.NumPending, nil
}

func fromRaw(m *jetstream.RawStreamMsg) Message {
	return message(m.Sequence, m.Time, m.Subject, m.Header, m.Data)
}

func message(seq uint64, at time.Time, subject string, h nats.Header, data []byte) Message {
	msg := Message{Seq: seq, Time: at, Subject: subject, Meta: parseMeta(h), Data: data, header: h}
	if lane, ok := strings.CutPrefix(subject, subjectFindings); ok {
		msg.Meta.Lane, _ = strconv.Atoi(lane)
	}
	// The subject decides whose message it is: rights and fences hang on that.
	if collector, ok := strings.CutPrefix(subject, subjectEvents); ok && !msg.IsControl() {
		msg.Meta.Collector = collector
	}
	return msg
}

package bus

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// IntakeMessage is what an outside sender published to coc.intake.<source>.
type IntakeMessage struct {
	Source      string // from the subject; as the sender chose it: check it
	ID          string // its Nats-Msg-Id, "" when it gave none
	Seq         uint64 // in INTAKE
	Time        time.Time
	Redelivered bool // was given out before and not acknowledged
	ContentType string
	Data        []byte
}

// Key is an idempotency key of the message for Meta.Keys: it is the same at
// every redelivery.
func (m IntakeMessage) Key() string { return fmt.Sprintf("intake-%d", m.Seq) }

const intakeConsumer = "collector"

// ConsumeIntake gives messages to fn, up to IntakeConcurrency at once and in no
// certain order, until ctx ends (nil). A message is acknowledged after fn
// returned nil, never before; after an error it comes again, to this or another
// collector. While fn works the message is kept from others, however long. fn
// itself sends what it refuses to the dead letters, and returns nil.
func (b *Bus) ConsumeIntake(ctx context.Context, fn func(context.Context, IntakeMessage) error) error {
	consumer, err := b.js.CreateOrUpdateConsumer(ctx, streamIntake, jetstream.ConsumerConfig{
		Durable: intakeConsumer, AckPolicy: jetstream.AckExplicitPolicy, AckWait: intakeAckWait,
		MaxAckPending: 4 * intakePrefetch, // of all collectors together
		MaxDeliver:    -1,
	})
	if err != nil {
		return explain(err, "bus: cannot read INTAKE")
	}
	iter, err := consumer.Messages(jetstream.PullMaxMessagesWithBytesLimit(intakePrefetch, readerBytes),
		jetstream.PullExpiry(10*time.Second), jetstream.PullHeartbeat(2*time.Second))
	if err != nil {
		return explain(err, "bus: cannot read INTAKE")
	}
	defer iter.Stop()
	slots := make(chan struct{}, IntakeConcurrency)
	var running sync.WaitGroup
	defer running.Wait()
	for {
		msg, err := iter.Next(jetstream.NextContext(ctx))
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = msg.Nak() // another collector takes it at once
			}
			giveBack(iter)
			return nil
		case errors.Is(err, jetstream.ErrMsgIteratorClosed):
			return fmt.Errorf("bus: reading INTAKE: %w", ErrClosed)
		case err != nil: // missed heartbeats and the like: the iterator asks again
			continue
		}
		slots <- struct{}{}
		running.Go(func() {
			defer func() { <-slots }()
			b.workIntake(ctx, msg, fn)
		})
	}
}

// giveBack returns what was fetched and not begun, instead of letting it wait
// for the end of its acknowledgement time.
func giveBack(iter jetstream.MessagesContext) {
	iter.Drain()
	for {
		msg, err := iter.Next(jetstream.NextMaxWait(time.Second))
		if err != nil {
			return
		}
		_ = msg.Nak()
	}
}

func (b *Bus) workIntake(ctx context.Context, msg jetstream.Msg, fn func(context.Context, IntakeMessage) error) {
	m, _, err := fromDelivered(msg)
	if err != nil {
		b.cfg.Log.Error("an intake message has no metadata", "error", err)
		return
	}
	md, _ := msg.Metadata()
	in := IntakeMessage{
		Source: strings.TrimPrefix(m.Subject, subjectIntake), ID: m.header.Get(nats.MsgIdHdr), Seq: m.Seq, Time: m.Time,
		Redelivered: md.NumDelivered > 1, ContentType: m.header.Get("Content-Type"), Data: m.Data,
	}
	working, cancel := context.WithCancel(ctx)
	var beat sync.WaitGroup
	beat.Go(func() {
		b.every(working, intakeAckWait/3, func(context.Context) { _ = msg.InProgress() })
	})
	err = fn(ctx, in)
	cancel()
	beat.Wait()
	if err != nil {
		_ = msg.NakWithDelay(time.Second) // lost with the connection: then it comes after AckWait
		return
	}
	acking, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
	defer cancel()
	if err := msg.DoubleAck(acking); err != nil {
		b.cfg.Log.Debug("an intake message was stored but its acknowledgement is not known to have arrived", "sequence", in.Seq, "error", err)
	}
}

// PublishIntake does what an outside sender does. A msgID is stored once
// within ten minutes; "" is none.
func (b *Bus) PublishIntake(ctx context.Context, source, msgID string, data []byte) error {
	if err := CheckName(source); err != nil {
		return err
	}
	var opts []jetstream.PublishOpt
	if msgID != "" {
		opts = append(opts, jetstream.WithMsgID(msgID))
	}
	_, err := b.publish(ctx, &nats.Msg{Subject: subjectIntake + source, Header: nats.Header{}, Data: data}, "an intake message of "+source, opts...)
	return err
}

package bus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Reader returns the messages of one stream in their order, from a position
// on. It goes on over reconnects. It belongs to one goroutine; Close may be
// called from any.
type Reader struct {
	stream  string
	exact   bool   // a gap in the sequence is an error: only a purge makes one
	want    uint64 // next sequence expected, 0 = any
	pending uint64
	lastErr error

	messages chan delivered
	failed   chan error
	done     chan struct{}
	once     sync.Once
	close    func()
}

type delivered struct {
	msg     Message
	pending uint64
}

// Events reads EVENTS from the sequence given; 0 is the first there is.
func (b *Bus) Events(ctx context.Context, from uint64) (*Reader, error) {
	return b.read(ctx, streamEvents, from, true)
}

// Findings reads FINDINGS, all lanes.
func (b *Bus) Findings(ctx context.Context, from uint64) (*Reader, error) {
	return b.read(ctx, streamFindings, from, false)
}

// Work reads WORK.
func (b *Bus) Work(ctx context.Context, from uint64) (*Reader, error) {
	return b.read(ctx, streamWork, from, false)
}

// DeadLetters reads DEADLETTER; see ParseDeadLetter.
func (b *Bus) DeadLetters(ctx context.Context, from uint64) (*Reader, error) {
	return b.read(ctx, streamDeadLetter, from, false)
}

// Audit reads AUDIT.
func (b *Bus) Audit(ctx context.Context, from uint64) (*Reader, error) {
	return b.read(ctx, streamAudit, from, false)
}

// read opens a Reader on a connection of its own. ctx is for the opening.
func (b *Bus) read(ctx context.Context, stream string, from uint64, exact bool) (*Reader, error) {
	info, err := b.streams[stream].Info(ctx)
	if err != nil {
		return nil, explain(err, "bus: cannot read "+stream)
	}
	if err := checkPosition(stream, from, info.State, exact); err != nil {
		return nil, err
	}
	nc, err := b.dial(ctx, "reader of "+stream)
	if err != nil {
		return nil, err
	}
	iter, err := openIterator(ctx, nc, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: max(1, from),
		InactiveThreshold: time.Minute,
	}, stream)
	if err != nil {
		nc.Close()
		return nil, err
	}
	r := &Reader{stream: stream, exact: exact, want: from, pending: info.State.Msgs,
		messages: make(chan delivered, 1), failed: make(chan error, 1), done: make(chan struct{})}
	pumped := make(chan struct{})
	go func() { defer close(pumped); r.pump(iter) }()
	r.close = func() {
		close(r.done)
		iter.Stop()
		nc.Close()
		<-pumped
	}
	return r, nil
}

func openIterator(ctx context.Context, nc *nats.Conn, c jetstream.OrderedConsumerConfig, stream string) (jetstream.MessagesContext, error) {
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(requestTimeout))
	if err != nil {
		return nil, fmt.Errorf("bus: cannot read %s: %w", stream, err)
	}
	consumer, err := js.OrderedConsumer(ctx, stream, c)
	if err != nil {
		return nil, explain(err, "bus: cannot read "+stream)
	}
	iter, err := consumer.Messages(
		jetstream.PullMaxMessagesWithBytesLimit(readerMessages, readerBytes),
		jetstream.PullExpiry(10*time.Second), jetstream.PullHeartbeat(2*time.Second))
	if err != nil {
		return nil, explain(err, "bus: cannot read "+stream)
	}
	return iter, nil
}

// checkPosition finds out at once what a consumer would hide: it skips what is
// purged, and waits forever for a sequence far ahead.
func checkPosition(stream string, from uint64, s jetstream.StreamState, exact bool) error {
	purged := exact && from > 0 && from < s.FirstSeq
	if purged || from > s.LastSeq+1 {
		return &PurgedError{Stream: stream, Wanted: from, First: s.FirstSeq, Last: s.LastSeq}
	}
	return nil
}

// pump carries messages to Next. It waits in the iterator without a deadline,
// because only there the client notices a consumer that is gone and makes a
// new one; a caller of Next may give up and come again as often as it likes.
func (r *Reader) pump(iter jetstream.MessagesContext) {
	for {
		msg, err := iter.Next()
		if errors.Is(err, jetstream.ErrMsgIteratorClosed) {
			r.failed <- fmt.Errorf("bus: reader of %s: %w", r.stream, ErrClosed)
			return
		}
		if err != nil { // the iterator makes a new consumer at its next turn
			select {
			case <-r.done:
				return
			case <-time.After(200 * time.Millisecond):
			}
			continue
		}
		m, pending, err := fromDelivered(msg)
		if err != nil {
			r.failed <- err
			return
		}
		select {
		case r.messages <- delivered{m, pending}:
		case <-r.done:
			return
		}
	}
}

// Next returns the next message and waits for it. When ctx ends it returns
// ctx's error and nothing is lost: call again. A *PurgedError (EVENTS only)
// means that messages at the position are gone; every later call returns it
// too. After Close it returns ErrClosed.
func (r *Reader) Next(ctx context.Context) (Message, error) {
	if r.lastErr != nil {
		return Message{}, r.lastErr
	}
	var d delivered
	select { // what is there goes first, also with a context that has ended
	case d = <-r.messages:
	default:
		select {
		case d = <-r.messages:
		case err := <-r.failed:
			r.lastErr = err
			return Message{}, err
		case <-r.done:
			return Message{}, fmt.Errorf("bus: reader of %s: %w", r.stream, ErrClosed)
		case <-ctx.Done():
			return Message{}, ctx.Err()
		}
	}
	if r.exact && r.want != 0 && d.msg.Seq != r.want {
		r.lastErr = &PurgedError{Stream: r.stream, Wanted: r.want, First: d.msg.Seq, Last: d.msg.Seq}
		return Message{}, r.lastErr
	}
	r.want, r.pending = d.msg.Seq+1, d.pending
	return d.msg, nil
}

// Pending is how many messages stood behind the last one returned when it was
// delivered; before the first one, how many the stream held.
func (r *Reader) Pending() uint64 { return r.pending }

// Close ends the reader and waits until its goroutine and connection ended.
func (r *Reader) Close() { r.once.Do(r.close) }

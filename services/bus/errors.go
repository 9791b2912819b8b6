package bus

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Errors that callers act upon; test them with errors.Is.
var (
	// ErrFull: the stream or the disk is full. Nothing was stored; wait for
	// the purge and repeat the same message.
	ErrFull = errors.New("the bus is full")
	// ErrFenced: another writer has written to this subject since. Stop, and
	// open a new Publisher or Lane.
	ErrFenced = errors.New("another writer owns this subject")
	// ErrAway: the bus did not answer; whether the message was stored is not
	// known. Repeat the same message until the error is another.
	ErrAway = errors.New("the bus does not answer")
	// ErrNumber: a message's epoch and first number are not the publisher's
	// next ones.
	ErrNumber = errors.New("wrong number")
	// ErrTooBig: a payload is above its bound.
	ErrTooBig = errors.New("too big for the bus")
	// ErrHeld: a lease is held by another.
	ErrHeld = errors.New("lease is held")
	// ErrConflict: a compare-and-set found another revision.
	ErrConflict = errors.New("changed by another meanwhile")
	// ErrNotFound: there is no such key, message, checkpoint or rule set.
	ErrNotFound = errors.New("not found")
	// ErrToken: a token is unknown, expired or revoked.
	ErrToken = errors.New("token is not valid")
	// ErrClosed: the Bus or the Reader was closed.
	ErrClosed = errors.New("closed")
	// ErrInvalid: a name, key or value that the bus does not take.
	ErrInvalid = errors.New("not valid")
)

// PurgedError says that a Reader's position is not in the stream: purged from
// below (First > Wanted), or ahead of its end (Wanted > Last+1), as after the
// bus's folder was replaced by another.
type PurgedError struct {
	Stream              string
	Wanted, First, Last uint64
}

func (e *PurgedError) Error() string {
	if e.Wanted > e.Last+1 {
		return fmt.Sprintf("cannot read %s from %d: it ends at %d, so this position was made on another bus; remove the position (checkpoints, sink) or bring the old bus folder back", e.Stream, e.Wanted, e.Last)
	}
	return fmt.Sprintf("cannot read %s from %d: messages below %d are purged; the position is older than what the bus kept", e.Stream, e.Wanted, e.First)
}

// code returns JetStream's error code, or 0.
func code(err error) jetstream.ErrorCode {
	var api *jetstream.APIError
	if errors.As(err, &api) {
		return api.ErrorCode
	}
	return 0
}

// Codes that nats.go does not name.
const (
	codeStorageExceeded jetstream.ErrorCode = 10047 // no space left for a stream's bound
	codeInsufficient    jetstream.ErrorCode = 10023 // resources of the account or server exceeded
	codeStoreFailed     jetstream.ErrorCode = 10077 // the stream's store refused: its MaxBytes, or the disk
)

func isWrongSequence(err error) bool {
	c := code(err)
	return c == jetstream.JSErrCodeStreamWrongLastSequence || c == jetstream.JSErrCodeStreamWrongLastSequenceConstant
}

// isAway reports whether the outcome of a request is unknown: no answer came.
func isAway(err error) bool {
	switch {
	case errors.Is(err, nats.ErrTimeout), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled),
		errors.Is(err, nats.ErrNoResponders), errors.Is(err, jetstream.ErrNoStreamResponse),
		errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrDisconnected), errors.Is(err, nats.ErrReconnectBufExceeded),
		errors.Is(err, nats.ErrConnectionReconnecting), errors.Is(err, nats.ErrBadSubscription), errors.Is(err, jetstream.ErrInvalidJSAck):
		return true
	}
	c := code(err)
	return c == 10008 || c == 10039 || c == 10076 // JetStream not (yet) available
}

// explain turns an error of JetStream into one of this package's where a
// caller acts on it, else wraps it with what was done.
func explain(err error, what string) error {
	switch {
	case err == nil:
		return nil
	case isWrongSequence(err):
		return fmt.Errorf("%s: %w (%v)", what, ErrConflict, err)
	case code(err) == codeStoreFailed && !strings.Contains(err.Error(), "maximum"):
		return fmt.Errorf("%s: %w: the NATS server cannot write: %v; look at its log, free its disk and restart it", what, ErrFull, err)
	case code(err) == codeStoreFailed:
		return fmt.Errorf("%s: %w: the stream is at its bound until its readers have gone on and the purge has run (%v)", what, ErrFull, err)
	case code(err) == codeStorageExceeded, code(err) == codeInsufficient:
		return fmt.Errorf("%s: %w: the NATS server has no storage left; free disk space or raise its limits (%v)", what, ErrFull, err)
	case errors.Is(err, jetstream.ErrMsgNotFound), errors.Is(err, jetstream.ErrKeyNotFound), errors.Is(err, jetstream.ErrKeyDeleted),
		errors.Is(err, jetstream.ErrObjectNotFound):
		return fmt.Errorf("%s: %w", what, ErrNotFound)
	case errors.Is(err, nats.ErrMaxPayload), code(err) == jetstream.JSErrCodeStreamMessageExceedsMaximum:
		return fmt.Errorf("%s: %w", what, ErrTooBig)
	case isAway(err):
		return fmt.Errorf("%s: %w (%w)", what, ErrAway, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

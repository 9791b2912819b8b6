package bus

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// KindIdentity is the kind of sealed names of people, one a subject.
const KindIdentity = "identity"

// PutWork stores a change of one thing, on condition that its last change is
// the one of sequence expectLast (0: there is none yet). ErrConflict: somebody
// changed it meanwhile.
func (b *Bus) PutWork(ctx context.Context, kind, id string, expectLast uint64, data []byte) (uint64, error) {
	subject, err := workSubject(kind, id)
	if err != nil {
		return 0, err
	}
	if len(data) > MaxWorkBytes {
		return 0, fmt.Errorf("bus: %s %s of %d bytes: %w (at most %d)", kind, id, len(data), ErrTooBig, MaxWorkBytes)
	}
	return b.publish(ctx, &nats.Msg{Subject: subject, Header: nats.Header{}, Data: data}, kind+" "+id,
		jetstream.WithExpectLastSequencePerSubject(expectLast))
}

// GetWork returns the last change of one thing, ErrNotFound when there is none.
func (b *Bus) GetWork(ctx context.Context, kind, id string) (Message, error) {
	subject, err := workSubject(kind, id)
	if err != nil {
		return Message{}, err
	}
	return b.lastOf(ctx, streamWork, subject)
}

// PurgeWork removes all changes of one thing, for what must be forgotten.
func (b *Bus) PurgeWork(ctx context.Context, kind, id string) error {
	subject, err := workSubject(kind, id)
	if err != nil {
		return err
	}
	return explain(b.streams[streamWork].Purge(ctx, jetstream.WithPurgeSubject(subject)), "bus: cannot remove "+subject)
}

func workSubject(kind, id string) (string, error) {
	if err := CheckName(kind); err != nil {
		return "", err
	}
	if !validText(id, maxID) {
		return "", fmt.Errorf("bus: id %.80q of a %s: %w: use 1 to 128 of A-Z a-z 0-9 - and _", id, kind, ErrInvalid)
	}
	return subjectWork + kind + "." + id, nil
}

// PutAudit appends a record to the audit log, on condition that the last one
// is that of sequence expectLast: so the chain of hashes has one order.
func (b *Bus) PutAudit(ctx context.Context, expectLast uint64, data []byte) (uint64, error) {
	if len(data) > MaxAuditBytes {
		return 0, fmt.Errorf("bus: audit record of %d bytes: %w (at most %d)", len(data), ErrTooBig, MaxAuditBytes)
	}
	return b.publish(ctx, &nats.Msg{Subject: subjectAudit, Header: nats.Header{}, Data: data}, "an audit record",
		jetstream.WithExpectLastSequencePerSubject(expectLast))
}

// LastAudit returns the last audit record, ErrNotFound when there is none.
func (b *Bus) LastAudit(ctx context.Context) (Message, error) {
	return b.lastOf(ctx, streamAudit, subjectAudit)
}

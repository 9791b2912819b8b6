package bus

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// PutRules stores a rule set under its digest; what is there already stays.
func (b *Bus) PutRules(ctx context.Context, digest string, data []byte) error {
	if err := checkDigest(digest); err != nil {
		return err
	}
	if len(data) > maxRulesBytes {
		return fmt.Errorf("bus: rule set of %d bytes: %w (at most %d)", len(data), ErrTooBig, maxRulesBytes)
	}
	if err := b.checkDisk(); err != nil {
		return err
	}
	name := rulesObject(digest)
	if _, err := b.state.GetInfo(ctx, name); err == nil {
		return nil
	} else if !errors.Is(err, jetstream.ErrObjectNotFound) {
		return explain(err, "bus: cannot look for the rule set "+digest)
	}
	_, err := b.state.PutBytes(ctx, name, data)
	return explain(err, "bus: cannot store the rule set "+digest)
}

// GetRules returns a stored rule set, ErrNotFound when there is none.
func (b *Bus) GetRules(ctx context.Context, digest string) ([]byte, error) {
	if err := checkDigest(digest); err != nil {
		return nil, err
	}
	data, err := b.state.GetBytes(ctx, rulesObject(digest))
	return data, explain(err, "bus: cannot read the rule set "+digest)
}

func rulesObject(digest string) string { return "rules-" + digest }

func checkDigest(digest string) error {
	if !validText(digest, maxID) {
		return fmt.Errorf("bus: digest %.80q: %w: use hexadecimal digits", digest, ErrInvalid)
	}
	return nil
}

// objectMarker is the subject of an object's metadata (NATS' ADR-20).
func objectMarker(name string) string {
	return "$O." + objectState + ".M." + base64.URLEncoding.EncodeToString([]byte(name))
}

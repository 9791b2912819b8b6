package store

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/opencoc/coc/services/event"
)

// What callers tell apart with errors.Is.
var (
	// ErrInUse: another process holds the data folder.
	ErrInUse = errors.New("the data folder is in use by another process")
	// ErrLibrary: the ClickHouse library is missing or of another version.
	ErrLibrary = errors.New("the ClickHouse library cannot be used")
	// ErrMigration: an applied migration was changed, or the data is newer.
	ErrMigration = errors.New("the tables do not fit this version of coc")
	// ErrUnavailable: nobody answers, or there is no room just now. Retry later.
	ErrUnavailable = errors.New("ClickHouse is not available")
	// ErrData: an insert was refused for its bytes. The same bytes will be
	// refused again.
	ErrData = errors.New("ClickHouse refused the data")
	// ErrNotFound: there is no such thing.
	ErrNotFound = errors.New("not found")
	// ErrReleased: the day has its release; a release is made once.
	ErrReleased = errors.New("the day is released already")
	// ErrInvalid: an argument is out of its bounds.
	ErrInvalid = errors.New("invalid argument")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("the store is closed")
)

// Refused says that a role may not see something. Object is a table, a
// table.column, a function or a statement; Class is set when a field's class is
// the reason.
type Refused struct {
	Role   Role
	Object string
	Class  event.Class
	Reason string
}

// Error is one sentence for the person who asked.
func (r *Refused) Error() string {
	if r.Class != "" {
		return fmt.Sprintf("role %s may not see %s (class %s): %s", r.Role, r.Object, r.Class, r.Reason)
	}
	return fmt.Sprintf("role %s may not use %s: %s", r.Role, r.Object, r.Reason)
}

// Codes of ClickHouse that this package acts upon; the names are ClickHouse's.
const (
	codeUnknownTable      = 60
	codeSyntax            = 62
	codeCannotWrite       = 75
	codeTimeout           = 159
	codeTooSlow           = 160
	codeReadonly          = 164
	codeTooManyQueries    = 202
	codeSocketTimeout     = 209
	codeNetwork           = 210
	codeMemoryLimit       = 241
	codeNotEnoughSpace    = 243
	codeTooManyParts      = 252
	codeCancelled         = 394
	codeAborted           = 236
	codeTooManyPartitions = "Too many partitions"
)

// dataCodes are given when the bytes of an insert are at fault: numbers and
// dates that cannot be read, types that do not fit, truncated or foreign Arrow.
var dataCodes = map[int32]bool{
	6: true, 25: true, 26: true, 27: true, 32: true, 33: true, 34: true, 36: true, 38: true, 41: true,
	50: true, 53: true, 69: true, 70: true, 72: true, 73: true, 108: true, 117: true, 131: true,
	190: true, 271: true, 321: true, 349: true, 355: true, 400: true, 469: true, 636: true, 1001: true,
}

// wrap turns what the driver returns into what callers can act upon. what says
// what could not be done, on what.
func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%s: %w", what, bare(err))
	}
	for _, known := range []error{ErrInUse, ErrLibrary, ErrMigration, ErrUnavailable, ErrData, ErrNotFound, ErrReleased, ErrInvalid, ErrClosed} {
		if errors.Is(err, known) {
			return fmt.Errorf("%s: %w", what, bare(err))
		}
	}
	var ex *clickhouse.Exception
	if errors.As(err, &ex) {
		return wrapException(what, ex)
	}
	var netErr net.Error
	var urlErr *url.Error
	if errors.As(err, &netErr) || errors.As(err, &urlErr) {
		return fmt.Errorf("%s: %w: %w", what, ErrUnavailable, bare(err))
	}
	return fmt.Errorf("%s: %w", what, err)
}

func wrapException(what string, ex *clickhouse.Exception) error {
	said := &serverError{exception: ex, text: said(ex)}
	switch ex.Code {
	case codeNotEnoughSpace, codeCannotWrite:
		return fmt.Errorf("%s: %w: its disk is full: make room, what waits is written then: %w", what, ErrUnavailable, said)
	case codeTooManyQueries, codeSocketTimeout, codeNetwork, codeMemoryLimit, codeAborted:
		return fmt.Errorf("%s: %w: %w", what, ErrUnavailable, said)
	case codeTimeout, codeTooSlow:
		return fmt.Errorf("%s: it took longer than it may: %w", what, said)
	case codeTooManyParts:
		if !strings.Contains(ex.Message, codeTooManyPartitions) {
			return fmt.Errorf("%s: %w: %w", what, ErrUnavailable, said)
		}
		return fmt.Errorf("%s: %w: %w", what, ErrData, said)
	}
	return fmt.Errorf("%s: %w", what, said)
}

// serverError shows ClickHouse's message without its wrapping.
type serverError struct {
	exception *clickhouse.Exception
	text      string
}

func (e *serverError) Error() string { return e.text }
func (e *serverError) Unwrap() error { return e.exception }

// said shortens ClickHouse's message to its sentence and code.
func said(ex *clickhouse.Exception) string {
	m := strings.TrimPrefix(strings.TrimSpace(ex.Message), "DB::Exception: ")
	if i := strings.LastIndex(m, " (version "); i >= 0 {
		m = m[:i]
	}
	m = strings.TrimSpace(m)
	if len(m) > limitErrorText {
		m = m[:limitErrorText] + "…"
	}
	return fmt.Sprintf("%s [ClickHouse code %d]", strings.ToValidUTF8(m, "�"), ex.Code)
}

// bare strips the request's address and settings from a transport's error: they
// tell a person nothing, and an address may hold a password.
func bare(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

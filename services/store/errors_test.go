package store

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/ClickHouse/clickhouse-go/v2"
)

func TestErrorsSayWhatToDoNext(t *testing.T) {
	exception := func(code int32, text string) error {
		return fmt.Errorf("sendQuery: %w", &clickhouse.HTTPError{StatusCode: 500, Err: &clickhouse.Exception{Code: code, Message: text}})
	}
	f := func(err, kind error, says string) {
		t.Helper()
		got := wrapInsert("writing", err)
		if kind != nil && !errors.Is(got, kind) {
			t.Errorf("%v is not %v", got, kind)
		}
		if kind == nil && (errors.Is(got, ErrData) || errors.Is(got, ErrUnavailable)) {
			t.Errorf("%v is of a kind", got)
		}
		if !strings.Contains(got.Error(), says) || strings.Contains(got.Error(), "password") || strings.Contains(got.Error(), "\n") {
			t.Errorf("%q does not say %q", got, says)
		}
	}
	f(exception(243, "DB::Exception: Cannot reserve (NOT_ENOUGH_SPACE) (version 26.7.2.1)"), ErrUnavailable, "make room")
	f(exception(241, "DB::Exception: Memory limit exceeded"), ErrUnavailable, "Memory limit")
	f(exception(252, "DB::Exception: Too many parts (3000)"), ErrUnavailable, "Too many parts")
	f(exception(252, "DB::Exception: Too many partitions for single INSERT block"), ErrData, "partitions")
	f(exception(117, "DB::Exception: bad arrow"), ErrData, "bad arrow [ClickHouse code 117]")
	f(exception(159, "DB::Exception: Timeout exceeded"), nil, "longer than it may")
	f(exception(60, "DB::Exception: Unknown table"), nil, "Unknown table")
	f(&url.Error{Op: "Post", URL: "http://u:password@h", Err: errors.New("connection refused")}, ErrUnavailable, "connection refused")
	f(&url.Error{Op: "Post", URL: "http://u:password@h", Err: fmt.Errorf("%w: no room", ErrClosed)}, ErrClosed, "no room")
	f(fmt.Errorf("x: %w", context.Canceled), context.Canceled, "writing: x")
	f(&url.Error{Op: "Post", URL: "http://u:password@h", Err: context.DeadlineExceeded}, context.DeadlineExceeded, "writing: context deadline exceeded")
	if err := wrap("reading", nil); err != nil {
		t.Errorf("nothing becomes %v", err)
	}
	long := exception(60, "DB::Exception: "+strings.Repeat("x", 100_000))
	if got := wrap("reading", long).Error(); len(got) > limitErrorText+200 {
		t.Errorf("an error of %d bytes", len(got))
	}
}

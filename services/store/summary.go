package store

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// summaryHeader is where ClickHouse's HTTP interface says what a statement did.
const summaryHeader = "X-Clickhouse-Summary"

// summary is what an insert did, as ClickHouse counts it.
type summary struct {
	writtenRows int64
	known       bool
}

type summaryKey struct{}

// withSummary makes the next statement under the returned context write its
// summary into s: clickhouse-go drops the header, so the transport keeps it.
func withSummary(ctx context.Context, s *summary) context.Context {
	return context.WithValue(ctx, summaryKey{}, s)
}

// summaryTransport stands around either transport and reads the header.
type summaryTransport struct{ next http.RoundTripper }

var _ http.RoundTripper = summaryTransport{}

func (t summaryTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := t.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	s, ok := req.Context().Value(summaryKey{}).(*summary)
	if !ok || res.StatusCode != http.StatusOK {
		return res, nil
	}
	if err := s.read(res.Header.Get(summaryHeader)); err != nil {
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		return nil, err
	}
	return res, nil
}

func (s *summary) read(header string) error {
	if header == "" {
		return nil
	}
	var said struct {
		WrittenRows json.Number `json:"written_rows"`
	}
	if err := json.Unmarshal([]byte(header), &said); err != nil {
		return fmt.Errorf("reading ClickHouse's summary %q: %w", header, err)
	}
	n, err := said.WrittenRows.Int64()
	if err != nil {
		return fmt.Errorf("reading ClickHouse's summary %q: %w", header, err)
	}
	s.writtenRows, s.known = n, true
	return nil
}

package sink

import (
	"context"
	"testing"
	"time"
)

// BenchmarkSink carries full messages from the bus into ClickHouse; the rows a
// second stand beside the store's own figure for a raw insert.
func BenchmarkSink(b *testing.B) {
	h := newHouse(b)
	const rows = 8192
	data := h.message(rows)
	for range b.N {
		h.sendBytes(rows, data) // the same events again and again: numbers do not matter here
	}
	s, err := New(Config{Bus: h.bus, Store: h.store.Store, Log: testLog(b)})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	b.ResetTimer()
	go func() { ended <- s.Run(ctx) }()
	last, err := h.bus.LastEvent(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	end := time.Now().Add(10 * time.Second)
	for s.Through() < last && time.Now().Before(end) {
		time.Sleep(time.Millisecond)
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)*rows/b.Elapsed().Seconds(), "rows/s")
	cancel()
	if err := <-ended; err != nil {
		b.Error(err)
	}
	if s.Through() < last {
		b.Errorf("through %d of %d after 10 s: %+v", s.Through(), last, s.Status())
	}
}

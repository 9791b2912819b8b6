package bus

import (
	"bytes"
	"testing"
)

// BenchmarkPublishRead carries messages of 64 KiB through the embedded server
// and back: the floor under every other figure.
func BenchmarkPublishRead(b *testing.B) {
	c := config(b)
	c.EventsBytes = 4 * gib
	bus := open(b, c)
	p := must[*Publisher](b)(bus.NewPublisher(b.Context(), "c"))
	r := must[*Reader](b)(bus.Events(b.Context(), 0))
	defer r.Close()
	data := bytes.Repeat([]byte("0123456789abcdef"), 64*kib/16)
	b.SetBytes(int64(len(data)))
	b.ResetTimer()
	go func() {
		for range b.N {
			if _, err := p.Publish(b.Context(), Meta{Epoch: p.Epoch(), First: p.Next(), Rows: 1}, data); err != nil {
				b.Error(err)
				return
			}
		}
	}()
	for range b.N {
		next(b, r)
	}
}

package sink

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/opencoc/coc/services/bus"
)

// otherSchema is a message of one row whose schema is not ours.
func otherSchema(t *testing.T) []byte {
	t.Helper()
	schema := arrow.NewSchema([]arrow.Field{{Name: "value", Type: arrow.PrimitiveTypes.Float64}}, nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	b.Field(0).(*array.Float64Builder).Append(1)
	var out bytes.Buffer
	w := ipc.NewWriter(&out, ipc.WithSchema(schema))
	rec := b.NewRecordBatch()
	defer rec.Release()
	if err := w.Write(rec); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestCutEndsWhereTheSchemaChangesAndAtItsBounds(t *testing.T) {
	h := newHouse(t)
	h.send(5)
	h.send(5)
	h.send(0)
	h.sendBytes(1, otherSchema(t))
	h.send(0)
	h.send(5)
	for range cutMessages + 10 {
		h.send(0)
	}
	const each = 100*8000 + rowWeight*8000 // what the header of the next ones says
	for range 2 * cutWeight / each {
		h.sendBytes(8000, []byte("counted by its header until it is looked into"))
	}
	s, err := New(Config{Bus: h.bus, Store: h.store})
	if err != nil {
		t.Fatal(err)
	}
	f := &follower{Sink: s, name: bus.CutEvents, p: &s.state.events, reading: t.Context(), writing: t.Context()}
	g := &gatherer{f: f, r: mustRead(t, h.bus)}
	var cuts []string
	last, err := h.bus.LastEvent(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for end := uint64(0); end < last; {
		items, err := g.gather()
		if err != nil {
			t.Fatal(err)
		}
		if len(items) > 0 && items[0].Seq != end+1 {
			t.Fatalf("a cut begins at %d after %d", items[0].Seq, end)
		}
		end = items[len(items)-1].Seq
		cuts = append(cuts, fmt.Sprintf("%d-%d", items[0].Seq, end))
	}
	// by schema: 1-3, 4-5; by messages: 6-1505; by weight: 24 messages of 8,000
	if got := fmt.Sprint(cuts); got != "[1-3 4-5 6-1505 1506-1540 1541-1564]" {
		t.Errorf("cuts %s of %d", got, last)
	}
}

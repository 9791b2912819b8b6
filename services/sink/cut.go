package sink

import (
	"bytes"
	"fmt"

	"github.com/opencoc/coc/services/bus"
	"github.com/opencoc/coc/services/event"
)

// item is one message of EVENTS with what was found out about it.
type item struct {
	bus.Message
	schema []byte // its schema's frame; nil when it holds no events
	bad    string // why it cannot be stored, "" when it can
	reason string // bad's short name, counted by
	buried bool   // it is in the dead letters
}

// inspect checks frames and rows, without unpacking.
func inspect(m bus.Message) item {
	it := item{Message: m}
	if m.IsControl() || (m.Meta.Rows == 0 && len(m.Data) == 0) {
		return it
	}
	rows, err := event.CountRows(m.Data)
	var schema []byte
	if err == nil {
		schema, err = event.SchemaFrame(m.Data)
	}
	switch {
	case bus.CheckName(m.Meta.Collector) != nil:
		it.reason, it.bad = "bad_subject", fmt.Sprintf("%.200q is not the subject of a collector", m.Subject)
	case err != nil:
		it.reason, it.bad = "bad_message", err.Error()
	case int64(rows) != m.Meta.Rows:
		it.reason, it.bad = "rows_differ", fmt.Sprintf("its header says %d events, it holds %d", m.Meta.Rows, rows)
	case rows > 0:
		it.schema = schema
	}
	return it
}

// holdsEvents reports whether the message belongs into the table events.
func (it *item) holdsEvents() bool { return it.schema != nil && it.bad == "" }

// weight is what the message costs ClickHouse to insert, in bytes of rows. Its
// header says how many bytes it was made of; without that it counts as full.
func (it *item) weight() int64 {
	raw := it.Meta.Bytes
	if raw <= 0 && it.Meta.Rows > 0 {
		raw = event.LimitBatchBytes
	}
	return max(raw, int64(len(it.Data))) + rowWeight*min(it.Meta.Rows, event.LimitRows)
}

// kept returns the messages whose events are to be inserted, and their rows.
func kept(items []item) (list []item, rows int64) {
	for _, it := range items {
		if it.holdsEvents() {
			list = append(list, it)
			rows += it.Meta.Rows
		}
	}
	return list, rows
}

// stream makes one Arrow stream of the messages: runs of small ones rebuilt,
// all spliced. The same messages give the same bytes, whatever the moment; the
// parts alias the messages.
func stream(items []item) (parts [][]byte, rows int, err error) {
	return event.Splice(rebuild(items))
}

// rebuild joins runs of small messages. Where rebuilding fails (bytes that only
// unpacking shows to be damaged) or gives another schema, the messages stay as
// they are and ClickHouse decides.
func rebuild(items []item) [][]byte {
	msgs := make([][]byte, 0, len(items))
	for len(items) > 0 {
		n := run(items)
		if merged := merge(items[:n]); merged != nil {
			msgs = append(msgs, merged)
		} else {
			for _, it := range items[:n] {
				msgs = append(msgs, it.Data)
			}
		}
		items = items[n:]
	}
	return msgs
}

// run is how many of the first messages are rebuilt into one: at least 1.
func run(items []item) int {
	var rows, size int64
	for i, it := range items {
		rows, size = rows+it.Meta.Rows, size+max(it.Meta.Bytes, int64(len(it.Data)))
		if it.Meta.Rows >= smallRows || rows > mergeRows || size > mergeBytes {
			return max(1, i)
		}
	}
	return len(items)
}

func merge(items []item) []byte {
	if len(items) < 2 {
		return nil
	}
	msgs := make([][]byte, len(items))
	for i, it := range items {
		msgs[i] = it.Data
	}
	merged, err := event.Merge(msgs)
	if err != nil {
		return nil
	}
	if schema, err := event.SchemaFrame(merged); err != nil || !bytes.Equal(schema, items[0].schema) {
		return nil
	}
	return merged
}

// withoutNames takes user.name out of a message: DEADLETTER outlives the bus,
// and names are kept nowhere but sealed. What cannot be unpacked stays as it
// is.
func withoutNames(msg []byte) []byte {
	batch, err := event.Decode(msg)
	if err != nil {
		return msg
	}
	defer batch.Release()
	b := event.NewBuilder()
	var e event.Event
	for row := range batch.Rows() {
		batch.Event(row, &e)
		e.UserName = ""
		if b.Append(&e) != nil {
			return msg
		}
	}
	clean, err := b.Encode()
	if err != nil {
		return msg
	}
	return clean
}

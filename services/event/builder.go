package event

import (
	"bytes"
	"fmt"
	"unsafe"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// Schema is the Arrow schema of a message, made from Fields.
var Schema = newSchema()

func newSchema() *arrow.Schema {
	fields := make([]arrow.Field, fieldCount)
	for i, f := range Fields {
		fields[i] = arrow.Field{Name: columnOf(f.Name), Type: arrowType(f.Type), Nullable: isNullable(i)}
	}
	meta := arrow.NewMetadata([]string{"coc.schema"}, []string{SchemaVersion})
	return arrow.NewSchema(fields, &meta)
}

func isNullable(field int) bool {
	f := &Fields[field]
	return (f.Type == Int || f.Type == Float) && !f.Required
}

func arrowType(t Type) arrow.DataType {
	switch t {
	case Dict:
		return &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Uint16, ValueType: arrow.BinaryTypes.String}
	case Text:
		return arrow.BinaryTypes.String
	case Time:
		return &arrow.TimestampType{Unit: arrow.Millisecond, TimeZone: "UTC"}
	case Int:
		return arrow.PrimitiveTypes.Int64
	case Float:
		return arrow.PrimitiveTypes.Float64
	}
	return arrow.MapOf(arrow.BinaryTypes.String, arrow.BinaryTypes.String)
}

// texts is a column of texts as Arrow lays it out. Offsets start with a 0.
type texts struct {
	offsets []int32
	data    []byte
}

func (t *texts) reset() {
	t.offsets = append(t.offsets[:0], 0)
	t.data = t.data[:0]
}

func (t *texts) append(s string) {
	t.data = append(t.data, s...)
	t.offsets = append(t.offsets, int32(len(t.data)))
}

func (t *texts) len() int { return len(t.offsets) - 1 }

func (t *texts) arrow() *array.Data {
	return array.NewData(arrow.BinaryTypes.String, t.len(),
		[]*memory.Buffer{nil, raw(t.offsets), memory.NewBufferBytes(t.data)}, nil, 0, 0)
}

// column collects one field. Only the parts of its type are used.
type column struct {
	codes  []uint16          // Dict: index into values, by row
	index  map[string]uint16 // Dict: where a value stands in values
	last   string            // Dict: the value before, whose code needs no look-up
	values texts             // Dict: the distinct values; Text: the rows; Map: the values
	keys   texts             // Map: the keys
	lists  []int32           // Map: where a row's pairs end
	ints   []int64
	floats []float64
	valid  []byte // bit by row, nullable fields only
	nulls  int
}

// Builder collects events into one message for the bus: columns that are
// appended to, encoded, reset and used again. Its zero value is not ready; use
// NewBuilder. One goroutine at a time.
type Builder struct {
	cols  [fieldCount]column
	rows  int
	bytes int
	out   bytes.Buffer
}

// NewBuilder returns an empty builder.
func NewBuilder() *Builder {
	b := &Builder{}
	for i := range b.cols {
		if Fields[i].Type == Dict {
			b.cols[i].index = make(map[string]uint16)
		}
	}
	b.Reset()
	return b
}

// Reset drops what was appended and keeps the memory.
func (b *Builder) Reset() {
	b.rows, b.bytes = 0, 0
	for i := range b.cols {
		c := &b.cols[i]
		c.codes, c.ints, c.floats, c.valid = c.codes[:0], c.ints[:0], c.floats[:0], c.valid[:0]
		c.lists = append(c.lists[:0], 0)
		c.nulls, c.last = 0, ""
		c.values.reset()
		c.keys.reset()
		clear(c.index)
	}
}

// Rows is the number of events appended since the last reset.
func (b *Builder) Rows() int { return b.rows }

// RawBytes is what the events take before compression, near enough to hold
// against LimitBatchBytes.
func (b *Builder) RawBytes() int { return b.bytes }

// Full says that another event of up to size raw bytes should go into the next
// message.
func (b *Builder) Full(size int) bool {
	return b.rows >= LimitRows || (b.rows > 0 && b.bytes+size > LimitBatchBytes)
}

// Append copies the event into the batch. It refuses the event, and leaves the
// batch as it was, when it is full.
func (b *Builder) Append(e *Event) error {
	if b.rows >= LimitRows {
		return fmt.Errorf("batch already holds %d events, the most one message carries: encode it first", b.rows)
	}
	for i := range b.cols {
		c := &b.cols[i]
		switch Fields[i].Type {
		case Dict:
			b.bytes += 2 + c.appendDict(*e.Text(i))
		case Text:
			s := *e.Text(i)
			c.values.append(s)
			b.bytes += 4 + len(s)
		case Time, Int:
			p, has := e.Int(i)
			c.ints = append(c.ints, *p)
			b.bytes += 8
			if isNullable(i) {
				c.appendValid(b.rows, e.Has&has != 0)
			}
		case Float:
			p, has := e.Float(i)
			c.floats = append(c.floats, *p)
			b.bytes += 8
			c.appendValid(b.rows, e.Has&has != 0)
		case Map:
			for _, l := range e.Labels {
				c.keys.append(l.Key)
				c.values.append(l.Value)
				b.bytes += 8 + len(l.Key) + len(l.Value)
			}
			c.lists = append(c.lists, int32(c.keys.len()))
			b.bytes += 4
		}
	}
	b.rows++
	return nil
}

// appendDict returns the bytes that a new value took.
func (c *column) appendDict(s string) int {
	if s == c.last && len(c.codes) > 0 {
		c.codes = append(c.codes, c.codes[len(c.codes)-1])
		return 0
	}
	code, ok := c.index[s]
	size := 0
	if !ok {
		code = uint16(c.values.len()) // at most LimitRows distinct values, far below 65,536
		c.values.append(s)
		size = 4 + len(s)
		c.index[c.valueAt(code)] = code
	}
	c.last = c.valueAt(code)
	c.codes = append(c.codes, code)
	return size
}

// valueAt aliases the collected values, and so do the keys of index: good until
// the next reset, which clears them. When appending moves the values, the bytes
// behind an older alias stay as they were.
func (c *column) valueAt(code uint16) string {
	v := c.values.data[c.values.offsets[code]:c.values.offsets[code+1]]
	return unsafe.String(unsafe.SliceData(v), len(v))
}

func (c *column) appendValid(row int, ok bool) {
	if row%8 == 0 {
		c.valid = append(c.valid, 0)
	}
	if ok {
		c.valid[row/8] |= 1 << (row % 8)
	} else {
		c.nulls++
	}
}

// Encode returns the batch as one Arrow IPC stream (schema, dictionaries, one
// record batch, end mark; bodies LZ4) and resets the builder. The caller owns
// the bytes. The same events in the same order give the same bytes.
func (b *Builder) Encode() ([]byte, error) {
	rec := b.record()
	b.out.Reset()
	w := ipc.NewWriter(&b.out, ipc.WithSchema(Schema), ipc.WithLZ4(), ipc.WithCompressConcurrency(1))
	if err := w.Write(rec); err != nil {
		return nil, fmt.Errorf("encode batch of %d events as Arrow: %w", b.rows, err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("end Arrow stream of %d events: %w", b.rows, err)
	}
	if b.out.Len() > LimitMessageBytes {
		return nil, fmt.Errorf("batch of %d events encodes to %d bytes, more than the bus's %d: append fewer (see Full)", b.rows, b.out.Len(), LimitMessageBytes)
	}
	b.Reset()
	return bytes.Clone(b.out.Bytes()), nil
}

func (b *Builder) record() arrow.RecordBatch {
	cols := make([]arrow.Array, fieldCount)
	for i := range b.cols {
		c := &b.cols[i]
		typ := Schema.Field(i).Type
		var d *array.Data
		switch Fields[i].Type {
		case Dict:
			d = array.NewDataWithDictionary(typ, b.rows, []*memory.Buffer{nil, raw(c.codes)}, 0, 0, c.values.arrow())
		case Text:
			d = c.values.arrow()
		case Time, Int:
			d = array.NewData(typ, b.rows, []*memory.Buffer{c.validity(), raw(c.ints)}, nil, c.nulls, 0)
		case Float:
			d = array.NewData(typ, b.rows, []*memory.Buffer{c.validity(), raw(c.floats)}, nil, c.nulls, 0)
		case Map:
			pairs := array.NewData(typ.(*arrow.MapType).Elem(), c.keys.len(), []*memory.Buffer{nil},
				[]arrow.ArrayData{c.keys.arrow(), c.values.arrow()}, 0, 0)
			d = array.NewData(typ, b.rows, []*memory.Buffer{nil, raw(c.lists)}, []arrow.ArrayData{pairs}, 0, 0)
		}
		cols[i] = array.MakeFromData(d)
	}
	return array.NewRecordBatch(Schema, cols, int64(b.rows))
}

func (c *column) validity() *memory.Buffer {
	if c.nulls == 0 {
		return nil
	}
	return memory.NewBufferBytes(c.valid)
}

// raw shows a slice of numbers as the bytes that Arrow lays out (little endian,
// as every machine is that coc runs on; see order.go).
func raw[T uint16 | int32 | int64 | float64](s []T) *memory.Buffer {
	if len(s) == 0 {
		return memory.NewBufferBytes(nil)
	}
	var t T
	return memory.NewBufferBytes(unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), len(s)*int(unsafe.Sizeof(t))))
}

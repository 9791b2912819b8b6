package event

import (
	"encoding/binary"
	"errors"
	"fmt"

	flatbuffers "github.com/google/flatbuffers/go"
)

// ErrMessage is what every error about bytes that are no message of ours wraps.
var ErrMessage = errors.New("not an Arrow message of coc")

func broken(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMessage, fmt.Sprintf(format, args...))
}

// The kinds of frame of an Arrow stream (MessageHeader in Arrow's Message.fbs).
const (
	frameSchema     = 1
	frameDictionary = 2
	frameRecords    = 3
)

// frame is one encapsulated Arrow message within a message of the bus.
type frame struct {
	kind  byte
	bytes []byte // prefix, metadata and body
	body  []byte
	table flatbuffers.Table // its header: Schema, DictionaryBatch or RecordBatch
}

// continuation starts each frame; followed by length 0 it is the end mark.
const continuation = 0xFFFFFFFF

var endMark = []byte{0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0}

// slot is the vtable offset of the n-th field of a flatbuffers table.
func slot(n int) flatbuffers.VOffsetT { return flatbuffers.VOffsetT(4 + 2*n) }

// frames cuts a message into its frames, without unpacking. The message must
// be whole: one schema, any dictionaries, one record batch, one end mark.
func frames(msg []byte) (list []frame, err error) {
	// flatbuffers reads offsets unchecked; on hostile bytes that is a slice panic,
	// which means nothing but "broken" here.
	defer func() {
		if r := recover(); r != nil {
			list, err = nil, broken("damaged metadata")
		}
	}()
	if len(msg) > LimitMessageBytes {
		return nil, broken("%d bytes, at most %d are accepted", len(msg), LimitMessageBytes)
	}
	for rest := msg; ; {
		if len(rest) < 8 || binary.LittleEndian.Uint32(rest) != continuation {
			return nil, broken("frame %d is truncated or has no continuation mark", len(list))
		}
		size := int(binary.LittleEndian.Uint32(rest[4:]))
		if size == 0 {
			if len(rest) != len(endMark) {
				return nil, broken("%d bytes after the end mark", len(rest)-len(endMark))
			}
			return list, checkOrder(list)
		}
		if len(list) == limitFrames {
			return nil, broken("more than %d frames", limitFrames)
		}
		if size > len(rest)-8 || size < 16 {
			return nil, broken("frame %d says %d bytes of metadata, %d are left", len(list), size, len(rest)-8)
		}
		f, length, err := readFrame(rest[8 : 8+size])
		if err != nil {
			return nil, err
		}
		if length < 0 || length > int64(len(rest)-8-size) {
			return nil, broken("frame %d says %d bytes of body, %d are left", len(list), length, len(rest)-8-size)
		}
		end := 8 + size + int(length)
		f.bytes, f.body = rest[:end], rest[8+size:end]
		list = append(list, f)
		rest = rest[end:]
	}
}

// readFrame reads the metadata of a frame (Message in Message.fbs: version,
// header type, header, body length).
func readFrame(meta []byte) (f frame, bodyLength int64, err error) {
	var t flatbuffers.Table
	t.Bytes = meta
	t.Pos = flatbuffers.GetUOffsetT(meta)
	o := flatbuffers.UOffsetT(t.Offset(slot(1)))
	if o == 0 {
		return f, 0, broken("a frame has no header type")
	}
	f.kind = t.GetByte(t.Pos + o)
	h := flatbuffers.UOffsetT(t.Offset(slot(2)))
	if h == 0 {
		return f, 0, broken("a frame has no header")
	}
	t.Union(&f.table, h)
	if b := flatbuffers.UOffsetT(t.Offset(slot(3))); b != 0 {
		bodyLength = t.GetInt64(t.Pos + b)
	}
	return f, bodyLength, nil
}

func checkOrder(list []frame) error {
	if len(list) < 2 || list[0].kind != frameSchema || list[len(list)-1].kind != frameRecords {
		return broken("it needs a schema first and one record batch last")
	}
	for _, f := range list[1 : len(list)-1] {
		if f.kind != frameDictionary {
			return broken("only dictionaries may stand between schema and record batch")
		}
	}
	return nil
}

// records is a RecordBatch table: its row count, nodes and buffers.
type records struct {
	length            int64
	nodes, buffers    []byte // 16 bytes each: (length, nulls) and (offset, length)
	body              []byte
	compressed        bool
	nextNode, nextBuf int
}

func readRecords(t flatbuffers.Table, body []byte) (r records, err error) {
	r.body = body
	if o := flatbuffers.UOffsetT(t.Offset(slot(0))); o != 0 {
		r.length = t.GetInt64(t.Pos + o)
	}
	if r.nodes, err = vector16(&t, 1); err != nil {
		return r, err
	}
	if r.buffers, err = vector16(&t, 2); err != nil {
		return r, err
	}
	if o := flatbuffers.UOffsetT(t.Offset(slot(3))); o != 0 {
		var c flatbuffers.Table
		c.Bytes, c.Pos = t.Bytes, t.Indirect(o+t.Pos)
		if k := flatbuffers.UOffsetT(c.Offset(slot(0))); k != 0 && c.GetByte(c.Pos+k) != 0 {
			return r, broken("compressed by codec %d, only LZ4 frames (0) are read", c.GetByte(c.Pos+k))
		}
		r.compressed = true
	}
	if r.length < 0 || r.length > LimitRows {
		return r, broken("%d rows, at most %d are accepted", r.length, LimitRows)
	}
	return r, nil
}

// vector16 is a vector of 16-byte structs.
func vector16(t *flatbuffers.Table, n int) ([]byte, error) {
	o := flatbuffers.UOffsetT(t.Offset(slot(n)))
	if o == 0 {
		return nil, nil
	}
	start, size := int(t.Vector(o)), t.VectorLen(o)
	if size < 0 || size > 16*limitFrames || start+16*size > len(t.Bytes) {
		return nil, broken("a vector of %d entries in %d bytes of metadata", size, len(t.Bytes))
	}
	return t.Bytes[start : start+16*size], nil
}

// node returns the next field's row count and number of nulls.
func (r *records) node() (length, nulls int64, err error) {
	if 16*(r.nextNode+1) > len(r.nodes) {
		return 0, 0, broken("fewer nodes than fields")
	}
	n := r.nodes[16*r.nextNode:]
	r.nextNode++
	return int64(binary.LittleEndian.Uint64(n)), int64(binary.LittleEndian.Uint64(n[8:])), nil
}

// buffer returns the next buffer as it stands in the body, still packed.
func (r *records) buffer() ([]byte, error) {
	if 16*(r.nextBuf+1) > len(r.buffers) {
		return nil, broken("fewer buffers than fields need")
	}
	b := r.buffers[16*r.nextBuf:]
	r.nextBuf++
	offset, length := int64(binary.LittleEndian.Uint64(b)), int64(binary.LittleEndian.Uint64(b[8:]))
	if offset < 0 || length < 0 || offset > int64(len(r.body)) || length > int64(len(r.body))-offset {
		return nil, broken("buffer %d lies outside its body", r.nextBuf-1)
	}
	return r.body[offset : offset+length], nil
}

// skip passes over a column of a type: its nodes and buffers.
func (r *records) skip(t Type) {
	switch t {
	case Text:
		r.nextNode, r.nextBuf = r.nextNode+1, r.nextBuf+3
	case Map: // list, struct, keys, values
		r.nextNode, r.nextBuf = r.nextNode+4, r.nextBuf+2+1+3+3
	default:
		r.nextNode, r.nextBuf = r.nextNode+1, r.nextBuf+2
	}
}

// SchemaFrame returns the schema's frame of a message, aliasing it: two
// messages can be spliced when theirs are equal.
func SchemaFrame(msg []byte) ([]byte, error) {
	list, err := frames(msg)
	if err != nil {
		return nil, err
	}
	return list[0].bytes, nil
}

// CountRows returns how many events a message says it holds, without unpacking.
func CountRows(msg []byte) (int, error) {
	list, err := frames(msg)
	if err != nil {
		return 0, err
	}
	return countRows(list)
}

func countRows(list []frame) (n int, err error) {
	defer func() {
		if r := recover(); r != nil {
			n, err = 0, broken("damaged record batch")
		}
	}()
	last := list[len(list)-1]
	r, err := readRecords(last.table, last.body)
	return int(r.length), err
}

// Splice joins messages of one schema into one Arrow stream without unpacking
// them: the schema of the first, every message's frames, one end mark. It
// returns the parts in order, which alias the messages, and the rows that they
// say they hold. A complete stream after another would be ignored silently by
// ClickHouse; this is how many messages become one insert.
func Splice(msgs [][]byte) (parts [][]byte, rows int, err error) {
	if len(msgs) == 0 {
		return nil, 0, errors.New("splice needs at least one message")
	}
	var schema []byte
	for i, m := range msgs {
		list, err := frames(m)
		if err != nil {
			return nil, 0, wrapAt("splice", i, len(msgs), err)
		}
		n, err := countRows(list)
		if err != nil {
			return nil, 0, wrapAt("splice", i, len(msgs), err)
		}
		rows += n
		start := len(list[0].bytes)
		if i == 0 {
			schema, start = list[0].bytes, 0
		} else if string(schema) != string(list[0].bytes) {
			return nil, 0, fmt.Errorf("splice message %d of %d: its schema differs from the first's; end the cut before it", i+1, len(msgs))
		}
		parts = append(parts, m[start:len(m)-len(endMark)])
	}
	return append(parts, endMark), rows, nil
}

func wrapAt(what string, i, n int, err error) error {
	return fmt.Errorf("%s message %d of %d: %w", what, i+1, n, err)
}

package event

import (
	"bytes"
	_ "embed"
	"encoding/binary"
	"fmt"
	"sync"
	"unsafe"

	flatbuffers "github.com/google/flatbuffers/go"
	"github.com/pierrec/lz4/v4"
)

// Batch is a decoded message: columns that alias one block of memory. Texts
// taken from it are good until Release; clone what must live longer. Many
// goroutines may read it.
type Batch struct {
	rows int
	cols [fieldCount]view
	mem  *arena
}

// view is one decoded field.
type view struct {
	codes   []uint16
	values  textsView // Dict: distinct values; Text: rows; Map: values
	keys    textsView
	lists   []int32
	ints    []int64
	floats  []float64
	valid   []byte // nil: all there
	present bool   // false for a field that was not asked for
}

type textsView struct {
	offsets []int32
	data    []byte
}

func (t *textsView) len() int { return len(t.offsets) - 1 }

func (t *textsView) at(i int) string {
	from, to := t.offsets[i], t.offsets[i+1]
	if from == to {
		return ""
	}
	return unsafe.String(&t.data[from], to-from)
}

// arena is where a message is unpacked to: 8-byte words, so that every column
// is aligned.
type arena struct {
	words []uint64
	used  int // words
}

var arenas = sync.Pool{New: func() any { return new(arena) }}

func (a *arena) take(n int) []byte {
	words := (n + 7) / 8
	s := a.words[a.used : a.used+words]
	a.used += words
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), n)
}

// Decode unpacks a message. Every length, offset and code is checked, so that
// reading the batch cannot fail; an error wraps ErrMessage. The batch does not
// alias msg. Call Release when done.
func Decode(msg []byte) (*Batch, error) { return DecodeFields(msg, AllFields) }

// FieldSet is a set of fields by their index.
type FieldSet uint64

// AllFields holds every field.
const AllFields FieldSet = 1<<fieldCount - 1

// The build fails here when Fields outgrows FieldSet.
const _ = uint(64 - fieldCount)

// With returns the set with a field added.
func (s FieldSet) With(field int) FieldSet { return s | 1<<field }

// Has says whether the field is in the set.
func (s FieldSet) Has(field int) bool { return s&(1<<field) != 0 }

// DecodeFields is Decode for a reader that needs only some fields: the others
// are not unpacked and read as absent. Most of a message's bytes are texts
// that no rule asks for.
func DecodeFields(msg []byte, want FieldSet) (b *Batch, err error) {
	list, err := frames(msg)
	if err != nil {
		return nil, err
	}
	if err := checkSchema(list[0].bytes); err != nil {
		return nil, err
	}
	b = &Batch{mem: arenas.Get().(*arena)}
	defer func() {
		if r := recover(); r != nil { // as in frames: flatbuffers on hostile bytes
			err = broken("damaged metadata")
		}
		if err != nil {
			b.Release()
			b = nil
		}
	}()
	size, err := inflatedSize(list[1:])
	if err != nil {
		return b, err
	}
	if cap(b.mem.words) < size {
		b.mem.words = make([]uint64, size)
	}
	b.mem.words, b.mem.used = b.mem.words[:cap(b.mem.words)], 0
	return b, b.read(list, want)
}

// Release gives the memory back; the batch and every text from it are dead.
func (b *Batch) Release() {
	if b.mem != nil {
		arenas.Put(b.mem)
		b.mem = nil
		b.cols = [fieldCount]view{}
		b.rows = 0
	}
}

// schemaV1 is the frame that the writer of this version puts first. Schemas
// are known by their bytes: reading a hostile one costs Arrow's reader
// gigabytes (tried), and coc's collectors are the only writers. A new version,
// or a library that lays the same schema out differently, adds a file here; a
// test fails when the writer's frame is not among them.
//
//go:embed schema-v1.arrow
var schemaV1 []byte

func checkSchema(frame []byte) error {
	if !bytes.Equal(frame, schemaV1) {
		return broken("its schema is not one that this build reads (version %s): upgrade the older of the two programs", SchemaVersion)
	}
	return nil
}

// inflatedSize adds up what the frames unpack to, in words, and refuses more
// than limitInflated before anything is allocated.
func inflatedSize(list []frame) (words int, err error) {
	for _, f := range list {
		r, err := recordsOf(f)
		if err != nil {
			return 0, err
		}
		for range len(r.buffers) / 16 {
			buf, err := r.buffer()
			if err != nil {
				return 0, err
			}
			n := len(buf)
			if r.compressed && n > 0 {
				if n < 8 {
					return 0, broken("a packed buffer of %d bytes", n)
				}
				if size := int64(binary.LittleEndian.Uint64(buf)); size != -1 {
					if size < 0 || size > limitInflated {
						return 0, broken("a buffer that unpacks to %d bytes, at most %d are accepted", size, limitInflated)
					}
					n = int(size)
				}
			}
			words += (n + 7) / 8
		}
		if words > limitInflated/8 {
			return 0, broken("it unpacks to more than %d bytes", limitInflated)
		}
	}
	return words, nil
}

func recordsOf(f frame) (records, error) {
	if f.kind != frameDictionary {
		return readRecords(f.table, f.body)
	}
	t := f.table
	if o := t.Offset(slot(2)); o != 0 && t.GetBool(t.Pos+flatbuffers.UOffsetT(o)) {
		return records{}, broken("a dictionary delta; each message must carry whole dictionaries")
	}
	o := t.Offset(slot(1))
	if o == 0 {
		return records{}, broken("a dictionary without data")
	}
	inner := t
	inner.Pos = t.Indirect(flatbuffers.UOffsetT(o) + t.Pos)
	return readRecords(inner, f.body)
}

func (b *Batch) read(list []frame, want FieldSet) error {
	if err := b.readDictionaries(list[1:len(list)-1], want); err != nil {
		return err
	}
	last := list[len(list)-1]
	r, err := recordsOf(last)
	if err != nil {
		return err
	}
	b.rows = int(r.length)
	for i := range b.cols {
		if !want.Has(i) {
			r.skip(Fields[i].Type)
			continue
		}
		if err := b.readColumn(&r, i); err != nil {
			return fmt.Errorf("column %s: %w", Fields[i].Column, err)
		}
	}
	return nil
}

// readDictionaries fills the distinct values. The writer numbers dictionaries
// in the order of the Dict fields (held by a test).
func (b *Batch) readDictionaries(list []frame, want FieldSet) error {
	next := 0
	for i := range b.cols {
		if Fields[i].Type != Dict {
			continue
		}
		if next == len(list) {
			return broken("no dictionary for column %s", Fields[i].Column)
		}
		f := list[next]
		id := int64(0)
		if o := f.table.Offset(slot(0)); o != 0 {
			id = f.table.GetInt64(f.table.Pos + flatbuffers.UOffsetT(o))
		}
		if id != int64(next) {
			return broken("dictionary %d where %d is due", id, next)
		}
		next++
		if !want.Has(i) {
			continue
		}
		r, err := recordsOf(f)
		if err != nil {
			return err
		}
		n, nulls, err := r.node()
		if err != nil {
			return err
		}
		if nulls != 0 || n != r.length {
			return broken("dictionary %d has nulls or says two lengths", id)
		}
		if b.cols[i].values, err = b.texts(&r, int(n)); err != nil {
			return fmt.Errorf("dictionary of column %s: %w", Fields[i].Column, err)
		}
	}
	if next != len(list) {
		return broken("%d dictionaries too many", len(list)-next)
	}
	return nil
}

func (b *Batch) readColumn(r *records, i int) (err error) {
	c := &b.cols[i]
	c.present = true
	length, nulls, err := r.node()
	if err != nil {
		return err
	}
	if length != int64(b.rows) || nulls < 0 || nulls > length || (nulls > 0 && !isNullable(i)) {
		return broken("%d rows and %d nulls in a batch of %d", length, nulls, b.rows)
	}
	if Fields[i].Type == Text {
		c.values, err = b.texts(r, b.rows)
		return err
	}
	valid, err := b.unpack(r)
	if err != nil {
		return err
	}
	if nulls > 0 {
		if len(valid) < (b.rows+7)/8 {
			return broken("%d bytes of validity for %d rows", len(valid), b.rows)
		}
		c.valid = valid
	}
	data, err := b.unpack(r)
	if err != nil {
		return err
	}
	switch Fields[i].Type {
	case Dict:
		if c.codes, err = numbers[uint16](data, b.rows); err != nil {
			return err
		}
		return checkCodes(c.codes, c.values.len())
	case Time, Int:
		c.ints, err = numbers[int64](data, b.rows)
		return err
	case Float:
		c.floats, err = numbers[float64](data, b.rows)
		return err
	}
	if c.lists, err = offsets(data, b.rows); err != nil {
		return err
	}
	return b.readPairs(r, c)
}

// readPairs reads the struct below a map: its node, then keys and values.
func (b *Batch) readPairs(r *records, c *view) error {
	n, nulls, err := r.node()
	if err != nil {
		return err
	}
	pairs := 0
	if len(c.lists) > 0 {
		pairs = int(c.lists[len(c.lists)-1])
	}
	if n != int64(pairs) || nulls != 0 {
		return broken("%d pairs and %d nulls where the rows name %d", n, nulls, pairs)
	}
	if _, err := b.unpack(r); err != nil { // the struct's validity: none
		return err
	}
	for _, t := range []*textsView{&c.keys, &c.values} {
		n, nulls, err := r.node()
		if err != nil {
			return err
		}
		if n != int64(pairs) || nulls != 0 {
			return broken("%d texts and %d nulls for %d pairs", n, nulls, pairs)
		}
		if *t, err = b.texts(r, pairs); err != nil {
			return err
		}
	}
	return nil
}

// texts reads the three buffers of a text column without nulls.
func (b *Batch) texts(r *records, n int) (t textsView, err error) {
	if n < 0 || n > LimitRows*LimitLabels {
		return t, broken("%d texts", n)
	}
	if _, err = b.unpack(r); err != nil { // validity: none
		return t, err
	}
	data, err := b.unpack(r)
	if err != nil {
		return t, err
	}
	if t.offsets, err = offsets(data, n); err != nil {
		return t, err
	}
	if t.data, err = b.unpack(r); err != nil {
		return t, err
	}
	if int(t.offsets[n]) > len(t.data) {
		return t, broken("texts end at byte %d of %d", t.offsets[n], len(t.data))
	}
	return t, nil
}

// unpack returns the next buffer's content in the arena.
func (b *Batch) unpack(r *records) ([]byte, error) {
	buf, err := r.buffer()
	if err != nil || len(buf) == 0 {
		return nil, err
	}
	if r.compressed {
		size := int64(binary.LittleEndian.Uint64(buf))
		buf = buf[8:]
		if size != -1 {
			out := b.mem.take(int(size))
			return out, inflate(out, buf)
		}
	}
	out := b.mem.take(len(buf))
	copy(out, buf)
	return out, nil
}

// inflate unpacks an LZ4 frame into exactly out (LZ4 frame format 1.6.4:
// magic, flags, block maximum, optional content size, header checksum, blocks,
// end). Reading it here saves the library's reader and its buffers; the blocks
// are the library's.
func inflate(out, src []byte) error {
	if len(src) < 7 || binary.LittleEndian.Uint32(src) != 0x184D2204 {
		return broken("no LZ4 frame")
	}
	flags := src[4]
	if flags>>6 != 1 || flags&1 != 0 {
		return broken("an LZ4 frame of another version or with a dictionary")
	}
	head := 7
	if flags&8 != 0 {
		head += 8
	}
	blockSum, independent := flags&16 != 0, flags&32 != 0
	at := 0
	for rest := src[min(head, len(src)):]; ; {
		if len(rest) < 4 {
			return broken("an LZ4 frame without end")
		}
		size := binary.LittleEndian.Uint32(rest)
		rest = rest[4:]
		if size == 0 {
			break
		}
		stored := size&(1<<31) != 0
		size &^= 1 << 31
		if uint64(size) > uint64(len(rest)) {
			return broken("an LZ4 block of %d bytes in %d", size, len(rest))
		}
		block := rest[:size]
		var n int
		var err error
		switch {
		case stored:
			if n = len(block); n > len(out)-at {
				return broken("an LZ4 frame longer than it says")
			}
			copy(out[at:], block)
		case independent:
			n, err = lz4.UncompressBlock(block, out[at:])
		default:
			n, err = lz4.UncompressBlockWithDict(block, out[at:], out[max(0, at-64<<10):at])
		}
		if err != nil {
			return broken("corrupt LZ4 block: %v", err)
		}
		at += n
		rest = rest[size:]
		if blockSum {
			if len(rest) < 4 {
				return broken("an LZ4 block without its checksum")
			}
			rest = rest[4:]
		}
	}
	if at != len(out) {
		return broken("an LZ4 frame of %d bytes that says %d", at, len(out))
	}
	return nil
}

func numbers[T uint16 | int32 | int64 | float64](data []byte, n int) ([]T, error) {
	var t T
	if len(data) < n*int(unsafe.Sizeof(t)) {
		return nil, broken("%d bytes for %d values", len(data), n)
	}
	if n == 0 {
		return nil, nil
	}
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(data))), n), nil
}

var noOffsets = []int32{0}

// offsets reads n+1 offsets that start at 0 and never fall.
func offsets(data []byte, n int) ([]int32, error) {
	if n == 0 && len(data) == 0 {
		return noOffsets, nil
	}
	o, err := numbers[int32](data, n+1)
	if err != nil {
		return nil, err
	}
	if o[0] != 0 {
		return nil, broken("offsets start at %d", o[0])
	}
	for i := 1; i < len(o); i++ {
		if o[i] < o[i-1] {
			return nil, broken("offsets fall from %d to %d", o[i-1], o[i])
		}
	}
	return o, nil
}

func checkCodes(codes []uint16, n int) error {
	for _, c := range codes {
		if int(c) >= n {
			return broken("code %d in a dictionary of %d", c, n)
		}
	}
	return nil
}

package rule

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
)

// A snapshot holds all state of one lane, and the marks and horizons that all
// lanes share: numbers as varints, texts with their lengths, everything in a
// fixed order, so that the same state has the same bytes. Aggregates are not
// in it: they follow from the entries.
//
// What it reads may be damaged or hostile: every count is bounded by the bytes
// that are left, every index by what it points into.

const (
	snapshotMagic   = "COCL"
	snapshotVersion = 1
)

// encoder writes and remembers the first error.
type encoder struct {
	w   *bufio.Writer
	buf [binary.MaxVarintLen64]byte
	src map[uint32]uint64
}

func (e *encoder) uint(v uint64) { e.w.Write(e.buf[:binary.PutUvarint(e.buf[:], v)]) }
func (e *encoder) int(v int64)   { e.w.Write(e.buf[:binary.PutVarint(e.buf[:], v)]) }
func (e *encoder) float(v float64) {
	e.w.Write(binary.LittleEndian.AppendUint64(e.buf[:0], math.Float64bits(v)))
}
func (e *encoder) text(s string) { e.uint(uint64(len(s))); e.w.WriteString(s) }
func (e *encoder) bool(v bool) {
	if v {
		e.w.WriteByte(1)
	} else {
		e.w.WriteByte(0)
	}
}

// Snapshot writes the state of a lane after the last input.
func (r *Runner) Snapshot(lane int, w io.Writer) error {
	if lane < 0 || lane >= lanes || !r.lanes.Has(lane) {
		return fmt.Errorf("lane %d cannot be written: this engine does not hold it", lane)
	}
	e := &encoder{w: bufio.NewWriterSize(w, 64<<10)}
	e.w.WriteString(snapshotMagic)
	e.uint(snapshotVersion)
	e.text(r.set.digest)
	e.uint(uint64(lane))
	e.int(r.clock)
	r.writeSources(e, lane)
	e.uint(uint64(len(r.domains)))
	for _, d := range r.domains {
		e.domain(d)
		e.int(d.lanes[lane].swept)
		e.int(d.lanes[lane].entered)
		e.lane(&d.lanes[lane])
	}
	e.w.WriteString(snapshotMagic)
	if err := e.w.Flush(); err != nil {
		return fmt.Errorf("lane %d cannot be written: %w", lane, err)
	}
	return nil
}

// writeSources writes the collectors that the lane's events come from, in
// order of their names, and numbers them anew.
func (r *Runner) writeSources(e *encoder, lane int) {
	used := map[uint32]bool{}
	for _, d := range r.domains {
		for _, s := range d.lanes[lane].stores {
			if s == nil {
				continue
			}
			for _, k := range s.keys {
				k.eachSource(func(src uint32) { used[src] = true })
			}
		}
	}
	order := slices.SortedFunc(maps.Keys(used), func(a, b uint32) int {
		if r.identityBefore(&entry{src: a}, &entry{src: b}) {
			return -1
		}
		return 1
	})
	e.src = make(map[uint32]uint64, len(order))
	e.uint(uint64(len(order)))
	for i, src := range order {
		e.src[src] = uint64(i)
		e.text(r.sources.list[src].collector)
		e.int(r.sources.list[src].epoch)
	}
}

func (k *key) eachSource(f func(uint32)) {
	for i := range k.entries {
		f(k.entries[i].src)
	}
	for _, c := range k.cells {
		f(c.first.src)
		if c.frozen != nil {
			for _, list := range [][]mark{c.frozen.first, c.frozen.last, c.frozen.tailLast} {
				for i := range list {
					f(list[i].src)
				}
			}
		}
	}
}

func (e *encoder) domain(d *domain) {
	e.text(d.id)
	e.int(d.horizon)
	e.int(d.heard)
	e.uint(uint64(len(d.marks)))
	for _, c := range slices.Sorted(maps.Keys(d.marks)) {
		e.text(c)
		e.int(d.marks[c].mark)
		e.int(d.marks[c].heard)
	}
}

func (e *encoder) lane(l *laneState) {
	n := 0
	for _, s := range l.stores {
		if s != nil && len(s.keys) > 0 {
			n++
		}
	}
	e.uint(uint64(n))
	for _, s := range l.stores {
		if s == nil || len(s.keys) == 0 {
			continue
		}
		e.text(s.rule.ID)
		e.text(s.rule.windowHash)
		e.text(s.rule.Logic)
		e.uint(uint64(len(s.keys)))
		for k := s.oldest; k != nil; k = k.newer {
			e.key(k, s.rule.spec)
		}
	}
}

func (e *encoder) key(k *key, w *windowSpec) {
	e.text(k.name)
	var own []string
	if k.owns != nil {
		own = k.owns.list
	}
	e.uint(uint64(len(own)))
	for _, s := range own {
		e.text(s)
	}
	e.uint(uint64(len(k.entries)))
	last := int64(0)
	for i := range k.entries {
		e.entry(&k.entries[i], last)
		last = k.entries[i].time
	}
	for _, v := range k.values {
		e.float(v)
	}
	for _, h := range k.hashes {
		e.uint(h)
	}
	e.bool(k.ids != nil)
	for _, id := range k.ids {
		e.text(id)
	}
	e.bool(k.panes != nil)
	if k.panes != nil {
		e.panes(k.panes, w)
	}
	e.uint(uint64(len(k.cells)))
	for _, c := range k.cells {
		e.cell(c)
	}
}

func (e *encoder) entry(x *entry, last int64) {
	e.int(x.time - last)
	e.int(x.seq)
	e.uint(e.src[x.src])
	e.uint(uint64(x.flags))
}

func (e *encoder) marks(list []mark) {
	e.uint(uint64(len(list)))
	for i := range list {
		e.entry(&list[i].entry, 0)
		e.text(list[i].id)
	}
}

func (e *encoder) cell(c *cell) {
	e.int(c.from)
	e.int(c.to)
	for _, b := range []bool{c.has, c.closed, c.approx, c.gone, c.frozen != nil} {
		e.bool(b)
	}
	e.entry(&c.first.entry, 0)
	e.text(c.first.id)
	e.int(c.last)
	e.uint(uint64(len(c.terms)))
	for _, v := range c.terms {
		e.float(v)
	}
	e.text(c.tenant)
	e.int(c.revision)
	e.uint(c.sum)
	if f := c.frozen; f != nil {
		e.int(f.n)
		e.int(f.tail)
		e.int(f.lastFired)
		e.int(f.since)
		e.marks(f.first)
		e.marks(f.last)
		e.marks(f.tailLast)
	}
}

func (e *encoder) panes(p *panes, w *windowSpec) {
	e.int(p.through)
	e.uint(uint64(len(p.list)))
	for i := range p.list {
		q := &p.list[i]
		e.int(q.index)
		e.int(q.first)
		e.int(q.last)
		e.int(q.count)
		for s := range w.shares {
			e.int(q.shares[s])
		}
		for j := range q.values {
			v := &q.values[j]
			e.int(v.n)
			e.int(v.sum.hi)
			e.uint(v.sum.lo)
			e.float(v.min)
			e.float(v.max)
			e.uint(uint64(len(v.sketch.buckets)))
			for _, b := range v.sketch.buckets {
				e.int(int64(b.order))
				e.int(b.n)
			}
		}
		for j := range q.distincts {
			e.bool(q.distincts[j].registers != nil)
			e.w.Write(q.distincts[j].registers)
		}
	}
}

var errSnapshot = errors.New("damaged")

package rule

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"slices"
)

// decoder reads a snapshot. The first thing that is wrong ends it: everything
// read after that is zero.
type decoder struct {
	data []byte
	err  error
	src  []uint32
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: %s", errSnapshot, fmt.Sprintf(format, args...))
		d.data = nil
	}
}

func (d *decoder) uint() uint64 {
	v, n := binary.Uvarint(d.data)
	if n <= 0 {
		d.fail("it ends early")
		return 0
	}
	d.data = d.data[n:]
	return v
}

func (d *decoder) int() int64 {
	v, n := binary.Varint(d.data)
	if n <= 0 {
		d.fail("it ends early")
		return 0
	}
	d.data = d.data[n:]
	return v
}

func (d *decoder) take(n int) []byte {
	if n < 0 || n > len(d.data) {
		d.fail("it ends early")
		return nil
	}
	out := d.data[:n]
	d.data = d.data[n:]
	return out
}

func (d *decoder) float() float64 {
	b := d.take(8)
	if b == nil {
		return 0
	}
	return math.Float64frombits(binary.LittleEndian.Uint64(b))
}

func (d *decoder) bool() bool {
	b := d.take(1)
	if b != nil && b[0] > 1 {
		d.fail("a flag is %d", b[0])
	}
	return b != nil && b[0] == 1
}

func (d *decoder) text() string { return string(d.take(d.count(1))) }

// count reads a number of things that each take at least a number of bytes.
func (d *decoder) count(each int) int {
	n := d.uint()
	if n > uint64(len(d.data)/each) {
		d.fail("%d things in %d bytes", n, len(d.data))
		return 0
	}
	return int(n)
}

// Restore reads the state of a lane, which the Runner then evaluates from here
// on. The Runner must hold the set that the snapshot was made with. On an error
// the Runner is as before.
func (r *Runner) Restore(lane int, rd io.Reader) error {
	wrap := func(err error) error { return fmt.Errorf("the checkpoint of lane %d cannot be read: %w", lane, err) }
	if lane < 0 || lane >= lanes {
		return fmt.Errorf("there is no lane %d", lane)
	}
	data, err := io.ReadAll(io.LimitReader(rd, limitSnapshot+1))
	if err != nil {
		return wrap(err)
	}
	if len(data) > limitSnapshot {
		return wrap(fmt.Errorf("it is longer than %d bytes", limitSnapshot))
	}
	d := &decoder{data: data}
	if string(d.take(len(snapshotMagic))) != snapshotMagic {
		return wrap(fmt.Errorf("%w: it is no checkpoint", errSnapshot))
	}
	if v := d.uint(); v != snapshotVersion {
		return wrap(fmt.Errorf("it has version %d; this build reads version %d", v, snapshotVersion))
	}
	if digest := d.text(); digest != r.set.digest {
		return wrap(fmt.Errorf("it belongs to the rule set %.12s, not to %.12s", digest, r.set.digest))
	}
	if n := d.uint(); n != uint64(lane) {
		return wrap(fmt.Errorf("it belongs to lane %d", n))
	}
	clock := d.int()
	d.readSources(r)
	domains := d.domains(r.set)
	if string(d.take(len(snapshotMagic))) != snapshotMagic || len(d.data) > 0 {
		d.fail("its end is missing")
	}
	if d.err != nil {
		return wrap(d.err)
	}
	r.adopt(lane, clock, domains)
	return nil
}

func (d *decoder) readSources(r *Runner) {
	for range d.count(2) {
		collector, epoch := d.text(), d.int()
		d.src = append(d.src, r.sources.id(collector, epoch))
	}
}

// restored is one domain of a snapshot with the stores of one lane.
type restored struct {
	*domain
	lane laneState
}

func (d *decoder) domains(set *Set) (out []restored) {
	for i := range d.count(4) {
		x := restored{domain: newDomain(d.text())}
		if i == 0 && x.id != "" || i > 0 && x.id <= out[i-1].id {
			d.fail("its domains are not in order")
			return nil
		}
		x.horizon, x.heard = d.int(), d.int()
		for range d.count(3) {
			c := d.text()
			x.marks[c] = heardMark{d.int(), d.int()}
		}
		x.lane.swept, x.lane.entered = d.int(), d.int()
		d.stores(set, &x.lane)
		out = append(out, x)
		if d.err != nil {
			return nil
		}
	}
	if len(out) == 0 || len(out) > maxImports+1 {
		d.fail("it has %d domains", len(out))
	}
	return out
}

func (d *decoder) stores(set *Set, l *laneState) {
	for range d.count(4) {
		id, window, logic := d.text(), d.text(), d.text()
		rule := set.Rule(id)
		if rule == nil || rule.windowHash != window || rule.Logic != logic {
			d.fail("the rule %.40q is another than the set's", id)
			return
		}
		s := l.store(rule)
		for range d.count(6) {
			k := d.key(rule)
			if d.err != nil {
				return
			}
			if s.keys[k.name] != nil {
				d.fail("a key stands there twice")
				return
			}
			s.keys[k.name] = k
			s.push(k)
			s.weigh(k)
		}
	}
}

func (d *decoder) key(rule *Rule) *key {
	k := &key{name: d.text(), from: maxTime, to: never}
	w := rule.spec
	if n := d.count(1); n > 0 {
		k.owns = &owns{}
		for range n {
			k.owns.add(d.text())
		}
	}
	n := d.count(4)
	if n > 0 && w == nil {
		d.fail("a match rule has entries")
		return k
	}
	k.entries = make([]entry, 0, n)
	last := int64(math.MinInt64)
	for i := range n {
		base := int64(0)
		if i > 0 {
			base = last
		}
		e := d.entry(base)
		if i > 0 && e.time < last || e.own() > 0 && (k.owns == nil || e.own() >= len(k.owns.list)) {
			d.fail("entries are not in order")
			return k
		}
		last = e.time
		k.entries = append(k.entries, e)
	}
	if w != nil {
		d.columns(k, w)
	}
	if d.bool() {
		k.ids = make([]string, 0, n)
		for range n {
			k.ids = append(k.ids, d.text())
		}
	}
	if d.bool() {
		if w == nil {
			d.fail("a match rule has panes")
			return k
		}
		k.panes = d.panes(w)
	}
	for range d.count(12) {
		k.cells = append(k.cells, d.cell(rule))
	}
	if d.err == nil && w != nil {
		if len(w.own) > 0 && len(k.entries) > 0 && k.owns == nil {
			d.fail("own values are missing")
			return k
		}
		if w.adds() {
			k.agg = newAggregate(w)
		}
		if len(k.entries) > 0 {
			k.rewind(w, k.entries[len(k.entries)-1].time)
		}
	}
	return k
}

func (d *decoder) columns(k *key, w *windowSpec) {
	n := len(k.entries)
	if n*(8*len(w.values)+len(w.distincts)) > len(d.data) {
		d.fail("it ends early")
		return
	}
	for range n * len(w.values) {
		k.values = append(k.values, d.float())
	}
	for range n * len(w.distincts) {
		k.hashes = append(k.hashes, d.uint())
	}
}

func (d *decoder) entry(base int64) entry {
	e := entry{time: base + d.int(), seq: d.int()}
	if e.time < -maxMillis || e.time > maxMillis {
		d.fail("a time is out of bounds")
	}
	src := d.uint()
	if src >= uint64(len(d.src)) {
		d.fail("a source is unknown")
		return e
	}
	e.src = d.src[src]
	flags := d.uint()
	if flags > math.MaxUint32 {
		d.fail("flags are out of bounds")
	}
	e.flags = uint32(flags)
	return e
}

// maxMillis bounds times so that adding windows cannot overflow.
const maxMillis = 1 << 60

func (d *decoder) marks(most int) []mark {
	n := d.count(5)
	if n > most {
		d.fail("too much evidence")
		return nil
	}
	var out []mark
	for range n {
		e := d.entry(0)
		out = append(out, mark{e, d.text()})
	}
	return out
}

func (d *decoder) cell(rule *Rule) *cell {
	c := &cell{from: d.int(), to: d.int()}
	if c.from < -maxMillis || c.to > maxMillis || c.from >= c.to {
		d.fail("a cell is out of bounds")
	}
	c.has, c.closed, c.approx, c.gone = d.bool(), d.bool(), d.bool(), d.bool()
	hasFrozen := d.bool()
	c.first = mark{d.entry(0), d.text()}
	c.last = d.int()
	slots := 0
	if rule.cond != nil {
		slots = len(rule.cond.slots)
	}
	n := d.count(8)
	if n != 0 && n != slots {
		d.fail("a finding has %d terms", n)
		return c
	}
	for range n {
		c.terms = append(c.terms, d.float())
	}
	c.tenant = d.text()
	c.revision, c.sum = d.int(), d.uint()
	if len(c.terms) != slots && !c.closed && (c.has || c.revision > 0) {
		d.fail("a finding has %d terms", len(c.terms))
	}
	if hasFrozen {
		c.frozen = &frozen{n: d.int(), tail: d.int(), lastFired: d.int(), since: d.int()}
		c.frozen.first, c.frozen.last, c.frozen.tailLast = d.marks(10), d.marks(10), d.marks(10)
	} else if rule.Kind == "match" && c.has && !c.closed {
		d.fail("a finding has no events")
	}
	return c
}

func (d *decoder) panes(w *windowSpec) *panes {
	p := &panes{through: d.int()}
	for range d.count(4) {
		q := pane{index: d.int(), first: d.int(), last: d.int(), count: d.int(), values: newPaneValues(w), distincts: make([]hll, len(w.distincts))}
		if n := len(p.list); n > 0 && q.index <= p.list[n-1].index {
			d.fail("panes are not in order")
			return p
		}
		for s := range w.shares {
			q.shares[s] = d.int()
		}
		for j := range q.values {
			d.paneValue(&q.values[j])
		}
		for j := range q.distincts {
			if d.bool() {
				q.distincts[j] = hll{registers: slices.Clone(d.take(1 << hllBits)), known: -1}
				if slices.ContainsFunc(q.distincts[j].registers, func(r uint8) bool { return r > 64-hllBits+1 }) {
					d.fail("a register is out of bounds")
				}
			}
		}
		p.list = append(p.list, q)
		if d.err != nil {
			return p
		}
	}
	if len(p.list) == 0 {
		d.fail("panes are empty")
	}
	return p
}

func (d *decoder) paneValue(v *paneValue) {
	v.n, v.sum.hi, v.sum.lo = d.int(), d.int(), d.uint()
	v.min, v.max = d.float(), d.float()
	for range d.count(2) {
		order, n := d.int(), d.int()
		if k := len(v.sketch.buckets); order < math.MinInt32 || order > math.MaxInt32 || n < 0 || n > 1<<50 ||
			k > 0 && int64(v.sketch.buckets[k-1].order) >= order {
			d.fail("a sketch is not in order")
			return
		}
		v.sketch.buckets = append(v.sketch.buckets, ddBucket{int32(order), n})
		v.sketch.n += n
	}
}

// adopt puts a lane that was read in place. The first lane brings what lanes
// share; for the others it is the same, since it depends on the stream alone.
func (r *Runner) adopt(lane int, clock int64, list []restored) {
	r.DropLane(lane)
	if r.lanes == 0 {
		r.clock = clock
		r.domains = r.domains[:0]
		for _, x := range list {
			r.domains = append(r.domains, x.domain)
		}
	}
	r.lanes |= 1 << lane
	for _, x := range list {
		for _, d := range r.domains {
			if d.id == x.id {
				d.lanes[lane] = x.lane
			}
		}
		for _, s := range x.lane.stores {
			if s != nil {
				r.bytes[lane] += s.bytes
			}
		}
	}
}

package rule

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"strings"

	"github.com/opencoc/coc/services/event"
)

// evaluate looks at every row of a batch.
func (r *Runner) evaluate(d *domain, in *Input) {
	b := in.Batch
	r.look.resolve(r.set.index, b)
	always := r.set.index.always
	none := len(always.linear) == 0 && len(always.ranges) == 0
	if len(r.look.active) == 0 && none {
		return
	}
	for row := range b.Rows() {
		for i := range r.look.active {
			a := &r.look.active[i]
			if n := a.nodes[a.codes[row]]; n != nil {
				r.visit(d, in, n, row)
			}
		}
		if !none {
			r.visit(d, in, always, row)
		}
	}
}

// visit tests the rules of a node and of what it splits into.
func (r *Runner) visit(d *domain, in *Input, n *node, row int) {
	for i := range n.linear {
		r.test(d, in, &n.linear[i], row)
	}
	for i := range n.splits {
		s := &n.splits[i]
		if next := s.at(in.Batch.Text(s.field, row)); next != nil {
			r.visit(d, in, next, row)
		}
	}
	for i := range n.ranges {
		s := &n.ranges[i]
		v := number(in.Batch, s.field, row)
		for j, bound := range s.bounds {
			if s.above && v < bound || !s.above && v > bound {
				break
			}
			r.test(d, in, &s.rules[j], row)
		}
	}
}

func (r *Runner) test(d *domain, in *Input, c *candidate, row int) {
	for i := range c.tests {
		if !c.tests[i].holds(in.Batch, row) {
			return
		}
	}
	rule := c.rule
	if rule.residual != nil {
		r.machine.at(in.Batch, row)
		ok, err := r.machine.is(rule.residual)
		if err != nil {
			r.failed(rule, "match", err)
			return
		}
		if !ok {
			return
		}
	}
	r.hit(d, in, rule, row)
}

// hit takes a matching event to the window or the cell of its key.
func (r *Runner) hit(d *domain, in *Input, rule *Rule, row int) {
	key, lane, ok := r.keyOf(rule, in.Batch, row)
	if r.lanes&(1<<lane) == 0 {
		return
	}
	st := r.statOf(rule)
	if !ok {
		st.NoKey++
		return
	}
	time, _ := in.Batch.Int(event.FTime, row)
	if r.excepted(rule, in.Batch, row, time) {
		st.Excepted++
		return
	}
	st.Matches++
	if time < d.horizon {
		st.late(in.Batch.Text(event.FCollector, row))
		return
	}
	l := &d.lanes[lane]
	l.entered++
	s := l.store(rule)
	k := s.key(key)
	e := r.entryOf(in.Batch, row, time)
	if rule.Kind == "match" {
		r.tally(rule, s, k, e, in.Batch, row)
	} else {
		r.enter(rule, s, k, e, in.Batch, row)
	}
	if !k.dirty {
		k.dirty = true
		r.dirty = append(r.dirty, touched{lane, rule, s, k})
	}
}

func (r *Runner) excepted(rule *Rule, b *event.Batch, row int, time int64) bool {
	for i := range rule.exceptions {
		x := &rule.exceptions[i]
		if time >= x.expires {
			continue
		}
		r.machine.at(b, row)
		ok, err := r.machine.is(x.when)
		if err != nil {
			r.failed(rule, "an exception", err)
		}
		if ok {
			return true
		}
	}
	return false
}

// keyOf makes the key and its lane; ok is false when a part of it is absent.
// One field is its own key, so that the lane is what NATS's partition() gives;
// several are written with their lengths, so that no two combinations are one.
// The key aliases r.keyBuf or the batch.
func (r *Runner) keyOf(rule *Rule, b *event.Batch, row int) (key []byte, lane int, ok bool) {
	buf := r.keyBuf[:0]
	switch len(rule.groups) {
	case 0:
		return buf, laneOf(rule.ID), true
	case 1:
		s := groupValue(&rule.groups[0], b, row)
		buf = append(buf, s...)
		ok = s != ""
	default:
		ok = true
		for i := range rule.groups {
			s := groupValue(&rule.groups[i], b, row)
			ok = ok && s != ""
			buf = binary.AppendUvarint(buf, uint64(len(s)))
			buf = append(buf, s...)
		}
	}
	r.keyBuf = buf
	return buf, laneOf(buf), ok
}

func groupValue(g *groupField, b *event.Batch, row int) string {
	if g.field == event.FLabels {
		return b.Label(row, g.label)
	}
	return b.Text(g.field, row)
}

// Lanes in all; fixed, since keys belong to them.
const lanes = 16

func laneOf[T string | []byte](key T) int {
	h := uint32(2166136261)
	for i := range len(key) {
		h = (h ^ uint32(key[i])) * 16777619
	}
	return int(h % lanes)
}

// keyValues takes a key apart again.
func keyValues(rule *Rule, key string) map[string]string {
	out := make(map[string]string, len(rule.groups))
	if len(rule.groups) == 1 {
		out[rule.groups[0].name] = key
		return out
	}
	for i := range rule.groups {
		n, w := binary.Uvarint([]byte(key[:min(len(key), binary.MaxVarintLen64)]))
		if w <= 0 || n > uint64(len(key)-w) {
			break
		}
		out[rule.groups[i].name] = key[w : w+int(n)]
		key = key[w+int(n):]
	}
	return out
}

// entry is one event in a window. What aggregates need of it stands beside it,
// in the slices of its key.
type entry struct {
	time, seq int64
	src       uint32
	flags     uint32
}

const (
	fired  uint32 = 1 << 0 // the condition was true for the window that ends here
	judged uint32 = 1 << 1 // the condition was asked
	final  uint32 = 1 << 2 // the answer cannot change any more
	// Bits 3 to 8 hold the shares, the rest the own values.
	shareShift = 3
	ownShift   = shareShift + maxShares
	ownMask    = maxOwnValues
)

func (e *entry) share(i int) bool { return e.flags&(1<<(shareShift+i)) != 0 }
func (e *entry) own() int         { return int(e.flags >> ownShift & ownMask) }
func (e *entry) setOwn(i int) {
	e.flags = e.flags&(1<<ownShift-1) | uint32(i)<<ownShift
}

func (r *Runner) entryOf(b *event.Batch, row int, time int64) entry {
	epoch, _ := b.Int(event.FEpoch, row)
	seq, _ := b.Int(event.FSeq, row)
	return entry{time: time, seq: seq, src: r.sources.id(b.Text(event.FCollector, row), epoch)}
}

// before orders entries by time, then identity.
func (r *Runner) before(a, b *entry) bool {
	if a.time != b.time {
		return a.time < b.time
	}
	return r.identityBefore(a, b)
}

func (r *Runner) identityBefore(a, b *entry) bool {
	if a.src != b.src {
		x, y := &r.sources.list[a.src], &r.sources.list[b.src]
		if x.collector != y.collector {
			return x.collector < y.collector
		}
		return x.epoch < y.epoch
	}
	return a.seq < b.seq
}

// sources numbers the pairs of collector and epoch, to keep entries small.
type sources struct {
	list []numbering
	ids  map[numbering]uint32
	last uint32
}

type numbering struct {
	collector string
	epoch     int64
}

func (s *sources) id(collector string, epoch int64) uint32 {
	if int(s.last) < len(s.list) {
		if l := &s.list[s.last]; l.epoch == epoch && l.collector == collector {
			return s.last
		}
	}
	id, ok := s.ids[numbering{collector, epoch}]
	if !ok {
		n := numbering{strings.Clone(collector), epoch}
		id = uint32(len(s.list))
		s.list = append(s.list, n)
		s.ids[n] = id
	}
	s.last = id
	return id
}

// hashText is what distinct(f) counts: 64 bits of SHA-256, since an attacker
// chooses the texts and must not find two that count as one.
func hashText(s string) uint64 {
	if s == "" {
		return 0
	}
	sum := sha256.Sum256([]byte(s))
	return max(1, binary.LittleEndian.Uint64(sum[:]))
}

var absent = math.NaN()

// enter places an event in its window.
func (r *Runner) enter(rule *Rule, s *store, k *key, e entry, b *event.Batch, row int) {
	w := rule.spec
	if len(w.own) > 0 || len(w.shares) > 0 {
		r.machine.at(b, row)
	}
	for i, p := range w.shares {
		ok, err := r.machine.is(p)
		if err != nil {
			r.failed(rule, "share", err)
		}
		if ok {
			e.flags |= 1 << (shareShift + i)
		}
	}
	if len(w.own) > 0 {
		e.setOwn(k.ownIndex(r.ownValues(w, b, row)))
	}
	at := r.insert(k, e)
	for i := range w.values {
		v, ok := measure(b, w.values[i].field, row)
		if !ok {
			v = absent
		}
		k.values = insertAt(k.values, at*len(w.values)+i, v)
	}
	for i, f := range w.distincts {
		k.hashes = insertAt(k.hashes, at*len(w.distincts)+i, hashText(b.Text(f, row)))
	}
	k.insertID(at, b.Text(event.FID, row))
	k.from = min(k.from, e.time)
	k.to = max(k.to, e.time)
	s.touch(k)
}

// insert puts the entry in its place and returns it.
func (r *Runner) insert(k *key, e entry) int {
	at := len(k.entries)
	for at > 0 && r.before(&e, &k.entries[at-1]) {
		// Most stragglers are a few places late; a search would gain nothing.
		if at -= 1; len(k.entries)-at > 32 {
			at = searchEntry(k.entries[:at], func(o *entry) bool { return r.before(&e, o) })
			break
		}
	}
	k.entries = insertAt(k.entries, at, e)
	if at < int(k.hi) {
		k.rebuild = true
	}
	return at
}

// searchEntry returns the first place whose entry is true of f.
func searchEntry(entries []entry, f func(*entry) bool) int {
	lo, hi := 0, len(entries)
	for lo < hi {
		m := (lo + hi) / 2
		if f(&entries[m]) {
			hi = m
		} else {
			lo = m + 1
		}
	}
	return lo
}

func insertAt[T any](s []T, at int, v T) []T {
	s = append(s, v)
	copy(s[at+1:], s[at:len(s)-1])
	s[at] = v
	return s
}

// ownValues writes the event's fields that the condition reads, each with its
// length, into a reused buffer.
func (r *Runner) ownValues(w *windowSpec, b *event.Batch, row int) []byte {
	buf := r.ownBuf[:0]
	for _, f := range w.own {
		if isText(f) {
			s := b.Text(f, row)
			buf = binary.AppendUvarint(buf, uint64(len(s)))
			buf = append(buf, s...)
			continue
		}
		v, ok := measure(b, f, row)
		buf = append(buf, 0)
		if ok {
			buf[len(buf)-1] = 1
		}
		buf = binary.LittleEndian.AppendUint64(buf, math.Float64bits(v))
	}
	r.ownBuf = buf
	return buf
}

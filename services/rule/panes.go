package rule

import (
	"math"
	"slices"
)

// panes hold the older part of a window that has more than MaxExact entries:
// added up by stretches of a 64th of the window. A pane is in the window while
// its last event is, so a window may hold at most one pane's events too many.
type panes struct {
	list    []pane // by index
	through int64  // the latest time folded: no entry is older
	lo      int    // list[lo:] are in the window
	sums    *paneTotals
}

type pane struct {
	index       int64
	first, last int64 // times of its events
	count       int64
	shares      [maxShares]int64
	values      []paneValue
	distincts   []hll
}

type paneValue struct {
	n        int64
	sum      fixed
	min, max float64
	sketch   ddsketch
}

// paneTotals is the sum of the panes in the window; its sketches hold the
// exact entries too.
type paneTotals struct {
	count     int64
	first     int64
	shares    [maxShares]int64
	values    []paneValue
	distincts []hll
}

func paneWidth(w *windowSpec) int64 { return max(1, (w.length+panesPerWindow-1)/panesPerWindow) }

func (p *panes) inWindow() bool { return p.lo < len(p.list) }

func (p *panes) bytes(w *windowSpec) (n int64) {
	for i := range p.list {
		n += 160 + int64(len(w.values))*80
		for j := range p.list[i].values {
			n += int64(len(p.list[i].values[j].sketch.buckets)) * 16
		}
		for j := range p.list[i].distincts {
			n += int64(len(p.list[i].distincts[j].registers))
		}
	}
	return n
}

// at returns the pane of a time, made when it is not there.
func (p *panes) at(w *windowSpec, t int64) *pane {
	index := floorDiv(t-1, paneWidth(w)) // (from, to], as windows
	i, ok := slices.BinarySearchFunc(p.list, index, func(q pane, x int64) int {
		if q.index < x {
			return -1
		}
		if q.index > x {
			return 1
		}
		return 0
	})
	if !ok {
		fresh := pane{index: index, first: t, last: t, values: newPaneValues(w), distincts: make([]hll, len(w.distincts))}
		p.list = insertAt(p.list, i, fresh)
	}
	return &p.list[i]
}

func newPaneValues(w *windowSpec) []paneValue {
	v := make([]paneValue, len(w.values))
	for i := range v {
		v[i].min, v[i].max = math.Inf(1), math.Inf(-1)
	}
	return v
}

// fold moves entry i of the key into its pane.
func (p *panes) fold(w *windowSpec, k *key, i int) {
	e := &k.entries[i]
	q := p.at(w, e.time)
	q.first, q.last = min(q.first, e.time), max(q.last, e.time)
	p.through = max(p.through, e.time)
	q.count++
	for s := range w.shares {
		if e.share(s) {
			q.shares[s]++
		}
	}
	for j := range w.values {
		if v := k.values[i*len(w.values)+j]; v == v {
			q.values[j].add(&w.values[j], v)
		}
	}
	for j := range w.distincts {
		if h := k.hashes[i*len(w.distincts)+j]; h != 0 {
			q.distincts[j].insert(h)
		}
	}
}

func (v *paneValue) add(spec *valueSpec, x float64) {
	v.n++
	v.sum.add(x)
	v.min, v.max = min(v.min, x), max(v.max, x)
	if spec.ordered {
		v.sketch.add(x, 1)
	}
}

// slide lets panes go that the window has left.
func (p *panes) slide(start int64) {
	for p.lo < len(p.list) && p.list[p.lo].last <= start {
		p.lo++
		p.sums = nil
	}
}

// totals adds the panes in the window up. The sum is kept until a pane leaves
// or is made; what enters and leaves among the exact entries is told by entered
// and left.
func (p *panes) totals(w *windowSpec, k *key) *paneTotals {
	if p.sums != nil {
		return p.sums
	}
	t := &paneTotals{first: math.MaxInt64, values: newPaneValues(w), distincts: make([]hll, len(w.distincts))}
	for i := p.lo; i < len(p.list); i++ {
		q := &p.list[i]
		t.count += q.count
		t.first = min(t.first, q.first)
		for s := range t.shares {
			t.shares[s] += q.shares[s]
		}
		for j := range t.values {
			v, o := &t.values[j], &q.values[j]
			v.n += o.n
			v.sum.addFixed(o.sum)
			v.min, v.max = min(v.min, o.min), max(v.max, o.max)
			v.sketch.merge(&o.sketch)
		}
		for j := range t.distincts {
			t.distincts[j].merge(&q.distincts[j])
		}
	}
	p.sums = t
	for i := int(k.lo); i < int(k.hi); i++ {
		p.entered(w, k, i, 1)
	}
	return t
}

// entered tells the sketches of the totals of an exact entry, with n 1 when it
// enters the window and -1 when it leaves. A distinct value cannot leave.
func (p *panes) entered(w *windowSpec, k *key, i int, n int64) {
	if p.sums == nil {
		return
	}
	if n < 0 && len(w.distincts) > 0 {
		p.sums = nil
		return
	}
	for j := range w.values {
		if v := k.values[i*len(w.values)+j]; v == v && w.values[j].ordered {
			p.sums.values[j].sketch.add(v, n)
		}
	}
	for j := range w.distincts {
		if h := k.hashes[i*len(w.distincts)+j]; h != 0 {
			p.sums.distincts[j].insert(h)
		}
	}
}

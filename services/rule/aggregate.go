package rule

import (
	"math"
	"math/bits"
	"slices"
)

// aggregate adds up the entries of a window as they enter and leave. All of it
// is a function of the set of entries in the window, never of the order in
// which they came and went: sums are fixed-point, so nothing is lost by adding
// and taking away.
type aggregate struct {
	base      int64 // position of entries[0], so that positions survive a cut
	shares    [maxShares]int64
	values    []valueSum
	distincts []map[uint64]int32
}

type valueSum struct {
	n         int64
	sum       fixed
	low, high []int64   // positions whose values rise, fall: the first is the least, the greatest
	ordered   []float64 // all values, rising
}

func (w *windowSpec) adds() bool { return len(w.values)+len(w.distincts)+len(w.shares) > 0 }

func newAggregate(w *windowSpec) *aggregate {
	a := &aggregate{values: make([]valueSum, len(w.values)), distincts: make([]map[uint64]int32, len(w.distincts))}
	for i := range a.distincts {
		a.distincts[i] = map[uint64]int32{}
	}
	return a
}

func (a *aggregate) clear() {
	a.shares = [maxShares]int64{}
	for i := range a.values {
		v := &a.values[i]
		*v = valueSum{low: v.low[:0], high: v.high[:0], ordered: v.ordered[:0]}
	}
	for i := range a.distincts {
		clear(a.distincts[i])
	}
}

// add takes entry i of the key in.
func (a *aggregate) add(w *windowSpec, k *key, i int) {
	for s := range w.shares {
		if k.entries[i].share(s) {
			a.shares[s]++
		}
	}
	for j := range w.values {
		if v := k.values[i*len(w.values)+j]; v == v {
			a.values[j].add(&w.values[j], a, k, i, v, j, len(w.values))
		}
	}
	for j := range w.distincts {
		if h := k.hashes[i*len(w.distincts)+j]; h != 0 {
			a.distincts[j][h]++
		}
	}
}

func (s *valueSum) add(spec *valueSpec, a *aggregate, k *key, i int, v float64, j, stride int) {
	s.n++
	if spec.sum {
		s.sum.add(v)
	}
	at := func(p int64) float64 { return k.values[int(p-a.base)*stride+j] }
	if spec.min {
		for len(s.low) > 0 && at(s.low[len(s.low)-1]) >= v {
			s.low = s.low[:len(s.low)-1]
		}
		s.low = append(s.low, a.base+int64(i))
	}
	if spec.max {
		for len(s.high) > 0 && at(s.high[len(s.high)-1]) <= v {
			s.high = s.high[:len(s.high)-1]
		}
		s.high = append(s.high, a.base+int64(i))
	}
	if spec.ordered {
		p, _ := slices.BinarySearch(s.ordered, v)
		s.ordered = insertAt(s.ordered, p, v)
	}
}

// remove lets entry i, the oldest in the window, go.
func (a *aggregate) remove(w *windowSpec, k *key, i int) {
	for s := range w.shares {
		if k.entries[i].share(s) {
			a.shares[s]--
		}
	}
	for j := range w.values {
		v := k.values[i*len(w.values)+j]
		if v != v {
			continue
		}
		s := &a.values[j]
		s.n--
		if w.values[j].sum {
			s.sum.sub(v)
		}
		p := a.base + int64(i)
		if len(s.low) > 0 && s.low[0] == p {
			s.low = s.low[1:]
		}
		if len(s.high) > 0 && s.high[0] == p {
			s.high = s.high[1:]
		}
		if w.values[j].ordered {
			q, _ := slices.BinarySearch(s.ordered, v)
			s.ordered = slices.Delete(s.ordered, q, q+1)
		}
	}
	for j := range w.distincts {
		h := k.hashes[i*len(w.distincts)+j]
		if h == 0 {
			continue
		}
		if n := a.distincts[j][h]; n > 1 {
			a.distincts[j][h] = n - 1
		} else {
			delete(a.distincts[j], h)
		}
	}
}

// measure fills the slots of a condition from the window; allowances come from
// the firing event's own values.
func (k *key) measure(w *windowSpec, slots []slot, x *measures) {
	count := int64(k.hi - k.lo)
	var p *paneTotals
	if k.panes != nil && k.panes.inWindow() {
		p = k.panes.totals(w, k)
		count += p.count
	}
	for i := range slots {
		s := &slots[i]
		switch s.kind {
		case slotCount:
			x[i] = float64(count)
		case slotRate:
			x[i] = float64(count) / (float64(w.length) / 1000)
		case slotShare:
			n := k.agg.shares[s.at]
			if p != nil {
				n += p.shares[s.at]
			}
			x[i] = float64(n) / float64(count)
		case slotDistinct:
			if p != nil {
				x[i] = float64(p.distincts[s.at].estimate())
			} else {
				x[i] = float64(len(k.agg.distincts[s.at]))
			}
		case slotAllowance:
		default:
			x[i] = k.measureValue(w, s, p)
		}
	}
}

func (k *key) measureValue(w *windowSpec, s *slot, p *paneTotals) float64 {
	v := &k.agg.values[s.at]
	n, sum := v.n, v.sum
	if p != nil {
		n += p.values[s.at].n
		sum.addFixed(p.values[s.at].sum)
	}
	at := func(q []int64) float64 {
		if len(q) == 0 {
			return absent
		}
		return k.values[int(q[0]-k.agg.base)*len(w.values)+s.at]
	}
	switch {
	case s.kind == slotSum:
		return sum.float()
	case n == 0:
		return absent
	case s.kind == slotAvg:
		return sum.float() / float64(n)
	case s.kind == slotMin:
		if p != nil {
			return least(at(v.low), p.values[s.at].min)
		}
		return at(v.low)
	case s.kind == slotMax:
		if p != nil {
			return -least(-at(v.high), -p.values[s.at].max)
		}
		return at(v.high)
	}
	if p != nil {
		return p.values[s.at].sketch.quantile(s.quantile)
	}
	return v.ordered[nearestRank(s.quantile, n)]
}

// least ignores what is absent.
func least(a, b float64) float64 {
	if a != a || b < a {
		return b
	}
	return a
}

// nearestRank is the index of quantile q among n ordered values: the smallest
// value with at least the part q at or below it.
func nearestRank(q float64, n int64) int64 {
	return max(0, min(n-1, int64(math.Ceil(q*float64(n)))-1))
}

// fixed is a sum in steps of 2^-32, 128 bits wide, so that adding and taking
// away are exact in any order. Values beyond ±2^62 count as that.
type fixed struct {
	hi int64
	lo uint64
}

func toFixed(v float64) fixed {
	a := min(math.Abs(v), 1<<62)
	fraction, exponent := math.Frexp(a)
	m := uint64(fraction * (1 << 53))
	var f fixed
	switch shift := exponent - 53 + 32; {
	case shift >= 64:
		f.hi = int64(m << (shift - 64))
	case shift > 0:
		f.hi, f.lo = int64(m>>(64-shift)), m<<shift
	case shift > -64:
		f.lo = m >> -shift
	}
	if v < 0 {
		f.negate()
	}
	return f
}

func (f *fixed) negate() {
	lo, borrow := bits.Sub64(0, f.lo, 0)
	hi, _ := bits.Sub64(0, uint64(f.hi), borrow)
	f.hi, f.lo = int64(hi), lo
}

func (f *fixed) addFixed(o fixed) {
	lo, carry := bits.Add64(f.lo, o.lo, 0)
	hi, _ := bits.Add64(uint64(f.hi), uint64(o.hi), carry)
	f.hi, f.lo = int64(hi), lo
}

func (f *fixed) add(v float64) { f.addFixed(toFixed(v)) }

func (f *fixed) sub(v float64) {
	o := toFixed(v)
	o.negate()
	f.addFixed(o)
}

func (f fixed) float() float64 {
	negative := f.hi < 0
	if negative {
		f.negate()
	}
	v := float64(uint64(f.hi))*(1<<32) + float64(f.lo)/(1<<32)
	if negative {
		return -v
	}
	return v
}

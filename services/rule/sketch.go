package rule

import (
	"math"
	"math/bits"
	"slices"
)

// The two sketches are written here, in few lines, because a checkpoint must
// have the same bytes for the same state: the libraries keep maps and buffers
// whose order depends on history.

// hll counts distinct hashes (Flajolet and others 2007, with linear counting
// below 2.5 m). 2,048 registers: standard error 1.04/√2048 = 2.3 %.
type hll struct {
	registers []uint8 // nil while empty
	known     int64   // the estimate, -1 when it must be made again
}

const hllBits = 11

func (h *hll) insert(hash uint64) {
	if h.registers == nil {
		h.registers = make([]uint8, 1<<hllBits)
	}
	i := hash >> (64 - hllBits)
	rank := uint8(bits.LeadingZeros64(hash<<hllBits|1<<(hllBits-1))) + 1
	if rank > h.registers[i] {
		h.registers[i] = rank
		h.known = -1
	}
}

func (h *hll) merge(o *hll) {
	if o.registers == nil {
		return
	}
	if h.registers == nil {
		h.registers = make([]uint8, 1<<hllBits)
	}
	for i, r := range o.registers {
		h.registers[i] = max(h.registers[i], r)
	}
	h.known = -1
}

func (h *hll) estimate() int64 {
	if h.registers == nil {
		return 0
	}
	if h.known >= 0 {
		return h.known
	}
	const m = 1 << hllBits
	sum, zeros := 0.0, 0
	for _, r := range h.registers {
		sum += 1 / float64(uint64(1)<<r)
		if r == 0 {
			zeros++
		}
	}
	e := 0.7213 / (1 + 1.079/m) * m * m / sum
	if e <= 2.5*m && zeros > 0 {
		e = m * math.Log(m/float64(zeros))
	}
	h.known = int64(math.Round(e))
	return h.known
}

// ddsketch holds values in buckets whose bounds grow by a factor, so that a
// percentile is off by at most 1 % of itself (Masson, Rim and Lee 2019).
type ddsketch struct {
	buckets []ddBucket // by order
	n       int64
}

type ddBucket struct {
	order int32 // of the bucket among all values; 0 holds what is nearly zero
	n     int64
}

const (
	ddGamma  = 1.01 / 0.99
	ddOffset = 1 << 20 // puts the smallest value above zero
	ddZero   = 1e-9
)

var ddLog = math.Log(ddGamma)

func ddOrder(v float64) int32 {
	a := math.Abs(v)
	if a < ddZero {
		return 0
	}
	o := int32(math.Ceil(math.Log(a)/ddLog)) + ddOffset
	if v < 0 {
		return -o
	}
	return o
}

func (s *ddsketch) add(v float64, n int64) { s.addOrder(ddOrder(v), n) }

func (s *ddsketch) addOrder(order int32, n int64) {
	i, ok := slices.BinarySearchFunc(s.buckets, order, func(b ddBucket, o int32) int { return int(b.order) - int(o) })
	if !ok {
		s.buckets = insertAt(s.buckets, i, ddBucket{order: order})
	}
	s.buckets[i].n += n
	s.n += n
}

func (s *ddsketch) merge(o *ddsketch) {
	for _, b := range o.buckets {
		s.addOrder(b.order, b.n)
	}
}

func (s *ddsketch) quantile(q float64) float64 {
	left := nearestRank(q, s.n)
	for _, b := range s.buckets {
		if left -= b.n; left >= 0 {
			continue
		}
		if b.order == 0 {
			return 0
		}
		o := b.order
		if o < 0 {
			o = -o
		}
		v := 2 * math.Exp(float64(o-ddOffset)*ddLog) / (ddGamma + 1)
		if b.order < 0 {
			return -v
		}
		return v
	}
	return absent
}

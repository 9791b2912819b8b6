package rule

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// domain is one time domain: live, or one import. Each has its own marks,
// horizon and windows.
type domain struct {
	id      string // "" is live
	horizon int64  // events before it are late; never falls
	heard   int64  // clock at the last message
	marks   map[string]heardMark
	lanes   [lanes]laneState
}

type heardMark struct {
	mark  int64 // all of the collector's events up to here are sent
	heard int64 // clock when it said so
}

// laneState holds the stores of one lane, by index of their rules; nil until a
// rule has a key there.
type laneState struct {
	stores  []*store
	swept   int64 // horizon at the last sweep
	entered int64 // events since then
}

func newDomain(id string) *domain {
	return &domain{id: id, horizon: never, marks: map[string]heardMark{}}
}

func (l *laneState) store(rule *Rule) *store {
	if rule.index >= len(l.stores) {
		grown := make([]*store, rule.index+1)
		copy(grown, l.stores)
		l.stores = grown
	}
	s := l.stores[rule.index]
	if s == nil {
		s = newStore(rule)
		l.stores[rule.index] = s
	}
	return s
}

// hear takes a collector's mark in and moves the horizon: for live to the least
// mark heard within markHeard, not after the clock and not more than
// horizonMost before it; for an import to its own mark.
func (d *domain) hear(collector string, mark, clock int64) {
	if mark > 0 {
		_, known := d.marks[collector]
		if known || len(d.marks) < maxCollectors {
			if !known {
				collector = strings.Clone(collector)
			}
			d.marks[collector] = heardMark{mark, clock}
		}
	}
	if d.id != "" {
		if mark > 0 {
			d.horizon = max(d.horizon, mark)
		}
		return
	}
	d.advance(clock)
}

func (d *domain) advance(clock int64) {
	if d.id != "" || clock == 0 {
		return
	}
	floor := clock - horizonMost.Milliseconds()
	h, heard := clock, false
	for c, m := range d.marks {
		if m.heard < clock-markHeard.Milliseconds() {
			delete(d.marks, c)
			continue
		}
		h, heard = min(h, m.mark), true
	}
	if !heard {
		h = floor
	}
	d.horizon = max(d.horizon, h, floor)
}

// sweepEvery is how far the horizon moves at least between two sweeps of idle
// keys, and sweepLive how far it moves at most in the live domain. In between a
// sweep waits until an eighth as many events came as there are keys, so that an
// import that passes months in minutes does not spend its time sweeping.
const (
	sweepEvery = time.Minute
	sweepLive  = 10 * time.Minute
)

func (l *laneState) due(d *domain) bool {
	moved := d.horizon - l.swept
	switch {
	case d.horizon == never || l.swept != 0 && moved < sweepEvery.Milliseconds():
		return false
	case l.swept == 0 || d.id == "" && moved >= sweepLive.Milliseconds():
		return true
	}
	keys := 0
	for _, s := range l.stores {
		if s != nil {
			keys += len(s.keys)
		}
	}
	return 8*l.entered >= int64(keys)
}

// sweepIdle closes cells, prunes windows and drops keys of which nothing is left.
// It changes no finding; it frees memory, at moments that depend on the stream
// alone.
func (r *Runner) sweepIdle(d *domain) {
	for lane := range d.lanes {
		l := &d.lanes[lane]
		if !l.due(d) {
			continue
		}
		l.swept, l.entered = d.horizon, 0
		for _, s := range l.stores {
			if s != nil {
				r.sweepStore(lane, s, d.horizon)
			}
		}
	}
}

func (r *Runner) sweepStore(lane int, s *store, horizon int64) {
	for k := s.oldest; k != nil; {
		next := k.newer
		r.tidy(lane, s, k, horizon)
		if len(k.entries) == 0 && k.panes == nil && len(k.cells) == 0 {
			r.bytes[lane] -= k.size
			s.drop(k)
		}
		k = next
	}
}

// tidy closes cells that the horizon has passed and lets old ones go. A cell
// is remembered through the next one, which may continue it; a day of a grid
// may last 25 hours, so an hour more.
func (r *Runner) tidy(lane int, s *store, k *key, horizon int64) {
	if s.rule.spec != nil {
		k.prune(s.rule.spec, horizon)
	}
	k.cells = slices.DeleteFunc(k.cells, func(c *cell) bool {
		if c.to <= horizon && !c.closed {
			c.closed, c.frozen, c.terms, c.first.id = true, nil, nil, ""
		}
		return c.to+(c.to-c.from)+time.Hour.Milliseconds() <= horizon || c.closed && c.revision == 0
	})
	if len(k.cells) == 0 {
		k.cells = nil
	}
	r.bytes[lane] += s.weigh(k)
}

// bound evicts keys of a store and of a lane that hold too much.
func (r *Runner) bound(lane int, s *store) {
	for len(s.keys) > r.maxKeys {
		r.evict(lane, s)
	}
	if r.bytes[lane] <= r.maxBytes {
		return
	}
	for goal := r.maxBytes - r.maxBytes/64; r.bytes[lane] > goal; {
		big := r.biggest(lane)
		if big == nil {
			return
		}
		for n := len(big.keys)/64 + 1; n > 0 && big.oldest != nil && r.bytes[lane] > goal; n-- {
			r.evict(lane, big)
		}
	}
}

func (r *Runner) evict(lane int, s *store) {
	k := s.oldest
	r.bytes[lane] -= k.size
	s.drop(k)
	r.statOf(s.rule).Evicted++
}

func (r *Runner) biggest(lane int) (big *store) {
	for _, d := range r.domains {
		for _, s := range d.lanes[lane].stores {
			if s != nil && s.oldest != nil && (big == nil || s.bytes > big.bytes) {
				big = s
			}
		}
	}
	return big
}

// domain finds a domain, made when it is new.
func (r *Runner) domain(id string) *domain {
	at, ok := slices.BinarySearchFunc(r.domains, id, func(d *domain, id string) int { return cmp.Compare(d.id, id) })
	if ok {
		return r.domains[at]
	}
	if len(r.domains) > maxImports {
		oldest := 1 // 0 is live: its id sorts first
		for i := 2; i < len(r.domains); i++ {
			if r.domains[i].heard < r.domains[oldest].heard {
				oldest = i
			}
		}
		r.forget(r.domains[oldest].id)
		return r.domain(id)
	}
	d := newDomain(strings.Clone(id))
	r.domains = slices.Insert(r.domains, at, d)
	return d
}

// forget drops an import with all its windows.
func (r *Runner) forget(id string) {
	r.domains = slices.DeleteFunc(r.domains, func(d *domain) bool {
		if d.id != id || id == "" {
			return false
		}
		for lane := range d.lanes {
			for _, s := range d.lanes[lane].stores {
				if s != nil {
					r.bytes[lane] -= s.bytes
				}
			}
		}
		return true
	})
}

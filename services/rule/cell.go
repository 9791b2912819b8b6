package rule

import (
	"math"
	"slices"

	"github.com/opencoc/coc/services/event"
)

// cell is what a key found in one stretch of the grid: at most one finding.
//
// The events of a finding are those in (first firing − window, last firing].
// Entries that leave the window are remembered in frozen, so that the count and
// the evidence stay whole for findings that last longer than their window.
type cell struct {
	from, to int64
	has      bool // something fired
	closed   bool // the horizon has passed: nothing can change
	changed  bool // must be looked at when the message ends
	approx   bool
	first    mark  // first firing, in order of (time, identity)
	last     int64 // time of the last firing
	terms    []float64
	tenant   string
	frozen   *frozen
	revision int64
	sum      uint64 // of what was published last
	gone     bool   // the last revision withdrew it
}

// mark names one event.
type mark struct {
	entry
	id string // the producer's own
}

// frozen sums up the events that are no entries any more. For a match rule,
// which keeps no entries, it holds all.
type frozen struct {
	n, tail   int64 // up to and beyond lastFired
	lastFired int64
	since     int64  // time of the earliest event
	first     []mark // the first ten, n and tail
	last      []mark // the last ten of n
	tailLast  []mark // the last ten of tail
}

const never = math.MinInt64

// cell returns the cell that holds t, made when it is not there.
func (k *key) cell(g *grid, t int64) *cell {
	for i := len(k.cells) - 1; i >= 0; i-- {
		if c := k.cells[i]; c.from <= t && t < c.to {
			return c
		}
	}
	from, to := g.cell(t)
	c := &cell{from: from, to: to, last: never}
	at, _ := slices.BinarySearchFunc(k.cells, from, func(c *cell, t int64) int {
		if c.from < t {
			return -1
		}
		return 1
	})
	k.cells = insertAt(k.cells, at, c)
	return c
}

// before is the cell just before c, when something fired there.
func (k *key) before(c *cell) *cell {
	for _, o := range k.cells {
		if o.to == c.from && o.has {
			return o
		}
	}
	return nil
}

// freeze remembers an entry that is about to leave the window.
func (k *key) freeze(w *windowSpec, i int) {
	e := &k.entries[i]
	for _, c := range k.cells {
		if c.closed || !c.has || e.time <= c.first.time-w.length {
			continue
		}
		f := c.freezer()
		m := mark{*e, k.id(i)}
		f.since = min(f.since, e.time)
		if len(f.first) < event.EvidenceEach {
			f.first = append(f.first, m)
		}
		if e.flags&fired != 0 && c.from <= e.time && e.time < c.to && e.time > f.lastFired {
			f.lastFired = e.time
			f.n, f.tail = f.n+f.tail, 0
			f.last, f.tailLast = lastOf(append(f.last, f.tailLast...)), nil
		}
		if e.time <= f.lastFired {
			f.n++
			f.last = lastOf(append(f.last, m))
		} else {
			f.tail++
			f.tailLast = lastOf(append(f.tailLast, m))
		}
	}
}

func (c *cell) freezer() *frozen {
	if c.frozen == nil {
		c.frozen = &frozen{lastFired: never, since: math.MaxInt64}
	}
	return c.frozen
}

func lastOf(m []mark) []mark {
	if n := len(m) - event.EvidenceEach; n > 0 {
		return slices.Delete(m, 0, n)
	}
	return m
}

// found sums up the events of a cell's finding.
type found struct {
	count       int64
	first, last int64 // times
	evidence    []mark
}

// total counts the events of a cell of a threshold rule.
func (c *cell) total(k *key, w *windowSpec) found {
	start := c.first.time - w.length
	lo := searchEntry(k.entries, func(e *entry) bool { return e.time > start })
	hi := searchEntry(k.entries, func(e *entry) bool { return e.time > c.last })
	out := found{count: int64(max(0, hi-lo)), first: c.first.time, last: c.last}
	var head, tail []mark
	if f := c.frozen; f != nil {
		out.count += f.n
		tail = f.last
		if c.last > f.lastFired {
			out.count += f.tail
			tail = append(slices.Clone(tail), f.tailLast...)
		}
		for _, m := range f.first {
			if m.time <= c.last {
				head = append(head, m)
			}
		}
		out.first = min(out.first, f.since)
	}
	if lo < hi {
		out.first = min(out.first, k.entries[lo].time)
		out.last = max(out.last, k.entries[hi-1].time)
	}
	for i := lo; i < hi && len(head) < event.EvidenceEach; i++ {
		head = append(head, mark{k.entries[i], k.id(i)})
	}
	for i := max(lo, hi-event.EvidenceEach); i < hi; i++ {
		tail = append(tail, mark{k.entries[i], k.id(i)})
	}
	out.evidence = join(head, lastOf(tail), out.count)
	return out
}

// join puts the first and the last together without naming one twice.
func join(head, tail []mark, count int64) []mark {
	if count <= int64(len(head)) {
		return head
	}
	if rest := count - int64(len(head)); rest < int64(len(tail)) {
		tail = tail[int64(len(tail))-rest:]
	}
	return append(slices.Clone(head), tail...)
}

// tally counts an event of a match rule in its cell. The first and the last ten
// in order of (time, identity) do not depend on the order of arrival.
func (r *Runner) tally(rule *Rule, s *store, k *key, e entry, b *event.Batch, row int) {
	c := k.cell(&rule.cells, e.time)
	m := mark{e, ""}
	if id := b.Text(event.FID, row); id != "" {
		m.id = string([]byte(id))
	}
	f := c.freezer()
	f.n++
	if !c.has || r.before(&e, &c.first.entry) {
		c.first = m
		c.tenant = string([]byte(b.Text(event.FTenantID, row)))
	}
	if c.has {
		r.statOf(rule).Suppressed++
	}
	c.has, c.changed = true, true
	c.last = max(c.last, e.time)
	f.first = r.place(f.first, m)
	if len(f.first) > event.EvidenceEach {
		f.first = f.first[:event.EvidenceEach]
	}
	f.last = lastOf(r.place(f.last, m))
	s.touch(k)
}

func (r *Runner) place(list []mark, m mark) []mark {
	at := len(list)
	for at > 0 && r.before(&m.entry, &list[at-1].entry) {
		at--
	}
	return insertAt(list, at, m)
}

// totalOf is what a cell of a rule holds.
func (c *cell) totalOf(rule *Rule, k *key) found {
	if rule.spec == nil {
		return c.totalMatch()
	}
	return c.total(k, rule.spec)
}

// totalMatch is total for a match rule.
func (c *cell) totalMatch() found {
	f := c.frozen
	return found{count: f.n, first: c.first.time, last: c.last, evidence: join(f.first, f.last, f.n)}
}

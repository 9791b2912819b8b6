package rule

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/opencoc/coc/services/event"
)

// touched is a key that a message entered.
type touched struct {
	lane  int
	rule  *Rule
	store *store
	key   *key
}

// judge asks the condition for what entered a window since it was judged last,
// and again for the entries behind a straggler whose windows hold it.
func (r *Runner) judge(rule *Rule, k *key) {
	w := rule.spec
	if k.agg == nil && w.adds() {
		k.agg = newAggregate(w)
	}
	if k.panes != nil {
		r.judgeFolded(rule, k)
		return
	}
	start := searchEntry(k.entries, func(e *entry) bool { return e.time >= k.from })
	again := start < int(k.hi) // a tie, or a straggler
	if k.rebuild {
		t := k.entries[start].time
		lo := searchEntry(k.entries, func(e *entry) bool { return e.time > t-w.length })
		k.lo, k.hi = int32(lo), int32(lo)
		if k.agg != nil {
			k.agg.clear()
		}
	}
	until := k.to + w.length // windows that end later hold nothing new
	if again {
		for _, c := range k.cells {
			if c.has && c.first.time >= k.from && c.first.time < until {
				c.has = false
			}
			c.changed = c.changed || !c.closed
		}
	}
	r.sweep(rule, k, start, until)
	if again {
		k.findLast()
	}
}

// sweep moves the window over the entries from start on, a group of equal time
// at once: the window that ends at a time holds all of them.
func (r *Runner) sweep(rule *Rule, k *key, start int, until int64) {
	w := rule.spec
	for g := start; g < len(k.entries); {
		t := k.entries[g].time
		h := g + 1
		for h < len(k.entries) && k.entries[h].time == t {
			h++
		}
		k.slide(w, h, t)
		if t < until {
			r.judgeGroup(rule, k, g, h)
		}
		k.mark(r, rule, g, h)
		g = h
	}
}

// slide makes entries[lo:hi] the window (t − length, t].
func (k *key) slide(w *windowSpec, hi int, t int64) {
	for ; int(k.hi) < hi; k.hi++ {
		if k.agg != nil {
			k.agg.add(w, k, int(k.hi))
		}
		if k.panes != nil {
			k.panes.entered(w, k, int(k.hi), 1)
		}
	}
	for ; k.lo < k.hi && k.entries[k.lo].time <= t-w.length; k.lo++ {
		if k.agg != nil {
			k.agg.remove(w, k, int(k.lo))
		}
		if k.panes != nil {
			k.panes.entered(w, k, int(k.lo), -1)
		}
	}
	if k.panes != nil {
		k.panes.slide(t - w.length)
	}
}

// judgeGroup asks the condition once for each distinct own value of a group.
func (r *Runner) judgeGroup(rule *Rule, k *key, g, h int) {
	x := &r.x // reused: it goes to closures, so it would be on the heap
	measured := false
	asked, answer := -1, false
	for i := g; i < h; i++ {
		e := &k.entries[i]
		if e.flags&final != 0 || k.panes != nil && e.flags&judged != 0 {
			continue
		}
		if !measured {
			k.measure(rule.spec, rule.cond.slots, x)
			measured = true
		}
		if own := e.own(); own != asked {
			asked = own
			answer = r.holds(rule, k, e, x)
		}
		e.flags |= judged
		if answer {
			e.flags |= fired
		} else {
			e.flags &^= fired
		}
		if k.panes != nil {
			e.flags |= final
		}
	}
}

// holds asks the condition for one event.
func (r *Runner) holds(rule *Rule, k *key, e *entry, x *measures) bool {
	r.own(rule, k, e, x)
	ok, err := rule.cond.holds(r.machine, x)
	if err != nil {
		r.failed(rule, "condition", err)
		ok = false
	}
	if r.observe != nil {
		r.observe(rule, k.name, e.time, x, ok)
	}
	return ok
}

// own gives the condition the firing event's own values: allowances into their
// slots and, when the VM runs, the fields into its environment.
func (r *Runner) own(rule *Rule, k *key, e *entry, x *measures) {
	w := rule.spec
	if len(w.own) == 0 {
		if rule.cond.native == nil {
			r.ownTime(rule, e)
		}
		return
	}
	values := k.owns.list[e.own()]
	for _, f := range w.own {
		var text string
		var num float64
		var has bool
		if isText(f) {
			text, values = cutText(values)
		} else {
			num, has, values = cutNumber(values)
		}
		for i := range rule.cond.slots {
			if s := &rule.cond.slots[i]; s.kind == slotAllowance && s.field == f {
				x[i] = s.allowance.For(text)
			}
		}
		if rule.cond.native != nil {
			continue
		}
		switch event.Fields[f].Type {
		case event.Float:
			*r.machine.env.float(f) = num
			r.machine.env.setHas(f, has)
		case event.Int, event.Time:
			*r.machine.env.int(f) = int64(num)
			r.machine.env.setHas(f, has)
		default:
			*r.machine.env.text(f) = text
		}
	}
	if rule.cond.native == nil {
		r.ownTime(rule, e)
	}
}

func (r *Runner) ownTime(rule *Rule, e *entry) {
	r.machine.row, r.machine.filled = -1, 0 // what is filled is no row's
	r.machine.env.Time = e.time
	if rule.cond.code.need&needLocal != 0 {
		r.machine.env.Local = localTime(e.time, r.machine.zone)
	}
}

func cutText(s string) (text, rest string) {
	n, w := uint64(0), 0
	for shift := 0; w < len(s) && shift < 64; shift += 7 {
		b := s[w]
		n |= uint64(b&0x7f) << shift
		w++
		if b < 0x80 {
			break
		}
	}
	n = min(n, uint64(len(s)-w))
	return s[w : w+int(n)], s[w+int(n):]
}

func cutNumber(s string) (v float64, has bool, rest string) {
	if len(s) < 9 {
		return 0, false, ""
	}
	var b [8]byte
	copy(b[:], s[1:9])
	has = s[0] == 1
	if v = math.Float64frombits(binary.LittleEndian.Uint64(b[:])); !has {
		v = 0
	}
	return v, has, s[9:]
}

// mark tells the cell of a group what fired in it.
func (k *key) mark(r *Runner, rule *Rule, g, h int) {
	var c *cell
	for i := g; i < h; i++ {
		e := &k.entries[i]
		if e.flags&fired == 0 {
			continue
		}
		if c == nil {
			if c = k.cell(&rule.cells, e.time); c.closed {
				return
			}
		}
		if !c.has || r.before(e, &c.first.entry) {
			c.setFirst(r, rule, k, r.completes(rule, k, g, i, h))
		} else if e.time > c.last {
			r.statOf(rule).Suppressed++
		}
		c.last = max(c.last, e.time)
		c.changed = true
		return // the others of the group fire at the same time
	}
}

// completes finds, in a group of equal time whose first firing is i, the event
// with which the condition became true: the first for which it holds over the
// window without the events of the group that come after it by identity. Where
// only the whole group makes it true, that is i.
func (r *Runner) completes(rule *Rule, k *key, g, i, h int) int {
	if h-g == 1 || k.panes != nil {
		return i
	}
	w, agg, hi := rule.spec, k.agg, k.hi
	defer func() { k.agg, k.hi = agg, hi }()
	if agg != nil {
		k.agg = newAggregate(w)
		for j := int(k.lo); j < g; j++ {
			k.agg.add(w, k, j)
		}
	}
	for j := g; j < h; j++ {
		if agg != nil {
			k.agg.add(w, k, j)
		}
		k.hi = int32(j + 1)
		if k.entries[j].flags&fired == 0 {
			continue
		}
		k.measure(w, rule.cond.slots, &r.x)
		if r.holds(rule, k, &k.entries[j], &r.x) {
			return j
		}
	}
	return i
}

// setFirst remembers the first firing of a cell with what was measured.
func (c *cell) setFirst(r *Runner, rule *Rule, k *key, i int) {
	e := &k.entries[i]
	c.has, c.first, c.frozen = true, mark{*e, k.id(i)}, nil
	c.last = max(c.last, e.time)
	x := &r.x
	k.measure(rule.spec, rule.cond.slots, x)
	r.own(rule, k, e, x)
	c.terms = append(c.terms[:0], x[:len(rule.cond.slots)]...)
	if at := rule.spec.ownTenant; at >= 0 {
		values := k.owns.list[e.own()]
		for _, f := range rule.spec.own[:at] {
			if isText(f) {
				_, values = cutText(values)
			} else {
				_, _, values = cutNumber(values)
			}
		}
		c.tenant, _ = cutText(values)
	}
	c.approx = false
	if k.panes != nil && k.panes.inWindow() {
		// What the panes hold cannot be told apart any more: it counts as
		// frozen, without evidence.
		c.approx = true
		t := k.panes.totals(rule.spec, k)
		f := c.freezer()
		f.n, f.since, f.lastFired = t.count, t.first, k.panes.through
	}
}

// findLast looks up the last firing of each open cell, after a straggler.
func (k *key) findLast() {
	for _, c := range k.cells {
		if c.closed {
			continue
		}
		c.last = never
		if c.frozen != nil {
			c.last = c.frozen.lastFired
		}
		hi := searchEntry(k.entries, func(e *entry) bool { return e.time >= c.to })
		for i := hi - 1; i >= 0 && k.entries[i].time >= c.from; i-- {
			if k.entries[i].flags&fired != 0 {
				c.last = k.entries[i].time
				break
			}
		}
		if !c.has {
			c.last = never
		}
	}
}

// judgeFolded is judge for a key with panes: what was said stays said, and a
// straggler counts from now on without firing itself.
func (r *Runner) judgeFolded(rule *Rule, k *key) {
	w, p := rule.spec, k.panes
	early := 0
	for early < len(k.entries) && k.entries[early].time < p.through {
		early++
	}
	at := p.through // where the window ended
	for i := len(k.entries) - 1; i >= early; i-- {
		if k.entries[i].flags&judged != 0 {
			at = k.entries[i].time
			break
		}
	}
	if early > 0 {
		for i := range early {
			k.freeze(w, i)
			p.fold(w, k, i)
		}
		k.cutCounted(w, early)
		p.sums = nil
	}
	if k.rebuild || early > 0 {
		k.rewind(w, at)
	}
	for i := range k.entries {
		if e := &k.entries[i]; e.time < at && e.flags&judged == 0 {
			e.flags |= judged | final
		}
	}
	for _, c := range k.cells {
		c.changed = c.changed || !c.closed
	}
	start := searchEntry(k.entries, func(e *entry) bool { return e.time >= at })
	r.sweep(rule, k, start, math.MaxInt64)
}

// rewind makes the window that ends at a time anew.
func (k *key) rewind(w *windowSpec, at int64) {
	lo := searchEntry(k.entries, func(e *entry) bool { return e.time > at-w.length })
	hi := searchEntry(k.entries, func(e *entry) bool { return e.time > at })
	k.lo, k.hi = int32(lo), int32(lo)
	if k.agg != nil {
		k.agg.clear()
	}
	if k.panes != nil {
		k.panes.sums = nil
		k.panes.lo = 0
	}
	k.slide(w, max(lo, hi), at)
}

// cutCounted cuts the first n entries off and keeps the window's bounds.
func (k *key) cutCounted(w *windowSpec, n int) {
	for ; int(k.lo) < n && k.lo < k.hi; k.lo++ {
		if k.agg != nil {
			k.agg.remove(w, k, int(k.lo))
		}
		if k.panes != nil {
			k.panes.sums = nil
		}
	}
	k.cut(w, n)
	k.lo, k.hi = max(0, k.lo-int32(n)), max(0, k.hi-int32(n))
	if k.agg != nil {
		k.agg.base += int64(n)
	}
}

// fold moves the oldest entries into panes when there are too many.
func (k *key) fold(w *windowSpec) {
	if len(k.entries) <= MaxExact {
		return
	}
	at := k.entries[len(k.entries)-1].time
	if k.panes == nil {
		k.panes = &panes{through: never}
	}
	n := len(k.entries) - foldTo
	for i := range n {
		k.freeze(w, i)
		k.panes.fold(w, k, i)
	}
	k.cut(w, n)
	if k.agg != nil {
		k.agg.base += int64(n)
	}
	for i := range k.entries {
		k.entries[i].flags |= final
	}
	k.rewind(w, at)
}

// prune lets go what no window can reach any more. It waits until a good part
// of the entries can go, so that their cost is paid once.
func (k *key) prune(w *windowSpec, horizon int64) {
	if horizon == never {
		return
	}
	end := horizon - w.length
	n := searchEntry(k.entries, func(e *entry) bool { return e.time > end })
	if n > 0 && (2*n >= len(k.entries) || n >= 256) {
		for i := range n {
			k.freeze(w, i)
		}
		k.cutCounted(w, n)
		k.compactOwns()
	}
	if p := k.panes; p != nil {
		gone := 0
		for gone < len(p.list) && p.list[gone].last <= end {
			gone++
		}
		p.list = slices.Delete(p.list, 0, gone)
		p.lo = max(0, p.lo-gone)
		if len(p.list) == 0 {
			k.panes = nil
		}
	}
}

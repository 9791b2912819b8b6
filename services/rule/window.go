package rule

import (
	"math"
	"strings"
)

// store holds the keys of one rule in one lane of one time domain.
type store struct {
	rule           *Rule
	keys           map[string]*key
	newest, oldest *key  // by last event entered, in order of arrival
	bytes          int64 // estimated
}

// key is what is known of one key of a rule: its window and its findings.
type key struct {
	name           string
	older, newer   *key
	dirty, rebuild bool
	from, to       int64 // times entered since it was judged
	lo, hi         int32 // entries[lo:hi] are in agg: the window that ends at the last entry
	entries        []entry
	values         []float64 // len(spec.values) for each entry; NaN is absent
	hashes         []uint64  // len(spec.distincts) for each entry; 0 is absent
	ids            []string  // for each entry, or nil when none has an id of its own
	owns           *owns
	agg            *aggregate // nil when the condition only counts
	panes          *panes     // nil while the window is exact
	cells          []*cell    // by time
	size           int64
}

func newStore(rule *Rule) *store { return &store{rule: rule, keys: map[string]*key{}} }

// key returns the key, new when it is not there. name is copied.
func (s *store) key(name []byte) *key {
	if k, ok := s.keys[string(name)]; ok {
		return k
	}
	k := &key{name: string(name), from: math.MaxInt64, to: math.MinInt64}
	s.keys[k.name] = k
	s.push(k)
	return k
}

func (s *store) push(k *key) {
	k.older, k.newer = s.newest, nil
	if s.newest != nil {
		s.newest.newer = k
	} else {
		s.oldest = k
	}
	s.newest = k
}

func (s *store) unlink(k *key) {
	if k.newer != nil {
		k.newer.older = k.older
	} else {
		s.newest = k.older
	}
	if k.older != nil {
		k.older.newer = k.newer
	} else {
		s.oldest = k.newer
	}
}

// touch makes a key the newest.
func (s *store) touch(k *key) {
	if s.newest != k {
		s.unlink(k)
		s.push(k)
	}
}

func (s *store) drop(k *key) {
	s.unlink(k)
	delete(s.keys, k.name)
	s.bytes -= k.size
}

// weigh estimates what a key holds, from its contents alone, so that a restored
// key weighs the same.
func (s *store) weigh(k *key) (grown int64) {
	n := int64(320+len(k.name)) + int64(len(k.entries))*24 + int64(len(k.values)+len(k.hashes))*8 + int64(len(k.cells))*200
	if k.agg != nil {
		n += 200 + int64(len(k.values)+3*len(k.hashes))*8
	}
	if k.ids != nil {
		n += int64(len(k.ids)) * 48
	}
	if k.owns != nil {
		n += k.owns.bytes
	}
	if k.panes != nil {
		n += k.panes.bytes(s.rule.spec)
	}
	for _, c := range k.cells {
		if c.frozen != nil {
			n += int64(len(c.frozen.first)+len(c.frozen.last)+len(c.frozen.tailLast)) * 64
		}
	}
	grown = n - k.size
	k.size = n
	s.bytes += grown
	return grown
}

// insertID keeps the ids that producers gave.
func (k *key) insertID(at int, id string) {
	if k.ids == nil {
		if id == "" {
			return
		}
		k.ids = make([]string, len(k.entries)-1, cap(k.entries))
	}
	k.ids = insertAt(k.ids, at, strings.Clone(id))
}

func (k *key) id(i int) string {
	if k.ids == nil {
		return ""
	}
	return k.ids[i]
}

// owns numbers the distinct own values of a key.
type owns struct {
	list  []string
	ids   map[string]int // nil while the list is short
	last  int
	bytes int64
}

const ownsShort = 8

func (k *key) ownIndex(values []byte) int {
	if k.owns == nil {
		k.owns = &owns{}
	}
	o := k.owns
	if o.last < len(o.list) && o.list[o.last] == string(values) {
		return o.last
	}
	if o.ids == nil {
		for i, v := range o.list {
			if v == string(values) {
				o.last = i
				return i
			}
		}
	} else if i, ok := o.ids[string(values)]; ok {
		o.last = i
		return i
	}
	return o.add(string(values))
}

func (o *owns) add(v string) int {
	i := len(o.list)
	o.list = append(o.list, v)
	o.bytes += int64(len(v)) + 16
	if o.ids == nil && len(o.list) > ownsShort {
		o.ids = make(map[string]int, 2*ownsShort)
		for j, old := range o.list {
			o.ids[old] = j
		}
	}
	if o.ids != nil {
		o.ids[v] = i
		o.bytes += 48
	}
	o.last = i
	return i
}

// compactOwns drops own values that no entry names any more.
func (k *key) compactOwns() {
	o := k.owns
	if o == nil || len(o.list) <= 2*ownsShort || len(o.list) <= 2*len(k.entries) {
		return
	}
	fresh := &owns{}
	renumbered := map[int]int{}
	for i := range k.entries {
		e := &k.entries[i]
		to, ok := renumbered[e.own()]
		if !ok {
			to = fresh.add(o.list[e.own()])
			renumbered[e.own()] = to
		}
		e.setOwn(to)
	}
	k.owns = fresh
}

// cut removes the first n entries; what they were part of must know already.
func (k *key) cut(spec *windowSpec, n int) {
	k.entries = cutFront(k.entries, n)
	k.values = cutFront(k.values, n*len(spec.values))
	k.hashes = cutFront(k.hashes, n*len(spec.distincts))
	if k.ids != nil {
		clear(k.ids[:n])
		k.ids = cutFront(k.ids, n)
	}
}

// cutFront moves the rest to the front, into less memory when most is gone.
func cutFront[T any](s []T, n int) []T {
	rest := len(s) - n
	if rest == 0 && cap(s) > 4 {
		return nil
	}
	if cap(s) > 64 && rest < cap(s)/4 {
		return append(make([]T, 0, 2*rest), s[n:]...)
	}
	copy(s, s[n:])
	return s[:rest]
}

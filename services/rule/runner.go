package rule

import (
	"math/bits"
	"slices"
	"strings"

	"github.com/opencoc/coc/services/event"
)

// Lanes is a set of lanes: bit i is lane i.
type Lanes uint16

// AllLanes is every lane.
const AllLanes Lanes = 1<<lanes - 1

// Has tells whether a lane is in the set.
func (l Lanes) Has(lane int) bool { return l&(1<<lane) != 0 }

// Count is the number of lanes in the set.
func (l Lanes) Count() int { return bits.OnesCount16(uint16(l)) }

// RunnerOptions bound a Runner. The zero value evaluates all lanes within the
// default bounds.
type RunnerOptions struct {
	Lanes       Lanes // 0: all, unless NoLanes
	NoLanes     bool  // start with none; AddLane and Restore add them
	MaxKeys     int   // per rule over all lanes; 0: DefaultMaxKeys
	MemoryBytes int64 // of all windows, estimated; 0: DefaultMemoryBytes
}

// Runner evaluates a set over a stream. It is not safe for concurrent use. What
// it returns is a function of the inputs since it was made or restored.
type Runner struct {
	set      *Set
	lanes    Lanes
	maxKeys  int // per rule and lane
	maxBytes int64
	clock    int64
	domains  []*domain // by id; live is the first
	bytes    [lanes]int64
	sources  sources
	machine  *machine
	look     lookup
	stats    []*ruleStat // by index of the rule
	dirty    []touched
	out      []event.Finding
	x        measures
	keyBuf   []byte
	ownBuf   []byte
	events   int64
	observe  func(rule *Rule, key string, time int64, x *measures, fired bool) // of tests: each time a condition is asked
}

// NewRunner makes a Runner with empty windows.
func NewRunner(set *Set, o RunnerOptions) *Runner {
	if o.MaxKeys <= 0 {
		o.MaxKeys = DefaultMaxKeys
	}
	if o.MemoryBytes <= 0 {
		o.MemoryBytes = DefaultMemoryBytes
	}
	if o.Lanes == 0 && !o.NoLanes {
		o.Lanes = AllLanes
	}
	r := &Runner{
		set:      set,
		lanes:    o.Lanes,
		maxKeys:  max(1, o.MaxKeys/lanes),
		maxBytes: max(1, o.MemoryBytes/lanes),
		domains:  []*domain{newDomain("")},
		sources:  sources{ids: map[numbering]uint32{}},
		machine:  newMachine(set.zone),
	}
	r.stats = newStats(set, nil)
	return r
}

// Set is the rule set in force.
func (r *Runner) Set() *Set { return r.set }

// Lanes are those that the Runner evaluates.
func (r *Runner) Lanes() Lanes { return r.lanes }

// AddLane evaluates a lane from here on, with empty windows.
func (r *Runner) AddLane(lane int) { r.lanes |= 1 << lane }

// DropLane forgets a lane and its windows.
func (r *Runner) DropLane(lane int) {
	r.lanes &^= 1 << lane
	r.bytes[lane] = 0
	for _, d := range r.domains {
		d.lanes[lane] = laneState{}
	}
}

// Input is one message of the stream.
type Input struct {
	Seq       uint64       // in EVENTS; rises
	Batch     *event.Batch // nil or empty: a heartbeat. Not kept: it may be released after the call
	Collector string
	Mark      int64  // the collector's low-water mark, Unix ms; 0: none
	Import    string // id of the import; "": live
	ImportEnd bool   // the import's last message: its windows are dropped after it
	BusTime   int64  // when it was stored, bus clock, Unix ms
}

// Message evaluates a message and returns the revisions of findings that it
// causes, at most one of each finding, in an order that depends on the message
// alone. The findings are the caller's.
func (r *Runner) Message(in Input) []event.Finding {
	d := r.domain(in.Import)
	d.heard = max(r.clock, in.BusTime)
	if in.Batch != nil && in.Batch.Rows() > 0 {
		r.events += int64(in.Batch.Rows())
		r.evaluate(d, &in)
		r.finish(d)
		r.machine.leave()
	}
	r.clock = max(r.clock, in.BusTime)
	d.hear(in.Collector, in.Mark, r.clock)
	r.pass()
	if in.ImportEnd {
		r.forget(in.Import)
	}
	return r.take()
}

// Tick lets time pass: busTime is the clock of the bus, Unix ms.
func (r *Runner) Tick(seq uint64, busTime int64) []event.Finding {
	r.clock = max(r.clock, busTime)
	r.pass()
	return r.take()
}

// pass moves live's horizon after the clock and frees what is past.
func (r *Runner) pass() {
	r.domains[0].advance(r.clock)
	for _, d := range slices.Clone(r.domains[1:]) {
		if d.heard < r.clock-importSilent.Milliseconds() {
			r.forget(d.id)
		}
	}
	for _, d := range r.domains {
		r.sweepIdle(d)
	}
}

func (r *Runner) take() []event.Finding {
	out := r.out
	r.out = nil
	return out
}

// finish judges the keys that the message entered, in the order in which it
// entered them.
func (r *Runner) finish(d *domain) {
	for i := range r.dirty {
		t := &r.dirty[i]
		k := t.key
		if t.rule.spec != nil {
			r.judge(t.rule, k)
			k.fold(t.rule.spec)
		}
		k.dirty, k.rebuild, k.from, k.to = false, false, maxTime, never
		r.publish(d, t)
		r.tidy(t.lane, t.store, k, d.horizon)
	}
	for i := range r.dirty {
		r.bound(r.dirty[i].lane, r.dirty[i].store)
	}
	clear(r.dirty)
	r.dirty = r.dirty[:0]
}

const maxTime = 1<<63 - 1

// Switch evaluates by another set from here on. Windows whose rule keeps its
// match, group_by, window and measures stay; findings stay when nothing that
// decides has changed. Past events are not judged again.
func (r *Runner) Switch(set *Set) {
	old := r.set
	sameZone := old.zone.String() == set.zone.String()
	for _, d := range r.domains {
		for lane := range d.lanes {
			l := &d.lanes[lane]
			before := l.stores
			l.stores = nil
			for _, s := range before {
				if s == nil {
					continue
				}
				rule := set.Rule(s.rule.ID)
				if rule == nil || rule.windowHash != s.rule.windowHash {
					r.bytes[lane] -= s.bytes
					continue
				}
				same := rule.Logic == s.rule.Logic && sameZone
				s.rule = rule
				if !same {
					r.bytes[lane] += s.closeFindings()
				}
				l.store(rule) // grows
				l.stores[rule.index] = s
			}
		}
	}
	r.set = set
	runs := r.machine.runs
	r.machine = newMachine(set.zone)
	r.machine.runs = runs
	r.look = lookup{}
	r.stats = newStats(set, r.stats)
}

// closeFindings forgets findings and makes past answers final: they belong to
// another logic. It returns by how much the store became heavier.
func (s *store) closeFindings() (grown int64) {
	for _, k := range s.keys {
		k.cells = nil
		for i := range k.entries {
			k.entries[i].flags = k.entries[i].flags&^fired | judged | final
		}
		grown += s.weigh(k)
	}
	return grown
}

// RuleStats is what a rule did since the Runner was made.
type RuleStats struct {
	Rule, Status string
	Matches      int64 // events that counted
	Excepted     int64 // dropped by an exception
	NoKey        int64 // without a value for group_by
	Findings     int64 // new ones
	Revisions    int64 // published, first ones too
	Suppressed   int64 // firings folded into a finding that was there
	Withdrawn    int64
	Late         int64 // older than the horizon: not counted
	Evicted      int64 // keys dropped for lack of room
	Errors       int64 // run-time errors of its expressions; each is no match
	Keys         int64
	LastError    string
	LateBy       map[string]int64 // late by collector
	Through      int64            // live event time evaluated through, Unix ms
}

type ruleStat struct{ RuleStats }

func newStats(set *Set, old []*ruleStat) []*ruleStat {
	known := map[string]*ruleStat{}
	for _, s := range old {
		known[s.Rule] = s
	}
	out := make([]*ruleStat, len(set.rules))
	for i, rule := range set.rules {
		if out[i] = known[rule.ID]; out[i] == nil {
			out[i] = &ruleStat{RuleStats{Rule: rule.ID}}
		}
		out[i].Status = rule.Status
	}
	return out
}

func (r *Runner) statOf(rule *Rule) *ruleStat { return r.stats[rule.index] }

func (s *ruleStat) late(collector string) {
	s.Late++
	if s.LateBy == nil {
		s.LateBy = map[string]int64{}
	}
	if _, ok := s.LateBy[collector]; !ok {
		if len(s.LateBy) >= maxLateBy {
			collector = "others"
		}
		collector = strings.Clone(collector)
	}
	s.LateBy[collector]++
}

func (r *Runner) failed(rule *Rule, where string, err error) {
	st := r.statOf(rule)
	st.Errors++
	st.LastError = where + ": " + problemOf(err).message
}

// Stats reports each rule, in order of ids. The result is the caller's.
func (r *Runner) Stats() []RuleStats {
	out := make([]RuleStats, len(r.stats))
	for i, s := range r.stats {
		out[i] = s.RuleStats
		out[i].Through = max(0, r.domains[0].horizon)
		if s.LateBy != nil {
			out[i].LateBy = make(map[string]int64, len(s.LateBy))
			for c, n := range s.LateBy {
				out[i].LateBy[c] = n
			}
		}
		for _, d := range r.domains {
			for lane := range d.lanes {
				if l := &d.lanes[lane]; i < len(l.stores) && l.stores[i] != nil {
					out[i].Keys += int64(len(l.stores[i].keys))
				}
			}
		}
	}
	return out
}

// RunnerStats is what a Runner did and holds.
type RunnerStats struct {
	Events, VMRuns, Matches, Keys, MemoryBytes int64
	Horizon, Clock                             int64 // Unix ms
	Imports                                    int
}

// Totals reports the Runner as a whole.
func (r *Runner) Totals() RunnerStats {
	t := RunnerStats{Events: r.events, VMRuns: r.machine.runs, Clock: r.clock, Horizon: max(0, r.domains[0].horizon), Imports: len(r.domains) - 1}
	for _, s := range r.Stats() {
		t.Matches += s.Matches
		t.Keys += s.Keys
	}
	for _, b := range r.bytes {
		t.MemoryBytes += b
	}
	return t
}

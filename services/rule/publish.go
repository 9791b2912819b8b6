package rule

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/opencoc/coc/services/event"
)

// publish gives the findings of a key that are news, in order of their cells.
// A revision is news when anything in it but the rule's texts differs from the
// one before.
func (r *Runner) publish(d *domain, t *touched) {
	k, rule := t.key, t.rule
	for i, c := range k.cells {
		if !c.changed || c.closed {
			continue
		}
		c.changed = false
		standing := c.revision > 0 && !c.gone
		if !c.has && !standing {
			continue
		}
		if c.has != standing && i+1 < len(k.cells) && k.cells[i+1].from == c.to {
			k.cells[i+1].changed = true // whether it continues this one
		}
		sum, before := found{}, k.before(c)
		if c.has {
			sum = c.totalOf(rule, k)
		}
		hash := r.fingerprint(c, &sum, before)
		if c.revision > 0 && hash == c.sum {
			continue
		}
		c.sum, c.gone = hash, !c.has
		c.revision++
		f := r.finding(d, t, c, &sum, before)
		f.Revision = c.revision
		st := r.statOf(rule)
		st.Revisions++
		if c.revision == 1 {
			st.Findings++
		}
		if c.gone {
			st.Withdrawn++
		}
		r.out = append(r.out, f)
	}
}

// fingerprint is a hash (FNV-1a, 64 bits) of all in a finding that can change
// from one revision to the next. Texts of the rule are not in it: they say
// nothing new about the finding.
func (r *Runner) fingerprint(c *cell, sum *found, before *cell) uint64 {
	h := fnv64(14695981039346656037)
	h.bool(c.has)
	h.bool(c.approx)
	h.bool(before != nil)
	h.int(c.first.time)
	r.fingerprintMark(&h, &c.first)
	for _, v := range c.terms {
		h.int(int64(math.Float64bits(v)))
	}
	h.text(c.tenant)
	h.int(sum.count)
	h.int(sum.first)
	h.int(sum.last)
	for i := range sum.evidence {
		r.fingerprintMark(&h, &sum.evidence[i])
	}
	return uint64(h)
}

func (r *Runner) fingerprintMark(h *fnv64, m *mark) {
	if m.id != "" {
		h.text(m.id)
		return
	}
	s := &r.sources.list[m.src]
	h.text(s.collector)
	h.int(s.epoch)
	h.int(m.seq)
}

type fnv64 uint64

func (h *fnv64) byte(b byte) { *h = (*h ^ fnv64(b)) * 1099511628211 }
func (h *fnv64) int(v int64) {
	for range 8 {
		h.byte(byte(v))
		v >>= 8
	}
}
func (h *fnv64) bool(v bool) {
	if v {
		h.byte(1)
	} else {
		h.byte(0)
	}
}
func (h *fnv64) text(s string) {
	h.int(int64(len(s)))
	for i := range len(s) {
		h.byte(s[i])
	}
}

func (r *Runner) finding(d *domain, t *touched, c *cell, sum *found, before *cell) event.Finding {
	rule, k := t.rule, t.key
	f := event.Finding{
		ID:          findingID(rule, k.name, c),
		Rule:        rule.ID,
		Logic:       rule.Logic,
		Title:       rule.Title.In("en"),
		Class:       rule.Class,
		Severity:    rule.Severity,
		Status:      rule.Status,
		Lane:        t.lane,
		Cell:        event.Span{From: event.Stamp(c.from), To: event.Stamp(c.to)},
		Key:         keyValues(rule, k.name),
		Tenant:      c.tenant,
		Terms:       []event.Term{},
		Fired:       event.Stamp(c.first.time),
		FiredBy:     r.eventID(&c.first),
		Import:      d.id,
		Approximate: c.approx,
		Evidence:    make([]string, 0, len(sum.evidence)),
	}
	if tenant, ok := f.Key["tenant.id"]; ok {
		f.Tenant = tenant
	}
	f.Window = event.Span{From: f.Fired, To: f.Fired}
	if rule.spec != nil {
		f.Window.From = event.Stamp(c.first.time - rule.spec.length)
		for i := range rule.cond.slots {
			if v := c.terms[i]; !math.IsNaN(v) && !math.IsInf(v, 0) {
				f.Terms = append(f.Terms, event.Term{Expr: rule.cond.slots[i].written, Value: v})
			}
		}
	} else if c.has {
		f.Terms = append(f.Terms, event.Term{Expr: "count", Value: float64(sum.count)})
	}
	if before != nil {
		f.Continues = findingID(rule, k.name, before)
	}
	if !c.has {
		f.Withdrawn = true
		f.FirstSeen, f.LastSeen = f.Fired, f.Fired
		f.How = "Withdrawn: an event that came late was placed where it belongs in time, and with it nothing in this stretch of time fires the rule."
		return f
	}
	f.Count, f.FirstSeen, f.LastSeen = sum.count, event.Stamp(sum.first), event.Stamp(sum.last)
	for i := range sum.evidence {
		f.Evidence = append(f.Evidence, r.eventID(&sum.evidence[i]))
	}
	f.How = how(rule, &f)
	return f
}

// findingID is the identity: rule, logic, key and cell, and nothing that
// depends on arrival or on where a run began.
func findingID(rule *Rule, key string, c *cell) string {
	h := sha256.New()
	fmt.Fprintf(h, "coc.finding.1 %s %s %d %d %d:", rule.ID, rule.Logic, c.from, c.to, len(key))
	h.Write([]byte(key))
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// eventID is Event.EventID of an event that is no more than its mark.
func (r *Runner) eventID(m *mark) string {
	if m.id != "" {
		return m.id
	}
	s := &r.sources.list[m.src]
	return event.Identity(s.collector, s.epoch, m.seq)
}

// how says in one sentence how it was measured.
func how(rule *Rule, f *event.Finding) string {
	var b strings.Builder
	if rule.Kind == "match" {
		fmt.Fprintf(&b, "%s matched between %s and %s; the rule asks for one.",
			countOf(f.Count, "event"), event.FormatTime(int64(f.Cell.From)), event.FormatTime(int64(f.Cell.To)))
		return b.String()
	}
	b.WriteString("In the " + spell(rule.Window) + " up to " + event.FormatTime(int64(f.Fired)) + " ")
	for i, t := range f.Terms {
		switch {
		case i > 0 && i == len(f.Terms)-1:
			b.WriteString(" and ")
		case i > 0:
			b.WriteString(", ")
		}
		b.WriteString(t.Expr + " was " + strconv.FormatFloat(t.Value, 'g', 6, 64))
	}
	if len(f.Terms) == 0 {
		b.WriteString("it was true")
	}
	b.WriteString("; the rule asks for " + strings.Join(strings.Fields(rule.Condition), " "))
	if f.Approximate {
		b.WriteString("; the window held more events than are counted one by one, so its start is exact to a 64th and distinct and percentiles are estimates")
	}
	b.WriteByte('.')
	return b.String()
}

func countOf(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.FormatInt(n, 10) + " " + what + "s"
}

func spell(d time.Duration) string {
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}, {time.Second, "second"}} {
		if d == u.unit {
			return u.name
		}
		if d%u.unit == 0 {
			return countOf(int64(d/u.unit), u.name)
		}
	}
	return FormatDuration(d)
}

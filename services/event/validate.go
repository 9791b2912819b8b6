package event

import (
	"fmt"
	"math"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"
)

// Refusal says why an event is not taken. Reason is a short name to count by;
// Field is the field's dotted name or empty.
type Refusal struct {
	Reason, Field, Detail string
}

func (r *Refusal) Error() string {
	if r.Field == "" {
		return r.Reason + ": " + r.Detail
	}
	return r.Reason + ": " + r.Field + ": " + r.Detail
}

// The reasons of a Refusal.
const (
	BadJSON        = "bad_json"
	UnknownField   = "unknown_field"
	DuplicateField = "duplicate_field"
	InternalField  = "internal_field"
	WrongType      = "wrong_type"
	MissingField   = "missing_field"
	BadValue       = "bad_value"
	TooLong        = "too_long"
	TooMany        = "too_many"
	TooOld         = "too_old"
	TooNew         = "too_new"
	BadText        = "bad_text"
)

func refuse(reason string, field int, format string, args ...any) *Refusal {
	r := &Refusal{Reason: reason, Detail: fmt.Sprintf(format, args...)}
	if field >= 0 {
		r.Field = Fields[field].Name
	}
	return r
}

// Bounds says which times are taken. Zero PastMax or FutureMax: any the format
// holds, as history is imported.
type Bounds struct {
	Now                time.Time
	PastMax, FutureMax time.Duration
}

// LiveBounds are those of a live source: a week back for what waited in a
// queue, five minutes ahead for clocks that differ.
func LiveBounds(now time.Time) Bounds {
	return Bounds{Now: now, PastMax: 7 * 24 * time.Hour, FutureMax: 5 * time.Minute}
}

// Validate checks an event as a producer gave it and brings source.ip into
// canonical form. It returns a *Refusal or nil. Texts that may be cut are not
// refused for their length; call Cut.
func (e *Event) Validate(b Bounds) error {
	if e.Time == 0 {
		return refuse(MissingField, FTime, "give the time it happened, in RFC 3339 or Unix milliseconds")
	}
	if err := e.validateTime(b); err != nil {
		return err
	}
	switch e.Kind {
	case "system", "process", "user":
	case "":
		return refuse(MissingField, FKind, "give system, process or user")
	default:
		return refuse(BadValue, FKind, "%.40q is not system, process or user", e.Kind)
	}
	if e.Action == "" {
		return refuse(MissingField, FAction, "say what happened, for example login")
	}
	switch e.Outcome {
	case "", "success", "failure", "unknown":
	default:
		return refuse(BadValue, FOutcome, "%.40q is not success, failure or unknown", e.Outcome)
	}
	if err := e.validateTexts(); err != nil {
		return err
	}
	if e.SourceIP != "" {
		if err := e.canonicalIP(); err != nil {
			return err
		}
	}
	for _, f := range [...]int{FDuration, FServerDuration, FValue} {
		if v, _ := e.Float(f); math.IsNaN(*v) || math.IsInf(*v, 0) {
			return refuse(BadValue, f, "must be a finite number")
		}
	}
	if e.Duration < 0 || e.ServerDuration < 0 {
		return refuse(BadValue, FDuration, "a duration cannot be negative")
	}
	return e.validateLabels()
}

func (e *Event) validateTime(b Bounds) error {
	if e.Time < MinTime || e.Time >= MaxTime {
		return refuse(BadValue, FTime, "%s is outside 1970 to 2261", FormatTime(e.Time))
	}
	now := b.Now.UnixMilli()
	if b.PastMax > 0 && e.Time < now-b.PastMax.Milliseconds() {
		return refuse(TooOld, FTime, "%s is more than %v ago; bring history in with coc import", FormatTime(e.Time), b.PastMax)
	}
	if b.FutureMax > 0 && e.Time > now+b.FutureMax.Milliseconds() {
		return refuse(TooNew, FTime, "%s is more than %v ahead of the clock; check the producer's clock and zone", FormatTime(e.Time), b.FutureMax)
	}
	return nil
}

func (e *Event) validateTexts() error {
	for i := range Fields {
		p := e.Text(i)
		if p == nil || *p == "" {
			continue
		}
		s := *p
		if !cuttable(i) && len(s) > Fields[i].Limit {
			return refuse(TooLong, i, "%d bytes, at most %d are accepted", len(s), Fields[i].Limit)
		}
		if !utf8.ValidString(s) {
			return refuse(BadText, i, "it is not valid UTF-8")
		}
		if Fields[i].Class != Free && hasControl(s) {
			return refuse(BadText, i, "it holds a control character")
		}
	}
	return nil
}

// cuttable says which texts are shortened rather than refused.
func cuttable(field int) bool { return Fields[field].Class == Free }

func hasControl(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] == 0x7F {
			return true
		}
	}
	return false
}

func (e *Event) canonicalIP() error {
	a, err := netip.ParseAddr(e.SourceIP)
	if err != nil {
		return refuse(BadValue, FSourceIP, "%.70q is not an IP address", e.SourceIP)
	}
	var buf [limitIP]byte
	if s := a.Unmap().AppendTo(buf[:0]); string(s) != e.SourceIP {
		e.SourceIP = string(s)
	}
	return nil
}

func (e *Event) validateLabels() error {
	if len(e.Labels) > LimitLabels {
		return refuse(TooMany, FLabels, "%d labels, at most %d are accepted", len(e.Labels), LimitLabels)
	}
	for _, l := range e.Labels {
		switch {
		case l.Key == "" || len(l.Key) > LimitLabelKey:
			return refuse(BadValue, FLabels, "a key of %d bytes; 1 to %d are accepted", len(l.Key), LimitLabelKey)
		case !utf8.ValidString(l.Key) || !utf8.ValidString(l.Value) || hasControl(l.Key):
			return refuse(BadText, FLabels, "key or value of %.40q is not clean UTF-8 text", l.Key)
		}
	}
	return nil
}

// Cut shortens the free texts that are over their limit, at a border of a
// character, marks the event and returns how many it shortened.
func (e *Event) Cut() (n int) {
	for i := range Fields {
		if p := e.Text(i); p != nil && cuttable(i) && len(*p) > Fields[i].Limit {
			*p = CutText(*p, Fields[i].Limit)
			e.Mark("cut:" + Fields[i].Name)
			n++
		}
	}
	for i := range e.Labels {
		if l := &e.Labels[i]; len(l.Value) > Fields[FLabels].Limit {
			l.Value = CutText(l.Value, Fields[FLabels].Limit)
			e.Mark("cut:labels")
			n++
		}
	}
	return n
}

// CutText returns a copy of the first limit bytes of s, less the part of a
// character that would be torn. It copies so that the long text can be freed.
func CutText(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return strings.Clone(s[:limit])
}

package event

import (
	"encoding/json"
	"fmt"
	"time"
)

// Stamp is a moment in Unix milliseconds that JSON shows as RFC 3339 in UTC.
type Stamp int64

// MarshalJSON writes the moment as RFC 3339 with milliseconds.
func (s Stamp) MarshalJSON() ([]byte, error) { return json.Marshal(FormatTime(int64(s))) }

// UnmarshalJSON reads RFC 3339.
func (s *Stamp) UnmarshalJSON(b []byte) error {
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return fmt.Errorf("a time must be a text in RFC 3339: %w", err)
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return fmt.Errorf("a time must be in RFC 3339: %w", err)
	}
	*s = Stamp(t.UnixMilli())
	return nil
}

// Span is a stretch of time, from < t <= to for windows and from <= t < to for
// cells.
type Span struct {
	From Stamp `json:"from"`
	To   Stamp `json:"to"`
}

// Term is one measured part of a rule's condition, as the rule writes it, with
// its value at the event that fired.
type Term struct {
	Expr  string  `json:"expr"`
	Value float64 `json:"value"`
}

// Finding is what a rule found for one key in one cell of time: the contract
// of schemas/finding.schema.json. All but Revision and what the evidence adds
// up to is fixed by the rule's logic and the recorded stream.
type Finding struct {
	// ID is the hash of rule, logic, key and cell, 32 hexadecimal digits.
	ID    string `json:"id"`
	Rule  string `json:"rule"`
	Logic string `json:"logic"` // hash of what decides in the rule, 16 hexadecimal digits
	Title string `json:"title"`
	Class string `json:"class"`
	// Severity is info, low, medium, high or critical.
	Severity string `json:"severity"`
	// Status is the rule's: production or shadow.
	Status string `json:"status"`
	Lane   int    `json:"lane"`
	// Cell is the stretch of the fixed grid that holds the firing event.
	Cell Span `json:"cell"`
	// Key holds the values of group_by under their dotted names; user.name
	// appears as user.hash.
	Key    map[string]string `json:"key"`
	Tenant string            `json:"tenant,omitempty"`
	Terms  []Term            `json:"terms"`
	// Window bounds the events that were counted for Fired.
	Window Span `json:"window"`
	// How says in one sentence how it was measured.
	How string `json:"how"`
	// Fired is the time of the event that made the condition true first, in
	// order of event time, and FiredBy that event's id.
	Fired   Stamp  `json:"fired"`
	FiredBy string `json:"fired_by"`
	// FirstSeen and LastSeen bound the events of the finding; Count is their
	// number.
	FirstSeen Stamp `json:"first_seen"`
	LastSeen  Stamp `json:"last_seen"`
	Count     int64 `json:"count"`
	// Revision counts from 1; a higher one replaces a lower.
	Revision int64 `json:"revision"`
	// Evidence lists the ids of the first and last ten events, in order of time.
	Evidence []string `json:"evidence"`
	// Continues is the id of the same key's finding in the cell before.
	Continues string `json:"continues,omitempty"`
	// Import is the import whose time domain it belongs to.
	Import string `json:"import,omitempty"`
	// Withdrawn says that a straggler made it untrue.
	Withdrawn bool `json:"withdrawn,omitempty"`
	// Approximate says that its window held more events than are counted
	// exactly.
	Approximate bool `json:"approximate,omitempty"`
}

// EvidenceEach is how many of the first and of the last events a finding names.
const EvidenceEach = 10

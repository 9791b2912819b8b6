package event

import (
	"cmp"
	"slices"
	"strconv"
	"time"
)

// Presence says which of the optional numbers an event carries.
type Presence uint8

// The optional numbers. A number that is not there reads 0 in rules and is
// NULL in tables; averages and percentiles skip it.
const (
	HasPID Presence = 1 << iota
	HasDuration
	HasServerDuration
	HasBytes
	HasValue
)

// Label is one of an event's labels.
type Label struct{ Key, Value string }

// Event is one thing that happened. Texts that are absent are empty; optional
// numbers are there when Has says so. Field meanings, units and classes stand
// in Fields. An Event owns its texts unless the function that filled it says
// otherwise.
type Event struct {
	Time, Received                                int64 // Unix milliseconds, UTC
	Kind, Action, Outcome, Message                string
	Source, ID, Marks                             string
	Collector                                     string
	Epoch, Seq                                    int64
	TenantID, TenantTier                          string
	UserName, UserHash, UserType                  string
	SessionID, SourceIP, SourceCountry            string
	Datacenter, HostName                          string
	ServiceName, ServiceVersion                   string
	ResourceType, ResourceName, ResourceTitle     string
	Ticket                                        string
	ProcessName, ProcessParent, ProcessExecutable string
	ProcessCommandLine                            string
	ProcessPID, Bytes                             int64
	Duration, ServerDuration, Value               float64 // durations in milliseconds
	Has                                           Presence
	Labels                                        []Label // sorted by key, keys distinct
}

// Text returns the field's text in e, for Dict and Text fields; it is nil for
// the others. It is how loops over Fields reach the struct.
func (e *Event) Text(field int) *string {
	switch field {
	case FKind:
		return &e.Kind
	case FAction:
		return &e.Action
	case FOutcome:
		return &e.Outcome
	case FMessage:
		return &e.Message
	case FSource:
		return &e.Source
	case FID:
		return &e.ID
	case FMarks:
		return &e.Marks
	case FCollector:
		return &e.Collector
	case FTenantID:
		return &e.TenantID
	case FTenantTier:
		return &e.TenantTier
	case FUserName:
		return &e.UserName
	case FUserHash:
		return &e.UserHash
	case FUserType:
		return &e.UserType
	case FSessionID:
		return &e.SessionID
	case FSourceIP:
		return &e.SourceIP
	case FSourceCountry:
		return &e.SourceCountry
	case FDatacenter:
		return &e.Datacenter
	case FHostName:
		return &e.HostName
	case FServiceName:
		return &e.ServiceName
	case FServiceVersion:
		return &e.ServiceVersion
	case FResourceType:
		return &e.ResourceType
	case FResourceName:
		return &e.ResourceName
	case FResourceTitle:
		return &e.ResourceTitle
	case FTicket:
		return &e.Ticket
	case FProcessName:
		return &e.ProcessName
	case FProcessParent:
		return &e.ProcessParent
	case FProcessExecutable:
		return &e.ProcessExecutable
	case FProcessCommandLine:
		return &e.ProcessCommandLine
	}
	return nil
}

// Int returns the field's number in e and the presence bit it needs (0 when it
// is always there), for Time and Int fields.
func (e *Event) Int(field int) (*int64, Presence) {
	switch field {
	case FTime:
		return &e.Time, 0
	case FReceived:
		return &e.Received, 0
	case FEpoch:
		return &e.Epoch, 0
	case FSeq:
		return &e.Seq, 0
	case FProcessPID:
		return &e.ProcessPID, HasPID
	case FBytes:
		return &e.Bytes, HasBytes
	}
	return nil, 0
}

// Float returns the field's number in e and its presence bit, for Float fields.
func (e *Event) Float(field int) (*float64, Presence) {
	switch field {
	case FDuration:
		return &e.Duration, HasDuration
	case FServerDuration:
		return &e.ServerDuration, HasServerDuration
	case FValue:
		return &e.Value, HasValue
	}
	return nil, 0
}

// SetDuration sets duration, milliseconds, and says that it is there.
func (e *Event) SetDuration(ms float64) { e.Duration = ms; e.Has |= HasDuration }

// SetServerDuration sets server.duration, milliseconds.
func (e *Event) SetServerDuration(ms float64) { e.ServerDuration = ms; e.Has |= HasServerDuration }

// SetBytes sets bytes.
func (e *Event) SetBytes(n int64) { e.Bytes = n; e.Has |= HasBytes }

// SetValue sets value.
func (e *Event) SetValue(v float64) { e.Value = v; e.Has |= HasValue }

// SetPID sets process.pid.
func (e *Event) SetPID(pid int64) { e.ProcessPID = pid; e.Has |= HasPID }

// Label returns the label's value, or "" when it is not there.
func (e *Event) Label(key string) string {
	i, ok := slices.BinarySearchFunc(e.Labels, key, func(l Label, k string) int { return cmp.Compare(l.Key, k) })
	if !ok {
		return ""
	}
	return e.Labels[i].Value
}

// SetLabel sets a label, keeping them sorted.
func (e *Event) SetLabel(key, value string) {
	i, ok := slices.BinarySearchFunc(e.Labels, key, func(l Label, k string) int { return cmp.Compare(l.Key, k) })
	if ok {
		e.Labels[i].Value = value
		return
	}
	e.Labels = slices.Insert(e.Labels, i, Label{key, value})
}

// Mark adds a word to event.marks, once, in the order of the calls.
func (e *Event) Mark(what string) {
	if e.Marks == "" {
		e.Marks = what
		return
	}
	for s := e.Marks; s != ""; {
		var w string
		w, s = nextWord(s)
		if w == what {
			return
		}
	}
	if len(e.Marks)+1+len(what) <= limitName {
		e.Marks += " " + what
	}
}

func nextWord(s string) (word, rest string) {
	for i := range len(s) {
		if s[i] == ' ' {
			return s[:i], s[i+1:]
		}
	}
	return s, ""
}

// Identity names the event in the recorded stream:
// <collector>-<epoch>-<number>. No two events share one.
func Identity(collector string, epoch, seq int64) string {
	b := make([]byte, 0, len(collector)+24)
	b = append(b, collector...)
	b = append(b, '-')
	b = strconv.AppendInt(b, epoch, 10)
	b = append(b, '-')
	b = strconv.AppendInt(b, seq, 10)
	return string(b)
}

// Identity names the event in the recorded stream; see [Identity].
func (e *Event) Identity() string { return Identity(e.Collector, e.Epoch, e.Seq) }

// EventID is the id that people see: the producer's own where it gave one,
// else the identity. The table's column id is computed the same way.
func (e *Event) EventID() string {
	if e.ID != "" {
		return e.ID
	}
	return e.Identity()
}

// timeLayout is RFC 3339 in UTC with milliseconds: how coc writes times.
const timeLayout = "2006-01-02T15:04:05.000Z"

// FormatTime writes Unix milliseconds as RFC 3339 in UTC with milliseconds.
func FormatTime(ms int64) string { return time.UnixMilli(ms).UTC().Format(timeLayout) }

package bus

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
)

// Headers of the messages.
const (
	HeaderCollector = "Coc-Collector"
	HeaderEpoch     = "Coc-Epoch"
	HeaderFirst     = "Coc-First"
	HeaderRows      = "Coc-Rows"
	HeaderMark      = "Coc-Mark"
	HeaderSchema    = "Coc-Schema"
	HeaderImport    = "Coc-Import"
	HeaderImportEnd = "Coc-Import-End"
	HeaderSources   = "Coc-Sources"
	HeaderRefused   = "Coc-Refused"
	HeaderBytes     = "Coc-Bytes"
	HeaderPrevious  = "Coc-Previous"
	HeaderKeys      = "Coc-Keys"
	HeaderControl   = "Coc-Control"
	HeaderTime      = "Coc-Time"
	HeaderDigest    = "Coc-Digest"
	HeaderIn        = "Coc-In"
	HeaderPart      = "Coc-Part" // "2/3": second of three messages of one input

	// headerTry tells one attempt of a publisher from every other, so that an
	// unclear outcome can be decided by looking at the subject's last message.
	headerTry = "Coc-Try"
)

// Kinds of control messages.
const (
	ControlTick  = "tick"  // the clock; Meta.Time
	ControlRules = "rules" // switch of the rule set; Meta.Digest
)

// Meta is what the headers of a message say. What does not apply is zero.
type Meta struct {
	Collector string
	Epoch     int64
	First     int64 // number of the first event in the message
	Rows      int64 // events in the message; 0 is a heartbeat
	Bytes     int64 // raw size of the events
	Mark      int64 // low-water mark, Unix ms: all of this collector's events up to here are sent
	Schema    int
	Import    string // id of the import, "" live
	ImportEnd bool   // last message of the import
	// Sources counts the rows by source, Refused what was refused since the
	// last message, by "source:reason".
	Sources, Refused map[string]int64
	// Previous is "<epoch>-<last>" of the epoch before, on a new epoch's first
	// message. The Publisher sets it.
	Previous string
	// Keys are idempotency keys of the requests in the message, at most
	// MaxKeys, each of A-Z a-z 0-9 - _ and at most 64 long: hash them first.
	Keys []string

	Control string // of a control message: ControlTick, ControlRules
	Time    int64  // of a control message, Unix ms
	Digest  string // of a ControlRules message

	In          uint64 // FINDINGS: the input whose findings these are
	Lane        int    // FINDINGS: from the subject
	Part, Parts int    // FINDINGS: which of how many messages of that input
}

// header encodes m; zero values take no space.
func (m *Meta) header() nats.Header {
	h := nats.Header{}
	text := func(name, v string) {
		if v != "" {
			h[name] = []string{v}
		}
	}
	number := func(name string, v int64) {
		if v != 0 {
			h[name] = []string{strconv.FormatInt(v, 10)}
		}
	}
	text(HeaderCollector, m.Collector)
	number(HeaderEpoch, m.Epoch)
	number(HeaderFirst, m.First)
	number(HeaderRows, m.Rows)
	number(HeaderBytes, m.Bytes)
	number(HeaderMark, m.Mark)
	number(HeaderSchema, int64(m.Schema))
	text(HeaderImport, m.Import)
	if m.ImportEnd {
		text(HeaderImportEnd, "1")
	}
	text(HeaderSources, encodeCounts(m.Sources))
	text(HeaderRefused, encodeCounts(m.Refused))
	text(HeaderPrevious, m.Previous)
	text(HeaderKeys, strings.Join(m.Keys, ","))
	text(HeaderControl, m.Control)
	number(HeaderTime, m.Time)
	text(HeaderDigest, m.Digest)
	number(HeaderIn, int64(m.In))
	if m.Parts > 0 {
		text(HeaderPart, strconv.Itoa(m.Part)+"/"+strconv.Itoa(m.Parts))
	}
	return h
}

// parseMeta reads headers. They come from the bus, which only the house writes
// to; a value that cannot be read is zero, and readers compare what they rely
// on (rows, schema) with the payload. Message sets what the subject tells.
func parseMeta(h nats.Header) Meta {
	get := func(name string) string {
		if v := h[name]; len(v) > 0 {
			return v[0]
		}
		return ""
	}
	number := func(name string) int64 {
		n, err := strconv.ParseInt(get(name), 10, 64)
		if err != nil || n < 0 { // none of them is ever negative
			return 0
		}
		return n
	}
	m := Meta{
		Collector: get(HeaderCollector), Epoch: number(HeaderEpoch), First: number(HeaderFirst), Rows: number(HeaderRows),
		Bytes: number(HeaderBytes), Mark: number(HeaderMark), Schema: int(number(HeaderSchema)),
		Import: get(HeaderImport), ImportEnd: get(HeaderImportEnd) == "1",
		Sources: decodeCounts(get(HeaderSources)), Refused: decodeCounts(get(HeaderRefused)),
		Previous: get(HeaderPrevious),
		Control:  get(HeaderControl), Time: number(HeaderTime), Digest: get(HeaderDigest),
		In: uint64(number(HeaderIn)),
	}
	if keys := get(HeaderKeys); keys != "" {
		m.Keys = strings.Split(keys, ",")
	}
	if part, parts, ok := strings.Cut(get(HeaderPart), "/"); ok {
		m.Part, _ = strconv.Atoi(part)
		m.Parts, _ = strconv.Atoi(parts)
	}
	return m
}

// encodeCounts writes "http=12,journal=3", names in order so that equal counts
// give equal bytes. Beyond maxCounts the smaller ones are summed as "other":
// the total is never wrong.
func encodeCounts(counts map[string]int64) string {
	if len(counts) == 0 {
		return ""
	}
	type count struct {
		name string
		n    int64
	}
	all := make([]count, 0, len(counts))
	for name, n := range counts {
		all = append(all, count{countName(name), n})
	}
	if len(all) > maxCounts {
		slices.SortFunc(all, func(a, b count) int { return cmp.Or(cmp.Compare(b.n, a.n), cmp.Compare(a.name, b.name)) })
		other := count{name: "other"}
		for _, c := range all[maxCounts:] {
			other.n += c.n
		}
		all = append(all[:maxCounts], other)
	}
	slices.SortFunc(all, func(a, b count) int { return cmp.Compare(a.name, b.name) })
	var s strings.Builder
	for i, c := range all {
		if i > 0 {
			s.WriteByte(',')
		}
		s.WriteString(c.name)
		s.WriteByte('=')
		s.WriteString(strconv.FormatInt(c.n, 10))
	}
	return s.String()
}

// countName keeps a name from breaking the header.
func countName(s string) string {
	if len(s) > maxCountName {
		s = s[:maxCountName]
	}
	return strings.Map(func(r rune) rune {
		if r < 0x21 || r > 0x7e || r == ',' || r == '=' {
			return '-'
		}
		return r
	}, s)
}

func decodeCounts(s string) map[string]int64 {
	if s == "" {
		return nil
	}
	counts := map[string]int64{}
	for item := range strings.SplitSeq(s, ",") {
		name, value, ok := strings.Cut(item, "=")
		n, err := strconv.ParseInt(value, 10, 64)
		if ok && err == nil && name != "" {
			counts[name] += n
		}
	}
	return counts
}

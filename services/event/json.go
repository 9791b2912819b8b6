package event

import (
	"bytes"
	"math"
	"strconv"
	"time"
	"unsafe"

	"github.com/go-json-experiment/json/jsontext"
)

// JSONDecoder reads events from JSON: one object an event, names of the Elastic
// Common Schema, nested ({"user": {"name": "x"}}) or dotted ({"user.name":
// "x"}). It is strict: what it does not know, or sees twice, is refused by
// name. It keeps memory between calls; one goroutine at a time.
type JSONDecoder struct {
	// Internal accepts the fields that only coc sets, as files that coc wrote
	// carry them.
	Internal bool

	scanner
	name    []byte // the dotted name being read
	scratch []byte // an unquoted text
	seen    FieldSet
	groups  uint32
	// line is a copy of the whole event: its texts alias it, so that an event
	// costs one allocation, not one a text, and nothing is looked up.
	line string
	// A producer sends the same fields in the same order: what came after a field
	// is tried before a map is asked.
	after [fieldCount + 1]int8
	at    int // the field before, fieldCount at the start
}

// NewJSONDecoder returns a decoder for what producers send.
func NewJSONDecoder() *JSONDecoder { return &JSONDecoder{} }

// Decode fills e from one JSON object and nothing after it. It returns a
// *Refusal or nil. The texts do not alias data; together they hold one copy of
// it, so clone one that is to outlive the event. Call Validate next.
func (d *JSONDecoder) Decode(data []byte, e *Event) error {
	labels := e.Labels[:0]
	*e = Event{Labels: labels}
	if len(data) > LimitEventJSON {
		return refuse(TooLong, -1, "an event of %d bytes of JSON, at most %d are accepted", len(data), LimitEventJSON)
	}
	d.data, d.pos, d.line = data, 0, string(data)
	d.seen, d.groups, d.name, d.at = 0, 0, d.name[:0], fieldCount
	switch d.peek() {
	case '{':
	case '[', '"':
		return refuse(WrongType, -1, "an event must be a JSON object")
	default:
		return d.broken("expected an object")
	}
	if err := d.object(e); err != nil {
		return err
	}
	if d.peek(); d.pos < len(data) {
		return refuse(BadJSON, -1, "something stands after the event's object")
	}
	return nil
}

// object reads the members of an object whose names are prefixed by d.name. Its
// depth is bounded by the names there are: a group within a group is unknown.
func (d *JSONDecoder) object(e *Event) error {
	d.pos++
	prefix := len(d.name)
	for first := true; ; first = false {
		more, err := d.next(first)
		if err != nil {
			return err
		}
		if !more {
			d.name = d.name[:prefix]
			return nil
		}
		key, err := d.text(&d.scratch)
		if err != nil {
			return err
		}
		d.name = d.name[:prefix]
		if prefix > 0 {
			d.name = append(d.name, '.')
		}
		d.name = append(d.name, key...)
		if err := d.take(':'); err != nil {
			return err
		}
		if err := d.member(e, d.peek()); err != nil {
			return err
		}
	}
}

// groups of dotted names, to see one given twice.
var groups = []string{"event", "collector", "tenant", "user", "session", "source", "host", "service", "resource", "process", "server"}

// member reads the value of d.name, which starts with the byte c.
func (d *JSONDecoder) member(e *Event, c byte) error {
	if i, ok := d.field(); ok {
		if c == 'n' { // null: not there
			_, err := d.literal()
			return err
		}
		if d.seen.Has(i) {
			return refuse(DuplicateField, i, "it is given twice")
		}
		d.seen = d.seen.With(i)
		if Fields[i].Internal && !d.Internal {
			return refuse(InternalField, i, "it is set by the collector; leave it out")
		}
		return d.value(e, i, c)
	}
	if key, ok := bytes.CutPrefix(d.name, []byte("labels.")); ok {
		return d.label(e, string(key), c)
	}
	for i, g := range groups {
		if string(d.name) == g {
			if c != '{' {
				return &Refusal{WrongType, g, "must be an object, or write " + g + ".… as one name"}
			}
			if d.groups&(1<<i) != 0 {
				return &Refusal{DuplicateField, g, "it is given twice"}
			}
			d.groups |= 1 << i
			return d.object(e)
		}
	}
	return &Refusal{UnknownField, CutText(string(d.name), 80), "it is not a field of the event; put it into labels"}
}

// field finds the field of d.name.
func (d *JSONDecoder) field() (int, bool) {
	i := int(d.after[d.at])
	if Fields[i].Name != string(d.name) {
		var ok bool
		if i, ok = byName[string(d.name)]; !ok {
			return 0, false
		}
		d.after[d.at] = int8(i)
	}
	d.at = i
	return i, true
}

func (d *JSONDecoder) value(e *Event, i int, c byte) error {
	switch t := Fields[i].Type; {
	case t == Map:
		if c != '{' {
			return refuse(WrongType, i, "must be an object of texts")
		}
		return d.labels(e)
	case t == Dict || t == Text:
		if c != '"' {
			return d.wrong(i, c, "must be a text in quotes")
		}
		s, err := d.text(&d.scratch)
		if err != nil {
			return err
		}
		*e.Text(i) = d.own(s)
		return nil
	case t == Time && c == '"':
		s, err := d.text(&d.scratch)
		if err != nil {
			return err
		}
		p, _ := e.Int(i)
		*p, err = parseTime(s, i)
		return err
	}
	if c != '-' && c-'0' > 9 {
		return d.wrong(i, c, "must be a number")
	}
	v, err := d.number()
	if err != nil {
		return err
	}
	if Fields[i].Type == Float {
		n, err := strconv.ParseFloat(alias(v), 64)
		if err != nil || math.IsInf(n, 0) {
			return refuse(WrongType, i, "must be a number that 64 bits hold, is %.40s", v)
		}
		p, has := e.Float(i)
		*p = n
		e.Has |= has
		return nil
	}
	n, err := strconv.ParseInt(alias(v), 10, 64)
	if err != nil {
		return refuse(WrongType, i, "must be a whole number that 64 bits hold, is %.40s", v)
	}
	p, has := e.Int(i)
	*p = n
	e.Has |= has
	return nil
}

// wrong tells a value of another type from no value at all.
func (d *JSONDecoder) wrong(field int, c byte, must string) error {
	switch {
	case c == 't' || c == 'f' || c == 'n':
		if _, err := d.literal(); err != nil {
			return err
		}
	case c != '"' && c != '[' && c != '{' && c != '-' && c-'0' > 9:
		return d.broken("expected a value")
	}
	return refuse(WrongType, field, "%s", must)
}

// alias shows bytes as a text for the time of a call that does not keep it.
func alias(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// own returns a text just read as part of the copy of the line, or as a copy of
// its own when it had to be unquoted.
func (d *JSONDecoder) own(b []byte) string {
	if end := d.pos - 1; len(b) <= end && len(b) > 0 && &b[0] == &d.data[end-len(b)] {
		return d.line[end-len(b) : end]
	}
	return string(b)
}

func (d *JSONDecoder) labels(e *Event) error {
	d.pos++
	for first := true; ; first = false {
		more, err := d.next(first)
		if err != nil || !more {
			return err
		}
		key, err := d.text(&d.scratch)
		if err != nil {
			return err
		}
		k := d.own(key)
		if err := d.take(':'); err != nil {
			return err
		}
		if err := d.label(e, k, d.peek()); err != nil {
			return err
		}
	}
}

func (d *JSONDecoder) label(e *Event, key string, c byte) error {
	if c != '"' {
		return d.wrong(FLabels, c, "the value of "+strconv.Quote(CutText(key, 40))+" must be a text in quotes")
	}
	if len(e.Labels) >= LimitLabels {
		return refuse(TooMany, FLabels, "more than %d labels", LimitLabels)
	}
	v, err := d.text(&d.scratch)
	if err != nil {
		return err
	}
	n := len(e.Labels)
	e.SetLabel(key, d.own(v))
	if len(e.Labels) == n {
		return refuse(DuplicateField, FLabels, "the key %.40q is given twice", key)
	}
	return nil
}

// parseTime reads RFC 3339.
func parseTime(v []byte, field int) (int64, error) {
	t, err := time.Parse(time.RFC3339Nano, alias(v))
	if err != nil {
		return 0, refuse(BadValue, field, "%.60q is not a time in RFC 3339, such as 2026-11-23T14:05:00.000Z", v)
	}
	if y := t.Year(); y < 1970 || y > 2261 {
		return 0, refuse(BadValue, field, "%.60q is outside 1970 to 2261", v)
	}
	return t.UnixMilli(), nil
}

// AppendJSON appends the event as one JSON object with dotted names, absent
// fields left out, in the order of Fields: what JSONDecoder reads.
func AppendJSON(dst []byte, e *Event) []byte {
	dst = append(dst, '{')
	for i := range Fields {
		f := &Fields[i]
		switch f.Type {
		case Dict, Text:
			if s := *e.Text(i); s != "" {
				dst = appendString(appendName(dst, f.Name), s)
			}
		case Time:
			if p, _ := e.Int(i); *p != 0 {
				dst = appendName(dst, f.Name)
				dst = append(dst, '"')
				dst = time.UnixMilli(*p).UTC().AppendFormat(dst, timeLayout)
				dst = append(dst, '"')
			}
		case Int:
			if p, has := e.Int(i); has != 0 && e.Has&has != 0 || has == 0 && *p != 0 {
				dst = strconv.AppendInt(appendName(dst, f.Name), *p, 10)
			}
		case Float:
			if p, has := e.Float(i); e.Has&has != 0 {
				dst = strconv.AppendFloat(appendName(dst, f.Name), *p, 'g', -1, 64)
			}
		case Map:
			if len(e.Labels) > 0 {
				dst = append(appendName(dst, f.Name), '{')
				for _, l := range e.Labels {
					dst = appendString(appendName(dst, l.Key), l.Value)
				}
				dst = append(dst, '}')
			}
		}
	}
	return append(dst, '}')
}

func appendName(dst []byte, name string) []byte {
	if dst[len(dst)-1] != '{' {
		dst = append(dst, ',')
	}
	return append(appendString(dst, name), ':')
}

func appendString(dst []byte, s string) []byte {
	dst, err := jsontext.AppendQuote(dst, s)
	_ = err // only says that s was not valid UTF-8, which is written as U+FFFD
	return dst
}

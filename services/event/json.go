package event

import (
	"bytes"
	"errors"
	"io"
	"math"
	"strconv"
	"time"

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

	dec     *jsontext.Decoder
	src     bytes.Reader
	name    []byte
	interns map[string]string
	seen    FieldSet
	groups  uint32
}

// NewJSONDecoder returns a decoder for what producers send.
func NewJSONDecoder() *JSONDecoder {
	d := &JSONDecoder{interns: make(map[string]string)}
	d.dec = jsontext.NewDecoder(&d.src, jsontext.AllowDuplicateNames(true)) // we look for them by field
	return d
}

// Decode fills e from one JSON object and nothing after it. It returns a
// *Refusal or nil; e owns its texts. Call Validate next.
func (d *JSONDecoder) Decode(data []byte, e *Event) error {
	labels := e.Labels[:0]
	*e = Event{Labels: labels}
	if len(data) > LimitEventJSON {
		return refuse(TooLong, -1, "an event of %d bytes of JSON, at most %d are accepted", len(data), LimitEventJSON)
	}
	d.src.Reset(data)
	d.dec.Reset(&d.src, jsontext.AllowDuplicateNames(true))
	d.seen, d.groups, d.name = 0, 0, d.name[:0]
	if k := d.dec.PeekKind(); k != '{' {
		if _, err := d.dec.ReadToken(); err != nil {
			return syntax(err)
		}
		return refuse(WrongType, -1, "an event must be a JSON object")
	}
	if err := d.object(e); err != nil {
		return err
	}
	if _, err := d.dec.ReadToken(); err != io.EOF {
		return refuse(BadJSON, -1, "something stands after the event's object")
	}
	return nil
}

func syntax(err error) error {
	var s *jsontext.SyntacticError
	switch {
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return refuse(BadJSON, -1, "it ends before the object does")
	case errors.As(err, &s):
		return refuse(BadJSON, -1, "at byte %d: %v", s.ByteOffset, s.Err)
	}
	return refuse(BadJSON, -1, "%v", err)
}

// object reads the members of an object whose names are prefixed by d.name.
func (d *JSONDecoder) object(e *Event) error {
	if _, err := d.dec.ReadToken(); err != nil {
		return syntax(err)
	}
	prefix := len(d.name)
	for d.dec.PeekKind() != '}' {
		key, err := d.dec.ReadValue()
		if err != nil {
			return syntax(err)
		}
		d.name = d.name[:prefix]
		if prefix > 0 {
			d.name = append(d.name, '.')
		}
		if d.name, err = jsontext.AppendUnquote(d.name, key); err != nil {
			return syntax(err)
		}
		if err := d.member(e); err != nil {
			return err
		}
	}
	d.name = d.name[:prefix]
	if _, err := d.dec.ReadToken(); err != nil {
		return syntax(err)
	}
	return nil
}

// groups of dotted names, to see one given twice.
var groups = []string{"event", "collector", "tenant", "user", "session", "source", "host", "service", "resource", "process", "server"}

func (d *JSONDecoder) member(e *Event) error {
	if i, ok := byName[string(d.name)]; ok {
		if d.dec.PeekKind() == 'n' { // null: not there
			return d.skip()
		}
		if d.seen.Has(i) {
			return refuse(DuplicateField, i, "it is given twice")
		}
		d.seen = d.seen.With(i)
		if Fields[i].Internal && !d.Internal {
			return refuse(InternalField, i, "it is set by the collector; leave it out")
		}
		return d.value(e, i)
	}
	if key, ok := bytes.CutPrefix(d.name, []byte("labels.")); ok {
		return d.label(e, string(key))
	}
	for i, g := range groups {
		if string(d.name) == g {
			if d.dec.PeekKind() != '{' {
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

func (d *JSONDecoder) skip() error {
	if err := d.dec.SkipValue(); err != nil {
		return syntax(err)
	}
	return nil
}

func (d *JSONDecoder) value(e *Event, i int) error {
	if Fields[i].Type == Map {
		if d.dec.PeekKind() != '{' {
			return refuse(WrongType, i, "must be an object of texts")
		}
		return d.labels(e)
	}
	v, err := d.dec.ReadValue()
	if err != nil {
		return syntax(err)
	}
	switch Fields[i].Type {
	case Dict, Text:
		if v[0] != '"' {
			return refuse(WrongType, i, "must be a text in quotes, is %.40s", v)
		}
		s, err := d.text(v, Fields[i].Type == Dict)
		if err != nil {
			return err
		}
		*e.Text(i) = s
	case Time:
		ms, err := parseTime(v, i)
		if err != nil {
			return err
		}
		p, _ := e.Int(i)
		*p = ms
	case Int:
		n, err := parseInt(v, i)
		if err != nil {
			return err
		}
		p, has := e.Int(i)
		*p = n
		e.Has |= has
	case Float:
		if v[0] == '"' {
			return refuse(WrongType, i, "must be a number, not a text")
		}
		n, err := strconv.ParseFloat(string(v), 64)
		if err != nil || math.IsInf(n, 0) {
			return refuse(WrongType, i, "must be a number that 64 bits hold, is %.40s", v)
		}
		p, has := e.Float(i)
		*p = n
		e.Has |= has
	}
	return nil
}

// maxInterns bounds the texts kept to spare an allocation for the next equal
// one; beyond it they are forgotten and learned anew.
const maxInterns = 8192

// text unquotes a JSON string. Texts of few distinct values are shared.
func (d *JSONDecoder) text(v jsontext.Value, shared bool) (string, error) {
	raw := []byte(v[1 : len(v)-1])
	if bytes.IndexByte(raw, '\\') >= 0 {
		at := len(d.name)
		var err error
		d.name, err = jsontext.AppendUnquote(d.name, v)
		if err != nil {
			return "", syntax(err)
		}
		raw = d.name[at:]
		d.name = d.name[:at]
	}
	if !shared || len(raw) > limitName {
		return string(raw), nil
	}
	if s, ok := d.interns[string(raw)]; ok {
		return s, nil
	}
	if len(d.interns) >= maxInterns {
		clear(d.interns)
	}
	s := string(raw)
	d.interns[s] = s
	return s, nil
}

func (d *JSONDecoder) labels(e *Event) error {
	if _, err := d.dec.ReadToken(); err != nil {
		return syntax(err)
	}
	for d.dec.PeekKind() != '}' {
		key, err := d.dec.ReadValue()
		if err != nil {
			return syntax(err)
		}
		k, err := d.text(key, true)
		if err != nil {
			return err
		}
		if err := d.label(e, k); err != nil {
			return err
		}
	}
	_, err := d.dec.ReadToken()
	if err != nil {
		return syntax(err)
	}
	return nil
}

func (d *JSONDecoder) label(e *Event, key string) error {
	v, err := d.dec.ReadValue()
	if err != nil {
		return syntax(err)
	}
	if v[0] != '"' {
		return refuse(WrongType, FLabels, "the value of %.40q must be a text in quotes", key)
	}
	if len(e.Labels) >= LimitLabels {
		return refuse(TooMany, FLabels, "more than %d labels", LimitLabels)
	}
	s, err := d.text(v, len(v) < 64)
	if err != nil {
		return err
	}
	n := len(e.Labels)
	e.SetLabel(key, s)
	if len(e.Labels) == n {
		return refuse(DuplicateField, FLabels, "the key %.40q is given twice", key)
	}
	return nil
}

// parseTime reads RFC 3339, or Unix milliseconds as a whole number.
func parseTime(v jsontext.Value, field int) (int64, error) {
	if v[0] != '"' {
		return parseInt(v, field)
	}
	t, err := time.Parse(time.RFC3339Nano, string(v[1:len(v)-1]))
	if err != nil {
		return 0, refuse(BadValue, field, "%.60s is not a time in RFC 3339, such as 2026-11-23T14:05:00.000Z", v)
	}
	if y := t.Year(); y < 1970 || y > 2261 {
		return 0, refuse(BadValue, field, "%.60s is outside 1970 to 2261", v)
	}
	return t.UnixMilli(), nil
}

func parseInt(v jsontext.Value, field int) (int64, error) {
	n, err := strconv.ParseInt(string(v), 10, 64)
	if err != nil {
		return 0, refuse(WrongType, field, "must be a whole number that 64 bits hold, is %.40s", v)
	}
	return n, nil
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

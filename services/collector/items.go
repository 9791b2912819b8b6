package collector

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/opencoc/coc/services/event"
)

// Reasons by which items are refused here, besides those of event.
const (
	reasonTenantOutside = "tenant_outside"
	reasonTenantMissing = "tenant_missing"
	reasonNotJSON       = event.BadJSON
)

// badItem is a refused item, as the answer shows it.
type badItem struct {
	Index  int    `json:"index"`
	Reason string `json:"reason"`
	Field  string `json:"field,omitempty"`
	Detail string `json:"detail,omitempty"`
}

// items are the events of one request or intake message. They are used again.
type items struct {
	reader *jsonReader
	drafts []draft
	keys   []parcelKey // hash holds the CloudEvent's key as it came
	bad    []badItem   // the first limitBadItems
	badBy  map[string]int64
	count  int // items read
	check  func(d *draft) error
}

func newItems() *items {
	return &items{reader: newJSONReader(), badBy: make(map[string]int64)}
}

func (t *items) reset(check func(d *draft) error) {
	t.drafts, t.keys, t.bad, t.count, t.check = t.drafts[:0], t.keys[:0], t.bad[:0], 0, check
	clear(t.badBy)
}

// badCount is how many items were refused.
func (t *items) badCount() (n int64) {
	for _, c := range t.badBy {
		n += c
	}
	return n
}

// one reads one item.
func (t *items) one(data []byte) {
	index := t.count
	t.count++
	if len(t.drafts) < cap(t.drafts) {
		t.drafts = t.drafts[:len(t.drafts)+1]
	} else {
		t.drafts = append(t.drafts, draft{})
	}
	d := &t.drafts[len(t.drafts)-1]
	*d = draft{Event: event.Event{Labels: d.Labels[:0]}}
	err := t.reader.read(data, d)
	if err == nil {
		err = t.check(d)
	}
	if err != nil {
		t.refuse(index, err)
		return
	}
	if t.reader.key != "" {
		t.keys = append(t.keys, parcelKey{t.reader.key, len(t.drafts) - 1, 1})
	}
}

// refuse takes the last draft back.
func (t *items) refuse(index int, err error) {
	t.drafts = t.drafts[:len(t.drafts)-1]
	t.note(index, err)
}

func (t *items) note(index int, err error) {
	b := badItem{Index: index, Reason: "refused", Detail: err.Error()}
	if r := new(event.Refusal); asRefusal(err, &r) {
		b.Reason, b.Field, b.Detail = r.Reason, r.Field, r.Detail
	}
	t.badBy[b.Reason]++
	if len(t.bad) < limitBadItems {
		t.bad = append(t.bad, b)
	}
}

// full says that more events came than one message of the bus holds.
func (t *items) full() bool { return t.count > event.LimitRows }

// ndjson reads one item a line; empty lines are none.
func (t *items) ndjson(body []byte) {
	for len(body) > 0 && !t.full() {
		line := body
		if i := bytes.IndexByte(body, '\n'); i >= 0 {
			line, body = body[:i], body[i+1:]
		} else {
			body = nil
		}
		if line = bytes.TrimSpace(line); len(line) > 0 {
			t.one(line)
		}
	}
}

// values reads JSON values one after another, or those of one array.
func (t *items) values(body []byte) {
	d := jsontext.NewDecoder(bytes.NewReader(body), jsontext.AllowDuplicateNames(true))
	array := d.PeekKind() == '['
	if array {
		if _, err := d.ReadToken(); err != nil {
			t.broken(err)
			return
		}
	}
	for !t.full() {
		if array && d.PeekKind() == ']' {
			if _, err := d.ReadToken(); err != nil {
				t.broken(err)
				return
			}
			array = false
			continue
		}
		v, err := d.ReadValue()
		if errors.Is(err, io.EOF) {
			if array {
				t.broken(io.ErrUnexpectedEOF)
			}
			return
		}
		if err != nil {
			t.broken(err)
			return
		}
		t.one(v)
	}
}

// broken refuses what is no JSON from here on.
func (t *items) broken(err error) {
	detail := err.Error()
	if s := new(jsontext.SyntacticError); errors.As(err, &s) {
		detail = fmt.Sprintf("at byte %d: %v", s.ByteOffset, s.Err)
	}
	t.note(t.count, &event.Refusal{Reason: reasonNotJSON, Detail: detail})
	t.count++
}

// read reads a body by its content type; ce holds the attributes of a binary
// CloudEvent, nil when it is none. An error is a content type that is not read.
func (t *items) read(contentType string, ce *cloudEvent, body []byte) error {
	media, _, _ := strings.Cut(strings.ToLower(contentType), ";")
	media = strings.TrimSpace(media)
	body = bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))
	switch {
	case ce != nil:
		t.binary(ce, body)
	case media == "application/x-ndjson" || media == "application/ndjson" || media == "application/jsonl" || media == "application/jsonlines":
		t.ndjson(body)
	case isJSON(media):
		t.values(body)
	case media == "" || media == "text/plain" || media == "application/x-www-form-urlencoded" || media == "application/octet-stream":
		t.guess(body) // what curl says without -H
	default:
		return fmt.Errorf("content type %q is not read: send application/x-ndjson, application/json or application/cloudevents+json", media)
	}
	return nil
}

// guess takes a body whose sender did not say what it is.
func (t *items) guess(body []byte) {
	text := bytes.TrimLeft(body, " \t\r\n")
	first, _, _ := bytes.Cut(text, []byte("\n"))
	if len(text) > 0 && text[0] == '{' && jsontext.Value(first).IsValid() {
		t.ndjson(text)
		return
	}
	t.values(text)
}

// binary reads a CloudEvent whose attributes are headers.
func (t *items) binary(ce *cloudEvent, body []byte) {
	t.count++
	t.drafts = append(t.drafts, draft{})
	d := &t.drafts[len(t.drafts)-1]
	ce.Data = jsontext.Value(body)
	t.reader.key = ""
	err := t.reader.readCloudEvent(ce, d)
	if err == nil {
		err = t.check(d)
	}
	if err != nil {
		t.refuse(0, err)
		return
	}
	t.keys = append(t.keys, parcelKey{ce.key(), 0, 1})
}

// binaryCloudEvent reads the attributes of a binary CloudEvent from headers; nil
// when there are none.
func binaryCloudEvent(h http.Header) *cloudEvent {
	if h.Get("Ce-Specversion") == "" {
		return nil
	}
	ce := &cloudEvent{}
	for name, values := range h {
		attribute, ok := strings.CutPrefix(strings.ToLower(name), "ce-")
		if !ok || len(values) == 0 {
			continue
		}
		v := values[0]
		if clear, err := url.PathUnescape(v); err == nil {
			v = clear // as the HTTP binding has it
		}
		switch attribute {
		case "specversion":
			ce.SpecVersion = v
		case "id":
			ce.ID = v
		case "source":
			ce.Source = v
		case "type":
			ce.Type = v
		case "time":
			ce.Time = v
		case "subject":
			ce.Subject = v
		case "dataschema":
			ce.DataSchema = v
		default:
			if ce.Extensions == nil {
				ce.Extensions = make(map[string]jsontext.Value)
			}
			text, err := jsontext.AppendQuote(nil, v)
			if err == nil {
				ce.Extensions[attribute] = text
			}
		}
	}
	ce.DataContentType = h.Get("Content-Type")
	return ce
}

package collector

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/opencoc/coc/services/event"
)

// jsonReader reads one event from JSON: an object of ours, or a CloudEvent 1.0
// in structured form whose data is one. One goroutine at a time.
type jsonReader struct {
	dec *event.JSONDecoder
	// key is source and id of the CloudEvent that was read last, "" when it was
	// none.
	key string
}

func newJSONReader() *jsonReader { return &jsonReader{dec: event.NewJSONDecoder()} }

// read fills d. It returns a *event.Refusal. The caller validates.
func (r *jsonReader) read(data []byte, d *draft) error {
	d.names, r.key = d.names[:0], ""
	err := r.dec.Decode(data, &d.Event)
	var refusal *event.Refusal
	if err == nil || !asRefusal(err, &refusal) || refusal.Reason == event.BadJSON || refusal.Reason == event.TooLong {
		return err
	}
	// Only what is not one of our events is looked at a second time. Which
	// attribute was stumbled over depends on their order: source is a group of
	// ours, id is unknown.
	var ce cloudEvent
	if bad := ce.parse(data); bad != nil {
		if errors.Is(bad, errNoCloudEvent) {
			return err
		}
		return bad
	}
	return r.readCloudEvent(&ce, d)
}

// cloudEvent is the envelope of CloudEvents 1.0.
type cloudEvent struct {
	SpecVersion     string         `json:"specversion"`
	ID              string         `json:"id"`
	Source          string         `json:"source"`
	Type            string         `json:"type"`
	Time            string         `json:"time"`
	Subject         string         `json:"subject"`
	DataContentType string         `json:"datacontenttype"`
	DataSchema      string         `json:"dataschema"`
	Data            jsontext.Value `json:"data"`
	DataBase64      string         `json:"data_base64"`
	// Extensions are further attributes; they become labels.
	Extensions map[string]jsontext.Value `json:",embed"`
}

var errNoCloudEvent = errors.New("not a CloudEvent")

// parse reads the structured form.
func (c *cloudEvent) parse(data []byte) error {
	if !bytes.Contains(data, []byte(`"specversion"`)) {
		return errNoCloudEvent
	}
	if err := json.Unmarshal(data, c); err != nil {
		return &event.Refusal{Reason: event.BadJSON, Detail: fmt.Sprintf("CloudEvent: %v", err)}
	}
	if c.SpecVersion == "" { // an event of ours with a label of that name
		return errNoCloudEvent
	}
	return nil
}

// key names the CloudEvent for its senders' retries: source and id together are
// unique by the specification. A source may hold any character but controls.
func (c *cloudEvent) key() string { return c.Source + "\x00" + c.ID }

// eventID is what is kept as event.id.
func (c *cloudEvent) eventID() string { return c.Source + "#" + c.ID }

// readCloudEvent fills d from the envelope and its data. What the data says
// itself wins: time, action (the type) and event.id (source and id).
func (r *jsonReader) readCloudEvent(c *cloudEvent, d *draft) error {
	bad := func(field, format string, args ...any) error {
		return &event.Refusal{Reason: event.BadValue, Field: field, Detail: fmt.Sprintf(format, args...)}
	}
	switch {
	case c.SpecVersion != "1.0":
		return bad("specversion", "%.20q is not 1.0, the CloudEvents version that is read", c.SpecVersion)
	case c.ID == "" || c.Source == "" || c.Type == "":
		return &event.Refusal{Reason: event.MissingField, Field: "id, source, type", Detail: "a CloudEvent has all three"}
	}
	data := []byte(c.Data)
	if c.DataBase64 != "" {
		raw, err := base64.StdEncoding.DecodeString(c.DataBase64)
		if err != nil {
			return bad("data_base64", "is not base64: %v", err)
		}
		data = raw
	}
	if t := c.DataContentType; t != "" && !isJSON(t) {
		return bad("datacontenttype", "%.60q is not JSON; send the event as JSON data", t)
	}
	if len(data) == 0 {
		data = []byte("{}")
	}
	if err := r.dec.Decode(data, &d.Event); err != nil {
		return err
	}
	r.key = c.key()
	if d.Time == 0 && c.Time != "" {
		t, err := time.Parse(time.RFC3339Nano, c.Time)
		if err != nil {
			return bad("time", "%.60q is not a time in RFC 3339", c.Time)
		}
		d.Time = t.UnixMilli()
	}
	if d.Action == "" {
		d.Action = c.Type
	}
	if d.ID == "" {
		d.ID = c.eventID()
	}
	return c.labels(d)
}

// labels keeps the envelope's other attributes.
func (c *cloudEvent) labels(d *draft) error {
	d.label("ce_subject", c.Subject)
	d.label("ce_dataschema", c.DataSchema)
	for name, value := range c.Extensions {
		var text string
		switch value.Kind() {
		case '"':
			if err := json.Unmarshal(value, &text); err != nil {
				return &event.Refusal{Reason: event.BadJSON, Field: name, Detail: err.Error()}
			}
		case '0', 't', 'f':
			text = string(value)
		case 'n':
			continue // unset, as the specification allows to say
		default:
			return &event.Refusal{Reason: event.WrongType, Field: event.CutText(name, 80), Detail: "an attribute of a CloudEvent is a text, a number or a boolean"}
		}
		d.label("ce_"+name, text)
	}
	return nil
}

// isJSON says whether a media type is JSON.
func isJSON(mediaType string) bool {
	t, _, _ := strings.Cut(strings.ToLower(mediaType), ";")
	t = strings.TrimSpace(t)
	return t == "application/json" || t == "text/json" || strings.HasSuffix(t, "+json")
}

// asRefusal is errors.As for the one type that matters here.
func asRefusal(err error, r **event.Refusal) bool { return errors.As(err, r) }

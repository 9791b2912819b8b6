package event

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

func decodeJSON(s string) (Event, error) {
	var e Event
	err := NewJSONDecoder().Decode([]byte(s), &e)
	return e, err
}

func TestNestedAndDottedNamesAreTheSame(t *testing.T) {
	nested, err := decodeJSON(`{"time":"2026-11-23T14:05:00.123+01:00","kind":"user","action":"login","user":{"name":"j\u00e4n","type":null},"source":{"ip":"10.0.0.1"},"duration":12.5,"bytes":7,"labels":{"b":"2","a":"1"}}`)
	if err != nil {
		t.Fatal(err)
	}
	dotted, err := decodeJSON(`{"labels.a":"1","time":1795439100123,"kind":"user","action":"login","user.name":"jän","source.ip":"10.0.0.1","duration":12.5,"bytes":7,"labels.b":"2"}`)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(nested, dotted) {
		t.Fatalf("nested %+v\ndotted %+v", nested, dotted)
	}
}

func TestWhatIsWrittenIsReadBack(t *testing.T) {
	d := NewJSONDecoder()
	d.Internal = true
	for i := range 200 {
		want := sample(i)
		var got Event
		if err := d.Decode(AppendJSON(nil, &want), &got); err != nil {
			t.Fatal(err)
		}
		if len(got.Labels) == 0 {
			got.Labels = nil
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("got  %+v\nwant %+v", got, want)
		}
	}
}

func TestBadJSONIsRefusedByName(t *testing.T) {
	f := func(in, reason, field string) {
		t.Helper()
		_, err := decodeJSON(in)
		var r *Refusal
		if !errors.As(err, &r) || r.Reason != reason || r.Field != field {
			t.Errorf("%.60s: got %v, want %s on %q", in, err, reason, field)
		}
	}
	f(``, BadJSON, "")
	f(`{`, BadJSON, "")
	f(`{"kind":"user"`, BadJSON, "")
	f(`{"kind":"user"} x`, BadJSON, "")
	f(`{"kind":"user"}{}`, BadJSON, "")
	f(`[]`, WrongType, "")
	f(`"x"`, WrongType, "")
	f(`{"kind":"a","kind":"b"}`, DuplicateField, "kind")
	f(`{"user":{"name":"a"},"user.name":"b"}`, DuplicateField, "user.name")
	f(`{"user":{"name":"a"},"user":{"type":"b"}}`, DuplicateField, "user")
	f(`{"labels":{"a":"1","a":"2"}}`, DuplicateField, "labels")
	f(`{"labels":{"a":"1"},"labels.a":"2"}`, DuplicateField, "labels")
	f(`{"labels":{"a":1}}`, WrongType, "labels")
	f(`{"usr.name":"x"}`, UnknownField, "usr.name")
	f(`{"user":"x"}`, WrongType, "user")
	f(`{"user":{"nme":"x"}}`, UnknownField, "user.nme")
	f(`{"user.hash":"x"}`, InternalField, "user.hash")
	f(`{"received":"2026-01-01T00:00:00Z"}`, InternalField, "received")
	f(`{"collector":{"seq":1}}`, InternalField, "collector.seq")
	f(`{"kind":1}`, WrongType, "kind")
	f(`{"duration":"1"}`, WrongType, "duration")
	f(`{"duration":1e999}`, WrongType, "duration")
	f(`{"bytes":9223372036854775808}`, WrongType, "bytes")
	f(`{"bytes":1.5}`, WrongType, "bytes")
	f(`{"time":"yesterday"}`, BadValue, "time")
	f(`{"time":"1969-12-31T23:59:59Z"}`, BadValue, "time")
	f(`{"time":"2262-06-01T00:00:00Z"}`, BadValue, "time")
	f("{\"kind\":\"\xff\"}", BadJSON, "")
	f(strings.Repeat(`{"user":`, 1000), UnknownField, "user.user")
	f(`{"labels":`+strings.Repeat(`[`, 1000)+strings.Repeat(`]`, 1000)+`}`, WrongType, "labels")
	f(`{"kind":`+strings.Repeat(`[`, 100_000), WrongType, "kind")
	f(`{"kind":tru}`, BadJSON, "")
	f(`{"kind":true}`, WrongType, "kind")
	f(`{"duration":01}`, BadJSON, "")
	f(`{"duration":.5}`, BadJSON, "")
	f(`{"duration":1.}`, BadJSON, "")
	f(`{"duration":1e}`, BadJSON, "")
	f(`{"kind":"a",}`, BadJSON, "")
	f(`{,"kind":"a"}`, BadJSON, "")
	f(`{"kind" "a"}`, BadJSON, "")
	f(`{"kind":"a\x"}`, BadJSON, "")
	f("{\"kind\":\"a\tb\"}", BadJSON, "")
	f(`{"kind":"a\`, BadJSON, "")
}

func TestValidateNamesTheReason(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	f := func(change func(*Event), reason string) {
		t.Helper()
		e := Event{Time: now.UnixMilli(), Kind: "user", Action: "login"}
		change(&e)
		err := e.Validate(LiveBounds(now))
		var r *Refusal
		if reason == "" {
			if err != nil {
				t.Errorf("refused: %v", err)
			}
		} else if !errors.As(err, &r) || r.Reason != reason {
			t.Errorf("got %v, want %s", err, reason)
		}
	}
	f(func(e *Event) {}, "")
	f(func(e *Event) { e.Time = 0 }, MissingField)
	f(func(e *Event) { e.Time = -5 }, BadValue)
	f(func(e *Event) { e.Time = MaxTime }, BadValue)
	f(func(e *Event) { e.Kind = "" }, MissingField)
	f(func(e *Event) { e.Kind = "usr" }, BadValue)
	f(func(e *Event) { e.Action = "" }, MissingField)
	f(func(e *Event) { e.Outcome = "ok" }, BadValue)
	f(func(e *Event) { e.Time -= 8 * 86_400_000 }, TooOld)
	f(func(e *Event) { e.Time += 6 * 60_000 }, TooNew)
	f(func(e *Event) { e.SourceIP = "10.0.0.300" }, BadValue)
	f(func(e *Event) { e.TenantID = strings.Repeat("x", 129) }, TooLong)
	f(func(e *Event) { e.TenantID = "a\x00b" }, BadText)
	f(func(e *Event) { e.Message = "a\x00b" }, "")
	f(func(e *Event) { e.Message = "\xff" }, BadText)
	f(func(e *Event) { e.SetDuration(-1) }, BadValue)
	f(func(e *Event) { e.Message = strings.Repeat("m", 100_000) }, "")
	f(func(e *Event) { e.Labels = []Label{{"", "x"}} }, BadValue)
}

func TestAddressesBecomeCanonical(t *testing.T) {
	e := Event{Time: 1, Kind: "user", Action: "login", SourceIP: "::ffff:10.0.0.1"}
	if err := e.Validate(Bounds{}); err != nil || e.SourceIP != "10.0.0.1" {
		t.Fatalf("%q, %v", e.SourceIP, err)
	}
}

func TestLongTextsAreCutAndMarked(t *testing.T) {
	e := Event{Message: strings.Repeat("é", LimitMessage), ProcessCommandLine: strings.Repeat("x", LimitText)}
	e.SetLabel("k", strings.Repeat("y", LimitText+1))
	if n := e.Cut(); n != 2 {
		t.Fatalf("%d cut", n)
	}
	if len(e.Message) != LimitMessage || len(e.Labels[0].Value) != LimitText || e.Marks != "cut:message cut:labels" {
		t.Fatalf("%d %d %q", len(e.Message), len(e.Labels[0].Value), e.Marks)
	}
}

func FuzzJSON(f *testing.F) {
	e := sample(30)
	f.Add(AppendJSON(nil, &e))
	f.Add([]byte(`{"user":{"name":"\ud83d\ude00"},"labels":{"a":"\u0000"}}`))
	f.Add([]byte(`{"time":12,"kind":"user","action":"x","duration":-0.0}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		d := NewJSONDecoder()
		var e, again Event
		if d.Decode(data, &e) != nil || e.Validate(Bounds{}) != nil {
			return
		}
		out := AppendJSON(nil, &e)
		if err := d.Decode(out, &again); err != nil {
			t.Fatalf("%v on what was written: %s", err, out)
		}
		if out2 := AppendJSON(nil, &again); !bytes.Equal(out, out2) {
			t.Fatalf("written twice:\n%s\n%s", out, out2)
		}
	})
}

// What the scanner takes, a general reader of JSON takes too, and texts come out
// the same.
func FuzzScanner(f *testing.F) {
	f.Add([]byte(`"a\u00e9\n\ud83d\ude00"`))
	f.Add([]byte(`-12.5e+3`))
	f.Add([]byte(`{"kind":"user","labels":{"a":"\\"},"user":{"name":"x"}, "duration" : 1E2 }`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 0 && data[0] == '"' {
			var scratch []byte
			s := scanner{data: data}
			got, err := s.text(&scratch)
			if err == nil {
				want, werr := jsontext.AppendUnquote(nil, data[:s.pos])
				if werr != nil || !bytes.Equal(got, want) {
					t.Fatalf("%q: got %q, jsontext %q (%v)", data, got, want, werr)
				}
			}
			return
		}
		s := scanner{data: data}
		if v, err := s.number(); err == nil && !jsontext.Value(v).IsValid() {
			t.Fatalf("%q taken as a number", v)
		}
		var e Event
		if NewJSONDecoder().Decode(data, &e) == nil && !jsontext.Value(data).IsValid(jsontext.AllowDuplicateNames(true)) {
			t.Fatalf("%q taken as an event", data)
		}
	})
}

func BenchmarkDecodeJSON(b *testing.B) {
	e := sample(30)
	e.Source, e.Collector, e.Epoch, e.Seq, e.Received = "", "", 0, 0, 0
	e.Message = strings.Repeat("m", 60)
	data := AppendJSON(nil, &e)
	d := NewJSONDecoder()
	b.ReportAllocs()
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if err := d.Decode(data, &e); err != nil {
			b.Fatal(err)
		}
		if err := e.Validate(Bounds{}); err != nil {
			b.Fatal(err)
		}
	}
}

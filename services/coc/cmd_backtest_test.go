package main

import (
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencoc/coc/services/event"
)

func readEvents(t *testing.T, path string) (list []event.Event, err error) {
	t.Helper()
	f := &eventFile{path: path, name: "events"}
	for e, failed := range f.events(t.Context())() {
		if failed != nil {
			return list, failed
		}
		c := *e
		c.Labels = append([]event.Label(nil), e.Labels...)
		list = append(list, c)
	}
	return list, nil
}

func writeFile(t *testing.T, data string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "events.ndjson")
	if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestEventsAreReadAsImportAndSQLPrintThem: dotted names from one, columns from
// the other, and both are the same event.
func TestEventsAreReadAsImportAndSQLPrintThem(t *testing.T) {
	dotted := `{"time":"2026-11-23T13:00:00.500Z","received":"2026-11-23T13:00:01.000Z","kind":"user","action":"login","collector.id":"c","collector.epoch":1,"collector.seq":7,"tenant.id":"t1","user.hash":"h","source.ip":"203.0.113.9","duration":1.5,"labels":{"a":"b"}}`
	columns := `{"time":"2026-11-23 13:00:00.500","received":"2026-11-23 13:00:01.000","kind":"user","action":"login","outcome":"","message":"","event_source":"","event_id":"","collector_id":"c","collector_epoch":1,"collector_seq":7,"tenant_id":"t1","user_hash":"h","source_ip":"203.0.113.9","process_pid":null,"duration":1.5,"bytes":null,"labels":{"a":"b"},"id":"c-1-7"}`
	a, err := readEvents(t, writeFile(t, "\xef\xbb\xbf"+dotted+"\r\n\n"))
	if err != nil || len(a) != 1 {
		t.Fatal(a, err)
	}
	b, err := readEvents(t, writeFile(t, columns+"\n"))
	if err != nil || len(b) != 1 {
		t.Fatal(b, err)
	}
	if x, y := string(event.AppendJSON(nil, &a[0])), string(event.AppendJSON(nil, &b[0])); x != y || x != dotted {
		t.Errorf("dotted\n%s\ncolumns\n%s\nwant\n%s", x, y, dotted)
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	if _, err := z.Write([]byte(dotted)); err != nil || z.Close() != nil {
		t.Fatal(err)
	}
	if c, err := readEvents(t, writeFile(t, zipped.String())); err != nil || len(c) != 1 {
		t.Errorf("gzip: %v, %v", c, err)
	}
}

func TestPeopleWithoutAHashAreToldApartByTenantAndName(t *testing.T) {
	list, err := readEvents(t, writeFile(t, `{"time":1,"kind":"user","action":"a","user.name":"anna","tenant.id":"t1"}
{"time":1,"kind":"user","action":"a","user.name":"anna","tenant.id":"t2"}
{"time":1,"kind":"user","action":"a","user.name":"bert","tenant.id":"t1"}
{"time":1,"kind":"user","action":"a","user.name":"anna","tenant.id":"t1"}
{"time":1,"kind":"user","action":"a","user.name":"anna","user.hash":"given"}`))
	if err != nil || len(list) != 5 {
		t.Fatal(list, err)
	}
	h := func(i int) string { return list[i].UserHash }
	if h(0) == "" || h(0) == h(1) || h(0) == h(2) || h(0) != h(3) || h(4) != "given" {
		t.Errorf("the hashes are %s %s %s %s %s", h(0), h(1), h(2), h(3), h(4))
	}
}

func TestABadLineOfEventsIsNamed(t *testing.T) {
	good := `{"time":1,"kind":"user","action":"a"}` + "\n"
	for data, want := range map[string]string{
		good + "{":                            "events:2: bad_json",
		good + good + `{"time":1,"kindd":""}`: "events:3: unknown_field: kindd",
		`{"time":1,"kind":"user"}`:            "events:1: missing_field: action",
		`{"tenant_id":"t","time":"soon","kind":"user","action":"a"}`: "events:1: time",
		strings.Repeat("x", event.LimitEventJSON+100):                "events:1: the line is longer",
		"\x1f\x8b\x00":               "begins like gzip",
		good + `[1]`:                 "events:2:",
		strings.Repeat("[", 100_000): "events:1:",
	} {
		if _, err := readEvents(t, writeFile(t, data)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40s…: %v, want %s", data, err, want)
		}
	}
	if _, err := readEvents(t, t.TempDir()); err == nil || !strings.Contains(err.Error(), "is a folder") {
		t.Errorf("a folder: %v", err)
	}
	if _, err := readEvents(t, filepath.Join(t.TempDir(), "none")); err == nil || !strings.Contains(err.Error(), "cannot read the events") {
		t.Errorf("no file: %v", err)
	}
	if list, err := readEvents(t, writeFile(t, "")); err != nil || len(list) != 0 {
		t.Errorf("an empty file: %v, %v", list, err)
	}
}

// writeRule writes a rule with one test that expects what is given.
func writeRule(t *testing.T, dir, expect string) {
	t.Helper()
	text := `id: mine.login
title: Somebody logged in
class: abuse
severity: low
match: action == "login"
group_by: [host.name]
tests:
  - name: a login
    with: {kind: user, action: login, host.name: web1}
    events: [{}]
    expect: {` + expect + `}
`
	if err := os.WriteFile(filepath.Join(dir, "login.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func FuzzLinesOfEvents(f *testing.F) {
	f.Add([]byte(`{"time":1,"kind":"user","action":"a","labels":{"a":"b"}}`), false)
	f.Add([]byte(`{"time":"2026-11-23 13:00:00.500","kind":"user","action":"a","tenant_id":"t","process_pid":null,"id":"x"}`), true)
	f.Add([]byte(`{"tenant_id":[],"tenant.id":"x"}`), true)
	f.Fuzz(func(t *testing.T, data []byte, columns bool) {
		decoder := event.NewJSONDecoder()
		decoder.Internal = true
		var e event.Event
		if (&eventFile{columns: columns, decided: true}).decode(decoder, data, &e) == nil && (e.Kind == "" || e.Action == "") {
			t.Errorf("%q became an event without kind or action", data)
		}
	})
}

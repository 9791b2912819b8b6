package collector

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/opencoc/coc/services/bus"
	"github.com/opencoc/coc/services/event"
)

const testMiB = 1 << 20

// testBus opens a small embedded bus in a folder of the test.
func testBus(t testing.TB, dir string) *bus.Bus {
	t.Helper()
	b, err := bus.Open(t.Context(), bus.Config{
		StoreDir: dir, Name: "test", Log: testLog(t),
		EventsBytes: 256 * testMiB, FindingsBytes: 16 * testMiB, IntakeBytes: 16 * testMiB, DeadLetterBytes: 16 * testMiB,
		WorkBytes: 16 * testMiB, AuditBytes: 16 * testMiB, StateBytes: 64 * testMiB,
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
}

// house is a collector at work on a bus of its own.
type house struct {
	t     testing.TB
	bus   *bus.Bus
	c     *Collector
	state string
	stop  func()
}

// testHouse runs a collector with the sources of a sources.yaml.
func testHouse(t testing.TB, sources string, change func(*Config)) *house {
	t.Helper()
	b := testBus(t, t.TempDir())
	t.Cleanup(func() {
		if err := b.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	h := &house{t: t, bus: b, state: t.TempDir()}
	h.start(sources, change)
	return h
}

func (h *house) start(sources string, change func(*Config)) {
	h.t.Helper()
	set, err := ParseSources("test", []byte(sources))
	if err != nil {
		h.t.Fatal(err)
	}
	cfg := Config{Bus: h.bus, ID: "test", StateDir: h.state, IdentityKey: bytes.Repeat([]byte{7}, 32), Sources: set, Log: testLog(h.t)}
	if change != nil {
		change(&cfg)
	}
	if h.c, err = New(cfg); err != nil {
		h.t.Fatal(err)
	}
	h.c.batch.longest = lingerShort // tests send little and wait for each answer
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.c.Run(ctx) }()
	stopped := false
	h.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			if err != nil {
				h.t.Error(err)
			}
		case <-time.After(20 * time.Second):
			h.t.Error("the collector does not end")
		}
	}
	h.t.Cleanup(h.stop)
	eventually(h.t, "the collector is ready", func() bool { return h.c.Ready() == nil && h.c.intake.ready.Load() })
}

// eventually waits for a condition, at most 20 s.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	end := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(end) {
			t.Fatalf("not within 20 s: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// message is one of EVENTS with its events.
type message struct {
	bus.Message
	events []event.Event
}

// messages reads all of EVENTS, decoded.
func (h *house) messages() (all []message) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	last, err := h.bus.LastEvent(ctx)
	if err != nil || last == 0 {
		return nil
	}
	r, err := h.bus.Events(ctx, 0)
	if err != nil {
		h.t.Fatal(err)
	}
	defer r.Close()
	for {
		m, err := r.Next(ctx)
		if err != nil {
			h.t.Fatal(err)
		}
		one := message{Message: m}
		if !m.IsControl() {
			b, err := event.Decode(m.Data)
			if err != nil {
				h.t.Fatalf("message %d: %v", m.Seq, err)
			}
			if int64(b.Rows()) != m.Meta.Rows {
				h.t.Fatalf("message %d holds %d rows, its header says %d", m.Seq, b.Rows(), m.Meta.Rows)
			}
			for row := range b.Rows() {
				var e event.Event
				b.Event(row, &e)
				text := event.AppendJSON(nil, &e) // the batch's memory goes
				d := event.NewJSONDecoder()
				d.Internal = true
				if err := d.Decode(text, &e); err != nil {
					h.t.Fatalf("%v in %s", err, text)
				}
				one.events = append(one.events, e)
			}
			b.Release()
		}
		all = append(all, one)
		if m.Seq >= last {
			return all
		}
	}
}

// events reads all events of EVENTS, and checks that each collector's numbers
// have neither gap nor double.
func (h *house) events() (all []event.Event) {
	h.t.Helper()
	next := map[string]int64{}
	for _, m := range h.messages() {
		for _, e := range m.events {
			key := fmt.Sprintf("%s-%d", e.Collector, e.Epoch)
			if next[key]++; e.Seq != next[key] {
				h.t.Fatalf("number %d of %s where %d should be", e.Seq, key, next[key])
			}
			all = append(all, e)
		}
	}
	return all
}

// token issues an intake token.
func (h *house) token(source, glob string) string {
	h.t.Helper()
	secret, err := h.bus.IssueToken(context.Background(), bus.Token{Role: RoleIntake, Source: source, TenantGlob: glob, Expires: h.bus.Now().Add(time.Hour)})
	if err != nil {
		h.t.Fatal(err)
	}
	return secret
}

// serve serves the collector's handlers over HTTP.
func (h *house) serve() *httptest.Server {
	mux := http.NewServeMux()
	mux.Handle("POST /v1/events", h.c.Intake())
	mux.Handle("/v1/imports", h.c.Imports())
	mux.Handle("/v1/imports/", h.c.Imports())
	s := httptest.NewServer(mux)
	h.t.Cleanup(s.Close)
	return s
}

// response is what a POST gave.
type response struct {
	status int
	header http.Header
	acceptedBody
	errorBody
}

func post(t testing.TB, url, token, body string, header map[string]string) response {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, url+"/v1/events", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for k, v := range header {
		r.Header.Set(k, v)
	}
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	data, err := io.ReadAll(a.Body)
	if err != nil {
		t.Fatal(err)
	}
	out := response{status: a.StatusCode, header: a.Header}
	if err := errors.Join(json.Unmarshal(data, &out.acceptedBody), json.Unmarshal(data, &out.errorBody)); err != nil {
		t.Fatalf("%v in %s", err, data)
	}
	return out
}

// ev is an event as a producer writes it.
func ev(more string) string {
	return fmt.Sprintf(`{"time":%q,"kind":"user","action":"window_opened"%s}`, time.Now().UTC().Format(time.RFC3339Nano), more)
}

const httpOnly = "sources:\n  - kind: http\n"

func TestAnEventSentByHTTPStandsOnTheBus(t *testing.T) {
	h := testHouse(t, httpOnly, nil)
	s := h.serve()
	token := h.token("erp", "t-*")
	a := post(t, s.URL, token, ev(`,"tenant.id":"t-1","user":{"name":"jan"},"message":"by jan"`), map[string]string{"Content-Type": "application/json"})
	if a.status != http.StatusAccepted || a.Accepted != 1 || a.First == "" || a.First != a.Last {
		t.Fatalf("answer %+v", a)
	}
	events := h.events()
	if len(events) != 1 {
		t.Fatalf("%d events", len(events))
	}
	e := events[0]
	if e.Source != "erp" || e.Identity() != a.First || e.UserName != "jan" || len(e.UserHash) != 32 || e.Message != "by u-"+e.UserHash[:8] || e.Received == 0 {
		t.Errorf("stored %s", event.AppendJSON(nil, &e))
	}
	m := h.messages()[0]
	if m.Meta.Sources["erp"] != 1 || m.Meta.Rows != 1 || m.Meta.Mark == 0 || m.Meta.Mark > e.Received {
		t.Errorf("headers %+v", m.Meta)
	}
}

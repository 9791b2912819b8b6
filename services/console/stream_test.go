package console

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/opencoc/coc/services/bus"
	"github.com/opencoc/coc/services/event"
	"github.com/opencoc/coc/services/store"
)

// sender publishes events as a collector does.
type sender struct {
	t   testing.TB
	pub *bus.Publisher
}

func newSender(t testing.TB, collector string) *sender {
	t.Helper()
	p, err := house.bus.NewPublisher(t.Context(), collector)
	if err != nil {
		t.Fatal(err)
	}
	return &sender{t, p}
}

// send publishes one message and returns what the store needs of it.
func (s *sender) send(m bus.Meta, events ...event.Event) (seq uint64, data []byte, row store.BatchRow) {
	s.t.Helper()
	b := event.NewBuilder()
	for i := range events {
		e := &events[i]
		e.Collector, e.Epoch, e.Seq, e.Received = "tailed", s.pub.Epoch(), s.pub.Next()+int64(i), house.bus.Now().UnixMilli()
		if err := b.Append(e); err != nil {
			s.t.Fatal(err)
		}
	}
	data, err := b.Encode()
	if err != nil {
		s.t.Fatal(err)
	}
	m.Epoch, m.First, m.Rows, m.Schema = s.pub.Epoch(), s.pub.Next(), int64(len(events)), 1
	if seq, err = s.pub.Publish(s.t.Context(), m, data); err != nil {
		s.t.Fatal(err)
	}
	row = store.BatchRow{Seq: seq, BusTime: house.bus.Now(), Collector: "tailed", Epoch: m.Epoch, First: m.First, Rows: m.Rows, Sources: m.Sources, Refused: m.Refused, Schema: "1"}
	return seq, data, row
}

func login(tenant, action string) event.Event {
	return event.Event{Time: house.bus.Now().UnixMilli(), Kind: "user", Action: action, Outcome: "failure", Message: "words of somebody", Source: "tail-test",
		TenantID: tenant, UserName: "planted-name", UserHash: "hash-of-planted", SourceIP: "203.0.113.9"}
}

// follow opens a tail and returns a function that gives its next line; it has
// read the first, so the stream stands.
func (a *api) follow(role, query string) (next func() (TailLine, bool), end func()) {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.t.Context(), 20*time.Second)
	req, err := http.NewRequestWithContext(ctx, "GET", a.server.URL+"/v1/tail"+query, nil)
	if err != nil {
		a.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+a.tokens[role])
	resp, err := a.server.Client().Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	if resp.StatusCode != 200 {
		a.t.Fatalf("the tail of %s: %d", role, resp.StatusCode)
	}
	lines := bufio.NewScanner(resp.Body)
	next = func() (TailLine, bool) {
		var l TailLine
		if !lines.Scan() {
			return l, false
		}
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			a.t.Errorf("%v in %s", err, lines.Bytes())
		}
		return l, true
	}
	if l, ok := next(); !ok || l.Alive == 0 {
		a.t.Fatalf("the first line is %+v, want a sign of life", l)
	}
	return next, func() { cancel(); resp.Body.Close() }
}

func TestATailShowsLiveEventsWithTheFieldsOfTheRole(t *testing.T) {
	a := newAPI(t, nil)
	for role, sees := range map[string][]string{
		"analyst":  {`"user.hash":"hash-of-planted"`, `"source.ip":"203.0.113.9"`, `"message":"words of somebody"`, `"tenant.id":"t1"`},
		"operator": {`"tenant.id":"t1"`, `"action":"login"`},
		"support":  {`"tenant.id":"t1"`, `"action":"login"`},
	} {
		next, end := a.follow(role, "?action=login&tenant=t1")
		s := newSender(t, "tailed")
		s.send(bus.Meta{Import: "an-import"}, login("t1", "login"))
		_, _, row := s.send(bus.Meta{}, login("t2", "login"), login("t1", "logout"), login("t1", "login"))
		l, ok := next()
		for ok && l.Event == nil {
			l, ok = next()
		}
		end()
		text := string(l.Event)
		if want := event.Identity("tailed", row.Epoch, row.First+2); !ok || l.ID != want {
			t.Errorf("%s: the event is %s, want %s: not that of another tenant, another action or an import", role, l.ID, want)
		}
		for _, part := range sees {
			if !strings.Contains(text, part) {
				t.Errorf("%s does not see %s in %s", role, part, text)
			}
		}
		for _, part := range []string{"planted-name", "user.name"} {
			if strings.Contains(text, part) {
				t.Errorf("%s sees %s in %s", role, part, text)
			}
		}
		if role != "analyst" && (strings.Contains(text, "hash-of-planted") || strings.Contains(text, "203.0.113.9") || strings.Contains(text, "words")) {
			t.Errorf("%s sees what it may not in %s", role, text)
		}
	}
}

func TestATailCanShowImports(t *testing.T) {
	a := newAPI(t, nil)
	next, end := a.follow("analyst", "?imports=true&tenant=imported")
	defer end()
	newSender(t, "tailed").send(bus.Meta{Import: "an-import"}, login("imported", "login"))
	for {
		l, ok := next()
		if !ok {
			t.Fatal("the imported event did not come")
		}
		if l.Event != nil {
			return
		}
	}
}

func TestTailsAreFewAndEndWhenTheConsoleCloses(t *testing.T) {
	a := newAPI(t, nil)
	var last func() (TailLine, bool)
	for range tailPerToken {
		next, end := a.follow("analyst", "")
		defer end()
		last = next
	}
	if status, _ := a.call("GET", "/v1/tail", "analyst", ""); status != http.StatusTooManyRequests {
		t.Errorf("one tail more than a token may have: %d, want 429", status)
	}
	a.con.Close()
	l, ok := last()
	for ok && l.Error == "" {
		l, ok = last()
	}
	if !ok {
		t.Error("the tail ended without saying why")
	}
	if _, ok := last(); ok {
		t.Error("the tail went on after its end")
	}
}

func TestASlowReaderLosesEventsAndIsTold(t *testing.T) {
	box := newMailbox()
	for range tailLines + 5 {
		box.put(TailLine{Event: json.RawMessage(`{}`)})
	}
	list, dropped, open := box.take()
	if len(list) != tailLines || dropped != 5 || !open {
		t.Errorf("%d lines, %d dropped, open %v", len(list), dropped, open)
	}
	big := json.RawMessage(strings.Repeat("x", tailBytes/2+1))
	box.put(TailLine{Event: big})
	box.put(TailLine{Event: big})
	if list, dropped, _ := box.take(); len(list) != 1 || dropped != 1 {
		t.Errorf("of two events that are too big together: %d kept, %d dropped", len(list), dropped)
	}
	box.close()
	if _, _, open := box.take(); open {
		t.Error("a closed box is open")
	}
}

func TestFiltersOfATailAreSeenByAllThatMayTail(t *testing.T) {
	var in tailInput
	for _, f := range in.filters() {
		for _, role := range access[opTail].roles {
			if !role.MaySee(event.Fields[f.field].Class) {
				t.Errorf("%s may filter by %s and not see it", role, event.Fields[f.field].Name)
			}
		}
	}
}

// TestTheLedgerCountsWhatWaits: what the sink has not stored yet is received
// and waiting; stored, it is stored; lost, it is a difference.
func TestTheLedgerCountsWhatWaits(t *testing.T) {
	a := newAPI(t, nil)
	cut, err := house.bus.LoadCut(t.Context(), "events")
	if err != nil {
		t.Fatal(err)
	}
	if cut.Done, err = house.bus.LastEvent(t.Context()); err != nil {
		t.Fatal(err)
	}
	if cut, err = house.bus.SaveCut(t.Context(), "events", cut); err != nil {
		t.Fatal(err)
	}
	source := fmt.Sprintf("ledger-%d", time.Now().UnixNano())
	s := newSender(t, "tailed")
	e := login("t1", "ledger")
	e.Source = source
	seq, data, row := s.send(bus.Meta{Sources: map[string]int64{source: 2}, Refused: map[string]int64{source + ":too_old": 3}}, e, e)
	ask := func() LedgerRow {
		r := get[LedgerReport](a, "operator", "/v1/ledger?source="+source)
		if len(r.Rows) != 1 || !r.Complete {
			t.Fatalf("the ledger is %+v", r)
		}
		l := r.Rows[0]
		l.Hour, l.Source = 0, ""
		return l
	}
	if got, want := ask(), (LedgerRow{Received: 2, Waiting: 2}); got != want {
		t.Errorf("before it is stored: %+v, want %+v", got, want)
	}
	if err := house.store.InsertBatches(t.Context(), []store.BatchRow{row}); err != nil {
		t.Fatal(err)
	}
	cut.Done = seq
	if _, err := house.bus.SaveCut(t.Context(), "events", cut); err != nil {
		t.Fatal(err)
	}
	if got, want := ask(), (LedgerRow{Received: 5, Refused: 3, Difference: 2}); got != want {
		t.Errorf("when its events are lost: %+v, want %+v", got, want)
	}
	frames, rows, err := event.Splice([][]byte{data})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := house.store.InsertEvents(t.Context(), source, frames, rows); err != nil {
		t.Fatal(err)
	}
	if got, want := ask(), (LedgerRow{Received: 5, Stored: 2, Refused: 3}); got != want {
		t.Errorf("when it is stored: %+v, want %+v", got, want)
	}
}

func TestTheLedgerListsDeadLetters(t *testing.T) {
	a := newAPI(t, nil)
	for range 3 {
		if err := house.bus.DeadLetter(t.Context(), bus.DeadLetter{Reason: "bad_json", From: "intake", Source: "letters", Data: []byte("{")}); err != nil {
			t.Fatal(err)
		}
	}
	r := get[LedgerReport](a, "operator", "/v1/ledger?source=letters")
	if len(r.DeadLetters) != 1 || r.DeadLetters[0].Count != 3 || r.DeadLetters[0].Reason != "bad_json" || r.DeadLetters[0].From != "intake" || r.DeadLetters[0].Newest == 0 {
		t.Errorf("the dead letters are %+v", r.DeadLetters)
	}
}

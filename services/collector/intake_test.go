package collector

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/opencoc/coc/services/bus"
	"github.com/opencoc/coc/services/event"
)

func TestEveryFormOfBodyIsTaken(t *testing.T) {
	h := testHouse(t, httpOnly, nil)
	s := h.serve()
	token := h.token("erp", "*")
	gz := func(text string) string {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		w.Write([]byte(text))
		w.Close()
		return b.String()
	}
	zs := func(text string) string {
		w, err := zstd.NewWriter(nil)
		if err != nil {
			t.Fatal(err)
		}
		return string(w.EncodeAll([]byte(text), nil))
	}
	two := ev("") + "\n" + ev("") + "\n"
	stored := 0
	f := func(what string, want int, body string, header map[string]string) {
		t.Helper()
		a := post(t, s.URL, token, body, header)
		if a.status != http.StatusAccepted || a.Accepted != want {
			t.Errorf("%s: answer %d %+v %s", what, a.status, a.acceptedBody, a.Error)
			return
		}
		stored += want
	}
	f("one object", 1, ev(""), map[string]string{"Content-Type": "application/json"})
	f("one object over lines", 1, strings.ReplaceAll(ev(""), ",", ",\n"), map[string]string{"Content-Type": "application/json; charset=utf-8"})
	f("NDJSON", 2, two, map[string]string{"Content-Type": "application/x-ndjson"})
	f("NDJSON with CRLF and empty lines", 2, strings.ReplaceAll(two, "\n", "\r\n\r\n"), map[string]string{"Content-Type": "application/x-ndjson"})
	f("NDJSON by curl's default type", 2, two, map[string]string{"Content-Type": "application/x-www-form-urlencoded"})
	f("without a type", 2, two, map[string]string{"Content-Type": ""})
	f("objects one after another", 2, two, map[string]string{"Content-Type": "application/json"})
	f("an array", 2, "["+ev("")+",\n"+ev("")+"]", map[string]string{"Content-Type": "application/json"})
	f("an array behind a byte order mark", 2, "\ufeff["+ev("")+","+ev("")+"]", nil)
	f("gzip", 2, gz(two), map[string]string{"Content-Encoding": "gzip"})
	f("zstd", 2, zs(two), map[string]string{"Content-Encoding": "zstd"})

	ce := func(id string) string {
		return fmt.Sprintf(`{"specversion":"1.0","id":%q,"source":"/erp","type":"window_opened","time":%q,"subject":"x","ext":5,"data":{"kind":"user","tenant.id":"t1"}}`, id, time.Now().UTC().Format(time.RFC3339))
	}
	f("a CloudEvent", 1, ce("a"), map[string]string{"Content-Type": "application/cloudevents+json"})
	f("a batch of CloudEvents", 2, "["+ce("b")+","+ce("c")+"]", map[string]string{"Content-Type": "application/cloudevents-batch+json"})
	f("CloudEvents as NDJSON", 2, ce("d")+"\n"+ce("e"), map[string]string{"Content-Type": "application/x-ndjson"})
	data := base64.StdEncoding.EncodeToString([]byte(`{"kind":"user","action":"login"}`))
	f("a CloudEvent with data in base64", 1, fmt.Sprintf(`{"specversion":"1.0","id":"f","source":"/erp","type":"x","time":%q,"data_base64":%q}`, time.Now().UTC().Format(time.RFC3339), data), nil)
	f("a binary CloudEvent", 1, `{"kind":"user"}`, map[string]string{
		"Content-Type": "application/json", "ce-specversion": "1.0", "ce-id": "g", "ce-source": "/erp", "ce-type": "window_opened", "ce-time": time.Now().UTC().Format(time.RFC3339), "ce-ext": "1"})

	events := h.events()
	if len(events) != stored {
		t.Fatalf("%d events are stored, %d were accepted", len(events), stored)
	}
	found := false
	for _, e := range events {
		if e.ID == "/erp#a" {
			found = true
			if e.Action != "window_opened" || e.TenantID != "t1" || e.Label("ce_ext") != "5" || e.Label("ce_subject") != "x" {
				t.Errorf("the CloudEvent became %s", event.AppendJSON(nil, &e))
			}
		}
	}
	if !found {
		t.Error("the CloudEvent's source and id are not its event.id")
	}
}

func TestABadItemRefusesItsWholeRequest(t *testing.T) {
	h := testHouse(t, httpOnly, nil)
	s := h.serve()
	token := h.token("erp", "t-*")
	good := ev(`,"tenant.id":"t-1"`)
	f := func(status int, body string, want ...string) {
		t.Helper()
		a := post(t, s.URL, token, body, nil)
		var got []string
		for _, b := range a.Refused {
			got = append(got, fmt.Sprintf("%d %s %s", b.Index, b.Reason, b.Field))
		}
		if a.status != status || strings.Join(got, "; ") != strings.Join(want, "; ") {
			t.Errorf("%.100q: %d %q, want %d %q (%s)", body, a.status, got, status, want, a.Error)
		}
	}
	f(400, good+"\n{\n"+good, "1 bad_json ")
	f(400, good+"\n"+strings.Replace(good, `"kind":"user",`, "", 1), "1 missing_field kind")
	f(400, good+"\n"+strings.Replace(good, `"action"`, `"actoin"`, 1), "1 unknown_field actoin")
	f(400, good+"\n"+strings.Replace(good, `"kind"`, `"kind":"user","kind"`, 1), "1 duplicate_field kind")
	f(400, `{"time":"1969-01-01T00:00:00Z","kind":"user","action":"x","tenant.id":"t-1"}`, "0 bad_value time")
	f(400, `{"time":"2262-01-01T00:00:00Z","kind":"user","action":"x","tenant.id":"t-1"}`, "0 bad_value time")
	f(400, `{"time":"2001-01-01T00:00:00Z","kind":"user","action":"x","tenant.id":"t-1"}`, "0 too_old time")
	f(400, `{"time":"2200-01-01T00:00:00Z","kind":"user","action":"x","tenant.id":"t-1"}`, "0 too_new time")
	f(400, strings.Replace(good, `"kind"`, `"bytes":1e400,"kind"`, 1), "0 wrong_type bytes")
	f(400, strings.Replace(good, `"kind"`, `"collector.seq":1,"kind"`, 1), "0 internal_field collector.seq")
	f(400, strings.Repeat(`[`, 1000)+strings.Repeat(`]`, 1000), "0 wrong_type ")
	f(400, `{"labels":`+strings.Repeat(`{"a":`, 1000)+`1`+strings.Repeat(`}`, 1001), "0 wrong_type labels")
	f(400, "\x00\x00", "0 bad_json ")
	f(400, strings.Replace(good, `"kind"`, "\"message\":\"\xff\xfe\",\"kind\"", 1), "0 bad_json ")
	f(403, good+"\n"+ev(`,"tenant.id":"x"`), "1 tenant_outside tenant.id")
	f(403, ev(""), "0 tenant_missing tenant.id")
	f(400, `{"specversion":"0.3","id":"1","source":"s","type":"t"}`, "0 bad_value specversion")
	f(400, `{"specversion":"1.0","id":"1","type":"t"}`, "0 missing_field id, source, type")
	f(400, "")
	f(400, " \n ")
	f(400, "[]")
	f(400, "["+good, "1 bad_json ")
	if n := len(h.events()); n != 0 {
		t.Errorf("%d events of refused requests are stored", n)
	}
	if s := h.c.Status(); s.Sources[0].Refused["missing_field"] == 0 {
		t.Errorf("refusals are not counted: %+v", s.Sources[0])
	}
}

func TestTheAnswerListsAtMostAHundredBadItems(t *testing.T) {
	h := testHouse(t, httpOnly, nil)
	s := h.serve()
	a := post(t, s.URL, h.token("erp", "*"), strings.Repeat("{}\n", 500), nil)
	if a.status != 400 || len(a.Refused) != limitBadItems || a.RefusedTotal != 500 {
		t.Errorf("%d with %d items of %d", a.status, len(a.Refused), a.RefusedTotal)
	}
}

func TestWhoMaySend(t *testing.T) {
	h := testHouse(t, httpOnly, nil)
	s := h.serve()
	other, err := h.bus.IssueToken(t.Context(), bus.Token{Role: "analyst", Expires: h.bus.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	f := func(token string, want int) {
		t.Helper()
		if a := post(t, s.URL, token, ev(""), nil); a.status != want || a.Error == "" && want != 202 {
			t.Errorf("answer %d %q, want %d", a.status, a.Error, want)
		}
	}
	f("", 401)
	f("nonsense", 401)
	f("coc_aaaa_bbbb", 401)
	f(strings.Repeat("x", 10_000), 401)
	f(other, 403)
	f(h.token("erp", "*"), 202)
	a, err := http.Get(s.URL + "/v1/events")
	if err != nil {
		t.Fatal(err)
	}
	a.Body.Close()
	if a.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET gives %d", a.StatusCode)
	}
}

func TestATokenOfOneTenantNamesIt(t *testing.T) {
	h := testHouse(t, httpOnly, nil)
	s := h.serve()
	if a := post(t, s.URL, h.token("erp", "t-7"), ev(""), nil); a.status != 202 {
		t.Fatalf("answer %+v", a)
	}
	if e := h.events()[0]; e.TenantID != "t-7" {
		t.Errorf("tenant %q", e.TenantID)
	}
}

func TestTooMuchInOneRequestSaysWhatToDo(t *testing.T) {
	h := testHouse(t, httpOnly, func(c *Config) { c.Intake.EventsPerSecond = 1e9; c.Intake.Burst = 1e9 })
	s := h.serve()
	token := h.token("erp", "*")
	f := func(what, body string, header map[string]string, want int) {
		t.Helper()
		if a := post(t, s.URL, token, body, header); a.status != want || want == 413 && !strings.Contains(a.Error, "several") {
			t.Errorf("%s: %d %q, want %d", what, a.status, a.Error, want)
		}
	}
	small := `{"time":` + fmt.Sprint(time.Now().UnixMilli()) + `,"kind":"user","action":"x"}` + "\n"
	f("5000 events", strings.Repeat(small, 5000), nil, 202)
	f("8193 events", strings.Repeat(small, event.LimitRows+1), nil, 413)
	big := ev(`,"message":"`+strings.Repeat("x", 30_000)+`"`) + "\n"
	f("20 × 30 kB", strings.Repeat(big, 20), nil, 202)
	f("30 × 30 kB", strings.Repeat(big, 30), nil, 413)
	f("5 MB", strings.Repeat(" ", 5<<20), nil, 413)
	var bomb bytes.Buffer
	w := gzip.NewWriter(&bomb)
	for range 64 {
		w.Write(bytes.Repeat([]byte(" "), 1<<20))
	}
	w.Close()
	f("64 MB as gzip", bomb.String(), map[string]string{"Content-Encoding": "gzip"}, 413)
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	f("64 MB as zstd", string(z.EncodeAll(bytes.Repeat([]byte(" "), 64<<20), nil)), map[string]string{"Content-Encoding": "zstd"}, 413)
	f("broken gzip", "\x1f\x8bnonsense", map[string]string{"Content-Encoding": "gzip"}, 400)
	f("broken zstd", "nonsense", map[string]string{"Content-Encoding": "zstd"}, 400)
	f("an unknown encoding", "x", map[string]string{"Content-Encoding": "br"}, 415)
	f("an unknown type", "x", map[string]string{"Content-Type": "text/csv"}, 415)
	long := ev(`,"message":"` + strings.Repeat("x", 60_000) + `"`)
	f("a long message", long, nil, 202)
	for _, e := range h.events() {
		if len(e.Message) > event.LimitMessage {
			t.Errorf("a message of %d bytes", len(e.Message))
		}
		if len(e.Message) == event.LimitMessage && e.Marks != "cut:message" {
			t.Errorf("marks %q", e.Marks)
		}
	}
}

func TestOneRequestStandsInOneMessage(t *testing.T) {
	h := testHouse(t, httpOnly, func(c *Config) { c.Intake.EventsPerSecond = 1e9; c.Intake.Burst = 1e9 })
	s := h.serve()
	token := h.token("erp", "*")
	var wg sync.WaitGroup
	for i := range 60 {
		wg.Go(func() {
			var body strings.Builder
			for range 100 + i*13 {
				body.WriteString(ev(fmt.Sprintf(`,"session.id":"r%d"`, i)) + "\n")
			}
			if a := post(t, s.URL, token, body.String(), nil); a.status != 202 {
				t.Errorf("answer %+v", a)
			}
		})
	}
	wg.Wait()
	h.events() // checks the numbers
	where := map[string]uint64{}
	shared := false
	for _, m := range h.messages() {
		seen := map[string]bool{}
		for _, e := range m.events {
			if at, ok := where[e.SessionID]; ok && at != m.Seq {
				t.Fatalf("request %s stands in messages %d and %d", e.SessionID, at, m.Seq)
			}
			where[e.SessionID] = m.Seq
			seen[e.SessionID] = true
		}
		shared = shared || len(seen) > 1
	}
	if len(where) != 60 {
		t.Errorf("%d requests are stored", len(where))
	}
	if !shared {
		t.Error("no two requests share a message")
	}
}

func TestTheSameKeyIsStoredOnce(t *testing.T) {
	h := testHouse(t, httpOnly, nil)
	s := h.serve()
	token := h.token("erp", "*")
	key := map[string]string{"Idempotency-Key": "order-17"}
	first := post(t, s.URL, token, ev("")+"\n"+ev(""), key)
	again := post(t, s.URL, token, ev("")+"\n"+ev(""), key)
	if first.status != 202 || again.status != 202 || !again.Repeated || first.First != again.First || first.Last != again.Last || again.Accepted != 2 {
		t.Errorf("first %+v, again %+v", first.acceptedBody, again.acceptedBody)
	}
	if a := post(t, s.URL, h.token("erp", "*"), ev(""), key); a.Repeated {
		t.Error("another token's key is taken for the same")
	}
	// A refused request leaves its key free.
	bad := map[string]string{"Idempotency-Key": "order-18"}
	if a := post(t, s.URL, token, "{}", bad); a.status != 400 {
		t.Errorf("answer %+v", a)
	}
	if a := post(t, s.URL, token, ev(""), bad); a.status != 202 || a.Repeated {
		t.Errorf("answer %+v", a)
	}
	ce := `{"specversion":"1.0","id":"%s","source":"/erp","type":"x","time":"` + time.Now().UTC().Format(time.RFC3339) + `","data":{"kind":"user"}}`
	one, two := fmt.Sprintf(ce, "1"), fmt.Sprintf(ce, "2")
	post(t, s.URL, token, one, nil)
	if a := post(t, s.URL, token, "["+one+","+two+","+two+"]", nil); a.status != 202 || a.Accepted != 1 {
		t.Errorf("a batch with one new CloudEvent: %+v", a)
	}
	if a := post(t, s.URL, token, "["+one+","+two+"]", nil); a.status != 202 || !a.Repeated || a.Accepted != 2 {
		t.Errorf("a batch without any: %+v", a)
	}
	before := len(h.events())
	if before != 6 {
		t.Errorf("%d events are stored, want 6", before)
	}
	// After a restart the keys are known from the bus.
	h.stop()
	h.start(httpOnly, nil)
	s = h.serve()
	if a := post(t, s.URL, token, ev(""), key); a.status != 202 || !a.Repeated || a.First != first.First || a.Last != first.Last {
		t.Errorf("after a restart: %+v, first %+v", a.acceptedBody, first.acceptedBody)
	}
	if a := post(t, s.URL, token, one, nil); !a.Repeated {
		t.Errorf("after a restart: %+v", a.acceptedBody)
	}
	if n := len(h.events()); n != before {
		t.Errorf("%d events after the restart, want %d", n, before)
	}
}

func TestTheSameKeyAtTheSameTimeIsStoredOnce(t *testing.T) {
	h := testHouse(t, httpOnly, nil)
	s := h.serve()
	token := h.token("erp", "*")
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if a := post(t, s.URL, token, ev(""), map[string]string{"Idempotency-Key": "k"}); a.status != 202 {
				t.Errorf("answer %+v", a)
			}
		})
	}
	wg.Wait()
	if n := len(h.events()); n != 1 {
		t.Errorf("%d events are stored", n)
	}
}

func TestKeysAreForgottenAfterTenMinutesAndBounded(t *testing.T) {
	i := newIdempotency()
	now := testNow
	e, mine := i.reserve("a", now)
	if !mine {
		t.Fatal("a new key is not mine")
	}
	i.finish("a", e, true, stored{1, 2, 3})
	if again, mine := i.reserve("a", now.Add(idempotencyFor)); mine || again.what.first != 2 {
		t.Error("forgotten too early")
	}
	if _, mine := i.reserve("a", now.Add(idempotencyFor+time.Second)); !mine {
		t.Error("not forgotten")
	}
	for n := range limitIdempotency + 100 {
		i.reserve(fmt.Sprint(n), now.Add(time.Hour))
	}
	if len(i.entries) > limitIdempotency+1 || len(i.order) > limitIdempotency+1 {
		t.Errorf("%d keys are remembered", len(i.entries))
	}
}

func TestRatePerToken(t *testing.T) {
	h := testHouse(t, httpOnly, func(c *Config) {
		c.Intake.EventsPerSecond = 10
		c.Intake.Burst = event.LimitRows
		c.Now = fixed(testNow) // nothing is given back
	})
	s := h.serve()
	token := h.token("erp", "*")
	body := strings.Repeat(`{"time":`+fmt.Sprint(time.Now().UnixMilli())+`,"kind":"user","action":"x"}`+"\n", 5000)
	if a := post(t, s.URL, token, body, nil); a.status != 202 {
		t.Fatalf("answer %+v", a)
	}
	if a := post(t, s.URL, token, body, nil); a.status != 429 || a.header.Get("Retry-After") != "501" {
		t.Errorf("answer %d %v", a.status, a.header)
	}
	if a := post(t, s.URL, h.token("erp2", ""), body, nil); a.status != 202 {
		t.Errorf("another token is held back: %+v", a)
	}
}

func TestHandlersSay503WhenNothingRuns(t *testing.T) {
	h := testHouse(t, httpOnly, nil)
	s := h.serve()
	token := h.token("erp", "*")
	h.stop()
	if a := post(t, s.URL, token, ev(""), nil); a.status != 503 || a.header.Get("Retry-After") == "" {
		t.Errorf("answer %d", a.status)
	}
	if err := h.c.Ready(); err == nil {
		t.Error("a stopped collector is ready")
	}
}

func TestNATSMessagesBecomeEventsOnce(t *testing.T) {
	h := testHouse(t, "sources:\n  - kind: nats\n", nil)
	ctx := context.Background()
	body := ev("") + "\n" + ev("")
	for range 3 { // the same message id: stored once by the stream
		if err := h.bus.PublishIntake(ctx, "erp", "m-1", []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	h.token("bound", "t-1")
	for _, m := range []string{ev(`,"tenant.id":"t-1"`), ev(`,"tenant.id":"t-2"`), "{", ""} {
		if err := h.bus.PublishIntake(ctx, "bound", "", []byte(m)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all are decided", func() bool {
		s := h.c.Status()
		n := int64(0)
		for _, c := range s.Sources[0].Refused {
			n += c
		}
		return n == 3 && s.Stored == 3
	})
	reasons := map[string]int{}
	for _, d := range h.deadLetters() {
		reasons[d.Reason]++
		if d.Source != "bound" || d.Seq == 0 {
			t.Errorf("dead letter %+v", d)
		}
	}
	if reasons[reasonTenantOutside] != 1 || reasons[event.BadJSON] != 1 || reasons["empty"] != 1 {
		t.Errorf("dead letters %v", reasons)
	}
	sources := map[string]int64{}
	for _, m := range h.messages() {
		for name, n := range m.Meta.Sources {
			sources[name] += n
		}
	}
	if sources["erp"] != 2 || sources["bound"] != 1 {
		t.Errorf("rows by source %v", sources)
	}
}

func TestGlobs(t *testing.T) {
	f := func(pattern, s string, want bool) {
		t.Helper()
		if got := globMatch(pattern, s); got != want {
			t.Errorf("%q and %q: %v", pattern, s, got)
		}
	}
	f("*", "", true)
	f("t-*", "t-1", true)
	f("t-*", "x-1", false)
	f("t-?", "t-12", false)
	f("*-1", "t-1", true)
	f("a*b*c", "axxbxxc", true)
	f("a*b*c", "axxbxx", false)
	f("", "", true)
	f("", "x", false)
	f(strings.Repeat("*a", 50), strings.Repeat("a", 60)+"b", false)
}

func TestARedeliveredNATSMessageIsStoredOnce(t *testing.T) {
	h := testHouse(t, "sources:\n  - kind: nats\n", nil)
	n := &natsIntake{c: h.c, s: h.c.sources[0], asking: make(chan struct{}, 1)}
	n.pool.New = func() any { return newItems() }
	m := bus.IntakeMessage{Source: "erp", Seq: 7, Time: h.bus.Now(), Data: []byte(ev(""))}
	for range 2 {
		if err := n.take(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	// Also when the acknowledgement was lost with the process.
	h.stop()
	h.start("sources:\n  - kind: nats\n", nil)
	n.c, n.s = h.c, h.c.sources[0]
	if err := n.take(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if events := h.events(); len(events) != 1 {
		t.Errorf("%d events", len(events))
	}
}

func TestDecodingARequestAllocatesItsTextsOnly(t *testing.T) {
	body := benchBody(100)
	items := newItems()
	read := func() {
		items.reset(func(d *draft) error { return d.Validate(event.Bounds{}) })
		if err := items.read("application/x-ndjson", nil, body); err != nil || len(items.drafts) != 100 {
			t.Fatal(err, items.bad)
		}
	}
	read()
	// time, message and session.id differ from event to event.
	if n := testing.AllocsPerRun(20, read) / 100; n > 3.2 {
		t.Errorf("%.1f allocations an event", n)
	}
}

func TestATokenWithoutTenantsSpeaksForNone(t *testing.T) {
	h := testHouse(t, "sources:\n  - kind: http\n", nil)
	s := h.serve()
	token := h.token("sys", "")
	now := time.Now().UTC().Format(time.RFC3339)
	f := func(status int, members string) {
		t.Helper()
		body := `{"time":"` + now + `","kind":"system","action":"x"` + members + `}`
		if a := post(t, s.URL, token, body, nil); a.status != status {
			t.Errorf("%s: %d, want %d (%s)", body, a.status, status, a.Error)
		}
	}
	f(202, "")
	f(403, `,"tenant.id":"acme"`)
	f(403, `,"tenant":{"id":"acme"}`)
}

func TestCloudEventsInAnyOrderOfTheirAttributes(t *testing.T) {
	h := testHouse(t, "sources:\n  - kind: http\n", nil)
	s := h.serve()
	token := h.token("erp", "*")
	now := time.Now().UTC().Format(time.RFC3339)
	f := func(status int, repeated bool, body string) {
		t.Helper()
		if a := post(t, s.URL, token, body, nil); a.status != status || a.Repeated != repeated {
			t.Errorf("%s: %d repeated %v, want %d %v (%s)", body, a.status, a.Repeated, status, repeated, a.Error)
		}
	}
	rest := `"type":"login","time":"` + now + `","data":{"kind":"user"}}`
	f(202, false, `{"source":"/a","id":"1","specversion":"1.0",`+rest)
	f(202, true, `{"specversion":"1.0","id":"1","source":"/a",`+rest)
	f(202, false, `{"user":"an extension","id":"2","source":"/a","specversion":"1.0",`+rest)
	f(202, false, `{"subject":null,"trace":null,"id":"3","source":"/a","specversion":"1.0",`+rest)
	// A # may stand in a source and in an id: these are two events.
	f(202, false, `{"source":"x#y","id":"z","specversion":"1.0",`+rest)
	f(202, false, `{"source":"x","id":"y#z","specversion":"1.0",`+rest)
	f(400, false, `{"source":"/a","time":"`+now+`","kind":"user","action":"login"}`)
	f(400, false, `{"labels":{"specversion":"x"},"nonsense":1,"time":"`+now+`","kind":"user","action":"login"}`)
}

func TestABinaryCloudEventsAttributesAreUnescaped(t *testing.T) {
	ce := binaryCloudEvent(http.Header{"Ce-Specversion": {"1.0"}, "Ce-Id": {"a%20b"}, "Ce-Subject": {"Zo%C3%AB"}, "Ce-Source": {"100%"}})
	if ce.ID != "a b" || ce.Subject != "Zoë" || ce.Source != "100%" {
		t.Errorf("%+v", ce)
	}
}

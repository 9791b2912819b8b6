package collector

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/opencoc/coc/services/bus"
	"github.com/opencoc/coc/services/event"
)

func TestAFullBusHoldsSourcesBackAndSays429(t *testing.T) {
	t.Parallel()
	b, err := bus.Open(t.Context(), bus.Config{
		StoreDir: t.TempDir(), Name: "test", Log: testLog(t),
		EventsBytes: 64 * testMiB, FindingsBytes: 16 * testMiB, IntakeBytes: 16 * testMiB, DeadLetterBytes: 16 * testMiB,
		WorkBytes: 16 * testMiB, AuditBytes: 16 * testMiB, StateBytes: 64 * testMiB,
	})
	must(t, err)
	t.Cleanup(func() { must(t, b.Close(context.Background())) })
	path := filepath.Join(t.TempDir(), "auth.log")
	h := &house{t: t, bus: b, state: t.TempDir()}
	h.start(logSource(path, "")+"  - kind: http\n", func(c *Config) { c.Intake.EventsPerSecond = 1e9; c.Intake.Burst = 1e9 })
	s := h.serve()
	token := h.token("erp", "*")
	fillBus(t, b)
	appendTo(t, path, sshLines(0, 5000))
	eventually(t, "the collector says so", func() bool { return h.c.Status().State == stateFull })
	if a := post(t, s.URL, token, ev(""), nil); a.status != 429 || a.header.Get("Retry-After") == "" {
		t.Errorf("answer %d %+v", a.status, a.errorBody)
	}
	if err := h.c.Ready(); err == nil || !strings.Contains(err.Error(), stateFull) {
		t.Errorf("ready: %v", err)
	}
	// Readers go on, the purge makes room, and all that waited comes.
	infos, err := b.Info(t.Context())
	must(t, err)
	for _, i := range infos {
		if i.Name == "EVENTS" {
			passAll(t, b, i.LastSeq)
		}
	}
	must(t, b.Purge(t.Context(), time.Nanosecond))
	eventually(t, "all lines are stored", func() bool { return h.stored() == 5000 })
	eventually(t, "it takes events again", func() bool { return post(t, s.URL, token, ev(""), nil).status == 202 })
}

// fillBus writes to EVENTS until it refuses.
func fillBus(t testing.TB, b *bus.Bus) {
	t.Helper()
	p, err := b.NewPublisher(t.Context(), "filler")
	must(t, err)
	noise := make([]byte, 900<<10)
	for i := range noise {
		noise[i] = byte(i * 7919 >> 3)
	}
	for size := len(noise); size > 0; {
		_, err := p.Publish(t.Context(), bus.Meta{Epoch: p.Epoch(), First: p.Next(), Rows: 1}, noise[:size])
		if err != nil {
			size /= 2
		}
	}
}

// passAll moves every position that the purge looks at.
func passAll(t testing.TB, b *bus.Bus, seq uint64) {
	t.Helper()
	cut, err := b.LoadCut(t.Context(), "events")
	must(t, err)
	cut.Done = seq
	_, err = b.SaveCut(t.Context(), "events", cut)
	must(t, err)
	for lane := range bus.Lanes {
		_, err := b.SaveCheckpoint(t.Context(), lane, bus.Checkpoint{Seq: seq}, bytes.NewReader([]byte("x")))
		must(t, err)
	}
}

func TestABusThatIsAwayLosesAndDoublesNothing(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	address := l.Addr().String()
	must(t, l.Close())
	dir := t.TempDir()
	serverConfig := bus.Config{
		StoreDir: dir, Listen: address, Secret: "geheim-geheim-geheim", Name: "server", Log: testLog(t),
		EventsBytes: 256 * testMiB, FindingsBytes: 16 * testMiB, IntakeBytes: 16 * testMiB, DeadLetterBytes: 16 * testMiB,
		WorkBytes: 16 * testMiB, AuditBytes: 16 * testMiB, StateBytes: 64 * testMiB,
	}
	server, err := bus.Open(t.Context(), serverConfig)
	must(t, err)
	client, err := bus.Open(t.Context(), bus.Config{URL: "nats://" + address, Secret: "geheim-geheim-geheim", Name: "client", Log: testLog(t)})
	must(t, err)
	t.Cleanup(func() { _ = client.Close(context.Background()) })
	path := filepath.Join(t.TempDir(), "auth.log")
	h := &house{t: t, bus: client, state: t.TempDir()}
	h.start(logSource(path, "")+"  - kind: http\n", nil)
	s := h.serve()
	token := h.token("erp", "*")
	appendTo(t, path, sshLines(0, 100))
	eventually(t, "the first lines", func() bool { return h.stored() == 100 })
	must(t, server.Close(context.Background()))
	appendTo(t, path, sshLines(100, 300))
	eventually(t, "the collector says so", func() bool { return h.c.Status().State == stateAway })
	if a := post(t, s.URL, token, ev(""), nil); a.status != 503 || a.header.Get("Retry-After") == "" {
		t.Errorf("answer %d %+v", a.status, a.errorBody)
	}
	server, err = bus.Open(t.Context(), serverConfig)
	must(t, err)
	t.Cleanup(func() { must(t, server.Close(context.Background())) })
	eventually(t, "it publishes again", func() bool { return h.c.Ready() == nil })
	h.wantPorts(300)
}

func TestTwoCollectorsOfOneNameNumberAnew(t *testing.T) {
	h := testHouse(t, httpOnly, nil)
	s := h.serve()
	token := h.token("erp", "*")
	post(t, s.URL, token, ev(`,"session.id":"a"`), nil)
	other, err := h.bus.NewPublisher(t.Context(), "test")
	must(t, err)
	b := event.NewBuilder()
	must(t, b.Append(&event.Event{Time: time.Now().UnixMilli(), Kind: "user", Action: "x", Collector: "test", Epoch: other.Epoch(), Seq: other.Next()}))
	data, err := b.Encode()
	must(t, err)
	_, err = other.Publish(t.Context(), bus.Meta{Epoch: other.Epoch(), First: other.Next(), Rows: 1}, data)
	must(t, err)
	if a := post(t, s.URL, token, ev(`,"session.id":"b"`), nil); a.status != 202 {
		t.Fatalf("answer %+v", a)
	}
	if n := len(h.events()); n != 3 { // which checks the numbers
		t.Errorf("%d events", n)
	}
}

func TestARunningCollectorTellsItsMarkWhileIdle(t *testing.T) {
	h := testHouse(t, httpOnly, nil)
	h.stop() // the end is one more heartbeat
	all := h.messages()
	if len(all) == 0 || all[len(all)-1].Meta.Rows != 0 || all[len(all)-1].Meta.Mark == 0 {
		t.Errorf("messages %+v", all)
	}
}

func TestRefusalsTravelInTheHeaders(t *testing.T) {
	h := testHouse(t, httpOnly, nil)
	s := h.serve()
	token := h.token("erp", "*")
	post(t, s.URL, token, "{}\n{}", nil)
	post(t, s.URL, token, ev(""), nil)
	h.stop()
	total := map[string]int64{}
	for _, m := range h.messages() {
		for k, n := range m.Meta.Refused {
			total[k] += n
		}
	}
	if total["erp:missing_field"] != 2 || len(total) != 1 {
		t.Errorf("refused %v", total)
	}
}

func TestTheEndFlushesWhatWasAccepted(t *testing.T) {
	h := testHouse(t, httpOnly, func(c *Config) { c.Intake.EventsPerSecond = 1e9; c.Intake.Burst = 1e9 })
	s := h.serve()
	token := h.token("erp", "*")
	var wg sync.WaitGroup
	var mu sync.Mutex
	accepted := 0
	began := make(chan struct{}, 40)
	for range 40 {
		wg.Go(func() {
			began <- struct{}{}
			a := post(t, s.URL, token, strings.Repeat(ev("")+"\n", 200), nil)
			mu.Lock()
			defer mu.Unlock()
			if a.status == 202 {
				accepted += a.Accepted
			}
		})
	}
	for range 10 {
		<-began
	}
	h.stop()
	wg.Wait()
	if n := len(h.events()); n != accepted {
		t.Errorf("%d events are stored, %d were accepted", n, accepted)
	}
}

func TestAParcelIsMeasuredFromAbove(t *testing.T) {
	for _, n := range []int{1, 10, 1000} {
		p := &parcel{}
		text := 0
		for i := range n {
			d := draft{Event: event.Event{Kind: "user", Action: fmt.Sprint("a", i), Message: strings.Repeat("m", i%100), UserName: fmt.Sprint(i % 7), Labels: []event.Label{{Key: "k", Value: fmt.Sprint(i)}}}}
			body, err := json.Marshal(d.Message)
			must(t, err)
			text += len(body) + 100
			p.drafts = append(p.drafts, d)
		}
		p.measure()
		b := event.NewBuilder()
		for i := range p.drafts {
			must(t, b.Append(&p.drafts[i].Event))
		}
		if p.bytes < b.RawBytes() || p.rows != n {
			t.Errorf("%d events: measured %d bytes and %d rows, the batch has %d", n, p.bytes, p.rows, b.RawBytes())
		}
		p.measureText(text)
		if p.bytes < b.RawBytes() {
			t.Errorf("%d events: measured %d bytes by their text, the batch has %d", n, p.bytes, b.RawBytes())
		}
	}
}

func TestASourceThatPanicsIsStartedAgain(t *testing.T) {
	t.Parallel()
	h := testHouse(t, httpOnly, nil)
	s := &sourceState{Source: Source{Name: "x"}, kind: kindByName("host"), c: h.c, log: h.c.log}
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.supervise(ctx, func(context.Context) error {
			if n++; n == 1 {
				panic("a defect")
			}
			cancel()
			return nil
		})
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("it is not started again")
	}
	if s.state != sourceFailed || !strings.Contains(s.detail, "a defect") || s.restarts.Load() != 1 {
		t.Errorf("state %q, %q", s.state, s.detail)
	}
}

func TestAnotherIdentityKeyIsRefusedAtTheStart(t *testing.T) {
	h := testHouse(t, httpOnly, nil)
	h.stop()
	cfg := h.c.cfg
	cfg.IdentityKey = bytes.Repeat([]byte{8}, 32)
	if err := Run(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "identity key of this house") {
		t.Errorf("error %v", err)
	}
}

func TestAConfigurationThatWouldFailLaterIsRefused(t *testing.T) {
	h := testHouse(t, httpOnly, nil)
	f := func(want string, change func(*Config)) {
		t.Helper()
		c := h.c.cfg
		change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want …%s…", err, want)
		}
	}
	f("no bus", func(c *Config) { c.Bus = nil })
	f("state folder", func(c *Config) { c.StateDir = "" })
	f("identity key", func(c *Config) { c.IdentityKey = []byte("short") })
	f("id", func(c *Config) { c.ID = "a b" })
	f("imports", func(c *Config) { c.ID = "import-1" })
	f("bursts", func(c *Config) { c.Intake.Burst = 5 })
	f("bodies", func(c *Config) { c.Intake.BodyBytes = 5 })
}

func TestMetricsAndStatusShowWhatWasDone(t *testing.T) {
	h := testHouse(t, "sources:\n  - kind: http\n    expect: 1s\n", nil)
	s := h.serve()
	token := h.token("erp", "*")
	post(t, s.URL, token, ev(`,"message":"password=x"`), nil)
	post(t, s.URL, token, "{}", nil)
	eventually(t, "it has been quiet for a second", func() bool { return h.c.Status().Sources[0].Quiet })
	text, err := json.Marshal(h.c.Status())
	must(t, err)
	for _, want := range []string{`"state":"publishing"`, `"events":1`, `"secrets":1`, `"missing_field":1`, `"quiet":true`, `"id":"test"`} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("status %s lacks %s", text, want)
		}
	}
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(h.c.Metrics())
	families, err := r.Gather()
	must(t, err)
	if len(families) < 10 {
		t.Errorf("%d metrics", len(families))
	}
}

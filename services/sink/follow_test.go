package sink

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/opencoc/coc/services/bus"
	"github.com/opencoc/coc/services/event"
	"github.com/opencoc/coc/services/store"
)

func finding(t *testing.T, id string, revision int64) []byte {
	t.Helper()
	now := event.Stamp(time.Now().UnixMilli())
	data, err := json.Marshal(event.Finding{
		ID: id, Rule: "r", Logic: "l", Title: "T", Class: "abuse", Severity: "low", Status: "production", Lane: 3,
		Cell: event.Span{From: now - 60_000, To: now}, Window: event.Span{From: now - 60_000, To: now},
		Key: map[string]string{"tenant.id": "t1"}, Terms: []event.Term{{Expr: "count", Value: float64(revision)}},
		Fired: now, FiredBy: "c-1-1", FirstSeen: now, LastSeen: now, Count: revision, Revision: revision, Evidence: []string{"c-1-1"}, Tenant: "t1",
	})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestFindingsArriveWithinTheirTenthOfASecond(t *testing.T) {
	h := newHouse(t)
	s, stop := h.start()
	eventually(t, "active", func() bool { return s.Status().State == storing })
	lane, err := h.bus.OpenLane(t.Context(), 3)
	if err != nil {
		t.Fatal(err)
	}
	publish := func(in uint64, parts ...[]byte) {
		t.Helper()
		if err := lane.Publish(t.Context(), in, parts...); err != nil {
			t.Fatal(err)
		}
	}
	publish(1, bytes.Join([][]byte{finding(t, "f1", 1), finding(t, "f2", 1), nil}, []byte("\n")))
	eventually(t, "through 1", func() bool { return s.ThroughFindings() == 1 })
	publish(2, finding(t, "f1", 2), []byte("{not json"))
	publish(3, finding(t, "f3", 1))
	begun := time.Now()
	eventually(t, "through 4", func() bool { return s.ThroughFindings() == 4 })
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
	if got := h.ask("SELECT count(), sum(revision), sum(seq) FROM findings FINAL"); got != "3 4 7" {
		t.Errorf("findings: %s", got)
	}
	d := h.deadLetters()
	if len(d) != 1 || d[0].From != "sink-findings" || d[0].Seq != 3 {
		t.Errorf("dead letters %+v", d)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestFindingsRepeatedAfterAFallAreThereOnce(t *testing.T) {
	h := newHouse(t)
	lane, err := h.bus.OpenLane(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	for in := uint64(1); in <= 20; in++ {
		if err := lane.Publish(t.Context(), in, finding(t, fmt.Sprintf("f%d", in%5), int64(in))); err != nil {
			t.Fatal(err)
		}
	}
	s, stop := h.start()
	fallen := make(chan struct{}, 100)
	h.store.set(nil, func(what string) error {
		if what == "findings" { // written, and nobody knows
			fallen <- struct{}{}
			return fmt.Errorf("%w: %w", store.ErrUnavailable, errFault)
		}
		return nil
	})
	<-fallen
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	h.store.set(nil, nil)
	s, stop = h.start()
	eventually(t, "through", func() bool { return s.ThroughFindings() == 20 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if got := h.ask("SELECT count(), sum(revision) FROM findings FINAL"); got != "5 90" {
		t.Errorf("findings: %s", got)
	}
}

func TestIdentitiesAndWorkArrive(t *testing.T) {
	h := newHouse(t)
	put := func(kind, id, data string) {
		t.Helper()
		if _, err := h.bus.PutWork(t.Context(), kind, id, 0, []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	put(bus.KindIdentity, "i1", `{"tenant":"t1","hash":"abc","sealed":"c2VhbGVk","key":"k1","first_seen":"2026-11-23T10:00:00.000Z"}`)
	put("case", "c1", `{"actor":"ann","role":"analyst","reason":"seen","time":"2026-11-23T10:00:00Z","hash":"h2","previous":"h1","data":{"state":"open"}}`)
	put("note", "n1", `{"text":"anything"}`)
	put(bus.KindIdentity, "bad", `{"tenant":"t1"}`)
	s, stop := h.start()
	eventually(t, "through", func() bool { return s.Status().Work.Through == 4 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if got := h.ask("SELECT tenant_id, user_hash, sealed, key_id, toString(first_seen), revision FROM identities"); got != "t1 abc sealed k1 2026-11-23 10:00:00.000 1" {
		t.Errorf("identity: %s", got)
	}
	if got := h.ask("SELECT id, actor, role, reason, data, hash, previous, seq FROM work WHERE kind = 'case'"); got != `c1 ann analyst seen {"state":"open"} h2 h1 2` {
		t.Errorf("case: %s", got)
	}
	if got := h.ask("SELECT data FROM work WHERE kind = 'note'"); got != `{"text":"anything"}` {
		t.Errorf("note: %s", got)
	}
	if d := h.deadLetters(); len(d) != 1 || d[0].Seq != 4 {
		t.Errorf("dead letters %+v", d)
	}
}

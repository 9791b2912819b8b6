package collector

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/opencoc/coc/services/bus"
	"github.com/opencoc/coc/services/event"
)

// asKept returns the event as the tables keep it: without user.name.
func asKept(e event.Event) string {
	e.UserName = ""
	return string(event.AppendJSON(nil, &e))
}

// identities reads all sealed names.
func (h *house) identities() (all []IdentityRecord) {
	h.t.Helper()
	for _, m := range h.work() {
		if kind, _ := m.WorkKind(); kind != bus.KindIdentity {
			continue
		}
		var r IdentityRecord
		if err := json.Unmarshal(m.Data, &r); err != nil {
			h.t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

// work reads all of WORK.
func (h *house) work() (all []bus.Message) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	infos, err := h.bus.Info(ctx)
	if err != nil {
		h.t.Fatal(err)
	}
	last := uint64(0)
	for _, i := range infos {
		if i.Name == "WORK" {
			last = i.LastSeq
		}
	}
	if last == 0 {
		return nil
	}
	r, err := h.bus.Work(ctx, 0)
	if err != nil {
		h.t.Fatal(err)
	}
	defer r.Close()
	for {
		m, err := r.Next(ctx)
		if err != nil {
			h.t.Fatal(err)
		}
		if all = append(all, m); m.Seq >= last {
			return all
		}
	}
}

func TestAPlantedNameIsKeptNowhereButSealed(t *testing.T) {
	for _, name := range []string{"piet.planten", "p.planten@klant.nl", "Plànten", `KLANT\pplanten`, "pplanten"} {
		t.Run(strings.ReplaceAll(name, `\`, "_"), func(t *testing.T) {
			h := testHouse(t, "sources:\n  - kind: http\n  - kind: nats\n", nil)
			s := h.serve()
			token := h.token("erp", "*")
			quoted, err := json.Marshal(name)
			if err != nil {
				t.Fatal(err)
			}
			n := strings.Trim(string(quoted), `"`)
			body := ev(fmt.Sprintf(`,"user.name":"%[1]s","message":"a %[1]s, (%[1]s) %[2]s","process":{"command_line":"run --as %[1]s","executable":"/home/%[1]s/x","name":"%[1]s","parent":"x-%[1]s"},
				"resource":{"name":"of %[1]s","title":"%[1]s's"},"event.id":"id-%[1]s-1","session.id":"%[1]s","ticket":"%[1]s","host.name":"pc-%[1]s","tenant.id":"t1",
				"labels":{"who":"%[1]s","for %[1]s":"x","path":"/u/%[1]s/y?u=%[1]s","url":"/u/%[3]s?u=%[4]s&v=%[5]s"}`, n, strings.ToUpper(n),
				url.PathEscape(name), url.QueryEscape(name), strings.ToLower(url.QueryEscape(name))))
			body = strings.ReplaceAll(body, "\n", "")
			if a := post(t, s.URL, token, body, nil); a.status != http.StatusAccepted {
				t.Fatalf("answer %+v", a)
			}
			if err := h.bus.PublishIntake(context.Background(), "erp2", "", []byte(body)); err != nil {
				t.Fatal(err)
			}
			// What is refused is kept too, among the dead letters.
			if err := h.bus.PublishIntake(context.Background(), "erp2", "", []byte(strings.Replace(body, `"kind"`, `"wrong"`, 1))); err != nil {
				t.Fatal(err)
			}
			eventually(t, "both are stored, the third refused", func() bool {
				s := h.c.Status()
				return s.Stored == 2 && s.Sources[1].Refused[event.UnknownField] == 1
			})
			for _, e := range h.events() {
				if e.UserName != name {
					t.Errorf("user.name %q travels as %q", name, e.UserName)
				}
				if text := strings.ToLower(asKept(e)); strings.Contains(text, strings.ToLower(n)) || strings.Contains(text, "planten") || strings.Contains(text, "nten") {
					t.Errorf("the name is kept in %s", text)
				}
			}
			ids := h.identities()
			if len(ids) != 1 {
				t.Fatalf("%d identities, want one: %+v", len(ids), ids)
			}
			kv, err := h.bus.KV(bus.BucketKeys)
			if err != nil {
				t.Fatal(err)
			}
			wrapped, err := kv.Get(context.Background(), ids[0].Key)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := OpenIdentity(h.c.cfg.IdentityKey, wrapped.Value, ids[0]); err != nil || got != name {
				t.Errorf("opened %q, %v; want %q", got, err, name)
			}
			h.searchEverythingKept(name)
		})
	}
}

// searchEverythingKept looks for a name in all of the bus but EVENTS' column
// user.name: WORK, dead letters, headers.
func (h *house) searchEverythingKept(name string) {
	h.t.Helper()
	look := func(where, text string) {
		if strings.Contains(strings.ToLower(text), strings.ToLower(name)) {
			h.t.Errorf("%s holds the name: %.200q", where, text)
		}
	}
	for _, m := range h.work() {
		look("WORK", m.Subject+string(m.Data))
	}
	for _, m := range h.messages() {
		look("a header of EVENTS", fmt.Sprint(m.Meta))
	}
	for _, d := range h.deadLetters() {
		look("DEADLETTER", fmt.Sprint(d.Reason, d.From, d.Source, d.Detail, d.Subject)+string(d.Data))
		plain, err := h.c.Unseal(context.Background(), d.Data)
		if err != nil || !strings.Contains(string(plain), "wrong") {
			h.t.Errorf("a dead letter opens as %q, %v", plain, err)
		}
	}
}

func (h *house) deadLetters() (all []bus.DeadLetter) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	infos, err := h.bus.Info(ctx)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, i := range infos {
		if i.Name != "DEADLETTER" || i.LastSeq == 0 {
			continue
		}
		r, err := h.bus.DeadLetters(ctx, 0)
		if err != nil {
			h.t.Fatal(err)
		}
		defer r.Close()
		for {
			m, err := r.Next(ctx)
			if err != nil {
				h.t.Fatal(err)
			}
			d, err := bus.ParseDeadLetter(m)
			if err != nil {
				h.t.Fatal(err)
			}
			if all = append(all, d); m.Seq >= i.LastSeq {
				break
			}
		}
	}
	return all
}

func TestTheSameNameHasAnotherHashInAnotherTenant(t *testing.T) {
	h := testHouse(t, httpOnly, nil)
	s := h.serve()
	token := h.token("erp", "*")
	for range 2 {
		for _, tenant := range []string{`,"tenant.id":"t1"`, `,"tenant.id":"t2"`, ""} {
			if a := post(t, s.URL, token, ev(tenant+`,"user.name":"jan"`), nil); a.status != http.StatusAccepted {
				t.Fatalf("answer %+v", a)
			}
		}
	}
	hashes := map[string]string{}
	for _, e := range h.events() {
		if old := hashes[e.TenantID]; old != "" && old != e.UserHash {
			t.Errorf("tenant %q: the hash changed from %s to %s", e.TenantID, old, e.UserHash)
		}
		hashes[e.TenantID] = e.UserHash
	}
	if hashes["t1"] == hashes["t2"] || hashes["t1"] == hashes[""] || len(hashes) != 3 {
		t.Errorf("hashes %v", hashes)
	}
	if ids := h.identities(); len(ids) != 3 {
		t.Errorf("%d identities, want 3", len(ids))
	}
}

func TestKeysOutliveTheProcessAndRefuseAnotherIdentityKey(t *testing.T) {
	h := testHouse(t, httpOnly, nil)
	first := h.c.seal
	d := []draft{{Event: event.Event{UserName: "jan", TenantID: "t1"}}}
	if err := first.seal(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	h.stop()
	h.start(httpOnly, nil)
	again := []draft{{Event: event.Event{UserName: "jan", TenantID: "t1"}}}
	if err := h.c.seal.seal(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	if again[0].UserHash != d[0].UserHash {
		t.Errorf("the hash changed from %s to %s", d[0].UserHash, again[0].UserHash)
	}
	if ids := h.identities(); len(ids) != 1 {
		t.Errorf("%d identities, want 1: the second process must not keep the name again", len(ids))
	}
	other, err := newKeyring(h.bus, []byte(strings.Repeat("x", 32)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.of(t.Context(), "t1"); err == nil || !strings.Contains(err.Error(), "identity key") {
		t.Errorf("another identity key opens the tenant's key: %v", err)
	}
}

func TestSystemAccountsStayReadable(t *testing.T) {
	h := testHouse(t, "sources:\n  - kind: http\nsystem_accounts: [koppeling-*]\n", nil)
	s := h.serve()
	token := h.token("erp", "*")
	body := ev(`,"user.name":"root","message":"by root"`) + "\n" + ev(`,"user.name":"koppeling-t1","message":"by koppeling-t1"`)
	if a := post(t, s.URL, token, body, nil); a.status != http.StatusAccepted {
		t.Fatalf("answer %+v", a)
	}
	for _, e := range h.events() {
		if e.UserHash != e.UserName || e.Message != "by "+e.UserName || e.UserType != "system" {
			t.Errorf("stored %s", event.AppendJSON(nil, &e))
		}
	}
	if ids := h.identities(); len(ids) != 0 {
		t.Errorf("system accounts were sealed: %+v", ids)
	}
}

func TestGuessedNamesAreBounded(t *testing.T) {
	h := testHouse(t, httpOnly, nil)
	h.c.seal.strangers.SetBurst(3)
	h.c.seal.strangers.SetLimit(0)
	for i := range 10 {
		d := []draft{{Event: event.Event{UserName: fmt.Sprintf("guess%d", i), Action: "invalid_user", Outcome: failure, Message: fmt.Sprintf("for guess%d", i)}}}
		if err := h.c.seal.seal(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(d[0].Message, "guess") {
			t.Errorf("message %q", d[0].Message)
		}
	}
	if ids := h.identities(); len(ids) > 3 {
		t.Errorf("%d guessed names were kept, at most 3 may be", len(ids))
	}
	if n := h.c.Status().Unsealed; n < 7 {
		t.Errorf("%d names counted as not kept, want 7", n)
	}
}

func TestTheCacheOfNamesIsBounded(t *testing.T) {
	h := testHouse(t, httpOnly, nil)
	s := h.c.seal
	for i := range limitIdentities + 10 {
		s.remember(identityKey{"t", fmt.Sprint(i)}, &identity{})
	}
	if n := len(s.young) + len(s.old); n > limitIdentities {
		t.Errorf("%d names are remembered, at most %d may be", n, limitIdentities)
	}
}

func TestSealingAKnownNameAllocatesLittle(t *testing.T) {
	h := testHouse(t, httpOnly, nil)
	d := []draft{{Event: event.Event{UserName: "jan.jansen", TenantID: "t1", Message: "window Eigenschappen Medewerker opened in 100 ms"}}}
	if err := h.c.seal.seal(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() {
		d[0].sealed = false
		if err := h.c.seal.seal(context.Background(), d); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations an event", n)
	}
}

func TestAllNamesOfALineAreReplaced(t *testing.T) {
	h := testHouse(t, "sources:\n  - kind: http\n", nil)
	d := draft{Event: event.Event{UserName: `KLANT\jan.jansen@klant.nl`, Message: "KLANT\\jan.jansen@klant.nl"}}
	for i := range limitNames {
		name := fmt.Sprintf("piet.%d@klant.nl", i)
		d.names = append(d.names, name)
		d.Message += " " + name + " piet." + fmt.Sprint(i)
	}
	drafts := []draft{d}
	if err := h.c.seal.seal(context.Background(), drafts); err != nil {
		t.Fatal(err)
	}
	if m := drafts[0].Message; strings.Contains(m, "klant") || strings.Contains(m, "piet") {
		t.Errorf("kept %q", m)
	}
}

func TestANameOfOneLetterIsReplacedWhereItStandsAlone(t *testing.T) {
	h := testHouse(t, "sources:\n  - kind: http\n", nil)
	drafts := []draft{{Event: event.Event{UserName: "x", Message: "x of x", ResourceTitle: "X", SessionID: "x"}}}
	if err := h.c.seal.seal(context.Background(), drafts); err != nil {
		t.Fatal(err)
	}
	if e := drafts[0].Event; e.ResourceTitle != "u-"+e.UserHash[:8] || e.SessionID != e.ResourceTitle || e.Message != "x of x" {
		t.Errorf("kept %s", event.AppendJSON(nil, &e))
	}
}

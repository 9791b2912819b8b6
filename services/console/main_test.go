package console

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencoc/coc/services/bus"
	"github.com/opencoc/coc/services/event"
	"github.com/opencoc/coc/services/store"
)

// house is the real bus and the real engine that all tests of the package
// share: a process can have one engine. Tests keep apart by tenant and source.
var house struct {
	bus   *bus.Bus
	store *store.Store
	zone  *time.Location
}

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "coc-console-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	library := os.Getenv("COC_LIBCHDB")
	if library == "" {
		library, _ = filepath.Abs("../../bin/libchdb.so")
	}
	if house.zone, err = time.LoadLocation("Europe/Amsterdam"); err == nil {
		house.bus, err = bus.Open(ctx, bus.Config{StoreDir: filepath.Join(dir, "nats")})
	}
	if err == nil {
		house.store, err = store.Open(ctx, store.Config{Dir: filepath.Join(dir, "clickhouse"), Library: library, Zone: house.zone})
	}
	if err == nil {
		err = furnish(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "the tests of console need the real bus and engine:", err)
		return 1
	}
	code := m.Run()
	for _, err := range []error{house.store.Close(), house.bus.Close(ctx)} {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	return code
}

// now is when the tests' world stands.
var now = time.Now().Truncate(time.Millisecond)

const theFinding = "0123456789abcdef0123456789abcdef"

// furnish puts a finding with its evidence into the store.
func furnish(ctx context.Context) error {
	e := event.Event{Time: now.UnixMilli(), Received: now.UnixMilli(), Kind: "user", Action: "login", Outcome: "failure", Message: "Failed password for u-1",
		Source: "furniture", Collector: "house", Epoch: 1, Seq: 1, TenantID: "t1", UserName: "planted-name", UserHash: "hash-of-planted", SourceIP: "203.0.113.9"}
	b := event.NewBuilder()
	if err := b.Append(&e); err != nil {
		return err
	}
	msg, err := b.Encode()
	if err != nil {
		return err
	}
	frames, rows, err := event.Splice([][]byte{msg})
	if err != nil {
		return err
	}
	if _, err := house.store.InsertEvents(ctx, "events:furniture", frames, rows); err != nil {
		return err
	}
	at := event.Stamp(now.UnixMilli())
	return house.store.InsertFindings(ctx, []store.FindingRow{{Seq: 1, Finding: event.Finding{
		ID: theFinding, Rule: "abuse.guessing", Logic: "00", Title: "Guessing", Class: "abuse", Severity: "medium", Status: "production",
		Cell: event.Span{From: at - 1000, To: at + 1000}, Window: event.Span{From: at - 1000, To: at}, How: "counted exactly", Tenant: "t1",
		Key: map[string]string{"source.ip": "203.0.113.9", "tenant.id": "t1"}, Terms: []event.Term{{Expr: "count", Value: 10}},
		Fired: at, FiredBy: "house-1-1", FirstSeen: at, LastSeen: at, Count: 10, Revision: 1, Evidence: []string{"house-1-1"},
	}}})
}

// api is a console on a server, with a token for each role.
type api struct {
	t      testing.TB
	server *httptest.Server
	con    *Console
	tokens map[string]string // role to secret
}

func newAPI(t testing.TB, change func(*Config)) *api {
	t.Helper()
	c := Config{Bus: house.bus, Store: house.store, Zone: house.zone,
		Allowances: func() []store.Meter {
			return []store.Meter{{Name: "logins_per_1h", Unit: "logins", Action: "login", Aggregate: "count", Window: time.Hour, Allowance: map[string]float64{"*": 5}}}
		},
		Rules: func(id string) (RuleText, bool) {
			return RuleText{ID: id, Title: map[string]string{"en": "Guessing"}, Logic: "00"}, id == "abuse.guessing"
		},
		Status:  func(context.Context) any { return map[string]string{"state": "fine"} },
		Sources: func(context.Context) any { return map[string]any{"sources": []string{}} },
		Log:     slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	if change != nil {
		change(&c)
	}
	con, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	a := &api{t: t, con: con, server: httptest.NewServer(con.Handler()), tokens: map[string]string{}}
	t.Cleanup(a.server.Close)
	t.Cleanup(con.Close)
	for _, role := range TokenRoles() {
		tok := bus.Token{Role: role, Expires: house.bus.Now().Add(time.Hour)}
		if role == RoleIntake {
			tok.Source = "erp"
		}
		if a.tokens[role], err = house.bus.IssueToken(t.Context(), tok); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

// request is one call; secret "" sends none.
func (a *api) request(method, path, secret, body string) *http.Response {
	a.t.Helper()
	req, err := http.NewRequestWithContext(a.t.Context(), method, a.server.URL+path, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	if secret != "" {
		req.Header.Set("Authorization", "Bearer "+secret)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := a.server.Client().Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	return resp
}

// call gives status and body.
func (a *api) call(method, path, role, body string) (int, string) {
	a.t.Helper()
	resp := a.request(method, path, a.tokens[role], body)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	return resp.StatusCode, string(data)
}

// get decodes the answer to a role that must have it.
func get[T any](a *api, role, path string) T {
	a.t.Helper()
	var v T
	status, body := a.call(http.MethodGet, path, role, "")
	if status != http.StatusOK {
		a.t.Fatalf("GET %s as %s: %d %s", path, role, status, body)
	}
	d := json.NewDecoder(bytes.NewReader([]byte(body)))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		a.t.Fatalf("GET %s: %v in %s", path, err, body)
	}
	return v
}

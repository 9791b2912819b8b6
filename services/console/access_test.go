package console

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencoc/coc/services/bus"
	"github.com/opencoc/coc/services/store"
)

// example is a request that an operation answers with success when the role
// may have it.
type example struct{ method, path, body string }

var examples = map[string]example{
	opFindings:      {"GET", "/v1/findings?since=1h", ""},
	opFinding:       {"GET", "/v1/findings/" + theFinding, ""},
	opTenants:       {"GET", "/v1/tenants", ""},
	opUsage:         {"GET", "/v1/usage?from=2026-01-01", ""},
	opResponseTimes: {"GET", "/v1/response-times?tenant=t1", ""},
	opLedger:        {"GET", "/v1/ledger", ""},
	opTail:          {"GET", "/v1/tail", ""},
	opSQL:           {"POST", "/v1/sql", `{"query":"SELECT day FROM release_days"}`},
	opNewToken:      {"POST", "/v1/tokens", `{"role":"analyst","expires":"1h"}`},
	opTokens:        {"GET", "/v1/tokens", ""},
	opRevokeToken:   {"DELETE", "/v1/tokens/TOKEN", ""},
	opStatus:        {"GET", "/v1/status", ""},
	opSources:       {"GET", "/v1/sources", ""},
}

func TestEveryOperationHasAnExampleAndARow(t *testing.T) {
	a := newAPI(t, nil)
	var doc struct {
		Paths map[string]map[string]struct {
			OperationID string `json:"operationId"`
		}
	}
	resp := a.request("GET", "/openapi.json", "", "")
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&doc); err != nil || resp.StatusCode != 200 {
		t.Fatalf("the description: %d, %v", resp.StatusCode, err)
	}
	found := map[string]bool{}
	for path, methods := range doc.Paths {
		for method, op := range methods {
			found[op.OperationID] = true
			ex, ok := examples[op.OperationID]
			if _, row := access[op.OperationID]; !ok || !row {
				t.Errorf("%s %s (%s) has no example here or no row in access.go", method, path, op.OperationID)
			}
			if !strings.EqualFold(ex.method, method) {
				t.Errorf("the example of %s is a %s, not a %s", op.OperationID, ex.method, method)
			}
		}
	}
	for id := range access {
		if !found[id] {
			t.Errorf("access.go has a row for %s, which is no operation", id)
		}
	}
}

// TestTheMatrix calls every operation as every role, as a token for sending
// events, with a wrong token and without any.
func TestTheMatrix(t *testing.T) {
	a := newAPI(t, nil)
	for id, ex := range examples {
		for _, role := range TokenRoles() {
			path := ex.path
			if id == opRevokeToken {
				path = strings.Replace(path, "TOKEN", a.tokenToRevoke(), 1)
			}
			want := http.StatusForbidden
			if slices.Contains(access[id].roles, store.Role(role)) {
				want = http.StatusOK
				switch id {
				case opNewToken:
					want = http.StatusCreated
				case opRevokeToken:
					want = http.StatusNoContent
				}
			}
			resp := a.request(ex.method, path, a.tokens[role], ex.body)
			if resp.StatusCode != want {
				t.Errorf("%s as %s: %d, want %d", id, role, resp.StatusCode, want)
			}
			resp.Body.Close()
		}
		for _, secret := range []string{"", "coc_aaaaaaaa_wrong" + id[:4]} {
			resp := a.request(ex.method, ex.path, secret, ex.body)
			resp.Body.Close()
			if resp.StatusCode != http.StatusUnauthorized && resp.StatusCode != http.StatusTooManyRequests {
				t.Errorf("%s with the token %q: %d, want 401 or, when there were many, 429", id, secret, resp.StatusCode)
			}
		}
	}
}

func (a *api) tokenToRevoke() string {
	secret, err := house.bus.IssueToken(a.t.Context(), bus.Token{Role: "support", Expires: house.bus.Now().Add(time.Hour)})
	if err != nil {
		a.t.Fatal(err)
	}
	return strings.Split(secret, "_")[1]
}

// TestTheTableAgreesWithTheStore: who may call an operation is who may read
// what it reads.
func TestTheTableAgreesWithTheStore(t *testing.T) {
	for id, row := range access {
		for _, role := range store.Roles() {
			listed := slices.Contains(row.roles, role)
			if row.reads != "" && listed != role.MayRead(row.reads) {
				t.Errorf("%s lists %s: %v, but the store lets it read %s: %v", id, role, listed, row.reads, role.MayRead(row.reads))
			}
		}
	}
	for _, role := range store.Roles() {
		if got := slices.Contains(access[opSQL].roles, role); got != role.MaySQL() {
			t.Errorf("%s may run SQL: %v here, %v in the store", role, got, role.MaySQL())
		}
	}
}

func TestAnExpiredOrRevokedTokenIsRefused(t *testing.T) {
	a := newAPI(t, nil)
	secret, err := house.bus.IssueToken(t.Context(), bus.Token{Role: "analyst", Expires: house.bus.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	if err := house.bus.RevokeToken(t.Context(), strings.Split(secret, "_")[1]); err != nil {
		t.Fatal(err)
	}
	resp := a.request("GET", "/v1/findings", secret, "")
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized || resp.Header.Get("WWW-Authenticate") == "" {
		t.Errorf("a revoked token: %d, %v", resp.StatusCode, resp.Header)
	}
}

func TestWrongTokensAreThrottledAndDoNotLockOutTheRightOne(t *testing.T) {
	clock := time.Now()
	a := newAPI(t, func(c *Config) { c.Now = func() time.Time { return clock } })
	if status, body := a.call("GET", "/v1/status", "operator", ""); status != 200 {
		t.Fatal(status, body)
	}
	for i := range failBurst {
		resp := a.request("GET", "/v1/status", fmt.Sprintf("coc_aaaaaaaa_wrong%d", i), "")
		resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized {
			t.Fatalf("attempt %d: %d", i, resp.StatusCode)
		}
	}
	resp := a.request("GET", "/v1/status", "coc_aaaaaaaa_wrong", "")
	resp.Body.Close()
	if resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") == "" {
		t.Errorf("after %d wrong tokens: %d, want 429 with Retry-After", failBurst, resp.StatusCode)
	}
	if status, _ := a.call("GET", "/v1/status", "operator", ""); status != 200 {
		t.Errorf("a token that was good from this address: %d, want 200", status)
	}
	clock = clock.Add(failEvery + time.Second)
	if status, _ := a.call("GET", "/v1/status", "analyst", ""); status != 200 {
		t.Errorf("another good token, later: %d, want 200", status)
	}
}

func TestOneTokenMayNotAskTooOften(t *testing.T) {
	clock := time.Now()
	a := newAPI(t, func(c *Config) { c.Now = func() time.Time { return clock } })
	for range tokenBurst {
		if status, _ := a.call("GET", "/v1/status", "operator", ""); status != 200 {
			t.Fatal(status)
		}
	}
	if status, _ := a.call("GET", "/v1/status", "operator", ""); status != http.StatusTooManyRequests {
		t.Errorf("one request more than the burst: %d, want 429", status)
	}
	if status, _ := a.call("GET", "/v1/status", "analyst", ""); status != 200 {
		t.Errorf("another token: %d, want 200", status)
	}
	clock = clock.Add(time.Second)
	if status, _ := a.call("GET", "/v1/status", "operator", ""); status != 200 {
		t.Errorf("a second later: %d, want 200", status)
	}
}

func TestRequireGuardsAHandlerOfAnotherPackage(t *testing.T) {
	a := newAPI(t, nil)
	a.server.Config.Handler = a.con.Require(store.RoleOperator, store.RoleAdministrator)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, reader(r.Context()).Role)
	}))
	for role, want := range map[string]int{"operator": 200, "administrator": 200, "analyst": 403, "intake": 403, "": 401} {
		if status, body := a.call("POST", "/v1/imports", role, "x"); status != want {
			t.Errorf("as %q: %d %s, want %d", role, status, body, want)
		}
	}
}

func TestTablesOfTheGateAreBounded(t *testing.T) {
	g := newGate()
	at := time.Now()
	for i := range maxTracked + 100 {
		at = at.Add(time.Millisecond)
		g.failed(fmt.Sprint(i), at)
		g.tooFast(fmt.Sprint(i), at)
		g.passed(fmt.Sprint(i), at)
	}
	if len(g.wrong) > maxTracked || len(g.tokens) > maxTracked || len(g.known) > maxTracked {
		t.Errorf("%d, %d and %d entries, at most %d", len(g.wrong), len(g.tokens), len(g.known), maxTracked)
	}
	if g.wrong["0"] != nil || g.wrong[fmt.Sprint(maxTracked+99)] == nil {
		t.Error("not the oldest address was forgotten")
	}
}

func TestFailuresOfIPv6AreCountedByLine(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.7:1234": "192.0.2.7", "[2001:db8:1:2:3::4]:99": "2001:db8:1:2::/64", "[::ffff:192.0.2.7]:1": "192.0.2.7", "pipe": "pipe",
	} {
		if got := addressOf(&http.Request{RemoteAddr: remote}); got != want {
			t.Errorf("%s is counted as %s, want %s", remote, got, want)
		}
	}
}

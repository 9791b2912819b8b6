package console

import (
	"encoding/json"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencoc/coc/services/event"
	"github.com/opencoc/coc/services/store"
)

func TestAFindingIsListedAndShown(t *testing.T) {
	a := newAPI(t, func(c *Config) { c.EvaluatedThrough = func() int64 { return 1234 } })
	list := get[FindingList](a, "analyst", "/v1/findings?rule=abuse.guessing")
	if len(list.Findings) != 1 || list.Findings[0].ID != theFinding || list.Zone != "Europe/Amsterdam" || list.EvaluatedThrough != 1234 || list.More {
		t.Fatalf("the list is %+v", list)
	}
	d := get[FindingDetail](a, "analyst", "/v1/findings/"+theFinding)
	if !reflect.DeepEqual(d.Finding, list.Findings[0]) {
		t.Errorf("shown\n%+v, listed\n%+v", d.Finding, list.Findings[0])
	}
	if d.Rule == nil || d.Rule.Title["en"] != "Guessing" || d.Changed {
		t.Errorf("its rule is %+v, changed %v", d.Rule, d.Changed)
	}
	if len(d.Events) != 1 || d.Events[0].ID != "house-1-1" || !strings.Contains(string(d.Events[0].Event), "Failed password") {
		t.Errorf("its evidence is %s", d.Events)
	}
}

func TestWhatARoleMayNotSeeIsNotThere(t *testing.T) {
	a := newAPI(t, nil)
	for _, role := range []string{"account_manager", "support", "operator"} {
		for _, path := range []string{"/v1/findings", "/v1/findings/" + theFinding} {
			_, body := a.call("GET", path, role, "")
			for _, secret := range []string{"203.0.113.9", "hash-of-planted", "Failed password"} {
				if strings.Contains(body, secret) {
					t.Errorf("%s as %s tells %s: %s", path, role, secret, body)
				}
			}
			if !strings.Contains(body, `"t1"`) {
				t.Errorf("%s as %s does not tell the tenant: %s", path, role, body)
			}
		}
	}
}

func TestNoAnswerHoldsAName(t *testing.T) {
	a := newAPI(t, nil)
	for id, ex := range examples {
		if id == opTail || id == opRevokeToken {
			continue
		}
		if _, body := a.call(ex.method, ex.path, "administrator", ex.body); strings.Contains(body, "planted-name") {
			t.Errorf("%s tells the name: %s", id, body)
		}
	}
	_, body := a.call("POST", "/v1/sql", "administrator", `{"query":"SELECT * FROM events"}`)
	if strings.Contains(body, "planted-name") || !strings.Contains(body, "hash-of-planted") {
		t.Errorf("the events are %s", body)
	}
}

func TestMisspeltAndWrongParametersAreNamed(t *testing.T) {
	a := newAPI(t, nil)
	for path, names := range map[string]string{
		"/v1/findings?severty=high":         "severty",
		"/v1/findings?class=abusive":        "class",
		"/v1/findings?since=yesterday":      "since",
		"/v1/findings?limit=100001":         "limit",
		"/v1/findings?limit=x":              "limit",
		"/v1/usage?from=1-1-2026":           "from",
		"/v1/usage?from=2026-02-31":         "2026-02-31",
		"/v1/ledger?from=1d&to=2d":          "from",
		"/v1/ledger?from=1900-01-01":        "92 days",
		"/v1/response-times?from=2026-1-01": "from",
	} {
		status, body := a.call("GET", path, "administrator", "")
		if status != http.StatusUnprocessableEntity && status != http.StatusBadRequest || !strings.Contains(body, names) {
			t.Errorf("%s: %d %s, want a 4xx that names %s", path, status, body, names)
		}
	}
}

func TestABadBodyIsRefused(t *testing.T) {
	a := newAPI(t, nil)
	for _, body := range []string{`{`, `[]`, `null`, `{"query":5}`, `{"query":""}`, `{"query":"SELECT 1","x":1}`, `{"query":"` + strings.Repeat("x", maxBody) + `"}`, strings.Repeat("[", 10_000)} {
		status, answer := a.call("POST", "/v1/sql", "administrator", body)
		if status < 400 || status >= 500 {
			t.Errorf("%.30s…: %d %.200s", body, status, answer)
		}
	}
	for _, body := range []string{
		`{"role":"king","expires":"1d"}`, `{"role":"analyst","expires":"500d"}`, `{"role":"analyst","expires":"2001-01-01"}`, `{"role":"analyst","expires":"soon"}`,
		`{"role":"analyst"}`, `{"role":"intake","expires":"1d"}`, `{"role":"analyst","source":"erp","expires":"1d"}`,
	} {
		if status, answer := a.call("POST", "/v1/tokens", "administrator", body); status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d %s, want 422", body, status, answer)
		}
	}
}

func TestAnAddressThatIsNotThereSaysSo(t *testing.T) {
	a := newAPI(t, nil)
	for _, c := range []struct {
		method, path string
		want         int
	}{{"GET", "/v2/x", 404}, {"GET", "/docs", 404}, {"GET", "/schemas/x", 404}, {"PUT", "/v1/findings", 405}, {"GET", "/v1/sql", 405}, {"GET", "/v1/findings/none", 404}, {"DELETE", "/v1/tokens/none", 404}} {
		resp := a.request(c.method, c.path, a.tokens["administrator"], "")
		if resp.StatusCode != c.want || resp.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %s: %d %s, want %d", c.method, c.path, resp.StatusCode, resp.Header.Get("Content-Type"), c.want)
		}
		resp.Body.Close()
	}
}

func TestBrowsersAreToldToKeepAnswersToThemselves(t *testing.T) {
	a := newAPI(t, nil)
	resp := a.request("GET", "/v1/findings", a.tokens["analyst"], "")
	defer resp.Body.Close()
	for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'", "Access-Control-Allow-Origin": ""} {
		if got := resp.Header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

func TestTheStandingIsMeasuredAgainstTheAllowances(t *testing.T) {
	a := newAPI(t, nil)
	list := get[StandingList](a, "account_manager", "/v1/tenants?tenant=t1")
	if len(list.Rows) != 1 || list.Meters != 1 {
		t.Fatalf("the standing is %+v", list)
	}
	want := Standing{Tenant: "t1", Meter: "logins_per_1h", Unit: "logins", Window: "1h", Used: 1, Allowed: true, Allowance: 5, Ratio: 0.2}
	if list.Rows[0] != want {
		t.Errorf("it is\n%+v, want\n%+v", list.Rows[0], want)
	}
	none := newAPI(t, func(c *Config) { c.Allowances = nil })
	if list := get[StandingList](none, "analyst", "/v1/tenants"); list.Meters != 0 || len(list.Rows) != 0 {
		t.Errorf("without allowances: %+v", list)
	}
}

func sqlLines(t *testing.T, body string) []SQLLine {
	t.Helper()
	var list []SQLLine
	for l := range strings.Lines(body) {
		var line SQLLine
		if err := json.Unmarshal([]byte(l), &line); err != nil {
			t.Fatalf("%v in %s", err, l)
		}
		list = append(list, line)
	}
	return list
}

func TestAStatementIsAnsweredWithColumnsRowsAndAnEnd(t *testing.T) {
	a := newAPI(t, nil)
	status, body := a.call("POST", "/v1/sql", "analyst", `{"query":"SELECT tenant_id, count() AS n FROM events WHERE tenant_id = 't1' GROUP BY tenant_id","limit":5}`)
	lines := sqlLines(t, body)
	if status != 200 || len(lines) != 3 {
		t.Fatalf("%d %s", status, body)
	}
	if want := []SQLColumn{{"tenant_id", "LowCardinality(String)"}, {"n", "UInt64"}}; !slices.Equal(lines[0].Columns, want) {
		t.Errorf("the columns are %v, want %v", lines[0].Columns, want)
	}
	if len(lines[1].Row) != 2 || lines[1].Row[0] != "t1" {
		t.Errorf("the row is %v", lines[1].Row)
	}
	if end := lines[2].End; end == nil || end.Rows != 1 || end.More || !slices.Contains(end.Fields, "events.tenant_id") || !slices.Contains(end.Classes, "tenant") {
		t.Errorf("the end is %+v", lines[2])
	}
}

func TestAStatementWithoutRowsStillHasColumns(t *testing.T) {
	a := newAPI(t, nil)
	_, body := a.call("POST", "/v1/sql", "analyst", `{"query":"SELECT kind FROM events WHERE tenant_id = 'nobody'"}`)
	lines := sqlLines(t, body)
	if len(lines) != 2 || len(lines[0].Columns) != 1 || lines[1].End == nil || lines[1].End.Rows != 0 {
		t.Errorf("the answer is %s", body)
	}
}

func TestAStatementOnesRoleMayNotRunIsRefusedBeforeItRuns(t *testing.T) {
	a := newAPI(t, nil)
	for _, c := range []struct {
		role, query string
		status      int
	}{
		{"operator", "SELECT user_hash FROM events", 403},
		{"operator", "SELECT sealed FROM identities", 403},
		{"product", "SELECT count() FROM events", 403},
		{"analyst", "SELECT * FROM url('http://127.0.0.1/', CSV)", 403},
		{"analyst", "DROP TABLE events", 403},
		{"analyst", "SELECT nonsense FROM events", 400},
		{"analyst", "SELEC", 400},
	} {
		body, _ := json.Marshal(Statement{Query: c.query})
		status, answer := a.call("POST", "/v1/sql", c.role, string(body))
		if status != c.status {
			t.Errorf("%s as %s: %d %s, want %d", c.query, c.role, status, answer, c.status)
		}
		if strings.Contains(answer, `"row"`) {
			t.Errorf("%s as %s gave rows: %s", c.query, c.role, answer)
		}
	}
	if n := get[FindingList](a, "analyst", "/v1/findings"); len(n.Findings) == 0 {
		t.Error("the findings are gone")
	}
}

func TestATokenIsMadeListedAndRevoked(t *testing.T) {
	a := newAPI(t, nil)
	status, body := a.call("POST", "/v1/tokens", "administrator", `{"role":"intake","source":"erp","tenant_glob":"t-*","note":"test","expires":"90d"}`)
	var made MadeToken
	if err := json.Unmarshal([]byte(body), &made); err != nil || status != 201 {
		t.Fatal(status, body)
	}
	if made.Role != "intake" || made.Source != "erp" || made.TenantGlob != "t-*" || made.State != "valid" || !strings.HasPrefix(made.Secret, "coc_"+made.ID+"_") {
		t.Errorf("made %+v", made)
	}
	if days := time.Until(time.UnixMilli(int64(made.Expires))).Hours() / 24; days < 89 || days > 91 {
		t.Errorf("it expires in %.1f days", days)
	}
	if status, _ := a.call("DELETE", "/v1/tokens/"+made.ID, "administrator", ""); status != 204 {
		t.Errorf("revoking: %d", status)
	}
	list := get[TokenList](a, "administrator", "/v1/tokens")
	i := slices.IndexFunc(list.Tokens, func(x Token) bool { return x.ID == made.ID })
	if i < 0 || list.Tokens[i].State != "revoked" {
		t.Errorf("the list is %+v", list)
	}
}

func TestTheRolesOfNewTokensAreThoseOfTheStore(t *testing.T) {
	f, _ := reflect.TypeFor[NewToken]().FieldByName("Role")
	if got := strings.Split(f.Tag.Get("enum"), ","); !slices.Equal(got, TokenRoles()) {
		t.Errorf("the tag lists %v, the store %v", got, TokenRoles())
	}
	if RoleIntake == string(store.RoleAdministrator) || slices.Contains(store.Roles(), store.Role(RoleIntake)) {
		t.Error("intake became a role of readers")
	}
}

func TestMomentsAreReadAsPeopleWriteThem(t *testing.T) {
	at := time.Date(2026, 11, 23, 14, 0, 0, 0, time.UTC)
	good := func(in, want string) {
		t.Helper()
		got, err := ParseWhen(in, at, house.zone)
		if err != nil || got.UTC().Format(time.RFC3339) != want {
			t.Errorf("%s is %v, %v, want %s", in, got, err, want)
		}
	}
	good("2026-11-23T15:00:00+01:00", "2026-11-23T14:00:00Z")
	good("2026-11-23", "2026-11-22T23:00:00Z")
	good("24h", "2026-11-22T14:00:00Z")
	good("7d", "2026-11-16T14:00:00Z")
	good("1d12h", "2026-11-22T02:00:00Z")
	good("2w", "2026-11-09T14:00:00Z")
	for _, in := range []string{"-1h", "0s", "1h1d", "5", "1y", "h", "1.5h", "99999999999d", "12h12h", "2026-13-01", "1d ", strings.Repeat("1", 400)} {
		if got, err := ParseWhen(in, at, house.zone); err == nil {
			t.Errorf("%q was read as %v", in, got)
		}
	}
	if event.Stamp(0) != stamp(time.Time{}) {
		t.Error("no time is not 0")
	}
}

// Tags cannot name constants; this holds them to limits.go.
func TestTheBoundsInTagsAreThoseOfTheLimits(t *testing.T) {
	tag := func(of reflect.Type, field, name string) string {
		f, ok := of.FieldByName(field)
		if !ok {
			t.Fatalf("%v has no field %s", of, field)
		}
		return f.Tag.Get(name)
	}
	for _, of := range []reflect.Type{reflect.TypeFor[findingsInput](), reflect.TypeFor[tenantsInput](), reflect.TypeFor[responseTimesInput]()} {
		if tag(of, "Limit", "maximum") != strconv.Itoa(maxList) || tag(of, "Limit", "default") != strconv.Itoa(defaultList) {
			t.Errorf("the limit of %v is not that of limits.go", of)
		}
	}
	of := reflect.TypeFor[Statement]()
	if tag(of, "Limit", "maximum") != strconv.Itoa(maxStatementRows) || tag(of, "Limit", "default") != strconv.Itoa(defaultStatementRows) || tag(of, "Query", "maxLength") != strconv.Itoa(maxStatement) {
		t.Error("the bounds of a statement are not those of limits.go")
	}
}

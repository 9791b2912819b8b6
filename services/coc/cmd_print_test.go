package main

import (
	"bufio"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/opencoc/coc/services/collector"
	"github.com/opencoc/coc/services/console"
	"github.com/opencoc/coc/services/event"
)

// at gives a moment of the golden files' world.
func at(clock string) event.Stamp {
	t, err := time.Parse(time.RFC3339, "2026-11-23T"+clock+"Z")
	if err != nil {
		panic(err)
	}
	return event.Stamp(t.UnixMilli())
}

func finding(id, fired string) event.Finding {
	return event.Finding{ID: id, Rule: "abuse.guessing", Logic: "00", Title: "Guessing", Class: "abuse", Severity: "medium", Status: "production",
		Cell: event.Span{From: at("13:00:00"), To: at("14:00:00")}, Window: event.Span{From: at("13:00:00"), To: at(fired)}, How: "counted exactly, 10 events in 10 minutes",
		Key: map[string]string{"source.ip": "203.0.113.9", "tenant.id": "t1"}, Tenant: "t1", Terms: []event.Term{{Expr: "count", Value: 10}, {Expr: "avg(duration)", Value: 1.5}},
		Fired: at(fired), FiredBy: "web1-1-10", FirstSeen: at("13:00:00"), LastSeen: at(fired), Count: 1234, Revision: 2, Evidence: []string{"web1-1-1", "web1-1-10"}}
}

var facts = console.Facts{Zone: "Europe/Amsterdam"}

// globals catches what a command prints.
func globals(in string) (*Globals, *strings.Builder, *strings.Builder) {
	var out, errs strings.Builder
	return &Globals{Stdin: strings.NewReader(in), Stdout: &out, Stderr: &errs, Now: func() time.Time { return time.UnixMilli(int64(at("14:00:00"))).UTC() }}, &out, &errs
}

// printed is what a function writes.
func printed(t *testing.T, fn func(w io.Writer) error) string {
	t.Helper()
	var b strings.Builder
	if err := fn(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestFindingsAsATable(t *testing.T) {
	first, second, third := finding("0123456789abcdef0123456789abcdef", "13:10:00"), finding("1123456789abcdef0123456789abcdef", "14:10:00"), finding("2", "12:00:00")
	second.Continues = first.ID
	third.Key, third.Status, third.Withdrawn, third.Import, third.Severity = map[string]string{"host.name": "web\x1b[2J"}, "shadow", true, "imp", "critical"
	list := console.FindingList{Facts: facts, Findings: []event.Finding{second, first, third}}
	list.More, list.Simulated = true, true
	g, out, _ := globals("")
	if err := (&FindingsCmd{}).table(g, &list); err != nil {
		t.Fatal(err)
	}
	golden(t, "findings", out.String())
}

func TestNoFindingsSaysWhatToDo(t *testing.T) {
	list := console.FindingList{Facts: facts, EvaluatedThrough: at("13:59:00")}
	g, out, _ := globals("")
	if err := (&FindingsCmd{}).table(g, &list); err != nil {
		t.Fatal(err)
	}
	if err := (&FindingsCmd{Rule: "x"}).table(g, &list); err != nil {
		t.Fatal(err)
	}
	golden(t, "findings-none", out.String())
}

func TestAFindingInFull(t *testing.T) {
	f := finding("0123456789abcdef0123456789abcdef", "13:10:00")
	f.Approximate, f.Continues, f.Import = true, "1", "imp"
	d := console.FindingDetail{Zone: "Europe/Amsterdam", Finding: f, Changed: true,
		Rule: &console.RuleText{ID: f.Rule, Title: map[string]string{"en": "Password guessing", "nl": "Wachtwoorden raden"}, Description: map[string]string{"en": "Somebody guesses.\nIt matters."}, Response: map[string]string{"en": "1. Look.\n2. Ask.\n"}}}
	e := event.Event{Time: int64(at("13:00:00")), Kind: "user", Action: "login", Outcome: "failure", Message: "Failed password \x1b[31m"}
	d.Events = []console.EventLine{{ID: "web1-1-1", Event: event.AppendJSON(nil, &e)}, {ID: "broken", Event: json.RawMessage(`{}{`)}}
	text := detail(&d, "en")
	bare := console.FindingDetail{Zone: "Europe/Amsterdam", Finding: f}
	golden(t, "finding", text+"\n=== in Dutch, first line\n"+strings.SplitN(detail(&d, "nl"), "\n", 2)[0]+"\n=== without rule and events\n"+detail(&bare, "en"))
}

func TestFindingsAsJSONHaveTheKeysOfTheContract(t *testing.T) {
	f := finding("0123456789abcdef0123456789abcdef", "13:10:00")
	f.Key, f.Terms, f.Evidence = nil, nil, nil
	text := printed(t, func(w io.Writer) error { return writeFindings(w, []event.Finding{f, finding("1", "13:11:00")}) })
	if n := strings.Count(text, "\n"); n != 2 {
		t.Fatalf("%d lines: %s", n, text)
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(strings.SplitN(text, "\n", 2)[0]), &got); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"id", "rule", "class", "severity", "key", "fired", "fired_by", "first_seen", "last_seen", "count", "revision", "evidence"} {
		if got[key] == nil {
			t.Errorf("%s is %v", key, got[key])
		}
	}
	if got["fired"] != "2026-11-23T13:10:00.000Z" {
		t.Errorf("fired is %v", got["fired"])
	}
}

func TestStandingAsATable(t *testing.T) {
	list := console.StandingList{Facts: facts, At: at("14:00:00"), Meters: 2, Rows: []console.Standing{
		{Tenant: "t1", Tier: "small", Meter: "backup_copies_per_30d", Unit: "copies", Window: "30d", Used: 31, Previous: 4, Trend: 6.75, Allowed: true, Allowance: 4, Ratio: 7.75, Above: true, Since: at("10:00:00")},
		{Tenant: "t2", Tier: "small", Meter: "backup_bytes", Unit: "bytes", Window: "30d", Used: 5e9, Allowed: true, Allowance: 0, Ratio: 1e9, Above: true},
		{Tenant: "t3", Tier: "large", Meter: "backup_copies_per_30d", Unit: "copies", Window: "30d", Used: 0, Previous: 0, Allowed: true, Allowance: 20},
		{Tenant: "t4", Tier: "odd", Meter: "backup_copies_per_30d", Unit: "copies", Window: "30d", Used: 1, Previous: 2, Trend: -0.5},
	}}
	text := printed(t, func(w io.Writer) error { return (&TenantsCmd{}).standing(w, &list) })
	none := console.StandingList{Facts: facts, Meters: 1}
	text += "=== nobody\n" + printed(t, func(w io.Writer) error { return (&TenantsCmd{}).standing(w, &none) })
	text += "=== nothing fits\n" + printed(t, func(w io.Writer) error { return (&TenantsCmd{Above: true}).standing(w, &none) })
	text += "=== no allowances\n" + printed(t, func(w io.Writer) error { return (&TenantsCmd{}).standing(w, &console.StandingList{}) })
	golden(t, "tenants", text)
}

func TestUsageAsATable(t *testing.T) {
	list := console.UsageList{Facts: facts,
		Days: []console.UsageDay{{Day: "2026-11-20", Rows: 2, FewTenants: 3, Dominated: 1}, {Day: "2026-11-21", Rows: 1, Late: 1200}},
		Rows: []console.UsageRow{
			{Day: "2026-11-20", Service: "profit", Version: "12", ResourceType: "*", ResourceName: "*", Tier: "*", Tenants: 40, Users: 400, Uses: 12345, Failures: 123, Timed: 1000, Buckets: console.Buckets{Ms100: 100, Ms200: 100, Ms500: 300, Ms1000: 250, Ms2000: 200, More: 50}},
			{Day: "2026-11-21", Service: "profit", Version: "12", ResourceType: "window", ResourceName: "Eigenschappen Medewerker", Tier: "small", Tenants: 11, Users: 12, Uses: 13},
		}}
	list.Simulated = true
	text := printed(t, func(w io.Writer) error { return (&UsageCmd{}).table(w, &list) })
	text += "=== asked for days\n" + printed(t, func(w io.Writer) error { return (&UsageCmd{From: "2026-11-20"}).table(w, &list) })
	text += "=== nothing\n" + printed(t, func(w io.Writer) error { return (&UsageCmd{}).table(w, &console.UsageList{}) })
	text += "=== nothing yet\n" + printed(t, func(w io.Writer) error { return (&UsageCmd{}).table(w, &console.UsageList{Waiting: 13}) })
	text += "=== nothing of these\n" + printed(t, func(w io.Writer) error { return (&UsageCmd{To: "2026-11-20"}).table(w, &console.UsageList{}) })
	text += "=== JSON\n" + printed(t, func(w io.Writer) error { return usageJSON(w, &list) })
	golden(t, "usage", text)
}

func TestTheLedgerAsATable(t *testing.T) {
	r := console.LedgerReport{Zone: "Europe/Amsterdam", Balanced: true, Complete: true, Rows: []console.LedgerRow{
		{Source: "http", Hour: at("12:00:00"), Received: 1234, Stored: 1200, Refused: 30, DeadLettered: 1, Waiting: 3}, {Source: "journal", Hour: at("12:00:00"), Received: 5, Stored: 5},
	}}
	text := printed(t, func(w io.Writer) error { return ledgerTable(w, &r) })
	if err := unaccounted(&r); err != nil {
		t.Errorf("a ledger that balances: %v", err)
	}
	r.Balanced, r.Complete, r.Rows[1].Difference = false, false, 2
	r.Gaps = []console.Gap{{Collector: "web1", Epoch: 7, From: 16, To: 19, At: at("12:30:00")}, {Collector: "web1", Epoch: 7, From: 24, To: 24, Twice: true, At: at("12:31:00")}}
	r.DeadLetters = []console.DeadLetters{{Source: "erp", From: "intake", Reason: "bad_json", Count: 3, Newest: at("11:00:00")}}
	text += "=== does not balance\n" + printed(t, func(w io.Writer) error { return ledgerTable(w, &r) }) + "=== --check\n" + unaccounted(&r).Error() +
		"\n=== JSON\n" + printed(t, func(w io.Writer) error { return ledgerJSON(w, &r) }) +
		"=== nothing\n" + printed(t, func(w io.Writer) error { return ledgerTable(w, &console.LedgerReport{}) })
	golden(t, "ledger", text)
}

func TestTokensAndSourcesAsTables(t *testing.T) {
	tokens := console.TokenList{Zone: "Europe/Amsterdam", Tokens: []console.Token{
		{ID: "abcdefgh", Role: "intake", Source: "erp", TenantGlob: "t-*", Note: "the ERP\x07", Created: at("10:00:00"), Expires: at("23:00:00"), State: "valid"},
		{ID: "ijklmnop", Role: "analyst", Created: at("10:00:00"), Expires: at("11:00:00"), State: "expired"},
	}}
	sources := []collector.SourceStatus{
		{Name: "journal", Kind: "journal", State: "running", Events: 1000, LastEvent: at("13:00:00"), Quiet: true, Refused: map[string]int64{"too_old": 3, "bad_text": 12}},
		{Name: "auth", Kind: "logfile", Path: "/var/log/auth.log", State: "failed", Detail: "permission denied; run: usermod -aG adm coc"},
	}
	golden(t, "tokens-sources", printed(t, func(w io.Writer) error { return tokensTable(w, &tokens) })+
		"=== none\n"+printed(t, func(w io.Writer) error { return tokensTable(w, &console.TokenList{Zone: "UTC"}) })+
		"=== sources\n"+printed(t, func(w io.Writer) error { return sourcesTable(w, sources, time.UTC) })+
		"=== no sources\n"+printed(t, func(w io.Writer) error {
		return sourcesTable(w, nil, time.UTC)
	}))
}

func TestTheSumOfAnImport(t *testing.T) {
	s := collector.Summary{Format: "sshd", Lines: 7421, Events: 7446, First: at("10:00:00"), Last: at("13:00:00"),
		Actions: map[string]int64{"login": 1264, "log_line": 12, "a": 1, "b": 1, "c": 1, "d": 1, "e": 1, "f": 1, "g": 1, "h": 1}, Refused: map[string]int64{"bad_text": 1}}
	text := importText(&s, "auth.log", 1500*time.Millisecond)
	s.Skipped, s.Actions, s.Refused = 1_000_000, nil, nil
	text += importText(&s, "auth.log", time.Second)
	s.Resumed = true
	text += importText(&s, "auth.log", time.Second)
	s.Known = true
	text += importText(&s, "auth\x1b.log", time.Second)
	golden(t, "import", text)
}

func TestATailIsALineAnEvent(t *testing.T) {
	g, out, errs := globals("")
	p := &tailPrinter{cmd: &TailCmd{Limit: 2}, out: g.Stdout, errs: g.Stderr, zone: time.UTC, decoder: event.NewJSONDecoder()}
	p.decoder.Internal = true
	e := event.Event{Time: int64(at("13:00:00")), Kind: "user", Action: "login", Outcome: "failure", TenantID: "t1", HostName: "web1", SourceIP: "203.0.113.9", UserHash: "0123456789abcdef0123456789abcdef", Message: "evil\x1b[2J"}
	e.SetDuration(12.5)
	gauge := event.Event{Time: int64(at("13:00:01")), Kind: "system", Action: "host_cpu", HostName: "web1"}
	gauge.SetValue(0.25)
	lines := []console.TailLine{{Alive: at("13:00:00")}, {ID: "1", Event: event.AppendJSON(nil, &e)}, {Dropped: 7}, {ID: "2", Event: event.AppendJSON(nil, &gauge)}}
	var err error
	for _, l := range lines {
		data, merr := json.Marshal(l)
		if merr != nil {
			t.Fatal(merr)
		}
		err = p.line(data)
	}
	if err != errEnough {
		t.Errorf("after two events: %v, want the end", err)
	}
	if err := p.line([]byte(`{"error":"coc is stopping"}`)); err == nil || err.Error() != "coc is stopping" {
		t.Errorf("the stream's error: %v", err)
	}
	golden(t, "tail", out.String()+"=== to standard error\n"+errs.String())
}

func TestAnswersToSQL(t *testing.T) {
	stream := []string{
		`{"columns":[{"name":"action","type":"LowCardinality(String)"},{"name":"n","type":"UInt64"},{"name":"x\"y","type":"Nullable(Float64)"},{"name":"empty","type":"String"}]}`,
		`{"row":["login\u001b",12345678901234567890,null,""]}`, `{"row":["é",5,0.5,""]}`, `{"row":["",5,{"a":[1]},""]}`,
		`{"end":{"rows":3,"more":false,"fields":[],"classes":[],"elapsed_ms":12,"simulated":false,"zone":"UTC"}}`,
	}
	run := func(asJSON bool, lines ...string) (string, *sqlPrinter, error) {
		var b strings.Builder
		p := &sqlPrinter{json: asJSON, out: bufio.NewWriter(&b)}
		var err error
		for _, l := range lines {
			if err = p.line([]byte(l)); err != nil {
				break
			}
		}
		if ferr := p.flushTable(); err == nil {
			err = ferr
		}
		if ferr := p.out.Flush(); err == nil {
			err = ferr
		}
		return b.String(), p, err
	}
	table, p, err := run(false, stream...)
	if err != nil || p.end == nil || p.end.Rows != 3 {
		t.Fatal(err, p.end)
	}
	asJSON, _, err := run(true, stream...)
	if err != nil {
		t.Fatal(err)
	}
	empty, _, err := run(false, stream[0], stream[4])
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "sql", table+"=== JSON\n"+asJSON+"=== no rows\n"+empty)
	for l := range strings.Lines(asJSON) {
		if !json.Valid([]byte(l)) {
			t.Errorf("not JSON: %s", l)
		}
	}
	if _, _, err := run(false, stream[0], `{"error":"memory\u001b is full"}`); err == nil || err.Error() != `memory\x1b is full` {
		t.Errorf("an error within the stream: %v", err)
	}
	if _, _, err := run(true, stream[0], `{"row":[1]}`); err == nil {
		t.Error("a row of another width was taken")
	}
}

func TestALongSQLAnswerIsPrintedInParts(t *testing.T) {
	var b strings.Builder
	p := &sqlPrinter{out: bufio.NewWriter(&b)}
	if err := p.line([]byte(`{"columns":[{"name":"n","type":"UInt64"}]}`)); err != nil {
		t.Fatal(err)
	}
	for range 2*tableSample + 1 {
		if err := p.line([]byte(`{"row":[7]}`)); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.flushTable(); err != nil {
		t.Fatal(err)
	}
	if err := p.out.Flush(); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(b.String(), "n\n"); got != 1 {
		t.Errorf("the head is printed %d times", got)
	}
	if got := strings.Count(b.String(), "7\n"); got != 2*tableSample+1 {
		t.Errorf("%d rows are printed", got)
	}
}

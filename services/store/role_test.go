package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/opencoc/coc/services/event"
)

// ask runs a statement and returns its rows as JSON lines.
func ask(t testing.TB, role Role, text string) ([]string, SQLInfo, error) {
	t.Helper()
	var out []string
	info, err := house.SQL(t.Context(), Reader{Role: role, Token: "test"}, text, 0, func(_ []Column, row []any) error {
		line, err := json.Marshal(row)
		out = append(out, string(line))
		return err
	})
	return out, info, err
}

// secret is planted in every field of class person and free.
const secret = "s3cr3t"

// plant stores one event with a secret where an operator must not see it.
func plant(t testing.TB) {
	t.Helper()
	e := event.Event{Time: day0.UnixMilli(), Received: day0.UnixMilli(), Kind: "user", Action: "planted", Collector: "plant", Epoch: 1, Seq: 1, TenantID: "planted"}
	for i := range event.Fields {
		if f := &event.Fields[i]; f.Class == event.Person || f.Class == event.Free {
			if p := e.Text(i); p != nil {
				*p = secret
			}
		}
	}
	e.SetLabel("note", secret)
	put(t, "plant", e)
	f := sampleFinding(strings.Repeat("ab", 16))
	f.Rule, f.Key = "planted", map[string]string{"user.hash": secret, "source.ip": secret, "labels.note": secret, "tenant.id": "planted"}
	if err := house.InsertFindings(t.Context(), []FindingRow{{f, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := house.InsertIdentities(t.Context(), []Identity{{Tenant: "planted", Hash: secret, Sealed: []byte(secret), Key: "k", FirstSeen: day0, LastSeen: day0, Revision: 1}}); err != nil {
		t.Fatal(err)
	}
	if err := house.InsertWork(t.Context(), []WorkRow{{Kind: "case", ID: "planted", Seq: 1, Time: day0, Actor: secret, Reason: secret, Data: secret}}); err != nil {
		t.Fatal(err)
	}
}

func TestNobodyBreaksOutOfARole(t *testing.T) {
	plant(t)
	attacks := []string{
		// named, hidden behind *, patterns, aliases, subqueries, CTEs, joins
		"SELECT user_hash FROM events",
		"SELECT e.user_hash AS kind FROM events AS e",
		"SELECT `user_hash` FROM events",
		`SELECT "user_hash" FROM events`,
		`SELECT "user\x5fhash" FROM events`,
		"SELECT * FROM events",
		"SELECT events.* FROM events",
		"SELECT COLUMNS('.*') FROM events",
		"SELECT COLUMNS(user_hash) FROM events",
		"SELECT * REPLACE (message AS kind) FROM events",
		"SELECT * EXCEPT (kind) FROM events",
		"SELECT * APPLY(toString) FROM events",
		"SELECT tuple(*) FROM events",
		"SELECT tuple(events.*) FROM events",
		"SELECT untuple(tuple(*)) FROM events",
		"WITH x AS (SELECT message AS m FROM events) SELECT m FROM x",
		"WITH (SELECT any(message) FROM events) AS m SELECT m",
		"WITH x AS (SELECT * FROM events) SELECT * FROM x",
		"WITH events AS (SELECT * FROM coc.events) SELECT * FROM events",
		"SELECT (SELECT max(message) FROM coc.events)",
		"SELECT * FROM (SELECT * FROM events)",
		"SELECT a.id FROM events a JOIN coc.events b ON a.id = b.id AND b.message != ''",
		"SELECT count() FROM events WHERE message LIKE 's3%'",
		"SELECT count() FROM events WHERE source_ip IN (SELECT source_ip FROM coc.events)",
		"SELECT kind FROM events ORDER BY user_hash",
		"SELECT count() FROM events GROUP BY user_hash",
		"SELECT kind FROM events LIMIT 1 BY message",
		"SELECT any(kind) OVER (PARTITION BY user_hash) FROM events",
		"SELECT arrayMap(x -> message, [1]) FROM events",
		"SELECT if(message = 's3cr3t', 1, 2) FROM events",
		"SELECT labels FROM events", "SELECT labels['note'] FROM events", "SELECT mapKeys(labels) FROM events",
		"SELECT labels.keys FROM events", "SELECT labels.values FROM events", "SELECT message.size FROM events",
		// errors and conditions as oracles
		"SELECT throwIf((SELECT count() FROM coc.events WHERE message = 's3cr3t') > 0)",
		"SELECT toUInt8((SELECT any(message) FROM coc.events WHERE message != ''))",
		"SELECT 1 WHERE 's3cr3t' IN (SELECT message FROM coc.events)",
		"SELECT 1 IN coc.identities", "SELECT 's3cr3t' IN identities", "SELECT 1 IN `coc`.`identities`",
		"SELECT * FROM coc . events", "SELECT * FROM coc/**/.events", "SELECT * FROM coc\n.\nevents", "SELECT * FROM `coc`.`events`",
		"SELECT * FROM `co\\x63`.events", "SELECT * FROM \"coc\".\"events\"",
		// other tables
		"SELECT * FROM identities", "SELECT sealed FROM coc.identities", "SELECT * FROM coc_analyst.events", "SELECT * FROM coc_administrator.events",
		"SELECT data FROM work", "SELECT actor, reason FROM work", "SELECT * FROM work",
		"SELECT * FROM system.tables", "SELECT * FROM system.query_log", "SELECT * FROM system.processes", "SELECT * FROM information_schema.tables",
		"SELECT name FROM `system`.tables", "SELECT * FROM INFORMATION_SCHEMA.COLUMNS", "SELECT * FROM default.events", "SELECT * FROM one",
		// table functions
		"SELECT * FROM merge('coc', 'events')", "SELECT * FROM merge(coc, 'events')", "SELECT * FROM view(SELECT * FROM coc.events)",
		"SELECT * FROM remote('127.0.0.1', coc, events)", "SELECT * FROM cluster('default', coc.events)", "SELECT * FROM file('/etc/passwd', LineAsString)",
		"SELECT * FROM url('http://127.0.0.1/', LineAsString)", "SELECT * FROM s3('http://127.0.0.1/b/k', 'TSV')", "SELECT * FROM executable('id', TSV, 'a String')",
		"SELECT * FROM mergeTreeIndex('coc', 'events')", "SELECT * FROM dictionary('x')", "SELECT * FROM loop('coc', 'events')", "SELECT * FROM values('a String', 'b')",
		"SELECT * FROM viewIfPermitted(SELECT * FROM coc.events ELSE null('a Int8'))", "SELECT * FROM input('a Int8')", "SELECT * FROM fuzzQuery('SELECT 1')",
		"SELECT * FROM (SELECT * FROM numbers(3)) JOIN merge('coc', '.*') ON 1",
		// functions
		"SELECT dictGet('coc.events', 'message', 1)", "SELECT joinGet('coc.events', 'message', 1)", "SELECT joinGetOrNull(coc.events, 'message', 1)",
		"SELECT file('/etc/passwd')", "SELECT hasColumnInTable('coc', 'events', 'message')", "SELECT getSetting('readonly')", "SELECT sleep(3)", "SELECT sleepEachRow(1)",
		"SELECT currentUser()", "SELECT filesystemAvailable()", "SELECT getServerSetting('path')",
		// statements
		"INSERT INTO events (kind) VALUES ('x')", "INSERT INTO coc.events SELECT * FROM coc.events", "INSERT INTO FUNCTION file('/tmp/x', TSV, 'a Int8') SELECT 1",
		"ALTER TABLE events DELETE WHERE 1", "ALTER TABLE coc.events DROP COLUMN message", "DROP TABLE coc.events", "DROP DATABASE coc", "TRUNCATE TABLE coc.events",
		"DELETE FROM coc.events WHERE 1", "UPDATE coc.events SET kind = 'x' WHERE 1", "CREATE TABLE x (a Int8) ENGINE = Memory", "CREATE VIEW v AS SELECT * FROM coc.events",
		"CREATE TEMPORARY TABLE x (a Int8)", "CREATE FUNCTION f AS x -> x", "CREATE USER x", "GRANT ALL ON *.* TO default", "RENAME TABLE coc.events TO coc.e",
		"SET readonly = 0", "SET max_execution_time = 0", "USE coc", "SYSTEM SHUTDOWN", "SYSTEM FLUSH LOGS", "KILL QUERY WHERE 1", "OPTIMIZE TABLE coc.events FINAL",
		"ATTACH TABLE x", "DETACH TABLE coc.events", "BACKUP TABLE coc.events TO Disk('a', 'b')", "EXPLAIN SELECT * FROM coc.events", "DESCRIBE TABLE coc.events",
		"SHOW TABLES", "SHOW CREATE TABLE coc.events", "EXISTS coc.events", "CHECK TABLE coc.events", "WATCH x", "VALUES (1)",
		// several, settings, formats, files
		"SELECT 1; SELECT * FROM coc.events", "SELECT 1; DROP TABLE coc.events", "SELECT 1;;SELECT 2", "; SELECT 1 ; DROP TABLE coc.events ;",
		"SELECT 1 PARALLEL WITH SELECT 2", "SELECT 1 SETTINGS readonly = 0", "SELECT * FROM (SELECT 1 SETTINGS max_execution_time = 0)",
		"SELECT 1 SETTINGS max_result_rows = 0, final = 0", "(SELECT 1) SETTINGS max_threads = 1", "SELECT 1 FORMAT Native", "SELECT 1 INTO OUTFILE '/tmp/coc-out'",
		"SELECT * FROM (SELECT 1 FORMAT TSV)", "SELECT {x:String}", "SELECT {x:Identifier} FROM events", "SELECT * FROM {t:Identifier}",
		// comments and quotes that could be read in two ways
		"SELECT 1 /* /* */ ; DROP TABLE coc.events -- */", "SELECT 1 -- \n; DROP TABLE coc.events", "SELECT 1 # x\n; DROP TABLE coc.events",
		"SELECT $$'$$, message FROM coc.events WHERE '' = $$'$$", "SELECT $x$ a $x$", "SELECT 'a\\' , message FROM coc.events --'", "SELECT ‘a‘", "SELECT 1 −1",
		"SELECT 'a''; DROP TABLE coc.events; --'; SELECT 1", "SELECT \x00 1", "SELECT 'unclosed", "SELECT /* unclosed", "SELECT `unclosed",
		"SELECT 1) UNION ALL (SELECT message FROM coc.events", "SELECT 1 AS `a (alias x)\n    TableIdentifier events` FROM coc.events",
		"SELECT 1 AS `x\n TABLE id: 3, table_name: system.one` FROM coc.events",
		"WITH RECURSIVE x AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM x) SELECT * FROM x", "", ";", "--", "/* */",
	}
	for _, attack := range attacks {
		for _, role := range []Role{RoleOperator, RoleProduct} {
			rows, info, err := ask(t, role, attack)
			if strings.Contains(strings.Join(rows, "\n"), secret) {
				t.Errorf("%s sees the secret through %q: %v", role, attack, rows)
			}
			if err != nil && strings.Contains(err.Error(), "'"+secret) && !strings.Contains(attack, secret) {
				t.Errorf("%s is told the secret by an error of %q: %v", role, attack, err)
			}
			if slices.Contains(info.Classes, event.Person) || slices.Contains(info.Classes, event.Free) {
				t.Errorf("%s reads classes %v through %q", role, info.Classes, attack)
			}
			if harmless := err == nil && len(info.Tables) <= 1; !harmless && err == nil {
				t.Errorf("%s may run %q: tables %v", role, attack, info.Tables)
			}
		}
	}
	if n := scalar[uint64](t, "SELECT count() FROM events WHERE action = 'planted'"); n != 1 {
		t.Errorf("after the attacks the planted event is there %d times", n)
	}
	if _, err := os.Stat("/tmp/coc-out"); err == nil {
		t.Error("an attack wrote a file")
	}
	if scalar[uint64](t, "SELECT count() FROM system.functions WHERE origin != 'System'") != 0 {
		t.Error("an attack made a function")
	}
}

// What the operator may ask shows that the attacks fail for the right reason.
func TestARefusalNamesWhatWasRefused(t *testing.T) {
	plant(t)
	refused := func(role Role, text, object string, class event.Class) {
		t.Helper()
		_, _, err := ask(t, role, text)
		var r *Refused
		if !errors.As(err, &r) {
			t.Errorf("%s: %q gives %v, not a refusal", role, text, err)
			return
		}
		if r.Object != object || r.Class != class || r.Role != role {
			t.Errorf("%s: %q refuses %q of class %q: %v", role, text, r.Object, r.Class, err)
		}
	}
	refused(RoleOperator, "SELECT user_hash FROM events", "events.user_hash", event.Person)
	refused(RoleOperator, "SELECT e.message FROM events AS e", "events.message", event.Free)
	refused(RoleOperator, "SELECT count() FROM identities", "identities", "")
	refused(RoleProduct, "SELECT count() FROM events", "events", "")
	refused(RoleProduct, "SELECT tenant_id FROM tenant_response_times", "tenant_response_times", "")
	refused(RoleAnalyst, "SELECT * FROM identities", "identities", "")
	refused(RoleAnalyst, "SELECT * FROM system.users", "database system", "")
	refused(RoleAdministrator, "SELECT * FROM system.users", "database system", "")
	refused(RoleAdministrator, "SELECT * FROM url('http://x/')", "table function url", "")
	refused(RoleAdministrator, "DROP TABLE events", "DropQuery", "")
	refused(RoleSupport, "SELECT 1", "SQL", "")
	refused(RoleAccountManager, "SELECT 1", "SQL", "")
	refused(Role("root"), "SELECT 1", "SQL", "")
	if _, _, err := ask(t, RoleAnalyst, "SELECT * FROM event"); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "there are events, batches") {
		t.Errorf("a mistyped table gives %v", err)
	}
}

func TestEachRoleSeesItsClasses(t *testing.T) {
	plant(t)
	sees := func(role Role, text, want string, classes ...event.Class) {
		t.Helper()
		rows, info, err := ask(t, role, text)
		if err != nil || strings.Join(rows, "\n") != want {
			t.Errorf("%s: %s\ngives %v, %v\nwanted %s", role, text, rows, err, want)
		}
		if !slices.Equal(info.Classes, classes) {
			t.Errorf("%s: %s reads classes %v, wanted %v", role, text, info.Classes, classes)
		}
	}
	const where = " FROM events WHERE action = 'planted' LIMIT 1"
	sees(RoleOperator, "SELECT kind, tenant_id, id"+where, `["user","planted","`+secretID(t)+`"]`, event.Public, event.Tenant)
	sees(RoleAnalyst, "SELECT user_hash, message, labels['note']"+where, `["s3cr3t","s3cr3t","s3cr3t"]`, event.Free, event.Person, event.Public)
	sees(RoleAdministrator, "SELECT sealed FROM identities WHERE tenant_id = 'planted'", `["s3cr3t"]`, event.Person, event.Tenant)
	sees(RolePrivacy, "SELECT actor FROM work WHERE id = 'planted'", `["s3cr3t"]`, event.Person, event.Tenant)
	sees(RoleOperator, "SELECT key FROM findings WHERE rule = 'planted'", `[{"tenant.id":"planted"}]`, event.Public, event.Tenant)
	sees(RoleAnalyst, "SELECT key['source.ip'] FROM findings WHERE rule = 'planted'", `["s3cr3t"]`, event.Public, event.Tenant)
	sees(RoleProduct, "SELECT count() FROM release_usage WHERE service = 'nothing'", `[0]`, event.Public)
	sees(RoleProduct, "WITH x AS (SELECT number AS n FROM numbers(3)) SELECT sum(n) FROM x", `[3]`)
}

func secretID(t testing.TB) string {
	return scalar[string](t, "SELECT id FROM events WHERE action = 'planted' LIMIT 1")
}

func TestQuestionsKeepToTheRoleToo(t *testing.T) {
	plant(t)
	ctx := t.Context()
	page, err := house.Events(ctx, Reader{Role: RoleSupport}, EventFilter{Action: "planted"})
	if err != nil || len(page.Events) != 1 {
		t.Fatal(page, err)
	}
	if text := fmt.Sprintf("%+v", page.Events[0]); strings.Contains(text, secret) || page.Events[0].TenantID != "planted" {
		t.Errorf("support sees %s", text)
	}
	page, err = house.Events(ctx, Reader{Role: RoleAnalyst}, EventFilter{UserHash: secret, Search: "3CR3T", IDs: []string{secretID(t)}})
	if err != nil || len(page.Events) != 1 || page.Events[0].Message != secret || page.Events[0].Label("note") != secret {
		t.Errorf("an analyst sees %+v, %v", page, err)
	}
	for _, f := range []EventFilter{{UserHash: secret}, {SourceIP: secret}, {Search: "x"}} {
		var r *Refused
		if _, err := house.Events(ctx, Reader{Role: RoleSupport}, f); !errors.As(err, &r) {
			t.Errorf("support may filter by %+v: %v", f, err)
		}
	}
	for role, want := range map[Role]int{RoleAccountManager: 1, RoleSupport: 1, RoleAnalyst: 4} {
		list, err := house.Findings(ctx, Reader{Role: role}, FindingFilter{Rule: "planted"})
		if err != nil || len(list.Findings) != 1 || len(list.Findings[0].Key) != want {
			t.Errorf("%s sees the keys %v, %v", role, list.Findings, err)
		}
	}
	none := func(err error, who Role, what string) {
		t.Helper()
		var r *Refused
		if !errors.As(err, &r) {
			t.Errorf("%s may ask for %s: %v", who, what, err)
		}
	}
	_, err = house.Findings(ctx, Reader{Role: RoleProduct}, FindingFilter{})
	none(err, RoleProduct, "findings")
	_, err = house.Events(ctx, Reader{Role: RoleAccountManager}, EventFilter{})
	none(err, RoleAccountManager, "events")
	_, _, err = house.Tenants(ctx, Reader{Role: RoleProduct}, nil, day0, StandingFilter{})
	none(err, RoleProduct, "standings")
	_, _, err = house.ResponseTimes(ctx, Reader{Role: RoleProduct}, ResponseTimeFilter{})
	none(err, RoleProduct, "response times")
	_, err = house.Ledger(ctx, Reader{Role: RoleSupport}, day0, day0.AddDate(0, 0, 1), nil)
	none(err, RoleSupport, "the ledger")
	_, err = house.Gaps(ctx, Reader{}, day0)
	none(err, "", "gaps")
	_, err = house.Usage(ctx, Reader{Role: "root"}, "", "")
	none(err, "root", "usage")
}

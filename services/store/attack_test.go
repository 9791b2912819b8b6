package store

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// pieces are what random statements are made of: each place by its name in
// angle brackets.
var pieces = map[string][]string{
	"select": {"SELECT <expr> FROM <from> <tail>", "SELECT <expr>, <expr> FROM <from> <tail>", "WITH <with> SELECT <expr> FROM <from> <tail>", "SELECT <expr>",
		"(<select>) UNION ALL (<select>)", "SELECT * FROM (<select>)", "<select> -- <junk>", "<select>; <select>", "SELECT <expr> FROM <from> ARRAY JOIN <expr> AS z"},
	"with":   {"x AS (<select>)", "(<select>) AS x", "events AS (<select>)", "<expr> AS x", "identities AS (SELECT 1 AS sealed), x AS (<select>)"},
	"from":   {"events", "events", "findings", "work", "x", "identities", "coc.events", "`coc`.`events`", "(<select>)", "events AS e JOIN <from> AS f ON <expr>", "numbers(3)", "coc_operator.events", "merge('coc', '.*')", "events FINAL"},
	"expr":   {"<column>", "<column>", "*", "COLUMNS('<column>')", "events.<column>", "toString(<column>)", "(<select>)", "tuple(*)", "any(<column>)", "<expr> || <expr>", "[<expr>]", "if(<expr> = 's3cr3t', 1, 2)", "* EXCEPT (<column>)", "* REPLACE (<column> AS kind)", "toUInt8(<expr>)", "throwIf(<expr> != '')", "<column> IN (<select>)", "<column> IN <from>", "map('a', <expr>)", "1", "groupArray(<expr>) OVER (PARTITION BY <column>)", "arrayMap(y -> <column>, [1])", "CAST(<expr> AS String)", "<junk>"},
	"column": {"kind", "id", "action", "tenant_id", "host_name", "message", "user_hash", "labels", "labels['note']", "labels.values", "key", "key['source.ip']", "sealed", "data", "actor", "reason", "kind", "id", "tenant_id", "x", "e.message", "f.source_ip", "coc.events.message", "`message`", "session_id", "process_command_line"},
	"tail":   {"", "", "WHERE <expr>", "GROUP BY <column>", "ORDER BY <expr>", "LIMIT 1 BY <column>", "LIMIT (<select>)", "HAVING <expr>", "SETTINGS max_threads = 1", "FORMAT TSV", "QUALIFY <expr>", "WHERE message = 's3cr3t'"},
	"junk":   {"/* x */", "'", "`", "$$", "#", "‘", "\\", "''", "\n", "--", "/*"},
}

// statement fills a place at random, down to a depth.
func statement(r *rand.Rand, place string, depth int) string {
	list := pieces[place]
	text := list[r.IntN(len(list))]
	if depth <= 0 && place != "column" && place != "junk" {
		text = list[0]
		if place == "select" {
			text = "SELECT <column> FROM events"
		}
	}
	var b strings.Builder
	for {
		before, rest, ok := strings.Cut(text, "<")
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		name, after, _ := strings.Cut(rest, ">")
		if pieces[name] == nil { // not a place
			b.WriteString("<")
			text = rest
			continue
		}
		b.WriteString(statement(r, name, depth-1))
		text = after
	}
}

func TestRandomStatementsKeepTheSecret(t *testing.T) {
	plant(t)
	r := rand.New(rand.NewPCG(1, 2))
	ran := 0
	for i := range 600 {
		text := statement(r, "select", 1+i%4)
		rows, _, err := ask(t, RoleOperator, text)
		if err == nil {
			ran++
		}
		asked := strings.Contains(text, secret)
		if told := strings.Join(rows, "\n"); strings.Contains(told, secret) && !asked {
			t.Errorf("%q tells %v", text, rows)
		}
		if err != nil && strings.Contains(err.Error(), secret) && !asked {
			t.Errorf("%q tells by its error %v", text, err)
		}
	}
	if ran < 20 {
		t.Errorf("only %d of 600 random statements ran: they attack nothing", ran)
	}
}

func FuzzLex(f *testing.F) {
	for _, seed := range []string{"SELECT 1", "'a\\'", "`a`.\"b\" -- c\n/* d */ ; $", "\x00", "é", "/*/", "''''", "a.b"} {
		f.Add(seed)
	}
	f.Fuzz(func(_ *testing.T, text string) {
		_ = lex(text, func(lexeme) error { return nil })
		_ = reachesFiles(text)
		_ = streams(text)
		_, _ = splitStatements(text)
		_, _, _ = cutFormat(text)
	})
}

func FuzzExplain(f *testing.F) {
	f.Add("SelectWithUnionQuery (children 1)\n ExpressionList (children 1)\n  SelectQuery (children 1)\n   Function plus (alias x) (children 1)")
	f.Add("QUERY id: 0\n TABLE id: 3, alias: a, table_name: coc.events, final: 1\n COLUMN id: 2, column_name: a, result_type: Int32, source_id: 3")
	f.Add(" (children )\n(alias \nTABLE id: \n id: , table_name: ")
	f.Fuzz(func(_ *testing.T, text string) {
		c := checker{role: RoleOperator, catalogue: "coc_operator", databases: map[string]bool{"coc": true}}
		lines := strings.Split(text, "\n")
		_ = c.syntax(lines)
		_, _, _ = c.tree(lines)
	})
}

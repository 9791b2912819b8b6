package store

import (
	"context"
	"fmt"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/opencoc/coc/services/event"
)

// A role that may write statements but does not see everything does so against
// views: its catalogue is a database of its own, which has its tables with the
// columns of its classes and nothing else. Analysing a statement is not enough to
// keep a column back: ClickHouse computes scalar subqueries while it analyses,
// so an error there would tell what may not be asked. What does not exist
// cannot be asked.

// catalogue is the database in which the role's statements run.
func (s *Store) catalogue(r Role) string {
	if r.seesAll() {
		return s.config.Database
	}
	return s.config.Database + "_" + string(r)
}

// catalogues makes or renews the views; they are derived from the tables of
// roles and fields, so they are written anew at every start.
func (s *Store) catalogues(ctx context.Context) error {
	for _, right := range rights {
		if !right.sql || right.role.seesAll() {
			continue
		}
		database := s.catalogue(right.role)
		if err := s.conn.Exec(ctx, "CREATE DATABASE IF NOT EXISTS "+quoteName(database)); err != nil {
			return wrap("making the catalogue of role "+string(right.role), err)
		}
		for _, table := range right.tables {
			view := viewOf(right.role, s.config.Database, table)
			if view == "" {
				continue
			}
			statement := "CREATE OR REPLACE VIEW " + quoteName(database) + "." + quoteName(table) + " AS " + view
			if err := s.conn.Exec(ctx, statement); err != nil {
				return wrap(fmt.Sprintf("making the view %s of role %s", table, right.role), err)
			}
		}
	}
	return nil
}

// viewOf selects the columns of a table that a role may see; "" if there are
// none, or it is no table. Of tables that replace rows it shows the last ones.
func viewOf(r Role, database, table string) string {
	var columns []string
	for _, column := range columnsOf(table) {
		class, _ := ClassOf(table, column)
		if !r.MaySee(class) {
			continue
		}
		if table == tableFindings && column == "key" {
			columns = append(columns, shownKey(r)+" AS key")
			continue
		}
		columns = append(columns, quoteName(column))
	}
	if len(columns) == 0 {
		return ""
	}
	from := quoteName(database) + "." + quoteName(table)
	if replacing[table] {
		from += " FINAL"
	}
	return "SELECT " + strings.Join(columns, ", ") + " FROM " + from
}

// shownKey is the key of a finding with the entries that the role may see, by
// the class of their field; what is none is not shown. A label has a name of its
// own and the class of all labels. The names are ours, from the table of fields.
func shownKey(r Role) string {
	var quoted []string
	for i := range event.Fields {
		if r.MaySee(event.Fields[i].Class) {
			quoted = append(quoted, "'"+event.Fields[i].Name+"'")
		}
	}
	if len(quoted) == len(event.Fields) {
		return "key"
	}
	shown := "has([" + strings.Join(quoted, ", ") + "], k)"
	if labels := &event.Fields[event.FLabels]; r.MaySee(labels.Class) {
		shown += " OR startsWith(k, '" + labels.Name + ".')"
	}
	return "mapFilter((k, v) -> " + shown + ", key)"
}

// replacing names the tables of which only the last version of a row counts.
var replacing = map[string]bool{
	tableBatches: true, tableFindings: true, tableIdentities: true, tableWork: true, tableMigrations: true,
	tableReleaseDays: true, tableReleaseLate: true, tableReleaseUsage: true, tableResponseTimes: true,
}

// personSettings are those of a person's statement: nothing can be written, no
// setting changed, and time, memory and size have ends.
func personSettings(c Config) clickhouse.Settings {
	return clickhouse.Settings{
		"readonly": 1, "final": 1, "session_timezone": "UTC", "enable_analyzer": 1,
		"max_threads": c.Threads, "max_execution_time": int(personTimeout.Seconds()), "timeout_overflow_mode": "throw",
		"max_memory_usage": c.MemoryBytes / 100 * statementMemoryShare,
		"max_query_size":   limitStatement, "max_ast_elements": 20_000, "max_expanded_ast_elements": 100_000, "max_ast_depth": 500,
		"max_subquery_depth": 50, "output_format_json_quote_64bit_integers": 0, "output_format_json_quote_denormals": 0,
		"output_format_json_named_tuples_as_objects": 1, "date_time_output_format": "iso", "cancel_http_readonly_queries_on_client_close": 1,
	}
}

// databases lists the names that a person's statement may not put before a
// dot: a table behind one could be meant.
func (s *Store) databases(ctx context.Context) (map[string]bool, error) {
	names := map[string]bool{"system": true, "default": true, "information_schema": true, "INFORMATION_SCHEMA": true}
	err := s.each(ctx, "SELECT name FROM system.databases", nil, func(rows driver.Rows) error {
		var name string
		err := rows.Scan(&name)
		names[name] = true
		return err
	})
	return names, err
}

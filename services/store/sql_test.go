package store

import (
	"encoding/json"
	"errors"
	"fmt"
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

func TestDump(t *testing.T) {
	for _, q := range []string{
		"SELECT 1 AS a, 'x' AS b, 1.5, NULL, [1,2], map('a', 1), toUInt64(18446744073709551615), nan, now64(3)",
		"SELECT * FROM numbers(3)",
		"SELECT number FROM numbers(3) WHERE number > 5",
		"WITH x AS (SELECT id FROM events) SELECT count() FROM x",
		"WITH RECURSIVE x AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM x WHERE n < 3) SELECT * FROM x",
		"SELECT id, user_hash FROM events",
		"SELECT COLUMNS('user') FROM events LIMIT 1",
		"SELECT * EXCEPT id FROM events LIMIT 1",
		"SELECT count() FROM events FINAL",
		"SELECT count() FROM findings FINAL",
		"SELECT count() FROM events PREWHERE kind = 'user'",
		"SELECT count() FROM events SAMPLE 0.1",
		"SELECT count() OVER (PARTITION BY kind ORDER BY time) FROM events LIMIT 1",
		"SELECT kind, a FROM events ARRAY JOIN [1,2] AS a LIMIT 1",
		"SELECT arrayMap(x -> x + 1, [1])",
		"SELECT toStartOfHour(time) AS h, count() FROM events GROUP BY h WITH TOTALS ORDER BY h WITH FILL STEP 3600 LIMIT 2",
		"SELECT a.kind FROM events a JOIN (SELECT kind FROM events) b USING (kind) LIMIT 1",
		"SELECT 1 INTERSECT SELECT 1",
		"(SELECT 1) UNION ALL (SELECT 2)",
		"SELECT sum(number) FROM generateSeries(1, 3) g(number)",
		"SELECT CAST(1 AS String), 1::String, INTERVAL 1 DAY, DATE '2020-01-01', CASE WHEN 1 THEN 2 END",
		"SELECT quantileTDigest(0.9)(duration) FROM events",
	} {
		for _, role := range []Role{RoleOperator, RoleAdministrator} {
			rows, info, err := ask(t, role, q)
			if len(rows) > 3 {
				rows = rows[:3]
			}
			fmt.Printf("%s %s\n   %.300v %v %v %v\n   err=%v\n", role, q, rows, info.Fields, info.Tables, info.Columns, err)
		}
	}
	_ = errors.Is
	_ = strings.Cut
	_ = event.Free
}

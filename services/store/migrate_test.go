package store

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/opencoc/coc/schemas"
)

func TestStatementsAreCutOutsideQuotesAndComments(t *testing.T) {
	f := func(sql string, want ...string) {
		t.Helper()
		got, err := splitStatements(sql)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q gives %q, %v", sql, got, err)
		}
	}
	f("")
	f(" ;; -- nothing\n ; /* x; */")
	f("a; b;c", "a", "b", "c")
	f("a ';' b; c", "a ';' b", "c")
	f(`a '\';' "x;y" `+"`p;q`; b", `a '\';' "x;y" `+"`p;q`", "b")
	f("a -- x; y\nb; c", "a  \nb", "c")
	f("a /* ; */ b;", "a   b")
	for _, bad := range []string{"a 'b", "a /* b", "a \"b;", "a `b"} {
		if _, err := splitStatements("x;\n" + bad); err == nil || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%q gives %v", bad, err)
		}
	}
}

func TestMigrationsAreNumberedWithoutGaps(t *testing.T) {
	f := func(ok bool, names ...string) {
		t.Helper()
		files := fstest.MapFS{}
		for _, n := range names {
			files["clickhouse/"+n] = &fstest.MapFile{Data: []byte("SELECT 1;")}
		}
		if _, err := readMigrations(files); (err == nil) != ok {
			t.Errorf("%v gives %v", names, err)
		}
	}
	f(true, "0001_a.sql", "0002_b.sql")
	f(false, "0002_a.sql")
	f(false, "0001_a.sql", "0003_b.sql")
	f(false, "0001_a.sql", "0001_b.sql")
	f(false, "1_a.sql")
	f(false, "0001_A.sql")
	f(false, "0001_a.sql", "README.md")
}

func TestMigrationsCanBeRunAgain(t *testing.T) {
	list, err := readMigrations(schemas.Files)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range list {
		for _, s := range m.statements {
			if err := house.conn.Exec(t.Context(), s); err != nil {
				t.Errorf("%04d_%s cannot be run twice: %v", m.number, m.name, err)
			}
		}
	}
	if err := house.apply(t.Context(), list); err != nil {
		t.Error(err)
	}
	if n := scalar[uint64](t, "SELECT count() FROM migrations"); n != uint64(len(list)) {
		t.Errorf("%d migrations are recorded as %d", len(list), n)
	}
	want := slices.DeleteFunc(slices.Clone(everyTable), func(s string) bool { return len(columnsOf(s)) == 0 || s == tableMigrations })
	slices.Sort(want)
	if got := tablesOf(list); !reflect.DeepEqual(got, want) {
		t.Errorf("the migrations make %v, the roles know %v", got, want)
	}
}

func TestAChangedOrUnknownMigrationIsRefused(t *testing.T) {
	list, err := readMigrations(schemas.Files)
	if err != nil {
		t.Fatal(err)
	}
	changed := slices.Clone(list)
	changed[0].checksum = "another"
	if err := house.apply(t.Context(), changed); !errors.Is(err, ErrMigration) || !strings.Contains(err.Error(), "0001_events was changed") {
		t.Errorf("a changed migration gives %v", err)
	}
	if err := house.apply(t.Context(), list[:1]); !errors.Is(err, ErrMigration) || !strings.Contains(err.Error(), "at least as new") {
		t.Errorf("data of a newer coc gives %v", err)
	}
	broken := append(slices.Clone(list), migration{len(list) + 1, "broken", "x", []string{"CREATE TABLE"}})
	if err := house.apply(t.Context(), broken); err == nil || !strings.Contains(err.Error(), "_broken, statement 1 of 1") {
		t.Errorf("a broken migration gives %v", err)
	}
}

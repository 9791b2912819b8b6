package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/opencoc/coc/schemas"
)

// migration is one numbered file of statements. Each statement can be run
// again, so a crash in the middle is mended by running the file once more.
type migration struct {
	number     int
	name       string
	checksum   string
	statements []string
}

// migrationsTable records what was applied.
const migrationsTable = `CREATE TABLE IF NOT EXISTS migrations
(
    number   UInt32,
    name     String,
    checksum String,
    applied  DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(applied)
ORDER BY number`

var migrationName = regexp.MustCompile(`^(\d{4})_([a-z0-9_]+)\.sql$`)

// readMigrations reads clickhouse/NNNN_name.sql in order; the numbers must run
// from 1 without gaps.
func readMigrations(files fs.FS) ([]migration, error) {
	entries, err := fs.ReadDir(files, "clickhouse")
	if err != nil {
		return nil, fmt.Errorf("reading the migrations: %w", err)
	}
	var list []migration
	for _, e := range entries {
		parts := migrationName.FindStringSubmatch(e.Name())
		if parts == nil {
			return nil, fmt.Errorf("migration %s: name it NNNN_name.sql", e.Name())
		}
		data, err := fs.ReadFile(files, path.Join("clickhouse", e.Name()))
		if err != nil {
			return nil, fmt.Errorf("reading the migrations: %w", err)
		}
		number, err := strconv.Atoi(parts[1])
		if err != nil || number != len(list)+1 {
			return nil, fmt.Errorf("migration %s: the numbers must run from 0001 without gaps, expected %04d", e.Name(), len(list)+1)
		}
		statements, err := splitStatements(string(data))
		if err != nil {
			return nil, fmt.Errorf("migration %s: %w", e.Name(), err)
		}
		sum := sha256.Sum256([]byte(strings.Join(statements, ";\n")))
		list = append(list, migration{number, parts[2], hex.EncodeToString(sum[:]), statements})
	}
	return list, nil
}

// splitStatements cuts a file at semicolons that stand outside quotes and
// comments, and drops comments that stand between statements. So a comment may
// be reworded later, a statement may not.
func splitStatements(sql string) ([]string, error) {
	var list []string
	var b strings.Builder
	flush := func() {
		if s := strings.TrimSpace(b.String()); s != "" {
			list = append(list, s)
		}
		b.Reset()
	}
	for i := 0; i < len(sql); {
		n, isComment, err := token(sql[i:])
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", strings.Count(sql[:i], "\n")+1, err)
		}
		switch {
		case isComment:
			b.WriteByte(' ')
		case sql[i] == ';':
			flush()
		default:
			b.WriteString(sql[i : i+n])
		}
		i += n
	}
	flush()
	return list, nil
}

// applied is what the table says about a migration.
type applied struct{ name, checksum string }

// migrate brings the tables to this version.
func (s *Store) migrate(ctx context.Context) error {
	list, err := readMigrations(schemas.Files)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMigration, err)
	}
	return s.apply(ctx, list)
}

func (s *Store) apply(ctx context.Context, list []migration) error {
	if err := s.conn.Exec(ctx, migrationsTable); err != nil {
		return wrap("making the table of migrations", err)
	}
	done := map[int]applied{}
	highest := 0
	err := s.each(ctx, "SELECT number, name, checksum FROM migrations FINAL ORDER BY number", nil, func(rows driver.Rows) error {
		var number uint32
		var a applied
		if err := rows.Scan(&number, &a.name, &a.checksum); err != nil {
			return err
		}
		done[int(number)], highest = a, int(number)
		return nil
	})
	if err != nil {
		return wrap("reading the table of migrations", err)
	}
	if highest > len(list) {
		return fmt.Errorf("%w: the data has migration %04d, this coc knows %04d: run a coc that is at least as new as the one that wrote it", ErrMigration, highest, len(list))
	}
	for _, m := range list {
		if a, ok := done[m.number]; ok {
			if a.checksum != m.checksum {
				return fmt.Errorf("%w: migration %04d_%s was changed after it was applied here (as %s, checksum %.12s, now %.12s): put it back and add a new one", ErrMigration, m.number, m.name, a.name, a.checksum, m.checksum)
			}
		} else if err := s.applyOne(ctx, m); err != nil {
			return err
		}
		s.migration = m.number
	}
	return nil
}

func (s *Store) applyOne(ctx context.Context, m migration) error {
	for i, statement := range m.statements {
		if err := s.conn.Exec(ctx, statement); err != nil {
			return wrap(fmt.Sprintf("migration %04d_%s, statement %d of %d", m.number, m.name, i+1, len(m.statements)), err)
		}
	}
	const record = `INSERT INTO migrations (number, name, checksum, applied) SELECT {number:UInt32}, {name:String}, {checksum:String}, now64(3)`
	err := s.conn.Exec(ctx, record, clickhouse.Named("number", m.number), clickhouse.Named("name", m.name), clickhouse.Named("checksum", m.checksum))
	if err != nil {
		return wrap(fmt.Sprintf("recording migration %04d_%s", m.number, m.name), err)
	}
	s.config.Log.Info("migration applied", "number", m.number, "name", m.name, "statements", len(m.statements))
	return nil
}

// tablesOf lists the tables that the migrations make, for the table of roles.
func tablesOf(list []migration) []string {
	var names []string
	make := regexp.MustCompile(`^CREATE TABLE IF NOT EXISTS (\w+)`)
	for _, m := range list {
		for _, s := range m.statements {
			if parts := make.FindStringSubmatch(s); parts != nil {
				names = append(names, parts[1])
			}
		}
	}
	slices.Sort(names)
	return names
}

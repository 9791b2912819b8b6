package store

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/opencoc/coc/services/event"
)

// Column is a column of a result.
type Column struct{ Name, Type string }

// SQLInfo says what a statement was, for the reader and for the record.
type SQLInfo struct {
	Columns []Column
	Rows    int64
	More    bool // there were more than asked for
	// Tables, Fields (table.column) and Classes are what the statement reads.
	Tables, Fields []string
	Classes        []event.Class
	Elapsed        time.Duration
}

// SQL runs a person's statement: one SELECT over the tables of the role. fn
// gets every row as JSON has it: nil, bool, json.Number, string, []any,
// map[string]any; cols and row are fn's during the call only. At most maxRows
// rows (default 10,000, at most 1,000,000) are given, for at most a minute.
//
// A *Refused is what the role may not do; it is decided before anything runs.
func (s *Store) SQL(ctx context.Context, r Reader, text string, maxRows int, fn func(cols []Column, row []any) error) (SQLInfo, error) {
	started := time.Now()
	limit, err := limitOf("running SQL", maxRows, defaultSQLRows, maxSQLRows)
	if err != nil {
		return SQLInfo{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, personTimeout)
	defer cancel()
	text, info, err := s.check(ctx, r, text)
	if err != nil {
		return info, err
	}
	body, err := s.readers.QueryFormat(s.personContext(ctx, r), resultFormat, text)
	if err != nil {
		return info, wrap("running SQL", err)
	}
	err = readResult(body, limit, &info, fn)
	cancel() // what is left of a cut result is not wanted
	err = errors.Join(err, ignoreCancelled(body.Close()))
	info.Elapsed = time.Since(started)
	return info, wrap("running SQL", err)
}

// resultFormat carries names and types and one JSON array a row.
const resultFormat = "JSONCompactEachRowWithNamesAndTypes"

// personContext runs statements in the catalogue of the reader's role.
func (s *Store) personContext(ctx context.Context, r Reader) context.Context {
	return clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{"database": s.catalogue(r.Role)}))
}

func ignoreCancelled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// readResult hands rows to fn until there are limit.
func readResult(body io.Reader, limit int, info *SQLInfo, fn func([]Column, []any) error) error {
	lines := bufio.NewReaderSize(body, 64<<10)
	var header [2][]string
	var total int64
	for n := 0; ; n++ {
		line, err := readLine(lines)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if total += int64(len(line)); total > limitResultBytes {
			return fmt.Errorf("%w: the result is longer than %d MB: select less, or aggregate", ErrInvalid, limitResultBytes>>20)
		}
		if n < 2 {
			if err := json.Unmarshal(line, &header[n]); err != nil {
				return fmt.Errorf("reading the names of the result: %w", err)
			}
			if n == 1 {
				info.Columns = columnsNamed(header[0], header[1])
			}
			continue
		}
		if info.Rows == int64(limit) {
			info.More = true
			return nil
		}
		row, err := decodeRow(line)
		if err != nil {
			return err
		}
		if err := fn(info.Columns, row); err != nil {
			return err
		}
		info.Rows++
	}
}

func columnsNamed(names, types []string) []Column {
	list := make([]Column, min(len(names), len(types)))
	for i := range list {
		list[i] = Column{names[i], types[i]}
	}
	return list
}

func decodeRow(line []byte) ([]any, error) {
	d := json.NewDecoder(bytes.NewReader(line))
	d.UseNumber()
	var row []any
	if err := d.Decode(&row); err != nil {
		return nil, fmt.Errorf("reading a row of the result: %w", err)
	}
	return row, nil
}

// readLine reads up to a line break, bounded; io.EOF when nothing is left.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > limitValue {
			return nil, fmt.Errorf("%w: a row of the result is longer than %d MB", ErrInvalid, limitValue>>20)
		}
		switch {
		case err == nil:
			return line, nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(bytes.TrimSpace(line)) > 0:
			return line, nil
		default:
			return nil, err
		}
	}
}

// check decides whether the role may run the text, and finds what it reads. It
// returns the text to run. Nothing that is refused has run.
func (s *Store) check(ctx context.Context, r Reader, text string) (string, SQLInfo, error) {
	var info SQLInfo
	if !r.Role.MaySQL() {
		return "", info, &Refused{Role: r.Role, Object: "SQL", Reason: "statements of one's own are for analyst, product, operator, privacy and administrator"}
	}
	text = strings.TrimRight(strings.TrimSpace(text), "; \t\r\n")
	if text == "" || len(text) > limitStatement {
		return "", info, fmt.Errorf("running SQL: %w: give one SELECT of at most %d kB", ErrInvalid, limitStatement>>10)
	}
	databases, err := s.databases(ctx)
	if err != nil {
		return "", info, wrap("running SQL", err)
	}
	c := checker{role: r.Role, catalogue: s.catalogue(r.Role), databases: databases}
	if err := c.text(text); err != nil {
		return "", info, err
	}
	person := s.personContext(ctx, r)
	lines, err := s.explain(person, "EXPLAIN AST "+text)
	if err != nil {
		return "", info, wrap("running SQL", err)
	}
	if err := c.syntax(lines); err != nil {
		return "", info, err
	}
	lines, err = s.explain(person, "EXPLAIN QUERY TREE "+text)
	if err != nil {
		return "", info, wrap("running SQL", err)
	}
	info.Tables, info.Fields, err = c.tree(lines)
	if err != nil {
		return "", info, err
	}
	for _, f := range info.Fields {
		table, column, _ := strings.Cut(f, ".")
		if class, ok := ClassOf(table, column); ok && !slices.Contains(info.Classes, class) {
			info.Classes = append(info.Classes, class)
		}
	}
	slices.Sort(info.Classes)
	return text, info, nil
}

// explain runs an EXPLAIN as the person would run the statement, and returns
// its lines.
func (s *Store) explain(ctx context.Context, statement string) (lines []string, err error) {
	rows, err := s.readers.Query(ctx, statement)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			return nil, err
		}
		lines = append(lines, strings.Split(line, "\n")...)
	}
	return lines, rows.Err()
}

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/opencoc/coc/services/console"
)

// maxStatement bounds a statement that is read from a file or a pipe.
const maxStatement = 128 << 10

// maxRows is the most rows an instance gives to one statement.
const maxRows = 1_000_000

// SQLCmd asks ClickHouse.
type SQLCmd struct {
	Client ClientFlags `embed:""`
	Query  string      `arg:"" help:"One SELECT in ClickHouse's SQL; - reads it from standard input."`
	JSON   bool        `name:"json" help:"Print JSON, one row a line, by column name (default: a table)."`
	Limit  int         `placeholder:"N" help:"At most so many rows, 1 to 1000000 (default: 10000 as a table, 1000000 as JSON)."`
}

// Run asks and prints rows as they come.
func (c *SQLCmd) Run(g *Globals) error {
	if c.Limit == 0 {
		if c.Limit = 10_000; c.JSON {
			c.Limit = maxRows
		}
	}
	if err := checkLimit(c.Limit, maxRows); err != nil {
		return err
	}
	query, err := c.statement(g.Stdin)
	if err != nil {
		return err
	}
	cl, err := c.Client.connect(g)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(g.Stdout)
	p := &sqlPrinter{json: c.JSON, out: out}
	err = cl.stream(g.Ctx, http.MethodPost, "/v1/sql", nil, console.Statement{Query: query, Limit: c.Limit}, p.line)
	if err == nil && p.end == nil {
		err = errors.New("the answer broke off: what was printed is not all of it; ask again")
	}
	if err := errors.Join(err, p.flushTable(), out.Flush()); err != nil {
		return err
	}
	return c.close(g, p.end)
}

func (c *SQLCmd) statement(in io.Reader) (string, error) {
	query := c.Query
	if query == "-" {
		data, err := io.ReadAll(io.LimitReader(in, maxStatement+1))
		if err != nil {
			return "", fmt.Errorf("cannot read the statement: %w", err)
		}
		query = string(data)
	}
	switch {
	case strings.TrimSpace(query) == "":
		return "", usageError{errors.New("there is no statement: give one such as \"SELECT action, count() FROM events GROUP BY action\"")}
	case len(query) > maxStatement:
		return "", usageError{fmt.Errorf("the statement is longer than %d bytes", maxStatement)}
	}
	return query, nil
}

// close says, apart from the rows, how the answer ended.
func (c *SQLCmd) close(g *Globals, end *console.SQLEnd) error {
	w := g.Stderr
	if !c.JSON {
		w = g.Stdout
		fmt.Fprintf(w, "\n%s in %s ms\n", plural(end.Rows, "row", "rows"), number(end.ElapsedMS))
		if end.Simulated {
			fmt.Fprint(w, simulatedLine)
		}
	}
	if end.More {
		fmt.Fprintf(w, "coc: cut at %s: raise --limit for more\n", plural(end.Rows, "row", "rows"))
	}
	return nil
}

// tableSample is how many rows a table's columns are measured by; the rows
// after them are printed with these widths.
const tableSample = 1000

type sqlPrinter struct {
	json    bool
	out     *bufio.Writer
	names   [][]byte // column names as JSON
	table   *table
	started bool // the table's first rows are printed
	end     *console.SQLEnd
}

// sqlLine is console.SQLLine with its values left as they are written.
type sqlLine struct {
	Columns []console.SQLColumn `json:"columns"`
	Row     []json.RawMessage   `json:"row"`
	End     *console.SQLEnd     `json:"end"`
	Error   string              `json:"error"`
}

func (p *sqlPrinter) line(data []byte) error {
	var l sqlLine
	if err := json.Unmarshal(data, &l); err != nil {
		return fmt.Errorf("the answer brought something that is no row: %w", err)
	}
	switch {
	case l.Error != "":
		return errors.New(safe(l.Error))
	case l.End != nil:
		p.end = l.End
		return nil
	case l.Columns != nil:
		return p.head(l.Columns)
	case len(l.Row) != len(p.names):
		return fmt.Errorf("the answer brought a row of %d values for %d columns", len(l.Row), len(p.names))
	case p.json:
		return p.object(l.Row)
	}
	return p.row(l.Row)
}

func (p *sqlPrinter) head(cols []console.SQLColumn) error {
	p.table = newTable()
	for _, c := range cols {
		name, err := json.Marshal(c.Name)
		if err != nil {
			return err
		}
		p.names = append(p.names, name)
		p.table.cols = append(p.table.cols, column{head: cut(safe(c.Name), maxCell), right: isNumber(c.Type)})
	}
	return nil
}

func isNumber(clickhouse string) bool {
	t := strings.TrimPrefix(strings.TrimPrefix(clickhouse, "LowCardinality("), "Nullable(")
	for _, p := range []string{"Int", "UInt", "Float", "Decimal"} {
		if strings.HasPrefix(t, p) {
			return true
		}
	}
	return false
}

func (p *sqlPrinter) object(row []json.RawMessage) error {
	p.out.WriteByte('{') // bufio keeps its first error until Flush
	for i, v := range row {
		if i > 0 {
			p.out.WriteByte(',')
		}
		p.out.Write(p.names[i])
		p.out.WriteByte(':')
		p.out.Write(v)
	}
	_, err := p.out.WriteString("}\n")
	return err
}

func (p *sqlPrinter) row(row []json.RawMessage) error {
	cells := make([]string, len(row))
	for i, v := range row {
		var s string
		switch {
		case bytes.Equal(v, []byte("null")):
			cells[i] = "NULL"
		case len(v) > 0 && v[0] == '"' && json.Unmarshal(v, &s) == nil:
			cells[i] = s
		default:
			cells[i] = string(v)
		}
	}
	p.table.add(cells...)
	if len(p.table.rows) >= tableSample {
		return p.flushTable()
	}
	return nil
}

// flushTable prints the rows gathered; the head comes before the first of them.
func (p *sqlPrinter) flushTable() error {
	if p.json || p.table == nil || p.started && len(p.table.rows) == 0 {
		return nil
	}
	var text strings.Builder
	p.table.keepEmpty = true
	if err := p.table.write(&text); err != nil {
		return err
	}
	s := text.String()
	if p.started {
		_, s, _ = strings.Cut(s, "\n")
	}
	p.started = true
	p.table.rows = nil
	_, err := p.out.WriteString(s)
	return err
}

package console

import (
	"context"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/opencoc/coc/services/bus"
	"github.com/opencoc/coc/services/store"
)

// Statement is the request of run-sql.
type Statement struct {
	Query string `json:"query" minLength:"1" maxLength:"131072" doc:"One SELECT in ClickHouse's SQL."`
	Limit int    `json:"limit,omitempty" minimum:"1" maximum:"1000000" default:"10000" doc:"At most so many rows."`
}

// SQLLine is one line of an answer: first the columns, then rows, then either
// the end or an error. Without one of the last two the connection broke.
type SQLLine struct {
	Columns []SQLColumn `json:"columns,omitempty"`
	Row     []any       `json:"row,omitempty"`
	End     *SQLEnd     `json:"end,omitempty"`
	Error   string      `json:"error,omitempty"`
}

// SQLColumn is a column of an answer.
type SQLColumn struct {
	Name string `json:"name"`
	Type string `json:"type" doc:"ClickHouse's."`
}

// SQLEnd is how an answer ended.
type SQLEnd struct {
	Rows      int64    `json:"rows"`
	More      bool     `json:"more" doc:"Cut at the limit."`
	Fields    []string `json:"fields" doc:"The columns that were read, as table.column."`
	Classes   []string `json:"classes" doc:"The privacy classes of what was read."`
	ElapsedMS int64    `json:"elapsed_ms"`
	Simulated bool     `json:"simulated"`
	Zone      string   `json:"zone"`
}

type sqlInput struct{ Body Statement }

func (c *Console) registerSQL(api huma.API) {
	o := operation(opSQL, http.MethodPost, "/v1/sql", "Ask ClickHouse",
		"One statement that reads, over the tables and columns of the role. The answer is a stream of JSON lines of type SQLLine.")
	o.Responses = streamResponse(api, SQLLine{}, "Columns, rows, end.")
	o.Errors = append(o.Errors, http.StatusBadRequest)
	huma.Register(api, o, c.runSQL)
}

// rowWriter puts rows on the wire as they come.
type rowWriter struct {
	out     *lines
	columns bool // sent
}

func (w *rowWriter) head(cols []store.Column) error {
	if w.columns {
		return nil
	}
	w.columns = true
	list := make([]SQLColumn, len(cols))
	for i, col := range cols {
		list[i] = SQLColumn(col)
	}
	return w.out.put(SQLLine{Columns: list})
}

func (w *rowWriter) row(cols []store.Column, row []any) error {
	if err := w.head(cols); err != nil {
		return errClientGone
	}
	if err := w.out.put(struct {
		Row []any `json:"row"`
	}{row}); err != nil {
		return errClientGone
	}
	return nil
}

var errClientGone = errors.New("the client is gone")

// runSQL answers an error before the first row with its status, a later one
// with the stream's last line.
func (c *Console) runSQL(ctx context.Context, in *sqlInput) (*huma.StreamResponse, error) {
	who := reader(ctx)
	if !who.Role.MaySQL() {
		return nil, huma.Error403Forbidden("the role " + string(who.Role) + " may not write statements of its own")
	}
	mine, err := c.turn(ctx, c.statements)
	if err != nil {
		return nil, c.fail("ask ClickHouse", err)
	}
	places, err := c.turn(ctx, c.questions)
	if err != nil {
		mine()
		return nil, c.fail("ask ClickHouse", err)
	}
	return &huma.StreamResponse{Body: func(h huma.Context) {
		defer mine()
		defer places()
		w := &rowWriter{out: newLines(h)}
		info, err := c.Store.SQL(h.Context(), who, in.Body.Query, in.Body.Limit, w.row)
		c.Log.Info("sql", "token", who.Token, "role", who.Role, "fields", info.Fields, "rows", info.Rows, "elapsed", info.Elapsed.String(), "ok", err == nil)
		if err != nil {
			c.sqlFailed(h, w, err)
			return
		}
		simulated, err := c.Store.Simulated(h.Context())
		if err != nil {
			c.sqlFailed(h, w, err)
			return
		}
		end := SQLEnd{Rows: info.Rows, More: info.More, Fields: info.Fields, Classes: []string{}, ElapsedMS: info.Elapsed.Milliseconds(), Simulated: simulated, Zone: c.Zone.String()}
		for _, class := range info.Classes {
			end.Classes = append(end.Classes, string(class))
		}
		if end.Fields == nil {
			end.Fields = []string{}
		}
		if w.head(info.Columns) == nil && w.out.put(SQLLine{End: &end}) == nil {
			_ = w.out.flush() // a client that went away needs no end
		}
	}}, nil
}

func (c *Console) sqlFailed(h huma.Context, w *rowWriter, err error) {
	if errors.Is(err, errClientGone) {
		return
	}
	if w.columns {
		if w.out.put(SQLLine{Error: err.Error()}) == nil {
			_ = w.out.flush() // as above
		}
		return
	}
	status := http.StatusBadRequest // the statement's own fault, unless it is one of these
	var refused *store.Refused
	switch {
	case errors.As(err, &refused):
		status = http.StatusForbidden
	case errors.Is(err, store.ErrUnavailable), errors.Is(err, store.ErrClosed), errors.Is(err, bus.ErrAway):
		status = http.StatusServiceUnavailable
	case errors.Is(err, context.DeadlineExceeded):
		status = http.StatusGatewayTimeout
	}
	h.SetHeader("Content-Type", problemType)
	h.SetStatus(status)
	writeProblem(h.BodyWriter(), status, err.Error())
}

// streamResponse describes a stream of JSON lines.
func streamResponse(api huma.API, line any, doc string) map[string]*huma.Response {
	return map[string]*huma.Response{"200": {
		Description: doc,
		Content:     map[string]*huma.MediaType{"application/x-ndjson": {Schema: schemaOf(api, line)}},
	}}
}

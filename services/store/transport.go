//go:build linux || darwin

package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"unsafe"
)

// embeddedTransport answers clickhouse-go's HTTP requests from the embedded
// engine, so that both kinds of ClickHouse are spoken to by the same calls. It
// behaves as ClickHouse's HTTP interface does where it matters: one statement a
// request, no INTO OUTFILE, settings for this request only, bound parameters,
// errors as status 500 with their code, written rows in the summary.
type embeddedTransport struct{ engine *engine }

var _ http.RoundTripper = embeddedTransport{}

// notSettings are the parameters of a request that are not settings of
// ClickHouse, or have no meaning without a network.
var notSettings = map[string]bool{
	"database": true, "default_format": true, "client_protocol_version": true, "query": true, "query_id": true,
	"quota_key": true, "wait_end_of_query": true, "compress": true, "decompress": true, "session_id": true,
	"send_progress_in_http_headers": true, "http_write_exception_in_output_format": true,
	"cancel_http_readonly_queries_on_client_close": true, "http_response_buffer_size": true,
}

// request is what is asked of the engine.
type request struct {
	database, format, query string
	settings, params        map[string]string
	insert                  bool // the body is data
}

// RoundTrip runs the statement. The response's body must be closed: until then
// a result that is not read to its end keeps its connection.
func (t embeddedTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		defer func() { _ = req.Body.Close() }()
	}
	r, err := readRequest(req)
	if err != nil {
		return nil, err
	}
	if r.query == helloQuery {
		return t.hello(req)
	}
	c, err := t.engine.acquire(req.Context(), r.database, r.settings)
	if err != nil {
		if e := (*engineError)(nil); errors.As(err, &e) {
			return failed(req, e), nil
		}
		return nil, err
	}
	if r.insert {
		return t.insert(req, c, r)
	}
	statements, class := c.analyse(r.query)
	if refusal := refuseStatement(statements, class, r); refusal != nil {
		t.engine.release(c, false)
		return failed(req, refusal), nil
	}
	if class == classReadOnly && streams(r.query) {
		return t.stream(req, c, r)
	}
	return t.exec(req, c, r)
}

// refuseStatement holds the embedded engine to what a server's HTTP interface
// allows. Text that does not parse passes: the engine explains it best.
func refuseStatement(statements, class uint32, r request) *engineError {
	if statements == 1 {
		if err := reachesFiles(r.query); err != nil {
			return newEngineError("Code: 497. DB::Exception: " + err.Error() + ". (ACCESS_DENIED)")
		}
	}
	switch {
	case statements > 1:
		return newEngineError("Code: 62. DB::Exception: Multi-statements are not allowed: give one statement. (SYNTAX_ERROR)")
	case statements == 1 && class > classMutating:
		return newEngineError("Code: 497. DB::Exception: This kind of statement is not allowed here. (ACCESS_DENIED)")
	case statements == 1 && class == classMutating && r.settings["readonly"] == "1":
		return newEngineError("Code: 164. DB::Exception: Cannot execute query in readonly mode. (READONLY)")
	}
	return nil
}

// streams says whether the statement's result can be read block by block: only
// a SELECT's can; the answers of EXPLAIN, DESCRIBE and SHOW are small.
func streams(query string) bool {
	switch firstWord(query) {
	case "SELECT", "WITH", "FROM":
		return true
	}
	return false
}

// reachesFiles finds what the engine's grants do not keep from the account's
// files (tried on 26.7.3): the function file(), and FROM INFILE and INTO
// OUTFILE, which it carries out as a client would. What cannot be read for sure
// is refused with it.
func reachesFiles(query string) error {
	last := ""
	return lex(query, func(l lexeme) error {
		name := strings.ToUpper(l.name)
		if name == "INFILE" || name == "OUTFILE" || (l.name == "" && l.char == '(' && last == "FILE") {
			return errors.New("files are not read or written here")
		}
		last = name
		return nil
	})
}

func readRequest(req *http.Request) (request, error) {
	r := request{settings: map[string]string{}, params: map[string]string{}}
	size := 0
	values, err := url.ParseQuery(req.URL.RawQuery)
	if err != nil {
		return r, fmt.Errorf("reading the settings of a statement: %w", err)
	}
	for name, v := range values {
		value := v[len(v)-1]
		switch {
		case strings.HasPrefix(name, "param_"):
			r.params[strings.TrimPrefix(name, "param_")] = value
			if size += len(name) + len(value); size > limitParams {
				return r, fmt.Errorf("%w: the values of a statement are longer than %d bytes", ErrInvalid, limitParams)
			}
		case !notSettings[name]:
			r.settings[name] = value
		}
	}
	r.database, r.format = values.Get("database"), values.Get("default_format")
	if strings.HasPrefix(req.Header.Get("Content-Type"), "multipart/") {
		return r, fmt.Errorf("%w: external tables are not offered by the embedded engine", ErrInvalid)
	}
	if q := values.Get("query"); q != "" {
		r.query, r.insert = q, true
		return r, nil
	}
	if req.Body == nil {
		return r, fmt.Errorf("%w: no statement", ErrInvalid)
	}
	body, err := io.ReadAll(io.LimitReader(req.Body, limitStatement+1))
	if err != nil {
		return r, fmt.Errorf("reading a statement: %w", err)
	}
	if len(body) > limitStatement {
		return r, fmt.Errorf("%w: a statement of more than %d bytes", ErrInvalid, limitStatement)
	}
	r.query = string(body)
	return r, nil
}

// exec runs a statement that changes something; its result is small.
func (t embeddedTransport) exec(req *http.Request, c *connection, r request) (*http.Response, error) {
	lib := t.engine.lib
	done := c.whileRunning(req.Context())
	p := newParams(r.params)
	result := p.run(lib.query, c.raw(), r.query, r.format)
	p.free()
	done()
	if result == nil {
		t.engine.release(c, true)
		return nil, fmt.Errorf("%w: the embedded engine gave no result", ErrUnavailable)
	}
	defer lib.destroy(result)
	if said := text(lib.failure(result)); said != "" {
		t.engine.release(c, false)
		return t.failure(req, said)
	}
	body, rows := t.engine.bytes(result), lib.rowsWritten(result)
	t.engine.release(c, false)
	return answered(req, rows, int64(len(body)), io.NopCloser(bytes.NewReader(body))), nil
}

// failure turns what the engine said into a response, or into the context's
// error when the statement was killed for it.
func (t embeddedTransport) failure(req *http.Request, said string) (*http.Response, error) {
	e := newEngineError(said)
	if e.code == codeCancelled || e.code == codeAborted {
		if err := context.Cause(req.Context()); err != nil {
			return nil, fmt.Errorf("the statement was stopped: %w", err)
		}
	}
	return failed(req, e), nil
}

// insert streams the request's body into the table. The data never becomes part
// of a statement's text, so nothing in it can be run.
func (t embeddedTransport) insert(req *http.Request, c *connection, r request) (*http.Response, error) {
	lib := t.engine.lib
	head, format, ok := cutFormat(r.query)
	if !ok {
		t.engine.release(c, false)
		return failed(req, newEngineError("Code: 62. DB::Exception: An insert with a body must end in FORMAT and its name. (SYNTAX_ERROR)")), nil
	}
	done := c.whileRunning(req.Context())
	stream := lib.insert(c.raw(), bytesOf(head), uintptr(len(head)), bytesOf(format), uintptr(len(format)))
	if stream == nil {
		done()
		t.engine.release(c, true)
		return nil, fmt.Errorf("%w: the embedded engine gave no insert", ErrUnavailable)
	}
	said, rows, err := t.fill(stream, req.Body)
	lib.insertDestroy(stream)
	done()
	// A session whose insert failed half-way is not trusted with the next one.
	t.engine.release(c, said != "" || err != nil)
	if err != nil {
		return nil, err
	}
	if said != "" {
		return t.failure(req, said)
	}
	return answered(req, rows, 0, http.NoBody), nil
}

// fill appends the body and finishes the insert; said is the engine's refusal.
func (t embeddedTransport) fill(stream unsafe.Pointer, body io.Reader) (said string, rows uint64, err error) {
	lib := t.engine.lib
	if said := text(lib.insertFailure(stream)); said != "" {
		return said, 0, nil
	}
	buf := make([]byte, insertChunk)
	for body != nil {
		n, err := io.ReadFull(body, buf)
		if n > 0 && lib.insertAppend(stream, unsafe.Pointer(&buf[0]), uintptr(n)) != 0 {
			break // the reason comes with done
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			lib.insertCancel(stream)
			return "", 0, fmt.Errorf("reading the data of an insert: %w", err)
		}
	}
	result := lib.insertDone(stream)
	if result == nil {
		return "Code: 1. DB::Exception: The embedded engine gave no result of an insert.", 0, nil
	}
	defer lib.destroy(result)
	return text(lib.failure(result)), lib.rowsWritten(result), nil
}

// cutFormat splits "INSERT INTO t … FORMAT x" into statement and format.
func cutFormat(query string) (head, format string, ok bool) {
	i := strings.LastIndex(query, "FORMAT ")
	if i <= 0 {
		return "", "", false
	}
	format = strings.TrimSpace(query[i+len("FORMAT "):])
	for _, r := range format {
		if (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && (r < '0' || r > '9') {
			return "", "", false
		}
	}
	return strings.TrimSpace(query[:i]), format, format != ""
}

// stream answers a question block by block. The first block is fetched before
// the response, so that what is wrong with the statement comes as its status.
func (t embeddedTransport) stream(req *http.Request, c *connection, r request) (*http.Response, error) {
	lib := t.engine.lib
	p := newParams(r.params)
	done := c.whileRunning(req.Context())
	handle := p.run(lib.streamQuery, c.raw(), r.query, r.format)
	done()
	p.free()
	if handle == nil {
		t.engine.release(c, true)
		return nil, fmt.Errorf("%w: the embedded engine gave no result", ErrUnavailable)
	}
	body := &resultBody{ctx: req.Context(), conn: c, stream: handle, repeated: headerLines(r.format)}
	if said := text(lib.failure(handle)); said != "" {
		body.finish(false)
		return t.failure(req, said)
	}
	if err := body.fetch(); err != nil && !errors.Is(err, io.EOF) {
		body.finish(false)
		if e := (*engineError)(nil); errors.As(err, &e) {
			return t.failure(req, e.text)
		}
		return nil, err
	}
	size := int64(-1)
	if len(body.rest) == 0 {
		size = 0
	}
	return answered(req, 0, size, body), nil
}

// resultBody reads a running statement's result. Not safe for concurrent use.
type resultBody struct {
	ctx    context.Context
	conn   *connection
	stream unsafe.Pointer // nil once finished
	rest   []byte
	// The engine writes each block as a result of its own: this many lines of
	// names stand before every one, and only the first ones are wanted.
	repeated int
	blocks   int
}

func headerLines(format string) int {
	switch {
	case strings.HasSuffix(format, "WithNamesAndTypes"):
		return 2
	case strings.HasSuffix(format, "WithNames"):
		return 1
	}
	return 0
}

var _ io.ReadCloser = (*resultBody)(nil)

func (b *resultBody) Read(p []byte) (int, error) {
	for len(b.rest) == 0 {
		if b.stream == nil {
			return 0, io.EOF
		}
		if err := b.fetch(); err != nil {
			return 0, err
		}
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

// fetch takes the next block; io.EOF after the last one.
func (b *resultBody) fetch() error {
	if err := b.ctx.Err(); err != nil {
		b.finish(true)
		return fmt.Errorf("the statement was stopped: %w", err)
	}
	lib := b.conn.engine.lib
	done := b.conn.whileRunning(b.ctx)
	block := lib.streamFetch(b.conn.raw(), b.stream)
	done()
	if block == nil {
		b.finish(true)
		return fmt.Errorf("%w: the embedded engine broke off a result", ErrUnavailable)
	}
	defer lib.destroy(block)
	if said := text(lib.failure(block)); said != "" {
		b.finish(false)
		if err := b.ctx.Err(); err != nil {
			return fmt.Errorf("the statement was stopped: %w", err)
		}
		return newEngineError(said)
	}
	if b.rest = b.conn.engine.bytes(block); len(b.rest) == 0 {
		b.finish(false)
		return io.EOF
	}
	if b.blocks++; b.blocks > 1 {
		for range b.repeated {
			_, b.rest, _ = bytes.Cut(b.rest, []byte{'\n'})
		}
	}
	return nil
}

// finish gives the connection back; cancel stops a statement that still runs.
func (b *resultBody) finish(cancel bool) {
	if b.stream == nil {
		return
	}
	lib := b.conn.engine.lib
	if cancel {
		lib.streamCancel(b.conn.raw(), b.stream)
	}
	lib.destroy(b.stream)
	b.stream = nil
	// A session whose statement was broken off is not trusted with the next one.
	b.conn.engine.release(b.conn, cancel)
}

// Close stops the statement if it has not ended.
func (b *resultBody) Close() error {
	b.rest = nil
	b.finish(true)
	return nil
}

func answered(req *http.Request, written uint64, size int64, body io.ReadCloser) *http.Response {
	h := http.Header{}
	h.Set(summaryHeader, `{"written_rows":"`+strconv.FormatUint(written, 10)+`"}`)
	return &http.Response{
		Status: "200 OK", StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: h, Body: body, ContentLength: size, Request: req,
	}
}

func failed(req *http.Request, e *engineError) *http.Response {
	h := http.Header{}
	if e.code > 0 {
		h.Set("X-ClickHouse-Exception-Code", strconv.Itoa(e.code))
	}
	return &http.Response{
		Status: "500 Internal Server Error", StatusCode: http.StatusInternalServerError, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: h, Body: io.NopCloser(strings.NewReader(e.text)), ContentLength: int64(len(e.text)), Request: req,
	}
}

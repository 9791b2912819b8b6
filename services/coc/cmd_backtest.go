package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strings"
	"time"

	"github.com/opencoc/coc/services/event"
	"github.com/opencoc/coc/services/rule"
)

// BacktestCmd runs rules over a file of events.
type BacktestCmd struct {
	Rules  string `required:"" placeholder:"DIR" env:"COC_RULES" help:"Folder of rules."`
	Events string `required:"" placeholder:"FILE" help:"Events as JSON lines, as coc import --dry-run and coc sql --json \"SELECT * FROM events\" print them; .gz too; - is standard input."`
	Rule   string `placeholder:"ID" help:"Only findings of this rule (default: all)."`
	JSON   bool   `name:"json" help:"Print JSON, one finding a line (default: a table)."`
	Zone   string `default:"${zone}" env:"COC_ZONE" placeholder:"ZONE" help:"The hoster's time zone (default: ${default})."`
}

// Run reads the events twice, once for their order in time and once to judge.
func (c *BacktestCmd) Run(g *Globals) error {
	set, err := loadRules(c.Rules, c.Zone)
	if err != nil {
		return err
	}
	if c.Rule != "" && set.Rule(c.Rule) == nil {
		return usageError{fmt.Errorf("there is no rule %s in %s: coc rules check lists them", safe(c.Rule), safe(c.Rules))}
	}
	path := c.Events
	if path == "-" {
		if path, err = spool(g.Stdin); err != nil {
			return err
		}
		defer os.Remove(path)
	}
	bar := newProgress(g)
	began := g.Now()
	file := &eventFile{path: path, name: c.Events}
	result, err := rule.Backtest(g.Ctx, set, file.events(g.Ctx), rule.BacktestOptions{Progress: func(n int64) {
		bar.text(fmt.Sprintf("%s: %s", c.Events, plural(n, "event", "events")))
	}})
	bar.clear()
	if err != nil {
		return err
	}
	list := result.Findings
	if c.Rule != "" {
		list = nil
		for _, f := range result.Findings {
			if f.Rule == c.Rule {
				list = append(list, f)
			}
		}
	}
	if c.JSON {
		return writeFindings(g.Stdout, list)
	}
	return c.table(g.Stdout, set, &result, list, g.Now().Sub(began))
}

func (c *BacktestCmd) table(w io.Writer, set *rule.Set, result *rule.BacktestResult, list []event.Finding, took time.Duration) error {
	zone := set.Zone()
	fmt.Fprintf(w, "%s over %s", plural(int64(len(list)), "finding", "findings"), plural(result.Events, "event", "events"))
	if result.Events > 0 {
		fmt.Fprintf(w, " from %s to %s", moment(event.Stamp(result.First), zone), moment(event.Stamp(result.Last), zone))
	}
	fmt.Fprintf(w, ", judged in %.1f s (times in %s)\n", took.Seconds(), zone)
	if len(list) > 0 {
		fmt.Fprintln(w)
		if err := findingsTable(chains(list), zone).write(w); err != nil {
			return err
		}
	}
	for _, r := range result.Rules {
		if r.Errors > 0 {
			fmt.Fprintf(w, "\n%s failed on %s: %s\n", safe(r.Rule), plural(r.Errors, "event", "events"), safe(r.LastError))
		}
		if r.Evicted > 0 {
			fmt.Fprintf(w, "\n%s forgot %s: more keys at once than are kept\n", safe(r.Rule), plural(r.Evicted, "window", "windows"))
		}
	}
	return nil
}

// eventFile is a file of events as JSON lines.
type eventFile struct {
	path, name string
	// columns says that the lines carry the names of ClickHouse's columns; it is
	// decided by the first line.
	columns, decided bool
}

// events opens the file anew at each call and gives its events; an event is
// valid until the next.
func (f *eventFile) events(ctx context.Context) func() iter.Seq2[*event.Event, error] {
	return func() iter.Seq2[*event.Event, error] {
		return func(yield func(*event.Event, error) bool) {
			r, done, err := f.open()
			if err != nil {
				yield(nil, err)
				return
			}
			defer done()
			if err := f.read(ctx, r, func(e *event.Event) bool { return yield(e, nil) }); err != nil {
				yield(nil, err)
			}
		}
	}
}

func (f *eventFile) open() (io.Reader, func(), error) {
	file, err := os.Open(f.path)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot read the events in %s: %w", safe(f.name), unwrapPath(err))
	}
	if s, err := file.Stat(); err == nil && s.IsDir() {
		_ = file.Close()
		return nil, nil, fmt.Errorf("%s is a folder: give a file of events as JSON lines", safe(f.name))
	}
	done := func() { _ = file.Close() } // only read
	in := bufio.NewReaderSize(file, 64<<10)
	if head, err := in.Peek(2); err == nil && head[0] == 0x1f && head[1] == 0x8b {
		z, err := gzip.NewReader(in)
		if err != nil {
			done()
			return nil, nil, fmt.Errorf("%s begins like gzip and is not: %w", safe(f.name), err)
		}
		return z, done, nil
	}
	return in, done, nil
}

func (f *eventFile) read(ctx context.Context, r io.Reader, fn func(*event.Event) bool) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), event.LimitEventJSON+2)
	decoder := event.NewJSONDecoder()
	decoder.Internal = true
	var e event.Event
	n := 0
	for lines.Scan() {
		n++
		if n%4096 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		data := bytes.TrimSpace(bytes.TrimPrefix(lines.Bytes(), []byte("\xef\xbb\xbf")))
		if len(data) == 0 {
			continue
		}
		if err := f.decode(decoder, data, &e); err != nil {
			return fmt.Errorf("%s:%d: %w", safe(f.name), n, err)
		}
		if !fn(&e) {
			return nil
		}
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return fmt.Errorf("%s:%d: the line is longer than an event may be (%d bytes): is it a file of JSON lines?", safe(f.name), n+1, event.LimitEventJSON)
	} else if err != nil {
		return fmt.Errorf("cannot read on in %s after line %d: %w", safe(f.name), n, err)
	}
	return nil
}

func (f *eventFile) decode(decoder *event.JSONDecoder, data []byte, e *event.Event) error {
	if !f.decided {
		f.columns, f.decided = hasColumnNames(data), true
	}
	if f.columns {
		var err error
		if data, err = fromColumns(data); err != nil {
			return err
		}
	}
	if err := decoder.Decode(data, e); err != nil {
		return err
	}
	if err := e.Validate(event.Bounds{}); err != nil {
		return err
	}
	if e.UserHash == "" && e.UserName != "" {
		e.UserHash = publicHash(e.TenantID, e.UserName)
	}
	return nil
}

// columnNames maps the columns of the table events to the event's names, where
// they differ.
var columnNames = func() map[string]string {
	m := map[string]string{}
	for i := range event.Fields {
		if f := &event.Fields[i]; f.Column != f.Name {
			m[f.Column] = f.Name
		}
	}
	return m
}()

func hasColumnNames(data []byte) bool {
	var object map[string]json.RawMessage
	if json.Unmarshal(data, &object) != nil {
		return false
	}
	for name := range object {
		if columnNames[name] != "" {
			return true
		}
	}
	return false
}

// fromColumns turns a row of the table events into an event: names with dots,
// absent values left out, times as RFC 3339.
func fromColumns(data []byte) ([]byte, error) {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(data, &object); err != nil {
		return nil, fmt.Errorf("not a JSON object: %w", err)
	}
	out := make(map[string]json.RawMessage, len(object))
	for column, value := range object {
		name := column
		if dotted := columnNames[column]; dotted != "" {
			name = dotted
		}
		text := string(value)
		field := event.FieldByName(name)
		switch {
		case name == "id" && field < 0: // the table's computed id: the event has it in parts
			continue
		case text == "null", text == `""`, text == "{}":
			continue
		case field >= 0 && event.Fields[field].Type == event.Time && strings.HasPrefix(text, `"`):
			t, err := clickhouseTime(strings.Trim(text, `"`))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", column, err)
			}
			value = json.RawMessage(`"` + event.FormatTime(t.UnixMilli()) + `"`)
		}
		out[name] = value
	}
	return json.Marshal(out)
}

// clickhouseTime reads a time as coc sql prints it, or ClickHouse itself.
func clickhouseTime(s string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02 15:04:05.999999999"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%.40q is no time", s)
}

// publicHash stands for a person in events that carry a name and no hash:
// keyed by the tenant, with a key that everybody knows, the same as a dry run's.
// It groups by person as an instance would and equals no instance's hash.
func publicHash(tenant, name string) string {
	mac := hmac.New(sha256.New, []byte("coc dry run "+tenant))
	mac.Write([]byte(name))
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

// splitLines splits a text at its line ends.
func splitLines(text string) []string {
	return strings.Split(strings.TrimRight(strings.ReplaceAll(text, "\r\n", "\n"), "\n"), "\n")
}

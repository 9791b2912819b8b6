package collector

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/opencoc/coc/services/event"
)

// Summary is what an import came to.
type Summary struct {
	ID     string `json:"id,omitempty"`
	File   string `json:"file,omitempty"`
	Format string `json:"format,omitempty"`
	// Lines of which Events were made; empty lines do not count.
	Lines  int64 `json:"lines"`
	Events int64 `json:"events"`
	Bytes  int64 `json:"bytes"`
	// Refused lines by reason, and the first of them.
	Refused  map[string]int64 `json:"refused,omitempty"`
	Examples []RefusedLine    `json:"examples,omitempty"`
	// Marked counts what was done to events, by mark without its field: cut,
	// secret, utf8, nul, guessed, unparsed.
	Marked  map[string]int64 `json:"marked,omitempty"`
	Actions map[string]int64 `json:"actions,omitempty"`
	// First and Last are the times of the earliest and the latest event.
	First event.Stamp `json:"first,omitzero"`
	Last  event.Stamp `json:"last,omitzero"`
	// Seq is the bus sequence of the last message.
	Seq uint64 `json:"seq,omitempty"`
	// Known: imported before, nothing was added.
	Known bool `json:"known,omitempty"`
	// Skipped bytes of the file were imported before.
	Skipped int64 `json:"skipped,omitempty"`
	// Resumed: an interrupted import was finished.
	Resumed bool    `json:"resumed,omitempty"`
	Seconds float64 `json:"seconds"`
}

// RefusedLine is a line that is no event, by its number in what was read.
type RefusedLine struct {
	Line   int64  `json:"line"`
	Reason string `json:"reason"`
	Field  string `json:"field,omitempty"`
	Detail string `json:"detail,omitempty"`
}

// importParser reads a content and gives each event its number.
type importParser struct {
	o      ImportOptions
	parser *lineParser
	sum    Summary
	// max is the latest time so far, of which the low-water mark is made.
	max int64
	// tail is how many bytes the last line has when it ended without a newline.
	tail int64
}

// newImportParser prepares a parser. ref stands for now, and last for the time
// of the line before the first; both are part of what an import remembers, so
// that a repetition reads the same.
func newImportParser(o ImportOptions, zone *time.Location, ref, last int64) *importParser {
	p := &importParser{o: o}
	p.parser = newLineParser(o.Format, zone, func() time.Time { return time.UnixMilli(ref) }, o.Year)
	p.parser.clock.last = last
	p.parser.host, p.parser.tenant = o.Host, o.Tenant
	for k, v := range o.Labels {
		p.parser.labels = append(p.parser.labels, event.Label{Key: k, Value: v})
	}
	p.parser.bounds = func() event.Bounds { return event.Bounds{Now: time.UnixMilli(ref)} } // history of any age
	p.sum = Summary{Format: o.Format, Refused: map[string]int64{}, Marked: map[string]int64{}, Actions: map[string]int64{}}
	return p
}

// run reads r to its end and hands each line's drafts to fn, good during the
// call.
func (p *importParser) run(ctx context.Context, r io.Reader, fn func([]draft) error) error {
	lines := newLineReader(r)
	for ctx.Err() == nil {
		line, size, cut, err := lines.next()
		if errors.Is(err, io.EOF) {
			if line, size, cut = lines.rest(); size > 0 {
				p.tail = size
				return p.line(line, size, cut, fn)
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("after %d lines: %w", p.sum.Lines, err)
		}
		if err := p.line(line, size, cut, fn); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (p *importParser) line(raw []byte, size int64, cut bool, fn func([]draft) error) error {
	p.sum.Bytes += size
	drafts, err := p.parser.parse(string(raw))
	if err != nil {
		p.sum.Lines++
		p.refuse(err)
		return nil
	}
	if len(drafts) == 0 {
		return nil
	}
	p.sum.Lines++
	for i := range drafts {
		d := &drafts[i]
		if cut {
			d.Mark("cut:line")
		}
		p.sum.Events += int64(d.rows())
		p.sum.Actions[d.Action] += int64(d.rows())
		if p.sum.First == 0 || d.Time < int64(p.sum.First) {
			p.sum.First = event.Stamp(d.Time)
		}
		p.max = max(p.max, d.Time)
		p.sum.Last = event.Stamp(p.max)
	}
	return fn(drafts)
}

func (p *importParser) refuse(err error) {
	l := RefusedLine{Line: p.sum.Lines, Reason: "refused", Detail: err.Error()}
	if r := new(event.Refusal); asRefusal(err, &r) {
		l.Reason, l.Field, l.Detail = r.Reason, r.Field, r.Detail
	}
	p.sum.Refused[l.Reason]++
	if len(p.sum.Examples) < limitExamples {
		p.sum.Examples = append(p.sum.Examples, l)
	}
}

// marked counts the marks of a finished event.
func (s *Summary) marked(e *event.Event, n int64) {
	for rest := e.Marks; rest != ""; {
		var mark string
		mark, rest, _ = strings.Cut(rest, " ")
		what, _, _ := strings.Cut(mark, ":")
		s.Marked[what] += n
	}
}

// ParseFile reads r without any server and calls fn for each event, which is
// good during the call. Ids are those of a first import of the same content with
// the same options. Secrets are cut; names are left as they are, and user.hash
// is made with a key that everybody knows, so it differs from the server's. r is
// read twice. now is what times without a year, and the option Year 0, go by.
func ParseFile(ctx context.Context, r io.ReadSeeker, o ImportOptions, now time.Time, zone *time.Location, fn func(*event.Event) error) (Summary, error) {
	open := func() (io.ReadCloser, error) {
		if _, err := r.Seek(0, io.SeekStart); err != nil {
			return nil, fmt.Errorf("go back to the start: %w", err)
		}
		return io.NopCloser(r), nil
	}
	return parseContent(ctx, open, o, now, zone, fn)
}

// ParsePath is ParseFile of a path; one that ends in .gz is unpacked.
func ParsePath(ctx context.Context, path string, o ImportOptions, now time.Time, zone *time.Location, fn func(*event.Event) error) (Summary, error) {
	if err := checkImportFile(path); err != nil {
		return Summary{File: path}, err
	}
	sum, err := parseContent(ctx, func() (io.ReadCloser, error) { return openImport(path) }, o, now, zone, fn)
	sum.File = path
	return sum, err
}

func parseContent(ctx context.Context, open func() (io.ReadCloser, error), o ImportOptions, now time.Time, zone *time.Location, fn func(*event.Event) error) (Summary, error) {
	began := time.Now()
	if err := o.Validate(); err != nil {
		return Summary{}, err
	}
	zone, err := o.zone(zone)
	if err != nil {
		return Summary{}, err
	}
	c, err := survey(ctx, open, &o, nil, nil)
	if err != nil || c.size == 0 {
		return Summary{Format: o.Format}, err
	}
	r, err := open()
	if err != nil {
		return Summary{}, err
	}
	defer r.Close()
	p := newImportParser(o, zone, now.UnixMilli(), 0)
	p.sum.ID = importID(&o, 0, c.size, c.sum, 0)
	system := newAccountList(nil)
	seq := int64(0)
	err = p.run(ctx, io.LimitReader(r, c.size), func(drafts []draft) error {
		for i := range drafts {
			e := &drafts[i].Event
			cutSecrets(e)
			e.Cut()
			p.sum.marked(e, int64(drafts[i].rows()))
			e.Collector, e.Epoch, e.Source, e.Received = p.sum.ID, importEpoch, o.Source, now.UnixMilli()
			e.UserHash = publicHash(e.UserName, e.TenantID, system)
			for range drafts[i].rows() {
				seq++
				e.Seq = seq
				if err := fn(e); err != nil {
					return err
				}
			}
		}
		return nil
	})
	p.sum.Seconds = time.Since(began).Seconds()
	return p.sum, err
}

// publicHash groups events by user where no tenant's key is at hand. It hides
// nothing: whoever has the file has the names.
func publicHash(name, tenant string, system *accountList) string {
	if name == "" || system.has(name) {
		return name
	}
	mac := hmac.New(sha256.New, []byte("coc dry run "+tenant))
	mac.Write([]byte(name))
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

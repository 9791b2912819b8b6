package collector

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ImportClient brings files to a collector's import handler: it reads and hashes
// them here, asks what of them is known there, and sends what is new.
type ImportClient struct {
	HTTP  *http.Client // nil: http.DefaultClient
	URL   string       // of the API, without a path
	Token string
}

// Progress says how far an import is. Total is 0 while it is not known.
type Progress struct {
	Stage        string // hashing, sending, storing
	Bytes, Total int64
}

// Import imports a file; one that ends in .gz is unpacked first, so that it is
// the same import packed or not.
func (c *ImportClient) Import(ctx context.Context, path string, o ImportOptions, progress func(Progress)) (Summary, error) {
	if err := checkImportFile(path); err != nil {
		return Summary{File: path}, err
	}
	return c.ImportFrom(ctx, path, func() (io.ReadCloser, error) { return openImport(path) }, o, progress)
}

// ImportFrom imports what open gives, which it calls several times and which
// must be the same bytes each time, or begin with them. progress may be nil.
func (c *ImportClient) ImportFrom(ctx context.Context, name string, open func() (io.ReadCloser, error), o ImportOptions, progress func(Progress)) (Summary, error) {
	began := time.Now()
	if err := o.Validate(); err != nil {
		return Summary{File: name}, err
	}
	if progress == nil {
		progress = func(Progress) {}
	}
	var key string
	var known []importEntry
	s, err := survey(ctx, open, &o, func(firstLine []byte) ([]int64, error) {
		key = importKey(&o, firstLine)
		var err error
		known, err = c.known(ctx, key)
		return lengthsOf(known), err
	}, func(n int64) { progress(Progress{"hashing", n, 0}) })
	if err != nil {
		return Summary{File: name, Format: o.Format}, err
	}
	if s.size == 0 {
		return Summary{File: name, Format: o.Format, Seconds: time.Since(began).Seconds()}, nil
	}
	parts, last := plan(s, known, o.Again)
	sum, err := c.sendParts(ctx, open, &o, key, s, parts, last, progress)
	sum.File, sum.Format, sum.Seconds = filepath.Clean(name), o.Format, time.Since(began).Seconds()
	return sum, err
}

// lengthsOf lists how far the known imports go, ascending.
func lengthsOf(known []importEntry) (at []int64) {
	for _, e := range known {
		at = append(at, e.To)
	}
	slices.Sort(at)
	return slices.Compact(at)
}

// part is a stretch of the content to send.
type part struct {
	from, to int64
	again    int
	sum      string // of the content up to to
	resumes  bool
	known    int64 // bytes before it that are imported
}

// plan decides what to send: an interrupted part first, then what is new. No
// part means that all is known; last is then the import that brought the end of
// it, which engine and sink may still be busy with.
func plan(s *content, known []importEntry, again bool) (parts []part, last importEntry) {
	size, whole := s.size, hex.EncodeToString(s.sum[:])
	var mine []importEntry // those that this content begins with
	for _, e := range known {
		if sum, ok := s.sums[e.To]; ok && hex.EncodeToString(sum[:]) == e.SHA256 {
			mine = append(mine, e)
		}
	}
	if again {
		p := part{from: 0, to: size, again: 1, sum: whole}
		for _, e := range mine {
			if e.From != 0 || e.To != size || e.Again < p.again {
				continue
			}
			if p.again = e.Again; e.Stored {
				p.again++
			}
		}
		return []part{p}, last
	}
	covered, tail := int64(0), int64(0)
	for _, e := range mine {
		if e.Stored && e.Again == 0 && e.To > covered {
			covered, tail, last = e.To, e.Tail, e
		}
	}
	for _, e := range mine {
		if !e.Stored && e.Again == 0 && e.To > covered && (e.From == covered || e.From == covered-tail) {
			parts = append(parts, part{from: e.From, to: e.To, sum: e.SHA256, resumes: true, known: covered})
			covered, tail = e.To, 0 // whether it ends within a line is known when it is done
			break
		}
	}
	if covered < size {
		from := covered
		if next, ok := s.next[covered]; ok && next != '\n' {
			from -= tail // the line that was not ended yet is read again, whole
		}
		parts = append(parts, part{from: from, to: size, sum: whole, known: covered})
	}
	return parts, last
}

func (c *ImportClient) sendParts(ctx context.Context, open func() (io.ReadCloser, error), o *ImportOptions, key string, s *content, parts []part, last importEntry, progress func(Progress)) (Summary, error) {
	if len(parts) == 0 {
		return Summary{ID: last.ID, Seq: last.Seq, Known: true, Skipped: s.size}, nil
	}
	var total Summary
	for n, p := range parts {
		one, err := c.send(ctx, open, o, key, &p, progress)
		if err != nil {
			return total, err
		}
		one.Skipped, one.Resumed = p.known, p.resumes
		if n == 0 {
			total = one
			continue
		}
		total.join(&one)
	}
	return total, nil
}

// join adds a later part's sum.
func (s *Summary) join(b *Summary) {
	s.ID, s.Seq = b.ID, b.Seq
	s.Lines, s.Events, s.Bytes = s.Lines+b.Lines, s.Events+b.Events, s.Bytes+b.Bytes
	for _, m := range [...]struct{ to, from *map[string]int64 }{{&s.Refused, &b.Refused}, {&s.Marked, &b.Marked}, {&s.Actions, &b.Actions}} {
		for k, n := range *m.from {
			if *m.to == nil {
				*m.to = map[string]int64{}
			}
			(*m.to)[k] += n
		}
	}
	s.Examples = append(s.Examples, b.Examples...)
	if s.First == 0 || b.First != 0 && b.First < s.First {
		s.First = b.First
	}
	s.Last = max(s.Last, b.Last)
}

func (c *ImportClient) send(ctx context.Context, open func() (io.ReadCloser, error), o *ImportOptions, key string, p *part, progress func(Progress)) (Summary, error) {
	r, err := open()
	if err != nil {
		return Summary{}, err
	}
	defer r.Close()
	if _, err := io.CopyN(io.Discard, r, p.from); err != nil {
		return Summary{}, fmt.Errorf("the file changed while it was read; run the import again: %w", err)
	}
	v := o.values()
	v.Set("key", key)
	v.Set("from", strconv.FormatInt(p.from, 10))
	v.Set("to", strconv.FormatInt(p.to, 10))
	v.Set("sha256", p.sum)
	v.Set("lateness", o.Lateness.String())
	if p.again > 0 {
		v.Set("again", strconv.Itoa(p.again))
	}
	total := p.to - p.from
	body := &progressReader{r: io.LimitReader(r, total), tell: func(n int64) {
		stage := "sending"
		if n == total {
			stage = "storing"
		}
		progress(Progress{stage, n, total})
	}}
	var sum Summary
	err = c.call(ctx, http.MethodPost, "/v1/imports?"+v.Encode(), body, total, &sum)
	return sum, err
}

type progressReader struct {
	r    io.Reader
	n    int64
	tell func(int64)
}

func (p *progressReader) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	p.n += int64(n)
	p.tell(p.n)
	return n, err
}

func (c *ImportClient) known(ctx context.Context, key string) ([]importEntry, error) {
	var answer struct{ Known []importEntry }
	err := c.call(ctx, http.MethodGet, "/v1/imports?key="+url.QueryEscape(key), nil, 0, &answer)
	return answer.Known, err
}

// State asks how far an import is.
func (c *ImportClient) State(ctx context.Context, id string) (ImportState, error) {
	var s ImportState
	err := c.call(ctx, http.MethodGet, "/v1/imports/"+url.PathEscape(id), nil, 0, &s)
	return s, err
}

// Wait asks until engine and sink are through with an import, or ctx ends. each
// may be nil.
func (c *ImportClient) Wait(ctx context.Context, id string, each func(ImportState)) (ImportState, error) {
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		s, err := c.State(ctx, id)
		var no *refusedRequest
		switch {
		case err != nil && !(errors.As(err, &no) && no.status == http.StatusServiceUnavailable):
			return s, err
		case err == nil && each != nil:
			each(s)
		}
		switch {
		case err == nil && s.State == "through":
			return s, nil
		case err == nil && s.State == "interrupted":
			return s, errors.New("the import was interrupted: run it again, it goes on where it stopped")
		}
		if err := sleep(ctx, pause); err != nil {
			return s, err
		}
	}
}

// refusedRequest is an answer that is no success.
type refusedRequest struct {
	status int
	text   string
}

func (e *refusedRequest) Error() string { return e.text }

// limitAnswer bounds what is read of an answer.
const limitAnswer = 4 << 20

func (c *ImportClient) call(ctx context.Context, method, path string, body io.Reader, size int64, into any) error {
	r, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.URL, "/")+path, body)
	if err != nil {
		return err
	}
	if body != nil {
		r.ContentLength = size
		r.Header.Set("Content-Type", "application/octet-stream")
	}
	if c.Token != "" {
		r.Header.Set("Authorization", "Bearer "+c.Token)
	}
	client := c.HTTP
	if client == nil {
		client = http.DefaultClient
	}
	answer, err := client.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(io.LimitReader(answer.Body, limitAnswer))
	if err != nil {
		return fmt.Errorf("read the server's answer: %w", err)
	}
	if answer.StatusCode/100 != 2 {
		return &refusedRequest{answer.StatusCode, refusalText(answer.StatusCode, data)}
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("the server's answer is not what it should be: %w", err)
	}
	return nil
}

// refusalText takes the sentence out of an answer, whoever wrote it.
func refusalText(status int, data []byte) string {
	var a struct{ Error, Detail, Title string }
	if json.Unmarshal(data, &a) == nil {
		for _, s := range [...]string{a.Error, a.Detail, a.Title} {
			if s != "" {
				return s
			}
		}
	}
	return fmt.Sprintf("the server says %d %s: %s", status, http.StatusText(status), bytes.TrimSpace(data[:min(len(data), 200)]))
}

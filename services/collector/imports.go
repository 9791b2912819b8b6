package collector

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencoc/coc/services/bus"
	"github.com/opencoc/coc/services/event"
)

// imports takes files into the house.
type imports struct {
	c *Collector

	mu      sync.Mutex
	running map[string]bool // by import id
	ended   bool
	cancels map[string]context.CancelFunc
	work    sync.WaitGroup
}

func newImports(c *Collector) *imports {
	return &imports{c: c, running: make(map[string]bool), cancels: make(map[string]context.CancelFunc)}
}

// wait ends the imports that run and waits for them. Their senders are told to
// run them again, which goes on where they stopped.
func (i *imports) wait() {
	i.mu.Lock()
	i.ended = true
	for _, cancel := range i.cancels {
		cancel()
	}
	i.mu.Unlock()
	i.work.Wait()
}

// begin registers an import of this process.
func (i *imports) begin(id string, cancel context.CancelFunc) *reply {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case i.ended:
		return later(http.StatusServiceUnavailable, 5, "the collector is ending: run the import again, it goes on where it stopped")
	case i.running[id]:
		return deny(http.StatusConflict, "this very import is running: wait for it")
	case len(i.running) >= limitImports:
		return later(http.StatusTooManyRequests, 10, "%d imports are running, which is all there may be at once", limitImports)
	}
	i.running[id], i.cancels[id] = true, cancel
	i.work.Add(1)
	return nil
}

func (i *imports) finish(id string) {
	i.mu.Lock()
	delete(i.running, id)
	delete(i.cancels, id)
	i.mu.Unlock()
	i.work.Done()
}

// importRecord is what is remembered of the imports of files that begin with
// the same line.
type importRecord struct {
	Entries []importEntry `json:"entries"`
}

// importEntry is one import: of the bytes from From up to To of a content whose
// first To bytes have the hash SHA256.
type importEntry struct {
	ID     string `json:"id"`
	From   int64  `json:"from"`
	To     int64  `json:"to"`
	SHA256 string `json:"sha256"`
	Again  int    `json:"again,omitempty"`
	// Ref stands for now and Since for the time of the line before; see
	// newImportParser.
	Ref   int64 `json:"ref"`
	Since int64 `json:"since,omitempty"`
	// What is known at the end. Tail is the length of a last line without its
	// newline: when the file grows that line is read again, whole.
	Stored bool        `json:"stored"`
	Until  int64       `json:"until,omitempty"`
	Tail   int64       `json:"tail,omitempty"`
	Events int64       `json:"events,omitempty"`
	Seq    uint64      `json:"seq,omitempty"`
	Began  event.Stamp `json:"began,omitzero"`
	Ended  event.Stamp `json:"ended,omitzero"`
}

// ImportState says how far an import is.
type ImportState struct {
	ID string `json:"id"`
	// State is running, interrupted, stored (on the bus) or through (engine and
	// sink have passed its last message).
	State  string `json:"state"`
	Events int64  `json:"events"`
	// Seq is the bus sequence of its last message; Engine and Sink how far they
	// are.
	Seq     uint64      `json:"seq"`
	Engine  uint64      `json:"engine"`
	Sink    uint64      `json:"sink"`
	Started event.Stamp `json:"started,omitzero"`
	Stored  event.Stamp `json:"stored,omitzero"`
}

// Imports returns the handler of /v1/imports and /v1/imports/{id}. Whoever
// mounts it checks who may import.
func (c *Collector) Imports() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/imports", func(w http.ResponseWriter, r *http.Request) { answer(w, c.imports.known(r)) })
	mux.HandleFunc("GET /v1/imports/{id}", func(w http.ResponseWriter, r *http.Request) { answer(w, c.imports.state(r)) })
	mux.HandleFunc("POST /v1/imports", func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		_ = control.SetReadDeadline(time.Time{}) // a large file takes its time
		_ = control.SetWriteDeadline(time.Time{})
		answer(w, c.imports.post(r))
	})
	return mux
}

// known answers which imports there were of files that begin alike.
func (i *imports) known(r *http.Request) *reply {
	rec, _, err := i.load(r.Context(), r.URL.Query().Get("key"))
	if err != nil {
		return i.failed(err)
	}
	return &reply{status: http.StatusOK, body: map[string]any{"known": rec.Entries}}
}

func (i *imports) failed(err error) *reply {
	if errors.Is(err, bus.ErrInvalid) {
		return deny(http.StatusBadRequest, "%v", err)
	}
	return later(http.StatusServiceUnavailable, 5, "the bus does not tell about imports now: %v", err)
}

func (i *imports) load(ctx context.Context, key string) (importRecord, uint64, error) {
	var rec importRecord
	kv, err := i.c.cfg.Bus.KV(bus.BucketImports)
	if err != nil {
		return rec, 0, err
	}
	e, err := kv.Get(ctx, key)
	if errors.Is(err, bus.ErrNotFound) {
		return rec, 0, nil
	}
	if err != nil {
		return rec, 0, err
	}
	if err := json.Unmarshal(e.Value, &rec); err != nil {
		return rec, 0, fmt.Errorf("the record of imports %s is not readable: %w", key, err)
	}
	return rec, e.Revision, nil
}

// change applies fn to a record by compare-and-set.
func (i *imports) change(ctx context.Context, key string, fn func(*importRecord) error) error {
	kv, err := i.c.cfg.Bus.KV(bus.BucketImports)
	if err != nil {
		return err
	}
	for range 10 {
		rec, revision, err := i.load(ctx, key)
		if err != nil {
			return err
		}
		if err := fn(&rec); err != nil {
			return err
		}
		if n := len(rec.Entries) - limitKnown; n > 0 {
			rec.Entries = rec.Entries[n:]
		}
		data, err := json.Marshal(&rec)
		if err != nil {
			return fmt.Errorf("record of imports: %w", err)
		}
		if _, err = kv.Update(ctx, key, data, revision); err == nil {
			return nil
		} else if !errors.Is(err, bus.ErrConflict) {
			return err
		}
	}
	return fmt.Errorf("the record of imports %s is changed by others all the time: try again", key)
}

// state answers how far an import is.
func (i *imports) state(r *http.Request) *reply {
	ctx, id := r.Context(), r.PathValue("id")
	kv, err := i.c.cfg.Bus.KV(bus.BucketImports)
	if err != nil {
		return i.failed(err)
	}
	where, err := kv.Get(ctx, "id."+id)
	if errors.Is(err, bus.ErrNotFound) {
		return deny(http.StatusNotFound, "there is no import %q", id)
	}
	if err != nil {
		return i.failed(err)
	}
	rec, _, err := i.load(ctx, string(where.Value))
	if err != nil {
		return i.failed(err)
	}
	at := slices.IndexFunc(rec.Entries, func(e importEntry) bool { return e.ID == id })
	if at < 0 {
		return deny(http.StatusNotFound, "the import %q is forgotten: only the last %d of files that begin alike are remembered", id, limitKnown)
	}
	e := &rec.Entries[at]
	s := ImportState{ID: id, Events: e.Events, Seq: e.Seq, Started: e.Began, Stored: e.Ended}
	i.mu.Lock()
	running := i.running[id]
	i.mu.Unlock()
	switch {
	case e.Stored:
		s.State = "stored"
		if i.c.cfg.Through != nil {
			pos, err := i.c.cfg.Through(ctx)
			if err != nil {
				return later(http.StatusServiceUnavailable, 1, "how far engine and sink are is not known: %v", err)
			}
			if s.Engine, s.Sink = pos.Engine, pos.Sink; min(pos.Engine, pos.Sink) >= e.Seq {
				s.State = "through"
			}
		}
	case running:
		s.State = "running"
	default:
		s.State = "interrupted"
	}
	return &reply{status: http.StatusOK, body: s}
}

// importRequest is what the client says of what it sends.
type importRequest struct {
	key      string
	o        ImportOptions
	from, to int64
	sha256   string
	again    int
}

func readImportRequest(r *http.Request) (q importRequest, err error) {
	v := r.URL.Query()
	if q.o, err = readOptions(v); err != nil {
		return q, err
	}
	number := func(key string) int64 {
		n, bad := strconv.ParseInt(v.Get(key), 10, 64)
		if bad != nil || n < 0 {
			err = fmt.Errorf("%s=%q is no number", key, v.Get(key))
		}
		return n
	}
	q.key, q.sha256 = v.Get("key"), strings.ToLower(v.Get("sha256"))
	q.from, q.to = number("from"), number("to")
	if v.Has("again") {
		q.again = int(number("again"))
	}
	switch sum, bad := hex.DecodeString(q.sha256); {
	case err != nil:
	case bad != nil || len(sum) != 32:
		err = errors.New("sha256 is not the SHA-256 of the content up to \"to\"")
	case !strings.HasPrefix(q.key, "head."):
		err = errors.New("key is missing")
	case q.to <= q.from:
		err = fmt.Errorf("nothing to import from byte %d to %d", q.from, q.to)
	}
	return q, err
}

// post imports the body.
func (i *imports) post(r *http.Request) *reply {
	q, err := readImportRequest(r)
	if err != nil {
		return deny(http.StatusBadRequest, "%v", err)
	}
	zone, err := q.o.zone(i.c.cfg.Zone)
	if err != nil {
		return deny(http.StatusBadRequest, "%v", err)
	}
	if state, _ := i.c.batch.status(); state == stateStarting || state == stateStopped {
		return later(http.StatusServiceUnavailable, 5, "this collector is %s", state)
	}
	var sum [32]byte
	raw, _ := hex.DecodeString(q.sha256) // checked before
	copy(sum[:], raw)
	id := importID(&q.o, q.from, q.to, sum, q.again)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	if no := i.begin(id, cancel); no != nil {
		return no
	}
	defer i.finish(id)
	entry, resumed, err := i.enter(ctx, id, &q)
	if err != nil {
		return i.failed(err)
	}
	if entry.Stored {
		return &reply{status: http.StatusOK, body: Summary{ID: id, Format: q.o.Format, Known: true, Seq: entry.Seq, Skipped: q.to}}
	}
	summary, err := i.run(ctx, r, &q, &entry, zone)
	if err != nil {
		return i.broken(err)
	}
	summary.Resumed, summary.Skipped = resumed, q.from
	return &reply{status: http.StatusOK, body: summary}
}

func (i *imports) broken(err error) *reply {
	const again = "run it again, it goes on where it stopped"
	switch {
	case errors.Is(err, errShort):
		return deny(http.StatusBadRequest, "%v: the file changed while it was read; run the import again", err)
	case errors.Is(err, bus.ErrFenced):
		return deny(http.StatusConflict, "another collector runs this very import: wait for it")
	case errors.Is(err, context.Canceled):
		return later(http.StatusServiceUnavailable, 5, "the import was interrupted: %s", again)
	}
	return later(http.StatusServiceUnavailable, 5, "the import was interrupted (%v): %s", err, again)
}

// enter finds or makes the record of an import.
func (i *imports) enter(ctx context.Context, id string, q *importRequest) (entry importEntry, resumed bool, err error) {
	kv, err := i.c.cfg.Bus.KV(bus.BucketImports)
	if err != nil {
		return entry, false, err
	}
	if _, err := kv.Put(ctx, "id."+id, []byte(q.key)); err != nil {
		return entry, false, err
	}
	err = i.change(ctx, q.key, func(rec *importRecord) error {
		if at := slices.IndexFunc(rec.Entries, func(e importEntry) bool { return e.ID == id }); at >= 0 {
			entry, resumed = rec.Entries[at], true
			return nil
		}
		now := event.Stamp(i.c.now())
		entry = importEntry{ID: id, From: q.from, To: q.to, SHA256: q.sha256, Again: q.again, Ref: int64(now), Began: now}
		for _, e := range rec.Entries { // the part before, for its last line's time
			if e.Stored && e.Again == 0 && q.from > 0 && (e.To == q.from || e.To-e.Tail == q.from) {
				entry.Since = e.Until
			}
		}
		rec.Entries = append(rec.Entries, entry)
		return nil
	})
	return entry, resumed, err
}

package collector

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/opencoc/coc/services/bus"
	"github.com/opencoc/coc/services/event"
)

// errShort says that fewer bytes came than announced.
var errShort = errors.New("the content ended before its announced length")

// run parses, seals and publishes the body, and remembers the import as stored.
func (i *imports) run(ctx context.Context, r *http.Request, q *importRequest, entry *importEntry, zone *time.Location) (Summary, error) {
	began := time.Now()
	w, err := i.writer(ctx, q, entry)
	if err != nil {
		return Summary{}, err
	}
	p := newImportParser(q.o, zone, entry.Ref, entry.Since)
	p.sum.ID = entry.ID
	w.sum = &p.sum
	body := &countedReader{r: io.LimitReader(r.Body, q.to-q.from)}
	err = p.run(ctx, body, func(drafts []draft) error {
		if err := w.add(ctx, drafts); err != nil {
			return err
		}
		w.max = p.max // once they are in: the mark never runs ahead of what is sent
		return nil
	})
	if err == nil && body.n < q.to-q.from {
		err = errShort
	}
	if err != nil {
		return Summary{}, err
	}
	w.refused = p.sum.Refused
	if err := w.flush(ctx, true); err != nil {
		return Summary{}, err
	}
	p.sum.Seq = w.seq
	p.sum.Seconds = time.Since(began).Seconds()
	return p.sum, i.remember(ctx, q.key, entry.ID, p)
}

// remember notes that an import is on the bus.
func (i *imports) remember(ctx context.Context, key, id string, p *importParser) error {
	return i.change(ctx, key, func(rec *importRecord) error {
		at := slices.IndexFunc(rec.Entries, func(e importEntry) bool { return e.ID == id })
		if at < 0 {
			return nil // forgotten meanwhile, among too many
		}
		e := &rec.Entries[at]
		e.Stored, e.Until, e.Tail = true, p.parser.clock.last, p.tail
		e.Events, e.Seq, e.Ended = p.sum.Events, p.sum.Seq, event.Stamp(i.c.now())
		return nil
	})
}

type countedReader struct {
	r io.Reader
	n int64
}

func (c *countedReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// importWriter publishes an import's events in messages of its own time domain.
type importWriter struct {
	c       *Collector
	pub     *bus.Publisher
	builder *event.Builder
	id      string
	source  string
	late    int64
	sum     *Summary

	// skip is how many events are on the bus from before an interruption.
	skip    int64
	max     int64 // latest time so far
	mark    int64
	refused map[string]int64
	seq     uint64
}

// writer opens the import's numbering where it stopped.
func (i *imports) writer(ctx context.Context, q *importRequest, entry *importEntry) (*importWriter, error) {
	b := i.c.cfg.Bus
	n, err := b.LastNumbers(ctx, entry.ID)
	if err != nil {
		return nil, err
	}
	if n.Epoch == 0 {
		// The epoch of an import is fixed, so that its events are called the same
		// by a dry run; nobody else has written under this name yet.
		if err := b.PutNumbers(ctx, entry.ID, bus.Numbers{Epoch: importEpoch}); err != nil {
			return nil, err
		}
	}
	pub, err := b.NewPublisher(ctx, entry.ID)
	if err != nil {
		return nil, err
	}
	return &importWriter{
		c: i.c, pub: pub, builder: event.NewBuilder(), id: entry.ID, source: q.o.Source,
		late: q.o.Lateness.Milliseconds(), skip: pub.Next() - 1,
	}, nil
}

// add takes a line's drafts.
func (w *importWriter) add(ctx context.Context, drafts []draft) error {
	if err := w.seal(ctx, drafts); err != nil {
		return err
	}
	received := w.c.now()
	for i := range drafts {
		d := &drafts[i]
		e := &d.Event
		w.sum.marked(e, int64(d.rows()))
		e.Collector, e.Epoch, e.Source, e.Received = w.id, w.pub.Epoch(), w.source, received
		size := rawSize(e, nil)
		for range d.rows() {
			if w.skip > 0 {
				w.skip--
				continue
			}
			if w.builder.Full(size) {
				if err := w.flush(ctx, false); err != nil {
					return err
				}
			}
			e.Seq = w.pub.Next() + int64(w.builder.Rows())
			if err := w.builder.Append(e); err != nil {
				return err
			}
		}
	}
	return nil
}

// seal waits while the bus does not take the sealed names.
func (w *importWriter) seal(ctx context.Context, drafts []draft) error {
	for pause := retryFirst; ; pause = min(2*pause, retryLast) {
		err := w.c.seal.seal(ctx, drafts)
		if err == nil || !errors.Is(err, bus.ErrAway) && !errors.Is(err, bus.ErrFull) {
			return err
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
}

// flush publishes what has gathered, and waits while the bus is full: that holds
// the sender back. end marks the import's last message, which may be empty.
func (w *importWriter) flush(ctx context.Context, end bool) error {
	rows := int64(w.builder.Rows())
	if rows == 0 && !end {
		return nil
	}
	// Events up to the latest so far may be disordered by late.
	w.mark = max(w.mark, w.max-w.late)
	m := bus.Meta{
		Epoch: w.pub.Epoch(), First: w.pub.Next(), Rows: rows, Bytes: int64(w.builder.RawBytes()), Mark: max(0, w.mark),
		Schema: schemaVersion, Import: w.id, ImportEnd: end,
	}
	if rows > 0 {
		m.Sources = map[string]int64{w.source: rows}
	}
	if end {
		m.Refused = make(map[string]int64, len(w.refused))
		for reason, n := range maps.All(w.refused) {
			m.Refused[w.source+":"+reason] = n
		}
	}
	data, err := w.builder.Encode()
	if err != nil {
		return fmt.Errorf("import %s: %w", w.id, err)
	}
	for pause := retryFirst; ; pause = min(2*pause, retryLast) {
		seq, err := w.pub.Publish(ctx, m, data)
		switch {
		case err == nil:
			w.seq = seq
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case !errors.Is(err, bus.ErrFull) && !errors.Is(err, bus.ErrAway):
			return fmt.Errorf("import %s: %w", w.id, err)
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
}

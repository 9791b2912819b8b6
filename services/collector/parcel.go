package collector

import (
	"encoding/json"

	"github.com/opencoc/coc/services/event"
)

// parcel is what a source hands over at once: events that are sealed and stand
// in one message of the bus or in none. Whoever made it may use its drafts again
// only after done was called.
type parcel struct {
	from *sourceState
	// name is event.source and counts in the ledger; senders by HTTP have names
	// of their own behind one source.
	name     string
	drafts   []draft
	rows     int
	bytes    int
	received int64 // Unix ms, the bus's clock
	// claim: all of the source's events up to here are handed over with this
	// parcel; Unix ms.
	claim int64
	// cursor is where the source goes on after this parcel, nil when it cannot
	// be asked again.
	cursor json.RawMessage
	// keys are idempotency keys with the rows they stand for.
	keys []parcelKey
	// done is called once, from the publisher's goroutine: it must not block.
	done func(outcome)
}

// parcelKey names rows of a parcel by what their sender calls them.
type parcelKey struct {
	hash        string
	first, rows int // first counts from the parcel's first row
}

// outcome is what became of a parcel: stored, or an error.
type outcome struct {
	epoch, first int64
	rows         int
	seq          uint64
	err          error
}

// measure sets rows and bytes. bytes is an upper bound of what the drafts take
// in a batch, so that a parcel that fits by it fits.
func (p *parcel) measure() {
	p.rows, p.bytes = 0, batchSize
	var last *event.Event
	for i := range p.drafts {
		d := &p.drafts[i]
		n := d.rows()
		size := rawSize(&d.Event, last)
		p.bytes += size
		if n > 1 { // repeats share the texts of dictionaries, not the others
			p.bytes += (n - 1) * rawSize(&d.Event, &d.Event)
		}
		p.rows += n
		last = &d.Event
	}
}

// measureText is measure for drafts that were read from text bytes: their texts
// cannot be longer, so that they need not be looked at unless it is close.
func (p *parcel) measureText(text int) {
	p.rows, p.bytes = len(p.drafts), batchSize+text+len(p.drafts)*fixedSize
	if p.bytes > event.LimitBatchBytes {
		p.measure()
	}
}

// batchSize is what a batch takes besides its events: the empty text in each
// dictionary.
const batchSize = 4 * 64

// fixedSize is what one event takes without its texts: codes, numbers, offsets.
var fixedSize = func() (n int) {
	for i := range event.Fields {
		switch event.Fields[i].Type {
		case event.Dict:
			n += 2
		case event.Text, event.Map:
			n += 4
		default:
			n += 8
		}
	}
	return n
}()

// rawSize bounds what e takes in a batch behind last. A dictionary's text that
// last has too is not kept again.
func rawSize(e, last *event.Event) int {
	n := fixedSize
	for _, f := range textFields {
		s := *e.Text(f)
		switch {
		case s == "":
		case event.Fields[f].Type == event.Text:
			n += len(s)
		case last == nil || *last.Text(f) != s:
			n += 4 + len(s)
		}
	}
	for i := range e.Labels {
		n += 8 + len(e.Labels[i].Key) + len(e.Labels[i].Value)
	}
	return n
}

var textFields = func() (list []int) {
	var e event.Event
	for i := range event.Fields {
		if e.Text(i) != nil {
			list = append(list, i)
		}
	}
	return list
}()

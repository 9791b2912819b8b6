package rule

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"math"
	"slices"

	"github.com/opencoc/coc/services/event"
)

// replayRows is how many events an offline run evaluates at once, as many as a
// collector puts into a message.
const replayRows = event.LimitRows

// BacktestOptions of Backtest.
type BacktestOptions struct {
	Import   string             // put into the findings
	Progress func(events int64) // called now and then during the second pass; may be nil
}

// BacktestResult is what a set finds in recorded events.
type BacktestResult struct {
	Findings    []event.Finding // those that stand, in their last revision, by time, rule and id
	Events      int64
	First, Last int64 // event times, Unix ms; 0 without events
	Rules       []RuleStats
}

// Backtest evaluates recorded events without servers, by the same Runner as
// the engine. The events are an import of their own: open is called twice, once
// to learn how far the file is out of order, so that nothing is late however it
// is ordered, and once to evaluate. Both times it must give the same events; an
// event is used before the next is asked for. Events without collector get the
// collector "offline" and their number.
func Backtest(ctx context.Context, set *Set, open func() iter.Seq2[*event.Event, error], o BacktestOptions) (BacktestResult, error) {
	var out BacktestResult
	marks, err := lowWater(ctx, open, &out)
	if err != nil {
		return out, err
	}
	r := NewRunner(set, RunnerOptions{})
	c := newCollected()
	feed := &feeder{runner: r, domain: o.Import, into: c, marks: marks}
	if feed.domain == "" {
		feed.domain = "backtest"
	}
	number := int64(0)
	for e, err := range open() {
		if err != nil {
			return out, fmt.Errorf("event %d cannot be read: %w", number+1, err)
		}
		number++
		one := *e
		if one.Collector == "" {
			one.Collector, one.Epoch, one.Seq = "offline", 1, number
		}
		if err := feed.add(&one); err != nil {
			return out, fmt.Errorf("event %d: %w", number, err)
		}
		if number%replayRows == 0 {
			if err := ctx.Err(); err != nil {
				return out, err
			}
			if o.Progress != nil {
				o.Progress(number)
			}
		}
	}
	if err := feed.flush(); err != nil {
		return out, err
	}
	if number != out.Events {
		return out, fmt.Errorf("the events changed while they were read: %d the first time, %d the second", out.Events, number)
	}
	out.Findings = c.standing()
	for i := range out.Findings {
		out.Findings[i].Import = o.Import
	}
	out.Rules = r.Stats()
	return out, nil
}

// lowWater finds, for each run of replayRows events, the least time that still
// comes after it: the low-water mark that a collector would send with it.
func lowWater(ctx context.Context, open func() iter.Seq2[*event.Event, error], out *BacktestResult) ([]int64, error) {
	var least []int64
	for e, err := range open() {
		if err != nil {
			return nil, fmt.Errorf("event %d cannot be read: %w", out.Events+1, err)
		}
		if out.Events%replayRows == 0 {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			least = append(least, math.MaxInt64)
		}
		if out.Events == 0 {
			out.First, out.Last = e.Time, e.Time
		}
		out.Events++
		out.First, out.Last = min(out.First, e.Time), max(out.Last, e.Time)
		least[len(least)-1] = min(least[len(least)-1], e.Time)
	}
	return marksOf(least), nil
}

// marksOf turns the least time of each batch into the least of all later ones.
func marksOf(least []int64) []int64 {
	marks := make([]int64, len(least))
	after := int64(math.MaxInt64)
	for i := len(least) - 1; i >= 0; i-- {
		if marks[i] = after; after == math.MaxInt64 {
			marks[i] = 0 // nothing follows; no need to say so
		}
		after = min(after, least[i])
	}
	return marks
}

// feeder makes batches of events and gives them to a Runner, with marks.
type feeder struct {
	runner  *Runner
	domain  string
	into    *collected
	marks   []int64 // by run of replayRows events: the low-water mark after it
	builder *event.Builder
	seq     uint64
	events  int // taken so far
}

func (f *feeder) add(e *event.Event) error {
	if f.builder == nil {
		f.builder = event.NewBuilder()
	}
	// Long texts fill a message before its rows do.
	if f.builder.Full(rawSize(e)) {
		if err := f.flush(); err != nil {
			return err
		}
	}
	if err := f.builder.Append(e); err != nil {
		return err
	}
	f.events++
	if f.events%replayRows == 0 {
		return f.flush()
	}
	return nil
}

// rawSize is what an event takes in a batch at most, before compression.
func rawSize(e *event.Event) int {
	n := 16 * len(event.Fields)
	for i := range event.Fields {
		if s := e.Text(i); s != nil {
			n += len(*s)
		}
	}
	for _, l := range e.Labels {
		n += 8 + len(l.Key) + len(l.Value)
	}
	return n
}

func (f *feeder) flush() error {
	if f.builder == nil || f.builder.Rows() == 0 {
		return nil
	}
	data, err := f.builder.Encode()
	if err != nil {
		return err
	}
	b, err := event.DecodeFields(data, f.runner.set.fields)
	if err != nil {
		return err
	}
	defer b.Release()
	f.seq++
	// Within a run the mark of the run before holds: the rest of this one is not
	// older than that.
	mark := int64(0)
	if run := f.events/replayRows - 1; run >= 0 && run < len(f.marks) {
		mark = f.marks[run]
	}
	f.into.add(f.runner.Message(Input{Seq: f.seq, Batch: b, Collector: "offline", Mark: mark, Import: f.domain}))
	return nil
}

// collected keeps the last revision of each finding.
type collected struct {
	last map[string]event.Finding
}

func newCollected() *collected { return &collected{last: map[string]event.Finding{}} }

func (c *collected) add(list []event.Finding) {
	for _, f := range list {
		c.last[f.ID] = f
	}
}

// standing returns the findings that were not withdrawn, by time, rule and id.
func (c *collected) standing() []event.Finding {
	out := make([]event.Finding, 0, len(c.last))
	for _, f := range c.last {
		if !f.Withdrawn {
			out = append(out, f)
		}
	}
	slices.SortFunc(out, func(a, b event.Finding) int {
		return cmp.Or(cmp.Compare(a.Fired, b.Fired), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.ID, b.ID))
	})
	return out
}

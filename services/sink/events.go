package sink

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/opencoc/coc/services/bus"
	"github.com/opencoc/coc/services/store"
)

// followEvents stores EVENTS, cut by cut, until reading ends.
func (s *Sink) followEvents(reading, writing context.Context) error {
	f := &follower{Sink: s, name: bus.CutEvents, p: &s.state.events, reading: reading, writing: writing}
	err := f.events()
	if errors.Is(err, errEnded) {
		return nil
	}
	return err
}

func (f *follower) events() error {
	if err := f.begin(); err != nil {
		return err
	}
	r, err := f.open(f.bus.Events)
	if err != nil {
		return err
	}
	defer r.Close()
	g := &gatherer{f: f, r: r}
	if f.cut.Open() {
		f.log.Info("an open cut is repeated", "first", f.cut.First, "last", f.cut.Last, "rows", f.cut.Rows)
		if err := f.finishOpen(g); err != nil {
			return err
		}
	}
	return f.cuts(g)
}

// cuts puts one cut after another and gathers the next one meanwhile.
func (f *follower) cuts(g *gatherer) (err error) {
	ready := make(chan []item)
	putting, stop := context.WithCancel(context.Background())
	var gatherErr error
	var gathering sync.WaitGroup
	gathering.Go(func() { gatherErr = g.run(putting, ready) })
	defer func() {
		stop()
		gathering.Wait()
		if err == nil {
			err = gatherErr
		}
	}()
	for items := range ready {
		if err := f.put(items); err != nil {
			return err
		}
	}
	return nil
}

// finishOpen repeats the cut that was recorded and not done: the same messages
// less the excluded ones, under the same token. What it wrote before it fell is
// not written again.
func (f *follower) finishOpen(g *gatherer) error {
	items, err := g.through(f.cut.Last)
	if err != nil || items == nil {
		return err
	}
	for i, it := range items {
		if slices.Contains(f.cut.Excluded, it.Seq) && it.bad == "" {
			items[i].reason, items[i].bad = "excluded", "it was excluded before a restart"
		}
	}
	return f.put(items)
}

// put stores one cut, or, when ClickHouse refuses its data, its halves.
func (f *follower) put(items []item) error {
	list, rows := kept(items)
	begun := time.Now()
	c := bus.Cut{Done: f.cut.Done, First: items[0].Seq, Last: items[len(items)-1].Seq, Rows: rows, Excluded: excluded(items)}
	if (rows > 0 || len(c.Excluded) > 0) && !sameCut(f.cut, c) {
		if err := f.record(c); err != nil {
			return err
		}
	}
	// After the cut says so and before it is done: a crash in between leaves
	// neither a dead letter that was stored as well nor a message in neither
	// place.
	if err := f.bury(items); err != nil {
		return err
	}
	if rows > 0 {
		if err := f.insert(c, list); errors.Is(err, store.ErrData) {
			return f.divide(items, list, err)
		} else if err != nil {
			return err
		}
	}
	if err := f.finish(items, c); err != nil {
		return err
	}
	f.p.wrote(c.Last, int64(len(items)), rows, items[len(items)-1].Time, f.bus.Now(), time.Since(begun))
	return nil
}

// insert makes the one insert of a recorded cut and compares what was written.
func (f *follower) insert(c bus.Cut, list []item) error {
	parts, rows, err := stream(list)
	if err != nil { // each message was inspected: together they do not fit
		return fmt.Errorf("%w: %w", store.ErrData, err)
	}
	if int64(rows) != c.Rows {
		return fmt.Errorf("%w: the cut's %d rows are %d after rebuilding", store.ErrData, c.Rows, rows)
	}
	token := "events:" + strconv.FormatUint(c.First, 10) + "-" + strconv.FormatUint(c.Last, 10)
	return f.repeat("insert events "+token, func(ctx context.Context) error {
		written, err := f.store.InsertEvents(ctx, token, parts, rows)
		if err == nil && written != int64(rows) {
			// Repeated, loudly: going on would lose events, and inserting them
			// under another token would double those that were written.
			return fmt.Errorf("ClickHouse wrote %d of %d rows of the cut %s", written, rows, token)
		}
		return err
	})
}

// divide goes on with the halves of a cut that was refused for its data; of one
// message alone, that one is at fault.
func (f *follower) divide(items, list []item, cause error) error {
	if len(list) == 1 {
		at := slices.IndexFunc(items, func(it item) bool { return it.Seq == list[0].Seq })
		items[at].reason, items[at].bad = "refused_by_clickhouse", cause.Error()
		return f.put(items)
	}
	f.log.Warn("ClickHouse refused a cut for its data; it is halved until the message at fault is found", "first", items[0].Seq, "last", items[len(items)-1].Seq, "error", cause)
	middle := list[len(list)/2].Seq
	at := slices.IndexFunc(items, func(it item) bool { return it.Seq == middle })
	if err := f.put(items[:at]); err != nil {
		return err
	}
	return f.put(items[at:])
}

// bury sends what cannot be stored to the dead letters, once each however often
// it is repeated.
func (f *follower) bury(items []item) error {
	for i, it := range items {
		if it.bad == "" || it.buried {
			continue
		}
		d := bus.DeadLetter{Reason: it.reason, From: "sink", Source: it.Meta.Collector, Detail: it.bad, Seq: it.Seq, Subject: it.Subject, Data: withoutNames(it.Data)}
		if len(d.Data) > bus.MaxMessageBytes { // no publisher of ours sends such
			d.Detail = fmt.Sprintf("%s; %d bytes, cut", d.Detail, len(d.Data))
			d.Data = d.Data[:bus.MaxMessageBytes]
		}
		err := f.repeat("keep a dead letter", func(ctx context.Context) error { return f.bus.DeadLetter(ctx, d) })
		if err != nil {
			return err
		}
		items[i].buried = true
		f.p.deadLettered.Add(1)
		f.log.Error("a message of EVENTS went to the dead letters", "sequence", it.Seq, "collector", it.Meta.Collector, "reason", it.reason, "detail", it.bad)
	}
	return nil
}

func excluded(items []item) (seqs []uint64) {
	for _, it := range items {
		if it.bad != "" {
			seqs = append(seqs, it.Seq)
		}
	}
	return seqs
}

// sameCut reports whether a cut stands recorded already.
func sameCut(have, want bus.Cut) bool {
	return have.Open() && have.Done == want.Done && have.First == want.First && have.Last == want.Last &&
		have.Rows == want.Rows && slices.Equal(have.Excluded, want.Excluded)
}

// finish writes the batches and the collectors' numbers, then moves the
// position: when that has moved, the purge may take the messages.
func (f *follower) finish(items []item, c bus.Cut) error {
	if rows := batchRows(items); len(rows) > 0 {
		err := f.repeat("insert batches", func(ctx context.Context) error { return f.store.InsertBatches(ctx, rows) })
		if err != nil {
			return err
		}
	}
	numbers := map[string]bus.Numbers{}
	for _, it := range items {
		if !it.IsControl() && it.reason != "bad_subject" {
			numbers[it.Meta.Collector] = it.Numbers()
		}
	}
	for collector, n := range numbers {
		err := f.repeat("write down a collector's numbers", func(ctx context.Context) error { return f.bus.PutNumbers(ctx, collector, n) })
		if err != nil {
			return err
		}
	}
	return f.record(bus.Cut{Done: c.Last})
}

// batchRows is what the table batches tells of the messages.
func batchRows(items []item) []store.BatchRow {
	var rows []store.BatchRow
	for _, it := range items {
		if it.IsControl() {
			continue
		}
		m := it.Meta
		rows = append(rows, store.BatchRow{
			Seq: it.Seq, BusTime: it.Time.UTC(), Collector: m.Collector, Epoch: m.Epoch, First: m.First, Rows: m.Rows,
			Bytes: int64(len(it.Data)), Mark: time.UnixMilli(m.Mark).UTC(), Schema: strconv.Itoa(m.Schema), Import: m.Import,
			Sources: m.Sources, Refused: m.Refused, Excluded: it.bad != "",
		})
	}
	return rows
}

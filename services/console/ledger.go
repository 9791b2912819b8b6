package console

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"reflect"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/opencoc/coc/services/bus"
	"github.com/opencoc/coc/services/event"
	"github.com/opencoc/coc/services/store"
)

type ledgerInput struct {
	From   string `query:"from" maxLength:"40" doc:"First hour: RFC 3339, a date, or how long ago; default 24h."`
	To     string `query:"to" maxLength:"40" doc:"End, not included; default now."`
	Source string `query:"source" maxLength:"128" doc:"Only this source."`
}

// LedgerRow accounts for one source in one hour of the bus's clock: received =
// stored + refused + dead_lettered + waiting + difference, and difference
// should be 0.
type LedgerRow struct {
	Source       string      `json:"source"`
	Hour         event.Stamp `json:"hour"`
	Received     int64       `json:"received"`
	Stored       int64       `json:"stored"`
	Refused      int64       `json:"refused"`
	DeadLettered int64       `json:"dead_lettered"`
	Waiting      int64       `json:"waiting" doc:"On the bus, not yet in ClickHouse."`
	Difference   int64       `json:"difference" doc:"What is not accounted for."`
}

// Gap is a stretch of a collector's numbers that is missing, or was given twice.
type Gap struct {
	Collector string      `json:"collector"`
	Epoch     int64       `json:"epoch"`
	From      int64       `json:"from"`
	To        int64       `json:"to"`
	Twice     bool        `json:"twice"`
	At        event.Stamp `json:"at" doc:"Bus time of the message after it."`
}

// DeadLetters counts what was put aside by one source for one reason. What was
// refused counts under refused in the rows as well; it is not lost twice.
type DeadLetters struct {
	Source string      `json:"source"`
	From   string      `json:"from" doc:"The role that put it aside."`
	Reason string      `json:"reason"`
	Count  int64       `json:"count"`
	Newest event.Stamp `json:"newest"`
}

// LedgerReport is the answer to get-ledger.
type LedgerReport struct {
	Zone        string        `json:"zone"`
	From        event.Stamp   `json:"from"`
	To          event.Stamp   `json:"to"`
	Balanced    bool          `json:"balanced" doc:"No difference, no gap, and nothing was left unlooked at."`
	Complete    bool          `json:"complete" doc:"All that waits on the bus was looked at; false: more waits than is looked at for one answer."`
	Rows        []LedgerRow   `json:"rows" doc:"By hour, then source."`
	Gaps        []Gap         `json:"gaps"`
	DeadLetters []DeadLetters `json:"dead_letters" doc:"In the whole stream of dead letters, whatever their age."`
}

type ledgerOutput struct{ Body LedgerReport }

func (c *Console) registerLedger(api huma.API) {
	huma.Register(api, operation(opLedger, http.MethodGet, "/v1/ledger", "Account for every event",
		"Per source and hour of the bus's clock: received = stored + refused + dead-lettered + waiting."), c.getLedger)
}

func (c *Console) getLedger(ctx context.Context, in *ledgerInput) (*ledgerOutput, error) {
	from, to, err := c.ledgerBounds(in)
	if err != nil {
		return nil, err
	}
	out := &ledgerOutput{Body: LedgerReport{Zone: c.Zone.String(), From: stamp(from), To: stamp(to),
		Rows: []LedgerRow{}, Gaps: []Gap{}, DeadLetters: []DeadLetters{}}}
	b := &out.Body
	err = c.ask(ctx, func() error {
		waiting, complete, err := c.waitingOnBus(ctx, from, to)
		if err != nil {
			return err
		}
		letters, all, err := c.deadLetters(ctx, in.Source)
		if err != nil {
			return err
		}
		b.DeadLetters, b.Complete = letters, complete && all
		return c.balance(ctx, in, from, to, waiting, b)
	})
	if err != nil {
		return nil, c.fail("draw up the ledger", err)
	}
	return out, nil
}

// balance fills in rows and gaps and says whether they add up.
func (c *Console) balance(ctx context.Context, in *ledgerInput, from, to time.Time, waiting []store.LedgerExtra, b *LedgerReport) error {
	rows, err := c.Store.Ledger(ctx, reader(ctx), from, to, waiting)
	if err != nil {
		return err
	}
	gaps, err := c.Store.Gaps(ctx, reader(ctx), from)
	if err != nil {
		return err
	}
	b.Balanced = b.Complete && len(gaps) == 0
	for _, r := range rows {
		if in.Source != "" && r.Source != in.Source {
			continue
		}
		b.Balanced = b.Balanced && r.Difference == 0
		b.Rows = append(b.Rows, LedgerRow{Source: r.Source, Hour: stamp(r.Hour), Received: r.Received, Stored: r.Stored,
			Refused: r.Refused, DeadLettered: r.DeadLettered, Waiting: r.Waiting, Difference: r.Difference})
	}
	slices.SortFunc(b.Rows, func(x, y LedgerRow) int {
		return cmp.Or(cmp.Compare(x.Hour, y.Hour), cmp.Compare(x.Source, y.Source))
	})
	for _, g := range gaps {
		b.Gaps = append(b.Gaps, Gap{Collector: g.Collector, Epoch: g.Epoch, From: g.From, To: g.To, Twice: g.Overlap, At: stamp(g.Time)})
	}
	return nil
}

func (c *Console) ledgerBounds(in *ledgerInput) (from, to time.Time, err error) {
	if from, err = c.when("from", in.From); err != nil {
		return from, to, err
	}
	if to, err = c.when("to", in.To); err != nil {
		return from, to, err
	}
	now := c.Now()
	if to.IsZero() {
		to = now.Add(time.Hour) // the running hour, whatever the clocks' difference
	}
	if from.IsZero() {
		from = now.Add(-ledgerDefault)
	}
	from = from.Truncate(time.Hour)
	if !from.Before(to) || to.Sub(from) > ledgerMax {
		return from, to, huma.Error422UnprocessableEntity("from, to: a ledger covers more than nothing and at most 92 days")
	}
	return from, to, nil
}

// waitingOnBus counts, by source and hour, what stands on the bus after the
// sink's position: received, not yet stored. The position is read first, so
// what the sink stores meanwhile is counted twice rather than missed; asked
// again, the ledger balances.
func (c *Console) waitingOnBus(ctx context.Context, from, to time.Time) (list []store.LedgerExtra, complete bool, err error) {
	cut, err := c.Bus.LoadCut(ctx, "events")
	if err != nil {
		return nil, false, err
	}
	last, err := c.Bus.LastEvent(ctx)
	if err != nil || last <= cut.Done {
		return nil, true, err
	}
	r, err := c.Bus.Events(ctx, cut.Done+1)
	if err != nil {
		var purged *bus.PurgedError
		if errors.As(err, &purged) && cut.Done == 0 { // nothing stored yet, and what is first is not 1
			r, err = c.Bus.Events(ctx, 0)
		}
		if err != nil {
			return nil, false, err
		}
	}
	defer r.Close()
	type place struct {
		source string
		hour   time.Time
	}
	sums := map[place]*store.LedgerExtra{}
	complete, err = scan(ctx, r, last, func(m bus.Message) {
		hour := m.Time.UTC().Truncate(time.Hour)
		if hour.Before(from) || !hour.Before(to) {
			return
		}
		for source, n := range m.Meta.Sources {
			p := place{source, hour}
			if sums[p] == nil {
				sums[p] = &store.LedgerExtra{Source: source, Hour: hour}
			}
			sums[p].Received += n
			sums[p].Waiting += n
		}
	})
	for _, e := range sums {
		list = append(list, *e)
	}
	return list, complete, err
}

// scan reads messages up to sequence last, within bounds; complete says that it
// got there.
func scan(ctx context.Context, r *bus.Reader, last uint64, fn func(bus.Message)) (complete bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, scanTime)
	defer cancel()
	for range scanMessages {
		m, err := r.Next(ctx)
		if err != nil {
			if errors.Is(err, context.DeadlineExceeded) {
				return false, nil
			}
			return false, err
		}
		if m.Seq > last {
			return true, nil
		}
		fn(m)
		if m.Seq == last {
			return true, nil
		}
	}
	return false, nil
}

// streamDeadLetter is the stream's name in the bus's Info.
const streamDeadLetter = "DEADLETTER"

// deadLetters counts the dead letters by source, role and reason.
func (c *Console) deadLetters(ctx context.Context, source string) (list []DeadLetters, complete bool, err error) {
	list = []DeadLetters{}
	info, err := c.Bus.Info(ctx)
	if err != nil {
		return nil, false, err
	}
	i := slices.IndexFunc(info, func(s bus.StreamInfo) bool { return s.Name == streamDeadLetter })
	if i < 0 || info[i].Messages == 0 {
		return list, true, nil
	}
	r, err := c.Bus.DeadLetters(ctx, 0)
	if err != nil {
		return nil, false, err
	}
	defer r.Close()
	type kind struct{ source, from, reason string }
	sums := map[kind]*DeadLetters{}
	complete, err = scan(ctx, r, info[i].LastSeq, func(m bus.Message) {
		d, err := bus.ParseDeadLetter(m)
		if err != nil { // counted all the same: something lies there
			d = bus.DeadLetter{Source: "?", Reason: "unreadable"}
		}
		if source != "" && d.Source != source {
			return
		}
		k := kind{d.Source, d.From, d.Reason}
		if sums[k] == nil {
			sums[k] = &DeadLetters{Source: d.Source, From: d.From, Reason: d.Reason}
		}
		sums[k].Count++
		sums[k].Newest = max(sums[k].Newest, stamp(m.Time))
	})
	for _, s := range sums {
		list = append(list, *s)
	}
	slices.SortFunc(list, func(x, y DeadLetters) int {
		return cmp.Or(cmp.Compare(x.Source, y.Source), cmp.Compare(x.From, y.From), cmp.Compare(x.Reason, y.Reason))
	})
	return list, complete, err
}

func schemaOf(api huma.API, v any) *huma.Schema {
	t := reflect.TypeOf(v)
	return api.OpenAPI().Components.Schemas.Schema(t, true, t.Name())
}

package console

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/opencoc/coc/services/bus"
	"github.com/opencoc/coc/services/event"
	"github.com/opencoc/coc/services/store"
)

type tailInput struct {
	Kind    string `query:"kind" enum:"system,process,user" doc:"Only this kind."`
	Action  string `query:"action" maxLength:"128" doc:"Only this action, such as login."`
	Outcome string `query:"outcome" enum:"success,failure,unknown" doc:"Only this outcome."`
	Source  string `query:"source" maxLength:"128" doc:"Only events of this source."`
	Tenant  string `query:"tenant" maxLength:"128" doc:"Only events of this tenant."`
	Host    string `query:"host" maxLength:"256" doc:"Only events of this machine."`
	Service string `query:"service" maxLength:"256" doc:"Only events of this part of the product."`
	Imports bool   `query:"imports" doc:"Also events that are being imported."`
}

// EventLine is one event with its id. Event holds the fields that the role may
// see, under their dotted names; never user.name.
type EventLine struct {
	ID    string          `json:"id"`
	Event json.RawMessage `json:"event"`
}

// TailLine is one line of a tail: an event, or word of events that were left
// out because the client reads too slowly, or a sign of life, or why it ended.
type TailLine struct {
	ID      string          `json:"id,omitempty"`
	Event   json.RawMessage `json:"event,omitempty"`
	Dropped int64           `json:"dropped,omitempty" doc:"So many events were left out here: the client reads too slowly."`
	Alive   event.Stamp     `json:"alive,omitempty" doc:"Nothing came, but the stream lives; the bus's time."`
	Error   string          `json:"error,omitempty" doc:"Why the stream ended."`
}

func (c *Console) registerTail(api huma.API) {
	o := operation(opTail, http.MethodGet, "/v1/tail", "Follow live events",
		"A stream of JSON lines from now on, without end. Its lines are TailLine; fields that the role may not see are left out.")
	o.Responses = streamResponse(api, TailLine{}, "Events as they come.")
	huma.Register(api, o, c.tail)
}

// tails bounds the open tails.
type tails struct {
	mu       *sync.Mutex
	all      int
	perToken map[string]int
	closed   bool
	closing  chan struct{}
}

func newTails() tails {
	return tails{mu: new(sync.Mutex), perToken: map[string]int{}, closing: make(chan struct{})}
}

func (t *tails) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.closed = true
		close(t.closing)
	}
}

func (t *tails) open(token string) (done func(), ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || t.all >= tailClients || t.perToken[token] >= tailPerToken {
		return nil, false
	}
	t.all++
	t.perToken[token]++
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.all--
		if t.perToken[token]--; t.perToken[token] == 0 {
			delete(t.perToken, token)
		}
	}, true
}

func (c *Console) tail(ctx context.Context, in *tailInput) (*huma.StreamResponse, error) {
	who := reader(ctx)
	done, ok := c.tails.open(who.Token)
	if !ok {
		return nil, huma.Error429TooManyRequests("too many tails are open; end another one first")
	}
	last, err := c.Bus.LastEvent(ctx)
	var events *bus.Reader
	if err == nil {
		events, err = c.Bus.Events(ctx, last+1)
	}
	if err != nil {
		done()
		return nil, c.fail("follow the events", err)
	}
	return &huma.StreamResponse{Body: func(h huma.Context) {
		defer done()
		defer events.Close()
		c.metrics.tails.Inc()
		defer c.metrics.tails.Dec()
		out := newLines(h)
		if err := c.follow(h.Context(), who.Role, in, events, out); err != nil && h.Context().Err() == nil {
			_ = out.put(TailLine{Error: err.Error()}) // if it cannot be sent, the missing line says as much
			_ = out.flush()
		}
	}}, nil
}

// follow copies events to the client until one of them ends. Reading and
// writing are apart: a slow client loses events, never holds the reader.
func (c *Console) follow(ctx context.Context, role store.Role, in *tailInput, events *bus.Reader, out *lines) error {
	ctx, cancel := context.WithCancel(ctx)
	box := newMailbox()
	var failure error
	var reading sync.WaitGroup
	reading.Add(1)
	go func() {
		defer reading.Done()
		defer box.close()
		failure = c.collect(ctx, role, in, events, box)
	}()
	defer reading.Wait()
	defer cancel()
	// The first line goes at once, so that the client knows the stream stands.
	if err := sendAll(out, []TailLine{{Alive: stamp(c.Bus.Now())}}); err != nil {
		return nil // the client is gone
	}
	alive := time.NewTicker(tailAlive)
	defer alive.Stop()
	for {
		select {
		case <-box.more:
			list, dropped, open := box.take()
			if dropped > 0 {
				c.metrics.dropped.Add(float64(dropped))
				list = append(list, TailLine{Dropped: dropped})
			}
			if err := sendAll(out, list); err != nil {
				return nil
			}
			if !open {
				cancel()
				reading.Wait()
				return failure
			}
		case <-alive.C:
			if err := sendAll(out, []TailLine{{Alive: stamp(c.Bus.Now())}}); err != nil {
				return nil
			}
		case <-c.tails.closing:
			return errors.New("coc is stopping; follow again when it is back")
		case <-ctx.Done():
			return nil
		}
	}
}

func sendAll(out *lines, list []TailLine) error {
	for i := range list {
		if err := out.put(&list[i]); err != nil {
			return err
		}
	}
	return out.flush()
}

// collect reads the bus and puts what fits the filter into the box.
func (c *Console) collect(ctx context.Context, role store.Role, in *tailInput, events *bus.Reader, box *mailbox) error {
	visible := visibleFields(role)
	var e event.Event
	for {
		m, err := events.Next(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			c.Log.Error("a tail ended", "error", err)
			return err
		}
		if m.IsControl() || m.Meta.Rows == 0 || m.Meta.Import != "" && !in.Imports {
			continue
		}
		b, err := event.DecodeFields(m.Data, visible|idFields|in.fields())
		if err != nil { // the sink puts it into DEADLETTER and tells; here it is passed over
			continue
		}
		for row := range b.Rows() {
			if !in.fits(b, row) {
				continue
			}
			b.Event(row, &e)
			box.put(TailLine{ID: e.EventID(), Event: appendVisible(&e, visible)})
		}
		b.Release()
	}
}

// idFields are needed for an event's id; all are of class public.
var idFields = event.FieldSet(0).With(event.FID).With(event.FCollector).With(event.FEpoch).With(event.FSeq)

// visibleFields are those that a role sees, and that are kept.
func visibleFields(role store.Role) (s event.FieldSet) {
	for i := range event.Fields {
		if event.Fields[i].Kept && role.MaySee(event.Fields[i].Class) {
			s = s.With(i)
		}
	}
	return s
}

// appendVisible writes an event without the fields that were decoded for the
// filter only.
func appendVisible(e *event.Event, visible event.FieldSet) []byte {
	for i := range event.Fields {
		if visible.Has(i) {
			continue
		}
		if p := e.Text(i); p != nil {
			*p = ""
		}
	}
	return event.AppendJSON(nil, e)
}

// filters gives each filter with its field. The roles that may tail see them
// all; a test holds that.
func (in *tailInput) filters() [7]struct {
	field int
	want  string
} {
	return [7]struct {
		field int
		want  string
	}{
		{event.FKind, in.Kind}, {event.FAction, in.Action}, {event.FOutcome, in.Outcome}, {event.FSource, in.Source},
		{event.FTenantID, in.Tenant}, {event.FHostName, in.Host}, {event.FServiceName, in.Service},
	}
}

func (in *tailInput) fields() (s event.FieldSet) {
	for _, f := range in.filters() {
		if f.want != "" {
			s = s.With(f.field)
		}
	}
	return s
}

func (in *tailInput) fits(b *event.Batch, row int) bool {
	for _, f := range in.filters() {
		if f.want != "" && b.Text(f.field, row) != f.want {
			return false
		}
	}
	return true
}

// mailbox holds lines for one client, bounded in number and bytes; what does
// not fit is counted.
type mailbox struct {
	mu      sync.Mutex
	lines   []TailLine
	bytes   int
	dropped int64
	open    bool
	more    chan struct{} // holds one token when there is something to take
}

func newMailbox() *mailbox { return &mailbox{open: true, more: make(chan struct{}, 1)} }

func (b *mailbox) put(l TailLine) {
	b.mu.Lock()
	if len(b.lines) >= tailLines || b.bytes+len(l.Event) > tailBytes {
		b.dropped++
	} else {
		b.lines = append(b.lines, l)
		b.bytes += len(l.Event)
	}
	b.mu.Unlock()
	b.ring()
}

func (b *mailbox) ring() {
	select {
	case b.more <- struct{}{}:
	default:
	}
}

func (b *mailbox) close() {
	b.mu.Lock()
	b.open = false
	b.mu.Unlock()
	b.ring()
}

// take empties the box. Lines were dropped after those that are returned.
func (b *mailbox) take() (list []TailLine, dropped int64, open bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	list, dropped, open = b.lines, b.dropped, b.open
	b.lines, b.bytes, b.dropped = nil, 0, 0
	return list, dropped, open
}

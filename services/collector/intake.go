package collector

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"

	"github.com/opencoc/coc/services/bus"
	"github.com/opencoc/coc/services/event"
)

// RoleIntake is the role of tokens that may send events, and nothing else.
const RoleIntake = "intake"

// IntakeLimits bounds senders by HTTP. Zero values are the defaults.
type IntakeLimits struct {
	// BodyBytes bounds a request's body, as sent and as unpacked. Default 4 MiB.
	BodyBytes int64
	// EventsPerSecond and Burst bound the events of one token. Default 50,000 a
	// second and 100,000 at once; Burst is at least one full message.
	EventsPerSecond float64
	Burst           int
	// AtOnce bounds the requests that are decoded at the same time. Default 32.
	AtOnce int
}

// Validate fills in defaults and refuses what would refuse every sender.
func (l *IntakeLimits) Validate() error {
	if l.BodyBytes == 0 {
		l.BodyBytes = limitBody
	}
	if l.EventsPerSecond == 0 {
		l.EventsPerSecond = defaultRate
	}
	if l.Burst == 0 {
		l.Burst = max(defaultBurst, event.LimitRows)
	}
	if l.AtOnce == 0 {
		l.AtOnce = intakeAtOnce
	}
	switch {
	case l.BodyBytes < 1<<10 || l.BodyBytes > 64<<20:
		return fmt.Errorf("collector: intake bodies of at most %d bytes: choose 1 KiB to 64 MiB", l.BodyBytes)
	case l.EventsPerSecond < 1:
		return fmt.Errorf("collector: intake of %v events a second: choose at least 1", l.EventsPerSecond)
	case l.Burst < event.LimitRows:
		return fmt.Errorf("collector: intake bursts of %d events: choose at least %d, which one request may hold", l.Burst, event.LimitRows)
	case l.AtOnce < 1 || l.AtOnce > 1024:
		return fmt.Errorf("collector: %d intake requests at once: choose 1 to 1024", l.AtOnce)
	}
	return nil
}

// intake takes events from senders, by HTTP and by NATS.
type intake struct {
	c     *Collector
	idem  *idempotency
	slots *semaphore.Weighted
	ready atomic.Bool

	mu    sync.Mutex
	rates map[string]*rate.Limiter // by token id

	pool   sync.Pool // of *request
	bodies sync.Pool // of *bodyBuffer
}

func newIntake(c *Collector) *intake {
	i := &intake{c: c, idem: newIdempotency(), slots: semaphore.NewWeighted(int64(c.cfg.Intake.AtOnce)), rates: make(map[string]*rate.Limiter)}
	i.pool.New = func() any { return &request{items: newItems()} }
	i.bodies.New = func() any { return new(bodyBuffer) }
	return i
}

// remember reads which requests were stored lately.
func (i *intake) remember(ctx context.Context) {
	if err := i.idem.remember(ctx, i.c.cfg.Bus, i.c.cfg.ID); err != nil && ctx.Err() == nil {
		i.c.log.Warn("the idempotency keys of the last ten minutes could not be read: a request repeated from before the restart may be stored twice", "error", err)
	}
}

func (i *intake) open() { i.ready.Store(true) }
func (i *intake) shut() { i.ready.Store(false) }

// Intake returns the handler of POST /v1/events. It checks intake tokens
// itself.
func (c *Collector) Intake() http.Handler { return c.intake }

// request is one request at work. Its memory is used again.
type request struct {
	items  *items
	parcel parcel
	done   chan outcome
	size   int // of the body
	token  bus.Token
	idem   *idemEntry
	key    string // its hash; "" when the sender gave none
	events []idemItem
}

// idemItem is a CloudEvent's reservation.
type idemItem struct {
	hash  string
	entry *idemEntry
	first int
}

// reply is what a handler answers.
type reply struct {
	status     int
	retryAfter int // seconds
	body       any
}

type errorBody struct {
	Error   string    `json:"error"`
	Refused []badItem `json:"refused,omitempty"`
	// RefusedTotal counts also what Refused does not list.
	RefusedTotal int64 `json:"refused_total,omitempty"`
}

type acceptedBody struct {
	Accepted int    `json:"accepted"`
	First    string `json:"first,omitempty"`
	Last     string `json:"last,omitempty"`
	Repeated bool   `json:"repeated,omitempty"`
}

func deny(status int, format string, args ...any) *reply {
	return &reply{status: status, body: errorBody{Error: fmt.Sprintf(format, args...)}}
}

func later(status, seconds int, format string, args ...any) *reply {
	r := deny(status, format, args...)
	r.retryAfter = seconds
	return r
}

// ServeHTTP answers POST /v1/events.
func (i *intake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer(w, i.serve(w, r))
}

func (i *intake) serve(w http.ResponseWriter, r *http.Request) *reply {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return deny(http.StatusMethodNotAllowed, "send events by POST")
	}
	if !i.ready.Load() || i.c.push == nil {
		return later(http.StatusServiceUnavailable, 5, "this collector takes no events by HTTP now: it is starting or ending, or the source http is left out")
	}
	token, no := i.authorize(r)
	if no != nil {
		return no
	}
	q := i.pool.Get().(*request)
	q.reset(token)
	no = i.take(w, r, q)
	if no == nil {
		var decided bool
		if no, decided = i.await(r.Context(), q); !decided {
			return no // its memory is the publisher's for good
		}
	}
	i.pool.Put(q)
	return no
}

// authorize checks the bearer's token.
func (i *intake) authorize(r *http.Request) (bus.Token, *reply) {
	secret, ok := bearer(r.Header.Get("Authorization"))
	if !ok {
		return bus.Token{}, deny(http.StatusUnauthorized, "give an intake token: Authorization: Bearer coc_…; make one with: coc token new --role intake --source NAME")
	}
	token, err := i.c.cfg.Bus.VerifyToken(r.Context(), secret)
	switch {
	case errors.Is(err, bus.ErrToken):
		return token, deny(http.StatusUnauthorized, "the token is not known, expired or revoked")
	case err != nil:
		return token, later(http.StatusServiceUnavailable, 5, "tokens cannot be checked now")
	case token.Role != RoleIntake:
		return token, deny(http.StatusForbidden, "a token of role %s may not send events; make one with: coc token new --role intake --source NAME", token.Role)
	}
	return token, nil
}

func bearer(header string) (string, bool) {
	const scheme = "Bearer "
	if len(header) <= len(scheme) || len(header) > 512 || header[:len(scheme)] != scheme {
		return "", false
	}
	return header[len(scheme):], true
}

// take reads and checks a request and hands its events to the publisher; nil
// means that their fate comes by q.done. Only so many requests are at this at
// once: each holds a whole body.
func (i *intake) take(w http.ResponseWriter, r *http.Request, q *request) *reply {
	if err := i.slots.Acquire(r.Context(), 1); err != nil {
		return later(http.StatusServiceUnavailable, 1, "the request ended before it was its turn")
	}
	defer i.slots.Release(1)
	body := i.bodies.Get().(*bodyBuffer)
	defer i.bodies.Put(body)
	if no := body.read(w, r, i.c.cfg.Intake.BodyBytes); no != nil {
		return no
	}
	q.items.reset(i.checker(sender{q.token}))
	if err := q.items.read(r.Header.Get("Content-Type"), binaryCloudEvent(r.Header), body.bytes()); err != nil {
		return deny(http.StatusUnsupportedMediaType, "%v", err)
	}
	if no := i.judge(q); no != nil {
		return no
	}
	if a, mine := i.reserveRequest(r, q); !mine {
		return a
	}
	q.size = len(body.bytes())
	no := i.hand(r.Context(), q)
	if no != nil {
		i.unreserve(q)
	}
	return no
}

// judge refuses a request with a bad item, and one that is too much.
func (i *intake) judge(q *request) *reply {
	t := q.items
	if t.full() {
		return deny(http.StatusRequestEntityTooLarge, "more than %d events in one request: send them in several; one request is stored whole or not at all", event.LimitRows)
	}
	if n := t.badCount(); n > 0 {
		outside := t.badBy[reasonTenantOutside] + t.badBy[reasonTenantMissing]
		for reason, n := range t.badBy {
			i.c.push.refuse(q.name(i.c), reason, n)
		}
		status := http.StatusBadRequest
		if outside == n {
			status = http.StatusForbidden
		}
		return &reply{status: status, body: errorBody{
			Error:   fmt.Sprintf("%d of %d events are refused, so none is stored", n, t.count),
			Refused: t.bad, RefusedTotal: n,
		}}
	}
	if len(t.drafts) == 0 {
		return deny(http.StatusBadRequest, "the request holds no event")
	}
	if len(t.keys) > bus.MaxKeys {
		return deny(http.StatusRequestEntityTooLarge, "%d CloudEvents in one request, at most %d are taken, because each is remembered by its id: send them in several", len(t.keys), bus.MaxKeys)
	}
	if !i.limiter(q.token.ID).AllowN(i.c.cfg.Now(), len(t.drafts)) {
		seconds := int(float64(len(t.drafts))/i.c.cfg.Intake.EventsPerSecond) + 1
		return later(http.StatusTooManyRequests, seconds, "this token may send %.0f events a second", i.c.cfg.Intake.EventsPerSecond)
	}
	return nil
}

func (i *intake) limiter(id string) *rate.Limiter {
	i.mu.Lock()
	defer i.mu.Unlock()
	l := i.rates[id]
	if l == nil {
		if len(i.rates) >= limitBuckets {
			clear(i.rates)
		}
		l = rate.NewLimiter(rate.Limit(i.c.cfg.Intake.EventsPerSecond), i.c.cfg.Intake.Burst)
		i.rates[id] = l
	}
	return l
}

// name is event.source of a request's events.
func (q *request) name(c *Collector) string {
	if q.token.Source != "" {
		return q.token.Source
	}
	return c.push.Name
}

// hand seals the request's events and hands them to the publisher.
func (i *intake) hand(ctx context.Context, q *request) *reply {
	again, no := i.reserveEvents(q)
	if no != nil {
		return no
	}
	if again {
		return i.allRepeated(q)
	}
	if err := i.c.seal.seal(ctx, q.items.drafts); err != nil {
		return i.troubled(err)
	}
	p := &q.parcel
	*p = parcel{from: i.c.push, name: q.name(i.c), drafts: q.items.drafts, received: i.c.now(), done: q.settle(i)}
	p.claim = p.received
	p.measureText(q.size)
	p.keys = q.parcelKeys(p.rows)
	if p.bytes > event.LimitBatchBytes {
		return deny(http.StatusRequestEntityTooLarge, "the events of this request take %d KiB, and one message of the bus holds %d: send them in several; one request is stored whole or not at all", p.bytes>>10, event.LimitBatchBytes>>10)
	}
	if err := i.c.batch.tryPut(p); err != nil {
		return i.troubled(err)
	}
	return nil
}

// await waits until the events are stored. decided is false when that is not
// known in time.
func (i *intake) await(ctx context.Context, q *request) (a *reply, decided bool) {
	timeout := time.NewTimer(waitStored)
	defer timeout.Stop()
	select {
	case o := <-q.done:
		if o.err != nil {
			return i.troubled(o.err), true
		}
		return i.accepted(stored{o.epoch, o.first, o.rows}, false), true
	case <-timeout.C:
	case <-ctx.Done():
	}
	return later(http.StatusServiceUnavailable, 5, "the bus does not answer; whether the events are stored is not known yet: repeat the request with the same Idempotency-Key"), false
}

// waitStored bounds how long a sender waits for the bus.
const waitStored = 30 * time.Second

// settle returns what the publisher calls when the parcel's fate is known.
func (q *request) settle(i *intake) func(outcome) {
	idem, key, events := q.idem, q.key, slices.Clone(q.events)
	done := q.done
	return func(o outcome) {
		if idem != nil {
			i.idem.finish(key, idem, o.err == nil, stored{o.epoch, o.first, o.rows})
		}
		for _, e := range events {
			i.idem.finish(e.hash, e.entry, o.err == nil, stored{o.epoch, o.first + int64(e.first), 1})
		}
		done <- o // has room for one
	}
}

func (i *intake) troubled(err error) *reply {
	switch {
	case errors.Is(err, errFull), errors.Is(err, bus.ErrFull):
		return later(http.StatusTooManyRequests, 5, "the bus is full: its readers are behind; nothing of this request is stored, send it again later")
	case errors.Is(err, errStopped):
		return later(http.StatusServiceUnavailable, 5, "the collector is ending; nothing of this request is acknowledged, send it again")
	}
	return later(http.StatusServiceUnavailable, 5, "the bus does not answer; nothing of this request is acknowledged, send it again")
}

func (i *intake) accepted(s stored, repeated bool) *reply {
	return &reply{status: http.StatusAccepted, body: acceptedBody{
		Accepted: s.rows,
		First:    event.Identity(i.c.cfg.ID, s.epoch, s.first),
		Last:     event.Identity(i.c.cfg.ID, s.epoch, s.first+int64(s.rows)-1),
		Repeated: repeated,
	}}
}

func (q *request) reset(t bus.Token) {
	q.token, q.idem, q.key = t, nil, ""
	q.events = q.events[:0]
	q.done = make(chan outcome, 1)
}

func retryText(seconds int) string { return strconv.Itoa(seconds) }

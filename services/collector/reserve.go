package collector

import (
	"net/http"
	"time"

	"github.com/opencoc/coc/services/bus"
	"github.com/opencoc/coc/services/event"
)

// reserveRequest takes the request's Idempotency-Key, if it has one. When
// another request with the same key is stored already, or being stored, the
// answer is that one's.
func (i *intake) reserveRequest(r *http.Request, q *request) (a *reply, mine bool) {
	key := r.Header.Get("Idempotency-Key")
	if key == "" {
		return nil, true
	}
	if len(key) > limitIdempotencyKey {
		return deny(http.StatusBadRequest, "the Idempotency-Key has %d bytes, at most %d are taken", len(key), limitIdempotencyKey), false
	}
	q.key = keyHash(q.token.ID, "request", key)
	e, mine := i.idem.reserve(q.key, i.c.cfg.Now())
	if mine {
		q.idem = e
		return nil, true
	}
	timeout := time.NewTimer(waitStored)
	defer timeout.Stop()
	select {
	case <-e.done:
		if e.ok {
			return i.accepted(e.what, true), false
		}
	case <-timeout.C:
	case <-r.Context().Done():
	}
	return later(http.StatusServiceUnavailable, 1, "a request with the same Idempotency-Key was not stored: send it again"), false
}

// reserveEvents takes the ids of the request's CloudEvents, and leaves out those
// that are stored already. again says that all are.
func (i *intake) reserveEvents(q *request) (again bool, no *reply) {
	t := q.items
	if len(t.keys) == 0 {
		return false, nil
	}
	now := i.c.cfg.Now()
	out := make(map[int]bool)
	for _, k := range t.keys {
		hash := keyHash(q.token.ID, "cloudevent", k.hash)
		e, mine := i.idem.reserve(hash, now)
		if mine {
			q.events = append(q.events, idemItem{hash, e, k.first})
			continue
		}
		select {
		case <-e.done:
			out[k.first] = true
		default:
			if !q.has(e) { // in this very request twice: once is enough
				return false, later(http.StatusTooManyRequests, 1, "CloudEvents of this request are being stored for another: send it again")
			}
			out[k.first] = true
		}
	}
	if len(out) == len(t.drafts) {
		return true, nil
	}
	if len(out) > 0 {
		q.leaveOut(out)
	}
	return false, nil
}

func (q *request) has(e *idemEntry) bool {
	for i := range q.events {
		if q.events[i].entry == e {
			return true
		}
	}
	return false
}

// leaveOut removes drafts by index and corrects where the others stand.
func (q *request) leaveOut(out map[int]bool) {
	at := make([]int, len(q.items.drafts))
	n := 0
	for i := range q.items.drafts {
		at[i] = n
		if !out[i] {
			q.items.drafts[n] = q.items.drafts[i]
			n++
		}
	}
	for i := n; i < len(q.items.drafts); i++ {
		q.items.drafts[i] = draft{} // shares labels with one that moved
	}
	q.items.drafts = q.items.drafts[:n]
	for i := range q.events {
		q.events[i].first = at[q.events[i].first]
	}
}

// unreserve gives up all reservations of a request that is not stored.
func (i *intake) unreserve(q *request) {
	if q.idem != nil {
		i.idem.finish(q.key, q.idem, false, stored{})
		q.idem = nil
	}
	for _, e := range q.events {
		i.idem.finish(e.hash, e.entry, false, stored{})
	}
	q.events = q.events[:0]
}

// allRepeated answers a request all of whose CloudEvents are stored already.
func (i *intake) allRepeated(q *request) *reply {
	body := acceptedBody{Repeated: true}
	for _, k := range q.items.keys {
		e, mine := i.idem.reserve(keyHash(q.token.ID, "cloudevent", k.hash), i.c.cfg.Now())
		if mine { // forgotten at this very moment
			i.idem.finish(keyHash(q.token.ID, "cloudevent", k.hash), e, false, stored{})
			continue
		}
		id := event.Identity(i.c.cfg.ID, e.what.epoch, e.what.first)
		if body.Accepted++; body.First == "" {
			body.First = id
		}
		body.Last = id
	}
	return &reply{status: http.StatusAccepted, body: body}
}

// parcelKeys are the keys that travel with the parcel.
func (q *request) parcelKeys(rows int) []parcelKey {
	var keys []parcelKey
	if q.key != "" {
		keys = append(keys, parcelKey{q.key, 0, rows})
	}
	for _, e := range q.events {
		keys = append(keys, parcelKey{e.hash, e.first, 1})
	}
	return keys
}

// sender is what a token lets its bearer do.
type sender struct{ bus.Token }

// checker returns what every item of a sender has to pass.
func (i *intake) checker(t sender) func(*draft) error {
	bounds := event.LiveBounds(i.c.cfg.Bus.Now())
	labels := i.c.push.Labels
	return func(d *draft) error {
		if err := t.tenant(d); err != nil {
			return err
		}
		for k, v := range labels {
			if d.Label(k) == "" {
				d.label(k, v)
			}
		}
		return d.Validate(bounds)
	}
}

// tenant checks that the sender may speak for the event's tenant. A token for
// exactly one tenant names it for events that do not; one without a pattern is
// for systems of no tenant.
func (t sender) tenant(d *draft) error {
	glob := t.TenantGlob
	switch {
	case glob == "*" || glob == "" && d.TenantID == "":
		return nil
	case glob == "":
		return &event.Refusal{Reason: reasonTenantOutside, Field: "tenant.id", Detail: "the token is for systems of no tenant: leave tenant.id out, or use a token made with --tenant-glob"}
	case d.TenantID == "" && isExact(glob):
		d.TenantID = glob
		return nil
	case d.TenantID == "":
		return &event.Refusal{Reason: reasonTenantMissing, Field: "tenant.id", Detail: "the token is bound to tenants " + glob + "; say which one it is"}
	case !globMatch(glob, d.TenantID):
		return &event.Refusal{Reason: reasonTenantOutside, Field: "tenant.id", Detail: "the token may send for tenants " + glob + " only"}
	}
	return nil
}

func isExact(glob string) bool {
	for i := range len(glob) {
		if glob[i] == '*' || glob[i] == '?' {
			return false
		}
	}
	return true
}

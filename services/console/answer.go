package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/opencoc/coc/services/bus"
	"github.com/opencoc/coc/services/store"
)

// statuses is the one table from an error to what the client is told.
var statuses = []struct {
	is     error
	status int
}{
	{store.ErrNotFound, http.StatusNotFound},
	{bus.ErrNotFound, http.StatusNotFound},
	{store.ErrInvalid, http.StatusBadRequest},
	{bus.ErrInvalid, http.StatusBadRequest},
	{bus.ErrConflict, http.StatusConflict},
	{store.ErrUnavailable, http.StatusServiceUnavailable},
	{store.ErrClosed, http.StatusServiceUnavailable},
	{bus.ErrAway, http.StatusServiceUnavailable},
	{bus.ErrFull, http.StatusServiceUnavailable},
	{bus.ErrClosed, http.StatusServiceUnavailable},
	{errBusy, http.StatusServiceUnavailable},
	{context.DeadlineExceeded, http.StatusGatewayTimeout},
}

var errBusy = errors.New("too many questions at once: the store answers only a few at the same time, so that it can take events in; try again in a few seconds")

// fail turns an error into an answer. What is not in the table is ours: the
// client learns that it failed, the log learns why.
func (c *Console) fail(what string, err error) error {
	var refused *store.Refused
	if errors.As(err, &refused) {
		return huma.Error403Forbidden(refused.Error())
	}
	for _, s := range statuses {
		if errors.Is(err, s.is) {
			answer := huma.NewError(s.status, err.Error())
			if s.status == http.StatusServiceUnavailable {
				return huma.ErrorWithHeaders(answer, http.Header{"Retry-After": {"2"}})
			}
			return answer
		}
	}
	if errors.Is(err, context.Canceled) { // nobody is there to read it
		return huma.NewError(http.StatusServiceUnavailable, "stopped")
	}
	c.Log.Error("cannot answer", "what", what, "error", err)
	return huma.Error500InternalServerError(fmt.Sprintf("cannot %s; the log of coc says why", what))
}

// ask runs a question to the store when it is its turn.
func (c *Console) ask(ctx context.Context, question func() error) error {
	done, err := c.turn(ctx, c.questions)
	if err != nil {
		return err
	}
	defer done()
	return question()
}

// turn waits for a place, bounded in number and time.
func (c *Console) turn(ctx context.Context, places chan struct{}) (done func(), err error) {
	select {
	case places <- struct{}{}:
		return func() { <-places }, nil
	default:
	}
	select {
	case c.waiting <- struct{}{}:
		defer func() { <-c.waiting }()
	default:
		return nil, errBusy
	}
	t := time.NewTimer(queueWait)
	defer t.Stop()
	select {
	case places <- struct{}{}:
		return func() { <-places }, nil
	case <-t.C:
		return nil, errBusy
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// outer is around every request: headers that say how a browser must treat
// answers, deadlines, and the end of panics.
func (c *Console) outer(next *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		rc := http.NewResponseController(w)
		_ = rc.SetWriteDeadline(time.Now().Add(answerTimeout + streamTimeout)) // not every server has deadlines; the contexts hold all the same
		defer func() { _ = rc.SetWriteDeadline(time.Time{}) }()
		defer func() {
			if p := recover(); p != nil && p != http.ErrAbortHandler { //nolint:errorlint // a panic's value is compared as net/http does
				c.Log.Error("a request panicked; please report this", "path", r.URL.Path, "panic", fmt.Sprint(p))
				problem(w, http.StatusInternalServerError, "coc made a mistake over this request; the log says which")
			} else if p != nil {
				panic(p)
			}
		}()
		if _, pattern := next.Handler(r); pattern == "" {
			c.nothingHere(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// nothingHere answers a path or a method that the API does not have.
func (c *Console) nothingHere(w http.ResponseWriter, r *http.Request) {
	var allowed []string
	for _, m := range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
		probe := &http.Request{Method: m, URL: r.URL, Host: r.Host}
		if _, pattern := c.mux.Handler(probe); pattern != "" {
			allowed = append(allowed, m)
		}
	}
	if len(allowed) > 0 {
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		problem(w, http.StatusMethodNotAllowed, fmt.Sprintf("%s takes %s", r.URL.Path, strings.Join(allowed, ", ")))
		return
	}
	problem(w, http.StatusNotFound, "there is nothing at this address; /openapi.json lists what there is")
}

// problem writes an error as RFC 9457 wants it, the same as huma does.
func problem(w http.ResponseWriter, status int, detail string) {
	w.Header().Set("Content-Type", problemType)
	w.WriteHeader(status)
	writeProblem(w, status, detail)
}

const problemType = "application/problem+json"

func writeProblem(w io.Writer, status int, detail string) {
	_ = json.NewEncoder(w).Encode(huma.ErrorModel{Title: http.StatusText(status), Status: status, Detail: detail}) // a client that went away needs no answer
}

package console

import (
	"bytes"
	"encoding/json"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

// lines writes a stream of JSON lines to a client. Each write has a deadline of
// its own, so that a client that takes nothing does not hold it for ever.
type lines struct {
	w  http.ResponseWriter
	rc *http.ResponseController
	// buf gathers lines up to a few packets, since one write a line would cost
	// a system call each.
	buf bytes.Buffer
	enc *json.Encoder
}

const lineBuffer = 32 << 10

func newLines(ctx huma.Context) *lines {
	_, w := humago.Unwrap(ctx)
	l := &lines{w: w, rc: http.NewResponseController(w)}
	l.enc = json.NewEncoder(&l.buf)
	l.enc.SetEscapeHTML(false)
	// The deadline for reading the body would otherwise end a long answer: net/http
	// reads on while it is written, to see the client go.
	_ = l.rc.SetReadDeadline(time.Time{})
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("X-Accel-Buffering", "no") // proxies must pass lines on as they come
	return l
}

// put adds one line; it is on its way after flush at the latest.
func (l *lines) put(v any) error {
	if err := l.enc.Encode(v); err != nil {
		return err
	}
	if l.buf.Len() < lineBuffer {
		return nil
	}
	return l.write()
}

func (l *lines) write() error {
	if l.buf.Len() == 0 {
		return nil
	}
	_ = l.rc.SetWriteDeadline(time.Now().Add(streamTimeout)) // see outer
	_, err := l.w.Write(l.buf.Bytes())
	l.buf.Reset()
	return err
}

// flush sends what was put.
func (l *lines) flush() error {
	if err := l.write(); err != nil {
		return err
	}
	return l.rc.Flush()
}

package collector

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// bodyBuffer holds a request's body, unpacked. Its memory is used again, unless
// it grew large.
type bodyBuffer struct{ buf bytes.Buffer }

// limitKeptBody bounds what a buffer keeps between requests.
const limitKeptBody = 1 << 20

func (b *bodyBuffer) bytes() []byte { return b.buf.Bytes() }

var errTooLarge = errors.New("too large")

// read takes the body, at most limit bytes packed and unpacked.
func (b *bodyBuffer) read(w http.ResponseWriter, r *http.Request, limit int64) *reply {
	if b.buf.Cap() > limitKeptBody {
		b.buf = bytes.Buffer{}
	}
	b.buf.Reset()
	if r.ContentLength > limit {
		return tooLarge(limit)
	}
	from := io.Reader(http.MaxBytesReader(w, r.Body, limit))
	var err error
	switch encoding := strings.ToLower(strings.TrimSpace(r.Header.Get("Content-Encoding"))); encoding {
	case "", "identity":
		if r.ContentLength > 0 {
			b.buf.Grow(int(r.ContentLength) + bytes.MinRead)
		}
		err = b.fill(from, limit)
	case "gzip", "x-gzip":
		err = b.unpackGzip(from, limit)
	case "zstd":
		err = b.unpackZstd(from, limit)
	default:
		return deny(http.StatusUnsupportedMediaType, "content encoding %q is not read: send gzip, zstd or none", encoding)
	}
	var max *http.MaxBytesError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &max), errors.Is(err, errTooLarge), errors.Is(err, zstd.ErrDecoderSizeExceeded), errors.Is(err, zstd.ErrWindowSizeExceeded):
		return tooLarge(limit)
	}
	return deny(http.StatusBadRequest, "the body cannot be read: %v", err)
}

func tooLarge(limit int64) *reply {
	return deny(http.StatusRequestEntityTooLarge, "the body is larger than %d KiB, as sent or as unpacked: send the events in several requests", limit>>10)
}

// fill copies at most limit bytes.
func (b *bodyBuffer) fill(from io.Reader, limit int64) error {
	n, err := b.buf.ReadFrom(io.LimitReader(from, limit+1))
	if err == nil && n > limit {
		return errTooLarge
	}
	return err
}

var gzipReaders = sync.Pool{New: func() any { return new(gzip.Reader) }}

func (b *bodyBuffer) unpackGzip(from io.Reader, limit int64) error {
	z := gzipReaders.Get().(*gzip.Reader)
	defer gzipReaders.Put(z)
	if err := z.Reset(from); err != nil {
		return err
	}
	return b.fill(z, limit)
}

// zstdReaders are decoders without goroutines of their own, with bounded
// memory: a frame may ask for a window of gigabytes.
var zstdReaders = sync.Pool{New: func() any {
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(8<<20), zstd.WithDecoderMaxMemory(64<<20))
	if err != nil {
		panic(err) // the options are constants
	}
	return z
}}

func (b *bodyBuffer) unpackZstd(from io.Reader, limit int64) error {
	z := zstdReaders.Get().(*zstd.Decoder)
	defer zstdReaders.Put(z)
	if err := z.Reset(from); err != nil {
		return err
	}
	return b.fill(z, limit)
}

// answer writes a reply as JSON.
func answer(w http.ResponseWriter, r *reply) {
	data, err := json.Marshal(r.body)
	if err != nil { // of our own types: a defect
		http.Error(w, `{"error":"the answer could not be written"}`, http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if r.retryAfter > 0 {
		w.Header().Set("Retry-After", retryText(r.retryAfter))
	}
	if r.status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="coc"`)
	}
	w.WriteHeader(r.status)
	_, _ = w.Write(append(data, '\n')) // a sender that went away is none of ours
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	// readHeaderTimeout bounds how long a client may take over its headers, so
	// that slow ones do not hold connections (slowloris).
	readHeaderTimeout = 10 * time.Second
	// idleTimeout closes kept connections that nobody uses.
	idleTimeout = 2 * time.Minute
	// maxHeaderBytes bounds a request's headers: ours are a token and little else.
	maxHeaderBytes = 32 << 10
	// readyTimeout bounds one look at a dependency.
	readyTimeout = 3 * time.Second
)

// check looks at one dependency; nil means ready.
type check struct {
	name string
	ok   func(context.Context) error
}

// server is the HTTP listener of a process: health, readiness, metrics and what
// the roles hang into mux. It listens at once and serves from the start, so
// that a starting instance answers "not ready" rather than nothing.
type server struct {
	mux      *http.ServeMux
	registry *prometheus.Registry
	http     *http.Server
	listener net.Listener
	log      *slog.Logger

	mu     sync.Mutex
	checks []check
	open   atomic.Bool // false until everything is started
}

func listen(addr string, log *slog.Logger) (*server, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w; is another coc running there? Give another address with --listen", addr, unwrapOp(err))
	}
	s := &server{mux: http.NewServeMux(), registry: prometheus.NewRegistry(), listener: l, log: log}
	s.mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	s.mux.HandleFunc("GET /readyz", s.ready)
	s.mux.Handle("GET /metrics", promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{}))
	s.http = &http.Server{Handler: s.mux, ReadHeaderTimeout: readHeaderTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	return s, nil
}

func unwrapOp(err error) error {
	var o *net.OpError
	if errors.As(err, &o) {
		return o.Err
	}
	return err
}

func (s *server) url() string { return "http://" + s.listener.Addr().String() }

func (s *server) serve() error {
	if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("HTTP on %s ended: %w", s.listener.Addr(), err)
	}
	return nil
}

func (s *server) addCheck(name string, ok func(context.Context) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checks = append(s.checks, check{name, ok})
}

// readiness is the body of /readyz: each dependency by name, "ok" or what is
// wrong with it.
type readiness struct {
	Ready        bool              `json:"ready"`
	Version      string            `json:"version"`
	Dependencies map[string]string `json:"dependencies"`
}

func (s *server) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
	defer cancel()
	s.mu.Lock()
	checks := s.checks
	s.mu.Unlock()
	out := readiness{Ready: s.open.Load(), Version: version, Dependencies: map[string]string{}}
	if !out.Ready {
		out.Dependencies["start"] = "still starting"
	}
	for _, c := range checks {
		out.Dependencies[c.name] = "ok"
		if err := c.ok(ctx); err != nil {
			out.Ready = false
			out.Dependencies[c.name] = err.Error()
		}
	}
	w.Header().Set("Content-Type", "application/json")
	if !out.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(out) // a client that went away needs no answer
}

package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// Store is ClickHouse as the house sees it. Safe for concurrent use.
type Store struct {
	config  Config
	conn    driver.Conn
	readers driver.Conn // for persons' statements: as conn, but nothing may be changed
	stop    func() error
	kind    string            // "embedded" or "server"
	engine  http.RoundTripper // of the embedded engine

	mu        sync.Mutex
	closed    bool
	migration int
	version   string
	simulated bool      // seen once
	simAsked  time.Time // when "no" was the answer
}

// Open starts the embedded engine or connects to the server, brings the tables
// to this version, and returns when both answer. The errors say what to do.
func Open(ctx context.Context, c Config) (*Store, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Store{config: c, kind: "server", stop: func() error { return nil }}
	options, err := s.options()
	if err != nil {
		return nil, err
	}
	if err := s.open(ctx, options); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	c.Log.Info("ClickHouse is open", slog.String("engine", s.kind), slog.String("version", s.version),
		slog.String("database", c.Database), slog.Int("migration", s.migration))
	return s, nil
}

// options are the same for both kinds of ClickHouse but for the transport.
func (s *Store) options() (*clickhouse.Options, error) {
	c := s.config
	o := &clickhouse.Options{
		Protocol:     clickhouse.HTTP,
		MaxOpenConns: c.Connections + 1,
		MaxIdleConns: c.Connections,
		DialTimeout:  5 * time.Second,
		// The statement's own limit decides; this one only ends a dead link.
		ReadTimeout: houseTimeout + time.Minute,
		Settings: clickhouse.Settings{
			"session_timezone": "UTC", "async_insert": 0, "max_threads": c.Threads,
			"max_execution_time": int(houseTimeout / time.Second),
		},
	}
	if c.URL != "" {
		u, err := url.Parse(c.URL)
		if err != nil {
			return nil, fmt.Errorf("%w: ClickHouse URL: %w", ErrInvalid, bare(err))
		}
		o.Addr, o.HttpUrlPath = []string{hostPort(u)}, u.Path
		o.Auth = clickhouse.Auth{Username: c.User, Password: c.Password}
		o.TLS = serverTLS(u, c.TLS)
		o.TransportFunc = func(t *http.Transport) (http.RoundTripper, error) {
			t.MaxIdleConnsPerHost = c.Connections
			return summaryTransport{t}, nil
		}
		return o, nil
	}
	transport, stop, err := startEmbedded(c)
	if err != nil {
		return nil, err
	}
	s.kind, s.stop, s.engine = "embedded", stop, transport
	o.Addr = []string{"embedded:0"}
	o.TransportFunc = func(*http.Transport) (http.RoundTripper, error) { return summaryTransport{transport}, nil }
	return o, nil
}

// open makes the database, connects to it and migrates.
func (s *Store) open(ctx context.Context, o *clickhouse.Options) error {
	first, err := clickhouse.Open(o)
	if err != nil {
		return wrap("connecting to ClickHouse", err)
	}
	err = first.Exec(ctx, "CREATE DATABASE IF NOT EXISTS "+quoteName(s.config.Database))
	if err == nil {
		err = first.QueryRow(ctx, "SELECT version()").Scan(&s.version)
	}
	err = errors.Join(err, first.Close())
	if err != nil {
		return wrap("opening ClickHouse at "+s.where(), err)
	}
	inside := *o
	inside.Auth.Database = s.config.Database
	if s.conn, err = clickhouse.Open(&inside); err != nil {
		return wrap("connecting to ClickHouse", err)
	}
	if err := s.migrate(ctx); err != nil {
		return err
	}
	if err := s.catalogues(ctx); err != nil {
		return err
	}
	persons := inside
	persons.Settings = personSettings(s.config)
	if s.readers, err = clickhouse.Open(&persons); err != nil {
		return wrap("connecting to ClickHouse", err)
	}
	return nil
}

func (s *Store) where() string {
	if s.config.URL != "" {
		return s.config.URL
	}
	return s.config.Dir
}

// Zone is the hoster's zone.
func (s *Store) Zone() *time.Location { return s.config.Zone }

// Close waits up to ten seconds for running statements and lets go of the
// folder. Calling it again does nothing.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	var errs []error
	for _, c := range []driver.Conn{s.conn, s.readers} {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(append(errs, s.stop())...)
}

// Health asks for SELECT 1 and waits two seconds for it.
func (s *Store) Health(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, healthWait)
	defer cancel()
	var one uint8
	if err := s.conn.QueryRow(ctx, "SELECT 1").Scan(&one); err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("ClickHouse at %s: %w: no answer within %s", s.where(), ErrUnavailable, healthWait)
		}
		return wrap("ClickHouse at "+s.where(), err)
	}
	return nil
}

// TableInfo is the size of a table: rows and bytes as stored, and its parts.
type TableInfo struct {
	Name               string
	Rows, Bytes, Parts int64
}

// Info is what ClickHouse is and holds, for metrics.
type Info struct {
	Engine    string // embedded or server
	Version   string
	Migration int // number of the last one applied
	// MemoryBytes is what the engine counts as its own.
	MemoryBytes              int64
	DiskBytes, DiskFreeBytes int64
	Tables                   []TableInfo // by name
}

// Info asks ClickHouse for its size; it costs about a millisecond.
func (s *Store) Info(ctx context.Context) (Info, error) {
	info := Info{Engine: s.kind, Version: s.version, Migration: s.migration}
	const tables = `SELECT table, toInt64(sum(rows)), toInt64(sum(bytes_on_disk)), toInt64(count())
		FROM system.parts WHERE database = {database:String} AND active GROUP BY table ORDER BY table`
	err := s.each(ctx, tables, []any{clickhouse.Named("database", s.config.Database)}, func(rows driver.Rows) error {
		var t TableInfo
		if err := rows.Scan(&t.Name, &t.Rows, &t.Bytes, &t.Parts); err != nil {
			return err
		}
		info.DiskBytes += t.Bytes
		info.Tables = append(info.Tables, t)
		return nil
	})
	if err != nil {
		return info, wrap("asking ClickHouse for its tables", err)
	}
	const memory = `SELECT toInt64(sumIf(value, metric = 'MemoryTracking')), (SELECT toInt64(min(free_space)) FROM system.disks) FROM system.metrics`
	if err := s.conn.QueryRow(ctx, memory).Scan(&info.MemoryBytes, &info.DiskFreeBytes); err != nil {
		return info, wrap("asking ClickHouse for its memory", err)
	}
	return info, nil
}

// Simulated says whether any event is marked as simulated (labels["simulated"]
// is "true"). A yes is remembered; a no is believed for a minute, and then asked
// again of what was received since.
func (s *Store) Simulated(ctx context.Context) (bool, error) {
	s.mu.Lock()
	known, asked := s.simulated, s.simAsked
	s.mu.Unlock()
	now := s.config.Now()
	if known || (!asked.IsZero() && now.Sub(asked) < simulatedFor && !now.Before(asked)) {
		return known, nil
	}
	var w where
	w.add("labels['simulated'] = 'true'", "", nil)
	if !asked.IsZero() {
		w.from("received", "since", asked.Add(-simulatedSlack))
	}
	var found uint64
	if err := s.conn.QueryRow(ctx, "SELECT count() FROM (SELECT 1 FROM events"+w.String()+" LIMIT 1)", w.args...).Scan(&found); err != nil {
		return false, wrap("looking for simulated events", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.simulated, s.simAsked = found > 0, now
	return s.simulated, nil
}

// each runs a question and hands every row to fn.
func (s *Store) each(ctx context.Context, query string, args []any, fn func(driver.Rows) error) (err error) {
	rows, err := s.conn.Query(ctx, query, args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		if err := fn(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

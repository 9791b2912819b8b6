package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/opencoc/coc/services/bus"
	"github.com/opencoc/coc/services/collector"
	"github.com/opencoc/coc/services/engine"
	"github.com/opencoc/coc/services/event"
	"github.com/opencoc/coc/services/rule"
	"github.com/opencoc/coc/services/sink"
	"github.com/opencoc/coc/services/store"
)

// bench is one part's run: its folder and what it opened.
type bench struct {
	cmd *BenchCmd
	g   *Globals
	dir string
}

const (
	// benchCut is the rows of one insert of the limit, the sink's largest cut in
	// whole messages: the limit is given the size that ClickHouse likes best.
	benchCut = 60 * event.LimitRows
	// benchPoll is how often a part looks whether the last event is through.
	benchPoll = 2 * time.Millisecond
	// benchBody is how many events one HTTP request of the intake part carries.
	benchBody = 500
	// benchImport is how many events the memory part imports.
	benchImport = 1_000_000
	// benchSettle is how long an idle instance is left alone before it is looked at.
	benchSettle = 15 * time.Second
)

func (b *bench) openBus(ctx context.Context) (*bus.Bus, error) {
	key := bytes.Repeat([]byte{7}, keySize) // as in production, the files are encrypted
	return bus.Open(ctx, bus.Config{StoreDir: filepath.Join(b.dir, "nats"), Key: key, Name: "bench", Log: b.g.Log})
}

func (b *bench) openStore(ctx context.Context) (*store.Store, error) {
	return store.Open(ctx, store.Config{Dir: filepath.Join(b.dir, "clickhouse"), Library: findLibrary(), Log: b.g.Log})
}

// prepared is an encoded message with its numbers.
type prepared struct {
	meta bus.Meta
	data []byte
}

// prepare encodes count events into messages of up to per events, numbered from
// first in epoch.
func (b *bench) prepare(count, per int, collectorID string, epoch, first int64) ([]prepared, error) {
	now := b.g.Now().UnixMilli()
	var list []prepared
	var e event.Event
	bl := event.NewBuilder()
	for done := 0; done < count; {
		start := first + int64(done)
		for bl.Rows() < per && done < count && !bl.Full(1024) {
			benchEvent(done, now, &e)
			e.Collector, e.Epoch, e.Seq = collectorID, epoch, first+int64(done)
			if err := bl.Append(&e); err != nil {
				return nil, err
			}
			done++
		}
		m := bus.Meta{Collector: collectorID, Epoch: epoch, First: start, Rows: int64(bl.Rows()), Bytes: int64(bl.RawBytes()), Mark: now,
			Sources: map[string]int64{"bench": int64(bl.Rows())}}
		data, err := bl.Encode()
		if err != nil {
			return nil, err
		}
		list = append(list, prepared{m, data})
	}
	return list, nil
}

// limit inserts prepared batches into ClickHouse and does nothing else.
func (b *bench) limit(ctx context.Context, r *benchReport) (err error) {
	s, err := b.openStore(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	list, err := b.prepare(b.cmd.Events, event.LimitRows, "bench", 1, 1)
	if err != nil {
		return err
	}
	began := time.Now()
	for i := 0; i < len(list); {
		var msgs [][]byte
		want := int64(0)
		from := i
		for ; i < len(list) && want+list[i].meta.Rows <= benchCut; i++ {
			msgs = append(msgs, list[i].data)
			want += list[i].meta.Rows
		}
		frames, rows, err := event.Splice(msgs)
		if err != nil {
			return err
		}
		written, err := s.InsertEvents(ctx, fmt.Sprintf("bench:%d", from), frames, rows)
		if err != nil {
			return err
		}
		if written != want {
			return fmt.Errorf("ClickHouse wrote %d of %d rows", written, want)
		}
	}
	r.Limit = []benchRate{newRate(b.cmd.Events, time.Since(began))}
	return nil
}

// running starts a role and returns its end.
func running(ctx context.Context, run func(context.Context) error) (stop func() error) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	return func() error {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
		return nil
	}
}

// pipeline publishes prepared batches and waits until the engine has judged and
// the sink has stored the last of them.
func (b *bench) pipeline(ctx context.Context, r *benchReport) (err error) {
	set, err := benchSet(b.cmd.Rules)
	if err != nil {
		return err
	}
	bs, err := b.openBus(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bs.Close(context.WithoutCancel(ctx))) }()
	s, err := b.openStore(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	eng, err := engine.New(engine.Config{Bus: bs, Set: set, Log: b.g.Log})
	if err != nil {
		return err
	}
	sk, err := sink.New(sink.Config{Bus: bs, Store: s, Log: b.g.Log})
	if err != nil {
		return err
	}
	pub, err := bs.NewPublisher(ctx, "bench")
	if err != nil {
		return err
	}
	list, err := b.prepare(b.cmd.Events, event.LimitRows, "bench", pub.Epoch(), pub.Next())
	if err != nil {
		return err
	}
	prepared := int64(0)
	for _, p := range list {
		prepared += int64(len(p.data))
	}
	debug.FreeOSMemory()                      // what preparing took is not the pipeline's
	debug.SetMemoryLimit(goMemory + prepared) // as coc up sets it, with room for the input
	stopEngine, stopSink := running(ctx, eng.Run), running(ctx, sk.Run)
	defer func() { err = errors.Join(err, stopEngine(), stopSink()) }()
	if err := b.until(ctx, func() bool { return eng.Status().Running }); err != nil {
		return err
	}
	began := time.Now()
	last, err := publishAll(ctx, pub, list)
	if err != nil {
		return err
	}
	if err := b.until(ctx, func() bool { return eng.Through() >= last && sk.Through() >= last }); err != nil {
		return err
	}
	rate := newRate(b.cmd.Events, time.Since(began))
	rate.Rules, rate.PreparedBytes = b.cmd.Rules, prepared
	r.Pipeline = &rate
	return nil
}

// publishAll publishes in order, waiting while the bus is full.
func publishAll(ctx context.Context, pub *bus.Publisher, list []prepared) (last uint64, err error) {
	for _, p := range list {
		for {
			last, err = pub.Publish(ctx, p.meta, p.data)
			if !errors.Is(err, bus.ErrFull) {
				break
			}
			time.Sleep(benchPoll)
		}
		if err != nil {
			return 0, err
		}
	}
	return last, nil
}

func (b *bench) until(ctx context.Context, ok func() bool) error {
	for !ok() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("the bench did not get through in time: %w", ctx.Err())
		case <-time.After(benchPoll):
		}
	}
	return nil
}

// engine decodes and judges batches on one core, nothing else.
func (b *bench) engine(ctx context.Context, r *benchReport) error {
	const events = 40 * event.LimitRows
	list, err := b.prepare(events, event.LimitRows, "bench", 1, 1)
	if err != nil {
		return err
	}
	for _, rules := range []int{100, 1000, 10_000} {
		set, err := benchSet(rules)
		if err != nil {
			return err
		}
		run := rule.NewRunner(set, rule.RunnerOptions{})
		seq, best := uint64(0), time.Duration(0)
		for round := range 4 { // the first warms up; of the others the fastest, as noise only adds
			began := time.Now()
			for _, p := range list {
				batch, err := event.DecodeFields(p.data, set.Fields())
				if err != nil {
					return err
				}
				seq++
				run.Message(rule.Input{Seq: seq, Batch: batch, Collector: "bench", Mark: p.meta.Mark, BusTime: p.meta.Mark})
				batch.Release()
			}
			if took := time.Since(began); round > 0 && (best == 0 || took < best) {
				best = took
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
		t := run.Totals()
		r.Engine = append(r.Engine, benchEngine{Rules: rules, NsPerEvent: float64(best.Nanoseconds()) / events, Matches: float64(t.Matches) / float64(t.Events), VMPerEvent: float64(t.VMRuns) / float64(t.Events)})
	}
	return nil
}

// intake hands NDJSON requests to the intake's handler until they are stored on
// the bus, and counts the CPU time of the whole process.
func (b *bench) intake(ctx context.Context, r *benchReport) (err error) {
	bs, err := b.openBus(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bs.Close(context.WithoutCancel(ctx))) }()
	sources, err := collector.ParseSources("bench", []byte("sources:\n  - {name: http, kind: http}\n"))
	if err != nil {
		return err
	}
	col, err := collector.New(collector.Config{Bus: bs, ID: "bench", StateDir: filepath.Join(b.dir, "collector"), IdentityKey: bytes.Repeat([]byte{9}, keySize),
		Sources: sources, Intake: collector.IntakeLimits{EventsPerSecond: 1e9}, Log: b.g.Log})
	if err != nil {
		return err
	}
	stop := running(ctx, col.Run)
	defer func() { err = errors.Join(err, stop()) }()
	token, err := bs.IssueToken(ctx, bus.Token{Role: "intake", Source: "http", TenantGlob: "*", Expires: b.g.Now().Add(time.Hour)})
	if err != nil {
		return err
	}
	if err := b.until(ctx, func() bool { return col.Ready() == nil }); err != nil {
		return err
	}
	const requests, senders = 2000, 8
	bodies := b.bodies(16)
	send := func(from int) error {
		for i := from; i < requests; i += senders {
			if err := post(ctx, col.Intake(), token, bodies[i%len(bodies)]); err != nil {
				return err
			}
		}
		return nil
	}
	if err := send(requests - senders); err != nil { // warms up
		return err
	}
	cpu, began := cpuTime(), time.Now()
	errs := make(chan error, senders)
	for i := range senders {
		go func() { errs <- send(i) }()
	}
	for range senders {
		err = errors.Join(err, <-errs)
	}
	events := requests * benchBody
	r.Intake = &benchIntake{Events: events, CPUNsPerEvent: float64((cpuTime() - cpu).Nanoseconds()) / float64(events), PerSecond: float64(events) / time.Since(began).Seconds()}
	return err
}

// bodies makes n NDJSON requests as a producer would send them: about 400 bytes
// an event.
func (b *bench) bodies(n int) [][]byte {
	var list [][]byte
	now := b.g.Now().UnixMilli()
	var e event.Event
	for i := range n {
		var body []byte
		for j := range benchBody {
			benchEvent(i*benchBody+j, now, &e)
			e.Received, e.Source, e.UserHash = 0, "", ""
			body = append(event.AppendJSON(body, &e), '\n')
		}
		list = append(list, body)
	}
	return list
}

// answer collects what a handler says, without a network in between.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(p []byte) (int, error) { return a.body.Write(p) }

func post(ctx context.Context, h http.Handler, token string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://bench/v1/events", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	req.Header.Set("Authorization", "Bearer "+token)
	a := answer{header: http.Header{}, status: http.StatusOK}
	h.ServeHTTP(&a, req)
	if a.status != http.StatusAccepted {
		return fmt.Errorf("the intake answered %d: %s", a.status, a.body.String())
	}
	return nil
}

// messages publishes small messages, 16 events each, to the bus alone.
func (b *bench) messages(ctx context.Context, r *benchReport) (err error) {
	bs, err := b.openBus(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bs.Close(context.WithoutCancel(ctx))) }()
	pub, err := bs.NewPublisher(ctx, "bench")
	if err != nil {
		return err
	}
	const count = 5000
	list, err := b.prepare(16*count, 16, "bench", pub.Epoch(), pub.Next())
	if err != nil {
		return err
	}
	began := time.Now()
	if _, err := publishAll(ctx, pub, list); err != nil {
		return err
	}
	rate := newRate(len(list), time.Since(began))
	r.Messages = &rate
	return nil
}

// memory starts coc up as a user would, looks at its memory once it has settled,
// and at its peak after a large import.
func (b *bench) memory(ctx context.Context, r *benchReport) error {
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("cannot find this program to start it again: %w", err)
	}
	file, err := b.writeEvents(benchImport)
	if err != nil {
		return err
	}
	data := filepath.Join(b.dir, "up")
	cmd := exec.CommandContext(ctx, exe, "up", "--data", data, "--listen", "127.0.0.1:0")
	cmd.Stdout, cmd.Stderr = io.Discard, io.Discard
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot start coc up: %w", err)
	}
	pid := strconv.Itoa(cmd.Process.Pid)
	err = b.until(ctx, func() bool { _, err := readInstance(data); return err == nil })
	if err == nil {
		time.Sleep(benchSettle)
		r.Idle = memory(pid, "VmRSS:")
		err = exec.CommandContext(ctx, exe, "import", "--data", data, "--format", "json", file).Run()
		r.Busy = memory(pid, "VmHWM:")
	}
	stopped := cmd.Process.Signal(syscall.SIGTERM)
	return errors.Join(err, stopped, cmd.Wait())
}

// writeEvents writes a file of NDJSON.
func (b *bench) writeEvents(count int) (path string, err error) {
	path = filepath.Join(b.dir, "events.ndjson")
	f, err := os.Create(path)
	if err != nil {
		return "", fmt.Errorf("cannot write the bench's events: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := bufio.NewWriterSize(f, 1<<20)
	now := b.g.Now().Add(-time.Hour).UnixMilli()
	var e event.Event
	var line []byte
	for i := range count {
		benchEvent(i, now, &e)
		e.Received, e.Source, e.UserHash = 0, "", ""
		line = append(event.AppendJSON(line[:0], &e), '\n')
		if _, err := w.Write(line); err != nil {
			return "", fmt.Errorf("cannot write the bench's events: %w", err)
		}
	}
	return path, w.Flush()
}

// cpuTime is what this process has used so far, user and system.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// peakMemory is the most resident memory a process had, in bytes.
func peakMemory(pid string) int64 { return memory(pid, "VmHWM:") }

// memory reads a line of /proc/PID/status; 0 where there is none.
func memory(pid, key string) int64 {
	b, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			kb, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kb << 10
		}
	}
	return 0
}

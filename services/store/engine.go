//go:build linux || darwin

package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// engine is the embedded ClickHouse: one per process, on one folder. A
// connection runs one statement at a time; slots bound how many run at once.
type engine struct {
	lib   *library
	dir   string
	args  []string
	lock  *os.File
	slots chan struct{}
	made  atomic.Uint64 // connections made, for their marks

	mu     sync.Mutex
	idle   []*connection
	live   map[*connection]bool
	closed bool

	// control runs KILL QUERY; apart from the slots, so that a full engine can
	// still be told to stop something.
	controlLock sync.Mutex
	control     unsafe.Pointer
}

// connection is one session of the engine with fixed settings. Its mark stands
// in the setting log_comment, by which a running statement is found and killed.
type connection struct {
	engine *engine
	handle unsafe.Pointer // chdb_connection*
	key    string
	mark   string
}

func (c *connection) raw() unsafe.Pointer { return *(*unsafe.Pointer)(c.handle) }

// engineHere guards the one engine of this process.
var engineHere sync.Mutex

// startEngine starts the engine on the folder, or says in one sentence why not.
func startEngine(c Config) (*engine, error) {
	lib, err := loadLibrary(c.Library)
	if err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return nil, fmt.Errorf("data folder %s: %w", c.Dir, err)
	}
	if !engineHere.TryLock() {
		return nil, fmt.Errorf("%w: this process has an embedded ClickHouse open already, and can have one; close it first", ErrInUse)
	}
	e := &engine{lib: lib, dir: dir, slots: make(chan struct{}, c.Connections), live: map[*connection]bool{}}
	if err := e.start(c); err != nil {
		e.stop()
		return nil, err
	}
	return e, nil
}

func (e *engine) start(c Config) error {
	if err := os.MkdirAll(e.dir, 0o700); err != nil {
		return fmt.Errorf("data folder of ClickHouse: %s; give a folder that this account may write", bareOS(err))
	}
	if err := e.lockDir(); err != nil {
		return err
	}
	config, err := writeEngineConfig(e.dir, c)
	if err != nil {
		return fmt.Errorf("configuration of the embedded ClickHouse: %w", err)
	}
	e.args = []string{"coc", "--path=" + e.dir, "--config-file=" + config}
	e.control = e.lib.open(e.args)
	if e.control == nil {
		return fmt.Errorf("the embedded ClickHouse would not start on %s: the folder may be damaged, of a newer version, or not writable; move it away and start again to have an empty one, the bus then delivers what it still holds", e.dir)
	}
	return nil
}

// lockDir makes a second process on the folder a clear error; the engine's own
// message names a status file.
func (e *engine) lockDir() error {
	name := filepath.Join(e.dir, "coc.lock")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("data folder of ClickHouse: %s; give a folder that this account may write", bareOS(err))
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder := make([]byte, 32)
		n, _ := f.ReadAt(holder, 0)
		_ = f.Close()
		who := "another process"
		if pid := strings.TrimSpace(string(holder[:n])); pid != "" {
			who = "process " + pid
		}
		return fmt.Errorf("%w: %s holds %s; stop it, or talk to it (--server), or give another data folder", ErrInUse, who, e.dir)
	}
	e.lock = f
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return nil
}

// stop closes what is open. The process may start an engine again afterwards.
func (e *engine) stop() {
	e.mu.Lock()
	idle := e.idle
	e.idle, e.closed = nil, true
	e.mu.Unlock()
	for _, c := range idle {
		e.lib.closeConn(c.handle)
	}
	e.controlLock.Lock()
	if e.control != nil {
		e.lib.closeConn(e.control)
		e.control = nil
	}
	e.controlLock.Unlock()
	if e.lock != nil {
		_ = e.lock.Close()
	}
	engineHere.Unlock()
}

// close waits for running statements, then kills them. An error names how many
// would not end; the folder then stays locked until the process ends.
func (e *engine) close() error {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil
	}
	e.closed = true
	e.mu.Unlock()
	if !e.drain(closeWait) {
		e.mu.Lock()
		live := make([]*connection, 0, len(e.live))
		for c := range e.live {
			live = append(live, c)
		}
		e.mu.Unlock()
		for _, c := range live {
			e.kill(c.mark)
		}
		if !e.drain(killWait) {
			return fmt.Errorf("closing the embedded ClickHouse: %d statements would not end; end the process, nothing that was written is lost", len(live))
		}
	}
	e.stop()
	return nil
}

// drain takes every slot within d: then nothing runs, and nothing will.
func (e *engine) drain(d time.Duration) bool {
	deadline := time.NewTimer(d)
	defer deadline.Stop()
	for taken := range cap(e.slots) {
		select {
		case e.slots <- struct{}{}:
		case <-deadline.C:
			for range taken {
				<-e.slots
			}
			return false
		}
	}
	return true
}

// acquire waits for a slot and gives a connection with exactly these settings.
// The caller gives it back with release.
func (e *engine) acquire(ctx context.Context, database string, settings map[string]string) (*connection, error) {
	select {
	case e.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for a free connection of ClickHouse: %w", ctx.Err())
	}
	c, err := e.connection(database, settings)
	if err != nil {
		<-e.slots
		return nil, err
	}
	return c, nil
}

func (e *engine) connection(database string, settings map[string]string) (*connection, error) {
	names := make([]string, 0, len(settings))
	for name := range settings {
		names = append(names, name)
	}
	slices.Sort(names)
	var b strings.Builder
	b.WriteString(database)
	for _, name := range names {
		b.WriteByte(0)
		b.WriteString(name + "=" + settings[name])
	}
	key := b.String()

	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil, ErrClosed
	}
	for i, c := range e.idle {
		if c.key == key {
			e.idle = slices.Delete(e.idle, i, i+1)
			e.live[c] = true
			e.mu.Unlock()
			return c, nil
		}
	}
	e.mu.Unlock()
	return e.connect(database, settings, names, key)
}

// connect opens a connection. readonly comes last: nothing can be set after it.
func (e *engine) connect(database string, settings map[string]string, names []string, key string) (*connection, error) {
	c := &connection{engine: e, key: key, mark: "coc-" + strconv.FormatUint(e.made.Add(1), 10)}
	args := append(slices.Clone(e.args), "--log_comment="+c.mark)
	for _, name := range names {
		if name != "readonly" {
			args = append(args, "--"+name+"="+settings[name])
		}
	}
	if c.handle = e.lib.open(args); c.handle == nil {
		return nil, fmt.Errorf("%w: the embedded engine gave no connection, or does not know one of the settings %s", ErrUnavailable, strings.Join(names, ", "))
	}
	statements := []string{}
	if database != "" && database != "default" {
		statements = append(statements, "USE `"+database+"`")
	}
	if v := settings["readonly"]; v != "" && v != "0" {
		n, err := strconv.Atoi(v)
		if err != nil {
			n = 1
		}
		statements = append(statements, "SET readonly = "+strconv.Itoa(n))
	}
	for _, s := range statements {
		if _, err := c.run(s); err != nil {
			e.lib.closeConn(c.handle)
			return nil, err
		}
	}
	e.mu.Lock()
	e.live[c] = true
	e.mu.Unlock()
	return c, nil
}

// release gives a connection back; a broken one is closed.
func (e *engine) release(c *connection, broken bool) {
	e.mu.Lock()
	delete(e.live, c)
	var extra *connection
	if broken {
		extra = c
	} else {
		e.idle = append(e.idle, c)
		if len(e.idle) > idleConnections {
			extra = e.idle[0]
			e.idle = slices.Delete(e.idle, 0, 1)
		}
	}
	e.mu.Unlock()
	if extra != nil {
		e.lib.closeConn(extra.handle)
	}
	<-e.slots
}

// kill ends the statement of the connection with this mark, if one runs.
func (e *engine) kill(mark string) {
	e.controlLock.Lock()
	defer e.controlLock.Unlock()
	if e.control == nil {
		return
	}
	c := connection{engine: e, handle: e.control}
	_, _ = c.run("KILL QUERY WHERE Settings['log_comment'] = '" + mark + "' ASYNC")
}

// whileRunning kills the connection's statement when ctx ends, until the
// returned function is called; that function waits, so a kill never meets the
// connection's next statement.
func (c *connection) whileRunning(ctx context.Context) (done func()) {
	if ctx.Done() == nil {
		return func() {}
	}
	over, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-over:
			return
		case <-ctx.Done():
		}
		again := time.NewTicker(killEvery)
		defer again.Stop()
		for {
			c.engine.kill(c.mark)
			select {
			case <-over:
				return
			case <-again.C:
			}
		}
	}()
	return func() { close(over); <-ended }
}

// engineError is what the engine said, with its code.
type engineError struct {
	code int
	text string
}

func (e *engineError) Error() string { return e.text }

func newEngineError(said string) *engineError {
	code := 0
	if rest, ok := strings.CutPrefix(said, "Code: "); ok {
		if digits, _, ok := strings.Cut(rest, "."); ok {
			code, _ = strconv.Atoi(digits)
		}
	}
	if len(said) > limitErrorText {
		said = said[:limitErrorText] + "…"
	}
	return &engineError{code: code, text: said}
}

// run executes a small statement of ours and returns its result as TSV.
func (c *connection) run(query string) (string, error) {
	p := newParams(nil)
	defer p.free()
	r := p.run(c.engine.lib.query, c.raw(), query, "TSV")
	if r == nil {
		return "", errors.New("the embedded ClickHouse gave no result")
	}
	defer c.engine.lib.destroy(r)
	if said := text(c.engine.lib.failure(r)); said != "" {
		return "", newEngineError(said)
	}
	return string(c.engine.bytes(r)), nil
}

// bytes copies a result's data into Go's memory.
func (e *engine) bytes(result unsafe.Pointer) []byte {
	n := e.lib.length(result)
	if n == 0 {
		return nil
	}
	return append([]byte(nil), unsafe.Slice((*byte)(e.lib.buffer(result)), n)...)
}

// analyse asks the engine's parser how many statements the text holds and what
// they would change, running nothing.
func (c *connection) analyse(query string) (statements, class uint32) {
	a := analysis{size: uint32(unsafe.Sizeof(analysis{}))}
	if c.engine.lib.classify(c.raw(), bytesOf(query), uintptr(len(query)), nil, 0, unsafe.Pointer(&a)) != 0 {
		return 0, ^uint32(0)
	}
	return a.statements, a.class
}

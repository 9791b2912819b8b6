//go:build linux || darwin

package store

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"unsafe"

	"github.com/ebitengine/purego"
)

// libraryVersion is what chdb_version must begin with: the C interface and
// everything measured about the engine hold for this line of releases.
const libraryVersion = "26.7."

// library is the C interface of libchdb, bound once per process. All handles
// are C pointers; nothing here is freed by Go.
type library struct {
	path string

	version      func() *byte
	setSignals   func(enabled int32)
	connect      func(argc int32, argv unsafe.Pointer) unsafe.Pointer
	closeConn    func(conn unsafe.Pointer)
	query        func(conn, query unsafe.Pointer, queryLen uintptr, format unsafe.Pointer, formatLen uintptr, names, nameLens, values, valueLens unsafe.Pointer, count uintptr) unsafe.Pointer
	streamQuery  func(conn, query unsafe.Pointer, queryLen uintptr, format unsafe.Pointer, formatLen uintptr, names, nameLens, values, valueLens unsafe.Pointer, count uintptr) unsafe.Pointer
	streamFetch  func(conn, stream unsafe.Pointer) unsafe.Pointer
	streamCancel func(conn, stream unsafe.Pointer)
	destroy      func(result unsafe.Pointer)
	buffer       func(result unsafe.Pointer) unsafe.Pointer
	length       func(result unsafe.Pointer) uintptr
	rowsWritten  func(result unsafe.Pointer) uint64
	failure      func(result unsafe.Pointer) *byte
	classify     func(conn, sql unsafe.Pointer, sqlLen uintptr, database unsafe.Pointer, databaseLen uintptr, out unsafe.Pointer) int32

	insert        func(conn, query unsafe.Pointer, queryLen uintptr, format unsafe.Pointer, formatLen uintptr) unsafe.Pointer
	insertAppend  func(stream, data unsafe.Pointer, n uintptr) int32
	insertDone    func(stream unsafe.Pointer) unsafe.Pointer
	insertCancel  func(stream unsafe.Pointer)
	insertFailure func(stream unsafe.Pointer) *byte
	insertDestroy func(stream unsafe.Pointer)
}

var (
	libraryLock sync.Mutex
	loaded      *library
)

// loadLibrary binds libchdb, once: a process can hold one engine. The errors
// are one sentence that says what to run.
func loadLibrary(path string) (lib *library, err error) {
	libraryLock.Lock()
	defer libraryLock.Unlock()
	if loaded != nil {
		return loaded, nil
	}
	fail := func(why string) error {
		return fmt.Errorf("%w: %s; run `make build`, or say with COC_LIBCHDB where libchdb.so %sx is", ErrLibrary, why, libraryVersion)
	}
	if path == "" {
		return nil, fail("no libchdb.so was found beside the program")
	}
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fail(bareOS(err))
	}
	if !info.Mode().IsRegular() {
		return nil, fail(path + " is not a file")
	}
	handle, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, fail(firstLine(err.Error()))
	}
	l := &library{path: path}
	if missing := l.bind(handle); missing != "" {
		return nil, fail(path + " lacks the function " + missing)
	}
	if v := text(l.version()); !strings.HasPrefix(v, libraryVersion) {
		return nil, fail(fmt.Sprintf("%s is version %q", path, v))
	}
	// Before the first connect: its own handlers would hang Go's nil
	// dereferences and swallow SIGINT.
	l.setSignals(0)
	loaded = l
	return l, nil
}

// bind registers every function and returns the first one that is not there.
func (l *library) bind(handle uintptr) (missing string) {
	for _, f := range []struct {
		name string
		to   any
	}{
		{"chdb_version", &l.version},
		{"chdb_set_signal_handlers_enabled", &l.setSignals},
		{"chdb_connect", &l.connect},
		{"chdb_close_conn", &l.closeConn},
		{"chdb_query_with_params_n", &l.query},
		{"chdb_stream_query_with_params_n", &l.streamQuery},
		{"chdb_stream_fetch_result", &l.streamFetch},
		{"chdb_stream_cancel_query", &l.streamCancel},
		{"chdb_destroy_query_result", &l.destroy},
		{"chdb_result_buffer", &l.buffer},
		{"chdb_result_length", &l.length},
		{"chdb_result_rows_written", &l.rowsWritten},
		{"chdb_result_error", &l.failure},
		{"chdb_classify_query_n", &l.classify},
		{"chdb_stream_insert_n", &l.insert},
		{"chdb_stream_append", &l.insertAppend},
		{"chdb_stream_done", &l.insertDone},
		{"chdb_stream_cancel_insert", &l.insertCancel},
		{"chdb_stream_insert_error", &l.insertFailure},
		{"chdb_destroy_insert_stream", &l.insertDestroy},
	} {
		address, err := purego.Dlsym(handle, f.name)
		if err != nil || address == 0 {
			return f.name
		}
		purego.RegisterFunc(f.to, address)
	}
	return ""
}

// open connects with command-line style arguments; nil when refused.
func (l *library) open(args []string) unsafe.Pointer {
	var pin runtime.Pinner
	defer pin.Unpin()
	argv := make([]unsafe.Pointer, len(args)+1)
	for i, a := range args {
		b := append([]byte(a), 0)
		pin.Pin(&b[0])
		argv[i] = unsafe.Pointer(&b[0])
	}
	pin.Pin(&argv[0])
	return l.connect(int32(len(args)), unsafe.Pointer(&argv[0]))
}

// params holds a statement's bound values in the shape of the C interface.
// Pinned until free is called.
type params struct {
	pin               runtime.Pinner
	names, values     []unsafe.Pointer
	nameLens, valLens []uintptr
}

func newParams(bound map[string]string) *params {
	p := &params{}
	for name, value := range bound {
		p.names = append(p.names, p.hold(name))
		p.nameLens = append(p.nameLens, uintptr(len(name)))
		p.values = append(p.values, p.hold(value))
		p.valLens = append(p.valLens, uintptr(len(value)))
	}
	if len(bound) > 0 {
		p.pin.Pin(&p.names[0])
		p.pin.Pin(&p.values[0])
		p.pin.Pin(&p.nameLens[0])
		p.pin.Pin(&p.valLens[0])
	}
	return p
}

func (p *params) hold(s string) unsafe.Pointer {
	b := append([]byte(s), 0)
	p.pin.Pin(&b[0])
	return unsafe.Pointer(&b[0])
}

func (p *params) free() { p.pin.Unpin() }

// run calls query or streamQuery with a statement and its bound values.
func (p *params) run(call func(conn, query unsafe.Pointer, queryLen uintptr, format unsafe.Pointer, formatLen uintptr, names, nameLens, values, valueLens unsafe.Pointer, count uintptr) unsafe.Pointer, conn unsafe.Pointer, query, format string) unsafe.Pointer {
	var names, nameLens, values, valLens unsafe.Pointer
	if len(p.names) > 0 {
		names, nameLens = unsafe.Pointer(&p.names[0]), unsafe.Pointer(&p.nameLens[0])
		values, valLens = unsafe.Pointer(&p.values[0]), unsafe.Pointer(&p.valLens[0])
	}
	r := call(conn, bytesOf(query), uintptr(len(query)), bytesOf(format), uintptr(len(format)), names, nameLens, values, valLens, uintptr(len(p.names)))
	runtime.KeepAlive(query)
	runtime.KeepAlive(format)
	return r
}

// bytesOf is the address of a string's bytes; the caller keeps it alive.
func bytesOf(s string) unsafe.Pointer {
	if s == "" {
		return nil
	}
	return unsafe.Pointer(unsafe.StringData(s))
}

// text copies a NUL-terminated C string; nil gives "".
func text(p *byte) string {
	if p == nil {
		return ""
	}
	n := 0
	for *(*byte)(unsafe.Add(unsafe.Pointer(p), n)) != 0 {
		n++
	}
	return string(unsafe.Slice(p, n))
}

// analysis mirrors chdb_query_analysis_v1.
type analysis struct {
	size, statements, flags, class uint32
}

// Classes of statements as libchdb's parser sees them, by how much outlives
// the statement.
const (
	classReadOnly = 0
	classMutating = 1
)

func bareOS(err error) string {
	var p *os.PathError
	if e, ok := err.(*os.PathError); ok {
		p = e
		return p.Path + ": " + p.Err.Error()
	}
	return err.Error()
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

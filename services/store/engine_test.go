package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/opencoc/coc/services/event"
)

// helper is what a second process of this program does; see again.
func helper() (code int, asked bool) {
	switch os.Getenv("COC_STORE_HELPER") {
	case "open":
		_, err := Open(context.Background(), Config{Dir: os.Getenv("COC_STORE_DIR"), Library: libraryPath()})
		fmt.Println(err)
		return 0, true
	case "signals":
		return signals(), true
	case "reopen":
		for _, dir := range []string{"a", "b", "a"} {
			s, err := Open(context.Background(), Config{Dir: filepath.Join(os.Getenv("COC_STORE_DIR"), dir), Library: libraryPath()})
			if err == nil {
				err = errors.Join(s.Health(context.Background()), s.Close(), s.Close())
			}
			fmt.Println(err)
		}
		return 0, true
	case "killed", "count":
		return killed(os.Getenv("COC_STORE_HELPER") == "killed"), true
	}
	return 0, false
}

// signals shows that with the engine open a nil dereference is recovered and
// SIGINT reaches Go.
func signals() int {
	s, err := Open(context.Background(), Config{Dir: os.Getenv("COC_STORE_DIR"), Library: libraryPath()})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	for range 3 {
		func() {
			defer func() { fmt.Println("recovered:", recover() != nil) }()
			var e *event.Event
			fmt.Println(e.Kind)
		}()
	}
	interrupted := make(chan os.Signal, 1)
	notify(interrupted)
	if err := syscall.Kill(os.Getpid(), syscall.SIGINT); err != nil {
		fmt.Println(err)
	}
	select {
	case <-interrupted:
		fmt.Println("SIGINT reached Go")
	case <-time.After(10 * time.Second):
		fmt.Println("SIGINT was swallowed")
	}
	fmt.Println("closed:", s.Close())
	return 0
}

// killed stores 2,000 events and dies of SIGKILL at once, or counts them.
func killed(die bool) int {
	ctx := context.Background()
	s, err := Open(ctx, Config{Dir: os.Getenv("COC_STORE_DIR"), Library: libraryPath()})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	if !die {
		var n uint64
		err := s.conn.QueryRow(ctx, "SELECT count() FROM events").Scan(&n)
		fmt.Println(n, errors.Join(err, s.Close()))
		return 0
	}
	b := event.NewBuilder()
	for _, e := range mixed("killed", 1, 2000) {
		if err := b.Append(&e); err != nil {
			fmt.Println(err)
		}
	}
	msg, err := b.Encode()
	if err == nil {
		_, err = s.InsertEvents(ctx, "killed", [][]byte{msg}, 2000)
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("stored")
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// again runs this test program as another process and returns what it prints.
func again(t *testing.T, what, dir string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), "COC_STORE_HELPER="+what, "COC_STORE_DIR="+dir)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !(errors.As(err, &exit) && what == "killed") {
		t.Fatalf("%s: %v\n%s", what, err, out)
	}
	return string(out)
}

func TestTheEngineLeavesSignalsToGo(t *testing.T) {
	out := again(t, "signals", t.TempDir())
	if strings.Count(out, "recovered: true") != 3 || !strings.Contains(out, "SIGINT reached Go") || !strings.Contains(out, "closed: <nil>") {
		t.Errorf("the other process said:\n%s", out)
	}
}

func TestAClosedStoreCanBeOpenedAgainAndElsewhere(t *testing.T) {
	if out := again(t, "reopen", t.TempDir()); out != "<nil>\n<nil>\n<nil>\n" {
		t.Errorf("opening a, b and a gives %s", out)
	}
}

func TestASecondProcessIsToldWhoHoldsTheFolder(t *testing.T) {
	out := again(t, "open", house.config.Dir)
	want := fmt.Sprintf("the data folder is in use by another process: process %d holds %s; stop it", os.Getpid(), house.config.Dir)
	if !strings.HasPrefix(out, want) {
		t.Errorf("the second process says %q", out)
	}
}

func TestAMissingOrWrongLibraryIsOneSentence(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "libchdb.so")
	if err := os.WriteFile(text, []byte("not a library"), 0o600); err != nil {
		t.Fatal(err)
	}
	libraryLock.Lock()
	held := loaded
	loaded = nil
	libraryLock.Unlock()
	defer func() {
		libraryLock.Lock()
		loaded = held
		libraryLock.Unlock()
	}()
	for _, path := range []string{"", filepath.Join(dir, "nowhere.so"), dir, text, "libc.so.6", "/lib/x86_64-linux-gnu/libc.so.6"} {
		_, err := loadLibrary(path)
		if !errors.Is(err, ErrLibrary) || !strings.Contains(err.Error(), "run `make build`") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q gives %v", path, err)
		}
	}
}

// The engine runs within the bounds that keep an instance small: without them
// 1.7 GB were seen for the same work.
func TestTheEngineIsBounded(t *testing.T) {
	for name, want := range map[string]string{
		"max_server_memory_usage": fmt.Sprint(house.config.MemoryBytes), "mark_cache_size": fmt.Sprint(32 << 20), "index_mark_cache_size": fmt.Sprint(16 << 20),
		"uncompressed_cache_size": "0", "background_pool_size": "2",
	} {
		if got := scalar[string](t, "SELECT value FROM system.server_settings WHERE name = '"+name+"'"); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	if house.config.MemoryBytes > 700<<20 {
		t.Errorf("the engine may take %d bytes", house.config.MemoryBytes)
	}
}

func TestASecondStoreInTheProcessIsRefused(t *testing.T) {
	_, err := Open(t.Context(), Config{Dir: t.TempDir(), Library: libraryPath()})
	if !errors.Is(err, ErrInUse) {
		t.Errorf("a second embedded store gives %v", err)
	}
}

func TestTheEngineReachesNothingOutside(t *testing.T) {
	secretFile := filepath.Join(t.TempDir(), "secret.tsv")
	if err := os.WriteFile(secretFile, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	reached := make(chan string, 16)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { reached <- r.URL.Path }))
	defer server.Close()
	for _, statement := range []string{
		"SELECT * FROM file('" + secretFile + "', LineAsString)", "SELECT file('" + secretFile + "')",
		"SELECT * FROM url('" + server.URL + "/url', LineAsString)", "SELECT * FROM urlCluster('default', '" + server.URL + "', LineAsString)",
		"SELECT * FROM remote('127.0.0.1', system.one)", "SELECT * FROM s3('" + server.URL + "/bucket/key', 'a', 'b', 'TSV')",
		"SELECT * FROM mysql('127.0.0.1:1', 'a', 'b', 'c', 'd')", "SELECT * FROM postgresql('127.0.0.1:1', 'a', 'b', 'c', 'd')", "SELECT * FROM sqlite('" + secretFile + "', 'x')",
		"SELECT * FROM executable('id', TSV, 'a String')", "SELECT * FROM redis('127.0.0.1:1', 'k', 'k String')", "SELECT * FROM mongodb('127.0.0.1:1', 'a', 'b', 'c', 'd', 'e String')",
		"SELECT * FROM python('x')", "SELECT * FROM Python('x')",
		"CREATE TABLE f (a String) ENGINE = File(LineAsString)", "CREATE TABLE f (a String) ENGINE = URL('" + server.URL + "', LineAsString)",
		"SELECT `file`('" + secretFile + "')", "SELECT FILE /* */ ('" + secretFile + "')", "SELECT $$'$$, file('" + secretFile + "'), $$'$$", "SELECT (SELECT file('" + secretFile + "'))",
		"INSERT INTO events (message) SELECT file('" + secretFile + "')", "CREATE DATABASE f ENGINE = Filesystem", "CREATE DATABASE f ENGINE = SQLite('" + secretFile + "')", "CREATE DATABASE f ENGINE = MySQL('127.0.0.1:1', 'a', 'b', 'c')",
		"CREATE DICTIONARY d (a String) PRIMARY KEY a SOURCE(FILE(PATH '" + secretFile + "' FORMAT 'TSV')) LAYOUT(FLAT()) LIFETIME(0)",
		"INSERT INTO FUNCTION file('" + secretFile + "', LineAsString) SELECT 'x'", "SELECT 1 INTO OUTFILE '" + secretFile + ".out'",
		"INSERT INTO events (message) FROM INFILE '" + secretFile + "' FORMAT LineAsString",
		"CREATE FUNCTION f AS x -> x", "CREATE USER u", "CREATE ROLE r", "GRANT ALL ON *.* TO default", "CREATE NAMED COLLECTION c AS a = 1", "BACKUP DATABASE coc TO File('" + secretFile + ".zip')",
		"SYSTEM SHUTDOWN", "SELECT 1; SELECT 2", "SET readonly = 0",
	} {
		if err := house.conn.Exec(t.Context(), statement); err == nil {
			t.Errorf("the engine ran %s", statement)
		}
	}
	select {
	case path := <-reached:
		t.Errorf("the engine called %s", path)
	default:
	}
	if _, err := os.Stat(secretFile + ".out"); err == nil {
		t.Error("the engine wrote a file")
	}
}

func TestAStatementEndsWithItsContext(t *testing.T) {
	const long = "SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number) = 1"
	for name, statement := range map[string]string{"one block": long, "many blocks": "SELECT number FROM numbers(1000000000000) WHERE sipHash64(number) % 100000 = 1"} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			started := time.Now()
			var sum uint64
			err := func() error {
				rows, err := house.conn.Query(ctx, statement)
				if err != nil {
					return err
				}
				defer func() { _ = rows.Close() }()
				for rows.Next() {
					sum++
				}
				return rows.Err()
			}()
			if !errors.Is(err, context.DeadlineExceeded) && !strings.Contains(fmt.Sprint(err), context.DeadlineExceeded.Error()) {
				t.Errorf("after its time it gives %v", err)
			}
			if d := time.Since(started); d > 10*time.Second {
				t.Errorf("it ended after %s", d)
			}
		})
	}
	if n := scalar[uint64](t, "SELECT count() FROM system.processes WHERE query LIKE '%sipHash64%' AND query NOT LIKE '%processes%'"); n != 0 {
		t.Errorf("%d statements still run", n)
	}
}

func TestAPersonsStatementIsCutAndStopped(t *testing.T) {
	rows := 0
	info, err := house.SQL(t.Context(), admin, "SELECT number, toString(number) AS s FROM numbers(100000000000)", 200_000, func(cols []Column, row []any) error {
		if fmt.Sprint(row[0]) != fmt.Sprint(rows) || row[1] != fmt.Sprint(rows) || len(cols) != 2 || cols[1] != (Column{"s", "String"}) {
			return fmt.Errorf("row %d is %v of %v", rows, row, cols)
		}
		rows++
		return nil
	})
	if err != nil || rows != 200_000 || !info.More || info.Rows != 200_000 {
		t.Errorf("%d rows, %+v, %v", rows, info, err)
	}
	stop := errors.New("enough")
	if _, err := house.SQL(t.Context(), admin, "SELECT 1 FROM numbers(10)", 0, func([]Column, []any) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("an error of the reader becomes %v", err)
	}
	// A failure after the first blocks is an error, never a short result.
	n := 0
	_, err = house.SQL(t.Context(), admin, "SELECT throwIf(number = 300000, 'late') FROM numbers(400000)", 1_000_000, func([]Column, []any) error { n++; return nil })
	if err == nil || !strings.Contains(err.Error(), "late") {
		t.Errorf("a statement that fails after %d rows gives %v", n, err)
	}
}

func TestManyStatementsAtOnce(t *testing.T) {
	var wait sync.WaitGroup
	for i := range 32 {
		wait.Go(func() {
			for j := range 5 {
				n := i*100 + j
				rows, _, err := ask(t, RoleAdministrator, fmt.Sprintf("SELECT %d, count() FROM numbers(1000)", n))
				if err != nil || len(rows) != 1 || rows[0] != fmt.Sprintf("[%d,1000]", n) {
					t.Errorf("%v, %v", rows, err)
				}
			}
		})
	}
	wait.Wait()
}

// A statement's body never becomes text, through either door.
func TestDataIsNeverRun(t *testing.T) {
	evil := "x\n\nDROP TABLE events;\nSELECT 1"
	e := event.Event{Time: 1, Received: 1, Kind: "user", Action: "evil", Message: evil, Collector: "evil", Epoch: 1, Seq: 1}
	put(t, "evil", e)
	if err := house.InsertWork(t.Context(), []WorkRow{{Kind: "evil", ID: evil, Seq: 1, Time: day0, Data: evil}}); err != nil {
		t.Fatal(err)
	}
	if n := scalar[uint64](t, "SELECT count() FROM events WHERE action = 'evil'"); n != 1 {
		t.Errorf("%d events", n)
	}
}

func TestTheSameCallsWorkOverARealSocket(t *testing.T) {
	if house.engine == nil {
		t.Fatal("the house has no embedded engine")
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.RequestURI = ""
		if user, _, ok := r.BasicAuth(); !ok || user != "coc" {
			http.Error(w, "Code: 516. DB::Exception: Authentication failed. (AUTHENTICATION_FAILED)", http.StatusForbidden)
			return
		}
		res, err := house.engine.RoundTrip(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer func() { _ = res.Body.Close() }()
		for k, v := range res.Header {
			w.Header()[k] = v
		}
		w.WriteHeader(res.StatusCode)
		_, _ = io.Copy(w, res.Body)
	}))
	defer server.Close()
	s, err := Open(t.Context(), Config{URL: server.URL, User: "coc", Password: "p", Database: "coc"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	frames, rows, err := event.Splice([][]byte{encode(t, event.Event{Time: 5, Received: 5, Kind: "user", Action: "socket", Message: hostile[1], Collector: "socket", Epoch: 1, Seq: 1})})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if n, err := s.InsertEvents(t.Context(), "socket", frames, rows); err != nil || n != 1 {
			t.Errorf("wrote %d rows, %v", n, err)
		}
	}
	page, err := s.Events(t.Context(), admin, EventFilter{Action: "socket", Search: "B"})
	if err != nil || len(page.Events) != 1 || page.Events[0].Message != hostile[1] {
		t.Errorf("%+v, %v", page, err)
	}
	info, err := s.Info(t.Context())
	if err != nil || info.Engine != "server" || len(info.Tables) == 0 {
		t.Errorf("%+v, %v", info, err)
	}
	n := 0
	if _, err := s.SQL(t.Context(), Reader{Role: RoleOperator}, "SELECT kind FROM events WHERE action = 'socket'", 0, func(_ []Column, row []any) error {
		n++
		return nil
	}); err != nil || n != 1 {
		t.Errorf("%d rows, %v", n, err)
	}
	if err := s.Health(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := Open(t.Context(), Config{URL: server.URL, User: "nobody"}); err == nil || !strings.Contains(err.Error(), "Authentication failed") {
		t.Errorf("a wrong user gives %v", err)
	}
}

func TestAServerThatIsNotThereIsUnavailable(t *testing.T) {
	server := httptest.NewServer(nil)
	address := server.URL
	server.Close()
	_, err := Open(t.Context(), Config{URL: address})
	if !errors.Is(err, ErrUnavailable) || strings.Contains(err.Error(), "param") {
		t.Errorf("it gives %v", err)
	}
	for _, c := range []Config{{}, {URL: "tcp://h:9000"}, {URL: "http://u:p@h"}, {URL: "http://"}, {URL: "http://h?x=1"}, {Dir: "d", Database: "a`b"}, {Dir: "d", MemoryBytes: 1}, {Dir: "d", Connections: 99}} {
		if err := c.Validate(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v gives %v", c, err)
		}
	}
}

func TestInfoAndHealth(t *testing.T) {
	put(t, "info", event.Event{Time: 1, Received: 1, Kind: "user", Action: "info", Collector: "info", Epoch: 1, Seq: 1})
	info, err := house.Info(t.Context())
	if err != nil || info.Engine != "embedded" || !strings.HasPrefix(info.Version, "26.7.") || info.MemoryBytes <= 0 || info.DiskFreeBytes <= 0 || info.Migration == 0 {
		t.Errorf("%+v, %v", info, err)
	}
	if err := house.Health(t.Context()); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := house.Health(ctx); err == nil {
		t.Error("health does not look at its context")
	}
	runtime.GC()
	slog.Debug("memory", "bytes", info.MemoryBytes)
}

func TestAnEmptyResultAndAFailureAreTold(t *testing.T) {
	var ex *clickhouse.Exception
	if err := house.conn.Exec(t.Context(), "SELECT * FROM nowhere"); !errors.As(err, &ex) || ex.Code != codeUnknownTable {
		t.Errorf("an unknown table gives %v", err)
	}
	if err := house.conn.Exec(t.Context(), "SELEC 1"); !errors.As(err, &ex) || ex.Code != codeSyntax {
		t.Errorf("a typing error gives %v", err)
	}
	rows, err := house.conn.Query(t.Context(), "SELECT message FROM events WHERE action = 'never'")
	if err != nil {
		t.Fatal(err)
	}
	if rows.Next() {
		t.Error("a row of nothing")
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		t.Error(err)
	}
}

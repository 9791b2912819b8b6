package bus

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// config of a small embedded bus in a folder of the test.
func config(t testing.TB) Config {
	return Config{
		StoreDir: t.TempDir(), Name: "test", Log: testLog(t),
		EventsBytes: 64 * mib, FindingsBytes: 16 * mib, IntakeBytes: 16 * mib, DeadLetterBytes: 16 * mib,
		WorkBytes: 16 * mib, AuditBytes: 16 * mib, StateBytes: 64 * mib,
	}
}

// open opens a bus and closes it at the end of the test.
func open(t testing.TB, c Config) *Bus {
	t.Helper()
	b, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeBus(t, b) })
	return b
}

func closeBus(t testing.TB, b *Bus) {
	t.Helper()
	if err := b.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

// testLog shows the log of a test that fails.
func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error is %v, want %v", err, want)
	}
}

// eventually waits for a condition, at most 20 s.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	end := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(end) {
			t.Fatalf("not within 20 s: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestTopologyTwiceChangesNothing(t *testing.T) {
	c := config(t)
	b := open(t, c)
	before := must[[]StreamInfo](t)(b.Info(t.Context()))
	if err := b.applyTopology(t.Context()); err != nil {
		t.Fatal(err)
	}
	after := must[[]StreamInfo](t)(b.Info(t.Context()))
	for i := range before {
		if before[i] != after[i] {
			t.Errorf("%s changed: %+v, then %+v", before[i].Name, before[i], after[i])
		}
	}
	for _, s := range streams {
		cfg := b.streams[s.name].CachedInfo().Config
		if cfg.Discard != jetstream.DiscardNew || cfg.MaxAge != 0 || cfg.MaxBytes <= 0 {
			t.Errorf("%s must refuse when full, have no age and a bound: %+v", s.name, cfg)
		}
	}
}

func TestDriftIsPutRight(t *testing.T) {
	b := open(t, config(t))
	cfg := b.streams[streamEvents].CachedInfo().Config
	cfg.MaxAge, cfg.Duplicates, cfg.Discard, cfg.Metadata = time.Hour, time.Minute, jetstream.DiscardOld, map[string]string{"owner": "operator"}
	if _, err := b.js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if err := b.applyTopology(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := must[*jetstream.StreamInfo](t)(b.streams[streamEvents].Info(t.Context())).Config
	if got.MaxAge != 0 || got.Discard != jetstream.DiscardNew {
		t.Errorf("EVENTS still has age %v, discard %v", got.MaxAge, got.Discard)
	}
	if got.Metadata["owner"] != "operator" {
		t.Error("what the operator set beside the protocols was thrown away")
	}
}

func TestDriftThatCannotBePutRightIsNamed(t *testing.T) {
	b := open(t, config(t))
	if err := b.js.DeleteStream(t.Context(), streamIntake); err != nil {
		t.Fatal(err)
	}
	_, err := b.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: streamIntake, Subjects: []string{"coc.intake.>"}})
	if err != nil {
		t.Fatal(err)
	}
	err = b.applyTopology(t.Context())
	if err == nil || !strings.Contains(err.Error(), "INTAKE") || !strings.Contains(err.Error(), "cannot change") {
		t.Fatalf("error is %v", err)
	}
}

func TestBoundBelowContentsIsRefused(t *testing.T) {
	c := config(t)
	b := open(t, c)
	p := must[*Publisher](t)(b.NewPublisher(t.Context(), "c"))
	for range 5 {
		publish(t, p, 1, make([]byte, 900*kib))
	}
	closeBus(t, b)
	c.EventsBytes = 3 * mib
	_, err := Open(t.Context(), c)
	if err == nil || !strings.Contains(err.Error(), "EVENTS holds") {
		t.Fatalf("error is %v", err)
	}
}

func TestSecondProcessOnTheFolderIsTold(t *testing.T) {
	c := config(t)
	open(t, c)
	_, err := Open(t.Context(), c)
	if err == nil || !strings.Contains(err.Error(), "is in use by another process") {
		t.Fatalf("error is %v", err)
	}
}

func TestPortInUseIsTold(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	c := config(t)
	c.Listen = l.Addr().String()
	_, err = Open(t.Context(), c)
	if err == nil || !strings.Contains(err.Error(), c.Listen+" is in use") {
		t.Fatalf("error is %v", err)
	}
	c.Listen = "" // the folder was given back
	open(t, c)
}

func TestFolderThatCannotBeUsedIsTold(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{file, filepath.Join(file, "sub"), "/proc/coc"} {
		c := config(t)
		c.StoreDir = dir
		if _, err := Open(t.Context(), c); err == nil || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "give") {
			t.Errorf("%s: error is %v", dir, err)
		}
	}
}

func TestNoServerAtURLIsTold(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := Open(ctx, Config{URL: "nats://127.0.0.1:1"})
	if err == nil || !strings.Contains(err.Error(), "nats://127.0.0.1:1 cannot be reached") {
		t.Fatalf("error is %v", err)
	}
}

func TestFilesAreEncryptedAndOpenWithTheirKeyOnly(t *testing.T) {
	const planted = "PLANTED-name-of-a-person"
	c := config(t)
	c.Key = bytes.Repeat([]byte("k"), 32)
	b := open(t, c)
	p := must[*Publisher](t)(b.NewPublisher(t.Context(), "c"))
	publish(t, p, 1, []byte(planted))
	must[uint64](t)(b.PutWork(t.Context(), KindIdentity, "i1", 0, []byte(planted)))
	must[uint64](t)(b.kvs[BucketHouse].Put(t.Context(), "k", []byte(planted)))
	if err := b.PutRules(t.Context(), "abc", []byte(planted)); err != nil {
		t.Fatal(err)
	}
	closeBus(t, b)
	files := 0
	err := filepath.WalkDir(c.StoreDir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte("PLANTED")) {
			t.Errorf("%s holds the planted text", path)
		}
		return err
	})
	if err != nil || files < 10 {
		t.Fatalf("looked into %d files: %v", files, err)
	}
	for name, key := range map[string][]byte{"another key": bytes.Repeat([]byte("x"), 32), "no key": nil} {
		other := c
		other.Key = key
		if _, err := Open(t.Context(), other); err == nil || !strings.Contains(err.Error(), "is encrypted") {
			t.Errorf("%s: error is %v", name, err)
		}
	}
	b = open(t, c)
	r := must[*Reader](t)(b.Events(t.Context(), 1))
	defer r.Close()
	if m := next(t, r); string(m.Data) != planted {
		t.Errorf("read %q", m.Data)
	}
}

func TestDamagedStreamStopsTheStart(t *testing.T) {
	c := config(t)
	b := open(t, c)
	closeBus(t, b)
	meta := filepath.Join(c.StoreDir, "jetstream", "$G", "streams", streamEvents, "meta.inf")
	if err := os.WriteFile(meta, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), c)
	if err == nil || !strings.Contains(err.Error(), "EVENTS") || !strings.Contains(err.Error(), "cannot be read") {
		t.Fatalf("error is %v", err)
	}
}

func TestNearlyFullDiskHoldsWritersBackAndLetsGo(t *testing.T) {
	c := config(t)
	var free atomic.Int64
	free.Store(10 * gib)
	c.free = func(string) (int64, error) { return free.Load(), nil }
	b := open(t, c)
	p := must[*Publisher](t)(b.NewPublisher(t.Context(), "c"))
	free.Store(minFreeBytes - 1)
	b.watchDisk(t.Context())
	_, err := p.Publish(t.Context(), Meta{Epoch: p.Epoch(), First: p.Next(), Rows: 1}, []byte("x"))
	wantErr(t, err, ErrFull)
	wantErr(t, b.Healthy(t.Context()), ErrFull)
	free.Store(10 * gib)
	b.watchDisk(t.Context())
	publish(t, p, 1, []byte("x"))
	if err := b.Healthy(t.Context()); err != nil {
		t.Error(err)
	}
	closeBus(t, b)
	free.Store(minFreeBytes - 1)
	if _, err := Open(t.Context(), c); err == nil || !strings.Contains(err.Error(), "MiB left") {
		t.Errorf("error is %v", err)
	}
}

func TestClockFollowsTheServer(t *testing.T) {
	c := config(t)
	c.Now = func() time.Time { return time.Now().Add(-45 * time.Second) } // this machine is behind
	b := open(t, c)
	if d := b.Offset() - 45*time.Second; d.Abs() > time.Second {
		t.Errorf("offset %v, want 45 s", b.Offset())
	}
	if d := time.Since(b.Now()); d.Abs() > time.Second {
		t.Errorf("the bus's clock is %v off", d)
	}
}

// TestKilledServerKeepsWhatItAcknowledged runs this test program as another
// process, kills it and opens its folder.
func TestKilledServerKeepsWhatItAcknowledged(t *testing.T) {
	if dir := os.Getenv("BUS_TEST_DIR"); dir != "" {
		c := config(t)
		c.StoreDir = dir
		p := must[*Publisher](t)(open(t, c).NewPublisher(t.Context(), "c"))
		for {
			publish(t, p, 1, bytes.Repeat([]byte("x"), 10_000))
			_, _ = os.Stdout.WriteString("stored\n")
		}
	}
	c := config(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilledServerKeepsWhatItAcknowledged$")
	cmd.Env = append(os.Environ(), "BUS_TEST_DIR="+c.StoreDir)
	out := must[io.ReadCloser](t)(cmd.StdoutPipe())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stored, buf := 0, make([]byte, 4096)
	for stored < 500 {
		n, err := out.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		stored += bytes.Count(buf[:n], []byte("stored\n"))
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(out)
	stored += bytes.Count(rest, []byte("stored\n"))
	_ = cmd.Wait()

	b := open(t, c)
	last := must[uint64](t)(b.LastEvent(t.Context()))
	if last < uint64(stored) {
		t.Fatalf("%d acknowledged, %d there", stored, last)
	}
	if p := must[*Publisher](t)(b.NewPublisher(t.Context(), "c")); p.Next() != int64(last)+1 {
		t.Errorf("next number %d after %d messages", p.Next(), last)
	}
}

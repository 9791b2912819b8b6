package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// stack is what no person should ever see of this program.
var stack = regexp.MustCompile(`(?m)^goroutine \d+ \[|^panic: |runtime error`)

// said holds a command's end to what it must say, and to no stack trace.
func said(t *testing.T, wantCode int, want string, args ...string) {
	t.Helper()
	out, errs, code := coc(t, args...)
	all := out + errs
	if code != wantCode || !strings.Contains(all, want) || stack.MatchString(all) {
		t.Errorf("coc %s ended with %d, want %d and %q in:\n%s", strings.Join(args, " "), code, wantCode, want, all)
	}
}

func file(t *testing.T, name string, content []byte) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(p, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestBadFilesGiveClearResults(t *testing.T) {
	data := t.TempDir()
	in := up(t, data, "--without", "host,processes,journal")
	imp := func(code int, want, format, path string) {
		t.Helper()
		said(t, code, want, "import", "--data", data, "--format", format, "--year", "2026", path)
	}
	line := "Mar  7 07:50:19 web1 sshd[2]: Failed password for root from 198.51.100.10 port 42978 ssh2"
	imp(0, "0 events", "sshd", file(t, "empty.log", nil))
	imp(1, "folder", "sshd", t.TempDir())
	imp(1, "no such file", "sshd", filepath.Join(data, "nothing.log"))
	imp(0, "2 events", "sshd", file(t, "crlf.log", []byte(line+"\r\n"+line+"1\r\n")))
	imp(0, "1 event from 1 line", "sshd", file(t, "nul.log", []byte("Mar  7 07:50:19 web1 sshd[3]: \x00\x00 NUL\n")))
	imp(0, "1 event from 1 line", "sshd", file(t, "latin1.log", []byte("Mar  7 07:50:19 web1 sshd[4]: caf\xe9 \xff\xfe\n")))
	long := append([]byte("Mar  7 07:50:19 web1 sshd[5]: "), bytes.Repeat([]byte("x"), 10<<20)...)
	imp(0, "1 event from 1 line", "sshd", file(t, "long.log", append(long, '\n')))
	imp(0, "2 events", "sshd", file(t, "noise.log", []byte("no syslog at all\n"+line+"2\n")))

	// JSON: what is refused is counted by reason; the rest is taken.
	good := `{"time":"2026-03-07T07:00:00Z","kind":"user","action":"login"}`
	bad := []string{
		strings.Repeat(`{"user":`, 1000) + `1` + strings.Repeat(`}`, 1000),
		`{"time":"2026-03-07T07:00:00Z","kind":"user","kind":"user","action":"login"}`,
		`{"time":"2026-03-07T07:00:00Z","kind":"user","action":"login","duration":1e999}`,
		`{"time":"1969-12-31T23:00:00Z","kind":"user","action":"login"}`,
		`{"time":"2262-12-31T23:00:00Z","kind":"user","action":"login"}`,
		"{\"time\":\"2026-03-07T07:00:00Z\",\"kind\":\"user\",\"action\":\"\xff\"}",
		`{"kind":"user","action":"login"}`, `[1,2`, `null`, `{`,
	}
	path := file(t, "bad.ndjson", []byte(good+"\n"+strings.Join(bad, "\n")+"\n"))
	out, errs, code := coc(t, "import", "--data", data, "--format", "json", path)
	if code != 0 || !strings.Contains(out+errs, fmt.Sprintf("1 event from %d lines", 1+len(bad))) || !strings.Contains(out+errs, "refused") || stack.MatchString(out+errs) {
		t.Errorf("an import of 1 good and %d bad lines ended with %d:\n%s%s", len(bad), code, out, errs)
	}

	// History of more than 400 days goes in whole.
	var b strings.Builder
	for day := range 900 {
		fmt.Fprintf(&b, `{"time":%q,"kind":"user","action":"login","tenant.id":"old"}`+"\n", time.Date(2021, 1, 1, 0, 0, 0, 0, time.UTC).AddDate(0, 0, day).Format(time.RFC3339))
	}
	imp(0, "900 events", "json", file(t, "old.ndjson", []byte(b.String())))
	if n := count(t, data, "SELECT count() FROM events WHERE tenant_id='old'"); n != 900 {
		t.Errorf("%d of 900 old events are stored", n)
	}
	said(t, 2, "Europe/Amsterdam", "import", "--data", data, "--format", "sshd", "--tz", "Nowhere/Land", path)
	said(t, 2, "format", "import", "--data", data, "--format", "nonsense", path)
	must(t, "ledger", "--data", data, "--check")
	if err := in.stop(); err != nil || stack.MatchString(in.out.String()) {
		t.Errorf("coc up ended with %v:\n%s", err, in.out)
	}
}

func TestBadRequestsAreRefusedWholeWithTheirItems(t *testing.T) {
	data := t.TempDir()
	up(t, data, "--without", "host,processes,journal")
	secret := strings.TrimSpace(must(t, "token", "new", "--data", data, "--role", "intake", "--source", "http", "--tenant-glob", "t*", "--expires", "1d"))
	i, err := readInstance(data)
	if err != nil {
		t.Fatal(err)
	}
	send := func(status int, want, contentType, body string) {
		t.Helper()
		req, err := http.NewRequest(http.MethodPost, i.URL+"/v1/events", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+secret)
		req.Header.Set("Content-Type", contentType)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != status || !strings.Contains(string(b), want) || stack.Match(b) {
			t.Errorf("%.60q: %d, want %d and %q in %s", body, resp.StatusCode, status, want, b)
		}
	}
	now := time.Now().UTC().Format(time.RFC3339)
	good := fmt.Sprintf(`{"time":%q,"kind":"user","action":"login","tenant.id":"t1"}`, now)
	send(202, `"accepted":1`, "application/x-ndjson", good)
	send(202, `"accepted":2`, "application/json", "["+good+","+good+"]")
	send(400, `"index":1`, "application/x-ndjson", good+"\n"+`{"kind":"user","tenant.id":"t1"}`+"\n"+good)
	send(400, "unknown_field", "application/x-ndjson", strings.Repeat(`{"user":`, 1000))
	send(400, "too_old", "application/x-ndjson", strings.ReplaceAll(good, now, "2020-01-01T00:00:00Z"))
	send(403, `"index":0`, "application/x-ndjson", strings.ReplaceAll(good, `"t1"`, `"other"`))
	send(202, `"accepted":1`, "application/cloudevents+json", fmt.Sprintf(`{"specversion":"1.0","id":"e1","source":"/app","type":"login","time":%q,"data":{"kind":"user","action":"login","tenant.id":"t1"}}`, now))
	eventually(t, 20*time.Second, "the four events are stored", func() bool { return count(t, data, "SELECT count() FROM events") == 4 })
	if n := count(t, data, "SELECT count() FROM events"); n != 4 {
		t.Errorf("%d events stored, 4 accepted: something of a refused request was kept", n)
	}
}

func TestWhatIsInTheWayIsNamed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	data := t.TempDir()
	said(t, 1, "--listen", "up", "--data", data, "--rules", "../../rules", "--listen", l.Addr().String())
	said(t, 1, "NATS", "up", "--data", data, "--rules", "../../rules", "--listen", "127.0.0.1:0", "--nats", "nats://127.0.0.1:1")
	said(t, 1, "ClickHouse", "up", "--data", data, "--rules", "../../rules", "--listen", "127.0.0.1:0", "--clickhouse", "http://127.0.0.1:1")
	said(t, 2, "--zone", "up", "--data", data, "--zone", "Nowhere/Land")
	said(t, 1, "--data", "up", "--data", "/dev/null/x", "--rules", "../../rules")
	said(t, 2, "unknown flag", "up", "--dta", data)
	said(t, 2, "coc help", "frobnicate")
	said(t, 1, "coc up", "findings", "--data", data)
	bad := file(t, "rule.yaml", []byte("id: a.b\ntitle: x\nclass: abuse\nseverity: low\nmatch: actoin == \"login\"\n"))
	said(t, 1, "rule.yaml:5:", "up", "--data", data, "--listen", "127.0.0.1:0", "--rules", filepath.Dir(bad))
	said(t, 1, "rule.yaml:5:", "rules", "check", filepath.Dir(bad))
	sources := file(t, "sources.yaml", []byte("sources:\n  - {name: x, kind: nonsense}\n"))
	said(t, 1, "sources.yaml:2:", "up", "--data", data, "--rules", "../../rules", "--sources", sources)

	cmd := exec.Command(program(t), "findings")
	cmd.Env = append(os.Environ(), "COC_NONSENSE=1")
	out, err := cmd.CombinedOutput()
	if err == nil || cmd.ProcessState.ExitCode() != 2 || !strings.Contains(string(out), "COC_NONSENSE") {
		t.Errorf("an unknown variable: %v %s", err, out)
	}
	cmd = exec.Command(program(t), "up", "--data", t.TempDir(), "--listen", "127.0.0.1:0", "--rules", "../../rules")
	cmd.Env = append(os.Environ(), envLibrary+"=/nonexistent/libchdb.so")
	out, _ = cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), "make build") || stack.Match(out) {
		t.Errorf("a missing library: exit %d %s", cmd.ProcessState.ExitCode(), out)
	}
}

func TestSecondUpOnTheSameDataIsRefused(t *testing.T) {
	data := t.TempDir()
	in := up(t, data, "--without", "host,processes,journal")
	said(t, 1, "another coc", "up", "--data", data, "--rules", "../../rules", "--listen", "127.0.0.1:0")
	if err := in.stop(); err != nil {
		t.Error(err)
	}
}

// On a full disk what was accepted stays, what is not is refused, and coc says
// what to do.
func TestFullDiskLosesNothingAccepted(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root may mount the small disk that this test fills")
	}
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=800m"); err != nil {
		t.Skipf("this machine does not let the test mount a small disk: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(disk, syscall.MNT_DETACH) })
	data := filepath.Join(disk, "data")
	in := up(t, data, "--without", "host,processes,journal")
	secret := strings.TrimSpace(must(t, "token", "new", "--data", data, "--role", "intake", "--source", "http", "--tenant-glob", "*", "--expires", "1d"))
	accepted := 0
	send := func() (status int, body string) {
		i, err := readInstance(data) // anew each time: after a restart the port is another
		if err != nil {
			t.Fatal(err)
		}
		line := fmt.Sprintf(`{"time":%q,"kind":"user","action":"login","tenant.id":"t1"}`, time.Now().UTC().Format(time.RFC3339))
		req, err := http.NewRequest(http.MethodPost, i.URL+"/v1/events", strings.NewReader(line))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+secret)
		// A refused event is offered again under its key, as senders do who want
		// each event once.
		req.Header.Set("Idempotency-Key", fmt.Sprintf("event-%d", accepted))
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return 0, err.Error()
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	if status, body := send(); status == 202 {
		accepted++
	} else {
		t.Fatalf("before the disk is full: %d %s", status, body)
	}
	filler, err := os.Create(filepath.Join(disk, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(filler, io.LimitReader(zeros{}, 1<<30)) // until the disk says no
	_ = filler.Close()
	refused := false
	eventually(t, 30*time.Second, "the full disk is told to the sender", func() bool {
		status, _ := send()
		if status == 202 {
			accepted++
		}
		refused = status == 429 || status == 503
		return refused
	})
	if err := os.Remove(filler.Name()); err != nil {
		t.Fatal(err)
	}
	last := ""
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("last answer %s\n%s", last, in.out)
		}
	})
	eventually(t, 60*time.Second, "events are taken again", func() bool {
		status, body := send()
		last = fmt.Sprint(status, " ", body)
		if status == 202 {
			accepted++
		}
		return status == 202
	})
	eventually(t, 60*time.Second, "all accepted events are stored", func() bool {
		return count(t, data, "SELECT count() FROM events") >= accepted
	})
	if n := count(t, data, "SELECT count() FROM events"); n != accepted {
		t.Errorf("%d events stored, %d accepted", n, accepted)
	}
	if stack.MatchString(in.out.String()) {
		t.Errorf("a stack trace:\n%s", in.out)
	}
	if err := in.stop(); err != nil {
		t.Error(err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

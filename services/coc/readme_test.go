package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// program builds the real binary once and returns its path; the ClickHouse
// library lies beside it, as make build leaves it.
func program(t testing.TB) string {
	t.Helper()
	dir, err := filepath.Abs("../../bin")
	if err != nil {
		t.Fatal(err)
	}
	lib := os.Getenv(envLibrary)
	if lib == "" {
		lib = filepath.Join(dir, "libchdb.so")
	}
	if _, err := os.Stat(lib); err != nil {
		t.Fatalf("the ClickHouse library is not at %s: run make build", lib)
	}
	builtOnce.Do(func() {
		tmp, err := os.MkdirTemp("", "coc-program-")
		if err != nil {
			builtErr = err
			return
		}
		builtPath = filepath.Join(tmp, "coc")
		build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", builtPath, ".") // as make build does
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		out, err := build.CombinedOutput()
		if err != nil {
			builtErr = fmt.Errorf("%w: %s", err, out)
			return
		}
		builtErr = os.Symlink(lib, filepath.Join(tmp, "libchdb.so"))
	})
	if builtErr != nil {
		t.Fatal(builtErr)
	}
	return builtPath
}

// instance is a running coc up.
type instance struct {
	t    testing.TB
	cmd  *exec.Cmd
	data string
	out  *output
	done chan error
}

// output collects what a running program says, for readers beside it.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// up starts the real program on a folder and waits until it is ready.
func up(t testing.TB, data string, args ...string) *instance {
	t.Helper()
	in := &instance{t: t, data: data, out: &output{}, done: make(chan error, 1)}
	in.cmd = exec.Command(program(t), append([]string{"up", "--data", data, "--listen", "127.0.0.1:0", "--rules", "../../rules"}, args...)...)
	in.cmd.Stdout, in.cmd.Stderr = in.out, in.out
	in.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	_ = os.Remove(filepath.Join(data, "instance.json")) // of an earlier run on this folder
	if err := in.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { in.done <- in.cmd.Wait() }()
	t.Cleanup(func() { _ = in.cmd.Process.Kill() })
	eventually(t, 60*time.Second, "coc up is ready", func() bool {
		select {
		case err := <-in.done:
			in.done <- err
			t.Fatalf("coc up ended: %v\n%s", err, in.out)
		default:
		}
		_, err := readInstance(data)
		return err == nil
	})
	return in
}

// stop asks it to end and returns how.
func (in *instance) stop() error {
	in.t.Helper()
	if err := in.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case err := <-in.done:
		return err
	case <-time.After(15 * time.Second):
		in.t.Fatalf("coc up did not end within 15 s of SIGTERM\n%s", in.out)
		return nil
	}
}

// kill ends it at once, as a crash would.
func (in *instance) kill() {
	_ = in.cmd.Process.Kill()
	<-in.done
}

// coc runs a command of the program and returns its outputs and exit code.
func coc(t testing.TB, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program(t), args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if ctx.Err() != nil {
		t.Fatalf("coc %s did not end\n%s%s", strings.Join(args, " "), out.String(), errs.String())
	}
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// must is coc that has to succeed.
func must(t testing.TB, args ...string) string {
	t.Helper()
	out, errs, code := coc(t, args...)
	if code != 0 {
		t.Fatalf("coc %s ended with %d\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	return out
}

// eventually waits for a condition of the running program. It polls, as the
// program is another process with a clock of its own.
func eventually(t testing.TB, within time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(within); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", within, what)
		}
	}
}

var fence = regexp.MustCompile("(?ms)^```(sh|yaml)\n(.*?)^```")

// block is a fenced block of the README with the text just before it.
type block struct{ kind, text, before string }

func blocks(t *testing.T) (list []block) {
	t.Helper()
	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	last := 0
	for _, m := range fence.FindAllStringSubmatchIndex(text, -1) {
		list = append(list, block{text[m[2]:m[3]], text[m[4]:m[5]], text[last:m[0]]})
		last = m[1]
	}
	return list
}

// The README's first quarter of an hour, typed by a test in a folder of its own:
// every command of every sh block in order, but for make, which runs this test.
func TestEveryCommandOfTheReadme(t *testing.T) {
	exe := program(t)
	work := t.TempDir()
	for _, d := range []string{"rules", "docs", "deploy"} {
		abs, err := filepath.Abs("../../" + d)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(abs, filepath.Join(work, d)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Dir(exe), filepath.Join(work, "bin")); err != nil {
		t.Fatal(err)
	}
	env := append(os.Environ(), "HOME="+work, "XDG_DATA_HOME=", "COC_LISTEN=127.0.0.1:0")
	start := func(args ...string) {
		cmd := exec.Command(filepath.Join(work, "bin/coc"), args...)
		cmd.Dir, cmd.Env = work, env
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Signal(syscall.SIGTERM)
			if err := cmd.Wait(); err != nil || t.Failed() {
				t.Logf("coc %v: %v\n%s", args, err, out.String())
			}
		})
	}
	ready := func(data string) {
		eventually(t, 60*time.Second, "coc up on "+data, func() bool { _, err := readInstance(data); return err == nil })
	}
	start("up") // what make run does
	ready(filepath.Join(work, ".local/share/coc"))

	var ran []string
	for _, b := range blocks(t) {
		if b.kind == "yaml" {
			m := regexp.MustCompile("as `([^`]+)`").FindStringSubmatch(b.before)
			if m == nil {
				continue
			}
			path := filepath.Join(work, m[1])
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(b.text), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		for line := range strings.Lines(b.text) {
			line = strings.TrimSpace(line)
			if line == "" || strings.HasPrefix(line, "#") || strings.HasPrefix(line, "make ") || strings.HasPrefix(line, "docker ") {
				continue
			}
			if cut, ok := strings.CutSuffix(line, " &"); ok {
				args := strings.Fields(strings.ReplaceAll(cut, "127.0.0.1:8485", "127.0.0.1:0"))[1:]
				start(args...)
				ready(filepath.Join(work, "demo"))
				continue
			}
			ran = append(ran, line)
			var out []byte
			// The demo's releases are made within three minutes of its import.
			eventually(t, 4*time.Minute, line+" shows figures", func() bool {
				ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
				defer cancel()
				cmd := exec.CommandContext(ctx, "sh", "-c", line)
				cmd.Dir, cmd.Env = work, env
				var err error
				if out, err = cmd.CombinedOutput(); err != nil {
					t.Fatalf("%s: %v\n%s", line, err, out)
				}
				return !strings.Contains(line, "coc usage") || strings.Contains(string(out), "LEFT OUT")
			})
			t.Logf("$ %s\n%s", line, out)
			expectOf(t, line, string(out))
		}
	}
	if len(ran) < 10 {
		t.Fatalf("only %d commands found in the README: %q", len(ran), ran)
	}
}

// expectOf holds what the README promises of a command's output.
func expectOf(t *testing.T, line, out string) {
	t.Helper()
	for part, want := range map[string]string{
		"coc findings --rule": "203.0.113.66",
		"coc sql":             "203.0.113.66",
		"rules test my-rules": "2",
		"coc tenants":         "imulated",
		"coc usage":           "imulated",
		"--class performance": "performance.window-slow",
	} {
		if strings.Contains(line, part) && !strings.Contains(out, want) {
			t.Errorf("%s does not show %q:\n%s", line, want, out)
		}
	}
}

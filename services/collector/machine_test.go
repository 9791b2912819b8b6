package collector

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencoc/coc/services/event"
)

func TestThisMachineIsMeasured(t *testing.T) {
	h := testHouse(t, "sources:\n  - kind: host\n    every: 1s\n    host: box\n    labels: {rack: r7}\n", nil)
	seen := map[string]event.Event{}
	eventually(t, "each probe has spoken", func() bool {
		if h.stored() == 0 {
			return false
		}
		for _, e := range h.events() {
			seen[e.Action] = e
		}
		return len(seen) >= 5 && seen["host_cpu"].Action != ""
	})
	for _, action := range []string{"host_cpu", "host_load", "host_memory", "host_disk", "host_uptime"} {
		e := seen[action]
		if e.Kind != kindSystem || e.HostName != "box" || e.Has&event.HasValue == 0 || e.Label("rack") != "r7" || e.Value < 0 {
			t.Errorf("%s: %s", action, event.AppendJSON(nil, &e))
		}
	}
	if e := seen["host_cpu"]; e.Value > 100 {
		t.Errorf("CPU at %v per cent", e.Value)
	}
	if e := seen["host_disk"]; e.Value > 100 || e.ResourceType != "disk" || !strings.HasPrefix(e.ResourceName, "/") || e.Bytes == 0 {
		t.Errorf("disk %s", event.AppendJSON(nil, &e))
	}
	if e := seen["host_memory"]; e.Value <= 0 || e.Value > 100 || e.Bytes == 0 {
		t.Errorf("memory %s", event.AppendJSON(nil, &e))
	}
}

func TestAProcessIsSeenToStartAndEnd(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("there is no /proc here")
	}
	h := testHouse(t, "sources:\n  - kind: processes\n    every: 1s\n    host: box\n", nil)
	eventually(t, "it says how it watches", func() bool {
		d := h.c.Status().Sources[0].Detail
		return strings.Contains(d, "netlink") || strings.Contains(d, "polling")
	})
	mark := fmt.Sprintf("%d", 1_000_000+rand.IntN(1_000_000))
	p := exec.Command("sleep", "0"+mark) // a number of seconds that no other test uses
	must(t, p.Start())
	var start, end event.Event
	look := func() bool {
		if h.stored() == 0 {
			return false
		}
		for _, e := range h.events() {
			if e.Has&event.HasPID == 0 || e.ProcessPID != int64(p.Process.Pid) {
				continue
			}
			switch e.Action {
			case "process_started":
				start = e
			case "process_exited":
				end = e
			}
		}
		return start.Action != ""
	}
	eventually(t, "its start is told", look)
	must(t, p.Process.Kill())
	_ = p.Wait()
	eventually(t, "its end is told", func() bool { return look() && end.Action != "" })
	if start.Kind != kindProcess || !strings.Contains(start.ProcessCommandLine, mark) || start.ProcessName != "sleep" || !strings.HasSuffix(start.ProcessExecutable, "sleep") && !strings.HasSuffix(start.ProcessExecutable, "coreutils") || start.UserName == "" || start.ProcessParent == "" || start.HostName != "box" {
		t.Errorf("start %s", event.AppendJSON(nil, &start))
	}
	if end.Has&event.HasDuration == 0 || end.ProcessCommandLine != start.ProcessCommandLine {
		t.Errorf("end %s", event.AppendJSON(nil, &end))
	}
}

func TestTheStatOfAProcess(t *testing.T) {
	f := func(text, name string, parent int, start uint64, ok bool) {
		t.Helper()
		n, p, s, good := parseStat([]byte(text))
		if n != name || p != parent || s != start || good != ok {
			t.Errorf("%q: %q %d %d %v", text, n, p, s, good)
		}
	}
	rest := " S 7 1 1 0 -1 4194560 1 1 1 1 1 1 1 1 20 0 1 0 4242 1 1"
	f("12 (sleep)"+rest, "sleep", 7, 4242, true)
	f("12 (a) (b) )"+rest, "a) (b) ", 7, 4242, true)
	f("12 (a\nb)"+rest, "a\ufffdb", 7, 4242, true)
	f("12 (sleep) S 7", "", 0, 0, false)
	f("", "", 0, 0, false)
	f(")(", "", 0, 0, false)
}

// fakeJournal puts a journalctl into the path that prints what follow holds, and
// then waits; probe is what it says when it is asked for one entry.
func fakeJournal(t *testing.T, probe, follow string) (args string) {
	t.Helper()
	dir := t.TempDir()
	args = filepath.Join(dir, "args")
	must(t, os.WriteFile(filepath.Join(dir, "follow"), []byte(follow), 0o600))
	script := "#!/bin/sh\ncase \"$*\" in *--lines=1*) " + probe + ";; esac\necho \"$*\" >> " + args + "\ncat " + filepath.Join(dir, "follow") + "\nexec sleep 600\n"
	must(t, os.WriteFile(filepath.Join(dir, "journalctl"), []byte(script), 0o700))
	t.Setenv("PATH", dir+":/usr/bin:/bin")
	return args
}

func journalLineOf(n int, message string) string {
	us := time.Now().UnixMicro() + int64(n)
	return fmt.Sprintf(`{"__CURSOR":"s=1;i=%d","__REALTIME_TIMESTAMP":"%d","_HOSTNAME":"box","SYSLOG_IDENTIFIER":"sshd","_COMM":"sshd-x","_PID":"77","_EXE":"/usr/sbin/sshd","PRIORITY":"6","_SYSTEMD_UNIT":"ssh.service","MESSAGE":%s}`+"\n", n, us, message)
}

const journalOnly = "sources:\n  - kind: journal\n    tenant: t1\n"

func TestTheJournalIsFollowedAndGoesOnAtItsCursor(t *testing.T) {
	lines := journalLineOf(1, `"Failed password for jan from 192.0.2.7 port 1 ssh2"`) +
		journalLineOf(2, `[72,105,255,33]`) +
		journalLineOf(3, `null`) +
		journalLineOf(4, `"message repeated 3 times: [ Failed password for jan from 192.0.2.7 port 1 ssh2]"`) +
		journalLineOf(5, `["two","values"]`) + "not JSON\n"
	args := fakeJournal(t, "exit 0", lines)
	h := testHouse(t, journalOnly, nil)
	eventually(t, "all entries are stored", func() bool { return h.stored() == 7 })
	events := h.events()
	logins := 0
	for _, e := range events {
		if e.HostName != "box" || e.ProcessName != "sshd" || e.ProcessPID != 77 || e.ProcessExecutable != "/usr/sbin/sshd" || e.Label("unit") != "ssh.service" || e.TenantID != "t1" {
			t.Errorf("entry %s", event.AppendJSON(nil, &e))
		}
		if e.Action == "login" {
			logins++
			if e.SourceIP != "192.0.2.7" || strings.Contains(e.Message, "jan") {
				t.Errorf("login %s", event.AppendJSON(nil, &e))
			}
		}
	}
	if logins != 4 || events[1].Message != "Hi\ufffd!" || events[1].Marks != "utf8:message" || events[6].Message != "two" {
		t.Errorf("%d logins, messages %q, %q", logins, events[1].Message, events[6].Message)
	}
	h.stop()
	h.start(journalOnly, nil)
	eventually(t, "journalctl is asked to go on", func() bool {
		said, err := os.ReadFile(args)
		return err == nil && strings.Contains(string(said), "--after-cursor=s=1;i=5") && strings.Contains(string(said), "--since=@")
	})
}

func TestAJournalThatCannotBeReadSaysWhatMendsIt(t *testing.T) {
	f := func(probe, want string) {
		t.Helper()
		fakeJournal(t, probe, "")
		h := testHouse(t, journalOnly, nil)
		eventually(t, "it says: "+want, func() bool {
			s := h.c.Status().Sources[0]
			return strings.Contains(s.Detail, want)
		})
		if err := h.c.Ready(); err != nil {
			t.Errorf("the collector is not ready: %v", err)
		}
		h.stop()
	}
	f(`echo "No journal files were opened due to insufficient permissions." >&2; exit 1`, "usermod -aG systemd-journal")
	f(`echo "No journal files were found." >&2; exit 0`, "mkdir -p /var/log/journal")
	f(`echo "broken" >&2; exit 3`, "broken")
	f(`echo "Hint: You are currently not seeing messages from other users and the system." >&2; exit 0`, "own messages only")
	t.Setenv("PATH", t.TempDir())
	h := testHouse(t, journalOnly, nil)
	eventually(t, "it is not installed", func() bool { return strings.Contains(h.c.Status().Sources[0].Detail, "not installed") })
}

func TestSourcesAreLeftOut(t *testing.T) {
	h := testHouse(t, "sources:\n  - kind: host\n  - kind: http\n", func(c *Config) { c.Without = []string{"host"} })
	s := h.c.Status().Sources[0]
	if s.State != sourceOff {
		t.Errorf("state %+v", s)
	}
	cfg := h.c.cfg
	cfg.Without = []string{"hots"}
	if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "hots") {
		t.Errorf("an unknown one: %v", err)
	}
}

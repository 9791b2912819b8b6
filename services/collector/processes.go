package collector

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/opencoc/coc/services/event"
)

const (
	// processesEvery is how often polling looks.
	processesEvery = 2 * time.Second
	// limitCommandLine bounds what is read of a command line; more is cut
	// anyway.
	limitCommandLine = 8 << 10
	// kernelThreads is the pid of kthreadd, their parent.
	kernelThreads = 2
	// limitUsers bounds the names of users remembered.
	limitUsers = 10_000
)

// startProcesses tells of processes that start and end: by the kernel's process
// connector where it may be used, else by looking every two seconds, which
// misses those that live shorter.
func startProcesses(c *Collector, s *sourceState) func(context.Context) error {
	return func(ctx context.Context) error {
		if _, err := os.Stat("/proc/self/stat"); err != nil {
			return &errAbsent{"there is no /proc on " + runtime.GOOS + ": processes are watched on Linux only"}
		}
		w := &processWatcher{s: s, host: hostName(s), pack: s.packer(), known: make(map[int]process), users: make(map[string]string), every: s.Every}
		if w.every == 0 {
			w.every = processesEvery
		}
		if _, err := w.scan(true); err != nil {
			return err
		}
		err := w.listen(ctx)
		if err == nil || ctx.Err() != nil {
			return ignoreEnd(ctx, err)
		}
		s.log.Warn("processes are watched by polling from here on, which misses shorter ones", "every", w.every, "reason", err)
		s.set(sourceRunning, fmt.Sprintf("polling /proc every %v, which misses shorter processes (%v)", w.every, err))
		return ignoreEnd(ctx, w.poll(ctx))
	}
}

// process is what is known of a running one.
type process struct {
	pid, parent int
	// start is the kernel's start time in ticks: with the pid it names a process,
	// as pids are used again.
	start               uint64
	began               int64 // Unix ms when it was seen
	name, path, command string
	user, parentName    string
}

// processWatcher tells starts and ends apart. One goroutine at a time.
type processWatcher struct {
	s     *sourceState
	host  string
	every time.Duration
	pack  *packer
	known map[int]process
	users map[string]string
	d     [1]draft
}

// poll compares what runs with what ran.
func (w *processWatcher) poll(ctx context.Context) error {
	tick := time.NewTicker(w.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		changes, err := w.scan(false)
		if err != nil {
			return err
		}
		for i := range changes {
			if err := w.tell(ctx, &changes[i]); err != nil {
				return err
			}
		}
		if err := w.pack.flush(ctx); err != nil {
			return err
		}
		w.s.idle()
	}
}

// change is a start or an end.
type change struct {
	process
	action string
	code   int // exit code; -1 unknown
}

// scan reads /proc. The first scan learns what runs and tells nothing.
func (w *processWatcher) scan(first bool) ([]change, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("watch processes: %w", err)
	}
	names, err := dir.Readdirnames(-1)
	dir.Close()
	if err != nil {
		return nil, fmt.Errorf("watch processes: %w", err)
	}
	var changes []change
	running := make(map[int]bool, len(names))
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || len(running) >= limitProcesses {
			continue
		}
		start, ok := startTime(pid)
		if !ok {
			continue
		}
		running[pid] = true
		old, had := w.known[pid]
		if had && old.start == start {
			continue
		}
		if had {
			changes = append(changes, change{old, "process_exited", -1})
			delete(w.known, pid)
		}
		p, ok := w.read(pid)
		if !ok {
			delete(running, pid)
			continue
		}
		w.known[pid] = p
		if !first {
			changes = append(changes, change{p, "process_started", 0})
		}
	}
	for pid, p := range w.known {
		if !running[pid] {
			changes = append(changes, change{p, "process_exited", -1})
			delete(w.known, pid)
		}
	}
	return changes, nil
}

// read learns a process; false when it has ended meanwhile.
func (w *processWatcher) read(pid int) (process, bool) {
	p := process{pid: pid, began: w.s.c.now()}
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return p, false
	}
	var ok bool
	if p.name, p.parent, p.start, ok = parseStat(stat); !ok {
		return p, false
	}
	dir := "/proc/" + strconv.Itoa(pid)
	if path, err := os.Readlink(dir + "/exe"); err == nil {
		p.path = strings.TrimSuffix(path, " (deleted)")
	}
	p.command = readCommandLine(dir + "/cmdline")
	if info, err := os.Stat(dir); err == nil {
		p.user = w.userOf(info)
	}
	if parent, had := w.known[p.parent]; had {
		p.parentName = parent.name
	} else if stat, err := os.ReadFile("/proc/" + strconv.Itoa(p.parent) + "/stat"); err == nil {
		p.parentName, _, _, _ = parseStat(stat)
	}
	return p, true
}

// readCommandLine joins the arguments by spaces.
func readCommandLine(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	buf := make([]byte, limitCommandLine)
	n, _ := f.Read(buf) // what cannot be read is empty: the process ended
	text := strings.TrimRight(string(buf[:n]), "\x00")
	return strings.ToValidUTF8(strings.ReplaceAll(text, "\x00", " "), "\ufffd")
}

// startTime returns when a process began, in ticks.
func startTime(pid int) (uint64, bool) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, false
	}
	_, _, start, ok := parseStat(stat)
	return start, ok
}

// parseStat reads name, parent and start time of /proc/<pid>/stat. The name
// stands in brackets and may hold brackets and spaces itself.
func parseStat(stat []byte) (name string, parent int, start uint64, ok bool) {
	text := string(stat)
	open, shut := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if open < 0 || shut < open {
		return "", 0, 0, false
	}
	f := strings.Fields(text[shut+1:])
	if len(f) < 20 {
		return "", 0, 0, false
	}
	parent, err1 := strconv.Atoi(f[1])
	start, err2 := strconv.ParseUint(f[19], 10, 64)
	return printable(strings.ToValidUTF8(text[open+1:shut], "\ufffd")), parent, start, err1 == nil && err2 == nil
}

// userOf names the owner of a process. Names are remembered: looking one up
// reads /etc/passwd or asks a server.
func (w *processWatcher) userOf(info os.FileInfo) string {
	uid, ok := ownerOf(info)
	if !ok {
		return ""
	}
	if name, ok := w.users[uid]; ok {
		return name
	}
	name := uid
	if u, err := user.LookupId(uid); err == nil {
		name = u.Username
	}
	if len(w.users) >= limitUsers {
		clear(w.users)
	}
	w.users[uid] = name
	return name
}

// tell hands a change over.
func (w *processWatcher) tell(ctx context.Context, c *change) error {
	if c.parent == kernelThreads || c.pid == kernelThreads {
		return nil // threads of the kernel come and go with its work
	}
	d := &w.d[0]
	*d = draft{Event: event.Event{Labels: d.Labels[:0]}, names: d.names[:0]}
	d.Time, d.HostName = w.s.c.now(), w.host
	d.what(kindProcess, c.action, success)
	d.SetPID(int64(c.pid))
	d.ProcessName, d.ProcessParent = c.name, c.parentName
	d.ProcessExecutable, d.ProcessCommandLine = c.path, c.command
	d.user(c.user)
	d.label("parent_pid", itoa(int64(c.parent)))
	if c.action == "process_exited" {
		d.SetDuration(float64(max(0, d.Time-c.began)))
		if c.code >= 0 {
			d.label("exit_code", itoa(int64(c.code)))
			if c.code != 0 {
				d.Outcome = failure
			}
		} else {
			d.Outcome = unknown
		}
	}
	for k, v := range w.s.Labels {
		d.label(k, v)
	}
	if err := d.Validate(event.Bounds{}); err != nil {
		// A name of control characters or the like: what can be said is said.
		d.ProcessName, d.ProcessParent, d.UserName = "", "", ""
		d.Mark("unparsed:process.name")
	}
	return w.pack.add(ctx, w.d[:], nil, nil, 0)
}

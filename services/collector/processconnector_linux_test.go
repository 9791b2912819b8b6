package collector

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// kernelSays is a datagram of the kernel about one process.
func kernelSays(what, pid, tgid, code uint32) []byte {
	b := make([]byte, 76)
	e := binary.NativeEndian
	e.PutUint32(b, uint32(len(b)))
	e.PutUint16(b[4:], unix.NLMSG_DONE)
	e.PutUint32(b[16:], cnIdxProc)
	e.PutUint32(b[20:], cnValProc)
	e.PutUint32(b[36:], what)
	e.PutUint32(b[52:], pid)
	e.PutUint32(b[56:], tgid)
	e.PutUint32(b[60:], code)
	return b
}

func TestProcessEventsAreReadFromTheKernelsBytes(t *testing.T) {
	start, end := kernelSays(procExec, 7, 7, 0), kernelSays(procExit, 8, 9, 256)
	got := appendProcEvents(nil, append(append([]byte{}, start...), end...))
	want := []procEvent{{false, 7, 7, 0}, {true, 8, 9, 256}}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := appendProcEvents(nil, kernelSays(1, 7, 7, 0)); len(got) != 0 {
		t.Errorf("a fork became %+v", got)
	}
	for n := range len(end) {
		if got := appendProcEvents(nil, end[:n]); len(got) != 0 {
			t.Errorf("%d bytes of a message became %+v", n, got)
		}
	}
}

// A second program that listens must not end this one's listening.
func TestTheConnectorOutlivesOtherSubscribers(t *testing.T) {
	c, err := openConnector()
	if err != nil {
		t.Skip("the connector may not be used here: ", err)
	}
	defer c.close()
	heard := func() bool {
		t.Helper()
		p := exec.Command("true")
		must(t, p.Run())
		for deadline := time.Now().Add(3 * time.Second); time.Now().Before(deadline); {
			events, err := c.next(nil)
			if err != nil && !errors.Is(err, errLost) {
				t.Fatal(err)
			}
			for _, e := range events {
				if e.exit && e.tgid == p.Process.Pid {
					return true
				}
			}
		}
		return false
	}
	if !heard() {
		t.Skip("the connector is silent in this namespace")
	}
	// As libraries ask: to the whole group.
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_CONNECTOR)
	must(t, err)
	defer unix.Close(fd)
	must(t, unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: cnIdxProc}))
	must(t, unix.Sendto(fd, listenRequest(), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: cnIdxProc}))
	if !heard() {
		t.Error("nothing is heard any more after another program subscribed")
	}
	other, err := openConnector()
	must(t, err)
	defer other.close()
	if !heard() {
		t.Error("nothing is heard any more after a second connector was opened")
	}
	if size, err := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUF); err != nil || size < 1<<20 {
		t.Errorf("the socket buffers %d bytes (%v)", size, err)
	}
}

// saidSource says what a test has it say.
type saidSource struct {
	mu    sync.Mutex
	queue []procBatch
}

func (s *saidSource) next(to []procEvent) ([]procEvent, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		time.Sleep(time.Millisecond) // as a read that waits
		return to, nil
	}
	b := s.queue[0]
	s.queue = s.queue[1:]
	return append(to, b.events...), b.err
}

func (s *saidSource) close() {}

func TestLostProcessEventsAreMadeGood(t *testing.T) {
	h := testHouse(t, "sources:\n  - kind: processes\n    every: 1h\n    host: box\n", nil)
	s := h.c.sources[0]
	watcher := func() *processWatcher {
		return &processWatcher{s: s, host: "box", pack: s.packer(), known: map[int]process{}, users: map[string]string{}, every: time.Second}
	}
	self := procBatch{events: []procEvent{{false, os.Getpid(), os.Getpid(), 0}}}
	gone := process{pid: 1<<22 + 1, start: 1, name: "ended-unheard", parent: 1}

	w := watcher()
	_, err := w.scan(true)
	must(t, err)
	w.known[gone.pid] = gone
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.follow(ctx, &saidSource{queue: []procBatch{self, {err: errLost}}}) }()
	eventually(t, "what was not heard is told", func() bool {
		if h.stored() == 0 {
			return false
		}
		for _, e := range h.events() {
			if e.Action == "process_exited" && e.ProcessName == gone.name {
				return true
			}
		}
		return false
	})
	cancel()
	if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("ended by %v", err)
	}

	// Who loses all the time gives up, saying why; so does who cannot read.
	f := func(want string, queue ...procBatch) {
		t.Helper()
		w := watcher()
		_, err := w.scan(true)
		must(t, err)
		if err := w.follow(t.Context(), &saidSource{queue: append([]procBatch{self}, queue...)}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	f("broken pipe", procBatch{err: errors.New("broken pipe")})
	var losses []procBatch
	for range lossesTolerated + 1 {
		losses = append(losses, procBatch{err: errLost})
	}
	f("given up", losses...)
}

package collector

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// What the process connector of the kernel speaks: linux/connector.h,
// linux/cn_proc.h and linux/netlink.h.
const (
	cnIdxProc    = 1 // the connector, and its multicast group
	cnValProc    = 1
	cnListen     = 1
	procExec     = 0x00000002
	procExit     = 0x80000000
	sizeNlHeader = 16
	sizeCnHeader = 20
	sizeProcHead = 16
	sizeListen   = sizeNlHeader + sizeCnHeader + 4
	// connectorBuffer holds about 30,000 starts and ends that nobody has read
	// yet, as a build of a large program makes them in a few seconds. The kernel
	// counts about 500 bytes each.
	connectorBuffer = 16 << 20
	// connectorWait is how long one read waits, so that an end is noticed.
	connectorWait = 250 * time.Millisecond
)

// procEvent is a start (of a program) or an end.
type procEvent struct {
	exit       bool
	pid, tgid  int
	exitStatus uint32
}

// errLost says that the kernel had more to say than the buffer held.
var errLost = errors.New("the kernel dropped process events because they were not read in time")

// connector is a socket of the kernel's process connector.
type connector struct {
	fd  int
	buf []byte
}

// openConnector subscribes. The request goes to the kernel alone: sent to the
// group, as libraries do, every other subscriber of the machine would get it
// too.
func openConnector() (*connector, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_CONNECTOR)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	c := &connector{fd: fd, buf: make([]byte, 64<<10)}
	if err := c.subscribe(); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *connector) subscribe() error {
	if err := unix.Bind(c.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: cnIdxProc}); err != nil {
		return os.NewSyscallError("bind", err)
	}
	// Beyond net.core.rmem_max only with CAP_NET_ADMIN; else as much as that
	// allows, which the kernel cuts to by itself.
	if unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, connectorBuffer) != nil {
		if err := unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, connectorBuffer); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	wait := unix.NsecToTimeval(connectorWait.Nanoseconds())
	if err := unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	if err := unix.Sendto(c.fd, listenRequest(), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("sendto", err)
	}
	return nil
}

func listenRequest() []byte {
	b := make([]byte, sizeListen)
	e := binary.NativeEndian
	e.PutUint32(b, sizeListen)
	e.PutUint16(b[4:], unix.NLMSG_DONE)
	e.PutUint32(b[sizeNlHeader:], cnIdxProc)
	e.PutUint32(b[sizeNlHeader+4:], cnValProc)
	e.PutUint16(b[sizeNlHeader+16:], 4)
	e.PutUint32(b[sizeNlHeader+sizeCnHeader:], cnListen)
	return b
}

func (c *connector) close() { unix.Close(c.fd) }

// next appends what came to to; nothing came within connectorWait is no error.
// After errLost it goes on; any other error ends it.
func (c *connector) next(to []procEvent) ([]procEvent, error) {
	n, from, err := unix.Recvfrom(c.fd, c.buf, 0)
	switch {
	case errors.Is(err, unix.ENOBUFS):
		return to, errLost
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return to, nil
	case err != nil:
		return to, fmt.Errorf("read process events: %w", err)
	}
	// Other subscribers' requests come here too when they send them to the
	// group. Only the kernel, whose port is 0, knows of processes.
	if k, ok := from.(*unix.SockaddrNetlink); !ok || k.Pid != 0 {
		return to, nil
	}
	return appendProcEvents(to, c.buf[:n]), nil
}

// appendProcEvents reads one datagram: netlink messages of connector messages of
// process events. What is cut short or of another kind is left out.
func appendProcEvents(to []procEvent, b []byte) []procEvent {
	e := binary.NativeEndian
	for len(b) >= sizeNlHeader {
		size := int(e.Uint32(b))
		if size < sizeNlHeader || size > len(b) {
			return to
		}
		m := b[sizeNlHeader:size]
		b = b[min(len(b), (size+3)&^3):]
		if len(m) < sizeCnHeader+sizeProcHead+8 || e.Uint32(m) != cnIdxProc || e.Uint32(m[4:]) != cnValProc {
			continue
		}
		m = m[sizeCnHeader:]
		what, body := e.Uint32(m), m[sizeProcHead:]
		ev := procEvent{pid: int(e.Uint32(body)), tgid: int(e.Uint32(body[4:]))}
		switch what {
		case procExec:
			to = append(to, ev)
		case procExit:
			if len(body) < 12 {
				continue
			}
			ev.exit, ev.exitStatus = true, e.Uint32(body[8:])
			to = append(to, ev)
		}
	}
	return to
}

package bus

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"
)

// Config says where the bus is. Zero values take the defaults named.
type Config struct {
	// URL of NATS, several separated by commas: nats://host:4222, tls://host.
	// Empty: a server inside this process.
	URL string
	// StoreDir is the embedded server's folder. Required without URL.
	StoreDir string
	// Listen is host:port on which the embedded server serves other
	// processes, empty for none. Port 0 takes a free one; see ClientURL.
	Listen string
	// Key encrypts the embedded server's files (at least 16 bytes). nil: off.
	Key []byte
	// Secret is what a process of the house presents. With URL it is sent;
	// with Listen it is demanded; without one a listener lets no such process
	// in. An intake token (IssueToken) is taken by a listener in any case, and
	// may only publish to its own source's subject.
	Secret string
	// Credentials is a NATS .creds file, with URL.
	Credentials string
	// CAFile, CertFile, KeyFile are PEM files: with URL the authority to trust
	// and this client's certificate, with Listen the server's own (and, with
	// CAFile, clients must show a certificate of it).
	CAFile, CertFile, KeyFile string
	// SyncAlways has the embedded server fsync each message instead of every
	// two minutes: a power cut then loses nothing, at the price of the disk's
	// latency per message.
	SyncAlways bool
	// Replicas of every stream: 1 (default), or 3 and 5 on a cluster.
	Replicas int
	// Bounds of the streams in bytes. 0: chosen at creation from the default
	// in limits.go and the disk, and kept from then on.
	EventsBytes, FindingsBytes, IntakeBytes, DeadLetterBytes, WorkBytes, AuditBytes, StateBytes int64
	// Name of this process in leases and connections. Default "coc".
	Name string
	Log  *slog.Logger
	// Now is the local clock. Default time.Now.
	Now func() time.Time

	// free reports the free bytes of the disk of StoreDir; for tests.
	free func(dir string) (int64, error)
}

// Validate fills in the defaults and refuses what would fail later.
func (c *Config) Validate() error {
	if c.Name == "" {
		c.Name = "coc"
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.free == nil {
		c.free = diskFree
	}
	if c.Replicas == 0 {
		c.Replicas = 1
	}
	switch {
	case c.Replicas != 1 && c.Replicas != 3 && c.Replicas != 5:
		return fmt.Errorf("bus: %d replicas: use 1, 3 or 5", c.Replicas)
	case c.URL == "" && c.StoreDir == "":
		return errors.New("bus: neither the URL of a NATS server nor a folder for the embedded one is given")
	case c.URL != "" && (c.Listen != "" || c.Key != nil):
		return errors.New("bus: a listen address and an encryption key belong to the embedded server; with a URL set them at that server")
	case c.URL == "" && c.Replicas != 1:
		return errors.New("bus: the embedded server is one node: it keeps 1 replica")
	case c.Key != nil && len(c.Key) < 16:
		return fmt.Errorf("bus: encryption key of %d bytes is too short: give at least 16 random bytes", len(c.Key))
	case (c.CertFile == "") != (c.KeyFile == ""):
		return errors.New("bus: a certificate and its key are given together or not at all")
	}
	for _, b := range []int64{c.EventsBytes, c.FindingsBytes, c.IntakeBytes, c.DeadLetterBytes, c.WorkBytes, c.AuditBytes, c.StateBytes} {
		if b < 0 || (b > 0 && b < 2*maxPayload) {
			return fmt.Errorf("bus: a stream bound of %d bytes holds less than two messages: give at least %d, or 0 for the default", b, 2*maxPayload)
		}
	}
	for _, f := range []string{c.Credentials, c.CAFile, c.CertFile, c.KeyFile} {
		if f == "" {
			continue
		}
		if _, err := os.Stat(f); err != nil {
			return fmt.Errorf("bus: cannot read %s: %w", f, err)
		}
	}
	return c.validateListen()
}

func (c *Config) validateListen() error {
	if c.Listen == "" {
		return nil
	}
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return fmt.Errorf("bus: listen address %q is not host:port: %w", c.Listen, err)
	}
	if !isLoopback(host) && c.CertFile == "" {
		c.Log.Warn("the bus listens without TLS beyond this machine: tokens and events travel readable", "listen", c.Listen)
	}
	return nil
}

func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

package bus

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
)

// embedded is the server inside this process, with its folder.
type embedded struct {
	srv      *natsserver.Server
	folder   *folder
	log      *serverLog
	auth     *gate
	password string // of this process's own connections, new at every start
}

// startServer takes the folder and starts a server on it. It returns when the
// stored streams are read.
func startServer(ctx context.Context, c Config) (*embedded, error) {
	f, err := takeFolder(c)
	if err != nil {
		return nil, err
	}
	e, err := runServer(ctx, c, f)
	if err != nil {
		f.unlock()
		return nil, err
	}
	return e, nil
}

func runServer(ctx context.Context, c Config, f *folder) (*embedded, error) {
	e := &embedded{folder: f, log: &serverLog{log: c.Log}, password: randomText()}
	e.auth = &gate{own: e.password, secret: c.Secret}
	opts, err := serverOptions(c, e.auth)
	if err != nil {
		return nil, err
	}
	if err := tryListen(c.Listen); err != nil {
		return nil, err
	}
	if e.srv, err = natsserver.NewServer(opts); err != nil {
		return nil, fmt.Errorf("bus: cannot start the embedded NATS server: %w", err)
	}
	e.srv.SetLoggerV2(e.log, false, false, false)
	go e.srv.Start()
	if err := e.waitReady(ctx); err != nil {
		e.srv.Shutdown()
		e.srv.WaitForShutdown()
		return nil, err
	}
	return e, nil
}

// waitReady waits until the server answers and has read its store.
func (e *embedded) waitReady(ctx context.Context) error {
	end := time.Now().Add(startTimeout)
	for !e.srv.ReadyForConnections(200 * time.Millisecond) {
		if text := e.log.fatalText(); text != "" {
			return fmt.Errorf("bus: the embedded NATS server did not start on %s: %s", e.folder.dir, text)
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("bus: start of the embedded NATS server was given up: %w", err)
		}
		if time.Now().After(end) {
			return fmt.Errorf("bus: the embedded NATS server on %s was not ready after %s: look at its log lines above", e.folder.dir, startTimeout)
		}
	}
	if text := e.log.fatalText(); text != "" || !e.srv.JetStreamEnabled() {
		return fmt.Errorf("bus: the embedded NATS server cannot use %s: %s", e.folder.dir, text)
	}
	return nil
}

// stop flushes the file store and ends the server, within ctx.
func (e *embedded) stop(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		e.srv.Shutdown()
		e.srv.WaitForShutdown()
		close(done)
	}()
	select {
	case <-done:
		e.folder.unlock()
		return nil
	case <-ctx.Done():
		// The lock stays with the process: the server still writes.
		return fmt.Errorf("bus: the embedded NATS server did not end in time: %w; what it acknowledged is on disk", ctx.Err())
	}
}

func serverOptions(c Config, auth *gate) (*natsserver.Options, error) {
	o := &natsserver.Options{
		ServerName: "coc-" + c.Name,
		NoSigs:     true,
		NoLog:      false,
		MaxPayload: maxPayload,
		DontListen: c.Listen == "",

		JetStream:              true,
		StoreDir:               c.StoreDir,
		SyncAlways:             c.SyncAlways,
		JetStreamMaxMemory:     serverMemory,
		JetStreamMaxStore:      1 << 60, // each stream has its own bound; see sizes in topology.go
		DisableJetStreamBanner: true,

		CustomClientAuthentication: auth,
	}
	if c.Key != nil {
		o.JetStreamKey = hex.EncodeToString(c.Key)
		o.JetStreamCipher = natsserver.AES // hardware has it; ChaCha costs twice as much here
	}
	if c.Listen == "" {
		return o, nil
	}
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return nil, fmt.Errorf("bus: listen address %q: %w", c.Listen, err)
	}
	o.Host = host
	if o.Port, err = strconv.Atoi(port); err != nil || o.Port < 0 || o.Port > 65535 {
		return nil, fmt.Errorf("bus: listen address %q has no port number", c.Listen)
	}
	if o.Port == 0 {
		o.Port = natsserver.RANDOM_PORT
	}
	if c.CertFile != "" {
		o.TLSConfig, err = natsserver.GenTLSConfig(&natsserver.TLSConfigOpts{
			CertFile: c.CertFile, KeyFile: c.KeyFile, CaFile: c.CAFile, Verify: c.CAFile != "",
		})
		if err != nil {
			return nil, fmt.Errorf("bus: certificate %s: %w", c.CertFile, err)
		}
		o.TLSConfig.MinVersion = tls.VersionTLS12
		o.TLS, o.TLSVerify, o.TLSTimeout = true, c.CAFile != "", 5
	}
	return o, nil
}

// tryListen finds out before the start whether the address is free, so that
// the error names it and the next step.
func tryListen(address string) error {
	if address == "" {
		return nil
	}
	l, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("bus: %s is in use by another process: stop it, or listen on another port", address)
	}
	if err != nil {
		return fmt.Errorf("bus: cannot listen on %s: %w", address, err)
	}
	return l.Close()
}

func processNote(pid string) string {
	if pid = strings.TrimSpace(pid); pid == "" {
		return ""
	}
	return " (" + pid + ")"
}

func randomText() string {
	b := make([]byte, 20)
	_, _ = rand.Read(b) // never fails: crypto/rand ends the process itself
	return hex.EncodeToString(b)
}

package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Bus is a connection to the house's JetStream, with the embedded server where
// there is one. Its methods may be called by many goroutines at once; the
// things it hands out (Publisher, Reader, Lane) belong to one goroutine each.
type Bus struct {
	cfg     Config
	server  *embedded // nil with a URL
	nc      *nats.Conn
	js      jetstream.JetStream
	streams map[string]jetstream.Stream // filled by the topology
	kvs     map[Bucket]*KV
	state   jetstream.ObjectStore
	tokens  tokenCacheMap
	clock   clock

	diskLow atomic.Bool // embedded only: writing stops before the disk is full
	swept   sync.Map    // lanes whose left-over checkpoints were removed

	purged     atomic.Pointer[PurgeState]
	nearlyFull atomic.Bool

	running context.Context // of the goroutines below; ends at Close
	stop    context.CancelFunc
	tasks   sync.WaitGroup
	closed  sync.Once
	closeE  error
}

// Open starts the embedded server or connects to the one given, applies the
// topology and measures the clock. It returns when JetStream answers. ctx
// bounds the opening only.
func Open(ctx context.Context, c Config) (*Bus, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	b := &Bus{cfg: c, kvs: map[Bucket]*KV{}, streams: map[string]jetstream.Stream{}, stop: func() {}}
	if c.URL == "" {
		server, err := startServer(ctx, c)
		if err != nil {
			return nil, err
		}
		b.server = server
	}
	if err := b.begin(ctx); err != nil {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		return nil, errors.Join(err, b.Close(closing))
	}
	return b, nil
}

func (b *Bus) begin(ctx context.Context) (err error) {
	if b.nc, err = b.dial(ctx, "main"); err != nil {
		return err
	}
	if b.js, err = jetstream.New(b.nc, jetstream.WithDefaultTimeout(requestTimeout)); err != nil {
		return fmt.Errorf("bus: cannot use JetStream: %w", err)
	}
	if err := b.waitJetStream(ctx); err != nil {
		return err
	}
	if err := b.checkRecovered(ctx); err != nil {
		return err
	}
	if err := b.applyTopology(ctx); err != nil {
		return err
	}
	if err := b.dropStaleLeases(ctx); err != nil {
		return err
	}
	if err := b.measureClock(ctx); err != nil {
		return err
	}
	b.running, b.stop = context.WithCancel(context.Background())
	b.tasks.Go(func() { b.every(b.running, clockEvery, b.remeasureClock) })
	if b.server != nil {
		verify := b.VerifyToken
		b.server.auth.verify.Store(&verify)
		b.tasks.Go(func() { b.every(b.running, diskEvery, b.watchDisk) })
	}
	return nil
}

// every calls fn each period until ctx ends.
func (b *Bus) every(ctx context.Context, period time.Duration, fn func(context.Context)) {
	t := time.NewTicker(period)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			fn(ctx)
		}
	}
}

// dial makes a connection. Readers have their own, so that a megabyte on its
// way to one reader never stands before an acknowledgement.
func (b *Bus) dial(ctx context.Context, purpose string) (*nats.Conn, error) {
	log := b.cfg.Log.With("connection", purpose)
	opts := []nats.Option{
		nats.Name(b.cfg.Name + " " + purpose),
		nats.CustomInboxPrefix("_HOUSE_" + randomText()),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(200 * time.Millisecond),
		nats.ReconnectJitter(200*time.Millisecond, time.Second),
		// A publish while disconnected is refused at once: kept in the client
		// it would be sent later, after its caller had decided otherwise.
		nats.ReconnectBufSize(-1),
		nats.Timeout(2 * time.Second),
		nats.DisconnectErrHandler(func(nc *nats.Conn, err error) {
			if err != nil && !nc.IsClosed() {
				log.Warn("the connection to NATS is lost; reconnecting", "error", err)
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) { log.Info("reconnected to NATS", "url", nc.ConnectedUrlRedacted()) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { log.Warn("nats", "error", err) }),
	}
	if b.server != nil {
		opts = append(opts, nats.InProcessServer(b.server.srv), nats.UserInfo(ownUser, b.server.password))
		nc, err := nats.Connect("", opts...)
		if err != nil {
			return nil, fmt.Errorf("bus: cannot connect to the embedded NATS server: %w", err)
		}
		return nc, nil
	}
	return b.dialRemote(ctx, append(opts, b.remoteOptions()...))
}

func (b *Bus) remoteOptions() []nats.Option {
	var opts []nats.Option
	if b.cfg.Secret != "" {
		opts = append(opts, nats.Token(b.cfg.Secret))
	}
	if b.cfg.Credentials != "" {
		opts = append(opts, nats.UserCredentials(b.cfg.Credentials))
	}
	if b.cfg.CAFile != "" {
		opts = append(opts, nats.RootCAs(b.cfg.CAFile))
	}
	if b.cfg.CertFile != "" {
		opts = append(opts, nats.ClientCert(b.cfg.CertFile, b.cfg.KeyFile))
	}
	return opts
}

func (b *Bus) dialRemote(ctx context.Context, opts []nats.Option) (*nats.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	var last error
	for {
		nc, err := nats.Connect(b.cfg.URL, opts...)
		if err == nil {
			return nc, nil
		}
		last = err
		if errors.Is(err, nats.ErrAuthorization) || errors.Is(err, nats.ErrAuthExpired) {
			return nil, fmt.Errorf("bus: NATS at %s does not let this process in: %w; check the secret, credentials or certificate", b.cfg.URL, err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("bus: NATS at %s cannot be reached: %w; start it, or check the address", b.cfg.URL, last)
		case <-time.After(300 * time.Millisecond):
		}
	}
}

// waitJetStream waits until JetStream answers: after a start of a cluster its
// leader is elected first.
func (b *Bus) waitJetStream(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	for {
		_, err := b.js.AccountInfo(ctx)
		if err == nil {
			return nil
		}
		if errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount) || errors.Is(err, jetstream.ErrJetStreamNotEnabled) {
			err = fmt.Errorf("%w: start nats-server with JetStream (-js) and allow it for this account", err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("bus: JetStream does not answer: %w", err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// checkRecovered refuses to go on without a stream that the folder holds: the
// server only warns about one it cannot read, and the topology would put an
// empty one in its place.
func (b *Bus) checkRecovered(ctx context.Context) error {
	if b.server == nil || len(b.server.folder.had) == 0 {
		return nil
	}
	var have []string
	lister := b.js.StreamNames(ctx)
	for name := range lister.Name() {
		have = append(have, name)
	}
	if err := lister.Err(); err != nil {
		return explain(err, "bus: cannot list the streams")
	}
	for _, name := range b.server.folder.had {
		if !slices.Contains(have, name) {
			return fmt.Errorf("bus: the stream %s in %s cannot be read (see the log lines above): restore the folder from a back-up, or move it away to start empty", name, b.cfg.StoreDir)
		}
	}
	return nil
}

// Close ends the background work and the connection, and flushes and ends the
// embedded server, within ctx (at most 8 s where it has no deadline). It may be
// called again.
func (b *Bus) Close(ctx context.Context) error {
	b.closed.Do(func() {
		ctx, cancel := context.WithTimeout(ctx, closeTimeout)
		defer cancel()
		b.stop()
		b.tasks.Wait()
		if b.nc != nil {
			_ = b.nc.FlushWithContext(ctx) // nothing unacknowledged is promised
			b.nc.Close()
		}
		if b.server != nil {
			b.closeE = b.server.stop(ctx)
		}
	})
	return b.closeE
}

// Healthy returns nil when JetStream answers and can be written to.
func (b *Bus) Healthy(ctx context.Context) error {
	if !b.nc.IsConnected() {
		return fmt.Errorf("bus: not connected to NATS (%s): %w", strings.ToLower(b.nc.Status().String()), ErrAway)
	}
	if b.server != nil && !b.server.srv.JetStreamEnabled() {
		return fmt.Errorf("bus: the embedded NATS server has stopped writing to %s (see its log lines): free disk space and restart", b.cfg.StoreDir)
	}
	if err := b.checkDisk(); err != nil {
		return err
	}
	if _, err := b.js.AccountInfo(ctx); err != nil {
		return explain(err, "bus: JetStream does not answer")
	}
	return nil
}

// ClientURL is the address of the embedded server's listener, "" when it has
// none.
func (b *Bus) ClientURL() string {
	if b.server == nil || b.cfg.Listen == "" {
		return ""
	}
	return b.server.srv.ClientURL()
}

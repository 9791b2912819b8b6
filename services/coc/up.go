package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencoc/coc/services/collector"
	"github.com/opencoc/coc/services/rule"
)

// UpCmd runs every role in one process.
type UpCmd struct {
	CommonFlags  `embed:""`
	BusFlags     `embed:""`
	StoreFlags   `embed:""`
	RulesFlags   `embed:""`
	SourcesFlags `embed:""`
	ListenFlags  `embed:""`
	NATSListen   string        `name:"nats-listen" env:"COC_NATS_LISTEN" placeholder:"ADDR" help:"Address on which the embedded NATS takes events on coc.intake.SOURCE from holders of an intake token (default: none)."`
	Keep         time.Duration `default:"1h" env:"COC_BUS_KEEP" placeholder:"DURATION" help:"How long the bus keeps what is done with (default: ${default})."`
}

// ListenFlags say where HTTP listens.
type ListenFlags struct {
	Listen string `default:"${listen}" env:"COC_LISTEN" placeholder:"ADDR" help:"Address of the API, health and metrics (default: ${default}; port 0 takes a free one)."`
}

// SourcesFlags say what is collected.
type SourcesFlags struct {
	Sources string   `env:"COC_SOURCES" placeholder:"FILE" help:"sources.yaml (default: this host, its processes and journal, HTTP and NATS)."`
	Without []string `env:"COC_WITHOUT" placeholder:"SOURCE" help:"Sources not to start, by name or kind, separated by commas (default: none)."`
}

// Run starts all roles, says where to look, and stops them at SIGTERM.
func (c *UpCmd) Run(g *Globals) (err error) {
	n, err := newNode(g, &c.CommonFlags)
	if err != nil {
		return err
	}
	set, err := c.RulesFlags.load(n.zone)
	if err != nil {
		return err
	}
	sources, err := c.SourcesFlags.load()
	if err != nil {
		return err
	}
	release, err := lockData(c.Data, "up")
	if err != nil {
		return err
	}
	defer release()
	if n.server, err = listen(c.Listen, n.log); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.stop()) }()
	n.startServer()
	if !isLoopback(n.server.listener.Addr().String()) {
		n.log.Warn("the API is open to other machines without TLS: tokens can be read on the way; put a TLS proxy before it", "listen", c.Listen)
	}
	if err := c.openServers(n); err != nil {
		return err
	}
	if err := c.startRoles(n, set, sources); err != nil {
		return err
	}
	token, err := n.localToken()
	if err != nil {
		return err
	}
	if err := writeInstance(c.Data, instanceFile{URL: n.server.url(), Token: token, PID: os.Getpid(), Version: version}); err != nil {
		return err
	}
	n.server.open.Store(true)
	n.log.Info("coc is up", "version", version, "url", n.server.url(), "data", c.Data, "rules", len(set.Rules()))
	c.greet(g, n, set)
	return n.wait()
}

func (c *UpCmd) openServers(n *node) error {
	bc, err := c.BusFlags.config(n.log, "coc-up")
	if err != nil {
		return err
	}
	if bc.URL == "" {
		if bc.StoreDir, err = c.dir("nats"); err != nil {
			return err
		}
		if bc.Key, err = n.key("bus"); err != nil {
			return err
		}
		bc.Listen = c.NATSListen
	} else if c.NATSListen != "" {
		return usageError{errors.New("--nats-listen is for the embedded NATS: leave it out, or leave --nats out")}
	}
	if err := n.openBus(bc); err != nil {
		return err
	}
	sc, err := c.StoreFlags.config(n.log, n.zone)
	if err != nil {
		return err
	}
	if sc.URL == "" {
		if sc.Dir, err = c.dir("clickhouse"); err != nil {
			return err
		}
		sc.Library = findLibrary()
	}
	return n.openStore(sc)
}

// startRoles starts them in the order of the flow backwards, so that whoever
// produces finds its consumer; they stop in the order of the flow.
func (c *UpCmd) startRoles(n *node, set *rule.Set, sources *collector.SourceSet) error {
	n.startPurge(c.Keep)
	sk, err := n.newSink()
	if err != nil {
		return err
	}
	eng, err := n.newEngine(set)
	if err != nil {
		return err
	}
	col, err := n.newCollector(sources, c.Without, n.through(eng, sk))
	if err != nil {
		return err
	}
	con, err := n.newConsole(set, consoleParts{engine: eng, collector: col, sink: sk})
	if err != nil {
		return err
	}
	st, err := n.newStats(col)
	if err != nil {
		return err
	}
	n.mount(con, col)
	n.registerMetrics(metricParts{engine: eng, collector: col, sink: sk, stats: st, console: con})
	n.start("stats", st.Run)
	n.start("sink", sk.Run)
	n.start("engine", eng.Run)
	// Events that come before the rules are in force are judged by none.
	if err := n.await(func() bool { return eng.Status().Running }); err != nil {
		return err
	}
	n.start("collector", col.Run)
	n.server.addCheck("publishing", func(context.Context) error { return col.Ready() })
	return nil
}

// greet says where to look and what to type next.
func (c *UpCmd) greet(g *Globals, n *node, set *rule.Set) {
	exe := "coc"
	if len(os.Args) > 0 && strings.Contains(os.Args[0], string(filepath.Separator)) {
		exe = os.Args[0]
	}
	data := ""
	if c.Data != defaultDataDir() {
		data = " --data " + c.Data
	}
	fmt.Fprintf(g.Stdout, `
coc %s is up and watches this machine with %d rules.

  API      %s   (health at /readyz, metrics at /metrics)
  data     %s

Next, in another terminal:

  %s tail%s                 live events of this machine
  %s findings%s             what the rules found
  %s import%s FILE          bring a log in
  %s help                   everything else

Stop with Ctrl-C; nothing that was accepted is lost.
`, version, len(set.Rules()), n.server.url(), c.Data, exe, data, exe, data, exe, data, exe)
}

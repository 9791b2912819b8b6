package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

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

// check refuses what is no address before anything is opened.
func (f *ListenFlags) check() error {
	return checkAddress("--listen", f.Listen, defaultListen)
}

func checkAddress(flag, addr, like string) error {
	_, port, err := net.SplitHostPort(addr)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return usageError{fmt.Errorf("%s %q is no address: write host and port, such as %s; port 0 takes a free one", flag, addr, like)}
	}
	return nil
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
	if err := c.ListenFlags.check(); err != nil {
		return err
	}
	if c.NATSListen != "" {
		if err := checkAddress("--nats-listen", c.NATSListen, "127.0.0.1:4222"); err != nil {
			return err
		}
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
	if err := writeInstance(c.Data, instanceFile{URL: localURL(n.server.url()), Token: token, PID: os.Getpid(), Version: version}); err != nil {
		return err
	}
	n.server.open.Store(true)
	n.log.Info("coc is up", "version", version, "url", n.server.url(), "data", c.Data, "rules", len(set.Rules()))
	fmt.Fprint(g.Stdout, greeting{program: os.Args[0], data: c.Data, url: localURL(n.server.url()), rules: len(set.Rules()), watches: c.watches(sources)}.text())
	return n.wait()
}

// localURL is how this machine reaches a server that listens on all addresses.
func localURL(server string) string {
	u, err := url.Parse(server)
	if err != nil {
		return server
	}
	if ip := net.ParseIP(u.Hostname()); ip != nil && ip.IsUnspecified() {
		u.Host = net.JoinHostPort("127.0.0.1", u.Port())
	}
	return u.String()
}

// watches says whether anything of this machine itself is read.
func (c *UpCmd) watches(set *collector.SourceSet) bool {
	return slices.ContainsFunc(set.Sources, func(s collector.Source) bool {
		return s.Kind != "http" && s.Kind != "nats" && !slices.Contains(c.Without, s.Name) && !slices.Contains(c.Without, s.Kind)
	})
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

// greeting says where to look and what to type next.
type greeting struct {
	program, data, url string
	rules              int
	watches            bool
}

func (b greeting) text() string {
	exe := "coc"
	if strings.Contains(b.program, string(filepath.Separator)) {
		exe = b.program
	}
	does := "takes in what is sent to it,"
	if b.watches {
		does = "watches this machine"
	}
	var s strings.Builder
	fmt.Fprintf(&s, `
coc %s is up and %s with %s.

  API      %s   (health at /readyz, metrics at /metrics)
  data     %s

Next, in another terminal:

`, version, does, plural(int64(b.rules), "rule", "rules"), b.url, b.data)
	data := dataFlag(b.data)
	next := [][2]string{
		{"tail" + data, "live events"},
		{"findings" + data, "what the rules found"},
		{"import" + data + " FILE", "bring a log in"},
		{"help", "everything else"},
	}
	width := 0
	for _, n := range next {
		width = max(width, utf8.RuneCountInString(n[0]))
	}
	for _, n := range next {
		fmt.Fprintf(&s, "  %s %-*s   %s\n", exe, width, n[0], n[1])
	}
	s.WriteString("\nStop with Ctrl-C; nothing that was accepted is lost.\n")
	return s.String()
}

// dataFlag is what a command needs to find the instance of a data folder: nothing
// for the default one.
func dataFlag(dir string) string {
	if dir == defaultDataDir() {
		return ""
	}
	if strings.ContainsFunc(dir, func(r rune) bool {
		return !strings.ContainsRune("/.-_+=:@,", r) && !unicode.IsLetter(r) && !unicode.IsDigit(r)
	}) {
		dir = "'" + strings.ReplaceAll(dir, "'", `'\''`) + "'"
	}
	return " --data " + dir
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencoc/coc/services/bus"
	"github.com/opencoc/coc/services/collector"
	"github.com/opencoc/coc/services/console"
	"github.com/opencoc/coc/services/engine"
	"github.com/opencoc/coc/services/rule"
	"github.com/opencoc/coc/services/sink"
	"github.com/opencoc/coc/services/stats"
	"github.com/opencoc/coc/services/store"
)

// statsEvery is how often closed days and touched days are looked for.
const statsEvery = time.Minute

func (f *SourcesFlags) load() (*collector.SourceSet, error) {
	set := collector.DefaultSources()
	if f.Sources != "" {
		var err error
		if set, err = loadSources(f.Sources); err != nil {
			return nil, err
		}
	}
	known := []string{"host", "processes", "journal", "logfile", "http", "nats"}
	for _, s := range set.Sources {
		if !slices.Contains(known, s.Name) {
			known = append(known, s.Name)
		}
	}
	for _, w := range f.Without {
		if !slices.Contains(known, w) {
			return nil, usageError{fmt.Errorf("--without %q: there is no source of that name or kind; there are %s", w, strings.Join(known, ", "))}
		}
	}
	return set, nil
}

// loadSources reads a sources.yaml and says once what is wrong.
func loadSources(path string) (*collector.SourceSet, error) {
	set, err := collector.LoadSources(path)
	if pe := (*fs.PathError)(nil); errors.As(err, &pe) {
		return nil, fmt.Errorf("cannot read the sources in %s: %w; give the path of a sources.yaml", safe(path), pe.Err)
	}
	if err != nil {
		return nil, fmt.Errorf("the sources in %s are not used:\n%w", safe(path), err)
	}
	return set, nil
}

// startPurge frees the bus of what every reader is done with.
func (n *node) startPurge(keep time.Duration) {
	n.start("purge", func(ctx context.Context) error { return n.bus.RunPurge(ctx, 0, keep) })
}

func (n *node) newSink() (*sink.Sink, error) {
	return sink.New(sink.Config{Bus: n.bus, Store: n.store, Log: n.log.With("role", "sink")})
}

func (n *node) newEngine(set *rule.Set) (*engine.Engine, error) {
	return engine.New(engine.Config{Bus: n.bus, Set: set, Log: n.log.With("role", "engine")})
}

func (n *node) newCollector(sources *collector.SourceSet, without []string, through func(context.Context) (collector.Positions, error)) (*collector.Collector, error) {
	dir, err := n.flags.dir("collector")
	if err != nil {
		return nil, err
	}
	key, err := n.key("identity")
	if err != nil {
		return nil, err
	}
	host, err := os.Hostname()
	if err != nil {
		host = "collector"
	}
	return collector.New(collector.Config{Bus: n.bus, ID: bus.NameFrom(host), StateDir: dir, IdentityKey: key,
		Sources: sources, Without: without, Zone: n.zone, Through: through, Log: n.log})
}

// through tells imports how far engine and sink of this process are: an import
// is through when its last message is judged and stored, and when what the
// engine found up to there is stored as well.
func (n *node) through(eng *engine.Engine, sk *sink.Sink) func(context.Context) (collector.Positions, error) {
	var mu sync.Mutex
	var judged, found, confirmed uint64 // when the engine stood at judged, FINDINGS ended at found
	return func(ctx context.Context) (collector.Positions, error) {
		mu.Lock()
		defer mu.Unlock()
		at := eng.Through()
		if judged == confirmed && at > confirmed {
			last, err := n.bus.LastFinding(ctx)
			if err != nil {
				return collector.Positions{}, err
			}
			judged, found = at, last
		}
		if judged > confirmed && sk.ThroughFindings() >= found {
			confirmed = judged
		}
		return collector.Positions{Engine: at, Sink: min(sk.Through(), confirmed)}, nil
	}
}

type consoleParts struct {
	engine    *engine.Engine
	collector *collector.Collector
	sink      *sink.Sink
}

// newConsole builds the API. In a process without an engine or a collector it
// says nothing about them.
func (n *node) newConsole(set *rule.Set, p consoleParts) (*console.Console, error) {
	meters, err := metersOf(set)
	if err != nil {
		return nil, err
	}
	return console.New(console.Config{Bus: n.bus, Store: n.store, Zone: n.zone, Version: version, Log: n.log.With("role", "console"),
		Allowances: func() []store.Meter { return meters }, Rules: describe(set), Status: n.status(p), Sources: p.sources(), EvaluatedThrough: p.evaluatedThrough()})
}

// describe gives the API the texts of the rules.
func describe(set *rule.Set) func(string) (console.RuleText, bool) {
	return func(id string) (console.RuleText, bool) {
		r := set.Rule(id)
		if r == nil {
			return console.RuleText{}, false
		}
		return console.RuleText{ID: r.ID, Kind: r.Kind, Title: r.Title, Description: r.Description, Response: r.Response,
			Owner: r.Owner, Tags: r.Tags, Match: r.Match, Condition: r.Condition,
			GroupBy: r.GroupBy, Window: span(r.Window), Suppress: span(r.Suppress), Logic: r.Logic}, true
	}
}

// span writes a length of time, nothing for none.
func span(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return d.String()
}

// status is what `GET /v1/status` tells of this process.
func (n *node) status(p consoleParts) func(context.Context) any {
	type answer struct {
		Version   string            `json:"version"`
		Engine    *engine.Status    `json:"engine,omitempty"`
		Sink      *sink.Status      `json:"sink,omitempty"`
		Collector *collector.Status `json:"collector,omitempty"`
		Store     *store.Info       `json:"store,omitempty"`
		Bus       []bus.StreamInfo  `json:"bus,omitempty"`
	}
	return func(ctx context.Context) any {
		a := answer{Version: version}
		if p.engine != nil {
			s := p.engine.Status()
			a.Engine = &s
		}
		if p.sink != nil {
			s := p.sink.Status()
			a.Sink = &s
		}
		if p.collector != nil {
			s := p.collector.Status()
			a.Collector = &s
		}
		if info, err := n.store.Info(ctx); err == nil { // /readyz says what is wrong with it
			a.Store = &info
		}
		if streams, err := n.bus.Info(ctx); err == nil {
			a.Bus = streams
		}
		return a
	}
}

func (p consoleParts) sources() func(context.Context) any {
	if p.collector == nil {
		return nil
	}
	return func(context.Context) any { return p.collector.Status().Sources }
}

func (p consoleParts) evaluatedThrough() func() int64 {
	if p.engine == nil {
		return nil
	}
	return func() int64 { return p.engine.Status().Totals.Horizon }
}

// metersOf turns the allowances of the rules into what the store measures.
func metersOf(set *rule.Set) ([]store.Meter, error) {
	var list []store.Meter
	for _, a := range set.Allowances() {
		m := store.Meter{Name: a.Name, Unit: a.Unit, Window: a.Meter.Window, Aggregate: a.Meter.Aggregate, Allowance: map[string]float64{"*": a.Default}}
		if a.Meter.Field != "" {
			m.Aggregate = a.Meter.Aggregate + "(" + a.Meter.Field + ")"
		}
		for tier, v := range a.Tiers {
			m.Allowance[tier] = v
		}
		for field, value := range a.Meter.Where {
			switch field {
			case "kind":
				m.Kind = value
			case "action":
				m.Action = value
			case "outcome":
				m.Outcome = value
			case "resource.type":
				m.ResourceType = value
			case "service.name":
				m.Service = value
			default:
				return nil, fmt.Errorf("allowance %s: its meter asks for %s, which the standing cannot filter by; use kind, action, outcome, resource.type or service.name", a.Name, field)
			}
		}
		list = append(list, m)
	}
	return list, nil
}

// newStats builds the statistics' loop. While an import runs in this process no
// day is released: half a day would stay half for ever. Elsewhere the sink's
// position and a quiet time hold it back.
func (n *node) newStats(col *collector.Collector) (*stats.Stats, error) {
	c := stats.Config{Store: n.store, Bus: n.bus, Zone: n.zone, Every: statsEvery, Log: n.log.With("role", "stats")}
	if col != nil {
		c.Busy = col.Importing
	}
	return stats.New(c)
}

// mount hangs the roles' handlers into the server.
func (n *node) mount(con *console.Console, col *collector.Collector) {
	if col != nil {
		n.server.mux.Handle("POST /v1/events", col.Intake())
	}
	if con == nil {
		return
	}
	if col != nil {
		guarded := con.Require(store.RoleOperator, store.RoleAdministrator)(col.Imports())
		n.server.mux.Handle("/v1/imports", guarded)
		n.server.mux.Handle("/v1/imports/", guarded)
	}
	n.server.mux.Handle("/", con.Handler())
	n.server.http.RegisterOnShutdown(con.Close) // open tails would hold the stop back
}

// RoleFlags are those of a process with one role.
type RoleFlags struct {
	CommonFlags `embed:""`
	BusFlags    `embed:""`
	ListenFlags `embed:""`
}

// prepare opens what a single role needs: the listener, the bus, and the store
// when it is asked for.
func (f *RoleFlags) prepare(g *Globals, name string, st *StoreFlags) (*node, error) {
	if f.NATS == "" {
		return nil, usageError{fmt.Errorf("coc %s needs the address of NATS: give --nats URL, or run everything with coc up", name)}
	}
	if st != nil && st.ClickHouse == "" {
		return nil, usageError{fmt.Errorf("coc %s needs the address of ClickHouse: give --clickhouse URL, or run everything with coc up", name)}
	}
	if err := f.ListenFlags.check(); err != nil {
		return nil, err
	}
	n, err := newNode(g, &f.CommonFlags)
	if err != nil {
		return nil, err
	}
	if n.server, err = listen(f.Listen, n.log); err != nil {
		return nil, err
	}
	n.startServer()
	bc, err := f.BusFlags.config(n.log, "coc-"+name)
	if err == nil {
		err = n.openBus(bc)
	}
	if err == nil && st != nil {
		var sc store.Config
		if sc, err = st.config(n.log, n.zone); err == nil {
			err = n.openStore(sc)
		}
	}
	if err != nil {
		return nil, errors.Join(err, n.stop())
	}
	return n, nil
}

// run says that the role is up and waits for the end.
func (n *node) run(name string) error {
	n.server.open.Store(true)
	n.log.Info("coc "+name+" is up", "version", version, "url", n.server.url())
	return errors.Join(n.wait(), n.stop())
}

// CollectorCmd runs the collector alone.
type CollectorCmd struct {
	RoleFlags    `embed:""`
	SourcesFlags `embed:""`
}

// Run collects until SIGTERM.
func (c *CollectorCmd) Run(g *Globals) error {
	sources, err := c.SourcesFlags.load()
	if err != nil {
		return err
	}
	release, err := lockData(c.Data, "collector")
	if err != nil {
		return err
	}
	defer release()
	n, err := c.prepare(g, "collector", nil)
	if err != nil {
		return err
	}
	col, err := n.newCollector(sources, c.Without, nil)
	if err != nil {
		return errors.Join(err, n.stop())
	}
	n.mount(nil, col)
	n.registerMetrics(metricParts{collector: col})
	n.start("collector", col.Run)
	n.server.addCheck("publishing", func(context.Context) error { return col.Ready() })
	return n.run("collector")
}

// EngineCmd runs the engine alone.
type EngineCmd struct {
	RoleFlags  `embed:""`
	RulesFlags `embed:""`
}

// Run evaluates until SIGTERM.
func (c *EngineCmd) Run(g *Globals) error {
	zone, err := c.zone()
	if err != nil {
		return err
	}
	set, err := c.RulesFlags.load(zone)
	if err != nil {
		return err
	}
	n, err := c.prepare(g, "engine", nil)
	if err != nil {
		return err
	}
	eng, err := n.newEngine(set)
	if err != nil {
		return errors.Join(err, n.stop())
	}
	n.registerMetrics(metricParts{engine: eng})
	n.start("engine", eng.Run)
	return n.run("engine")
}

// SinkCmd runs the sink alone.
type SinkCmd struct {
	RoleFlags  `embed:""`
	StoreFlags `embed:""`
	Keep       time.Duration `default:"1h" env:"COC_BUS_KEEP" placeholder:"DURATION" help:"How long the bus keeps what is done with (default: ${default})."`
}

// Run stores until SIGTERM. It also frees the bus, since it is the last reader.
func (c *SinkCmd) Run(g *Globals) error {
	n, err := c.prepare(g, "sink", &c.StoreFlags)
	if err != nil {
		return err
	}
	sk, err := n.newSink()
	if err != nil {
		return errors.Join(err, n.stop())
	}
	n.registerMetrics(metricParts{sink: sk})
	n.startPurge(c.Keep)
	n.start("sink", sk.Run)
	return n.run("sink")
}

// StatsRunCmd runs the statistics alone.
type StatsRunCmd struct {
	RoleFlags  `embed:""`
	StoreFlags `embed:""`
}

// Run makes reports and releases until SIGTERM.
func (c *StatsRunCmd) Run(g *Globals) error {
	n, err := c.prepare(g, "stats", &c.StoreFlags)
	if err != nil {
		return err
	}
	st, err := n.newStats(nil)
	if err != nil {
		return errors.Join(err, n.stop())
	}
	n.registerMetrics(metricParts{stats: st})
	n.start("stats", st.Run)
	return n.run("stats")
}

// ConsoleCmd runs the API alone.
type ConsoleCmd struct {
	RoleFlags  `embed:""`
	StoreFlags `embed:""`
	RulesFlags `embed:""`
}

// Run answers until SIGTERM. Like coc up it leaves a token for local commands.
func (c *ConsoleCmd) Run(g *Globals) error {
	zone, err := c.zone()
	if err != nil {
		return err
	}
	set, err := c.RulesFlags.load(zone)
	if err != nil {
		return err
	}
	release, err := lockData(c.Data, "console")
	if err != nil {
		return err
	}
	defer release()
	n, err := c.prepare(g, "console", &c.StoreFlags)
	if err != nil {
		return err
	}
	con, err := n.newConsole(set, consoleParts{})
	if err != nil {
		return errors.Join(err, n.stop())
	}
	n.mount(con, nil)
	n.registerMetrics(metricParts{console: con})
	token, err := n.localToken()
	if err == nil {
		err = writeInstance(c.Data, instanceFile{URL: localURL(n.server.url()), Token: token, PID: os.Getpid(), Version: version})
	}
	if err != nil {
		return errors.Join(err, n.stop())
	}
	return n.run("console")
}

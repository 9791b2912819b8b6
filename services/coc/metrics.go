package main

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/opencoc/coc/services/collector"
	"github.com/opencoc/coc/services/console"
	"github.com/opencoc/coc/services/engine"
	"github.com/opencoc/coc/services/sink"
	"github.com/opencoc/coc/services/stats"
)

// metricParts are the roles whose figures a process shows; nil for those that
// it does not run.
type metricParts struct {
	engine    *engine.Engine
	collector *collector.Collector
	sink      *sink.Sink
	stats     *stats.Stats
	console   *console.Console
}

// scrapeTimeout bounds what a scrape asks of bus and store.
const scrapeTimeout = 3 * time.Second

func (n *node) registerMetrics(p metricParts) {
	r := n.server.registry
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	r.MustRegister(&snapshots{node: n, parts: p})
	if p.collector != nil {
		r.MustRegister(p.collector.Metrics())
	}
	if p.console != nil {
		r.MustRegister(p.console.Metrics())
	}
}

// snapshots turns what the roles report about themselves into metrics at the
// moment of a scrape: nothing is counted twice, nothing is kept.
type snapshots struct {
	node  *node
	parts metricParts
}

// Describe sends nothing: the metrics depend on the rules and tables there are.
func (s *snapshots) Describe(chan<- *prometheus.Desc) {}

type emit func(name, help string, kind prometheus.ValueType, value float64, labels ...string)

// Collect asks each role once.
func (s *snapshots) Collect(out chan<- prometheus.Metric) {
	e := func(name, help string, kind prometheus.ValueType, value float64, labels ...string) {
		var names, values []string
		for i := 0; i+1 < len(labels); i += 2 {
			names, values = append(names, labels[i]), append(values, labels[i+1])
		}
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, names, nil), kind, value, values...)
	}
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	e("coc_build_info", "1, with the version of this program.", prometheus.GaugeValue, 1, "version", version)
	s.bus(ctx, e)
	s.store(ctx, e)
	s.engine(e)
	s.sink(e)
	s.stats(e)
}

func (s *snapshots) bus(ctx context.Context, e emit) {
	if s.node.bus == nil {
		return
	}
	e("coc_bus_clock_offset_seconds", "The bus's clock less ours.", prometheus.GaugeValue, s.node.bus.Offset().Seconds())
	streams, err := s.node.bus.Info(ctx)
	up := 1.0
	if err != nil {
		up = 0
	}
	e("coc_bus_up", "1 when the bus answered this scrape.", prometheus.GaugeValue, up)
	for _, st := range streams {
		e("coc_bus_stream_messages", "Messages a stream holds.", prometheus.GaugeValue, float64(st.Messages), "stream", st.Name)
		e("coc_bus_stream_bytes", "Bytes a stream holds.", prometheus.GaugeValue, float64(st.Bytes), "stream", st.Name)
		e("coc_bus_stream_max_bytes", "Bytes a stream may hold before it refuses.", prometheus.GaugeValue, float64(st.MaxBytes), "stream", st.Name)
		e("coc_bus_stream_last_sequence", "Sequence of a stream's last message.", prometheus.CounterValue, float64(st.LastSeq), "stream", st.Name)
	}
}

func (s *snapshots) store(ctx context.Context, e emit) {
	if s.node.store == nil {
		return
	}
	info, err := s.node.store.Info(ctx)
	if err != nil {
		e("coc_store_up", "1 when ClickHouse answered this scrape.", prometheus.GaugeValue, 0)
		return
	}
	e("coc_store_up", "1 when ClickHouse answered this scrape.", prometheus.GaugeValue, 1)
	e("coc_store_memory_bytes", "Memory that ClickHouse accounts for.", prometheus.GaugeValue, float64(info.MemoryBytes))
	e("coc_store_disk_free_bytes", "Free bytes where ClickHouse keeps its data.", prometheus.GaugeValue, float64(info.DiskFreeBytes))
	for _, t := range info.Tables {
		e("coc_store_table_rows", "Rows of a table.", prometheus.GaugeValue, float64(t.Rows), "table", t.Name)
		e("coc_store_table_bytes", "Bytes of a table on disk.", prometheus.GaugeValue, float64(t.Bytes), "table", t.Name)
		e("coc_store_table_parts", "Active parts of a table.", prometheus.GaugeValue, float64(t.Parts), "table", t.Name)
	}
}

func (s *snapshots) engine(e emit) {
	if s.parts.engine == nil {
		return
	}
	st := s.parts.engine.Status()
	e("coc_engine_through_sequence", "Sequence of EVENTS up to which all findings are out.", prometheus.GaugeValue, float64(st.Through))
	e("coc_engine_pending_messages", "Messages of EVENTS not evaluated yet.", prometheus.GaugeValue, float64(st.Pending))
	e("coc_engine_events_total", "Events evaluated.", prometheus.CounterValue, float64(st.Totals.Events))
	e("coc_engine_keys", "Keys with window state.", prometheus.GaugeValue, float64(st.Totals.Keys))
	e("coc_engine_window_bytes", "Memory of the windows.", prometheus.GaugeValue, float64(st.Totals.MemoryBytes))
	e("coc_engine_horizon_timestamp_seconds", "Event time before which events come too late to be judged.", prometheus.GaugeValue, float64(st.Totals.Horizon)/1000)
	for _, r := range st.Rules {
		c := func(name, help string, v int64) {
			e("coc_rule_"+name+"_total", help, prometheus.CounterValue, float64(v), "rule", r.Rule)
		}
		c("matches", "Events that matched a rule.", r.Matches)
		c("findings", "Findings a rule opened.", r.Findings)
		c("suppressed", "Firings folded into an open finding.", r.Suppressed)
		c("withdrawn", "Findings withdrawn for a straggler.", r.Withdrawn)
		c("late", "Events that came too late to be judged.", r.Late)
		c("evicted", "Keys whose window was given up for its bound.", r.Evicted)
		c("errors", "Run-time errors of a rule's expressions.", r.Errors)
	}
}

func (s *snapshots) sink(e emit) {
	if s.parts.sink == nil {
		return
	}
	st := s.parts.sink.Status()
	for stream, p := range map[string]sink.Progress{"events": st.Events, "findings": st.Findings, "work": st.Work} {
		e("coc_sink_through_sequence", "Sequence of a stream through which all is in ClickHouse.", prometheus.GaugeValue, float64(p.Through), "stream", stream)
		e("coc_sink_pending_messages", "Messages of a stream not stored yet.", prometheus.GaugeValue, float64(p.Pending), "stream", stream)
		e("coc_sink_rows_total", "Rows stored.", prometheus.CounterValue, float64(p.Rows), "stream", stream)
		e("coc_sink_cuts_total", "Inserts made.", prometheus.CounterValue, float64(p.Cuts), "stream", stream)
		e("coc_sink_dead_letters_total", "Messages that could not be stored and are kept as dead letters.", prometheus.CounterValue, float64(p.DeadLettered), "stream", stream)
		e("coc_sink_retries_total", "Inserts tried again.", prometheus.CounterValue, float64(p.Retries), "stream", stream)
	}
}

func (s *snapshots) stats(e emit) {
	if s.parts.stats == nil {
		return
	}
	st := s.parts.stats.Status()
	e("coc_stats_passes_total", "Passes of the statistics.", prometheus.CounterValue, float64(st.Passes))
	e("coc_stats_released_days_total", "Days released by this process.", prometheus.CounterValue, float64(st.Released))
	e("coc_stats_failures_total", "Passes that failed and were repeated.", prometheus.CounterValue, float64(st.Failures))
}

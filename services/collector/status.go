package collector

import (
	"maps"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/opencoc/coc/services/event"
)

// Status is what a collector does, at one moment.
type Status struct {
	ID string `json:"id"`
	// Epoch and Next number the next event.
	Epoch int64 `json:"epoch"`
	Next  int64 `json:"next"`
	// Mark is the low-water mark last sent, Now the bus's clock.
	Mark event.Stamp `json:"mark,omitzero"`
	Now  event.Stamp `json:"now"`
	// State is publishing, bus full, bus away, starting or stopped.
	State string `json:"state"`
	// Waiting is how many events are accepted and not yet on the bus.
	Waiting int64 `json:"waiting"`
	// Stored events in Messages of together Bytes, since the start.
	Stored     int64       `json:"stored"`
	Messages   int64       `json:"messages"`
	Bytes      int64       `json:"bytes"`
	LastStored event.Stamp `json:"last_stored,omitzero"`
	LastError  string      `json:"last_error,omitempty"`
	// Unsealed is how many names of failed logins were too many to be kept.
	Unsealed int64          `json:"unsealed"`
	Sources  []SourceStatus `json:"sources"`
}

// SourceStatus is what one source does.
type SourceStatus struct {
	Name   string `json:"name"`
	Kind   string `json:"kind"`
	Path   string `json:"path,omitempty"`
	Format string `json:"format,omitempty"`
	// State is running, waiting, failed or off; Detail what it uses, or why not,
	// with what mends it.
	State  string `json:"state"`
	Detail string `json:"detail,omitempty"`
	// Events on the bus since the start; Refused by reason.
	Events  int64            `json:"events"`
	Refused map[string]int64 `json:"refused,omitempty"`
	// Secrets and Cut count fields changed; Unknown lines nobody understood.
	Secrets   int64       `json:"secrets"`
	Cut       int64       `json:"cut"`
	Unknown   int64       `json:"unknown"`
	LastEvent event.Stamp `json:"last_event,omitzero"`
	Progress  event.Stamp `json:"progress,omitzero"`
	// Quiet: longer than its expected interval without an event.
	Quiet    bool  `json:"quiet"`
	Restarts int64 `json:"restarts"`
}

// Status returns a snapshot.
func (c *Collector) Status() Status {
	b := c.batch
	state, lastErr := b.status()
	s := Status{
		ID: c.cfg.ID, Epoch: b.epoch.Load(), Next: b.next.Load(), Mark: event.Stamp(b.lastMarkShown.Load()), Now: event.Stamp(c.now()),
		State: state, Waiting: b.waiting.Load(), Stored: b.rows.Load(), Messages: b.messages.Load(), Bytes: b.bytes.Load(),
		LastStored: event.Stamp(b.lastStored.Load()), LastError: lastErr, Unsealed: c.seal.unsealed.Load(),
	}
	for _, st := range c.sources {
		s.Sources = append(s.Sources, st.status(int64(s.Now)))
	}
	return s
}

func (s *sourceState) status(now int64) SourceStatus {
	progress, _ := s.progress(now)
	out := SourceStatus{
		Name: s.Name, Kind: s.Kind, Path: s.Path, Format: s.Format,
		Events: s.events.Load(), Secrets: s.secrets.Load(), Cut: s.cut.Load(), Unknown: s.unknown.Load(),
		LastEvent: event.Stamp(s.lastEvent.Load()), Progress: event.Stamp(progress), Restarts: s.restarts.Load(),
	}
	s.mu.Lock()
	out.State, out.Detail, out.Refused = s.state, s.detail, maps.Clone(s.refused)
	s.mu.Unlock()
	if s.Expect > 0 && out.State != sourceOff {
		last := max(s.lastArrival.Load(), s.began.Load())
		out.Quiet = last != 0 && time.Duration(now-last)*time.Millisecond > s.Expect
	}
	return out
}

// metrics shows a collector's status to Prometheus.
type metrics struct{ c *Collector }

// Metrics returns what /metrics shows of this collector.
func (c *Collector) Metrics() prometheus.Collector { return metrics{c} }

var (
	metricStored   = prometheus.NewDesc("coc_collector_events_total", "Events stored on the bus, by source.", []string{"source", "kind"}, nil)
	metricRefused  = prometheus.NewDesc("coc_collector_refused_total", "Events refused, by source and reason.", []string{"source", "reason"}, nil)
	metricSecrets  = prometheus.NewDesc("coc_collector_secrets_cut_total", "Fields from which a secret was cut, by source.", []string{"source"}, nil)
	metricCut      = prometheus.NewDesc("coc_collector_texts_cut_total", "Texts shortened to their limit, by source.", []string{"source"}, nil)
	metricUnknown  = prometheus.NewDesc("coc_collector_lines_unknown_total", "Lines that nobody understood, kept as log_line, by source.", []string{"source"}, nil)
	metricRunning  = prometheus.NewDesc("coc_collector_source_running", "1 while the source runs.", []string{"source", "kind"}, nil)
	metricQuiet    = prometheus.NewDesc("coc_collector_source_quiet", "1 while the source is silent for longer than it should be.", []string{"source"}, nil)
	metricRestarts = prometheus.NewDesc("coc_collector_source_restarts_total", "Times the source was started again.", []string{"source"}, nil)
	metricWaiting  = prometheus.NewDesc("coc_collector_waiting_events", "Events accepted and not yet on the bus.", nil, nil)
	metricMessages = prometheus.NewDesc("coc_collector_messages_total", "Messages stored on the bus.", nil, nil)
	metricBytes    = prometheus.NewDesc("coc_collector_message_bytes_total", "Bytes of these messages.", nil, nil)
	metricMark     = prometheus.NewDesc("coc_collector_low_water_mark_seconds", "Low-water mark last sent, Unix seconds.", nil, nil)
	metricOK       = prometheus.NewDesc("coc_collector_publishing", "1 while events reach the bus.", nil, nil)
	metricUnsealed = prometheus.NewDesc("coc_collector_names_unsealed_total", "Names of failed logins that were too many to be kept sealed.", nil, nil)
)

// Describe implements prometheus.Collector.
func (m metrics) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, ch) }

// Collect implements prometheus.Collector.
func (m metrics) Collect(ch chan<- prometheus.Metric) {
	s := m.c.Status()
	counter := func(d *prometheus.Desc, v int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	truth := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	for _, src := range s.Sources {
		counter(metricStored, src.Events, src.Name, src.Kind)
		for reason, n := range src.Refused {
			counter(metricRefused, n, src.Name, reason)
		}
		counter(metricSecrets, src.Secrets, src.Name)
		counter(metricCut, src.Cut, src.Name)
		counter(metricUnknown, src.Unknown, src.Name)
		counter(metricRestarts, src.Restarts, src.Name)
		gauge(metricRunning, truth(src.State == sourceRunning), src.Name, src.Kind)
		gauge(metricQuiet, truth(src.Quiet), src.Name)
	}
	gauge(metricWaiting, float64(s.Waiting))
	counter(metricMessages, s.Messages)
	counter(metricBytes, s.Bytes)
	gauge(metricMark, float64(s.Mark)/1000)
	gauge(metricOK, truth(s.State == statePublishing))
	counter(metricUnsealed, s.Unsealed)
}

var _ prometheus.Collector = metrics{}

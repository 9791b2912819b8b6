package console

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts what the API did, by operation: their number is fixed.
type metrics struct {
	answers *prometheus.CounterVec
	denied  *prometheus.CounterVec
	dropped prometheus.Counter
	tails   prometheus.Gauge
}

func newMetrics() metrics {
	return metrics{
		answers: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "coc_console_answers_total", Help: "Answers of the API, by operation and HTTP status."}, []string{"operation", "status"}),
		denied:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "coc_console_denied_total", Help: "Requests not let in, by HTTP status: 401 no or a wrong token, 403 not this role's, 429 too many."}, []string{"status"}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{Name: "coc_console_tail_dropped_events_total", Help: "Events left out of tails whose clients read too slowly."}),
		tails:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "coc_console_tails", Help: "Open tails."}),
	}
}

// Metrics are to be registered with the process' registry.
func (c *Console) Metrics() prometheus.Collector { return &c.metrics }

// Describe lists what is collected.
func (m *metrics) Describe(out chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, out) }

// Collect gives the counts.
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	for _, c := range []prometheus.Collector{m.answers, m.denied, m.dropped, m.tails} {
		c.Collect(out)
	}
}

func (m *metrics) answered(operation string, status int) {
	m.answers.WithLabelValues(operation, strconv.Itoa(status)).Inc()
}

func (m *metrics) deny(status int) { m.denied.WithLabelValues(strconv.Itoa(status)).Inc() }

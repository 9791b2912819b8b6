package console

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

func FuzzParseWhen(f *testing.F) {
	for _, s := range []string{"", "24h", "1d12h", "2026-11-23", "2026-11-23T14:05:00Z", "-1h", "9999999999w", "0s"} {
		f.Add(s)
	}
	at := time.Date(2026, 11, 23, 14, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseWhen(s, at, time.UTC)
		if err == nil && s != "" && (got.Year() < 0 || got.Year() > 9999) {
			t.Errorf("%q became %v", s, got)
		}
		if d, err := ParseSpan(s); err == nil && (d <= 0 || d > maxSpan) {
			t.Errorf("%q became %v", s, d)
		}
	})
}

// FuzzBodies sends anything to the operations that take a body: no answer is a
// fault of ours.
func FuzzBodies(f *testing.F) {
	for _, ex := range examples {
		if ex.body != "" {
			f.Add(ex.path, []byte(ex.body))
		}
	}
	f.Add("/v1/sql", []byte(`{"query":"SELECT [1,2]","limit":-1}`))
	f.Add("/v1/tokens", []byte(`{"role":"intake","source":"..","expires":"1d"}`))
	clock := time.Now()
	a := newAPI(f, func(c *Config) {
		c.Log = nil
		c.Now = func() time.Time { clock = clock.Add(time.Second); return clock } // never too fast
	})
	f.Fuzz(func(t *testing.T, path string, body []byte) {
		if path != "/v1/sql" && path != "/v1/tokens" {
			return
		}
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(string(body)))
		r.Header.Set("Authorization", "Bearer "+a.tokens["administrator"])
		w := httptest.NewRecorder()
		a.con.Handler().ServeHTTP(w, r)
		if w.Code >= 500 {
			t.Errorf("%s with %q: %d %s", path, body, w.Code, w.Body)
		}
	})
}

func TestWhatTheAPIDidIsCounted(t *testing.T) {
	a := newAPI(t, nil)
	a.call("GET", "/v1/status", "operator", "")
	a.call("GET", "/v1/status", "product", "")
	a.call("GET", "/v1/findings/none", "analyst", "")
	a.call("POST", "/v1/sql", "analyst", `{"query":"SELEC"}`)
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(a.con.Metrics()); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			got[f.GetName()+labels(m)] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	for name, want := range map[string]float64{
		"coc_console_answers_total get-status 200": 1, "coc_console_denied_total 403": 1, "coc_console_answers_total get-finding 404": 1,
		"coc_console_answers_total run-sql 400": 1, "coc_console_tails": 0, "coc_console_tail_dropped_events_total": 0,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %v (there: %v), want %v; all: %v", name, v, ok, want, got)
		}
	}
}

func labels(m *dto.Metric) (s string) {
	for _, l := range m.Label {
		s += " " + l.GetValue()
	}
	return s
}

package collector

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"
	"time"

	"github.com/opencoc/coc/services/event"
)

// benchBody is an NDJSON request of n events of about 400 bytes.
func benchBody(n int) []byte {
	var b []byte
	now := time.Now().UnixMilli()
	for i := range n {
		e := event.Event{
			Time: now - int64(n-i), Kind: "user", Action: "window_opened", Outcome: "success", TenantID: fmt.Sprintf("t%03d", i%50), TenantTier: "medium",
			UserName: fmt.Sprintf("jan.jansen%d", i%200), UserType: "customer", SessionID: fmt.Sprintf("s-%05d", i%500), SourceIP: fmt.Sprintf("198.18.0.%d", i%250),
			ServiceName: "profit", ServiceVersion: "12.1.0", ResourceType: "window", ResourceName: "Eigenschappen Medewerker", HostName: "app-07",
			Message: fmt.Sprintf("window Eigenschappen Medewerker opened in %d ms", 100+i),
		}
		e.SetDuration(float64(100 + i))
		e.SetServerDuration(float64(50 + i))
		b = append(event.AppendJSON(b, &e), '\n')
	}
	return b
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkIntake measures JSON by HTTP handler to stored on the embedded bus,
// in CPU time of the whole process.
func BenchmarkIntake(b *testing.B) {
	h := testHouse(b, httpOnly, func(c *Config) { c.Intake.EventsPerSecond = 1e9; c.Intake.Burst = 1e9 })
	token := h.token("erp", "*")
	const events, senders = 500, 8
	body := benchBody(events)
	b.ReportMetric(float64(len(body))/events, "bytes/event")
	send := func() {
		r := httptest.NewRequest(http.MethodPost, "/v1/events", bytes.NewReader(body))
		r.Header.Set("Authorization", "Bearer "+token)
		r.Header.Set("Content-Type", "application/x-ndjson")
		w := httptest.NewRecorder()
		h.c.Intake().ServeHTTP(w, r)
		if w.Code != http.StatusAccepted {
			b.Errorf("%d %s", w.Code, w.Body)
		}
	}
	work := make(chan struct{})
	done := make(chan struct{})
	for range senders {
		go func() {
			for range work {
				send()
			}
			done <- struct{}{}
		}()
	}
	send()
	cpu := cpuTime()
	b.ResetTimer()
	for range b.N {
		work <- struct{}{}
	}
	close(work)
	for range senders {
		<-done
	}
	b.ReportMetric(float64((cpuTime()-cpu).Nanoseconds())/float64(b.N*events), "cpu-ns/event")
	b.ReportMetric(float64(b.N*events)/b.Elapsed().Seconds(), "events/s")
}

package rule

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/opencoc/coc/services/event"
)

// BenchmarkWindow measures events that all enter one rule's windows.
func BenchmarkWindow(b *testing.B) {
	for _, c := range []struct{ name, condition string }{
		{"count", "count >= 1000000"},
		{"sum", "sum(bytes) >= 1e15"},
		{"max", "max(bytes) >= 1e15"},
		{"distinct", "distinct(source.ip) >= 100000"},
		{"share", "share(outcome == 'failure') > 1"},
		{"p95", "p95(bytes) > 1e15"},
		{"allowance", `count > 1000000 + allowance("few", tenant.tier)`},
		{"vm", `count > 1000000 && tenant.tier == "x"`},
	} {
		for _, keys := range []int{1, 1000} {
			b.Run(fmt.Sprintf("%s/%d_keys", c.name, keys), func(b *testing.B) {
				set := loadFiles(b, thresholdRule("10m", "10m", c.condition))
				r := NewRunner(set, RunnerOptions{})
				events := manyEvents(8192)
				b.ReportAllocs()
				b.ResetTimer()
				for n := range b.N {
					b.StopTimer()
					for i := range events {
						events[i].Time = 1767610800000 + int64(n*8192+i)*250
						events[i].TenantID = fmt.Sprintf("t%d", i%keys)
						events[i].Seq = int64(n*8192 + i)
					}
					batch := encode(b, events)
					b.StartTimer()
					r.Message(Input{Batch: batch, Collector: "c", BusTime: events[8191].Time, Mark: events[8191].Time})
					batch.Release()
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/8192, "ns/event")
			})
		}
	}
}

// BenchmarkKeys measures the memory of simple keys.
func BenchmarkKeys(b *testing.B) {
	const keys = 200_000
	for b.Loop() {
		set := loadFiles(b, thresholdRule("10m", "10m", "count >= 10"))
		r := NewRunner(set, RunnerOptions{MemoryBytes: 1 << 30})
		before := heap()
		events := make([]event.Event, 8192)
		for n := range keys / len(events) {
			for i := range events {
				events[i] = event.Event{Time: 1767610800000, Received: 1, Kind: "user", Action: "a", Collector: "c", Epoch: 1, Seq: int64(n*8192 + i), TenantID: fmt.Sprintf("tenant-%d", n*8192+i)}
			}
			batch := encode(b, events)
			r.Message(Input{Batch: batch, Collector: "c"})
			batch.Release()
		}
		n := r.Totals()
		b.ReportMetric(float64(heap()-before)/float64(n.Keys), "B/key")
		runtime.KeepAlive(r)
		b.ReportMetric(float64(n.MemoryBytes)/float64(n.Keys), "estimated_B/key")
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

package main

import (
	"encoding/json"
	"testing"
)

// The bench is what the README's figures come from: its parts must run, and say
// all that they measured.
func TestBenchPrintsItsFigures(t *testing.T) {
	report := func(part string) (r benchReport) {
		t.Helper()
		out := must(t, "bench", "--part", part, "--events", "50000", "--rules", "100", "--work", t.TempDir())
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			t.Fatalf("part %s printed no JSON: %v\n%s", part, err, out)
		}
		return r
	}
	if r := report("limit"); len(r.Limit) != 1 || r.Limit[0].Count != 50000 || r.Limit[0].PerSecond <= 0 || r.Limit[0].PeakBytes <= 0 {
		t.Errorf("limit: %+v", r)
	}
	if r := report("pipeline"); r.Pipeline == nil || r.Pipeline.Count != 50000 || r.Pipeline.PerSecond <= 0 || r.Pipeline.Rules != 100 {
		t.Errorf("pipeline: %+v", r)
	}
	if r := report("messages"); r.Messages == nil || r.Messages.PerSecond <= 0 {
		t.Errorf("messages: %+v", r)
	}
	r := report("engine")
	if len(r.Engine) != 3 || r.Engine[0].Rules != 100 || r.Engine[2].Rules != 10_000 {
		t.Fatalf("engine: %+v", r.Engine)
	}
	for _, e := range r.Engine {
		if e.NsPerEvent <= 0 || e.Matches <= 0 {
			t.Errorf("engine with %d rules: %+v: rules that never match measure nothing", e.Rules, e)
		}
	}
	said(t, 2, "--events", "bench", "--events", "1")
}

func TestTheBenchAddsItsPartsUp(t *testing.T) {
	var r benchReport
	for _, part := range []string{`{"limit":[{"per_second":10}]}`, `{"pipeline":{"per_second":12}}`, `{"limit":[{"per_second":30}]}`, `{"coc_up_idle_bytes":5}`} {
		if err := r.add([]byte(part)); err != nil {
			t.Fatal(err)
		}
	}
	if len(r.Limit) != 2 || r.Limit[0].PerSecond != 10 || r.Limit[1].PerSecond != 30 || r.Pipeline == nil || r.Pipeline.PerSecond != 12 || r.Idle != 5 {
		t.Fatalf("%+v", r)
	}
}

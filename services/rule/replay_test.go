package rule

import (
	"fmt"
	"iter"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/opencoc/coc/services/event"
)

// Events with long texts fill a message long before its rows do.
func TestBacktestTakesEventsOfAnySize(t *testing.T) {
	set, err := Load(fstest.MapFS{"a.yaml": {Data: []byte(`id: a.b
title: x
class: abuse
severity: low
match: action == "login"
group_by: [host.name]
window: 1h
condition: count >= 90
`)}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	const n = 20_000
	res, err := Backtest(t.Context(), set, func() iter.Seq2[*event.Event, error] {
		return func(yield func(*event.Event, error) bool) {
			for i := range n {
				// 100 a host, out of order within it
				e := event.Event{Time: 1_700_000_000_000 + int64(i/100)*100_000 + int64(i*37%100)*1000, Kind: "user", Action: "login", HostName: fmt.Sprint("h", i/100)}
				if i%3 == 0 {
					e.Message = strings.Repeat(fmt.Sprint(i), 500)
				}
				if !yield(&e, nil) {
					return
				}
			}
		}
	}, BacktestOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if res.Events != n || len(res.Findings) != n/100 {
		t.Fatalf("%d events, %d findings, want %d and %d", res.Events, len(res.Findings), n, n/100)
	}
	for _, r := range res.Rules {
		if r.Late > 0 {
			t.Errorf("%d events were late in a file that is read twice", r.Late)
		}
	}
}

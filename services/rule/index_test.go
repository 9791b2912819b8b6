package rule

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/opencoc/coc/services/event"
)

// manyRules are rules of the form that benchmarks use: each names one action
// and a bound.
func manyRules(t testing.TB, n int, rule func(i int) string) *Set {
	files := map[string]string{}
	for i := range n {
		files[fmt.Sprintf("r%05d.yaml", i)] = fmt.Sprintf("id: r%05d\ntitle: t\nclass: abuse\nseverity: low\ngroup_by: [tenant.id]\nmatch: %s\n", i, rule(i))
	}
	return loadFiles(t, files)
}

func ownAction(i int) string {
	return fmt.Sprintf(`kind == "user" && action == "a%d" && duration > %d`, i, 100000+i)
}

func sameAction(i int) string {
	return fmt.Sprintf(`kind == "user" && action == "login" && duration > %d`, 100000+i)
}

// batchOf holds events that pass the tests on texts, but not those on numbers.
func batchOf(t testing.TB, rows, actions int) *event.Batch {
	r := rand.New(rand.NewPCG(1, 2))
	events := make([]event.Event, rows)
	for i := range events {
		e := &events[i]
		*e = event.Event{Time: 1767610800000 + int64(i), Received: 1767610800000, Kind: "user", Action: fmt.Sprintf("a%d", r.IntN(actions)),
			Outcome: "success", Collector: "c", Epoch: 1, Seq: int64(i + 1), TenantID: fmt.Sprintf("t%d", r.IntN(500)), SourceIP: fmt.Sprintf("10.0.%d.%d", r.IntN(20), r.IntN(200))}
		e.SetDuration(float64(r.IntN(3000)))
	}
	return encode(t, events)
}

func TestRowsThatMatchNothingCostNoAllocationAndNoRun(t *testing.T) {
	for name, rule := range map[string]func(int) string{
		"own action":  ownAction,
		"same action": sameAction,
		"residual":    func(i int) string { return fmt.Sprintf(`action == "b%d" && message contains "x"`, i) },
	} {
		set := manyRules(t, 300, rule)
		r := NewRunner(set, RunnerOptions{})
		b := batchOf(t, 2000, 300)
		in := Input{Batch: b, Collector: "c"}
		r.Message(in)
		if n := testing.AllocsPerRun(5, func() { r.Message(in) }); n > 0 {
			t.Errorf("%s: %v allocations a message", name, n)
		}
		if n := r.Totals().VMRuns; n != 0 {
			t.Errorf("%s: the VM ran %d times", name, n)
		}
	}
}

func TestTheVMRunsOnlyForRulesThatCouldMatch(t *testing.T) {
	set := manyRules(t, 1000, func(i int) string {
		return fmt.Sprintf(`action == "a%d" && source.ip in ["10.0.0.1", "10.0.1.1"] && (message contains "x" || bytes * 2 > %d)`, i, i)
	})
	r := NewRunner(set, RunnerOptions{})
	b := batchOf(t, 4000, 1000)
	could := int64(0)
	for row := range b.Rows() {
		if ip := b.Text(event.FSourceIP, row); ip == "10.0.0.1" || ip == "10.0.1.1" {
			could++
		}
	}
	r.Message(Input{Batch: b})
	if n := r.Totals().VMRuns; n != could || could == 0 {
		t.Errorf("the VM ran %d times for %d rows that one rule each could match", n, could)
	}
}

func TestManyRulesOfOneActionAreNotScanned(t *testing.T) {
	cases := map[string]func(int) string{
		"split by tenant": func(i int) string {
			return fmt.Sprintf(`action == "login" && tenant.id == "t%d" && message contains "x"`, i)
		},
		"split by two": func(i int) string {
			return fmt.Sprintf(`kind == "user" and action in ["login", "logout"] and (service.name == "s%d" or service.name == "x%d") and tenant.id == "t%d"`, i%30, i, i)
		},
	}
	for name, rule := range cases {
		set := manyRules(t, 1000, rule)
		n := set.index.roots[0].at("t7")
		if n == nil || len(n.linear) != 1 {
			t.Errorf("%s: the rule of one tenant is not found by its tenant", name)
		}
	}
	n := manyRules(t, 1000, sameAction).index.roots[0].at("login")
	if len(n.linear) != 0 || len(n.ranges) != 1 || len(n.ranges[0].rules) != 1000 {
		t.Error("rules that differ by a bound only are not ordered by it")
	}
}

func benchmarkRunner(b *testing.B, rules, actions int, rule func(int) string) {
	set := manyRules(b, rules, rule)
	r := NewRunner(set, RunnerOptions{})
	batch := batchOf(b, 8192, actions)
	in := Input{Batch: batch, Collector: "c"}
	r.Message(in)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		r.Message(in)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/8192, "ns/event")
}

func BenchmarkIndex(b *testing.B) {
	for _, n := range []int{100, 1000, 10_000} {
		b.Run(fmt.Sprintf("own_action/%d", n), func(b *testing.B) { benchmarkRunner(b, n, n, ownAction) })
		b.Run(fmt.Sprintf("ten_actions/%d", n), func(b *testing.B) {
			benchmarkRunner(b, n, 10, func(i int) string { return ownAction(i%10) + fmt.Sprintf(" && bytes >= %d", i) })
		})
		b.Run(fmt.Sprintf("residual/%d", n), func(b *testing.B) {
			benchmarkRunner(b, n, n, func(i int) string {
				return fmt.Sprintf(`kind == "user" && action == "a%d" && (duration > %d || bytes > 5)`, i, 100000+i)
			})
		})
	}
}

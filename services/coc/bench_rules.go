package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencoc/coc/services/event"
	"github.com/opencoc/coc/services/rule"
)

// The bench's world: actions and tenants enough that 10,000 rules differ, events
// as wide as those of a product.
const (
	benchActions   = 400
	benchTenants   = 500
	benchUsers     = 2000
	benchAddresses = 1000
)

// benchSet compiles n rules: four in five match one action with a bound on a
// number, one in five counts failures per tenant in a window. Rules share actions
// once there are more of them than actions.
func benchSet(n int) (*rule.Set, error) {
	dir, err := os.MkdirTemp("", "coc-bench-rules-")
	if err != nil {
		return nil, fmt.Errorf("cannot make a folder for the bench's rules: %w", err)
	}
	defer os.RemoveAll(dir)
	for i := range n {
		text := fmt.Sprintf("id: bench.rule-%05d\ntitle: bench rule %d\nclass: performance\nseverity: low\nresponse: none\nmatch: kind == \"user\" && action == \"action_%d\" && ", i, i, i%benchActions)
		if i%5 == 4 {
			text += fmt.Sprintf("outcome == \"failure\" && service.name == \"service_%d\"\ngroup_by: [tenant.id]\nwindow: 10m\ncondition: count >= 100000\n", i%7)
		} else {
			text += fmt.Sprintf("duration > %d && service.version == \"4.%d\"\n", 20000+i, i%50)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("r%05d.yaml", i)), []byte(text), 0o600); err != nil {
			return nil, fmt.Errorf("cannot write the bench's rules: %w", err)
		}
	}
	return rule.LoadDir(dir, rule.Options{})
}

// benchEvent fills e with the i-th event of the bench: deterministic, with the
// distribution of a product's user events.
func benchEvent(i int, now int64, e *event.Event) {
	r := uint64(i)*0x9E3779B97F4A7C15 + 0x1234567
	next := func(n int) int {
		r ^= r << 13
		r ^= r >> 7
		r ^= r << 17
		return int(r>>33) % n
	}
	labels := e.Labels[:0]
	*e = event.Event{
		Time: now + int64(i/100), Received: now + int64(i/100) + 40,
		Kind: "user", Action: benchNames.action[next(benchActions)], Outcome: "success", Source: "bench",
		TenantTier: benchNames.tier[next(4)],
		SourceIP:   benchNames.address[next(benchAddresses)], UserType: "customer", Datacenter: "dc1", HostName: benchNames.host[next(20)],
		ServiceName: benchNames.service[next(7)], ServiceVersion: benchNames.version[next(50)],
		ResourceType: "window", ResourceName: benchNames.window[next(60)], Labels: labels,
	}
	u := next(benchUsers)
	e.TenantID, e.UserName, e.UserHash = benchNames.tenant[u%benchTenants], benchNames.user[u], benchNames.hash[u] // a person works for one customer
	if next(20) == 0 {
		e.Outcome = "failure"
	}
	e.SetDuration(float64(100 + next(3000)))
	e.SetServerDuration(float64(50 + next(500)))
	e.SetBytes(int64(next(100_000)))
}

// benchNames are the values, made once: the bench measures the pipeline, not
// fmt.Sprintf.
var benchNames = func() (n struct{ action, tenant, tier, address, host, service, version, window, user, hash []string }) {
	list := func(count int, format string) (l []string) {
		for i := range count {
			l = append(l, fmt.Sprintf(format, i))
		}
		return l
	}
	n.action, n.tenant, n.tier = list(benchActions, "action_%d"), list(benchTenants, "t-%04d"), []string{"small", "medium", "large", "enterprise"}
	n.host, n.service, n.version = list(20, "app-%02d"), list(7, "service_%d"), list(50, "4.%d")
	n.window, n.user, n.hash = list(60, "Window %d"), list(benchUsers, "user.name%d"), list(benchUsers, "%032x")
	for i := range benchAddresses {
		n.address = append(n.address, fmt.Sprintf("10.1.%d.%d", i/250, i%250))
	}
	return n
}()

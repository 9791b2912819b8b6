package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// fetch gets an address of a running instance; secret "" sends no token.
func fetch(t testing.TB, method, url, secret, body string) (status int, answer string) {
	t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if secret != "" {
		req.Header.Set("Authorization", "Bearer "+secret)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(b)
}

// newToken makes a token of a role.
func newToken(t testing.TB, data, role string, args ...string) string {
	t.Helper()
	return strings.TrimSpace(must(t, append([]string{"token", "new", "--data", data, "--role", role, "--expires", "1d"}, args...)...))
}

// units are the ends that say in what a metric counts.
var units = regexp.MustCompile(`_(total|seconds|bytes|messages|events|rows|parts|keys|sequence|tails|info|up|running|quiet|publishing)$`)

// What a person on duty and their monitoring ask of a running instance.
func TestAnInstanceTellsHowItIs(t *testing.T) {
	data := t.TempDir()
	in := up(t, data, "--log-json", "--without", "host,processes,journal")
	i, err := readInstance(data)
	if err != nil {
		t.Fatal(err)
	}
	if status, body := fetch(t, "GET", i.URL+"/healthz", "", ""); status != 200 || body != "ok\n" {
		t.Errorf("/healthz: %d %q", status, body)
	}
	var ready readiness
	status, body := fetch(t, "GET", i.URL+"/readyz", "", "")
	if err := json.Unmarshal([]byte(body), &ready); err != nil || status != 200 || !ready.Ready {
		t.Fatalf("/readyz: %d %s", status, body)
	}
	for _, name := range []string{"bus", "store", "collector", "engine", "sink", "stats", "publishing"} {
		if ready.Dependencies[name] != "ok" {
			t.Errorf("/readyz says %q of %s", ready.Dependencies[name], name)
		}
	}
	event := fmt.Sprintf(`{"time":%q,"kind":"user","action":"login","tenant.id":"t1"}`, time.Now().UTC().Format(time.RFC3339))
	if status, body := fetch(t, "POST", i.URL+"/v1/events", newToken(t, data, "intake", "--source", "http", "--tenant-glob", "*"), event); status != 202 {
		t.Fatalf("an event is answered %d %s", status, body)
	}
	eventually(t, 20*time.Second, "an event is stored", func() bool { return count(t, data, "SELECT count() FROM events") > 0 })

	status, body = fetch(t, "GET", i.URL+"/metrics", "", "")
	values := map[string]bool{}
	for line := range strings.Lines(body) {
		name, kind, ok := strings.Cut(strings.TrimPrefix(line, "# TYPE "), " ")
		if !ok || !strings.HasPrefix(line, "# TYPE coc_") {
			continue
		}
		values[name] = true
		if !units.MatchString(name) {
			t.Errorf("the metric %s does not say in what it counts", name)
		}
		if strings.TrimSpace(kind) == "counter" && !strings.HasSuffix(name, "_total") && !strings.HasSuffix(name, "_sequence") {
			t.Errorf("the counter %s does not end in _total", name)
		}
	}
	for _, name := range []string{"coc_build_info", "coc_bus_stream_bytes", "coc_store_memory_bytes", "coc_engine_events_total", "coc_rule_late_total",
		"coc_sink_rows_total", "coc_stats_passes_total", "coc_collector_events_total"} {
		if !values[name] || status != 200 {
			t.Errorf("/metrics (%d) does not show %s", status, name)
		}
	}
	for _, stream := range []string{"EVENTS", "INTAKE", "FINDINGS", "DEADLETTER", "WORK", "AUDIT"} {
		if !strings.Contains(body, `coc_bus_stream_max_bytes{stream="`+stream+`"}`) {
			t.Errorf("/metrics does not show the stream %s", stream)
		}
	}
	if strings.Contains(body, "\ncoc_store_up 0") || strings.Contains(body, "\ncoc_bus_up 0") {
		t.Errorf("/metrics says that a server is away:\n%s", body)
	}

	for _, listing := range []string{"token list", "sources list", "ledger"} {
		out := must(t, append(strings.Fields(listing), "--data", data, "--json")...)
		for line := range strings.Lines(out) {
			var object map[string]any
			if err := json.Unmarshal([]byte(line), &object); err != nil || len(object) == 0 {
				t.Errorf("coc %s --json prints %s", listing, line)
			}
		}
		if out == "" {
			t.Errorf("coc %s --json prints nothing", listing)
		}
	}

	told := false
	for line := range strings.Lines(in.out.String()) {
		var entry struct{ Time, Level, Msg, URL string }
		if !strings.HasPrefix(line, "{") {
			continue // the greeting
		}
		if err := json.Unmarshal([]byte(line), &entry); err != nil || entry.Time == "" || entry.Level == "" || entry.Msg == "" {
			t.Errorf("a line of the log is %s", line)
		}
		told = told || entry.URL == i.URL
	}
	if !told {
		t.Errorf("the log does not tell the address:\n%s", in.out)
	}

	// Every door but the two of health and the metrics asks who comes in, and
	// which role they have.
	for _, door := range []struct{ method, path string }{{"POST", "/v1/imports"}, {"POST", "/v1/events"}, {"GET", "/v1/findings"}, {"GET", "/v1/status"}} {
		if status, body := fetch(t, door.method, i.URL+door.path, "", "{}"); status != 401 {
			t.Errorf("%s %s without a token: %d %s", door.method, door.path, status, body)
		}
	}
	product := newToken(t, data, "product")
	for _, door := range []struct{ method, path string }{{"POST", "/v1/imports"}, {"POST", "/v1/events"}, {"GET", "/v1/findings"}, {"GET", "/v1/tenants"}, {"GET", "/v1/response-times"}, {"GET", "/v1/tail"}, {"GET", "/v1/ledger"}} {
		if status, body := fetch(t, door.method, i.URL+door.path, product, "{}"); status != 403 {
			t.Errorf("%s %s as product: %d %s", door.method, door.path, status, body)
		}
	}
	if status, body := fetch(t, "GET", i.URL+"/v1/usage", product, ""); status != 200 {
		t.Errorf("the anonymous statistics as product: %d %s", status, body)
	}
}

// Told to end while senders keep sending, coc ends within 10 s; what it had
// answered 202 for is there after the next start, once.
func TestTheEndUnderLoadLosesNothing(t *testing.T) {
	data := t.TempDir()
	in := up(t, data, "--without", "host,processes,journal")
	i, err := readInstance(data)
	if err != nil {
		t.Fatal(err)
	}
	secret := newToken(t, data, "intake", "--source", "http", "--tenant-glob", "*")
	const senders, each = 4, 20
	var mu sync.Mutex
	var accepted []string
	offered, stop := 0, make(chan struct{})
	var sending sync.WaitGroup
	for s := range senders {
		sending.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				var body strings.Builder
				for k := range each {
					fmt.Fprintf(&body, `{"time":%q,"kind":"user","action":"login","tenant.id":"t%d","process.pid":%d,"session.id":"s%d-%d-%d"}`+"\n", time.Now().UTC().Format(time.RFC3339), s, k, s, n, k)
				}
				mu.Lock()
				offered += each
				mu.Unlock()
				req, err := http.NewRequest(http.MethodPost, i.URL+"/v1/events", strings.NewReader(body.String()))
				if err != nil {
					t.Error(err)
					return
				}
				req.Header.Set("Authorization", "Bearer "+secret)
				req.Header.Set("Content-Type", "application/x-ndjson")
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					return // it ended
				}
				resp.Body.Close()
				if resp.StatusCode == http.StatusAccepted {
					mu.Lock()
					accepted = append(accepted, fmt.Sprintf("s%d-%d-", s, n))
					mu.Unlock()
				}
			}
		})
	}
	eventually(t, 20*time.Second, "some requests are accepted", func() bool { mu.Lock(); defer mu.Unlock(); return len(accepted) >= 20 })
	asked := time.Now()
	if err := in.stop(); err != nil {
		t.Errorf("SIGTERM: %v\n%s", err, in.out)
	}
	if took := time.Since(asked); took > 10*time.Second {
		t.Errorf("it ended %v after SIGTERM, later than 10 s", took)
	}
	close(stop)
	sending.Wait()

	up(t, data, "--without", "host,processes,journal")
	want := each * len(accepted)
	eventually(t, 20*time.Second, "what was accepted is stored", func() bool { return count(t, data, "SELECT count() FROM events") >= want })
	stored := map[string]int{}
	for line := range strings.Lines(must(t, "sql", "--data", data, "--limit", "1000000", "--json", "SELECT session_id FROM events")) {
		var row struct {
			Session string `json:"session_id"`
		}
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			t.Fatal(err)
		}
		stored[row.Session]++
	}
	for _, request := range accepted {
		for k := range each {
			if n := stored[fmt.Sprint(request, k)]; n != 1 {
				t.Fatalf("event %s%d was accepted and is stored %d times", request, k, n)
			}
		}
	}
	for id, n := range stored {
		if n != 1 {
			t.Errorf("event %s is stored %d times", id, n)
		}
	}
	if len(stored) > offered {
		t.Errorf("%d events stored, %d offered", len(stored), offered)
	}
	must(t, "ledger", "--data", data, "--check")
}

// contractKeys are what scripts rely on in a finding.
var contractKeys = map[string]byte{"id": '"', "rule": '"', "class": '"', "severity": '"', "key": '{', "fired": '"', "fired_by": '"',
	"first_seen": '"', "last_seen": '"', "count": '0', "revision": '0', "evidence": '['}

// A finding has the same keys from a running instance and from a backtest, each
// of the kind that the contract says; account managers see it without people.
func TestFindingsHaveTheKeysOfTheContractWhereverTheyComeFrom(t *testing.T) {
	data, rules := t.TempDir(), t.TempDir()
	rule := "id: check.keys\ntitle: x\nclass: abuse\nseverity: low\nmatch: action == \"login\" && outcome == \"failure\"\ngroup_by: [source.ip, user.name, labels.note]\nwindow: 10m\ncondition: count >= 1 && distinct(user.name) < 9\n"
	if err := os.WriteFile(filepath.Join(rules, "keys.yaml"), []byte(rule), 0o644); err != nil {
		t.Fatal(err)
	}
	events := file(t, "events.ndjson", []byte(`{"time":"2026-03-07T07:00:00Z","kind":"user","action":"login","outcome":"failure","tenant.id":"t1","user.name":"zoe.quill","source.ip":"198.51.100.7","labels":{"note":"a private note"}}`+"\n"))
	up(t, data, "--rules", rules, "--without", "host,processes,journal")
	must(t, "import", "--data", data, "--format", "json", events)

	live := must(t, "findings", "--data", data, "--json", "--rule", "check.keys", "--class", "abuse", "--since", "2026-01-01")
	offline := must(t, "backtest", "--json", "--rules", rules, "--events", events)
	for from, text := range map[string]string{"findings": live, "backtest": offline} {
		var f map[string]json.RawMessage
		if err := json.Unmarshal([]byte(text), &f); err != nil {
			t.Fatalf("coc %s does not print one object: %v in %s", from, err, text)
		}
		for key, kind := range contractKeys {
			v := bytes.TrimSpace(f[key])
			if len(v) == 0 || v[0] != kind && (kind != '0' || v[0] < '1' || v[0] > '9') {
				t.Errorf("coc %s: %s is %s", from, key, v)
			}
		}
		if strings.Contains(text, "zoe.quill") {
			t.Errorf("coc %s tells the name: %s", from, text)
		}
	}
	if !strings.Contains(live, "a private note") || !strings.Contains(live, "198.51.100.7") {
		t.Errorf("an administrator does not see the key: %s", live)
	}
	for _, none := range [][]string{{"--rule", "check.none"}, {"--class", "compliance"}, {"--since", "2026-03-08"}} {
		if out := must(t, append([]string{"findings", "--data", data, "--json"}, none...)...); out != "" {
			t.Errorf("coc findings %v: %s", none, out)
		}
	}

	i, err := readInstance(data)
	if err != nil {
		t.Fatal(err)
	}
	status, body := fetch(t, "GET", i.URL+"/v1/findings?rule=check.keys", newToken(t, data, "account_manager"), "")
	if status != 200 || !strings.Contains(body, `"check.keys"`) {
		t.Fatalf("the findings as account manager: %d %s", status, body)
	}
	var page struct {
		Findings []struct{ Key map[string]string }
	}
	if err := json.Unmarshal([]byte(body), &page); err != nil || len(page.Findings) != 1 || len(page.Findings[0].Key) != 0 {
		t.Errorf("an account manager sees the key %+v, %v", page.Findings, err)
	}
	for _, secret := range []string{"198.51.100.7", "a private note", "zoe.quill", "user.hash\":"} {
		if strings.Contains(body, secret) {
			t.Errorf("an account manager sees %s: %s", secret, body)
		}
	}
}

// Commands, flags and variables that scripts rely on.
func TestTheCommandLineIsTheContract(t *testing.T) {
	var cli CLI
	parser, err := newParser(&cli, io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"up --data D --listen 127.0.0.1:0 --rules R --without host,journal --nats nats://h:4222 --clickhouse http://h:8123 --zone Europe/Amsterdam",
		"import --format sshd --year 2016 --tz UTC --dry-run F G", "import --again --no-wait --data D F", "import --server http://h:1 --token-file T F",
		"findings --json --rule a.b --class abuse --since 24h --server http://h:1 --token-file T", "backtest --rules R --events E --json",
		"tail --json", "tenants --json", "usage --json", "ledger --json", "ledger --check", "sources list --json", "token list --json",
		"sources check F", "sources test LINE", "rules check R", "rules test R", "version", "help up",
		"token new --role intake --source s --tenant-glob t-* --expires 90d", "simulate --tenants 40 --days 14 --seed 1",
	} {
		if _, err := parser.Parse(strings.Fields(line)); err != nil {
			t.Errorf("coc %s: %v", line, err)
		}
	}
	if _, err := parser.Parse([]string{"sql", "--json", "SELECT 1"}); err != nil {
		t.Error(err)
	}
	if _, err := parser.Parse([]string{"up"}); err != nil || !isLoopback(cli.Up.Listen) || isLoopback("0.0.0.0:8484") {
		t.Errorf("without --listen the API listens on %s, %v", cli.Up.Listen, err)
	}
	var help bytes.Buffer
	if code := run(t.Context(), []string{"help"}, nil, strings.NewReader(""), &help, io.Discard); code != 0 {
		t.Fatal(code)
	}
	for _, c := range parser.Model.Children {
		if c.Help == "" || c.Group == nil || !strings.Contains(help.String(), c.Help) {
			t.Errorf("coc help does not tell what coc %s does:\n%s", c.Name, help.String())
		}
		if c.Group == nil || c.Group.Key != "run" {
			continue
		}
		for _, f := range c.Flags {
			if f.Name != "help" && (len(f.Envs) == 0 || !strings.HasPrefix(f.Envs[0], "COC_")) {
				t.Errorf("coc %s --%s cannot be given as a variable", c.Name, f.Name)
			}
		}
	}
	if order := []string{"Run", "Look", "Feed", "Rules", "Operate"}; !slices.IsSortedFunc(order, func(a, b string) int {
		return strings.Index(help.String(), "\n"+a) - strings.Index(help.String(), "\n"+b)
	}) {
		t.Errorf("coc help is not in the order %v:\n%s", order, help.String())
	}
	if out := must(t, "version"); !regexp.MustCompile(`^coc \d+\.\d+\.\d+\S*\n$`).MatchString(out) {
		t.Errorf("coc version prints %q", out)
	}
}

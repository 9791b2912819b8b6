package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencoc/coc/services/event"
)

// sharedData is a folder of real logs that others made; the project holds none.
const sharedData = "../../../shared/data"

func shared(t *testing.T, name string) string {
	t.Helper()
	p := filepath.Join(sharedData, name)
	if _, err := os.Stat(p); err != nil {
		t.Skipf("the real log %s is not on this machine, so its figures are not compared here", name)
	}
	return p
}

// rulesFor writes threshold rules for failed logins by address.
func rulesFor(t *testing.T, bounds ...int) string {
	t.Helper()
	dir := t.TempDir()
	for _, n := range bounds {
		text := fmt.Sprintf(`id: check.failures-%d
title: %d or more failed logins of one address within ten minutes
class: abuse
severity: medium
match: action == "login" && outcome == "failure"
group_by: [source.ip]
window: 10m
condition: count >= %d
suppress: 1d
`, n, n, n)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("failures-%d.yaml", n)), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func findingsOf(t *testing.T, ndjson string) (list []event.Finding) {
	t.Helper()
	for line := range strings.Lines(ndjson) {
		var f event.Finding
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		list = append(list, f)
	}
	return list
}

func addresses(list []event.Finding, rule string) []string {
	var out []string
	for _, f := range list {
		if f.Rule == rule && !slices.Contains(out, f.Key["source.ip"]) {
			out = append(out, f.Key["source.ip"])
		}
	}
	return out
}

// count asks SQL for one number.
func count(t *testing.T, data, query string) int {
	t.Helper()
	out := must(t, "sql", "--data", data, "--json", query)
	var row map[string]json.Number
	if err := json.Unmarshal([]byte(out), &row); err != nil {
		t.Fatalf("%s: %v in %q", query, err, out)
	}
	for _, v := range row {
		n, err := v.Int64()
		if err != nil {
			t.Fatal(err)
		}
		return int(n)
	}
	t.Fatalf("%s: no row", query)
	return 0
}

func TestRealAuthLogThroughTheWholePipeline(t *testing.T) {
	log := shared(t, "logs/sshd_auth.log")
	rules := rulesFor(t, 5, 10)
	data := t.TempDir()
	in := up(t, data, "--rules", rules, "--without", "host,processes,journal")

	must(t, "import", "--data", data, "--format", "sshd", "--year", "2016", log)
	for query, want := range map[string]int{
		"SELECT count() FROM events": 7446,
		"SELECT count() FROM events WHERE action='login' AND outcome='failure'":              1038,
		"SELECT uniqExact(source_ip) FROM events WHERE action='login' AND outcome='failure'": 105,
		"SELECT count() FROM (SELECT id, count() AS n FROM events GROUP BY id HAVING n > 1)": 0,
		"SELECT count() FROM events WHERE toYear(time) != 2016":                              0,
		"SELECT count() FROM events WHERE action='login' AND outcome='success'":              226,
		"SELECT count() FROM events WHERE message = '' OR kind = '' OR action = ''":          0,
		"SELECT uniqExact(collector_id) + uniqExact(collector_epoch) FROM events":            2,
		"SELECT max(collector_seq) - min(collector_seq) + 1 - count() FROM events":           0,
	} {
		if got := count(t, data, query); got != want {
			t.Errorf("%s: %d, want %d", query, got, want)
		}
	}
	live := findingsOf(t, must(t, "findings", "--data", data, "--json"))
	if n := len(addresses(live, "check.failures-10")); n != 10 {
		t.Errorf("10 or more: %d addresses, want 10", n)
	}
	if n := len(addresses(live, "check.failures-5")); n != 101 {
		t.Errorf("5 or more: %d addresses, want 101", n)
	}

	// The same engine offline gives the same findings, id by id.
	events := filepath.Join(t.TempDir(), "events.ndjson")
	if err := os.WriteFile(events, []byte(must(t, "import", "--format", "sshd", "--year", "2016", "--dry-run", log)), 0o644); err != nil {
		t.Fatal(err)
	}
	offline := findingsOf(t, must(t, "backtest", "--json", "--rules", rules, "--events", events))
	compareFindings(t, live, offline)

	// Twice adds nothing and says so; a copy under another name is the same file.
	out, errs, code := coc(t, "import", "--data", data, "--format", "sshd", "--year", "2016", log)
	if code != 0 || !strings.Contains(out+errs, "nothing added") {
		t.Errorf("the second import ended with %d and said %q %q", code, out, errs)
	}
	if n := count(t, data, "SELECT count() FROM events"); n != 7446 {
		t.Errorf("after the second import: %d events", n)
	}
	must(t, "import", "--data", data, "--format", "sshd", "--year", "2016", "--again", log)
	if n := count(t, data, "SELECT count() FROM events"); n != 2*7446 {
		t.Errorf("after --again: %d events", n)
	}
	must(t, "ledger", "--data", data, "--check")
	if err := in.stop(); err != nil {
		t.Errorf("SIGTERM: %v\n%s", err, in.out)
	}
}

// compareFindings holds two runs equal in all that does not name the import.
func compareFindings(t *testing.T, a, b []event.Finding) {
	t.Helper()
	byID := map[string]event.Finding{}
	for _, f := range a {
		byID[f.ID] = f
	}
	if len(a) != len(b) || len(a) == 0 {
		t.Errorf("%d findings of the pipeline, %d of the backtest", len(a), len(b))
	}
	for _, f := range b {
		g, ok := byID[f.ID]
		if !ok {
			t.Errorf("the pipeline does not have %s of %s", f.ID, f.Rule)
			continue
		}
		if f.Count != g.Count || f.Fired != g.Fired || f.FiredBy != g.FiredBy || f.FirstSeen != g.FirstSeen || f.LastSeen != g.LastSeen || f.How != g.How || !maps.Equal(f.Key, g.Key) || !slices.Equal(f.Terms, g.Terms) || !slices.Equal(f.Evidence, g.Evidence) {
			t.Errorf("finding %s differs:\npipeline %+v\nbacktest %+v", f.ID, g, f)
		}
	}
}

func TestGrownFileAddsWhatIsNew(t *testing.T) {
	data := t.TempDir()
	up(t, data, "--without", "host,processes,journal")
	b, err := os.ReadFile("../../docs/example-auth.log")
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(b, []byte("\n"))
	file := filepath.Join(t.TempDir(), "auth.log")
	write := func(n int) {
		if err := os.WriteFile(file, bytes.Join(lines[:n], nil), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(100)
	must(t, "import", "--data", data, "--format", "sshd", "--year", "2016", file)
	before := count(t, data, "SELECT count() FROM events")
	write(150)
	must(t, "import", "--data", data, "--format", "sshd", "--year", "2016", file)
	after := count(t, data, "SELECT count() FROM events")
	whole := strings.Count(must(t, "import", "--format", "sshd", "--year", "2016", "--dry-run", file), "\n")
	if after <= before || after != whole {
		t.Fatalf("%d events, then %d; the whole file has %d", before, after, whole)
	}
}

func TestRealAccessLogEqualsWhatAwkSays(t *testing.T) {
	log := shared(t, "logs/apache_access_10k.log")
	data := t.TempDir()
	up(t, data, "--without", "host,processes,journal")
	must(t, "import", "--data", data, "--format", "access", log)
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	clients, bytesSum, statuses := map[string]bool{}, 0, map[string]int{}
	lines := 0
	for line := range strings.Lines(string(b)) { // awk's fields 1, 9 and 10
		f := strings.Fields(line)
		lines++
		clients[f[0]] = true
		// The request of some lines holds blanks; status and size come after it.
		rest := strings.Fields(line[strings.Index(line, `" `)+2:])
		statuses[rest[0]]++
		var n int
		if _, err := fmt.Sscan(rest[1], &n); err == nil {
			bytesSum += n
		}
	}
	if n := count(t, data, "SELECT count() FROM events"); n != lines {
		t.Errorf("%d events of %d lines", n, lines)
	}
	if n := count(t, data, "SELECT uniqExact(source_ip) FROM events"); n != len(clients) {
		t.Errorf("%d clients, awk says %d", n, len(clients))
	}
	if n := count(t, data, "SELECT sum(bytes) FROM events"); n != bytesSum {
		t.Errorf("%d bytes, awk says %d", n, bytesSum)
	}
	for status, want := range statuses {
		if n := count(t, data, "SELECT count() FROM events WHERE labels['status'] = '"+status+"'"); n != want {
			t.Errorf("status %s: %d, awk says %d", status, n, want)
		}
	}
}

// A name that nobody else has, in every field that can hold one, is afterwards
// in no file of the data folder: the identities are sealed.
func TestAPlantedNameIsNowhereKeptButSealed(t *testing.T) {
	const name = "zebulon.quackenbush"
	data, rules := t.TempDir(), t.TempDir()
	// Rules about the name, so that there are findings to hold it.
	for id, by := range map[string]string{"check.name": "user.name, host.name", "check.texts": "user.name, resource.title, labels.note"} {
		text := "id: " + id + "\ntitle: x\nclass: abuse\nseverity: low\nmatch: user.name == \"" + name + "\"\ngroup_by: [" + by + "]\nwindow: 10m\ncondition: distinct(user.name) >= 1\n"
		if err := os.WriteFile(filepath.Join(rules, id+".yaml"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	in := up(t, data, "--rules", rules, "--without", "host,processes,journal")
	post := func(body string) {
		t.Helper()
		file := filepath.Join(t.TempDir(), "token")
		secret := strings.TrimSpace(must(t, "token", "new", "--data", data, "--role", "intake", "--source", "http", "--tenant-glob", "*", "--expires", "1d"))
		if err := os.WriteFile(file, []byte(secret), 0o600); err != nil {
			t.Fatal(err)
		}
		i, err := readInstance(data)
		if err != nil {
			t.Fatal(err)
		}
		req, _ := http.NewRequest(http.MethodPost, i.URL+"/v1/events", strings.NewReader(body))
		req.Header.Set("Authorization", "Bearer "+secret)
		req.Header.Set("Content-Type", "application/x-ndjson")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusAccepted {
			var b bytes.Buffer
			_, _ = b.ReadFrom(resp.Body)
			t.Fatalf("intake answered %d: %s", resp.StatusCode, b.String())
		}
	}
	now := time.Now().UTC().Format(time.RFC3339)
	e := map[string]any{"time": now, "kind": "user", "action": "login", "outcome": "failure", "user.name": name, "tenant.id": "t1"}
	for _, f := range event.Fields {
		if (f.Type == event.Text || f.Type == event.Dict) && !f.Internal && e[f.Name] == nil && f.Name != "source.ip" {
			e[f.Name] = "x " + name + " y"
		}
	}
	e["labels"] = map[string]string{"note": "by " + name, name: "as a key"}
	line, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	post(string(line) + "\n")
	log := filepath.Join(t.TempDir(), "auth.log")
	text := fmt.Sprintf("Mar  7 07:50:19 web1 sshd[25632]: Failed password for %[1]s from 198.51.100.10 port 42978 ssh2\nMar  7 07:51:19 web1 sudo:    %[1]s : TTY=pts/0 ; PWD=/home/%[1]s ; USER=root ; COMMAND=/home/%[1]s/run --user %[1]s\n", name)
	if err := os.WriteFile(log, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	must(t, "import", "--data", data, "--format", "sshd", "--year", "2026", log)
	eventually(t, 30*time.Second, "all three events are stored", func() bool {
		return count(t, data, "SELECT count() FROM events WHERE user_hash != ''") >= 3
	})
	eventually(t, 30*time.Second, "the identity is stored", func() bool {
		return count(t, data, "SELECT count() FROM identities") >= 2 // of tenant t1 and of the house
	})
	for _, id := range []string{"check.name", "check.texts"} {
		eventually(t, 30*time.Second, id+" found the name", func() bool {
			return count(t, data, "SELECT count() FROM findings WHERE key['user.hash'] != '' AND rule = '"+id+"'") >= 1
		})
	}
	for _, table := range []string{"events", "findings", "identities", "work", "batches", "release_made", "release_days", "release_late", "release_usage", "tenant_response_times"} {
		out := must(t, "sql", "--data", data, "--json", "SELECT * FROM "+table)
		if strings.Contains(strings.ToLower(out), "quackenbush") {
			t.Errorf("table %s holds the name: %s", table, out)
		}
	}
	if err := in.stop(); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(in.out.String(), name) {
		t.Error("the log of coc up holds the name")
	}
	files := 0
	err = filepath.WalkDir(data, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		files++
		if bytes.Contains(b, []byte(name)) {
			t.Errorf("%s holds the name", path)
		}
		return err
	})
	if err != nil || files < 20 {
		t.Fatalf("%d files searched, %v", files, err)
	}
}

// Killed at any moment, a restarted instance has each event once and goes on.
func TestKillDuringAnImportLosesAndDoublesNothing(t *testing.T) {
	data := t.TempDir()
	file := filepath.Join(t.TempDir(), "big.log")
	var b strings.Builder
	const n = 60_000
	for i := range n {
		at := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(i) * time.Second)
		fmt.Fprintf(&b, "%s web1 sshd[%d]: Failed password for root from 10.0.%d.%d port 22 ssh2\n", at.Format("Jan _2 15:04:05"), i, i/250%250, i%250)
	}
	if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, after := range []time.Duration{150 * time.Millisecond, 400 * time.Millisecond} {
		in := up(t, data, "--without", "host,processes,journal")
		importing := make(chan struct{})
		go func() {
			defer close(importing)
			coc(t, "import", "--data", data, "--format", "sshd", "--year", "2026", file) // fails when its server goes
		}()
		time.Sleep(after)
		in.kill()
		<-importing
	}
	in := up(t, data, "--without", "host,processes,journal")
	must(t, "import", "--data", data, "--format", "sshd", "--year", "2026", file)
	if got := count(t, data, "SELECT count() FROM events"); got != n {
		t.Errorf("%d events stored, %d imported", got, n)
	}
	if got := count(t, data, "SELECT uniqExact(process_pid) FROM events"); got != n {
		t.Errorf("%d different events stored, %d imported", got, n)
	}
	must(t, "ledger", "--data", data, "--check")
	if err := in.stop(); err != nil {
		t.Error(err)
	}
}

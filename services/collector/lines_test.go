package collector

import (
	"bufio"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencoc/coc/services/event"
)

// sharedData is where logs of others lie when they are there.
const sharedData = "../../../shared/data"

// sharedLines reads a log of others, or skips the test.
func sharedLines(t *testing.T, name string) []string {
	t.Helper()
	f, err := os.Open(filepath.Join(sharedData, name))
	if err != nil {
		t.Skipf("the shared data is not here: %v", err)
	}
	defer f.Close()
	var lines []string
	s := bufio.NewScanner(f)
	s.Buffer(nil, limitLine)
	for s.Scan() {
		lines = append(lines, s.Text())
	}
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	return lines
}

func fixed(t time.Time) func() time.Time { return func() time.Time { return t } }

var testNow = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func parseAll(t *testing.T, p *lineParser, lines []string) []event.Event {
	t.Helper()
	var all []event.Event
	for i, line := range lines {
		drafts, err := p.parse(line)
		if err != nil {
			t.Fatalf("line %d: %v", i+1, err)
		}
		for _, d := range drafts {
			e := d.Event
			e.Labels = append([]event.Label(nil), e.Labels...)
			for range d.rows() {
				all = append(all, e)
			}
		}
	}
	return all
}

func TestARealAuthLogGivesItsKnownNumbers(t *testing.T) {
	lines := sharedLines(t, "logs/sshd_auth.log")
	p := newLineParser(formatSSHD, time.UTC, fixed(testNow), 2016)
	events := parseAll(t, p, lines)
	if len(events) != 7446 {
		t.Errorf("%d events, want 7446", len(events))
	}
	var failed []event.Event
	addresses := map[string]bool{}
	actions := map[string]int{}
	for _, e := range events {
		actions[e.Action+"/"+e.Outcome]++
		if y := time.UnixMilli(e.Time).UTC().Year(); y != 2016 {
			t.Fatalf("an event of %d", y)
		}
		if e.Action == "login" && e.Outcome == failure {
			failed = append(failed, e)
			addresses[e.SourceIP] = true
		}
	}
	if len(failed) != 1038 || len(addresses) != 105 {
		t.Errorf("%d failed logins from %d addresses, want 1038 from 105", len(failed), len(addresses))
	}
	if n := actions["login/success"]; n != 226 {
		t.Errorf("%d accepted logins, want 226", n)
	}
	if n := actions["invalid_user/failure"]; n != 178 {
		t.Errorf("%d invalid users, want 178", n)
	}
	for _, want := range []struct{ least, addresses int }{{10, 10}, {5, 101}} {
		if got := len(guessers(failed, want.least)); got != want.addresses {
			t.Errorf("%d addresses with %d or more failed logins within 10 minutes, want %d", got, want.least, want.addresses)
		}
	}
	if actions[actionLine+"/"] > 40 {
		t.Errorf("%d lines are not understood, too many: %v", actions[actionLine+"/"], actions)
	}
}

// guessers is the naive form of the rule "at least n failed logins of one
// address within (t - 10 min, t]".
func guessers(failed []event.Event, least int) map[string]bool {
	found := map[string]bool{}
	for _, last := range failed {
		n := 0
		for _, e := range failed {
			if e.SourceIP == last.SourceIP && e.Time <= last.Time && e.Time > last.Time-10*60*1000 {
				n++
			}
		}
		if n >= least {
			found[last.SourceIP] = true
		}
	}
	return found
}

func TestEveryLineOfARealAccessLogBecomesAnEvent(t *testing.T) {
	lines := sharedLines(t, "logs/apache_access_10k.log")
	p := newLineParser(formatAccess, time.UTC, fixed(testNow), 0)
	events := parseAll(t, p, lines)
	if len(events) != 10_000 {
		t.Fatalf("%d events, want 10000", len(events))
	}
	// What awk says: '{print $1}', '{print $9}' and the sum of $10.
	clients, statuses, bytes := map[string]int{}, map[string]int{}, int64(0)
	for _, line := range lines {
		f := strings.Fields(line)
		clients[f[0]]++
		statuses[f[8]]++
		bytes += digitsValue(f[9])
	}
	gotClients, gotStatuses, gotBytes := map[string]int{}, map[string]int{}, int64(0)
	for _, e := range events {
		if e.Kind != kindUser || e.Action != "http_request" {
			t.Fatalf("not a request: %s", event.AppendJSON(nil, &e))
		}
		if (e.Outcome == success) != (e.Label("status") < "400") {
			t.Fatalf("outcome %s at status %s", e.Outcome, e.Label("status"))
		}
		gotClients[e.SourceIP]++
		gotStatuses[e.Label("status")]++
		gotBytes += e.Bytes
	}
	if len(clients) != 1753 || !sameCounts(clients, gotClients) {
		t.Errorf("%d clients, want the %d of awk", len(gotClients), len(clients))
	}
	if !sameCounts(statuses, gotStatuses) {
		t.Errorf("statuses %v, want %v", gotStatuses, statuses)
	}
	if bytes != gotBytes {
		t.Errorf("%d bytes, want %d", gotBytes, bytes)
	}
}

func digitsValue(s string) (n int64) {
	if !digits(s) {
		return 0
	}
	for i := range len(s) {
		n = n*10 + int64(s[i]-'0')
	}
	return n
}

func sameCounts(a, b map[string]int) bool {
	if len(a) != len(b) {
		return false
	}
	for k, n := range a {
		if b[k] != n {
			return false
		}
	}
	return true
}

package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// clientCommands are those whose help is held by golden files.
var clientCommands = []string{"findings", "tail", "tenants", "usage", "sql", "import", "sources check", "sources list", "sources test", "simulate",
	"rules check", "rules test", "backtest", "ledger", "token new", "token list", "token revoke"}

// call runs a command line in this process.
func call(t *testing.T, in string, args ...string) (code int, out, errs string) {
	t.Helper()
	t.Setenv("COLUMNS", "100")
	var o, e strings.Builder
	code = run(t.Context(), args, nil, strings.NewReader(in), &o, &e)
	return code, o.String(), e.String()
}

func TestHelpOfTheClientCommands(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", "/home/you/.local/share")
	var all strings.Builder
	for _, c := range clientCommands {
		code, out, errs := call(t, "", append(strings.Fields(c), "--help")...)
		if code != 0 || errs != "" {
			t.Errorf("coc %s --help: %d %s", c, code, errs)
		}
		all.WriteString("##### coc " + c + " --help\n" + out + "\n")
	}
	golden(t, "help", all.String())
}

// TestEveryFlagSaysItsDefault: a flag whose help names no default, and which is
// not required, leaves one guessing.
func TestEveryFlagSaysItsDefault(t *testing.T) {
	var cli CLI
	parser, err := newParser(&cli, &strings.Builder{}, &strings.Builder{})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range allFlags(parser.Model.Node) {
		if f.Name != "help" && !f.Required && !strings.Contains(f.Help, "default") && !f.IsBool() {
			t.Errorf("--%s says no default: %s", f.Name, f.Help)
		}
	}
}

func TestWrongUseEndsWithTwoAndSaysWhat(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct{ args, want string }{
		{"findings --since yesterday", "--since"},
		{"findings --until 5", "--until"},
		{"findings --limit 0", "--limit"},
		{"findings --class abusive", "--class"},
		{"findings --nonsense", "nonsense"},
		{"tenants --times --above", "--above"},
		{"tenants --from 2026-01-01", "--times"},
		{"usage --from 1-1-2026", "2026-11-23"},
		{"sql", "query"},
		{"sql --limit -1 x", "--limit"},
		{"tail --limit -1", "--limit=-1"},
		{"tail --limit x", `--limit: "x" is no whole number`},
		{"tail --limit", "--limit needs a value"},
		{"tail --kind x", `--kind: "x" is none of system, process and user`},
		{"sources", "what to do is missing"},
		{"help fnidings", `did you mean "findings"?`},
		{"help rules chek", `no command "rules chek", did you mean "check"?`},
		{"help help me", `no command "help me"`},
		{"help help me more", `no command "help me"`},
		{"help up x", `no command "up x"`},
		{"up --keep 5", `--keep: "5" is no length of time`},
		{"up --listen nonsense", `--listen "nonsense" is no address`},
		{"up --listen 127.0.0.1:99999", "is no address"},
		{"up --nats-listen nonsense", `--nats-listen "nonsense" is no address`},
		{"up --rules ../../rules --without nosuch", "there are host, processes, journal"},
		{"engine --rules ../../rules --nats nats://127.0.0.1:1 --listen nonsense", "is no address"},
		{"ledger --from x", "--from"},
		{"token new --role king --expires 1d", "king"},
		{"token new --role analyst --expires soon", "--expires"},
		{"token new --role intake --expires 1d", "--source"},
		{"token new --role analyst --source x --expires 1d", "--source"},
		{"token revoke coc_abc_def", "secret"},
		{"import", "file"},
		{"import --format x f", "--format"},
		{"import --tz Mars/Olympus f", "Mars"},
		{"import --dry-run --zone Mars/Olympus f", "Mars"},
		{"simulate --tenants 0", "tenants"},
		{"simulate --end soon", "--end"},
		{"rules test --zone Mars/Olympus " + dir, "Mars"},
		{"backtest --rules " + dir, "events"},
		{"findings --server elsewhere --token-file /dev/null", "secret"},
	} {
		code, out, errs := call(t, "", strings.Fields(c.args)...)
		want := 2
		if strings.Contains(c.args, "/dev/null") {
			want = 1
		}
		if code != want || !strings.Contains(errs, c.want) || out != "" {
			t.Errorf("coc %s: exit %d, want %d with %q\n%s%s", c.args, code, want, c.want, out, errs)
		}
	}
}

func TestFailuresEndWithOneAndSayWhatToDo(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct{ args, want string }{
		{"findings --data " + dir, "coc up --data " + dir},
		{"tail --data " + dir, "coc up --data " + dir},
		{"import --data " + dir + " f", "coc up --data " + dir},
		{"rules check " + dir, dir},
		{"rules check " + dir + "/none", "none"},
		{"sources check " + dir + "/none.yaml", "none.yaml: no such file or directory; give"},
		{"up --rules ../../rules --sources " + dir + "/none.yaml", "none.yaml: no such file or directory; give"},
		{"health --server http://127.0.0.1:1", "no answer from http://127.0.0.1:1: "},
		{"simulate --out " + dir, "exists"},
		{"simulate --out " + dir + "/none/x", "cannot write"},
		{"import --dry-run " + dir, "folder"},
		{"import --dry-run " + dir + "/none", "none"},
		{"backtest --rules ../../rules --events " + dir + "/none", "none"},
	} {
		code, _, errs := call(t, "", strings.Fields(c.args)...)
		if code != 1 || !strings.Contains(errs, c.want) || strings.Contains(errs, "goroutine") {
			t.Errorf("coc %s: exit %d, want 1 with %q\n%s", c.args, code, c.want, errs)
		}
	}
}

// TestTheVersionIsToldEitherWay: --version is what everybody types first.
func TestTheVersionIsToldEitherWay(t *testing.T) {
	for _, c := range []string{"version", "--version"} {
		if code, out, errs := call(t, "", c); code != 0 || out != "coc "+version+"\n" || errs != "" {
			t.Errorf("coc %s: %d %q %q", c, code, out, errs)
		}
	}
}

// TestTheGreetingFitsTheInstance: its commands can be typed as they stand.
func TestTheGreetingFitsTheInstance(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", "/home/you/.local/share")
	var all strings.Builder
	for _, g := range []greeting{
		{program: "/usr/bin/coc", data: defaultDataDir(), url: localURL("http://127.0.0.1:8484"), rules: 25, watches: true},
		{program: "bin/coc", data: "/srv/it's here", url: localURL("http://[::]:9000"), rules: 1},
		{program: "coc", data: "demo", url: localURL("http://0.0.0.0:80"), rules: 2},
	} {
		all.WriteString(g.text())
	}
	golden(t, "greeting", all.String())
}

// TestHealthAsksTheInstanceOfTheDataFolder wherever it listens.
func TestHealthAsksTheInstanceOfTheDataFolder(t *testing.T) {
	dir := t.TempDir()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" || r.Header.Get("Authorization") != "" {
			t.Errorf("%s with %q", r.URL.Path, r.Header.Get("Authorization"))
		}
		_, _ = w.Write([]byte(`{"ready":true,"dependencies":{"bus":"ok"}}`))
	}))
	if err := writeInstance(dir, instanceFile{URL: srv.URL, Token: "x"}); err != nil {
		t.Fatal(err)
	}
	if code, out, errs := call(t, "", "health", "--data", dir); code != 0 || !strings.Contains(out, "bus") {
		t.Error(code, out, errs)
	}
	srv.Close() // as kill -9 leaves it
	for _, c := range []string{"health", "url"} {
		if code, out, errs := call(t, "", c, "--data", dir); code != 1 || out != "" || !strings.Contains(errs, "coc up --data "+dir) {
			t.Error(c, code, out, errs)
		}
	}
}

// TestAnEmptyStatementIsWrongUse also when it comes from a pipe.
func TestAnEmptyStatementIsWrongUse(t *testing.T) {
	for in, want := range map[string]string{" \n": "no statement", strings.Repeat("x", maxStatement+1): "longer"} {
		if code, _, errs := call(t, in, "sql", "-"); code != 2 || !strings.Contains(errs, want) {
			t.Errorf("%.10q: %d %s", in, code, errs)
		}
	}
}

// TestFilesAloneNeedNoServer goes from made-up events to findings.
func TestFilesAloneNeedNoServer(t *testing.T) {
	dir := t.TempDir()
	file := dir + "/demo.ndjson"
	if code, _, errs := call(t, "", "simulate", "--tenants", "12", "--days", "2", "--seed", "1", "--end", "2026-11-20", "--out", file); code != 0 || !strings.Contains(errs, "12 tenants") {
		t.Fatal(code, errs)
	}
	code, direct, errs := call(t, "", "backtest", "--rules", "../../rules", "--events", file, "--json")
	if code != 0 {
		t.Fatal(code, errs)
	}
	code, dry, errs := call(t, "", "import", "--dry-run", "--format", "json", file)
	if code != 0 || !strings.Contains(errs, "events from") {
		t.Fatal(code, errs)
	}
	// The same events through a pipe: the same findings, but for the ids of the
	// events, which an import gives.
	code, piped, errs := call(t, dry, "backtest", "--rules", "../../rules", "--events", "-", "--json")
	if code != 0 {
		t.Fatal(code, errs)
	}
	if a, b := strings.Count(direct, "\n"), strings.Count(piped, "\n"); a == 0 || a != b {
		t.Errorf("%d findings from the file, %d from the dry run", a, b)
	}
	code, table, errs := call(t, "", "backtest", "--rules", "../../rules", "--events", file)
	if code != 0 || !strings.Contains(table, "FIRED") || !strings.Contains(table, "Europe/Amsterdam") {
		t.Error(code, table, errs)
	}
	if code, _, errs := call(t, "", "backtest", "--rules", "../../rules", "--events", file, "--rule", "none"); code != 2 || !strings.Contains(errs, "no rule none") {
		t.Error(code, errs)
	}
}

func TestRulesAreCheckedAndTested(t *testing.T) {
	code, out, errs := call(t, "", "rules", "check", "../../rules")
	if code != 0 || !strings.Contains(out, "is in order: 25 rules, ") {
		t.Error(code, out, errs)
	}
	code, out, errs = call(t, "", "rules", "test", "../../rules", "--json")
	if code != 0 || strings.Contains(out, `"passed":false`) || !strings.Contains(out, `"passed":true`) {
		t.Error(code, out, errs)
	}
	dir := t.TempDir()
	writeRule(t, dir, `findings: 2`)
	code, out, errs = call(t, "", "rules", "test", dir)
	if code != 1 || !strings.Contains(out, "FAILED  mine.login: a login") || !strings.Contains(out, "login.yaml:8") || !strings.Contains(errs, "1 test of 1 failed") {
		t.Error(code, out, errs)
	}
	writeRule(t, dir, `findings: 1`)
	if code, out, errs = call(t, "", "rules", "test", dir, "--all"); code != 0 || !strings.Contains(out, "passed  mine.login: a login") || !strings.Contains(out, "1 test of 1 rule passed") {
		t.Error(code, out, errs)
	}
	writeRule(t, dir, `findingz: 1`)
	if code, _, errs = call(t, "", "rules", "check", dir); code != 1 || !strings.Contains(errs, "login.yaml:") || !strings.Contains(errs, "^") {
		t.Error(code, errs)
	}
}

func TestALogLineIsTried(t *testing.T) {
	line := "Dec 10 06:55:46 web1 sshd[24200]: Failed password for root from 203.0.113.9 port 38926 ssh2"
	code, out, errs := call(t, "", "sources", "test", "--year", "2016", "--tz", "UTC", line)
	for _, want := range []string{"1 event", "2016-12-10T06:55:46.000Z", "failure", "203.0.113.9", line} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("%d, no %s in\n%s%s", code, want, out, errs)
		}
	}
	if code, out, errs := call(t, "", "sources", "test", "--json", line); code != 0 || !strings.HasPrefix(out, `{"time":`) {
		t.Error(code, out, errs)
	}
}

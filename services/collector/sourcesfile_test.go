package collector

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestAGoodSourcesFile(t *testing.T) {
	s, err := ParseSources("sources.yaml", []byte(`
# what this collector collects
system_accounts: [svc-*, erp]
sources:
  - kind: host
    every: 30s
  - name: auth
    kind: logfile
    path: /var/log/auth.log
    format: sshd
    tz: Europe/Amsterdam
    host: web1
    tenant: t1
    labels: {role: web, rack: 7}
    expect: 1d
    lateness: 5m
  - {name: site, kind: logfile, path: /var/log/x.log}
  - kind: http
`))
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Sources) != 4 || len(s.SystemAccounts) != 2 {
		t.Fatalf("%+v", s)
	}
	a := s.Sources[1]
	if a.Name != "auth" || a.Expect != 24*time.Hour || a.Lateness != 5*time.Minute || a.Labels["rack"] != "7" || a.Line != 7 || a.TZ != "Europe/Amsterdam" {
		t.Errorf("%+v", a)
	}
	if s.Sources[0].Name != "host" || s.Sources[0].Every != 30*time.Second || s.Sources[2].Format != formatSyslog || s.Sources[3].Lateness != time.Hour {
		t.Errorf("%+v", s.Sources)
	}
}

func TestAllErrorsOfASourcesFileAtOnceWithTheirPlaces(t *testing.T) {
	f := func(text string, want ...string) {
		t.Helper()
		_, err := ParseSources("s.yaml", []byte(text))
		var all *SourceErrors
		if !errors.As(err, &all) {
			t.Errorf("%q gives %v", text, err)
			return
		}
		var got []string
		for _, e := range all.Errors {
			got = append(got, strings.SplitN(e.Error(), "\n", 2)[0])
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("%s\ngives\n%s\nwant\n%s", text, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	f("", `s.yaml:1:1: the file is empty; write "sources:" and a list, or leave the file away for the built-in sources`)
	f("source:\n  - kind: host\n", `s.yaml:1:1: unknown key "source"; known are sources, system_accounts`, `s.yaml:1:7: there is no key "sources"`)
	f("sources: 5\n", `s.yaml:1:10: sources must be a list (- name: …)`)
	f("sources:\n  - 5\n", `s.yaml:2:5: a source must be a mapping (key: value)`)
	f("sources:\n  - name: x\n", `s.yaml:2:5: the source has no kind; known are host, processes, journal, logfile, http, nats`)
	f("sources:\n  - kind: hots\n", `s.yaml:2:11: unknown kind "hots"; known are host, processes, journal, logfile, http, nats`)
	f("sources:\n  - kind: host\n    evry: 5s\n", `s.yaml:3:5: unknown key "evry" for kind host; known are name, kind, every, host, labels, expect, lateness`)
	f("sources:\n  - kind: host\n    every: 5\n    every: 6s\n", `s.yaml:3:12: every is "5"; write a duration such as 10s, 5m, 6h or 30d`, `s.yaml:4:5: every is given twice`)
	f("sources:\n  - kind: host\n    every: 10ms\n", `s.yaml:3:12: every is 10ms; 1s to 1h0m0s is accepted`)
	f("sources:\n  - kind: logfile\n", `s.yaml:2:5: a logfile has a path`)
	f("sources:\n  - kind: logfile\n    path: auth.log\n    format: xml\n    tz: Mars\n",
		`s.yaml:3:11: path "auth.log" is not absolute; write it from /, so that it does not depend on where coc was started`,
		`s.yaml:4:13: unknown format "xml"; known are sshd, syslog, access, json`,
		`s.yaml:5:9: unknown time zone "Mars"; write one such as Europe/Amsterdam or UTC`)
	f("sources:\n  - kind: http\n  - kind: http\n    name: b\n", `s.yaml:3:1: a second source of kind http; the first is in line 2, and one is all there can be`)
	f("sources:\n  - {kind: logfile, name: a, path: /a}\n  - {kind: logfile, name: a, path: /b}\n", `s.yaml:3:5: source "a" has the name of the one in line 2`)
	f("sources:\n  - {kind: host, name: a b}\n", `s.yaml:2:24: name "a b": use 1 to 64 of A-Z a-z 0-9 - and _`)
	f("sources:\n  - kind: host\n    labels: x\n", `s.yaml:3:13: labels must be a mapping (key: value)`)
	f("a\x00b", `s.yaml:1:1: the line holds a byte that is no text (0x00)`)
}

func TestASourcesErrorShowsTheLineAndACaret(t *testing.T) {
	_, err := ParseSources("s.yaml", []byte("sources:\n  - kind: hots\n  - kind: host\n\tx"))
	if err == nil {
		t.Fatal("no error")
	}
	_, err = ParseSources("s.yaml", []byte("sources:\n  - kind: hots\n    every: x\n"))
	want := "s.yaml:2:11: unknown kind \"hots\"; known are host, processes, journal, logfile, http, nats\n      - kind: hots\n              ^"
	if err == nil || err.Error() != want {
		t.Errorf("error\n%v\nwant\n%s", err, want)
	}
}

func TestASourcesFileThatIsNone(t *testing.T) {
	dir := t.TempDir()
	if _, err := LoadSources(dir); err == nil || !strings.Contains(err.Error(), "folder") {
		t.Errorf("a folder: %v", err)
	}
	if _, err := LoadSources(filepath.Join(dir, "none.yaml")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("none: %v", err)
	}
	big := filepath.Join(dir, "big.yaml")
	if err := os.WriteFile(big, make([]byte, limitSourcesFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadSources(big); err == nil || !strings.Contains(err.Error(), "larger") {
		t.Errorf("a big one: %v", err)
	}
}

func FuzzParseSources(f *testing.F) {
	f.Add("sources:\n  - kind: host\n    every: 30s\n")
	f.Add("sources: [{kind: logfile, path: /x, labels: {a: b}}]\nsystem_accounts: [a]\n")
	f.Add("a: &x [*x]\n")
	f.Add("? {a: b}\n: c\n")
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 4096 {
			return
		}
		s, err := ParseSources("f", []byte(text))
		if (s == nil) == (err == nil) {
			t.Fatal("neither or both")
		}
	})
}

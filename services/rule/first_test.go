package rule

import (
	"testing"
	"testing/fstest"
	"time"
	_ "time/tzdata"
)

func amsterdam(t fataler) *time.Location {
	t.Helper()
	z, err := time.LoadLocation("Europe/Amsterdam")
	if err != nil {
		t.Fatal(err)
	}
	return z
}

func loadFiles(t fataler, files map[string]string) *Set {
	t.Helper()
	s, err := tryLoad(t, files)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func tryLoad(t fataler, files map[string]string) (*Set, error) {
	t.Helper()
	m := fstest.MapFS{}
	for n, c := range files {
		m[n] = &fstest.MapFile{Data: []byte(c)}
	}
	return Load(m, Options{Zone: amsterdam(t)})
}

const guessing = `id: abuse.guessing
title: {en: Guessing, nl: Raden}
class: abuse
severity: medium
match: kind == "user" && action == "login" && outcome == "failure"
group_by: [source.ip]
window: 10m
condition: count >= 10
suppress: 1h
tests:
  - name: ten failures
    with: {kind: user, action: login, outcome: failure, source.ip: 203.0.113.9}
    events:
      - {repeat: 9, every: 30s}
      - {at: 5m, user.name: root}
    expect: {findings: 1, key: {source.ip: 203.0.113.9}, count: 10, fired: 5m}
  - name: nine are fine
    with: {kind: user, action: login, outcome: failure, source.ip: 203.0.113.9}
    events: [{repeat: 9, every: 30s}]
    expect: {findings: 0}
`

func TestRuleFileTestsRun(t *testing.T) {
	s := loadFiles(t, map[string]string{"abuse/guessing.yaml": guessing})
	for _, r := range RunTests(s) {
		if !r.Passed {
			t.Errorf("%s: %s", r.Name, r.Problem)
		}
		t.Logf("%+v", r.Findings)
	}
}

// fataler is what helpers need of testing.TB and of rapid.T.
type fataler interface {
	Helper()
	Fatal(args ...any)
}

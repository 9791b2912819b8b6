package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTheInstanceFileIsOnesOwn(t *testing.T) {
	dir := t.TempDir()
	if _, err := readInstance(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without one: %v", err)
	}
	in := instanceFile{URL: "http://127.0.0.1:1", Token: "coc_x_y", PID: 7, Version: "1"}
	for range 2 { // also over an old one
		if err := writeInstance(dir, in); err != nil {
			t.Fatal(err)
		}
	}
	got, err := readInstance(dir)
	if err != nil || got != in {
		t.Errorf("read %+v, %v", got, err)
	}
	s, err := os.Stat(instancePath(dir))
	if err != nil || s.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", s.Mode(), err)
	}
	if list, _ := filepath.Glob(filepath.Join(dir, ".instance*")); len(list) != 0 {
		t.Errorf("left behind: %v", list)
	}
	if err := os.Chmod(instancePath(dir), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := readInstance(dir); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("one that others may read: %v", err)
	}
	if err := os.WriteFile(instancePath(dir), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(instancePath(dir), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readInstance(dir); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a damaged one: %v", err)
	}
	if err := writeInstance(filepath.Join(dir, "none"), in); err == nil {
		t.Error("written into a folder that is not there")
	}
}

func TestWithoutAnInstanceOneIsToldHowToStartOne(t *testing.T) {
	g, _, _ := globals("")
	dir := t.TempDir()
	want := fmt.Sprintf("no coc runs on %s: start it with `coc up --data %s`, or give --data or --server of one that runs", dir, dir)
	if _, err := (&ClientFlags{Data: dir}).connect(g); err == nil || err.Error() != want {
		t.Errorf("none ever ran: %v", err)
	}
	// One that was killed: its file is there, and nobody listens.
	s := httptest.NewServer(http.NotFoundHandler())
	url := s.URL
	s.Close()
	if err := writeInstance(dir, instanceFile{URL: url, Token: "coc_x_y"}); err != nil {
		t.Fatal(err)
	}
	c, err := (&ClientFlags{Data: dir}).connect(g)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.get(t.Context(), "/v1/findings", nil, nil); err == nil || err.Error() != want {
		t.Errorf("one that was killed: %v", err)
	}
}

func TestTheLocalTokenIsNeverSentElsewhere(t *testing.T) {
	g, _, errs := globals("")
	dir := t.TempDir()
	if err := writeInstance(dir, instanceFile{URL: "http://127.0.0.1:1", Token: "coc_x_y"}); err != nil {
		t.Fatal(err)
	}
	var wrong usageError
	if _, err := (&ClientFlags{Data: dir, Server: "https://elsewhere"}).connect(g); !errors.As(err, &wrong) {
		t.Errorf("--server without a token: %v", err)
	}
	file := filepath.Join(dir, "token")
	if err := os.WriteFile(file, []byte("coc_a_b\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := (&ClientFlags{Data: dir, Server: "http://elsewhere:80/", TokenFile: file}).connect(g)
	if err != nil || c.token != "coc_a_b" || c.url != "http://elsewhere:80" || !strings.Contains(errs.String(), "without TLS") {
		t.Errorf("%+v, %v, %q", c, err, errs.String())
	}
	if c, err := (&ClientFlags{Data: dir, TokenFile: file}).connect(g); err != nil || c.token != "coc_a_b" || c.url != "http://127.0.0.1:1" {
		t.Errorf("another token for the local instance: %+v, %v", c, err)
	}
	for _, bad := range []string{"elsewhere", "ftp://x", "http://", "http://u:p@x", "http://x?y", ":"} {
		if _, err := (&ClientFlags{Server: bad, TokenFile: file}).connect(g); !errors.As(err, &wrong) {
			t.Errorf("--server %s: %v", bad, err)
		}
	}
	if _, err := (&ClientFlags{Server: "http://x", TokenFile: filepath.Join(dir, "none")}).connect(g); err == nil {
		t.Error("a token file that is not there was read")
	}
}

func TestErrorsOfAnInstanceAreToldInItsWords(t *testing.T) {
	answers := map[string]struct {
		status int
		body   string
		want   string
	}{
		"/problem": {403, `{"title":"Forbidden","detail":"the role product may not do this\u001b"}`, `the role product may not do this\x1b`},
		"/import":  {409, `{"error":"imported before"}`, "imported before"},
		"/details": {422, `{"detail":"validation failed","errors":[{"message":"unknown query parameter","location":"query.x"},{"message":"expected number","location":"query.y"}]}`,
			"validation failed: query.x unknown query parameter; query.y expected number"},
		"/other":    {502, `<html>`, "answered HTTP 502"},
		"/redirect": {302, ``, "points elsewhere"},
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer secret" {
			t.Errorf("%s was asked with %q", r.URL, r.Header.Get("Authorization"))
		}
		a, ok := answers[r.URL.Path]
		if !ok {
			t.Errorf("%s was asked: a redirect was followed", r.URL)
			return
		}
		if a.status == 302 {
			w.Header().Set("Location", "/elsewhere")
		}
		w.WriteHeader(a.status)
		fmt.Fprint(w, a.body)
	}))
	defer s.Close()
	c := &client{http: newHTTP(headerTimeout), url: s.URL, token: "secret"}
	for path, a := range answers {
		err := c.get(t.Context(), path, nil, nil)
		var wrong usageError
		if err == nil || !strings.Contains(err.Error(), a.want) || errors.As(err, &wrong) != (a.status == 422) {
			t.Errorf("%s: %v, want %s", path, err, a.want)
		}
	}
}

func TestAStreamThatBreaksIsNotTakenForItsEnd(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, `{"columns":[{"name":"n","type":"UInt64"}]}`)
		fmt.Fprintln(w, `{"row":[1]}`)
	}))
	defer s.Close()
	dir := t.TempDir()
	if err := writeInstance(dir, instanceFile{URL: s.URL, Token: "t"}); err != nil {
		t.Fatal(err)
	}
	g, out, _ := globals("")
	g.Ctx = t.Context()
	err := (&SQLCmd{Client: ClientFlags{Data: dir}, Query: "SELECT 1", Limit: 5, JSON: true}).Run(g)
	if err == nil || !strings.Contains(err.Error(), "broke off") || out.String() != "{\"n\":1}\n" {
		t.Errorf("%v, printed %q", err, out.String())
	}
	err = (&TailCmd{Client: ClientFlags{Data: dir}, Limit: 1}).Run(g)
	if err == nil {
		t.Error("a tail that ended without a word was fine")
	}
}

func TestACommandThatAsksTooOftenWaits(t *testing.T) {
	asked := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		body := make([]byte, 10)
		n, _ := r.Body.Read(body)
		switch {
		case asked == 1:
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(429)
		case asked == 2 && string(body[:n]) == `{"a":1}`:
			fmt.Fprint(w, `{}`)
		default:
			w.Header().Set("Retry-After", "3600")
			w.WriteHeader(429)
		}
	}))
	defer s.Close()
	c := &client{http: newHTTP(headerTimeout), url: s.URL, token: "t"}
	if err := c.ask(t.Context(), "POST", "/", nil, map[string]int{"a": 1}, nil); err != nil || asked != 2 {
		t.Errorf("%v after %d requests", err, asked)
	}
	if err := c.get(t.Context(), "/", nil, nil); err == nil || asked != 3 {
		t.Errorf("told to wait an hour: %v after %d requests", err, asked)
	}
}

// TestAHintNamesTheSameInstance: what is suggested can be typed as it stands.
func TestAHintNamesTheSameInstance(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", "/home/you/.local/share")
	t.Setenv("COC_DATA", "/srv/coc")
	for _, c := range []struct {
		flags ClientFlags
		want  string
	}{
		{ClientFlags{Data: defaultDataDir()}, ""},
		{ClientFlags{Data: "demo"}, " --data demo"},
		{ClientFlags{Data: "my demo"}, " --data 'my demo'"},
		{ClientFlags{Data: "/srv/coc"}, ""},
		{ClientFlags{Data: "demo", Server: "https://coc.example.org"}, " --server … --token-file …"},
	} {
		if got := c.flags.again(); got != c.want {
			t.Errorf("%+v: %q, want %q", c.flags, got, c.want)
		}
	}
}

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// What deploy/ holds is tried here as far as it goes without a container engine:
// command lines by the real parser, files by being there, scripts and servers'
// configurations by running them.

const repository = "../.."

// repoFile reads a file of the repository.
func repoFile(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repository, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// inRepo reports whether the repository has a file or folder of that name.
func inRepo(name string) bool {
	_, err := os.Stat(filepath.Join(repository, filepath.FromSlash(name)))
	return err == nil
}

// parseArgs reports what the real command line thinks of arguments.
func parseArgs(args []string) error {
	var cli CLI
	parser, err := newParser(&cli, io.Discard, io.Discard)
	if err != nil {
		return err
	}
	_, err = parser.Parse(args)
	return err
}

// parseEnv reports what coc thinks of variables, each NAME=value.
func parseEnv(vars []string) error {
	var cli CLI
	parser, err := newParser(&cli, io.Discard, io.Discard)
	if err != nil {
		return err
	}
	return checkEnvironment(parser, vars)
}

// pinned finds an image with a version in its tag.
var pinned = regexp.MustCompile(`^[a-z0-9./-]+:[0-9]+[0-9A-Za-z._-]*$`)

// dockerfile is what matters of deploy/Dockerfile.
type dockerfile struct {
	stages []string          // in order
	copies []string          // from the repository
	images map[string]string // stage → what it is FROM
	last   map[string][]string
	env    []string
}

// readDockerfile understands the part of the language that ours uses.
func readDockerfile(text string) dockerfile {
	d := dockerfile{images: map[string]string{}, last: map[string][]string{}}
	text = strings.ReplaceAll(text, "\\\n", " ")
	quoted := regexp.MustCompile(`"([^"]*)"`)
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		switch words[0] {
		case "FROM":
			d.stages = append(d.stages, words[len(words)-1])
			d.images[words[len(words)-1]] = words[1]
		case "COPY":
			if !strings.HasPrefix(words[1], "--from=") {
				d.copies = append(d.copies, words[1:len(words)-1]...)
			}
		case "ENV":
			d.env = append(d.env, words[1:]...)
		case "ENTRYPOINT", "CMD":
			var args []string
			for _, m := range quoted.FindAllStringSubmatch(line, -1) {
				args = append(args, m[1])
			}
			d.last[d.stages[len(d.stages)-1]+" "+words[0]] = args
		}
	}
	return d
}

func TestDockerfileBuildsFromWhatIsThere(t *testing.T) {
	text := repoFile(t, "deploy/Dockerfile")
	d := readDockerfile(text)
	if want := []string{"build", "library", "role", "up"}; !slices.Equal(d.stages, want) {
		t.Fatalf("stages %v, want %v", d.stages, want)
	}
	for stage, image := range d.images {
		if !pinned.MatchString(image) && !slices.Contains(d.stages, image) {
			t.Errorf("stage %s is FROM %s: name a version", stage, image)
		}
	}
	goVersion := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(repoFile(t, "go.mod"))
	if goVersion == nil || !strings.HasPrefix(d.images["build"], "golang:"+goVersion[1]+"-") {
		t.Errorf("stage build is FROM %s; go.mod says %v", d.images["build"], goVersion)
	}
	ignored := repoFile(t, ".dockerignore")
	if len(d.copies) < 6 {
		t.Errorf("only %v are copied from the repository", d.copies)
	}
	for _, name := range d.copies {
		if !inRepo(name) {
			t.Errorf("COPY %s: the repository has no such file", name)
		}
		if !strings.Contains(ignored, "\n!"+name+"\n") {
			t.Errorf("COPY %s: .dockerignore keeps it from the builder", name)
		}
	}
	if got := d.last["role ENTRYPOINT"]; !slices.Equal(got, []string{"coc"}) {
		t.Errorf("the entry point of the images is %v", got)
	}
	for _, stage := range []string{"role", "up"} {
		if err := parseArgs(d.last[stage+" CMD"]); err != nil {
			t.Errorf("CMD of stage %s: coc %v: %v", stage, d.last[stage+" CMD"], err)
		}
	}
	if err := parseEnv(d.env); err != nil {
		t.Errorf("ENV %v: %v", d.env, err)
	}
	if !strings.Contains(text, "--uid 10001 ") || !strings.Contains(repoFile(t, "deploy/compose/secrets.sh"), "\ncoc=10001 ") {
		t.Error("the uid of coc in deploy/Dockerfile and in deploy/compose/secrets.sh is not the same")
	}
}

// runSecrets runs the script of the compose file on a folder. It cannot give
// files to other users here: a chown of our own writes down who would get what.
func runSecrets(t *testing.T, dir string) (owners string) {
	t.Helper()
	bin := t.TempDir()
	log := filepath.Join(bin, "owners")
	if err := os.WriteFile(filepath.Join(bin, "chown"), []byte("#!/bin/sh\necho \"$1 $(basename \"$2\")\" >>"+log+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"nats", "clickhouse"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	script := strings.ReplaceAll(repoFile(t, "deploy/compose/secrets.sh"), "/secrets/", dir+"/")
	cmd := exec.Command("sh", "-c", script)
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("secrets.sh: %v\n%s", err, out)
	}
	text, err := os.ReadFile(log)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(text)
}

func TestSecretsAreMadeOnceAndForTheirReaders(t *testing.T) {
	dir := t.TempDir()
	owners := runSecrets(t, dir)
	for _, want := range []string{"10001 token.new", "0 authorization.conf.new", "10001 password.new", "101 password.xml.new"} {
		if !strings.Contains(owners, want+"\n") {
			t.Errorf("no file was given as %q; given were:\n%s", want, owners)
		}
	}
	made := map[string]string{}
	for _, name := range []string{"nats/token", "nats/authorization.conf", "clickhouse/password", "clickhouse/password.xml"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o400 {
			t.Errorf("%s has mode %v, want only its reader to read it", name, info.Mode())
		}
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		made[name] = string(text)
	}
	token, password := strings.TrimSpace(made["nats/token"]), strings.TrimSpace(made["clickhouse/password"])
	if len(token) != 64 || len(password) != 64 || token == password {
		t.Errorf("token of %d and password of %d characters, want 64 and two of them", len(token), len(password))
	}
	if !strings.Contains(made["nats/authorization.conf"], `"`+token+`"`) {
		t.Error("NATS is told another token than its clients")
	}
	sum := sha256.Sum256([]byte(password))
	if !strings.Contains(made["clickhouse/password.xml"], "<coc_password_sha256>"+hex.EncodeToString(sum[:])+"</") {
		t.Error("ClickHouse is told another password than its clients")
	}
	if again := runSecrets(t, dir); again != "" {
		t.Errorf("a second run made new files:\n%s", again)
	}
}

// unit is one systemd service: its settings in order, by name.
type unit map[string][]string

func readUnit(text string) unit {
	u := unit{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if name, value, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			u[name] = append(u[name], value)
		}
	}
	return u
}

// unitProblems says what is wrong with a service.
func unitProblems(u unit) (problems []string) {
	command := strings.Fields(strings.Join(u["ExecStart"], " "))
	if len(command) < 2 || command[0] != "/usr/lib/coc/coc" {
		return []string{fmt.Sprintf("ExecStart=%v does not run /usr/lib/coc/coc", command)}
	}
	if err := parseArgs(command[1:]); err != nil {
		problems = append(problems, fmt.Sprintf("%v: %v", command, err))
	}
	state := ""
	if i := slices.Index(command, "--data"); i >= 0 && i+1 < len(command) {
		state = path.Base(command[i+1])
	}
	if !slices.Equal(u["StateDirectory"], []string{state}) {
		problems = append(problems, fmt.Sprintf("--data is %q and StateDirectory is %v: it could not write there", state, u["StateDirectory"]))
	}
	for name, want := range map[string]string{"User": "coc", "NoNewPrivileges": "yes", "ProtectSystem": "strict", "PrivateTmp": "yes",
		"UMask": "0077", "TimeoutStopSec": "15s", "SystemCallFilter": "@system-service", "StateDirectoryMode": "0700"} {
		if !slices.Equal(u[name], []string{want}) {
			problems = append(problems, fmt.Sprintf("%s is %v, want %s", name, u[name], want))
		}
	}
	if len(u["CapabilityBoundingSet"]) != 1 {
		problems = append(problems, "CapabilityBoundingSet is not given: every right would be kept")
	}
	return problems
}

func TestSystemdUnitsRunWhatThereIs(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(repository, "deploy/systemd/*.service"))
	if err != nil || len(files) != 6 {
		t.Fatalf("units %v, %v; want one per role and one for all", files, err)
	}
	listens := map[string]string{}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		u := readUnit(string(text))
		for _, p := range unitProblems(u) {
			t.Errorf("%s: %s", filepath.Base(name), p)
		}
		role := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(name), "coc-"), ".service")
		command := strings.Fields(u["ExecStart"][0])
		if role != "coc.service" && role != "coc" && command[1] != role {
			t.Errorf("%s runs coc %s", filepath.Base(name), command[1])
		}
		if i := slices.Index(command, "--listen"); i < 0 {
			t.Errorf("%s: no --listen: the units' addresses would be one", filepath.Base(name))
		} else if other, taken := listens[command[i+1]]; taken && role != "coc" && other != "coc" {
			t.Errorf("%s and %s both listen on %s", role, other, command[i+1])
		} else {
			listens[command[i+1]] = role
		}
	}
	var vars []string
	for line := range strings.Lines(repoFile(t, "deploy/systemd/coc.env")) {
		if v := strings.TrimPrefix(strings.TrimSpace(line), "#"); strings.HasPrefix(v, "COC_") {
			vars = append(vars, v)
		}
	}
	if len(vars) < 5 {
		t.Errorf("deploy/systemd/coc.env shows only %v", vars)
	}
	if err := parseEnv(vars); err != nil {
		t.Errorf("deploy/systemd/coc.env: %v", err)
	}
}

func TestUnitCheckFails(t *testing.T) {
	good := repoFile(t, "deploy/systemd/coc-sink.service")
	f := func(old, replacement, want string) {
		t.Helper()
		if !strings.Contains(good, old) {
			t.Fatalf("the unit has no %q", old)
		}
		got := strings.Join(unitProblems(readUnit(strings.ReplaceAll(good, old, replacement))), "; ")
		if !strings.Contains(got, want) {
			t.Errorf("%q for %q: problems %q, want one with %q", replacement, old, got, want)
		}
	}
	f("coc sink", "coc sinks", "sinks")
	f("--data", "--folder", "--folder")
	f("StateDirectory=coc-sink", "StateDirectory=coc", "could not write")
	f("NoNewPrivileges=yes", "NoNewPrivileges=no", "NoNewPrivileges")
	f("CapabilityBoundingSet=\n", "\n", "every right")
	f("/usr/lib/coc/coc", "/usr/bin/true", "does not run")
}

package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

// loadCompose reads a compose file as a container engine would from the
// repository's root, with all profiles and without anybody's environment.
func loadCompose(t *testing.T, file string) *types.Project {
	t.Helper()
	o, err := cli.NewProjectOptions([]string{file}, cli.WithWorkingDirectory(repository), cli.WithProfiles([]string{"*"}))
	if err != nil {
		t.Fatal(err)
	}
	p, err := o.LoadProject(context.Background())
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return p
}

// foreign says which programs the images of others have, and the address a
// server inside answers on. From the images' own build files.
var foreign = map[string]struct {
	programs []string
	asks     string
}{
	"nats":                         {[]string{"nats-server", "wget"}, "127.0.0.1:8222"},
	"clickhouse/clickhouse-server": {[]string{"clickhouse-client", "wget"}, "127.0.0.1:8123"},
	"debian":                       {[]string{"/bin/sh"}, ""},
}

// composed is a compose file beside what it speaks of.
type composed struct {
	project *types.Project
	docker  dockerfile
	secrets string // text of the script that makes them
	version string
}

// problems says what of the compose file does not exist, service by service.
func (c composed) problems() (list []string) {
	for _, role := range runRoles() {
		if _, ok := c.project.Services[role]; !ok && role != "up" {
			list = append(list, fmt.Sprintf("there is no service for the role %s", role))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.project.Services)) {
		s := c.project.Services[name]
		for _, p := range slices.Concat(c.imageProblems(s), c.commandProblems(s), c.healthProblems(s), c.mountProblems(s), c.orderProblems(s), rightsProblems(s)) {
			list = append(list, name+": "+p)
		}
	}
	return list
}

// runRoles names the commands that run a role.
func runRoles() (names []string) {
	var cli CLI
	parser, err := newParser(&cli, os.Stdout, os.Stderr)
	if err != nil {
		return nil
	}
	for _, n := range parser.Model.Children {
		if n.Group != nil && n.Group.Key == "run" {
			names = append(names, n.Name)
		}
	}
	return names
}

func ours(s types.ServiceConfig) bool { return s.Build != nil }

func (c composed) imageProblems(s types.ServiceConfig) (list []string) {
	if !pinned.MatchString(s.Image) {
		list = append(list, fmt.Sprintf("image %q names no version", s.Image))
	}
	if !ours(s) {
		repo, _, _ := strings.Cut(s.Image, ":")
		if _, ok := foreign[repo]; !ok {
			list = append(list, fmt.Sprintf("image %s is not known to this test: add what it has", s.Image))
		}
		return list
	}
	if !strings.HasSuffix(s.Image, ":"+c.version) {
		list = append(list, fmt.Sprintf("image %s is not of version %s", s.Image, c.version))
	}
	if !slices.Contains(c.docker.stages, s.Build.Target) {
		list = append(list, fmt.Sprintf("the Dockerfile has no stage %q", s.Build.Target))
	}
	if !inRepo(s.Build.Dockerfile) {
		list = append(list, fmt.Sprintf("there is no %s", s.Build.Dockerfile))
	}
	return list
}

// commandProblems tries the command by the real parser, and what its flags name.
func (c composed) commandProblems(s types.ServiceConfig) (list []string) {
	if !ours(s) {
		repo, _, _ := strings.Cut(s.Image, ":")
		command := slices.Concat([]string(s.Entrypoint), []string(s.Command))
		if len(command) > 0 && !slices.Contains(foreign[repo].programs, command[0]) {
			list = append(list, fmt.Sprintf("its image has no program %s", command[0]))
		}
		for _, a := range command {
			if strings.HasPrefix(a, "/") && a != command[0] && !c.mounted(s, a) {
				list = append(list, fmt.Sprintf("%s is not mounted", a))
			}
		}
		return list
	}
	if err := parseArgs(s.Command); err != nil {
		list = append(list, fmt.Sprintf("coc %s: %v", strings.Join(s.Command, " "), err))
	}
	var vars []string
	for k, v := range s.Environment {
		if v != nil {
			vars = append(vars, k+"="+*v)
		}
	}
	if err := parseEnv(vars); err != nil {
		list = append(list, err.Error())
	}
	host := regexp.MustCompile(`^[a-z]+://([a-z]+):\d+$`)
	for _, a := range s.Command {
		flag, value, _ := strings.Cut(a, "=")
		if strings.HasPrefix(value, "/") && !c.mounted(s, value) {
			list = append(list, fmt.Sprintf("%s: nothing is mounted at %s", flag, value))
		}
		if m := host.FindStringSubmatch(value); m != nil {
			if _, ok := s.DependsOn[m[1]]; !ok {
				list = append(list, fmt.Sprintf("%s: it does not wait for a service %s", flag, m[1]))
			}
		}
	}
	return list
}

// mounted reports whether a path inside the container is there: mounted from the
// repository, or made by the script of the secrets in a volume.
func (c composed) mounted(s types.ServiceConfig, name string) bool {
	for _, v := range s.Volumes {
		rest, ok := strings.CutPrefix(name, v.Target)
		if !ok || rest != "" && rest[0] != '/' {
			continue
		}
		if v.Type == types.VolumeTypeBind {
			rel, err := filepath.Rel(c.project.WorkingDir, v.Source)
			return err == nil && inRepo(path.Join(filepath.ToSlash(rel), rest))
		}
		for _, made := range c.project.Services["secrets"].Volumes {
			if made.Type == types.VolumeTypeVolume && made.Source == v.Source {
				return strings.Contains(c.secrets, made.Target+rest+" ")
			}
		}
		return rest == ""
	}
	return false
}

func (c composed) healthProblems(s types.ServiceConfig) (list []string) {
	if s.HealthCheck == nil || s.HealthCheck.Disable {
		for _, other := range c.project.Services {
			if other.DependsOn[s.Name].Condition == types.ServiceConditionCompletedSuccessfully {
				return nil // it ends by itself, and who needs it waits for that
			}
		}
		return []string{"no health check"}
	}
	test := []string(s.HealthCheck.Test)
	if len(test) < 2 || test[0] != "CMD" {
		return []string{fmt.Sprintf("health check %q is no plain command", test)}
	}
	if !ours(s) {
		repo, _, _ := strings.Cut(s.Image, ":")
		if !slices.Contains(foreign[repo].programs, test[1]) {
			list = append(list, fmt.Sprintf("health check: its image has no program %s", test[1]))
		}
		if !strings.Contains(test[len(test)-1], "//"+foreign[repo].asks+"/") {
			list = append(list, fmt.Sprintf("health check: asks %s, the server answers on %s", test[len(test)-1], foreign[repo].asks))
		}
		return list
	}
	if test[1] != "coc" {
		return []string{fmt.Sprintf("health check: the image runs coc, not %s", test[1])}
	}
	if err := parseArgs(test[2:]); err != nil {
		list = append(list, fmt.Sprintf("health check %q: %v", test[1:], err))
	}
	port := func(args []string) string {
		all := strings.Join(args, " ")
		return all[strings.LastIndex(all, ":")+1:]
	}
	listen := slices.IndexFunc(s.Command, func(a string) bool { return strings.HasPrefix(a, "--listen=0.0.0.0:") })
	if listen < 0 || port(s.Command[listen:listen+1]) != port(test) {
		list = append(list, fmt.Sprintf("health check %q asks another port than the command listens on", test[1:]))
	}
	return list
}

func (c composed) mountProblems(s types.ServiceConfig) (list []string) {
	for _, v := range s.Volumes {
		switch v.Type {
		case types.VolumeTypeBind:
			rel, err := filepath.Rel(c.project.WorkingDir, v.Source)
			if err != nil || strings.HasPrefix(rel, "..") || !inRepo(filepath.ToSlash(rel)) {
				list = append(list, fmt.Sprintf("%s is mounted and is not in the repository", v.Source))
			}
			if !v.ReadOnly {
				list = append(list, fmt.Sprintf("%s is mounted to be written", rel))
			}
		case types.VolumeTypeVolume:
			if _, ok := c.project.Volumes[v.Source]; !ok {
				list = append(list, fmt.Sprintf("there is no volume %s", v.Source))
			}
		}
	}
	return list
}

func (c composed) orderProblems(s types.ServiceConfig) (list []string) {
	for name, d := range s.DependsOn {
		other, ok := c.project.Services[name]
		switch {
		case !ok:
			list = append(list, fmt.Sprintf("waits for %s, which is no service", name))
		case d.Condition == types.ServiceConditionHealthy && other.HealthCheck == nil:
			list = append(list, fmt.Sprintf("waits until %s is healthy, which it never says", name))
		case d.Condition == types.ServiceConditionStarted:
			list = append(list, fmt.Sprintf("waits until %s is started, which says nothing", name))
		}
	}
	return list
}

func rightsProblems(s types.ServiceConfig) (list []string) {
	if !slices.Contains(s.CapDrop, "ALL") || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") || s.Privileged {
		list = append(list, "keeps rights it does not need: cap_drop ALL and no-new-privileges")
	}
	for _, p := range s.Ports {
		if p.HostIP != "127.0.0.1" {
			list = append(list, fmt.Sprintf("port %s is open to other machines", p.Published))
		}
	}
	return list
}

func readComposed(t *testing.T, file string) composed {
	t.Helper()
	return composed{project: loadCompose(t, file), docker: readDockerfile(repoFile(t, "deploy/Dockerfile")),
		secrets: repoFile(t, "deploy/compose/secrets.sh"), version: strings.TrimSpace(repoFile(t, "VERSION"))}
}

func TestComposeFileNamesOnlyWhatExists(t *testing.T) {
	c := readComposed(t, filepath.Join(repository, "docker-compose.yml"))
	for _, p := range c.problems() {
		t.Error(p)
	}
	if roles := runRoles(); len(roles) < 6 {
		t.Errorf("the command line has only the roles %v", roles)
	}
	for image, module := range map[string]string{"nats": "github.com/nats-io/nats-server/v2"} {
		line := regexp.MustCompile(regexp.QuoteMeta(module) + ` v(\d+\.\d+)\.`).FindStringSubmatch(repoFile(t, "go.mod"))
		if got := c.project.Services[image].Image; line == nil || !strings.HasPrefix(got, image+":"+line[1]) {
			t.Errorf("the image %s is not of the version that is embedded and tested, %v", got, line)
		}
	}
	library := regexp.MustCompile(`"@chdb/lib-linux-x64-gnu": "(\d+\.\d+)\.`).FindStringSubmatch(repoFile(t, "package.json"))
	if got := c.project.Services["clickhouse"].Image; library == nil || !strings.HasSuffix(got, ":"+library[1]) {
		t.Errorf("the image %s is not of the version that is embedded and tested, %v", got, library)
	}
}

// change is a fault put into the good compose file, and the complaint it brings.
type change struct{ old, replacement, want string }

func TestComposeCheckFails(t *testing.T) {
	good := repoFile(t, "docker-compose.yml")
	// Several faults a file that do not hide each other: reading one takes a second.
	f := func(changes ...change) {
		t.Helper()
		text := good
		for _, c := range changes {
			if !strings.Contains(text, c.old) {
				t.Fatalf("the compose file has no %q", c.old)
			}
			text = strings.ReplaceAll(text, c.old, c.replacement)
		}
		file := filepath.Join(t.TempDir(), "docker-compose.yml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got := strings.Join(readComposed(t, file).problems(), "\n")
		for _, c := range changes {
			if !strings.Contains(got, c.want) {
				t.Errorf("%q for %q: problems\n%s\nwant one with %q", c.replacement, c.old, got, c.want)
			}
		}
	}
	f(
		change{"- sink\n", "- drain\n", "sink: coc drain"},
		change{"./deploy/nats/nats.conf:", "./deploy/nats/server.conf:", "server.conf is mounted and is not in the repository"},
		change{"\"wget\", \"-q\"", "\"curl\", \"-q\"", "no program curl"},
		change{"image: nats:2.15-alpine", "image: nats:latest", "names no version"},
		change{"dockerfile: deploy/Dockerfile", "dockerfile: Dockerfile", "there is no Dockerfile"},
		change{"cap_drop: [ALL]", "cap_drop: []", "keeps rights"},
		change{"condition: service_healthy", "condition: service_started", "says nothing"},
	)
	f(
		change{"--nats-secret-file=", "--nats-secret=", "unknown flag --nats-secret"},
		change{"--rules=/etc/coc/rules", "--rules=/etc/coc/rule", "nothing is mounted at /etc/coc/rule"},
		change{"\"coc\", \"health\"", "\"coc\", \"healthy\"", "health check [\"coc\" \"healthy\""},
		change{":8123/ping", ":8124/ping", "the server answers on 127.0.0.1:8123"},
		change{"image: coc-role:0.1.0", "image: coc-role:0.2.0", "is not of version"},
		change{"target: role", "target: rolls", "no stage \"rolls\""},
		change{"\"127.0.0.1:8484:8484\"", "\"8484:8484\"", "port 8484 is open"},
	)
	f(
		change{"--nats-secret-file=/run/coc/nats/token", "--nats-secret-file=/run/coc/nats/tokens", "nothing is mounted at /run/coc/nats/tokens"},
		change{"http://127.0.0.1:8484\"]", "http://127.0.0.1:8485\"]", "asks another port"},
		change{"--clickhouse=http://clickhouse:8123", "--clickhouse=http://house:8123", "does not wait for a service house"},
		change{"  stats:\n", "  statistics:\n", "no service for the role stats"},
		change{"/opt/secrets.sh:ro", "/opt/secret.sh:ro", "secrets: /opt/secrets.sh is not mounted"},
	)
}

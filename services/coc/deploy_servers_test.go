package main

import (
	"bytes"
	"context"
	"encoding/xml"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"github.com/opencoc/coc/services/bus"
)

// startNATS runs the server that deploy/nats configures, in a folder of the
// test, with the secret that deploy/compose/secrets.sh makes.
func startNATS(t *testing.T) (url, tokenFile string) {
	t.Helper()
	dir := t.TempDir()
	runSecrets(t, filepath.Join(dir, "made"))
	if err := os.Rename(filepath.Join(dir, "made", "nats"), filepath.Join(dir, "secret")); err != nil {
		t.Fatal(err)
	}
	text := repoFile(t, "deploy/nats/nats.conf")
	for old, replacement := range map[string]string{`"/data"`: `"` + filepath.Join(dir, "data") + `"`, `"0.0.0.0:4222"`: `"127.0.0.1:-1"`, `"127.0.0.1:8222"`: `"127.0.0.1:-1"`} {
		if !strings.Contains(text, old) {
			t.Fatalf("deploy/nats/nats.conf has no %s", old)
		}
		text = strings.Replace(text, old, replacement, 1)
	}
	file := filepath.Join(dir, "nats.conf")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := natsserver.ProcessConfigFile(file)
	if err != nil {
		t.Fatal(err)
	}
	o.NoSigs, o.NoLog = true, true
	s, err := natsserver.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	go s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the NATS server of deploy/nats did not start")
	}
	return s.ClientURL(), filepath.Join(dir, "secret", "token")
}

func TestNATSServerOfDeployCarriesTheBus(t *testing.T) {
	url, tokenFile := startNATS(t)
	token, err := readSecret(tokenFile)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	b, err := bus.Open(ctx, bus.Config{URL: url, Secret: token, Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := b.Close(ctx); err != nil {
			t.Error(err)
		}
	}()
	if err := b.Healthy(ctx); err != nil {
		t.Error(err)
	}
	streams, err := b.Info(ctx)
	if err != nil || len(streams) < 6 {
		t.Errorf("the bus has %d streams there, %v", len(streams), err)
	}
	// A batch as big as the bus allows must fit the server's own bound.
	p, err := b.NewPublisher(ctx, "test")
	if err != nil {
		t.Fatal(err)
	}
	meta := bus.Meta{Epoch: p.Epoch(), First: p.Next(), Rows: 1}
	if _, err := p.Publish(ctx, meta, make([]byte, bus.MaxMessageBytes)); err != nil {
		t.Errorf("a message of the greatest size: %v", err)
	}

	short, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	if other, err := bus.Open(short, bus.Config{URL: url, Secret: token + "x", Name: "stranger"}); err == nil {
		t.Error("the server let in a client with another secret")
		_ = other.Close(ctx)
	}
}

// TestComposedRolesRun starts the services that need no ClickHouse with the
// compose file's own command lines, the addresses and folders inside a container
// replaced by those of the test, until their health checks pass.
func TestComposedRolesRun(t *testing.T) {
	url, tokenFile := startNATS(t)
	c := readComposed(t, filepath.Join(repository, "docker-compose.yml"))
	for _, name := range []string{"collector", "engine"} {
		t.Run(name, func(t *testing.T) {
			s := c.project.Services[name]
			address := freeAddress(t)
			here := strings.NewReplacer("0.0.0.0:8484", address, "127.0.0.1:8484", address, "nats://nats:4222", url, "/run/coc/nats/token", tokenFile,
				"/etc/coc/rules", filepath.Join(repository, "rules"), "/etc/coc/sources.yaml", filepath.Join(repository, "deploy/compose/sources.yaml"))
			args := []string{s.Command[0], "--data=" + t.TempDir()}
			for _, a := range s.Command[1:] {
				args = append(args, here.Replace(a))
			}
			var check []string
			for _, a := range s.HealthCheck.Test[2:] { // after CMD coc
				check = append(check, here.Replace(a))
			}
			ctx, stop := context.WithCancel(context.Background())
			defer stop()
			var log bytes.Buffer // read after the end only
			ended := make(chan int, 1)
			go func() { ended <- run(ctx, args, nil, strings.NewReader(""), io.Discard, &log) }()
			healthy := func() bool {
				return run(context.Background(), check, nil, strings.NewReader(""), io.Discard, io.Discard) == 0
			}
			for end := time.Now().Add(30 * time.Second); !healthy(); time.Sleep(50 * time.Millisecond) {
				if time.Now().After(end) {
					stop()
					t.Fatalf("coc %s was not healthy by %q within 30 s; it ended with %d and said\n%s", strings.Join(args, " "), check, <-ended, log.String())
				}
			}
			stop()
			if code := <-ended; code != 0 {
				t.Errorf("coc %s ended with %d:\n%s", name, code, log.String())
			}
		})
	}
}

// freeAddress is one that nobody listens on now.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// element is one XML element with what is in it.
type element struct {
	XMLName  xml.Name
	Attrs    []xml.Attr `xml:",any,attr"`
	Children []element  `xml:",any"`
	Text     string     `xml:",chardata"`
}

// find gives the elements at a path below e.
func (e element) find(path ...string) (list []element) {
	if len(path) == 0 {
		return []element{e}
	}
	for _, c := range e.Children {
		if c.XMLName.Local == path[0] {
			list = append(list, c.find(path[1:]...)...)
		}
	}
	return list
}

func readXML(t *testing.T, text string) element {
	t.Helper()
	var e element
	if err := xml.Unmarshal([]byte(text), &e); err != nil {
		t.Fatal(err)
	}
	if e.XMLName.Local != "clickhouse" {
		t.Fatalf("the root is <%s>", e.XMLName.Local)
	}
	return e
}

// privileges are the words of GRANT statements without their scope, sorted.
func privileges(grants []string) (list []string) {
	scope := regexp.MustCompile(` ON \S*\.\S*$`)
	for _, g := range grants {
		g = scope.ReplaceAllString(strings.TrimPrefix(strings.TrimSpace(g), "GRANT "), "")
		list = append(list, strings.Split(g, ", ")...)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func TestClickHouseUserMayDoWhatTheStoreDoes(t *testing.T) {
	users := readXML(t, repoFile(t, "deploy/clickhouse/users.d/coc.xml"))
	var given []string
	for _, q := range users.find("users", "coc", "grants", "query") {
		given = append(given, q.Text)
	}
	// The store's tests run under the embedded engine's grants: what suffices
	// there, over all databases, suffices here over coc's own.
	var enough []string
	for _, m := range regexp.MustCompile(`<query>(GRANT [^<]+)</query>`).FindAllStringSubmatch(repoFile(t, "services/store/engine_config.go"), -1) {
		enough = append(enough, m[1])
	}
	if len(enough) < 3 {
		t.Fatalf("the store's own grants were not found, only %q", enough)
	}
	if got, want := privileges(given), privileges(enough); !slices.Equal(got, want) {
		t.Errorf("the user coc may %q,\nthe store works with %q", got, want)
	}
	for _, g := range given {
		if strings.HasSuffix(g, " ON *.*") && (strings.Contains(g, "SELECT") || strings.Contains(g, "INSERT") || strings.Contains(g, "DROP")) {
			t.Errorf("%s: over every database of the server", g)
		}
	}
}

func TestClickHouseFindsThePasswordThatIsMade(t *testing.T) {
	users := readXML(t, repoFile(t, "deploy/clickhouse/users.d/coc.xml"))
	include := users.find("include_from")
	if len(include) != 1 {
		t.Fatalf("include_from: %v", include)
	}
	c := readComposed(t, filepath.Join(repository, "docker-compose.yml"))
	if !c.mounted(c.project.Services["clickhouse"], include[0].Text) {
		t.Errorf("nothing is at %s in the container", include[0].Text)
	}
	hash := users.find("users", "coc", "password_sha256_hex")
	if len(hash) != 1 || len(hash[0].Attrs) != 1 || !strings.Contains(c.secrets, "<"+hash[0].Attrs[0].Value+">") {
		t.Errorf("the password is included as %v, which deploy/compose/secrets.sh does not make", hash)
	}
	if profile := users.find("users", "coc", "profile"); len(profile) != 1 || len(users.find("profiles", profile[0].Text)) != 1 {
		t.Errorf("the profile of coc is %v, which is not there", profile)
	}
	for _, ip := range users.find("users", "default", "networks", "ip") {
		if !slices.Contains([]string{"127.0.0.1", "::1"}, ip.Text) {
			t.Errorf("the user default, who has no password, is let in from %s", ip.Text)
		}
	}
	config := readXML(t, repoFile(t, "deploy/clickhouse/config.d/coc.xml"))
	for _, log := range []string{"query_log", "part_log"} {
		if ttl := config.find(log, "ttl"); len(ttl) != 1 || !strings.Contains(ttl[0].Text, "DELETE") {
			t.Errorf("%s is kept for ever: %v", log, ttl)
		}
	}
}

package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
	_ "time/tzdata" // the hoster's zone must be there on the leanest machine

	"github.com/opencoc/coc/services/bus"
	"github.com/opencoc/coc/services/rule"
	"github.com/opencoc/coc/services/store"
)

const (
	defaultListen = "127.0.0.1:8484"
	defaultZone   = "Europe/Amsterdam"
	// envLibrary names libchdb.so where it does not lie beside the binary.
	envLibrary = "COC_LIBCHDB"
	// storeConnections is how many statements run at once: three of the API, the
	// rest for sink and statistics, which must not wait for a person's question.
	storeConnections = 8
)

// defaultDataDir is where an instance keeps its things unless told otherwise.
func defaultDataDir() string {
	if d := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(d) {
		return filepath.Join(d, "coc")
	}
	if home, err := os.UserHomeDir(); err == nil {
		return filepath.Join(home, ".local", "share", "coc")
	}
	return "coc-data"
}

// CommonFlags are those of every role.
type CommonFlags struct {
	Data     string `default:"${data}" env:"COC_DATA" placeholder:"DIR" help:"Folder for data, positions and keys (default: ${default})."`
	Zone     string `default:"${zone}" env:"COC_ZONE" placeholder:"ZONE" help:"The hoster's time zone, for nights, days and months (default: ${default})."`
	LogLevel string `default:"info" enum:"debug,info,warn,error" env:"COC_LOG_LEVEL" help:"Least level that is logged: debug, info, warn or error (default: ${default})."`
	LogJSON  bool   `name:"log-json" env:"COC_LOG_JSON" help:"Log as JSON, one object a line (default: text)."`
}

func (c *CommonFlags) logger(g *Globals) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.LogLevel)) // the enum holds only what it reads
	o := &slog.HandlerOptions{Level: level}
	if c.LogJSON {
		return slog.New(slog.NewJSONHandler(g.Stderr, o))
	}
	return slog.New(slog.NewTextHandler(g.Stderr, o))
}

func (c *CommonFlags) zone() (*time.Location, error) {
	z, err := time.LoadLocation(c.Zone)
	if err != nil || c.Zone == "" {
		return nil, usageError{fmt.Errorf("--zone %q is not a time zone: give a name such as Europe/Amsterdam", c.Zone)}
	}
	return z, nil
}

// dir makes a folder inside the data folder, readable by its owner only.
func (c *CommonFlags) dir(name string) (string, error) {
	p := filepath.Join(c.Data, name)
	if err := os.MkdirAll(p, 0o700); err != nil {
		return "", fmt.Errorf("cannot make the folder %s: %w; give another with --data", p, unwrapPath(err))
	}
	return p, nil
}

// unwrapPath drops the path from an error whose message names it already.
func unwrapPath(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// BusFlags say where NATS is.
type BusFlags struct {
	NATS       string `name:"nats" env:"COC_NATS" placeholder:"URL" help:"NATS server, such as nats://host:4222 (default: embedded with coc up)."`
	NATSSecret string `name:"nats-secret-file" env:"COC_NATS_SECRET_FILE" placeholder:"FILE" help:"File with the token that NATS asks for (default: none)."`
	NATSCreds  string `name:"nats-creds" env:"COC_NATS_CREDS" placeholder:"FILE" help:"NATS credentials file (default: none)."`
}

func (f *BusFlags) config(log *slog.Logger, name string) (bus.Config, error) {
	c := bus.Config{URL: f.NATS, Credentials: f.NATSCreds, Name: name, Log: log}
	if f.NATSSecret != "" {
		s, err := readSecret(f.NATSSecret)
		if err != nil {
			return c, err
		}
		c.Secret = s
	}
	return c, nil
}

// StoreFlags say where ClickHouse is.
type StoreFlags struct {
	ClickHouse   string `name:"clickhouse" env:"COC_CLICKHOUSE" placeholder:"URL" help:"ClickHouse server, such as http://host:8123 (default: embedded with coc up)."`
	User         string `name:"clickhouse-user" env:"COC_CLICKHOUSE_USER" placeholder:"NAME" help:"User at the ClickHouse server (default: default)."`
	PasswordFile string `name:"clickhouse-password-file" env:"COC_CLICKHOUSE_PASSWORD_FILE" placeholder:"FILE" help:"File with that user's password (default: none)."`
}

func (f *StoreFlags) config(log *slog.Logger, zone *time.Location) (store.Config, error) {
	c := store.Config{URL: f.ClickHouse, User: f.User, Zone: zone, Connections: storeConnections, Log: log}
	if f.PasswordFile != "" {
		s, err := readSecret(f.PasswordFile)
		if err != nil {
			return c, err
		}
		c.Password = s
	}
	return c, nil
}

// RulesFlags say where the rules are.
type RulesFlags struct {
	Rules string `env:"COC_RULES" placeholder:"DIR" help:"Folder of rules (default: ./rules, else the one beside the program's folder)."`
}

func (f *RulesFlags) load(zone *time.Location) (*rule.Set, error) {
	dir := f.Rules
	if dir == "" {
		dir = findRules()
	}
	if dir == "" {
		return nil, usageError{errors.New("no rules found in ./rules or beside the program: name their folder with --rules DIR")}
	}
	set, err := rule.LoadDir(dir, rule.Options{Zone: zone})
	if err != nil {
		return nil, fmt.Errorf("the rules in %s are not loaded:\n%w", dir, err)
	}
	return set, nil
}

func findRules() string {
	places := []string{"rules"}
	if exe, err := os.Executable(); err == nil {
		if exe, err = filepath.EvalSymlinks(exe); err == nil {
			d := filepath.Dir(exe)
			places = append(places, filepath.Join(d, "rules"), filepath.Join(d, "..", "rules"), filepath.Join(d, "..", "share", "coc", "rules"))
		}
	}
	for _, p := range places {
		if s, err := os.Stat(p); err == nil && s.IsDir() {
			return p
		}
	}
	return ""
}

// findLibrary is where the embedded ClickHouse should be: COC_LIBCHDB, else
// beside the program. store says what to do when it is not there.
func findLibrary() string {
	if p := os.Getenv(envLibrary); p != "" {
		return p
	}
	if exe, err := os.Executable(); err == nil {
		if real, err := filepath.EvalSymlinks(exe); err == nil {
			exe = real
		}
		return filepath.Join(filepath.Dir(exe), "libchdb.so")
	}
	return "libchdb.so"
}

// readSecret reads a small file that holds one secret.
func readSecret(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("cannot read the secret in %s: %w", path, unwrapPath(err))
	}
	s := strings.TrimSpace(string(b))
	if s == "" || len(s) > 4096 {
		return "", fmt.Errorf("the file %s should hold one secret on one line, it holds %d bytes", path, len(b))
	}
	return s, nil
}

// keySize is that of every key of ours: 256 bits.
const keySize = 32

// loadKey reads a key of the data folder, or makes it on the first start. It is
// never overwritten: with another key, what was sealed is lost.
func loadKey(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return makeKey(path)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the key %s: %w", path, unwrapPath(err))
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(b)))
	if err != nil || len(key) != keySize {
		return nil, fmt.Errorf("the key %s is damaged: it should hold %d hexadecimal digits; restore it from its back-up, since what it sealed cannot be read without it", path, 2*keySize)
	}
	if s, err := os.Stat(path); err == nil && s.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("the key %s can be read by others (mode %04o): run chmod 600 %s", path, s.Mode().Perm(), path)
	}
	return key, nil
}

func makeKey(path string) ([]byte, error) {
	key := make([]byte, keySize)
	rand.Read(key) //nolint:errcheck // never fails since Go 1.24
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot make the key %s: %w", path, unwrapPath(err))
	}
	_, werr := f.WriteString(hex.EncodeToString(key) + "\n")
	if err := errors.Join(werr, f.Sync(), f.Close()); err != nil {
		_ = os.Remove(path) // half a key would be worse than none
		return nil, fmt.Errorf("cannot write the key %s: %w", path, err)
	}
	return key, nil
}

// isLoopback says whether an address is reached from this machine only.
func isLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

package store

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"regexp"
	"strings"
	"time"
)

// Config says where ClickHouse is. With URL empty the embedded engine of
// Library is started on Dir.
type Config struct {
	// URL of a server's HTTP interface, http://host:8123 or https://host:8443;
	// empty for the embedded engine.
	URL string
	// Dir is the embedded engine's data folder; created with mode 0700.
	Dir string
	// Library is the path of libchdb.so, for the embedded engine.
	Library string
	// User and Password are for a server only, as is TLS.
	User, Password string
	TLS            *tls.Config
	// Database holds the tables; default "coc".
	Database string
	// MemoryBytes bounds the embedded engine's memory; default 700 MiB, at least
	// 300 MiB.
	MemoryBytes int64
	// Threads of one statement; default 2, at most 64.
	Threads int
	// Connections is how many statements run at once; default 4, at most 16.
	Connections int
	// Zone is the hoster's: days are its days. Default Europe/Amsterdam.
	Zone *time.Location
	Log  *slog.Logger
	Now  func() time.Time
}

var databaseName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,62}$`)

// Validate refuses what would fail later, all at once. It changes nothing.
func (c *Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Database != "" && !databaseName.MatchString(c.Database) {
		bad("database %q: use letters, digits and underscores, at most 63, not starting with a digit", c.Database)
	}
	if c.URL == "" {
		c.validateEmbedded(bad)
	} else {
		c.validateServer(bad)
	}
	if c.Threads < 0 || c.Threads > maxThreads {
		bad("threads %d: give 1 to %d", c.Threads, maxThreads)
	}
	if c.Connections < 0 || c.Connections > maxConnections {
		bad("connections %d: give 1 to %d", c.Connections, maxConnections)
	}
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrInvalid, errors.Join(errs...))
}

func (c *Config) validateEmbedded(bad func(string, ...any)) {
	if c.Dir == "" {
		bad("no data folder for the embedded ClickHouse: give Dir, or the URL of a server")
	}
	if strings.ContainsAny(c.Dir, "\x00\n") {
		bad("data folder %q: a path cannot hold a NUL or a line break", c.Dir)
	}
	if c.MemoryBytes != 0 && c.MemoryBytes < minMemory {
		bad("memory of %d bytes: the embedded ClickHouse needs at least %d", c.MemoryBytes, int64(minMemory))
	}
}

func (c *Config) validateServer(bad func(string, ...any)) {
	u, err := url.Parse(c.URL)
	switch {
	case err != nil:
		bad("ClickHouse URL: %v", bare(err))
	case u.Scheme != "http" && u.Scheme != "https":
		bad("ClickHouse URL %s: use http:// or https://, the native port 9000 is not spoken here", u.Redacted())
	case u.Host == "":
		bad("ClickHouse URL %s: no host in it", u.Redacted())
	case u.User != nil:
		bad("ClickHouse URL %s: give user and password apart, an address ends up in logs", u.Redacted())
	case u.RawQuery != "" || u.Fragment != "":
		bad("ClickHouse URL %s: settings do not belong into it", u.Redacted())
	}
	if c.TLS != nil && err == nil && u.Scheme == "http" {
		bad("ClickHouse URL %s: TLS is set, so use https://", u.Redacted())
	}
}

func (c Config) withDefaults() (Config, error) {
	if c.Database == "" {
		c.Database = "coc"
	}
	if c.MemoryBytes == 0 {
		c.MemoryBytes = defaultMemory
	}
	if c.Threads == 0 {
		c.Threads = defaultThreads
	}
	if c.Connections == 0 {
		c.Connections = defaultConnections
	}
	if c.Zone == nil {
		zone, err := time.LoadLocation("Europe/Amsterdam")
		if err != nil {
			return c, fmt.Errorf("%w: zone Europe/Amsterdam is not known here, embed tzdata: %w", ErrInvalid, err)
		}
		c.Zone = zone
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c, nil
}

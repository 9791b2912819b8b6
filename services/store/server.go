package store

import (
	"crypto/tls"
	"net"
	"net/url"
	"strings"
)

// hostPort gives a server's address with ClickHouse's usual port.
func hostPort(u *url.URL) string {
	if u.Port() != "" {
		return u.Host
	}
	if u.Scheme == "https" {
		return net.JoinHostPort(u.Hostname(), "8443")
	}
	return net.JoinHostPort(u.Hostname(), "8123")
}

// serverTLS is nil for plain HTTP: clickhouse-go takes the scheme from it.
func serverTLS(u *url.URL, given *tls.Config) *tls.Config {
	if u.Scheme != "https" {
		return nil
	}
	if given != nil {
		return given.Clone()
	}
	return &tls.Config{ServerName: u.Hostname(), MinVersion: tls.VersionTLS12}
}

// quoteName writes a name of a table, column or database that we chose.
func quoteName(name string) string {
	return "`" + strings.NewReplacer("\\", "\\\\", "`", "\\`").Replace(name) + "`"
}

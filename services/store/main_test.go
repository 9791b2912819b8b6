package store

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// house is the one store of the package's tests, on the real engine: a process
// can have one. Tests keep apart by tenant, collector or day.
var house *Store

// libraryPath finds libchdb: by COC_LIBCHDB, or where `make build` leaves it.
func libraryPath() string {
	if p := os.Getenv("COC_LIBCHDB"); p != "" {
		return p
	}
	p, err := filepath.Abs("../../bin/libchdb.so")
	if err != nil {
		return ""
	}
	return p
}

func TestMain(m *testing.M) {
	if code, asked := helper(); asked {
		os.Exit(code)
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "coc-store-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer func() { _ = os.RemoveAll(dir) }()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		house, err = Open(ctx, Config{Dir: dir, Library: libraryPath(), Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			fmt.Fprintln(os.Stderr, "the tests of store need the real engine:", err)
			return 1
		}
		code := m.Run()
		if n := len(house.engine.(embeddedTransport).engine.slots); n != 0 {
			fmt.Fprintf(os.Stderr, "%d statements were never ended\n", n)
			code = 1
		}
		closing := time.Now()
		if err := house.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if d := time.Since(closing); d > 5*time.Second {
			fmt.Fprintf(os.Stderr, "closing took %s\n", d)
			code = 1
		}
		return code
	}())
}

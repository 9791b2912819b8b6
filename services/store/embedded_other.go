//go:build !linux && !darwin

package store

import (
	"fmt"
	"net/http"
)

// startEmbedded says that there is no library for this system.
func startEmbedded(Config) (http.RoundTripper, func() error, error) {
	return nil, nil, fmt.Errorf("%w: there is none for this system; run coc against a server with --clickhouse URL", ErrLibrary)
}

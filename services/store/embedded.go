//go:build linux || darwin

package store

import "net/http"

// startEmbedded starts the engine and gives the transport that speaks to it.
func startEmbedded(c Config) (http.RoundTripper, func() error, error) {
	e, err := startEngine(c)
	if err != nil {
		return nil, nil, err
	}
	return embeddedTransport{engine: e}, e.close, nil
}

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
)

// HealthCmd asks /readyz, for health checks and for people.
type HealthCmd struct {
	Server string `default:"http://${listen}" env:"COC_SERVER" placeholder:"URL" help:"Instance to ask (default: ${default})."`
}

// Run prints each dependency and fails when one is not ready.
func (c *HealthCmd) Run(g *Globals) error {
	client := http.Client{Timeout: 5 * time.Second}
	resp, err := client.Get(strings.TrimSuffix(c.Server, "/") + "/readyz")
	if err != nil {
		return fmt.Errorf("no answer from %s: %w; is it running?", c.Server, err)
	}
	defer resp.Body.Close()
	var r readiness
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&r); err != nil {
		return fmt.Errorf("%s does not answer like coc (HTTP %d): check the address", c.Server, resp.StatusCode)
	}
	var names []string
	for n := range r.Dependencies {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		fmt.Fprintf(g.Stdout, "%-12s %s\n", n, r.Dependencies[n])
	}
	if !r.Ready {
		return errors.New("not ready; the line above that is not ok says why")
	}
	return nil
}

// URLCmd prints where the local instance listens, for scripts.
type URLCmd struct {
	Client ClientFlags `embed:""`
}

// Run prints the address.
func (c *URLCmd) Run(g *Globals) error {
	cl, err := c.Client.connect(g)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(g.Stdout, cl.url)
	return err
}

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"time"
)

// healthTimeout is below what health checks usually allow.
const healthTimeout = 5 * time.Second

// HealthCmd asks /readyz, for health checks and for people.
type HealthCmd struct {
	Server string `env:"COC_SERVER" placeholder:"URL" help:"Instance to ask (default: the one that runs on --data, else http://${listen})."`
	Data   string `default:"${data}" env:"COC_DATA" placeholder:"DIR" help:"Data folder of the local instance (default: ${default})."`
}

// Run prints each dependency and fails when one is not ready.
func (c *HealthCmd) Run(g *Globals) error {
	server, local := strings.TrimSuffix(c.Server, "/"), ""
	if server == "" {
		server = "http://" + defaultListen
		in, err := readInstance(c.Data)
		switch {
		case err == nil:
			server, local = in.URL, c.Data
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
	}
	resp, err := (&http.Client{Timeout: healthTimeout}).Get(server + "/readyz")
	if err != nil {
		return (&client{url: server, local: local}).unreachable(err)
	}
	defer resp.Body.Close()
	var r readiness
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&r); err != nil {
		return fmt.Errorf("%s does not answer like coc (HTTP %d): check the address", server, resp.StatusCode)
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

// Run prints the address, if the instance that wrote it still answers.
func (c *URLCmd) Run(g *Globals) error {
	cl, err := c.Client.connect(g)
	if err != nil {
		return err
	}
	if cl.local != "" {
		resp, err := (&http.Client{Timeout: healthTimeout}).Get(cl.url + "/healthz")
		if err != nil {
			return cl.unreachable(err)
		}
		_ = resp.Body.Close() // that it answers is all
	}
	_, err = fmt.Fprintln(g.Stdout, cl.url)
	return err
}

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	// dialTimeout and headerTimeout bound the wait for an instance: to connect,
	// and for the first byte of an answer, which comes when the question is
	// answered (the API gives up after 90 s).
	dialTimeout   = 5 * time.Second
	headerTimeout = 2 * time.Minute
	// patience is how long a command waits, all in all, when it is told that it
	// asks too often.
	patience = 20 * time.Second
	// maxAnswer bounds an answer that is read whole: 100,000 findings of 4 KiB.
	maxAnswer = 512 << 20
	// maxErrorBody bounds the text of an error.
	maxErrorBody = 64 << 10
	// maxStreamLine bounds one line of a stream: store gives rows of at most
	// 16 MiB.
	maxStreamLine = 20 << 20
	// maxInstanceFile bounds instance.json, which holds four short fields.
	maxInstanceFile = 16 << 10
)

// ClientFlags say which instance a command asks.
type ClientFlags struct {
	Server    string `env:"COC_SERVER" placeholder:"URL" help:"Instance to ask, such as https://coc.example.org (default: the one that runs on --data)."`
	TokenFile string `env:"COC_TOKEN_FILE" placeholder:"FILE" help:"File with the access token (default: the local instance's own)."`
	Data      string `default:"${data}" env:"COC_DATA" placeholder:"DIR" help:"Data folder of the local instance (default: ${default})."`
}

// again is what the next command needs to ask the same instance.
func (f *ClientFlags) again() string {
	switch {
	case f.Server == "" && (f.Data == "" || f.Data == os.Getenv("COC_DATA")), f.Server != "" && f.Server == os.Getenv("COC_SERVER"):
		return ""
	case f.Server != "":
		return " --server … --token-file …"
	}
	return dataFlag(f.Data)
}

// client asks one instance over HTTP.
type client struct {
	http  *http.Client
	url   string // without a slash at the end
	token string
	local string // the data folder, when the instance was found there
}

// connect finds the instance and the token. It does not ask it anything yet.
func (f *ClientFlags) connect(g *Globals) (*client, error) {
	c := &client{http: newHTTP(headerTimeout)}
	if f.TokenFile != "" {
		secret, err := readSecret(f.TokenFile)
		if err != nil {
			return nil, err
		}
		c.token = secret
	}
	if f.Server == "" {
		in, err := readInstance(f.Data)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, noInstance(f.Data)
		}
		if err != nil {
			return nil, err
		}
		c.url, c.local = in.URL, f.Data
		if c.token == "" {
			c.token = in.Token
		}
	} else {
		c.url = f.Server
		if c.token == "" { // the local token is never sent elsewhere
			return nil, usageError{errors.New("--server needs an access token: give --token-file FILE; an administrator makes one with coc token new --role ROLE")}
		}
	}
	u, err := url.Parse(c.url)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return nil, usageError{fmt.Errorf("%.200q is not the address of an instance: give one such as http://127.0.0.1:8484", c.url)}
	}
	if u.Scheme == "http" && !loopbackHost(u.Hostname()) {
		fmt.Fprintf(g.Stderr, "coc: warning: %s is asked without TLS, so the token can be read on the way; use https\n", safe(u.Host))
	}
	c.url = strings.TrimRight(c.url, "/")
	return c, nil
}

func loopbackHost(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// newHTTP makes a client that waits so long for the first byte of an answer, 0:
// for ever.
func newHTTP(answer time.Duration) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment, // not used for loopback
			DialContext:           (&net.Dialer{Timeout: dialTimeout}).DialContext,
			TLSHandshakeTimeout:   dialTimeout,
			ResponseHeaderTimeout: answer,
			ForceAttemptHTTP2:     true,
		},
		// A redirect would carry the token to who knows where.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func noInstance(dir string) error {
	return fmt.Errorf("no coc runs on %s: start it with `coc up --data %s`, or give --data or --server of one that runs", dir, dir)
}

// apiError is what an instance said instead of an answer.
type apiError struct {
	status int
	text   string
}

func (e *apiError) Error() string { return e.text }

// problemBody is an error as the API and the import door write it.
type problemBody struct {
	Title  string `json:"title"`
	Detail string `json:"detail"`
	Error  string `json:"error"`
	Errors []struct {
		Message  string `json:"message"`
		Location string `json:"location"`
	} `json:"errors"`
}

// do sends a request and returns the answer's body, which the caller closes.
func (c *client) do(ctx context.Context, method, path string, query url.Values, body any) (io.ReadCloser, error) {
	address := c.url + path
	if len(query) > 0 {
		address += "?" + query.Encode()
	}
	var data []byte
	if body != nil {
		var err error
		if data, err = json.Marshal(body); err != nil {
			return nil, fmt.Errorf("cannot write the request: %w", err)
		}
	}
	for waited := time.Duration(0); ; {
		resp, err := c.send(ctx, method, address, data)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode < 300 {
			return resp.Body, nil
		}
		wait, err := time.ParseDuration(resp.Header.Get("Retry-After") + "s")
		tooOften := resp.StatusCode == http.StatusTooManyRequests && err == nil && wait > 0 && waited+wait <= patience
		err = c.refused(resp)
		_ = resp.Body.Close() // it was read
		if !tooOften {        // what else is refused may have been done
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
			waited += wait
		}
	}
}

// send sends a request once.
func (c *client) send(ctx context.Context, method, address string, data []byte) (*http.Response, error) {
	var body io.Reader
	if data != nil {
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, address, body)
	if err != nil {
		return nil, fmt.Errorf("cannot ask %s: %w", c.url, err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	if data != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	return resp, nil
}

func (c *client) unreachable(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	if c.local != "" && errors.Is(err, syscall.ECONNREFUSED) {
		return noInstance(c.local) // it was killed: its instance.json is still there
	}
	return fmt.Errorf("no answer from %s: %w; is it running, and is the address right?", c.url, err)
}

func (c *client) refused(resp *http.Response) error {
	if resp.StatusCode < 400 {
		return fmt.Errorf("%s points elsewhere (%s): give that address with --server if it is right", c.url, safe(resp.Header.Get("Location")))
	}
	data, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody)) // what could be read is shown
	var p problemBody
	text := ""
	if json.Unmarshal(data, &p) == nil {
		text = p.Detail
		if p.Error != "" {
			text = p.Error
		}
		for i, e := range p.Errors {
			if i == 0 {
				text += ":"
			}
			text += fmt.Sprintf(" %s %s;", e.Location, e.Message)
		}
		text = strings.TrimSuffix(text, ";")
	}
	if text == "" {
		text = fmt.Sprintf("%s answered HTTP %d: is it a coc, and of this version?", c.url, resp.StatusCode)
	}
	err := &apiError{status: resp.StatusCode, text: safe(text)}
	if resp.StatusCode == http.StatusUnprocessableEntity {
		return usageError{err}
	}
	return err
}

// get asks for one JSON document.
func (c *client) get(ctx context.Context, path string, query url.Values, out any) error {
	return c.ask(ctx, http.MethodGet, path, query, nil, out)
}

// ask sends a request and reads one JSON document; out may be nil.
func (c *client) ask(ctx context.Context, method, path string, query url.Values, body, out any) error {
	r, err := c.do(ctx, method, path, query, body)
	if err != nil {
		return err
	}
	defer r.Close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(r, maxAnswer)).Decode(out); err != nil {
		return fmt.Errorf("%s does not answer like a coc of this version: %w", c.url, err)
	}
	return nil
}

// stream asks for JSON lines and hands over each, until fn returns an error or
// the stream ends. A line is valid during the call.
func (c *client) stream(ctx context.Context, method, path string, query url.Values, body any, fn func(line []byte) error) error {
	r, err := c.do(ctx, method, path, query, body)
	if err != nil {
		return err
	}
	defer r.Close()
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), maxStreamLine)
	for lines.Scan() {
		if err := fn(lines.Bytes()); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("the stream from %s broke: %w", c.url, err)
	}
	return nil
}

// instanceFile tells the commands on this machine where the instance of a data
// folder listens, and lets who may read the folder in. It holds a secret: mode
// 0600.
type instanceFile struct {
	URL     string `json:"url"`
	Token   string `json:"token"`
	PID     int    `json:"pid"`
	Version string `json:"version"`
}

func instancePath(dir string) string { return filepath.Join(dir, "instance.json") }

// writeInstance replaces the file at once and whole: a reader sees the old one
// or the new.
func writeInstance(dir string, in instanceFile) error {
	data, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", instancePath(dir), err)
	}
	f, err := os.CreateTemp(dir, ".instance-*") // mode 0600
	if err != nil {
		return fmt.Errorf("cannot write into %s: %w", dir, unwrapPath(err))
	}
	_, werr := f.Write(append(data, '\n'))
	err = errors.Join(werr, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), instancePath(dir))
	}
	if err != nil {
		_ = os.Remove(f.Name()) // the old file, if any, is still whole
		return fmt.Errorf("cannot write %s: %w", instancePath(dir), err)
	}
	return nil
}

// readInstance reads it; fs.ErrNotExist when no instance ever ran there. A file
// that others may write or read is refused: it says where the token goes.
func readInstance(dir string) (in instanceFile, err error) {
	path := instancePath(dir)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrPermission) {
		return in, fmt.Errorf("cannot read %s: %w; ask as the user who runs coc, or give --server and --token-file", path, unwrapPath(err))
	}
	if err != nil {
		return in, fmt.Errorf("cannot read %s: %w", path, unwrapPath(err))
	}
	defer f.Close()
	s, err := f.Stat()
	if err != nil {
		return in, fmt.Errorf("cannot read %s: %w", path, unwrapPath(err))
	}
	if !s.Mode().IsRegular() || s.Mode().Perm()&0o077 != 0 {
		return in, fmt.Errorf("%s is open to others (mode %04o) and not trusted: run chmod 600 %s", path, s.Mode().Perm(), path)
	}
	if err := json.NewDecoder(io.LimitReader(f, maxInstanceFile)).Decode(&in); err != nil || in.URL == "" || in.Token == "" {
		return in, fmt.Errorf("%s is damaged: start coc up on %s again, it is written anew", path, dir)
	}
	return in, nil
}

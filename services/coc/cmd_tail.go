package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/opencoc/coc/services/console"
	"github.com/opencoc/coc/services/event"
)

// TailCmd follows live events.
type TailCmd struct {
	Client  ClientFlags `embed:""`
	JSON    bool        `name:"json" help:"Print each event as JSON with dotted names (default: a short line)."`
	Kind    string      `enum:",system,process,user" default:"" placeholder:"KIND" help:"Only this kind: system, process or user (default: all)."`
	Action  string      `placeholder:"ACTION" help:"Only this action, such as login (default: all)."`
	Outcome string      `enum:",success,failure,unknown" default:"" placeholder:"OUTCOME" help:"Only this outcome: success, failure or unknown (default: all)."`
	Source  string      `placeholder:"NAME" help:"Only events of this source (default: all)."`
	Tenant  string      `placeholder:"ID" help:"Only events of this tenant (default: all)."`
	Host    string      `placeholder:"NAME" help:"Only events of this machine (default: all)."`
	Service string      `placeholder:"NAME" help:"Only events of this part of the product (default: all)."`
	Imports bool        `help:"Also events that are being imported (default: left out)."`
	Limit   int         `default:"0" placeholder:"N" help:"End after so many events; 0: never (default: ${default})."`
}

// errEnough ends a tail that has shown what was asked for.
var errEnough = errors.New("enough")

// Run prints events until Ctrl-C, or until there are enough.
func (c *TailCmd) Run(g *Globals) error {
	if c.Limit < 0 {
		return usageError{fmt.Errorf("--limit must be 0 or more, is %d", c.Limit)}
	}
	cl, err := c.Client.connect(g)
	if err != nil {
		return err
	}
	q := url.Values{}
	set(q, "kind", c.Kind)
	set(q, "action", c.Action)
	set(q, "outcome", c.Outcome)
	set(q, "source", c.Source)
	set(q, "tenant", c.Tenant)
	set(q, "host", c.Host)
	set(q, "service", c.Service)
	setTrue(q, "imports", c.Imports)
	p := &tailPrinter{cmd: c, out: g.Stdout, errs: g.Stderr, zone: g.Now().Location(), decoder: event.NewJSONDecoder()}
	p.decoder.Internal = true
	err = cl.stream(g.Ctx, http.MethodGet, "/v1/tail", q, nil, p.line)
	switch {
	case errors.Is(err, errEnough), g.Ctx.Err() != nil: // Ctrl-C is how a tail ends
		return nil
	case err == nil:
		return errors.New("the tail ended without a word: coc was stopped or the connection was cut")
	}
	return err
}

type tailPrinter struct {
	cmd       *TailCmd
	out, errs io.Writer
	zone      *time.Location
	decoder   *event.JSONDecoder
	shown     int
	told      bool
}

func (p *tailPrinter) line(data []byte) error {
	var l console.TailLine
	if err := json.Unmarshal(data, &l); err != nil {
		return fmt.Errorf("the tail brought something that is no line of it: %w", err)
	}
	switch {
	case l.Error != "":
		return errors.New(safe(l.Error))
	case l.Dropped > 0:
		fmt.Fprintf(p.errs, "coc: %s left out: they come faster than they are read here; narrow with --kind or --action\n", plural(l.Dropped, "event", "events"))
		return nil
	case l.Event == nil:
		if !p.told && !p.cmd.JSON && isTerminal(p.errs) {
			fmt.Fprintln(p.errs, "coc: following live events; end with Ctrl-C")
		}
		p.told = true
		return nil
	}
	if err := p.event(l); err != nil {
		return err
	}
	p.shown++
	if p.cmd.Limit > 0 && p.shown >= p.cmd.Limit {
		return errEnough
	}
	return nil
}

func (p *tailPrinter) event(l console.TailLine) error {
	if p.cmd.JSON {
		_, err := fmt.Fprintf(p.out, "%s\n", l.Event)
		return err
	}
	var e event.Event
	if err := p.decoder.Decode(l.Event, &e); err != nil {
		return fmt.Errorf("the tail brought an event that cannot be read: %w", err)
	}
	_, err := fmt.Fprintln(p.out, tailText(&e, p.zone))
	return err
}

// maxTailText is where a line of a tail is cut, in characters.
const maxTailText = 200

// tailText writes an event on one line: when, what, where, who, and the words.
func tailText(e *event.Event, zone *time.Location) string {
	parts := []string{
		time.UnixMilli(e.Time).In(zone).Format("15:04:05.000"),
		fmt.Sprintf("%-7s", safe(e.Kind)),
		fmt.Sprintf("%-16s", safe(e.Action)),
		fmt.Sprintf("%-7s", safe(e.Outcome)),
	}
	for _, s := range []string{e.TenantID, e.HostName, e.ServiceName, strings.TrimSpace(e.ResourceType + " " + e.ResourceName), e.SourceIP, shortHash(e.UserHash)} {
		if s != "" {
			parts = append(parts, safe(s))
		}
	}
	if e.Has&event.HasValue != 0 {
		parts = append(parts, amount(e.Value, ""))
	}
	if e.Has&event.HasDuration != 0 {
		parts = append(parts, amount(e.Duration, "ms"))
	}
	text := e.Message
	for _, s := range []string{e.ProcessCommandLine, e.ProcessExecutable, e.ProcessName} {
		if text == "" {
			text = s
		}
	}
	if text != "" {
		parts = append(parts, safe(text))
	}
	return strings.TrimRight(cut(strings.Join(parts, "  "), maxTailText), " ")
}

// shortHash shows a person as u-7f3a…; names of system accounts stay.
func shortHash(hash string) string {
	if len(hash) != 32 || strings.Trim(hash, "0123456789abcdef") != "" {
		return hash
	}
	return "u-" + hash[:6]
}

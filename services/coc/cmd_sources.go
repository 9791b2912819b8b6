package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/opencoc/coc/services/collector"
	"github.com/opencoc/coc/services/event"
	"github.com/opencoc/coc/services/rule"
)

// SourcesCmd holds the commands about sources.
type SourcesCmd struct {
	Check SourcesCheckCmd `cmd:"" help:"Check a sources.yaml; name all errors with their place."`
	List  SourcesListCmd  `cmd:"" help:"List the sources of a running instance, with what they brought."`
	Test  SourcesTestCmd  `cmd:"" help:"Show the event that coc makes of a log line."`
}

// SourcesCheckCmd checks a sources.yaml.
type SourcesCheckCmd struct {
	File string `arg:"" help:"The sources.yaml to check."`
	JSON bool   `name:"json" help:"Print JSON, one source a line (default: a table)."`
}

// Run reads it as coc up would.
func (c *SourcesCheckCmd) Run(g *Globals) error {
	set, err := loadSources(c.File)
	if err != nil {
		return err
	}
	if c.JSON {
		return writeLines(g.Stdout, set.Sources)
	}
	fmt.Fprintf(g.Stdout, "%s is in order: %s\n\n", safe(c.File), plural(int64(len(set.Sources)), "source", "sources"))
	t := newTable(left("NAME"), left("KIND"), left("PATH"), left("FORMAT"), left("ZONE"), left("TENANT"), left("HOST"), left("EXPECTED EVERY"))
	for _, s := range set.Sources {
		expect := ""
		if s.Expect > 0 {
			expect = rule.FormatDuration(s.Expect)
		}
		t.add(s.Name, s.Kind, s.Path, s.Format, s.TZ, s.Tenant, s.Host, expect)
	}
	return t.write(g.Stdout)
}

// SourcesListCmd lists sources of a running instance.
type SourcesListCmd struct {
	Client ClientFlags `embed:""`
	JSON   bool        `name:"json" help:"Print JSON, one source a line (default: a table)."`
}

// Run asks and prints.
func (c *SourcesListCmd) Run(g *Globals) error {
	cl, err := c.Client.connect(g)
	if err != nil {
		return err
	}
	var list []collector.SourceStatus
	if err := cl.get(g.Ctx, "/v1/sources", nil, &list); err != nil {
		return err
	}
	if c.JSON {
		return writeLines(g.Stdout, list)
	}
	return sourcesTable(g.Stdout, list, g.Now().Location())
}

// zoneName is a zone as people call it: "Local" says nothing.
func zoneName(zone *time.Location) string {
	if zone == time.Local {
		name, _ := time.Now().In(zone).Zone()
		return "this machine's zone, " + name
	}
	return zone.String()
}

func sourcesTable(w io.Writer, list []collector.SourceStatus, zone *time.Location) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(w, "There are no sources: name some in a sources.yaml and start with --sources FILE.")
		return err
	}
	running := int64(0)
	for _, x := range list {
		if x.State == "running" {
			running++
		}
	}
	fmt.Fprintf(w, "%s, %s running (times in %s)\n\n", plural(int64(len(list)), "source", "sources"), number(running), zoneName(zone))
	t := newTable(left("SOURCE"), left("KIND"), left("STATE"), right("EVENTS"), right("REFUSED"), left("LAST EVENT"), left("WHAT"))
	for _, x := range list {
		state := x.State
		if x.Quiet {
			state += ", quiet too long"
		}
		what := x.Detail
		if x.Path != "" {
			what = strings.TrimSpace(x.Path + " " + what)
		}
		var refused int64
		for _, n := range x.Refused {
			refused += n
		}
		t.add(x.Name, x.Kind, state, number(x.Events), number(refused), moment(x.LastEvent, zone), what)
	}
	if err := t.write(w); err != nil {
		return err
	}
	for _, x := range list {
		if len(x.Refused) > 0 {
			fmt.Fprintf(w, "\n%s refused: %s\n", safe(x.Name), countsText(x.Refused))
		}
	}
	return nil
}

// SourcesTestCmd tries a log line.
type SourcesTestCmd struct {
	Line   string `arg:"" help:"The line, in quotes."`
	Format string `enum:",sshd,syslog,access,json" default:"" placeholder:"FORMAT" help:"Format of the line: sshd, syslog, access or json (default: guessed)."`
	Year   int    `placeholder:"YEAR" help:"Year of a line without one (default: the one nearest to now)."`
	TZ     string `name:"tz" placeholder:"ZONE" help:"Time zone of a line without one (default: that of --zone)."`
	Zone   string `default:"${zone}" env:"COC_ZONE" placeholder:"ZONE" help:"The hoster's time zone (default: ${default})."`
	Host   string `placeholder:"NAME" help:"Machine of a line that names none (default: none)."`
	Tenant string `placeholder:"ID" help:"Tenant of a line that names none (default: none)."`
	JSON   bool   `name:"json" help:"Print JSON, one event a line (default: field by field)."`
}

// Run parses it as a source would.
func (c *SourcesTestCmd) Run(g *Globals) error {
	zone, err := loadZone(c.Zone)
	if err != nil {
		return err
	}
	if c.TZ != "" {
		if zone, err = time.LoadLocation(c.TZ); err != nil {
			return usageError{fmt.Errorf("--tz %q is not a time zone: give a name such as Europe/Amsterdam", c.TZ)}
		}
	}
	format, events, err := collector.TestLine(c.Line, collector.LineOptions{Format: c.Format, Year: c.Year, Zone: zone, Host: c.Host, Tenant: c.Tenant, Now: g.Now()})
	if err != nil {
		return err
	}
	if len(events) == 0 {
		return errors.New("the line makes no event: it is empty")
	}
	for i := range events {
		if c.JSON {
			if _, err := fmt.Fprintf(g.Stdout, "%s\n", event.AppendJSON(nil, &events[i])); err != nil {
				return err
			}
		}
	}
	if c.JSON {
		return nil
	}
	fmt.Fprintf(g.Stdout, "%s, read as %s\n", plural(int64(len(events)), "event", "events"), safe(format))
	for i := range events {
		fmt.Fprintln(g.Stdout)
		if err := eventFields(g.Stdout, &events[i]); err != nil {
			return err
		}
	}
	return nil
}

// eventFields prints what an event holds, a field a line.
func eventFields(w io.Writer, e *event.Event) error {
	t := newTable(left("FIELD"), left("VALUE"))
	t.max = event.LimitMessage // whole: the line is what one looks at
	for i := range event.Fields {
		f := &event.Fields[i]
		if p := e.Text(i); p != nil {
			if *p != "" {
				t.add(f.Name, *p)
			}
		} else if p, has := e.Int(i); p != nil {
			switch {
			case f.Type == event.Time && *p != 0:
				t.add(f.Name, event.FormatTime(*p))
			case f.Type == event.Int && (has != 0 && e.Has&has != 0 || has == 0 && *p != 0):
				t.add(f.Name, fmt.Sprint(*p))
			}
		} else if p, has := e.Float(i); p != nil && e.Has&has != 0 {
			t.add(f.Name, amount(*p, ""))
		}
	}
	labels := map[string]string{}
	for _, l := range e.Labels {
		labels[l.Key] = l.Value
	}
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		t.add("labels."+k, labels[k])
	}
	return t.write(w)
}

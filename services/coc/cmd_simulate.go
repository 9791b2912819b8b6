package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/opencoc/coc/services/collector"
	"github.com/opencoc/coc/services/console"
	"github.com/opencoc/coc/services/event"
)

// SimulateCmd makes the events of a believable hoster.
type SimulateCmd struct {
	Tenants int    `default:"40" placeholder:"N" help:"Number of customers (default: ${default})."`
	Days    int    `default:"14" placeholder:"N" help:"Number of days (default: ${default})."`
	Seed    uint64 `default:"1" placeholder:"N" help:"The same seed and end give the same events (default: ${default})."`
	End     string `placeholder:"TIME" help:"When they end: 2026-11-23T14:00:00Z, 2026-11-23, or how long ago, such as 7d (default: this hour)."`
	Zone    string `default:"${zone}" env:"COC_ZONE" placeholder:"ZONE" help:"The hoster's time zone, for working days and nights (default: ${default})."`
	Out     string `placeholder:"FILE" help:"File to write, which must not exist (default: standard output)."`
}

// Run writes JSON lines, in order of time.
func (c *SimulateCmd) Run(g *Globals) (err error) {
	zone, err := loadZone(c.Zone)
	if err != nil {
		return err
	}
	end, err := console.ParseWhen(c.End, g.Now(), zone)
	if err != nil {
		return usageError{fmt.Errorf("--end: %w", err)}
	}
	if end.IsZero() {
		end = g.Now().Truncate(time.Hour)
	}
	o := collector.SimulateOptions{Tenants: c.Tenants, Days: c.Days, Seed: c.Seed, End: end, Zone: zone}
	if err := o.Validate(); err != nil {
		return usageError{err}
	}
	w, done, err := c.output(g)
	if err != nil {
		return err
	}
	events, err := c.write(g, o, w)
	if err = errors.Join(err, done(err)); err != nil {
		return err
	}
	what := "standard output"
	if c.Out != "" {
		what = c.Out
	}
	_, err = fmt.Fprintf(g.Stderr, "coc: %s of %s over %s written to %s, each with the label simulated; bring them in with coc import\n",
		plural(events, "event", "events"), plural(int64(c.Tenants), "tenant", "tenants"), plural(int64(c.Days), "day", "days"), safe(what))
	return err
}

func (c *SimulateCmd) write(g *Globals, o collector.SimulateOptions, w io.Writer) (events int64, err error) {
	out := bufio.NewWriterSize(w, 256<<10)
	var line []byte
	err = collector.Simulate(g.Ctx, o, func(e *event.Event) error {
		events++
		line = append(event.AppendJSON(line[:0], e), '\n')
		_, err := out.Write(line)
		return err
	})
	return events, errors.Join(err, out.Flush())
}

// output opens the file; done closes it, and takes half a file away.
func (c *SimulateCmd) output(g *Globals) (w io.Writer, done func(error) error, err error) {
	if c.Out == "" {
		return g.Stdout, func(error) error { return nil }, nil
	}
	f, err := os.OpenFile(c.Out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, os.ErrExist) {
		return nil, nil, fmt.Errorf("%s exists already: give another name with --out, or remove it", safe(c.Out))
	}
	if err != nil {
		return nil, nil, fmt.Errorf("cannot write %s: %w", safe(c.Out), unwrapPath(err))
	}
	return f, func(failed error) error {
		err := f.Close()
		if failed != nil || err != nil {
			_ = os.Remove(c.Out) // half of it is of no use
		}
		return err
	}, nil
}

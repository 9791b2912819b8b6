package main

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/opencoc/coc/services/console"
)

const (
	// ledgerTries and ledgerPause: events and their message are stored one after
	// the other, so a ledger drawn up between the two shows a difference that is
	// gone a moment later. Only one that stays is one.
	ledgerTries = 4
	ledgerPause = time.Second
)

// LedgerCmd accounts for every event.
type LedgerCmd struct {
	Client ClientFlags `embed:""`
	JSON   bool        `name:"json" help:"Print JSON, one object a line, \"type\" being row, gap or dead_letters (default: a table)."`
	Check  bool        `help:"Exit 1 when something is not accounted for, and name it (default: only show)."`
	From   string      `placeholder:"TIME" help:"First hour: 2026-11-23T14:00:00Z, 2026-11-23, or how long ago, such as 7d (default: 24h)."`
	To     string      `placeholder:"TIME" help:"End, not included; written as --from (default: now)."`
	Source string      `placeholder:"NAME" help:"Only this source (default: all)."`
}

// Run asks, prints, and checks.
func (c *LedgerCmd) Run(g *Globals) error {
	for flag, text := range map[string]string{"--from": c.From, "--to": c.To} {
		if err := checkWhen(flag, text, g.Now()); err != nil {
			return err
		}
	}
	cl, err := c.Client.connect(g)
	if err != nil {
		return err
	}
	report, err := c.settle(g, cl)
	if err != nil {
		return err
	}
	if c.JSON {
		err = ledgerJSON(g.Stdout, report)
	} else {
		err = ledgerTable(g.Stdout, report)
	}
	if err != nil || !c.Check {
		return err
	}
	return unaccounted(report)
}

// settle asks until the ledger balances, or does not for some seconds.
func (c *LedgerCmd) settle(g *Globals, cl *client) (*console.LedgerReport, error) {
	q := url.Values{}
	set(q, "from", c.From)
	set(q, "to", c.To)
	set(q, "source", c.Source)
	for try := 1; ; try++ {
		var report console.LedgerReport
		if err := cl.get(g.Ctx, "/v1/ledger", q, &report); err != nil {
			return nil, err
		}
		if report.Balanced || try == ledgerTries {
			return &report, nil
		}
		select {
		case <-g.Ctx.Done():
			return nil, g.Ctx.Err()
		case <-time.After(ledgerPause):
		}
	}
}

func ledgerJSON(w io.Writer, r *console.LedgerReport) error {
	var lines []any
	for _, row := range r.Rows {
		lines = append(lines, struct {
			Type string `json:"type"`
			console.LedgerRow
		}{"row", row})
	}
	for _, gap := range r.Gaps {
		lines = append(lines, struct {
			Type string `json:"type"`
			console.Gap
		}{"gap", gap})
	}
	for _, d := range r.DeadLetters {
		lines = append(lines, struct {
			Type string `json:"type"`
			console.DeadLetters
		}{"dead_letters", d})
	}
	return writeLines(w, lines)
}

func ledgerTable(w io.Writer, r *console.LedgerReport) error {
	zone := zoneOf(r.Zone)
	if len(r.Rows) == 0 && len(r.Gaps) == 0 {
		_, err := fmt.Fprintln(w, "Nothing was received in these hours. Ask for others with --from, or see coc sources list.")
		return err
	}
	head := "Every event is accounted for"
	if !r.Balanced {
		head = "NOT every event is accounted for"
	}
	fmt.Fprintf(w, "%s: received = stored + refused + dead-lettered + waiting (times in %s)\n\n", head, safe(r.Zone))
	t := newTable(left("HOUR"), left("SOURCE"), right("RECEIVED"), right("STORED"), right("REFUSED"), right("DEAD-LETTERED"), right("WAITING"), right("DIFFERENCE"))
	var sum console.LedgerRow
	for _, l := range r.Rows {
		t.add(moment(l.Hour, zone), l.Source, number(l.Received), number(l.Stored), number(l.Refused), number(l.DeadLettered), number(l.Waiting), number(l.Difference))
		sum.Received, sum.Stored, sum.Refused = sum.Received+l.Received, sum.Stored+l.Stored, sum.Refused+l.Refused
		sum.DeadLettered, sum.Waiting, sum.Difference = sum.DeadLettered+l.DeadLettered, sum.Waiting+l.Waiting, sum.Difference+l.Difference
	}
	if len(r.Rows) > 1 {
		t.add("all", "", number(sum.Received), number(sum.Stored), number(sum.Refused), number(sum.DeadLettered), number(sum.Waiting), number(sum.Difference))
	}
	if err := t.write(w); err != nil {
		return err
	}
	return ledgerNotes(w, r, zone)
}

func ledgerNotes(w io.Writer, r *console.LedgerReport, zone *time.Location) error {
	if !r.Complete {
		fmt.Fprintf(w, "\nMore waits on the bus, or lies among the dead letters, than was looked at: the figures are a lower bound. Ask again when the sink is through.\n")
	}
	if len(r.Gaps) > 0 {
		fmt.Fprintf(w, "\n%s in the numbering of collectors\n\n", plural(int64(len(r.Gaps)), "gap", "gaps"))
		t := newTable(left("COLLECTOR"), right("EPOCH"), right("FROM"), right("TO"), left("WHAT"), left("BEFORE"))
		for _, x := range r.Gaps {
			t.add(x.Collector, fmt.Sprint(x.Epoch), number(x.From), number(x.To), gapText(x), moment(x.At, zone))
		}
		if err := t.write(w); err != nil {
			return err
		}
	}
	if len(r.DeadLetters) > 0 {
		fmt.Fprintf(w, "\nDead letters, whatever their age\n\n")
		t := newTable(left("SOURCE"), left("BY"), left("REASON"), right("MESSAGES"), left("NEWEST"))
		for _, d := range r.DeadLetters {
			t.add(d.Source, d.From, d.Reason, number(d.Count), moment(d.Newest, zone))
		}
		return t.write(w)
	}
	return nil
}

func gapText(g console.Gap) string {
	if g.Twice {
		return "given twice"
	}
	return "missing"
}

// unaccounted names what does not add up; nil when everything does.
func unaccounted(r *console.LedgerReport) error {
	var list []error
	for _, l := range r.Rows {
		if l.Difference != 0 {
			list = append(list, fmt.Errorf("source %s, hour %s UTC: %s received and not accounted for", safe(l.Source), moment(l.Hour, time.UTC), plural(l.Difference, "event", "events")))
		}
	}
	for _, g := range r.Gaps {
		list = append(list, fmt.Errorf("collector %s, epoch %d: numbers %d to %d are %s", safe(g.Collector), g.Epoch, g.From, g.To, gapText(g)))
	}
	if len(list) == 0 && !r.Complete {
		list = append(list, errors.New("more waits on the bus than was looked at; check again when the sink is through"))
	}
	if len(list) == 0 {
		return nil
	}
	return fmt.Errorf("the ledger does not balance:\n%w", errors.Join(list...))
}

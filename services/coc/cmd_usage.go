package main

import (
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/opencoc/coc/services/console"
)

// UsageCmd shows the anonymous statistics.
type UsageCmd struct {
	Client ClientFlags `embed:""`
	JSON   bool        `name:"json" help:"Print JSON, one object a line, \"type\" being day or row (default: a table)."`
	From   string      `placeholder:"DAY" help:"First day, such as 2026-11-01 (default: the first there is; for the table the last one)."`
	To     string      `placeholder:"DAY" help:"Last day, included (default: the last there is)."`
}

// Run asks and prints.
func (c *UsageCmd) Run(g *Globals) error {
	if err := checkDays(c.From, c.To); err != nil {
		return err
	}
	cl, err := c.Client.connect(g)
	if err != nil {
		return err
	}
	q := url.Values{}
	set(q, "from", c.From)
	set(q, "to", c.To)
	var list console.UsageList
	if err := cl.get(g.Ctx, "/v1/usage", q, &list); err != nil {
		return err
	}
	if c.JSON {
		noteMore(g, list.More)
		return usageJSON(g.Stdout, &list)
	}
	return c.table(g.Stdout, &list)
}

func checkDays(days ...string) error {
	for _, d := range days {
		if _, err := time.Parse(time.DateOnly, d); d != "" && err != nil {
			return usageError{fmt.Errorf("%.40q is no day: write it as 2026-11-23", d)}
		}
	}
	return nil
}

type usageDayLine struct {
	Type string `json:"type"`
	console.UsageDay
}

type usageRowLine struct {
	Type string `json:"type"`
	console.UsageRow
}

func usageJSON(w io.Writer, list *console.UsageList) error {
	var lines []any
	for _, d := range list.Days {
		lines = append(lines, usageDayLine{"day", d})
	}
	for _, r := range list.Rows {
		lines = append(lines, usageRowLine{"row", r})
	}
	return writeLines(w, lines)
}

func (c *UsageCmd) table(w io.Writer, list *console.UsageList) error {
	if list.Simulated {
		fmt.Fprint(w, simulatedLine)
	}
	if len(list.Days) == 0 {
		text := "Nothing is released yet: a day is released once, 24 hours after its end, and looked for every minute."
		if list.Waiting > 0 {
			text = plural(int64(list.Waiting), "day is", "days are") + " closed, and released as soon as nothing more comes in for them: ask again in a minute or two."
		}
		if c.From != "" || c.To != "" {
			text = "No day of these is released. Without --from and --to the last one is shown."
		}
		_, err := fmt.Fprintln(w, text)
		return err
	}
	last := list.Days[0].Day
	for _, d := range list.Days {
		last = max(last, d.Day)
	}
	all := c.From != "" || c.To != ""
	fmt.Fprintf(w, "Anonymous statistics of %s (days in %s)\n\n", plural(int64(len(list.Days)), "released day", "released days"), safe(list.Zone))
	if err := usageDays(list.Days).write(w); err != nil {
		return err
	}
	what := "Day " + last
	if all {
		what = "Rows"
	}
	fmt.Fprintf(w, "\n%s\n\n", what)
	if err := usageRows(list.Rows, last, all).write(w); err != nil {
		return err
	}
	fmt.Fprintf(w, "\n“*” is all of them. Rows are left out where fewer than 11 tenants, or mostly one, would show.\n")
	if !all && len(list.Days) > 1 {
		fmt.Fprintf(w, "Other days: --from DAY --to DAY\n")
	}
	if list.More {
		fmt.Fprintf(w, "There are more rows: ask for fewer days with --from and --to.\n")
	}
	return nil
}

func usageDays(days []console.UsageDay) *table {
	t := newTable(left("DAY"), right("ROWS SHOWN"), right("LEFT OUT: FEW TENANTS"), right("LEFT OUT: DOMINATED"), right("EVENTS TOO LATE"))
	for _, d := range days {
		t.add(d.Day, number(d.Rows), number(d.FewTenants), number(d.Dominated), number(d.Late))
	}
	return t
}

// usageRows holds the rows of one day, or of all with the day in front.
func usageRows(rows []console.UsageRow, day string, all bool) *table {
	t := newTable(left("DAY"), left("SERVICE"), left("VERSION"), left("RESOURCE"), left("TIER"), right("TENANTS"), right("USERS"), right("USES"), right("FAILED"), right("≤ 1 s"), right("≤ 2 s"))
	for _, r := range rows {
		if !all && r.Day != day {
			continue
		}
		b := r.Buckets
		one := b.Ms100 + b.Ms200 + b.Ms500 + b.Ms1000
		resource := r.ResourceType + " " + r.ResourceName
		switch {
		case r.ResourceType == "*":
			resource = "*"
		case resource == " ":
			resource = "(none)"
		}
		front := r.Day
		if !all {
			front = ""
		}
		t.add(front, r.Service, r.Version, resource, r.Tier, number(r.Tenants), number(r.Users), number(r.Uses), share(r.Failures, r.Uses), share(one, r.Timed), share(one+b.Ms2000, r.Timed))
	}
	return t
}

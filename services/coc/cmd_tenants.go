package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strconv"

	"github.com/opencoc/coc/services/console"
)

// TenantsCmd shows tenants against their allowances, or how fast their windows
// open.
type TenantsCmd struct {
	Client ClientFlags `embed:""`
	JSON   bool        `name:"json" help:"Print JSON, one row a line (default: a table)."`
	Tenant string      `placeholder:"ID" help:"Only this tenant (default: all)."`
	Meter  string      `placeholder:"NAME" help:"Only this meter, by the name of its allowance (default: all)."`
	Above  bool        `help:"Only those above their allowance (default: all)."`
	Times  bool        `help:"Show response times per tenant, day, window and client instead (default: the standing)."`
	From   string      `placeholder:"DAY" help:"With --times: first day, such as 2026-11-01 (default: the first there is)."`
	To     string      `placeholder:"DAY" help:"With --times: last day, included (default: the last there is)."`
	Limit  int         `default:"10000" placeholder:"N" help:"At most so many rows, 1 to 100000 (default: ${default})."`
}

// Run asks and prints.
func (c *TenantsCmd) Run(g *Globals) error {
	if err := checkLimit(c.Limit, 100_000); err != nil {
		return err
	}
	if err := checkDays(c.From, c.To); err != nil {
		return err
	}
	switch {
	case !c.Times && (c.From != "" || c.To != ""):
		return usageError{fmt.Errorf("--from and --to go with --times; the standing is always that of now")}
	case c.Times && (c.Above || c.Meter != ""):
		return usageError{fmt.Errorf("--above and --meter are about the standing: leave them out with --times")}
	}
	cl, err := c.Client.connect(g)
	if err != nil {
		return err
	}
	if c.Times {
		return c.times(g, cl)
	}
	q := url.Values{"limit": {strconv.Itoa(c.Limit)}}
	set(q, "tenant", c.Tenant)
	set(q, "meter", c.Meter)
	setTrue(q, "above", c.Above)
	var list console.StandingList
	if err := cl.get(g.Ctx, "/v1/tenants", q, &list); err != nil {
		return err
	}
	if c.JSON {
		noteMore(g, list.More)
		return writeLines(g.Stdout, list.Rows)
	}
	return c.standing(g.Stdout, &list)
}

// writeLines prints one JSON object a line.
func writeLines[T any](w io.Writer, list []T) error {
	out := bufio.NewWriter(w)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	for i := range list {
		if err := enc.Encode(&list[i]); err != nil {
			return err
		}
	}
	return out.Flush()
}

func (c *TenantsCmd) standing(w io.Writer, list *console.StandingList) error {
	if list.Simulated {
		fmt.Fprint(w, simulatedLine)
	}
	if list.Meters == 0 {
		_, err := fmt.Fprintln(w, "There is no allowance to measure against: write rules/allowances.yaml.")
		return err
	}
	if len(list.Rows) == 0 {
		text := "No tenant used anything that has an allowance. Bring events in with `coc import FILE`, or try `coc simulate`."
		if c.Tenant != "" || c.Meter != "" || c.Above {
			text = "No tenant fits these filters."
		}
		_, err := fmt.Fprintln(w, text)
		return err
	}
	zone := zoneOf(list.Zone)
	above, tenants := map[string]bool{}, map[string]bool{}
	t := newTable(left("TENANT"), left("TIER"), left("METER"), right("USED"), right("ALLOWANCE"), right("RATIO"), right("TREND"), left("OVER"), left("ABOVE SINCE"))
	for _, r := range list.Rows {
		tenants[r.Tenant] = true
		allowance, ratio, since := "none set", "", ""
		if r.Allowed {
			allowance, ratio = amount(r.Allowance, r.Unit), percent(r.Ratio)
			if r.Ratio >= 1e8 {
				ratio = "not allowed"
			}
		}
		if r.Above {
			above[r.Tenant] = true
			if since = moment(r.Since, zone); r.Since == 0 {
				since = "above"
			}
		}
		t.add(r.Tenant, r.Tier, r.Meter, amount(r.Used, r.Unit), allowance, ratio, trendText(r), "last "+r.Window, since)
	}
	of := ""
	if !c.Above { // else the others were not asked for
		of = ", of " + number(int64(len(tenants)))
	}
	fmt.Fprintf(w, "%s above an allowance%s; measured at %s (%s), highest ratio first\n\n",
		plural(int64(len(above)), "tenant", "tenants"), of, moment(list.At, zone), safe(list.Zone))
	if err := t.write(w); err != nil {
		return err
	}
	if list.More {
		_, err := fmt.Fprintf(w, "\nThere are more rows: raise --limit, or ask with --above, --tenant or --meter.\n")
		return err
	}
	return nil
}

// trendText compares with the window before.
func trendText(r console.Standing) string {
	switch {
	case r.Previous == 0 && r.Used == 0:
		return ""
	case r.Previous == 0:
		return "new"
	}
	return fmt.Sprintf("%+.0f %%", 100*r.Trend)
}

func (c *TenantsCmd) times(g *Globals, cl *client) error {
	q := url.Values{"limit": {strconv.Itoa(c.Limit)}}
	set(q, "tenant", c.Tenant)
	set(q, "from", c.From)
	set(q, "to", c.To)
	var list console.ResponseTimeList
	if err := cl.get(g.Ctx, "/v1/response-times", q, &list); err != nil {
		return err
	}
	if c.JSON {
		noteMore(g, list.More)
		return writeLines(g.Stdout, list.Rows)
	}
	if list.Simulated {
		fmt.Fprint(g.Stdout, simulatedLine)
	}
	if len(list.Rows) == 0 {
		_, err := fmt.Fprintln(g.Stdout, "No response times: no windows were opened, or they came in within the last minute.")
		return err
	}
	t := newTable(left("DAY"), left("TENANT"), left("WINDOW"), left("CLIENT"), right("OPENINGS"), right("ABOVE 2 s"), right("SHARE"))
	for _, r := range list.Rows {
		t.add(r.Day, r.Tenant, r.Window, r.Client, number(r.Openings), number(r.Above), share(r.Above, r.Timed))
	}
	fmt.Fprintf(g.Stdout, "Response times of windows, %s; promised: at most 5.0 %% above 2 s (days in %s)\n\n", plural(int64(len(list.Rows)), "row", "rows"), safe(list.Zone))
	if err := t.write(g.Stdout); err != nil {
		return err
	}
	if list.More {
		_, err := fmt.Fprintf(g.Stdout, "\nThere are more rows: raise --limit, or ask with --tenant, --from and --to.\n")
		return err
	}
	return nil
}

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencoc/coc/services/console"
	"github.com/opencoc/coc/services/event"
)

// FindingsCmd lists findings, or shows one.
type FindingsCmd struct {
	Client    ClientFlags `embed:""`
	ID        string      `arg:"" optional:"" help:"Show this finding in full."`
	JSON      bool        `name:"json" help:"Print JSON, one finding a line (default: a table)."`
	Rule      string      `placeholder:"ID" help:"Only findings of this rule (default: all)."`
	Class     string      `enum:",abuse,fair_use,availability,performance,compliance" default:"" placeholder:"CLASS" help:"Only this class: abuse, fair_use, availability, performance or compliance (default: all)."`
	Severity  string      `enum:",info,low,medium,high,critical" default:"" placeholder:"SEVERITY" help:"Only this severity: info, low, medium, high or critical (default: all)."`
	Tenant    string      `placeholder:"ID" help:"Only this tenant (default: all)."`
	Import    string      `placeholder:"ID" help:"Only findings of this import (default: all, and live ones)."`
	Live      bool        `help:"Leave out findings of imports (default: they are shown)."`
	Since     string      `placeholder:"TIME" help:"Last seen since: 2026-11-23T14:05:00Z, 2026-11-23, or how long ago, such as 24h or 7d (default: ever)."`
	Until     string      `placeholder:"TIME" help:"First seen before; written as --since (default: now)."`
	Shadow    bool        `help:"Also findings of rules in the shadow (default: left out)."`
	Withdrawn bool        `help:"Also findings that became untrue (default: left out)."`
	Limit     int         `default:"10000" placeholder:"N" help:"At most so many findings, 1 to 100000 (default: ${default})."`
	Lang      string      `enum:"en,nl" default:"en" env:"COC_LANG" help:"Language of a rule's texts: en or nl (default: ${default})."`
}

// Run asks and prints.
func (c *FindingsCmd) Run(g *Globals) error {
	if err := checkLimit(c.Limit, 100_000); err != nil {
		return err
	}
	for flag, text := range map[string]string{"--since": c.Since, "--until": c.Until} {
		if err := checkWhen(flag, text, g.Now()); err != nil {
			return err
		}
	}
	cl, err := c.Client.connect(g)
	if err != nil {
		return err
	}
	if c.ID != "" {
		return c.one(g, cl)
	}
	var list console.FindingList
	if err := cl.get(g.Ctx, "/v1/findings", c.query(), &list); err != nil {
		return err
	}
	if c.JSON {
		noteMore(g, list.More)
		return writeFindings(g.Stdout, list.Findings)
	}
	return c.table(g, &list)
}

// noteMore tells, apart from the JSON lines, that they are not all there are.
func noteMore(g *Globals, more bool) {
	if more {
		fmt.Fprintln(g.Stderr, "coc: this is not all: raise --limit, or narrow down what you ask for")
	}
}

func checkWhen(flag, text string, now time.Time) error {
	if _, err := console.ParseWhen(text, now, time.UTC); err != nil {
		return usageError{fmt.Errorf("%s: %w", flag, err)}
	}
	return nil
}

func checkLimit(n, most int) error {
	if n < 1 || n > most {
		return usageError{fmt.Errorf("--limit must be from 1 to %d, is %d", most, n)}
	}
	return nil
}

func (c *FindingsCmd) query() url.Values {
	q := url.Values{"limit": {strconv.Itoa(c.Limit)}}
	set(q, "rule", c.Rule)
	set(q, "class", c.Class)
	set(q, "severity", c.Severity)
	set(q, "tenant", c.Tenant)
	set(q, "import", c.Import)
	set(q, "since", c.Since)
	set(q, "until", c.Until)
	setTrue(q, "live", c.Live)
	setTrue(q, "shadow", c.Shadow)
	setTrue(q, "withdrawn", c.Withdrawn)
	return q
}

func set(q url.Values, name, value string) {
	if value != "" {
		q.Set(name, value)
	}
}

func setTrue(q url.Values, name string, value bool) {
	if value {
		q.Set(name, "true")
	}
}

// writeFindings prints findings as the contract has them, one a line. Lists
// are never null.
func writeFindings(w io.Writer, list []event.Finding) error {
	out := bufio.NewWriter(w)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	for i := range list {
		f := list[i]
		if f.Key == nil {
			f.Key = map[string]string{}
		}
		if f.Terms == nil {
			f.Terms = []event.Term{}
		}
		if f.Evidence == nil {
			f.Evidence = []string{}
		}
		if err := enc.Encode(&f); err != nil {
			return err
		}
	}
	return out.Flush()
}

// findingRow is a line of the list: a finding with those that it continues.
type findingRow struct {
	event.Finding
	cells int
}

// chains folds findings that continue each other into the newest of them.
func chains(list []event.Finding) []findingRow {
	byID := make(map[string]*event.Finding, len(list))
	continued := make(map[string]bool)
	for i := range list {
		byID[list[i].ID] = &list[i]
	}
	for i := range list {
		if byID[list[i].Continues] != nil {
			continued[list[i].Continues] = true
		}
	}
	var rows []findingRow
	for i := range list {
		if continued[list[i].ID] {
			continue
		}
		row := findingRow{Finding: list[i], cells: 1}
		for f := byID[list[i].Continues]; f != nil && row.cells <= len(list); f = byID[f.Continues] {
			row.cells++ // their windows overlap, so their counts do not add up
		}
		rows = append(rows, row)
	}
	return rows
}

func (c *FindingsCmd) table(g *Globals, list *console.FindingList) error {
	if list.Simulated {
		fmt.Fprint(g.Stdout, simulatedLine)
	}
	zone := zoneOf(list.Zone)
	if len(list.Findings) == 0 {
		return c.empty(g, list, zone)
	}
	rows := chains(list.Findings)
	head := plural(int64(len(list.Findings)), "finding", "findings") + ", newest first"
	if len(rows) < len(list.Findings) {
		head += fmt.Sprintf(", in %s", plural(int64(len(rows)), "row", "rows"))
	}
	fmt.Fprintf(g.Stdout, "%s (times in %s)\n\n", head, safe(list.Zone))
	if err := findingsTable(rows, zone).write(g.Stdout); err != nil {
		return err
	}
	if list.More {
		fmt.Fprintf(g.Stdout, "\nThere are more: raise --limit, or narrow with --since, --rule or --class.\n")
	}
	_, err := fmt.Fprintf(g.Stdout, "\nOne in full: coc findings%s ID\n", c.Client.again())
	return err
}

func findingsTable(rows []findingRow, zone *time.Location) *table {
	t := newTable(left("FIRED"), left("SEVERITY"), left("CLASS"), left("RULE"), left("KEY"), right("EVENTS"), left("LAST SEEN"), left("NOTE"), left("ID"))
	for _, r := range rows {
		t.add(moment(r.Fired, zone), r.Severity, r.Class, r.Rule, keyText(r.Key), number(r.Count), moment(r.LastSeen, zone), r.note(), r.ID)
	}
	return t
}

func (r *findingRow) note() string {
	var list []string
	if r.cells > 1 {
		list = append(list, fmt.Sprintf("goes on, %d in a row", r.cells))
	}
	if r.Status == "shadow" {
		list = append(list, "shadow")
	}
	if r.Withdrawn {
		list = append(list, "withdrawn")
	}
	if r.Import != "" {
		list = append(list, "import")
	}
	if r.Approximate {
		list = append(list, "approximate")
	}
	return strings.Join(list, ", ")
}

// keyText writes a key as name=value, in the order of the names; people as
// u-7f3a…, since the whole hash says no more to a reader.
func keyText(key map[string]string) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(key)) {
		list = append(list, name+"="+shortHash(key[name]))
	}
	return strings.Join(list, " ")
}

func (c *FindingsCmd) empty(g *Globals, list *console.FindingList, zone *time.Location) error {
	through := ""
	if list.EvaluatedThrough != 0 {
		through = fmt.Sprintf(" Every rule has judged events up to %s (%s).", moment(list.EvaluatedThrough, zone), list.Zone)
	}
	q := c.query()
	q.Del("limit")
	if len(q) > 0 {
		_, err := fmt.Fprintf(g.Stdout, "No finding fits these filters.%s Try fewer of them.\n", through)
		return err
	}
	_, err := fmt.Fprintf(g.Stdout, "No findings.%[1]s\nBring a log in with `coc import%[2]s FILE`, or watch events come with `coc tail%[2]s`.\n", through, c.Client.again())
	return err
}

func (c *FindingsCmd) one(g *Globals, cl *client) error {
	var d console.FindingDetail
	err := cl.get(g.Ctx, "/v1/findings/"+url.PathEscape(c.ID), nil, &d)
	var refused *apiError
	if errors.As(err, &refused) && refused.status == 404 {
		return fmt.Errorf("there is no finding %s: coc findings lists them with their ids", safe(c.ID))
	}
	if err != nil {
		return err
	}
	if c.JSON {
		return writeFindings(g.Stdout, []event.Finding{d.Finding})
	}
	_, err = io.WriteString(g.Stdout, detail(&d, c.Lang))
	return err
}

// detail writes one finding for people: what, who, when, why, and what to do.
func detail(d *console.FindingDetail, lang string) string {
	f, zone := &d.Finding, zoneOf(d.Zone)
	var b strings.Builder
	line := func(name, text string) {
		if text != "" {
			fmt.Fprintf(&b, "%-12s%s\n", name, text)
		}
	}
	fmt.Fprintf(&b, "%s\n\n", safe(titleOf(d, lang)))
	line("what", safe(strings.Join(slices.DeleteFunc([]string{f.Severity, strings.ReplaceAll(f.Class, "_", " ")}, func(s string) bool { return s == "" }), ", ")))
	line("rule", safe(f.Rule)+shadowText(f))
	line("id", fmt.Sprintf("%s, revision %d", safe(f.ID), f.Revision))
	for i, name := range slices.Sorted(maps.Keys(f.Key)) {
		head := ""
		if i == 0 {
			head = "key"
		}
		line(head, safe(name)+" = "+safe(f.Key[name]))
	}
	line("fired", fmt.Sprintf("%s (%s), by event %s", moment(f.Fired, zone), safe(d.Zone), safe(f.FiredBy)))
	line("seen", fmt.Sprintf("%s to %s, %s", moment(f.FirstSeen, zone), moment(f.LastSeen, zone), plural(f.Count, "event", "events")))
	for i, t := range f.Terms {
		head := ""
		if i == 0 {
			head = "why"
		}
		line(head, safe(t.Expr)+" was "+amount(t.Value, ""))
	}
	if f.Window != (event.Span{}) {
		line("window", moment(f.Window.From, zone)+" to "+moment(f.Window.To, zone))
	}
	line("how", safe(f.How))
	for _, s := range remarks(d) {
		line("note", s)
	}
	evidence(&b, d, zone)
	if d.Rule != nil {
		paragraph(&b, "Why it matters", textIn(d.Rule.Description, lang))
		paragraph(&b, "What to do", textIn(d.Rule.Response, lang))
	}
	return b.String()
}

func titleOf(d *console.FindingDetail, lang string) string {
	if d.Rule != nil {
		if t := textIn(d.Rule.Title, lang); t != "" {
			return t
		}
	}
	if d.Finding.Title != "" {
		return d.Finding.Title
	}
	return d.Finding.Rule
}

func shadowText(f *event.Finding) string {
	if f.Status == "shadow" {
		return " (in the shadow: it tells nobody)"
	}
	return ""
}

func remarks(d *console.FindingDetail) (list []string) {
	f := &d.Finding
	if f.Withdrawn {
		list = append(list, "withdrawn: an event that came late made it untrue")
	}
	if f.Approximate {
		list = append(list, "approximate: its window held more events than are counted exactly")
	}
	if f.Import != "" {
		list = append(list, "of the import "+safe(f.Import)+", judged apart from what is live")
	}
	if f.Continues != "" {
		list = append(list, "continues "+safe(f.Continues))
	}
	if d.Changed {
		list = append(list, "the rule decides differently now than when it found this")
	}
	return list
}

func evidence(b *strings.Builder, d *console.FindingDetail, zone *time.Location) {
	if len(d.Events) == 0 {
		if n := len(d.Finding.Evidence); n > 0 {
			fmt.Fprintf(b, "\nEvidence: %s\n\n", plural(int64(n), "event", "events"))
			for _, id := range d.Finding.Evidence {
				fmt.Fprintf(b, "  %s\n", safe(id))
			}
		}
		return
	}
	fmt.Fprintf(b, "\nEvidence: %s of %s\n\n", number(int64(len(d.Events))), plural(d.Finding.Count, "event", "events"))
	t := newTable(left("TIME"), left("ACTION"), left("OUTCOME"), left("MESSAGE"), left("ID"))
	t.max = maxTailText
	dec := event.NewJSONDecoder()
	dec.Internal = true
	for _, l := range d.Events {
		var e event.Event
		if dec.Decode(l.Event, &e) != nil {
			t.add("", "", "", "(cannot be read)", l.ID)
			continue
		}
		t.add(moment(event.Stamp(e.Time), zone), e.Action, e.Outcome, e.Message, l.ID)
	}
	_ = t.write(b) // a strings.Builder takes everything
}

func paragraph(b *strings.Builder, head, text string) {
	if text = strings.TrimSpace(text); text == "" {
		return
	}
	fmt.Fprintf(b, "\n%s\n", head)
	for l := range strings.Lines(text) {
		fmt.Fprintf(b, "  %s\n", safe(strings.TrimRight(l, "\r\n")))
	}
}

// textIn gives a text in a language, else in English, else in any.
func textIn(t map[string]string, lang string) string {
	for _, l := range []string{lang, "en"} {
		if t[l] != "" {
			return t[l]
		}
	}
	for _, l := range slices.Sorted(maps.Keys(t)) {
		return t[l]
	}
	return ""
}

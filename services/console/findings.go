package console

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/opencoc/coc/services/event"
	"github.com/opencoc/coc/services/store"
)

type findingsInput struct {
	Rule      string `query:"rule" maxLength:"100" doc:"Only findings of this rule, by its id."`
	Class     string `query:"class" enum:"abuse,fair_use,availability,performance,compliance" doc:"Only this class."`
	Severity  string `query:"severity" enum:"info,low,medium,high,critical" doc:"Only this severity."`
	Tenant    string `query:"tenant" maxLength:"128" doc:"Only this tenant, by its id."`
	Import    string `query:"import" maxLength:"128" doc:"Only this import, by its id."`
	Since     string `query:"since" maxLength:"40" doc:"Last seen at or after: RFC 3339, a date in the hoster's zone, or how long ago, such as 24h or 7d."`
	Until     string `query:"until" maxLength:"40" doc:"First seen before; written as since."`
	Live      bool   `query:"live" doc:"Leave out findings of imports."`
	Shadow    bool   `query:"shadow" doc:"Also those of rules that run in the shadow."`
	Withdrawn bool   `query:"withdrawn" doc:"Also those that became untrue."`
	Limit     int    `query:"limit" minimum:"1" maximum:"100000" default:"10000" doc:"At most so many, the newest."`
}

// FindingList is the answer to list-findings.
type FindingList struct {
	Facts
	EvaluatedThrough event.Stamp     `json:"evaluated_through,omitempty" doc:"Every rule has judged events up to this time; absent when this process does not know."`
	Findings         []event.Finding `json:"findings" doc:"Latest revisions, newest fired first."`
}

// FindingDetail is the answer to get-finding.
type FindingDetail struct {
	Zone    string        `json:"zone"`
	Finding event.Finding `json:"finding"`
	Rule    *RuleText     `json:"rule,omitempty" doc:"The rule as it stands now; absent when it is no longer in the set."`
	Changed bool          `json:"changed,omitempty" doc:"The rule decides differently now than when it made the finding."`
	Events  []EventLine   `json:"events,omitempty" doc:"The events named as evidence that are still kept, in order of time, with the fields that the role may see."`
}

type findingsOutput struct{ Body FindingList }
type findingOutput struct{ Body FindingDetail }

func (c *Console) registerFindings(api huma.API) {
	huma.Register(api, operation(opFindings, http.MethodGet, "/v1/findings", "List findings",
		"Latest revisions, newest first. Fields and key entries of a class that the role may not see are empty."), c.listFindings)
	o := operation(opFinding, http.MethodGet, "/v1/findings/{id}", "Show one finding", "With its rule and, for roles that may see them, its evidence.")
	o.Errors = append(o.Errors, http.StatusNotFound)
	huma.Register(api, o, c.getFinding)
}

func (c *Console) listFindings(ctx context.Context, in *findingsInput) (*findingsOutput, error) {
	f := store.FindingFilter{Rule: in.Rule, Class: in.Class, Severity: in.Severity, Tenant: in.Tenant, Import: in.Import,
		Withdrawn: in.Withdrawn, Shadow: in.Shadow, Live: in.Live, Limit: in.Limit}
	var err error
	if f.Since, err = c.when("since", in.Since); err != nil {
		return nil, err
	}
	if f.Until, err = c.when("until", in.Until); err != nil {
		return nil, err
	}
	out := &findingsOutput{}
	out.Body.EvaluatedThrough = event.Stamp(c.EvaluatedThrough())
	err = c.ask(ctx, func() error {
		page, err := c.Store.Findings(ctx, reader(ctx), f)
		if err != nil {
			return err
		}
		out.Body.Findings = page.Findings
		out.Body.Facts, err = c.facts(ctx, page.More)
		return err
	})
	if err != nil {
		return nil, c.fail("list findings", err)
	}
	for i := range out.Body.Findings {
		noNils(&out.Body.Findings[i])
	}
	if out.Body.Findings == nil {
		out.Body.Findings = []event.Finding{}
	}
	return out, nil
}

// noNils makes empty lists of what may be nil: the contract says list.
func noNils(f *event.Finding) {
	if f.Key == nil {
		f.Key = map[string]string{}
	}
	if f.Terms == nil {
		f.Terms = []event.Term{}
	}
	if f.Evidence == nil {
		f.Evidence = []string{}
	}
}

type findingInput struct {
	ID string `path:"id" minLength:"1" maxLength:"64" doc:"The finding's id."`
}

func (c *Console) getFinding(ctx context.Context, in *findingInput) (*findingOutput, error) {
	out := &findingOutput{}
	b := &out.Body
	b.Zone = c.Zone.String()
	err := c.ask(ctx, func() (err error) {
		if b.Finding, err = c.Store.Finding(ctx, reader(ctx), in.ID); err != nil {
			return err
		}
		b.Events, err = c.evidence(ctx, &b.Finding)
		return err
	})
	if err != nil {
		return nil, c.fail("show the finding", err)
	}
	noNils(&b.Finding)
	if r, ok := c.Rules(b.Finding.Rule); ok {
		b.Rule, b.Changed = &r, r.Logic != b.Finding.Logic
	}
	return out, nil
}

// evidence reads the events that a finding names, for roles that may see
// events. Those that are no longer kept are missing.
func (c *Console) evidence(ctx context.Context, f *event.Finding) ([]EventLine, error) {
	who := reader(ctx)
	if len(f.Evidence) == 0 || !who.Role.MayRead(access[opTail].reads) {
		return nil, nil
	}
	page, err := c.Store.Events(ctx, who, store.EventFilter{
		IDs: f.Evidence, Limit: len(f.Evidence),
		Since: time.UnixMilli(int64(f.FirstSeen)), Until: time.UnixMilli(int64(f.LastSeen) + 1),
	})
	var refused *store.Refused
	if errors.As(err, &refused) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	lines := make([]EventLine, len(page.Events))
	for i := range page.Events { // newest first, turned round
		e := &page.Events[len(page.Events)-1-i]
		e.UserName = ""
		lines[i] = EventLine{ID: e.EventID(), Event: event.AppendJSON(nil, e)}
	}
	return lines, nil
}

// when reads a moment of a request.
func (c *Console) when(name, text string) (time.Time, error) {
	t, err := ParseWhen(text, c.Now(), c.Zone)
	if err != nil {
		return t, huma.Error422UnprocessableEntity(name + ": " + err.Error())
	}
	return t, nil
}

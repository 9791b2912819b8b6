package console

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/opencoc/coc/services/event"
	"github.com/opencoc/coc/services/store"
)

type tenantsInput struct {
	Tenant string `query:"tenant" maxLength:"128" doc:"Only this tenant, by its id."`
	Meter  string `query:"meter" maxLength:"100" doc:"Only this meter, by the name of its allowance."`
	Above  bool   `query:"above" doc:"Only those above their allowance."`
	Limit  int    `query:"limit" minimum:"1" maximum:"100000" default:"10000" doc:"At most so many rows, the highest ratios."`
}

// Standing is a tenant's use of one meter against its allowance.
type Standing struct {
	Tenant    string      `json:"tenant"`
	Tier      string      `json:"tier"`
	Meter     string      `json:"meter"`
	Unit      string      `json:"unit"`
	Window    string      `json:"window" doc:"The stretch that is measured, such as 30d; it ends now."`
	Used      float64     `json:"used"`
	Previous  float64     `json:"previous" doc:"Used in the window before."`
	Trend     float64     `json:"trend" doc:"(used - previous) / previous; 0 when previous is 0."`
	Allowed   bool        `json:"allowed" doc:"The tier has an allowance."`
	Allowance float64     `json:"allowance"`
	Ratio     float64     `json:"ratio" doc:"used / allowance."`
	Above     bool        `json:"above"`
	Since     event.Stamp `json:"since,omitempty" doc:"Above without a break since then; absent when not above or not known."`
}

// StandingList is the answer to list-tenants.
type StandingList struct {
	Facts
	At     event.Stamp `json:"at" doc:"The end of the windows."`
	Meters int         `json:"meters" doc:"Allowances in force; none: there is nothing to measure."`
	Rows   []Standing  `json:"standing" doc:"By ratio, highest first."`
}

type tenantsOutput struct{ Body StandingList }

func (c *Console) registerTenants(api huma.API) {
	huma.Register(api, operation(opTenants, http.MethodGet, "/v1/tenants", "List tenants' standing",
		"Each tenant's use against its fair-use allowances."), c.listTenants)
}

func (c *Console) listTenants(ctx context.Context, in *tenantsInput) (*tenantsOutput, error) {
	now := c.Now()
	meters := c.Allowances()
	out := &tenantsOutput{Body: StandingList{At: stamp(now), Meters: len(meters), Rows: []Standing{}}}
	err := c.ask(ctx, func() error {
		rows, more, err := c.Store.Tenants(ctx, reader(ctx), meters, now, store.StandingFilter{Tenant: in.Tenant, Meter: in.Meter, OnlyAbove: in.Above, Limit: in.Limit})
		if err != nil {
			return err
		}
		for _, r := range rows {
			out.Body.Rows = append(out.Body.Rows, Standing{
				Tenant: r.Tenant, Tier: r.Tier, Meter: r.Meter, Unit: r.Unit, Window: formatSpan(r.Window),
				Used: r.Used, Previous: r.Previous, Trend: r.Trend,
				Allowed: r.Allowed, Allowance: r.Allowance, Ratio: r.Ratio, Above: r.Above, Since: stamp(r.Since),
			})
		}
		out.Body.Facts, err = c.facts(ctx, more)
		return err
	})
	if err != nil {
		return nil, c.fail("list the tenants' standing", err)
	}
	return out, nil
}

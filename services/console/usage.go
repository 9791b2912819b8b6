package console

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/opencoc/coc/services/event"
	"github.com/opencoc/coc/services/store"
)

type daysInput struct {
	From string `query:"from" pattern:"^[0-9]{4}-[0-9]{2}-[0-9]{2}$" doc:"First day, in the hoster's zone; default the first there is."`
	To   string `query:"to" pattern:"^[0-9]{4}-[0-9]{2}-[0-9]{2}$" doc:"Last day, included; default the last there is."`
}

// UsageDay is what a released day holds and what it leaves out.
type UsageDay struct {
	Day         string      `json:"day"`
	Zone        string      `json:"zone"`
	Released    event.Stamp `json:"released"`
	Rows        int64       `json:"rows" doc:"Rows that are shown."`
	FewTenants  int64       `json:"few_tenants" doc:"Rows left out for fewer than 11 tenants."`
	Dominated   int64       `json:"dominated" doc:"Rows left out because one tenant made more than half of the uses."`
	Late        int64       `json:"late" doc:"Events that came after the release; they are in no figure."`
	LateCounted event.Stamp `json:"late_counted,omitempty" doc:"When late was counted last; absent: never yet."`
	Simulated   bool        `json:"simulated"`
}

// UsageRow is one row of a day's release. Its buckets count the timed uses by
// their response time.
type UsageRow struct {
	Day          string  `json:"day"`
	Service      string  `json:"service"`
	Version      string  `json:"version"`
	ResourceType string  `json:"resource_type" doc:"“*”: all resources."`
	ResourceName string  `json:"resource_name" doc:"“*”: all resources."`
	Tier         string  `json:"tier" doc:"“*”: all tiers."`
	Tenants      int64   `json:"tenants"`
	Users        int64   `json:"users"`
	Uses         int64   `json:"uses"`
	Failures     int64   `json:"failures"`
	Timed        int64   `json:"timed" doc:"Uses with a response time."`
	Buckets      Buckets `json:"buckets"`
}

// Buckets counts response times, each time once.
type Buckets struct {
	Ms100   int64 `json:"ms_100" doc:"At most 0.1 s."`
	Ms200   int64 `json:"ms_200" doc:"At most 0.2 s, more than 0.1 s; and so on."`
	Ms500   int64 `json:"ms_500"`
	Ms1000  int64 `json:"ms_1000"`
	Ms2000  int64 `json:"ms_2000"`
	Ms5000  int64 `json:"ms_5000"`
	Ms10000 int64 `json:"ms_10000"`
	More    int64 `json:"ms_more" doc:"More than 10 s."`
}

func bucketsOf(b [store.BucketCount]int64) Buckets {
	return Buckets{b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]}
}

// UsageList is the answer to get-usage.
type UsageList struct {
	Facts
	Days    []UsageDay `json:"days"`
	Rows    []UsageRow `json:"rows"`
	Waiting int        `json:"waiting" doc:"When no day is released: closed days whose release is due."`
}

type usageOutput struct{ Body UsageList }

func (c *Console) registerUsage(api huma.API) {
	huma.Register(api, operation(opUsage, http.MethodGet, "/v1/usage", "Read the anonymous statistics",
		"The releases of closed days. A day is released once, a day after its end, and never changed; no row tells of fewer than 11 tenants, or of one that makes most of it."), c.getUsage)
}

func (c *Console) getUsage(ctx context.Context, in *daysInput) (*usageOutput, error) {
	out := &usageOutput{Body: UsageList{Days: []UsageDay{}, Rows: []UsageRow{}}}
	err := c.ask(ctx, func() error {
		report, err := c.Store.Usage(ctx, reader(ctx), store.Day(in.From), store.Day(in.To))
		if err != nil {
			return err
		}
		simulated := false
		for _, d := range report.Days {
			simulated = simulated || d.Simulated
			out.Body.Days = append(out.Body.Days, UsageDay{
				Day: string(d.Day), Zone: d.Zone, Released: stamp(d.Released), Rows: d.Rows, FewTenants: d.FewTenants, Dominated: d.Dominated,
				Late: d.Late, LateCounted: stamp(d.LateCounted), Simulated: d.Simulated,
			})
		}
		for _, r := range report.Rows {
			out.Body.Rows = append(out.Body.Rows, UsageRow{
				Day: string(r.Day), Service: r.Service, Version: r.Version, ResourceType: r.ResourceType, ResourceName: r.ResourceName, Tier: r.Tier,
				Tenants: r.Tenants, Users: r.Users, Uses: r.Uses, Failures: r.Failures, Timed: r.Timed, Buckets: bucketsOf(r.Buckets),
			})
		}
		out.Body.Facts = Facts{Zone: c.Zone.String(), Simulated: simulated, More: report.More}
		if len(report.Days) == 0 {
			due, err := c.Store.ClosedDays(ctx, c.Now(), c.Zone, 0)
			out.Body.Waiting = len(due)
			return err
		}
		return nil
	})
	if err != nil {
		return nil, c.fail("read the statistics", err)
	}
	return out, nil
}

type responseTimesInput struct {
	daysInput
	Tenant string `query:"tenant" maxLength:"128" doc:"Only this tenant, by its id."`
	Window string `query:"window" maxLength:"256" doc:"Only this window, by the product's name of it."`
	Client string `query:"client" maxLength:"256" doc:"Only this client."`
	Limit  int    `query:"limit" minimum:"1" maximum:"100000" default:"10000" doc:"At most so many rows."`
}

// ResponseTime is how fast one window opened for one tenant on one day.
type ResponseTime struct {
	Tenant   string  `json:"tenant"`
	Day      string  `json:"day"`
	Window   string  `json:"window"`
	Client   string  `json:"client"`
	Openings int64   `json:"openings"`
	Timed    int64   `json:"timed" doc:"Openings with a response time."`
	Above    int64   `json:"above_2s" doc:"Of the timed ones, those above the promised 2 s."`
	Buckets  Buckets `json:"buckets"`
}

// ResponseTimeList is the answer to list-response-times.
type ResponseTimeList struct {
	Facts
	Rows []ResponseTime `json:"response_times"`
}

type responseTimesOutput struct{ Body ResponseTimeList }

func (c *Console) registerResponseTimes(api huma.API) {
	huma.Register(api, operation(opResponseTimes, http.MethodGet, "/v1/response-times", "List response times by tenant",
		"Openings of windows per tenant, day and client. Not anonymous."), c.listResponseTimes)
}

func (c *Console) listResponseTimes(ctx context.Context, in *responseTimesInput) (*responseTimesOutput, error) {
	out := &responseTimesOutput{Body: ResponseTimeList{Rows: []ResponseTime{}}}
	err := c.ask(ctx, func() error {
		rows, more, err := c.Store.ResponseTimes(ctx, reader(ctx), store.ResponseTimeFilter{
			Tenant: in.Tenant, Window: in.Window, Client: in.Client, From: store.Day(in.From), To: store.Day(in.To), Limit: in.Limit})
		if err != nil {
			return err
		}
		for _, r := range rows {
			out.Body.Rows = append(out.Body.Rows, ResponseTime{
				Tenant: r.Tenant, Day: string(r.Day), Window: r.Window, Client: r.Client,
				Openings: r.Openings, Timed: r.Timed, Above: r.Above, Buckets: bucketsOf(r.Buckets),
			})
		}
		out.Body.Facts, err = c.facts(ctx, more)
		return err
	})
	if err != nil {
		return nil, c.fail("list response times", err)
	}
	return out, nil
}

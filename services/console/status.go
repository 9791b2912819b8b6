package console

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
)

type statusOutput struct{ Body any }

func (c *Console) registerStatus(api huma.API) {
	huma.Register(api, operation(opStatus, http.MethodGet, "/v1/status", "Show how coc is",
		"The roles that run in this process, their positions and what troubles them."), c.tell(c.Status, "this process has nothing to tell about itself; see /readyz and /metrics"))
	huma.Register(api, operation(opSources, http.MethodGet, "/v1/sources", "List sources",
		"The sources of the collector in this process, with what they brought and refused."), c.tell(c.Sources, "no collector runs in this process; ask the one that runs it"))
}

func (c *Console) tell(what func(context.Context) any, nothing string) func(context.Context, *struct{}) (*statusOutput, error) {
	return func(ctx context.Context, _ *struct{}) (*statusOutput, error) {
		if what == nil {
			return nil, huma.Error404NotFound(nothing)
		}
		return &statusOutput{Body: what(ctx)}, nil
	}
}

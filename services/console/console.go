package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/opencoc/coc/services/bus"
	"github.com/opencoc/coc/services/event"
	"github.com/opencoc/coc/services/store"
)

// RuleText is what the API tells about a rule beside a finding of it. Texts are
// by language: en, nl.
type RuleText struct {
	ID          string            `json:"id"`
	Kind        string            `json:"kind"`
	Title       map[string]string `json:"title"`
	Description map[string]string `json:"description,omitempty"`
	Response    map[string]string `json:"response,omitempty"`
	Owner       string            `json:"owner,omitempty"`
	Tags        []string          `json:"tags,omitempty"`
	Match       string            `json:"match"`
	Condition   string            `json:"condition,omitempty"`
	GroupBy     []string          `json:"group_by,omitempty"`
	Window      string            `json:"window,omitempty"`
	Suppress    string            `json:"suppress,omitempty"`
	Logic       string            `json:"logic" doc:"Hash of what decides; a finding with another one was made by an earlier version of the rule."`
}

// Config is what the API stands on.
type Config struct {
	Bus   *bus.Bus       // required: tokens, tail, what waits
	Store *store.Store   // required
	Zone  *time.Location // the hoster's; default that of Store
	// Allowances are the fair-use meters of the rule set in force. nil: none.
	Allowances func() []store.Meter
	// Rules describes a rule of the set in force; false when there is none of
	// that id. nil: nothing is told about rules.
	Rules func(id string) (RuleText, bool)
	// Status and Sources answer the operations of those names with anything that
	// JSON can hold. nil: this process has nothing to tell.
	Status, Sources func(ctx context.Context) any
	// EvaluatedThrough is the event time in Unix milliseconds through which every
	// rule has judged. nil or 0: not known here.
	EvaluatedThrough func() int64
	Version          string
	Log              *slog.Logger // default: discards
	Now              func() time.Time
}

func (c Config) complete() (Config, error) {
	if c.Bus == nil || c.Store == nil {
		return c, errors.New("console: Bus and Store are required")
	}
	if c.Zone == nil {
		c.Zone = c.Store.Zone()
	}
	if c.Allowances == nil {
		c.Allowances = func() []store.Meter { return nil }
	}
	if c.Rules == nil {
		c.Rules = func(string) (RuleText, bool) { return RuleText{}, false }
	}
	if c.EvaluatedThrough == nil {
		c.EvaluatedThrough = func() int64 { return 0 }
	}
	if c.Version == "" {
		c.Version = "0"
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c, nil
}

// Console is the API. It is safe for concurrent use.
type Console struct {
	Config
	gate       gate
	questions  chan struct{} // a place per question that the store answers
	statements chan struct{}
	waiting    chan struct{} // a place per question that waits
	tails      tails
	metrics    metrics
	mux        *http.ServeMux
	handler    http.Handler
	openapi    []byte
}

// New builds the API. It starts nothing.
func New(config Config) (*Console, error) {
	config, err := config.complete()
	if err != nil {
		return nil, err
	}
	c := &Console{
		Config: config, gate: newGate(),
		questions: make(chan struct{}, questionsAtOnce), statements: make(chan struct{}, statementsAtOnce), waiting: make(chan struct{}, queueMax),
		tails: newTails(), metrics: newMetrics(),
		mux: http.NewServeMux(),
	}
	api := humago.New(c.mux, c.humaConfig())
	api.UseMiddleware(c.admit(api))
	c.registerAll(api)
	if err := everyOperationHasARow(api.OpenAPI()); err != nil {
		return nil, err
	}
	if c.openapi, err = json.Marshal(api.OpenAPI()); err != nil {
		return nil, fmt.Errorf("console: cannot write the API's description: %w", err)
	}
	c.mux.HandleFunc("GET /openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/openapi+json")
		_, _ = w.Write(c.openapi) // a client that went away needs no answer
	})
	c.handler = c.outer(c.mux)
	return c, nil
}

// Handler serves /v1/… and /openapi.json, and answers everything else with 404.
func (c *Console) Handler() http.Handler { return c.handler }

// Close ends the open tails, so that a server need not wait for them. It is
// idempotent; later tails are refused.
func (c *Console) Close() { c.tails.close() }

func (c *Console) humaConfig() huma.Config {
	h := huma.DefaultConfig("coc", c.Version)
	h.Info.Description = "Findings, fair-use standing, anonymous statistics and proof of completeness of a Cyber Operations Center."
	// No pages that load scripts from elsewhere, no links added to answers; the
	// description is served by New, written once.
	h.DocsPath, h.SchemasPath, h.OpenAPIPath, h.CreateHooks = "", "", "", nil
	h.RejectUnknownQueryParameters = true // a misspelt filter would filter nothing
	h.Components.SecuritySchemes = map[string]*huma.SecurityScheme{"token": {Type: "http", Scheme: "bearer", Description: "An access token: coc token new."}}
	h.Security = []map[string][]string{{"token": {}}}
	h.Components.Schemas.RegisterTypeAlias(reflect.TypeFor[event.Stamp](), reflect.TypeFor[time.Time]())
	return h
}

// operation fills in what all have in common.
func operation(id, method, path, summary, doc string) huma.Operation {
	return huma.Operation{
		OperationID: id, Method: method, Path: path, Summary: summary, Description: doc,
		MaxBodyBytes: maxBody, BodyReadTimeout: bodyTimeout,
		Errors: []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests, http.StatusServiceUnavailable},
	}
}

func (c *Console) registerAll(api huma.API) {
	c.registerFindings(api)
	c.registerTenants(api)
	c.registerUsage(api)
	c.registerResponseTimes(api)
	c.registerLedger(api)
	c.registerTail(api)
	c.registerSQL(api)
	c.registerTokens(api)
	c.registerStatus(api)
}

// Facts is what every list says about itself.
type Facts struct {
	Zone      string `json:"zone" doc:"The hoster's time zone; days, weeks and nights are its."`
	Simulated bool   `json:"simulated" doc:"There are simulated events in this instance: figures may be made up."`
	More      bool   `json:"more" doc:"The list was cut at its limit."`
}

func (c *Console) facts(ctx context.Context, more bool) (Facts, error) {
	simulated, err := c.Store.Simulated(ctx)
	return Facts{Zone: c.Zone.String(), Simulated: simulated, More: more}, err
}

// stamp writes a time for JSON; the zero time is absent.
func stamp(t time.Time) event.Stamp {
	if t.IsZero() {
		return 0
	}
	return event.Stamp(t.UnixMilli())
}

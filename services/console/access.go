package console

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/opencoc/coc/services/bus"
	"github.com/opencoc/coc/services/store"
)

// The operations, by their id in the API's description.
const (
	opFindings      = "list-findings"
	opFinding       = "get-finding"
	opTenants       = "list-tenants"
	opUsage         = "get-usage"
	opResponseTimes = "list-response-times"
	opLedger        = "get-ledger"
	opTail          = "tail-events"
	opSQL           = "run-sql"
	opNewToken      = "create-token"
	opTokens        = "list-tokens"
	opRevokeToken   = "revoke-token"
	opStatus        = "get-status"
	opSources       = "list-sources"
)

// row says who may call an operation, and what it reads in store: there the
// role is asked a second time. A test holds the two together.
type row struct {
	roles []store.Role
	reads string // table or view of store; "" when it reads none
}

var (
	analysts = []store.Role{store.RoleAnalyst, store.RolePrivacy, store.RoleAdministrator}
	keepers  = []store.Role{store.RoleOperator, store.RoleAdministrator}
)

// access is the whole of who may call what. An operation without a row does
// not start.
var access = map[string]row{
	opFindings:      {with(analysts, store.RoleAccountManager, store.RoleSupport, store.RoleOperator), "findings"},
	opFinding:       {with(analysts, store.RoleAccountManager, store.RoleSupport, store.RoleOperator), "findings"},
	opTenants:       {with(analysts, store.RoleAccountManager, store.RoleSupport, store.RoleOperator), "standing"},
	opUsage:         {store.Roles(), "release_usage"},
	opResponseTimes: {with(analysts, store.RoleAccountManager, store.RoleSupport, store.RoleOperator), "tenant_response_times"},
	opLedger:        {with(analysts, store.RoleOperator), "ledger"},
	opTail:          {with(analysts, store.RoleSupport, store.RoleOperator), "events"},
	opSQL:           {with(analysts, store.RoleProduct, store.RoleOperator), ""},
	opNewToken:      {[]store.Role{store.RoleAdministrator}, ""},
	opTokens:        {[]store.Role{store.RoleAdministrator}, ""},
	opRevokeToken:   {[]store.Role{store.RoleAdministrator}, ""},
	opStatus:        {with(keepers, store.RoleAnalyst), ""},
	opSources:       {with(keepers, store.RoleAnalyst), ""},
}

func with(list []store.Role, more ...store.Role) []store.Role {
	return append(slices.Clone(list), more...)
}

func everyOperationHasARow(o *huma.OpenAPI) error {
	for path, item := range o.Paths {
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Put, item.Delete, item.Patch} {
			if op == nil {
				continue
			}
			if _, ok := access[op.OperationID]; !ok {
				return fmt.Errorf("console: operation %s at %s has no row in access.go: say who may call it", op.OperationID, path)
			}
		}
	}
	return nil
}

type readerKey struct{}

// reader is who asks; only behind admit or Require.
func reader(ctx context.Context) store.Reader {
	r, _ := ctx.Value(readerKey{}).(store.Reader) // without one: no role, which may nothing
	return r
}

// denial is an answer to somebody who is not let in.
type denial struct {
	status int
	text   string
	after  int // Retry-After in seconds, 0: none
}

// admit lets in who may call the operation and bounds the call.
func (c *Console) admit(api huma.API) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		req, _ := humago.Unwrap(ctx)
		who, no := c.enter(req, access[ctx.Operation().OperationID].roles)
		if no != nil {
			c.metrics.deny(no.status)
			no.headers(ctx.SetHeader)
			_ = huma.WriteErr(api, ctx, no.status, no.text)
			return
		}
		inner := context.WithValue(ctx.Context(), readerKey{}, who)
		if op := ctx.Operation().OperationID; op != opTail {
			var cancel context.CancelFunc
			inner, cancel = context.WithTimeout(inner, answerTimeout)
			defer cancel()
		}
		ctx = huma.WithContext(ctx, inner)
		next(ctx)
		c.metrics.answered(ctx.Operation().OperationID, cmp.Or(ctx.Status(), http.StatusOK)) // a stream that was not given one is fine
	}
}

// Require lets requests through whose token has one of the roles: for handlers
// of other packages that coc serves beside this API.
func (c *Console) Require(roles ...store.Role) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			who, no := c.enter(r, roles)
			if no != nil {
				c.metrics.deny(no.status)
				no.headers(w.Header().Set)
				problem(w, no.status, no.text)
				return
			}
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), readerKey{}, who)))
		})
	}
}

func (d *denial) headers(set func(name, value string)) {
	if d.status == http.StatusUnauthorized {
		set("WWW-Authenticate", `Bearer realm="coc"`)
	}
	if d.after > 0 {
		set("Retry-After", fmt.Sprint(d.after))
	}
}

const (
	noToken    = "who asks? Send an access token as “Authorization: Bearer coc_…”; an administrator makes one with: coc token new --role ROLE"
	wrongToken = "this token is not known, has expired or was revoked; an administrator makes another with: coc token new --role ROLE"
	tooManyBad = "too many attempts with wrong tokens from this address; wait, then try with a right one"
	tooFast    = "too many requests with this token; wait a moment between them"
)

// enter finds out who asks and whether they may.
func (c *Console) enter(r *http.Request, roles []store.Role) (store.Reader, *denial) {
	secret, ok := bearer(r)
	if !ok {
		return store.Reader{}, &denial{status: http.StatusUnauthorized, text: noToken}
	}
	now := c.Now()
	from := addressOf(r)
	if wait := c.gate.throttled(from, secret, now); wait > 0 {
		return store.Reader{}, &denial{http.StatusTooManyRequests, tooManyBad, wait}
	}
	token, err := c.Bus.VerifyToken(r.Context(), secret)
	switch {
	case errors.Is(err, bus.ErrToken):
		if c.gate.failed(from, now) {
			c.Log.Warn("wrong tokens from one address are throttled from here on", "address", from)
		}
		return store.Reader{}, &denial{status: http.StatusUnauthorized, text: wrongToken}
	case err != nil:
		c.Log.Error("cannot check a token", "error", err)
		return store.Reader{}, &denial{http.StatusServiceUnavailable, "the token cannot be checked just now, because the bus does not answer; try again soon", 2}
	}
	c.gate.passed(secret, now)
	if wait := c.gate.tooFast(token.ID, now); wait > 0 {
		return store.Reader{}, &denial{http.StatusTooManyRequests, tooFast, wait}
	}
	role, err := store.ParseRole(token.Role)
	if err != nil {
		return store.Reader{}, &denial{status: http.StatusForbidden, text: fmt.Sprintf("a token of role %s opens nothing here: it may send events only", token.Role)}
	}
	if !slices.Contains(roles, role) {
		return store.Reader{}, &denial{status: http.StatusForbidden, text: fmt.Sprintf("the role %s may not do this; it is for %s", role, rolesText(roles))}
	}
	return store.Reader{Role: role, Token: token.ID}, nil
}

func rolesText(roles []store.Role) string {
	names := make([]string, len(roles))
	for i, r := range roles {
		names[i] = string(r)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// bearer takes the token from the request's one Authorization header.
func bearer(r *http.Request) (string, bool) {
	list := r.Header.Values("Authorization")
	if len(list) != 1 {
		return "", false
	}
	scheme, secret, ok := strings.Cut(list[0], " ")
	secret = strings.TrimSpace(secret)
	return secret, ok && strings.EqualFold(scheme, "Bearer") && secret != "" && len(secret) <= maxSecret
}

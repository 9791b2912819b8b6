package console

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/opencoc/coc/services/bus"
	"github.com/opencoc/coc/services/event"
	"github.com/opencoc/coc/services/store"
)

// RoleIntake is the role of tokens that may send events and do nothing else.
const RoleIntake = "intake"

// NewToken is the request of create-token.
type NewToken struct {
	Role       string `json:"role" enum:"analyst,account_manager,support,product,operator,privacy,administrator,intake" doc:"What its bearer may do."`
	Source     string `json:"source,omitempty" maxLength:"64" pattern:"^[A-Za-z0-9_-]*$" doc:"Of an intake token: the source that its events come from."`
	TenantGlob string `json:"tenant_glob,omitempty" maxLength:"128" doc:"Of an intake token: the tenants it may send for, such as acme-*; default: none, for systems that belong to no tenant."`
	Note       string `json:"note,omitempty" maxLength:"200" doc:"Whose it is, or what for."`
	Expires    string `json:"expires" minLength:"1" maxLength:"40" doc:"A moment in RFC 3339, a date, or how long it lives, such as 90d; at most 400 days."`
}

// Token is an access token without its secret.
type Token struct {
	ID         string      `json:"id"`
	Role       string      `json:"role"`
	Source     string      `json:"source,omitempty"`
	TenantGlob string      `json:"tenant_glob,omitempty"`
	Note       string      `json:"note,omitempty"`
	Created    event.Stamp `json:"created"`
	Expires    event.Stamp `json:"expires"`
	State      string      `json:"state" enum:"valid,expired,revoked"`
}

// MadeToken is the answer to create-token.
type MadeToken struct {
	Token
	Secret string `json:"secret" doc:"Told this once; coc keeps only its hash."`
}

// TokenList is the answer to list-tokens.
type TokenList struct {
	Zone   string  `json:"zone"`
	Tokens []Token `json:"tokens"`
}

type newTokenInput struct{ Body NewToken }
type newTokenOutput struct{ Body MadeToken }
type tokensOutput struct{ Body TokenList }
type revokeInput struct {
	ID string `path:"id" minLength:"1" maxLength:"64" doc:"The token's id."`
}

func (c *Console) registerTokens(api huma.API) {
	o := operation(opNewToken, http.MethodPost, "/v1/tokens", "Make an access token", "The secret is told once.")
	o.DefaultStatus = http.StatusCreated
	huma.Register(api, o, c.newToken)
	huma.Register(api, operation(opTokens, http.MethodGet, "/v1/tokens", "List access tokens", "Without their secrets."), c.listTokens)
	o = operation(opRevokeToken, http.MethodDelete, "/v1/tokens/{id}", "Revoke an access token", "It stops working within seconds and stays in the list.")
	o.Errors = append(o.Errors, http.StatusNotFound)
	o.DefaultStatus = http.StatusNoContent
	huma.Register(api, o, c.revokeToken)
}

// ParseExpiry reads the end of a token's life: a moment, a date, or how long
// from now.
func ParseExpiry(s string, now time.Time, zone *time.Location) (time.Time, error) {
	if d, err := ParseSpan(s); err == nil {
		return now.Add(d), nil
	}
	return ParseWhen(s, now, zone)
}

func (c *Console) newToken(ctx context.Context, in *newTokenInput) (*newTokenOutput, error) {
	b, now := &in.Body, c.Now()
	expires, err := ParseExpiry(b.Expires, now, c.Zone)
	switch {
	case err != nil:
		return nil, huma.Error422UnprocessableEntity("expires: " + err.Error())
	case !expires.After(now):
		return nil, huma.Error422UnprocessableEntity("expires: that has passed already; give a time to come, such as 90d")
	case expires.After(now.Add(tokenForMost)):
		return nil, huma.Error422UnprocessableEntity("expires: a token lives at most 400 days; make another one then")
	case b.Role == RoleIntake && b.Source == "":
		return nil, huma.Error422UnprocessableEntity("source: an intake token is bound to one source; name it")
	case b.Role != RoleIntake && (b.Source != "" || b.TenantGlob != ""):
		return nil, huma.Error422UnprocessableEntity("source and tenant_glob are for intake tokens; leave them out for other roles")
	}
	t := bus.Token{Role: b.Role, Source: b.Source, TenantGlob: b.TenantGlob, Note: b.Note, Created: now, Expires: expires}
	secret, err := c.Bus.IssueToken(ctx, t)
	if err != nil {
		return nil, c.fail("make the token", err)
	}
	made, err := c.Bus.VerifyToken(ctx, secret) // its id, as the bus gave it
	if err != nil {
		return nil, c.fail("make the token", err)
	}
	who := reader(ctx)
	c.Log.Info("token made", "id", made.ID, "role", made.Role, "source", made.Source, "expires", made.Expires, "by", who.Token)
	return &newTokenOutput{Body: MadeToken{Token: c.tokenOf(made), Secret: secret}}, nil
}

func (c *Console) tokenOf(t bus.Token) Token {
	out := Token{ID: t.ID, Role: t.Role, Source: t.Source, TenantGlob: t.TenantGlob, Note: t.Note, Created: stamp(t.Created), Expires: stamp(t.Expires), State: "valid"}
	switch {
	case t.Revoked:
		out.State = "revoked"
	case !t.Expires.IsZero() && !c.Now().Before(t.Expires):
		out.State = "expired"
	}
	return out
}

func (c *Console) listTokens(ctx context.Context, _ *struct{}) (*tokensOutput, error) {
	list, err := c.Bus.Tokens(ctx)
	if err != nil {
		return nil, c.fail("list the tokens", err)
	}
	out := &tokensOutput{Body: TokenList{Zone: c.Zone.String(), Tokens: []Token{}}}
	for _, t := range list {
		out.Body.Tokens = append(out.Body.Tokens, c.tokenOf(t))
	}
	return out, nil
}

func (c *Console) revokeToken(ctx context.Context, in *revokeInput) (*struct{}, error) {
	if err := c.Bus.RevokeToken(ctx, in.ID); err != nil {
		return nil, c.fail("revoke the token "+in.ID, err)
	}
	c.Log.Info("token revoked", "id", in.ID, "by", reader(ctx).Token)
	return nil, nil
}

// TokenRoles lists the roles a token may be made for: those of store and
// RoleIntake. A
// test compares the list in the tag of NewToken with it.
func TokenRoles() []string {
	list := []string{}
	for _, r := range store.Roles() {
		list = append(list, string(r))
	}
	return append(list, RoleIntake)
}

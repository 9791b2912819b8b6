package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/opencoc/coc/services/console"
)

// TokenCmd holds the commands about access tokens.
type TokenCmd struct {
	New    TokenNewCmd    `cmd:"" help:"Make an access token; its secret is printed once."`
	List   TokenListCmd   `cmd:"" help:"List access tokens, without their secrets."`
	Revoke TokenRevokeCmd `cmd:"" help:"Make an access token invalid, for good."`
}

// TokenNewCmd makes a token.
type TokenNewCmd struct {
	Client     ClientFlags `embed:""`
	Role       string      `required:"" placeholder:"ROLE" help:"What its bearer may do: analyst, account_manager, support, product, operator, privacy, administrator, or intake (send events only)."`
	Source     string      `placeholder:"NAME" help:"Of an intake token: the source its events come from (default: none; intake needs one)."`
	TenantGlob string      `placeholder:"GLOB" help:"Of an intake token: the tenants it may send for, such as acme-* (default: none, for systems of no tenant)."`
	Note       string      `placeholder:"TEXT" help:"Whose it is or what for, at most 200 characters (default: none)."`
	Expires    string      `required:"" placeholder:"TIME" help:"When it ends: how long from now, such as 90d, or a date; at most 400d."`
	JSON       bool        `name:"json" help:"Print JSON (default: the secret alone)."`
}

// Run makes it. The secret goes to standard output alone, so that it can be
// redirected into a file.
func (c *TokenNewCmd) Run(g *Globals) error {
	if err := c.check(g.Now()); err != nil {
		return err
	}
	cl, err := c.Client.connect(g)
	if err != nil {
		return err
	}
	var made console.MadeToken
	body := console.NewToken{Role: c.Role, Source: c.Source, TenantGlob: c.TenantGlob, Note: c.Note, Expires: c.Expires}
	if err := cl.ask(g.Ctx, http.MethodPost, "/v1/tokens", nil, body, &made); err != nil {
		return err
	}
	if c.JSON {
		return writeLines(g.Stdout, []console.MadeToken{made})
	}
	fmt.Fprintf(g.Stderr, "Token %s of role %s, until %s UTC. Its secret is told this once:\n", safe(made.ID), safe(made.Role), moment(made.Expires, time.UTC))
	_, err = fmt.Fprintln(g.Stdout, safe(made.Secret))
	return err
}

func (c *TokenNewCmd) check(now time.Time) error {
	roles := console.TokenRoles()
	switch {
	case !slices.Contains(roles, c.Role):
		return usageError{fmt.Errorf("--role %q is none: there are %s", c.Role, strings.Join(roles, ", "))}
	case c.Role == console.RoleIntake && c.Source == "":
		return usageError{errors.New("an intake token is bound to one source: give --source NAME")}
	case c.Role != console.RoleIntake && (c.Source != "" || c.TenantGlob != ""):
		return usageError{errors.New("--source and --tenant-glob are for --role intake: leave them out")}
	}
	if _, err := console.ParseExpiry(c.Expires, now, time.UTC); err != nil {
		return usageError{fmt.Errorf("--expires: %q is no moment: write how long from now, such as 90d, or a date such as %s", c.Expires, now.AddDate(0, 0, 90).Format(time.DateOnly))}
	}
	return nil
}

// TokenListCmd lists tokens.
type TokenListCmd struct {
	Client ClientFlags `embed:""`
	JSON   bool        `name:"json" help:"Print JSON, one token a line (default: a table)."`
}

// Run asks and prints.
func (c *TokenListCmd) Run(g *Globals) error {
	cl, err := c.Client.connect(g)
	if err != nil {
		return err
	}
	var list console.TokenList
	if err := cl.get(g.Ctx, "/v1/tokens", nil, &list); err != nil {
		return err
	}
	if c.JSON {
		return writeLines(g.Stdout, list.Tokens)
	}
	return tokensTable(g.Stdout, &list)
}

func tokensTable(w io.Writer, list *console.TokenList) error {
	zone := zoneOf(list.Zone)
	valid := int64(0)
	t := newTable(left("ID"), left("ROLE"), left("SOURCE"), left("TENANTS"), left("STATE"), left("EXPIRES"), left("MADE"), left("NOTE"))
	for _, x := range list.Tokens {
		if x.State == "valid" {
			valid++
		}
		t.add(x.ID, x.Role, x.Source, x.TenantGlob, x.State, moment(x.Expires, zone), moment(x.Created, zone), x.Note)
	}
	fmt.Fprintf(w, "%s, %s valid (times in %s)\n\n", plural(int64(len(list.Tokens)), "token", "tokens"), number(valid), safe(list.Zone))
	if len(list.Tokens) == 0 {
		_, err := fmt.Fprintln(w, "Make one with coc token new --role ROLE --expires 90d")
		return err
	}
	return t.write(w)
}

// TokenRevokeCmd revokes a token.
type TokenRevokeCmd struct {
	Client ClientFlags `embed:""`
	ID     string      `arg:"" help:"The token's id, as coc token list shows it; not its secret."`
}

// Run revokes it.
func (c *TokenRevokeCmd) Run(g *Globals) error {
	if strings.HasPrefix(c.ID, "coc_") { // it would end up in logs of addresses
		return usageError{errors.New("that is a secret, not an id: give the part between the first and the second underscore")}
	}
	cl, err := c.Client.connect(g)
	if err != nil {
		return err
	}
	err = cl.ask(g.Ctx, http.MethodDelete, "/v1/tokens/"+url.PathEscape(c.ID), nil, nil, nil)
	var refused *apiError
	if errors.As(err, &refused) && refused.status == http.StatusNotFound {
		return fmt.Errorf("there is no token %s: coc token list shows them", safe(c.ID))
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(g.Stdout, "Token %s is revoked; it stops working within seconds.\n", safe(c.ID))
	return err
}

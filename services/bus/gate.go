package bus

import (
	"context"
	"crypto/subtle"
	"sync/atomic"

	natsserver "github.com/nats-io/nats-server/v2/server"
)

// gate lets clients into the embedded server: this process by a password made
// at its start, processes of the house by the secret, and senders by an intake
// token, which opens their own subject of the stream INTAKE and nothing else.
type gate struct {
	own    string
	secret string
	// verify is set once the tokens can be read; until then no token is valid.
	verify atomic.Pointer[func(context.Context, string) (Token, error)]
}

const ownUser = "coc"

// senderInbox is where clients receive answers unless they choose otherwise.
// Connections of the house use a prefix of their own, so a sender who listens
// to this one hears only acknowledgements of other senders.
const senderInbox = "_INBOX.>"

// Check implements the server's Authentication.
func (g *gate) Check(c natsserver.ClientAuthentication) bool {
	o := c.GetOpts()
	if o.Username == ownUser && same(o.Password, g.own) {
		c.RegisterUser(&natsserver.User{Username: ownUser})
		return true
	}
	presented := o.Token
	if presented == "" {
		presented = o.Password
	}
	if presented == "" {
		return false
	}
	if g.secret != "" && same(presented, g.secret) {
		c.RegisterUser(&natsserver.User{Username: "house"})
		return true
	}
	return g.checkSender(c, presented)
}

func (g *gate) checkSender(c natsserver.ClientAuthentication, presented string) bool {
	verify := g.verify.Load()
	if verify == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	t, err := (*verify)(ctx, presented)
	if err != nil || t.Source == "" || CheckName(t.Source) != nil {
		return false
	}
	c.RegisterUser(&natsserver.User{
		Username: "token:" + t.ID,
		Permissions: &natsserver.Permissions{
			Publish:   &natsserver.SubjectPermission{Allow: []string{subjectIntake + t.Source}},
			Subscribe: &natsserver.SubjectPermission{Allow: []string{senderInbox}},
		},
	})
	return true
}

// same compares in constant time.
func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

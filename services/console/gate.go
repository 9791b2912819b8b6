package console

import (
	"crypto/sha256"
	"math"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// gate counts requests by token and failures by address. Its tables are
// bounded: full, what was used longest ago goes, which at worst gives somebody
// a fresh allowance.
type gate struct {
	mu     *sync.Mutex
	tokens map[string]*counter
	wrong  map[string]*counter
	known  map[[sha256.Size]byte]time.Time // until when, by the hash of a good secret
}

type counter struct {
	limit *rate.Limiter
	used  time.Time
	told  bool
}

func newGate() gate {
	return gate{mu: new(sync.Mutex), tokens: map[string]*counter{}, wrong: map[string]*counter{}, known: map[[sha256.Size]byte]time.Time{}}
}

// throttled gives the seconds to wait when too many wrong tokens came from the
// address; 0 when there were not, or when this one was good a while ago.
func (g *gate) throttled(from, secret string, now time.Time) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := g.wrong[from]
	if c == nil || c.limit.TokensAt(now) >= 1 {
		return 0
	}
	if until, ok := g.known[sha256.Sum256([]byte(secret))]; ok && now.Before(until) {
		return 0
	}
	return int(math.Ceil(failEvery.Seconds()))
}

// failed counts a wrong token; true the first time that the address is to be
// throttled.
func (g *gate) failed(from string, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := take(g.wrong, from, now, rate.Every(failEvery), failBurst)
	c.limit.AllowN(now, 1)
	if c.limit.TokensAt(now) >= 1 {
		c.told = false
		return false
	}
	first := !c.told
	c.told = true
	return first
}

// passed remembers a good token.
func (g *gate) passed(secret string, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.known) >= maxTracked {
		for k, until := range g.known {
			if !now.Before(until) {
				delete(g.known, k)
			}
		}
		if len(g.known) >= maxTracked {
			clear(g.known)
		}
	}
	g.known[sha256.Sum256([]byte(secret))] = now.Add(knownFor)
}

// tooFast gives the seconds to wait when the token asks too often, else 0.
func (g *gate) tooFast(token string, now time.Time) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	if take(g.tokens, token, now, tokenRate, tokenBurst).limit.AllowN(now, 1) {
		return 0
	}
	return 1
}

func take(m map[string]*counter, key string, now time.Time, every rate.Limit, burst int) *counter {
	c := m[key]
	if c == nil {
		if len(m) >= maxTracked {
			forgetOldest(m)
		}
		c = &counter{limit: rate.NewLimiter(every, burst)}
		m[key] = c
	}
	c.used = now
	return c
}

func forgetOldest(m map[string]*counter) {
	var oldest string
	var at time.Time
	for k, c := range m {
		if oldest == "" || c.used.Before(at) {
			oldest, at = k, c.used
		}
	}
	delete(m, oldest)
}

// addressOf is who failures are counted by: the address, of IPv6 its /64, since
// one customer's line has that many.
func addressOf(r *http.Request) string {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	a := ap.Addr().Unmap().WithZone("")
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.String()
		}
	}
	return a.String()
}

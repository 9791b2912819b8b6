package collector

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/time/rate"

	"github.com/opencoc/coc/services/bus"
	"github.com/opencoc/coc/services/event"
)

// IdentityRecord is the WORK message coc.work.identity.<id>: the one place that
// keeps a person's name, sealed with AES-256-GCM (the 12-byte nonce first)
// under a key derived from the tenant's.
type IdentityRecord struct {
	Tenant    string      `json:"tenant"`
	Hash      string      `json:"hash"`
	Sealed    []byte      `json:"sealed"`
	Key       string      `json:"key"` // id of the tenant's key in bus.BucketKeys
	FirstSeen event.Stamp `json:"first_seen"`
}

func identityLabel(tenant, hash string) string { return "coc identity 1 " + tenant + "\x00" + hash }

// identityID is the id of the WORK message of a (tenant, hash).
func identityID(tenant, hash string) string {
	sum := sha256.Sum256([]byte(tenant + "\x00" + hash))
	return hex.EncodeToString(sum[:16])
}

// sealer is the last step before anything is stored: it cuts secrets, gives
// each person's name its hash, keeps the name sealed, and takes it out of all
// texts. It is safe for concurrent use.
type sealer struct {
	bus    *bus.Bus
	keys   *keyring
	system *accountList

	// Two generations bound the cache: when the young one is full it becomes
	// the old one, and the old one is dropped.
	mu         sync.RWMutex
	young, old map[identityKey]*identity

	// strangers bounds how many names of failed logins are kept sealed:
	// guessers try names without end, and each would stay for ever.
	strangers *rate.Limiter
	unsealed  atomic.Int64
}

type identityKey struct{ tenant, name string }

// identity is what stands for a name.
type identity struct {
	hash  string
	short string // u-7f3a1b2c, in texts
	// system accounts are no people: the hash is the name, and nothing is
	// replaced.
	system bool
	// kept says that the sealed name is on the bus.
	kept atomic.Bool
}

func newSealer(b *bus.Bus, keys *keyring, system *accountList) *sealer {
	return &sealer{
		bus: b, keys: keys, system: system,
		young: make(map[identityKey]*identity), old: make(map[identityKey]*identity),
		strangers: rate.NewLimiter(rate.Limit(strangerRate), strangerBurst),
	}
}

// seal prepares drafts for the bus. When it fails (the bus is away or full)
// nothing of them may be stored; call it again with the same drafts.
func (s *sealer) seal(ctx context.Context, drafts []draft) error {
	for i := range drafts {
		d := &drafts[i]
		if d.sealed {
			continue
		}
		if err := s.sealOne(ctx, d); err != nil {
			return err
		}
		d.sealed = true
	}
	return nil
}

func (s *sealer) sealOne(ctx context.Context, d *draft) error {
	var room [limitNames + 3]person
	people := room[:0]
	if d.UserName != "" {
		who, err := s.identify(ctx, d, d.UserName)
		if err != nil {
			return err
		}
		d.UserHash = who.hash
		if who.system {
			if d.UserType == "" {
				d.UserType = "system"
			}
		} else {
			people = who.in(people, d.UserName)
		}
	}
	for _, name := range d.names {
		if len(name) < minName {
			continue
		}
		who, err := s.identify(ctx, d, name)
		if err != nil {
			return err
		}
		if !who.system {
			people = who.in(people, name)
		}
	}
	d.secrets = cutSecrets(&d.Event)
	if len(people) > 0 {
		replaceNames(&d.Event, people)
	}
	if d.long() {
		d.cut = d.Cut()
	}
	return nil
}

// long says whether a free text may be over its limit.
func (d *draft) long() bool {
	for i := range d.Labels {
		if len(d.Labels[i].Value) > event.LimitText {
			return true
		}
	}
	return len(d.Message) > event.LimitMessage || len(d.ResourceTitle) > event.LimitText ||
		len(d.ProcessExecutable) > event.LimitText || len(d.ProcessCommandLine) > event.LimitText
}

// in adds the name, and its other forms, to those that are replaced.
func (w *identity) in(people []person, name string) []person {
	people = append(people, person{name, w.short})
	if !plainName(name) {
		for _, alias := range aliases(name) {
			people = append(people, person{alias, w.short})
		}
	}
	return people
}

// identify returns what stands for a name, and sees to it that the sealed name
// is on the bus.
func (s *sealer) identify(ctx context.Context, d *draft, name string) (*identity, error) {
	key := identityKey{d.TenantID, name}
	s.mu.RLock()
	who, ok := s.young[key]
	if !ok {
		who = s.old[key]
	}
	s.mu.RUnlock()
	if who == nil {
		var err error
		if who, err = s.meet(ctx, key); err != nil {
			return nil, err
		}
	}
	if !ok {
		s.remember(key, who)
	}
	if !who.kept.Load() && !who.system {
		if err := s.keep(ctx, key, who, d); err != nil {
			return nil, err
		}
	}
	return who, nil
}

// meet computes what stands for a name seen the first time.
func (s *sealer) meet(ctx context.Context, key identityKey) (*identity, error) {
	if s.system.has(key.name) {
		name := strings.Clone(key.name)
		return &identity{hash: name, short: name, system: true}, nil
	}
	k, err := s.keys.of(ctx, key.tenant)
	if err != nil {
		return nil, err
	}
	hash := k.hash(key.name)
	return &identity{hash: hash, short: "u-" + hash[:8]}, nil
}

func (s *sealer) remember(key identityKey, who *identity) {
	key = identityKey{strings.Clone(key.tenant), strings.Clone(key.name)} // they alias a line or a body
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.young) >= limitIdentities/2 {
		s.old, s.young = s.young, make(map[identityKey]*identity, len(s.young))
	}
	if other, ok := s.young[key]; !ok || other == nil {
		s.young[key] = who
	}
}

// keep publishes the sealed name once. A name that is there already (from
// before a restart, or by another collector) is no error.
func (s *sealer) keep(ctx context.Context, key identityKey, who *identity, d *draft) error {
	if d.stranger() && !s.strangers.Allow() {
		s.unsealed.Add(1)
		return nil // not remembered as kept: a later login of the same name keeps it
	}
	k, err := s.keys.of(ctx, key.tenant)
	if err != nil {
		return err
	}
	box, err := sealed(k.seal, []byte(key.name), identityLabel(key.tenant, who.hash))
	if err != nil {
		return err
	}
	data, err := json.Marshal(IdentityRecord{Tenant: key.tenant, Hash: who.hash, Sealed: box, Key: k.id, FirstSeen: event.Stamp(s.bus.Now().UnixMilli())})
	if err != nil {
		return fmt.Errorf("identity record: %w", err)
	}
	_, err = s.bus.PutWork(ctx, bus.KindIdentity, identityID(key.tenant, who.hash), 0, data)
	if err != nil && !errors.Is(err, bus.ErrConflict) {
		return fmt.Errorf("keep the sealed name of a person: %w", err)
	}
	who.kept.Store(true)
	return nil
}

// stranger says that nobody logged in by the name: it may be anybody's guess.
func (d *draft) stranger() bool {
	return d.Outcome == failure && (d.Action == "invalid_user" || d.Action == "login" || d.Action == "authentication_detail" || d.Action == "login_attempts_exceeded")
}

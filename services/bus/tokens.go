package bus

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// Token is what a secret stands for. The secret itself is shown once, when it
// is issued, and not kept.
type Token struct {
	ID         string    `json:"id"`
	Role       string    `json:"role"`
	Source     string    `json:"source,omitempty"`      // intake: the one source it may send for
	TenantGlob string    `json:"tenant_glob,omitempty"` // intake: the tenants it may send for
	Note       string    `json:"note,omitempty"`
	Created    time.Time `json:"created"`
	Expires    time.Time `json:"expires"` // zero: never
	Revoked    bool      `json:"revoked,omitempty"`
	Hash       string    `json:"hash,omitempty"` // SHA-256 of the secret: it is random and long, so no slow hash is needed
}

const tokenPrefix = "coc_"

// tokenText is lower-case base32 without padding: easy to select and to read out.
var tokenText = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// tokenCacheMap keeps verified tokens for tokenCache, so that a busy sender
// costs one read in that time.
type tokenCacheMap struct {
	mu      sync.Mutex
	entries map[[sha256.Size]byte]cachedToken
}

type cachedToken struct {
	token Token
	until time.Time
}

// IssueToken stores a new token and returns its secret, coc_<id>_<random>. ID,
// Created and Hash are filled in.
func (b *Bus) IssueToken(ctx context.Context, t Token) (string, error) {
	switch {
	case CheckName(t.Role) != nil:
		return "", fmt.Errorf("bus: token with role %q: %w", t.Role, ErrInvalid)
	case t.Source != "" && CheckName(t.Source) != nil:
		return "", CheckName(t.Source)
	case len(t.TenantGlob) > maxKey || len(t.Note) > maxDetail:
		return "", fmt.Errorf("bus: note or tenants of a token: %w", ErrTooBig)
	case !t.Expires.IsZero() && !t.Expires.After(b.Now()):
		return "", fmt.Errorf("bus: a token that expires %s has expired already: %w", t.Expires.Format(time.RFC3339), ErrInvalid)
	}
	id, random := make([]byte, 5), make([]byte, 20)
	_, _ = rand.Read(id) // never fails: crypto/rand ends the process itself
	_, _ = rand.Read(random)
	t.ID = tokenText.EncodeToString(id)
	secret := tokenPrefix + t.ID + "_" + tokenText.EncodeToString(random)
	sum := sha256.Sum256([]byte(secret))
	t.Hash, t.Created, t.Revoked = hex.EncodeToString(sum[:]), b.Now().UTC(), false
	data, err := json.Marshal(t)
	if err != nil {
		return "", fmt.Errorf("bus: token: %w", err)
	}
	if _, err := b.kvs[bucketTokens].Create(ctx, t.ID, data); err != nil {
		return "", err
	}
	return secret, nil
}

// VerifyToken returns the token of a secret, without its hash. ErrToken:
// unknown, expired or revoked; which one is not told. A revoked token may pass
// for a few seconds more.
func (b *Bus) VerifyToken(ctx context.Context, secret string) (Token, error) {
	rest, ok := strings.CutPrefix(secret, tokenPrefix)
	id, _, ok2 := strings.Cut(rest, "_")
	if !ok || !ok2 || len(secret) > 128 || !validText(id, maxName) {
		return Token{}, fmt.Errorf("bus: %w", ErrToken)
	}
	sum := sha256.Sum256([]byte(secret))
	now := b.Now()
	t, ok := b.tokens.get(sum, now)
	if !ok {
		e, err := b.kvs[bucketTokens].Get(ctx, id)
		if errors.Is(err, ErrNotFound) {
			return Token{}, fmt.Errorf("bus: %w", ErrToken)
		}
		if err != nil {
			return Token{}, err
		}
		if err := json.Unmarshal(e.Value, &t); err != nil {
			return Token{}, fmt.Errorf("bus: token %s is not readable: %w", id, err)
		}
		if !same(t.Hash, hex.EncodeToString(sum[:])) {
			return Token{}, fmt.Errorf("bus: %w", ErrToken)
		}
		t.Hash = ""
		b.tokens.put(sum, t, now)
	}
	if t.Revoked || (!t.Expires.IsZero() && !now.Before(t.Expires)) {
		return Token{}, fmt.Errorf("bus: %w", ErrToken)
	}
	return t, nil
}

// Tokens lists all tokens, also revoked and expired ones, without hashes.
func (b *Bus) Tokens(ctx context.Context) ([]Token, error) {
	ids, err := b.kvs[bucketTokens].Keys(ctx)
	if err != nil {
		return nil, err
	}
	tokens := make([]Token, 0, len(ids))
	for _, id := range ids {
		t, _, err := b.readToken(ctx, id)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		t.Hash = ""
		tokens = append(tokens, t)
	}
	return tokens, nil
}

// RevokeToken makes a token invalid for good; ErrNotFound when there is none.
func (b *Bus) RevokeToken(ctx context.Context, id string) error {
	t, rev, err := b.readToken(ctx, id)
	if err != nil {
		return err
	}
	t.Revoked = true
	data, err := json.Marshal(t)
	if err != nil {
		return fmt.Errorf("bus: token %s: %w", id, err)
	}
	if _, err := b.kvs[bucketTokens].Update(ctx, id, data, rev); err != nil {
		return err
	}
	b.tokens.clear()
	return nil
}

func (b *Bus) readToken(ctx context.Context, id string) (Token, uint64, error) {
	e, err := b.kvs[bucketTokens].Get(ctx, id)
	if err != nil {
		return Token{}, 0, err
	}
	var t Token
	if err := json.Unmarshal(e.Value, &t); err != nil {
		return Token{}, 0, fmt.Errorf("bus: token %s is not readable: %w", id, err)
	}
	return t, e.Revision, nil
}

func (c *tokenCacheMap) get(sum [sha256.Size]byte, now time.Time) (Token, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[sum]
	return e.token, ok && now.Before(e.until)
}

func (c *tokenCacheMap) put(sum [sha256.Size]byte, t Token, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries == nil || len(c.entries) >= maxTokens {
		c.entries = map[[sha256.Size]byte]cachedToken{}
	}
	c.entries[sum] = cachedToken{token: t, until: now.Add(tokenCache)}
}

func (c *tokenCacheMap) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries = nil
}

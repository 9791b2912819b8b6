package collector

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"sync"

	"github.com/opencoc/coc/services/bus"
)

// IdentityKeySize is the size of Config.IdentityKey in bytes.
const IdentityKeySize = 32

// houseKey is the id of the key for events without a tenant.
const houseKey = "house"

// keyID names a tenant's key in the bucket of keys. A tenant's id may hold
// bytes that a bucket's key may not, hence the hash.
func keyID(tenant string) string {
	if tenant == "" {
		return houseKey
	}
	sum := sha256.Sum256([]byte(tenant))
	return "tenant." + hex.EncodeToString(sum[:16])
}

// tenantKey is one tenant's key, ready for use. It is safe for concurrent use.
type tenantKey struct {
	id   string
	macs sync.Pool // of hash.Hash keyed with the key: keying costs more than a name
	seal cipher.AEAD
}

func newTenantKey(id string, key []byte) (*tenantKey, error) {
	// Hashing and sealing use keys of their own, so that nothing said of the one
	// tells of the other.
	sealKey, err := hkdf.Key(sha256.New, key, nil, "coc identity seal 1", 32)
	if err != nil {
		return nil, fmt.Errorf("derive the sealing key of %s: %w", id, err)
	}
	seal, err := newGCM(sealKey)
	if err != nil {
		return nil, err
	}
	k := &tenantKey{id: id, seal: seal}
	k.macs.New = func() any { return hmac.New(sha256.New, key) }
	return k, nil
}

// hash is user.hash: HMAC-SHA-256 of the name, its first 32 hexadecimal digits.
func (k *tenantKey) hash(name string) string {
	mac := k.macs.Get().(hash.Hash)
	defer k.macs.Put(mac)
	mac.Reset()
	mac.Write([]byte(name))
	var sum [sha256.Size]byte
	return hex.EncodeToString(mac.Sum(sum[:0])[:16])
}

// sealed encrypts data; what names it, so that it opens in no other place.
func sealed(gcm cipher.AEAD, data []byte, what string) ([]byte, error) {
	nonce := make([]byte, gcm.NonceSize(), gcm.NonceSize()+len(data)+gcm.Overhead())
	if _, err := rand.Read(nonce); err != nil {
		return nil, fmt.Errorf("read random bytes: %w", err)
	}
	return gcm.Seal(nonce, nonce, data, []byte(what)), nil
}

func opened(gcm cipher.AEAD, data []byte, what string) ([]byte, error) {
	if len(data) < gcm.NonceSize() {
		return nil, errors.New("too short to be sealed")
	}
	return gcm.Open(nil, data[:gcm.NonceSize()], data[gcm.NonceSize():], []byte(what))
}

func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("AES key: %w", err)
	}
	return cipher.NewGCM(block)
}

// errWrongKey says that the bus's keys belong to another identity key.
var errWrongKey = errors.New("the keys on the bus were wrapped with another identity key than this process has: start it with the identity key of this house")

// keyring holds the keys of tenants. They are random, one a tenant, made when
// first needed, kept in the bus's bucket of keys wrapped with the instance's
// identity key, and made once only: by compare-and-set.
type keyring struct {
	bus  *bus.Bus
	wrap cipher.AEAD

	mu   sync.Mutex
	keys map[string]*tenantKey // by tenant
}

func newKeyring(b *bus.Bus, identityKey []byte) (*keyring, error) {
	if len(identityKey) != IdentityKeySize {
		return nil, fmt.Errorf("the identity key has %d bytes, want %d", len(identityKey), IdentityKeySize)
	}
	wrap, err := newGCM(identityKey)
	if err != nil {
		return nil, err
	}
	return &keyring{bus: b, wrap: wrap, keys: make(map[string]*tenantKey)}, nil
}

// of returns the tenant's key, "" being the house's. An error is the bus's, or
// says that the key there was wrapped with another identity key.
func (r *keyring) of(ctx context.Context, tenant string) (*tenantKey, error) {
	r.mu.Lock()
	k := r.keys[tenant]
	r.mu.Unlock()
	if k != nil {
		return k, nil
	}
	k, err := r.load(ctx, keyID(tenant)) // not under the lock: it asks the bus
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.keys) >= limitTenantKeys {
		clear(r.keys) // they are read again when needed
	}
	r.keys[tenant] = k
	return k, nil
}

func (r *keyring) load(ctx context.Context, id string) (*tenantKey, error) {
	kv, err := r.bus.KV(bus.BucketKeys)
	if err != nil {
		return nil, err
	}
	for range 3 { // a key that another collector makes at this moment is there the next time
		e, err := kv.Get(ctx, id)
		if err == nil {
			return r.unwrap(id, e.Value)
		}
		if !errors.Is(err, bus.ErrNotFound) {
			return nil, fmt.Errorf("read the key %s for names of people: %w", id, err)
		}
		var key [32]byte
		if _, err := rand.Read(key[:]); err != nil {
			return nil, fmt.Errorf("read random bytes: %w", err)
		}
		wrapped, err := sealed(r.wrap, key[:], wrapLabel(id))
		if err != nil {
			return nil, err
		}
		_, err = kv.Create(ctx, id, wrapped)
		if err == nil {
			return newTenantKey(id, key[:])
		}
		if !errors.Is(err, bus.ErrConflict) {
			return nil, fmt.Errorf("keep a new key %s for names of people: %w", id, err)
		}
	}
	return nil, fmt.Errorf("the key %s for names of people appears and disappears on the bus: try again", id)
}

func (r *keyring) unwrap(id string, wrapped []byte) (*tenantKey, error) {
	key, err := opened(r.wrap, wrapped, wrapLabel(id))
	if err != nil {
		return nil, fmt.Errorf("key %s: %w: %w", id, errWrongKey, err)
	}
	return newTenantKey(id, key)
}

// wrapLabel binds a wrapped key to its place in the bucket.
func wrapLabel(id string) string { return "coc key 1 " + id }

// OpenIdentity returns the name that an identity record holds. wrapped is the
// value of bus.BucketKeys under r.Key. It is the only way back from a hash.
func OpenIdentity(identityKey, wrapped []byte, r IdentityRecord) (name string, err error) {
	ring, err := newKeyring(nil, identityKey)
	if err != nil {
		return "", err
	}
	key, err := ring.unwrap(r.Key, wrapped)
	if err != nil {
		return "", err
	}
	data, err := opened(key.seal, r.Sealed, identityLabel(r.Tenant, r.Hash))
	if err != nil {
		return "", fmt.Errorf("the identity %s of tenant %q does not open with key %s: %w", r.Hash, r.Tenant, r.Key, err)
	}
	return string(data), nil
}

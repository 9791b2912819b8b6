package bus

import (
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Streams.
const (
	streamEvents     = "EVENTS"
	streamFindings   = "FINDINGS"
	streamIntake     = "INTAKE"
	streamDeadLetter = "DEADLETTER"
	streamWork       = "WORK"
	streamAudit      = "AUDIT"
)

// Subjects, each completed by a name.
const (
	subjectEvents     = "coc.events."
	subjectControl    = "coc.events._control"
	subjectFindings   = "coc.findings."
	subjectIntake     = "coc.intake."
	subjectDeadLetter = "coc.deadletter."
	subjectWork       = "coc.work."
	subjectAudit      = "coc.audit.log"
)

// Bucket names a key-value bucket.
type Bucket string

// Buckets for the house's own use.
const (
	BucketImports Bucket = "imports" // what was imported, by the file's content
	BucketKeys    Bucket = "keys"    // sealed keys, by tenant
	BucketHouse   Bucket = "house"   // settings of the house
	BucketCursors Bucket = "cursors" // positions of file and journal sources
	BucketSeen    Bucket = "seen"    // idempotency keys; entries live 10 minutes

	bucketLeases    Bucket = "leases"
	bucketPositions Bucket = "positions" // checkpoint pointers, the sink's cuts
	bucketNumbers   Bucket = "numbers"   // last number stored per collector
	bucketTokens    Bucket = "tokens"
)

const objectState = "state" // checkpoint blobs and rule sets

// streamSpec declares one stream.
type streamSpec struct {
	name       string
	subjects   string
	about      string
	retention  jetstream.RetentionPolicy
	maxMessage int
	duplicates time.Duration
	size       func(*Config) int64 // explicit bound, 0 = default
	standard   int64               // default bound
}

// streams is the topology. EVENTS and FINDINGS have no MaxAge: age would delete
// what nobody has read yet (protocols, section 1). All refuse when full.
var streams = []streamSpec{
	{name: streamEvents, subjects: subjectEvents + ">", about: "every event, in one order", maxMessage: maxPayload,
		size: func(c *Config) int64 { return c.EventsBytes }, standard: defaultEventsBytes},
	{name: streamFindings, subjects: subjectFindings + "*", about: "findings by lane", maxMessage: MaxFindingsBytes + maxHeaders,
		size: func(c *Config) int64 { return c.FindingsBytes }, standard: defaultFindingsBytes},
	{name: streamIntake, subjects: subjectIntake + ">", about: "JSON of outside senders, until a collector has stored it", maxMessage: maxPayload,
		retention: jetstream.WorkQueuePolicy, duplicates: intakeDuplicates,
		size: func(c *Config) int64 { return c.IntakeBytes }, standard: defaultIntakeBytes},
	{name: streamDeadLetter, subjects: subjectDeadLetter + ">", about: "what could not be taken, with the reason", maxMessage: maxPayload,
		size: func(c *Config) int64 { return c.DeadLetterBytes }, standard: defaultDeadLetterBytes},
	{name: streamWork, subjects: subjectWork + ">", about: "changes of cases, exceptions, identities, the register", maxMessage: MaxWorkBytes + maxHeaders,
		size: func(c *Config) int64 { return c.WorkBytes }, standard: defaultWorkBytes},
	{name: streamAudit, subjects: "coc.audit.>", about: "reads of personal data, chained", maxMessage: MaxAuditBytes + maxHeaders,
		size: func(c *Config) int64 { return c.AuditBytes }, standard: defaultAuditBytes},
}

// bucketSpec declares one key-value bucket.
type bucketSpec struct {
	name    Bucket
	about   string
	ttl     time.Duration
	history uint8
	// memory keeps the bucket off the disk: for what may be lost.
	memory bool
}

// Leases live by the bucket's age, not by a TTL of the key: a renewal is a new
// message, and the TTL of a key ends with its first message. They are kept in
// memory: a lease saves work and decides nothing, and a renewal every 3 s on a
// full disk would break the server's files (tried).
var buckets = []bucketSpec{
	{name: bucketLeases, about: "who owns which lane, who is the sink", ttl: LeaseTTL, history: 1, memory: true},
	{name: bucketPositions, about: "checkpoint pointers and cuts, by compare-and-set", history: 8},
	{name: bucketNumbers, about: "last number stored, by collector", history: 1},
	{name: bucketTokens, about: "hashes of tokens", history: 4},
	{name: BucketImports, about: "imports made, by content", history: 1},
	{name: BucketKeys, about: "sealed keys, by tenant", history: 1},
	{name: BucketHouse, about: "settings of the house", history: 16},
	{name: BucketCursors, about: "positions of file and journal sources", history: 1},
	{name: BucketSeen, about: "idempotency keys of requests", ttl: seenTTL, history: 1},
}

// config is what the stream should be, with the bound given.
func (s streamSpec) config(replicas int, bytes int64) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:              s.name,
		Description:       s.about,
		Subjects:          []string{s.subjects},
		Retention:         s.retention,
		Discard:           jetstream.DiscardNew,
		Storage:           jetstream.FileStorage,
		Replicas:          replicas,
		MaxBytes:          bytes,
		MaxMsgs:           -1,
		MaxAge:            0,
		MaxMsgSize:        int32(s.maxMessage),
		MaxConsumers:      -1,
		MaxMsgsPerSubject: -1,
		Duplicates:        s.duplicates,
		// Any replica answers a direct get, also one behind the leader; a
		// publisher that read there would give a number twice.
		AllowDirect: false,
	}
}

func (b bucketSpec) config(replicas int) jetstream.KeyValueConfig {
	storage, size := jetstream.FileStorage, int64(bucketBytes)
	if b.memory {
		storage, size = jetstream.MemoryStorage, memoryBucketBytes
	}
	return jetstream.KeyValueConfig{
		Bucket:       string(b.name),
		Description:  b.about,
		MaxValueSize: MaxValueBytes,
		History:      b.history,
		TTL:          b.ttl,
		MaxBytes:     size,
		Storage:      storage,
		Replicas:     replicas,
	}
}

// NameFrom makes a valid name of a collector or source out of any text: other
// characters become "-". Two texts may give one name.
func NameFrom(s string) string {
	b := []byte(strings.TrimSpace(s))
	if len(b) > maxName {
		b = b[:maxName]
	}
	for i, c := range b {
		if !nameByte(c) {
			b[i] = '-'
		}
	}
	if len(b) == 0 {
		return "unnamed"
	}
	if b[0] == '_' { // reserved for the house: coc.events._control
		b[0] = '-'
	}
	return string(b)
}

// CheckName refuses what cannot be a collector, source or kind: it is one
// token of a subject and part of every event's identity.
func CheckName(s string) error {
	bad := s == "" || len(s) > maxName || s[0] == '_'
	for i := 0; i < len(s) && !bad; i++ {
		bad = !nameByte(s[i])
	}
	if bad {
		return &nameError{s}
	}
	return nil
}

func nameByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_'
}

type nameError struct{ name string }

func (e *nameError) Error() string {
	n := e.name
	if len(n) > 80 {
		n = n[:80] + "…"
	}
	return "bus: the name " + strconv.Quote(n) + " is not valid: use 1 to 64 of A-Z a-z 0-9 - and _, not beginning with _"
}

func (e *nameError) Unwrap() error { return ErrInvalid }

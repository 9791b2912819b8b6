package bus

import "time"

const (
	kib = 1 << 10
	mib = 1 << 20
	gib = 1 << 30
)

// Bounds of messages. The server's own bound counts headers and payload
// together, so every payload stays 64 KiB below it.
const (
	maxPayload = 1 * mib // server's max_payload: NATS' default, what every client library expects
	maxHeaders = 64 * kib

	// MaxMessageBytes bounds the payload of any message on the bus.
	MaxMessageBytes = maxPayload - maxHeaders
	// MaxEventBytes is the raw size at which a collector closes a batch; LZ4
	// and dictionaries keep its encoded size well below MaxMessageBytes.
	MaxEventBytes = 768 * kib
	// MaxFindingsBytes bounds one message of findings: half a payload, so that
	// a reader's prefetch holds several lanes.
	MaxFindingsBytes = 512 * kib
	// MaxFindingsParts bounds the messages one input's findings may fill
	// (128 MiB): more is a rule that fires on every event of a full batch.
	MaxFindingsParts = 256
	// MaxIntakeBytes bounds one message of an outside sender.
	MaxIntakeBytes = MaxMessageBytes
	// MaxWorkBytes bounds a change of a case, an exception and the like:
	// texts people write.
	MaxWorkBytes = 256 * kib
	// MaxAuditBytes bounds one audit record; statements are cut by the caller.
	MaxAuditBytes = 64 * kib
	// MaxValueBytes bounds a key-value entry: positions, tokens, settings.
	MaxValueBytes = 128 * kib
	// MaxKeys bounds the idempotency keys one message carries, each of at most
	// maxName characters: half of maxHeaders. The two lists of counts fill at
	// most 26 KiB of the other half.
	MaxKeys      = 512
	maxCountName = 80
	// maxCounts bounds the entries of Coc-Sources and Coc-Refused (sources ×
	// reasons); beyond it the rest is summed under "other".
	maxCounts = 128
	// maxName bounds names of collectors, sources, kinds: they are subject
	// tokens and part of every event's identity.
	maxName = 64
	// maxID bounds digests and ids of work: a SHA-512 in hexadecimal.
	maxID = 128
	// maxKey bounds a key of a bucket; it is part of a subject.
	maxKey = 200
	// maxDetail bounds the texts of a dead letter, which travel as headers.
	maxDetail = 4 * kib
	// maxRulesBytes bounds a stored rule set with its lists: 10,000 rules of
	// 4 KiB.
	maxRulesBytes = 64 * mib
	// maxExcluded bounds the messages one cut may exclude; a cut has at most
	// 1,500.
	maxExcluded = 2000
)

// Default bounds of the streams in bytes, used where the disk allows
// (topology.go scales them down on a small one).
const (
	defaultEventsBytes     = 16 * gib // at 60 bytes an event about 280 M events: hours of a dead reader
	defaultFindingsBytes   = 1 * gib
	defaultIntakeBytes     = 1 * gib
	defaultDeadLetterBytes = 1 * gib
	defaultWorkBytes       = 1 * gib
	defaultAuditBytes      = 1 * gib
	defaultStateBytes      = 2 * gib // 16 lanes × two checkpoints of 64 MiB
	bucketBytes            = 64 * mib
	// memoryBucketBytes bounds a bucket in memory: 17 leases of 200 bytes, with
	// room.
	memoryBucketBytes = mib
	minEventsBytes    = 64 * mib // below this a minute's load fills the stream
	// diskShare is the part of the free disk that the streams may fill all
	// together; ClickHouse and logs live on the same one.
	diskShare = 0.5
	// fullShare of its bound is when EVENTS is called full: the rest is what
	// collectors send until somebody has looked.
	fullShare = 0.8
	// minFreeBytes is kept free: a file store that meets "no space left" stays
	// broken until its process restarts, so writing stops before.
	minFreeBytes = 256 * mib
)

// Times.
const (
	// LeaseTTL is how long a lease outlives its last renewal: the longest time
	// a lane stands still when its owner dies.
	LeaseTTL = 10 * time.Second
	// leaseEvery leaves three tries within the TTL.
	leaseEvery = 3 * time.Second
	// leaseMargin is taken off LeaseTTL by the owner, so that it stops before
	// the server lets another in.
	leaseMargin = time.Second
	// leasePoll is how often a waiting process tries a lease that is held.
	leasePoll = time.Second

	// DefaultPurgeEvery and DefaultKeep are protocols, section 1.
	DefaultPurgeEvery = 10 * time.Second
	DefaultKeep       = time.Hour

	// ClockSkewAlarm is the offset from which a clock is called wrong.
	ClockSkewAlarm = 30 * time.Second
	clockEvery     = time.Minute

	openTimeout    = 15 * time.Second // to a server given by URL
	startTimeout   = 2 * time.Minute  // of the embedded server: a large store is read at start
	requestTimeout = 5 * time.Second  // one request to JetStream
	publishTimeout = 5 * time.Second  // one publish; after it the outcome is asked for
	closeTimeout   = 8 * time.Second  // within the 10 s that SIGTERM leaves
	// diskEvery: at 200 MB/s the kept-free space lasts this long.
	diskEvery = time.Second

	// intakeDuplicates is the window in which a Nats-Msg-Id is stored once
	// (protocols, section 2).
	intakeDuplicates = 10 * time.Minute
	intakeAckWait    = 30 * time.Second
	seenTTL          = 10 * time.Minute
	tokenCache       = 3 * time.Second // a revoked token may live this much longer
)

// Concurrency and prefetch.
const (
	// IntakeConcurrency is how many intake messages are worked on at once: a
	// collector lingers 50 ms, so 256 of them allow 5,000 messages a second.
	IntakeConcurrency = 256
	intakePrefetch    = 512
	// readerMessages and readerBytes bound what a Reader has in flight:
	// enough for a cut's worth of small messages, little enough memory.
	readerMessages = 512
	readerBytes    = 8 * mib
	// maxTokens bounds the verified tokens held in memory.
	maxTokens = 4096
	// checkpointChunk: the sweet spot of JetStream's messages is far below, but
	// a checkpoint is written rarely and read whole.
	checkpointChunk = 512 * kib
	// serverMemory bounds memory streams of the embedded server; only the
	// state of its ephemeral consumers lives there.
	serverMemory = 64 * mib
)

package collector

import "time"

// Every bound of the collector, with its reason.
const (
	// limitLine bounds one line of a log that is read as text: the message it
	// becomes is cut at event.LimitMessage anyway, and a line of JSON may hold
	// an event with all its texts at their limits. What is longer is skipped to
	// the end of the line, and marked.
	limitLine = 1 << 20
	// limitRepeat bounds how many events one "message repeated N times" may
	// become: a line of 60 bytes must not ask for a million events.
	limitRepeat = 10_000
	// limitTag bounds a syslog program name with its pid; beyond it a colon
	// belongs to the message.
	limitTag = 128
	// limitHost bounds a host's name as event does; a longer word is no host.
	limitHost = 512
	// limitNames bounds the further names a parser notes for one event.
	limitNames = 4
	// minName is the shortest name that is replaced within texts: one letter
	// would be found everywhere and says nothing. It is replaced where it is the
	// whole of a field.
	minName = 2

	// limitParcelRows bounds what a followed source hands over at once, so that
	// one source does not fill a batch and others wait.
	limitParcelRows = 1024
	// limitParcelBytes bounds the same in raw bytes: a third of a message.
	limitParcelBytes = 256 << 10
	// limitQueue bounds the parcels that wait for the publisher. With the bound
	// below it is what a full bus may cost in memory.
	limitQueue = 256
	// limitQueueBytes bounds the raw bytes of the parcels that wait: about one
	// second at full load. Beyond it sources are held back and HTTP says 429.
	limitQueueBytes = 64 << 20

	// lingerShort is how long a batch waits for more when there is traffic;
	// lingerLong when a flush carries fewer than lingerFew events, because each
	// message costs every reader about half a millisecond whatever it holds.
	lingerShort = 50 * time.Millisecond
	lingerLong  = time.Second
	lingerFew   = 100

	// heartbeatEvery is how often a collector with nothing to send tells its
	// low-water mark; the horizon forgets a mark after five minutes.
	heartbeatEvery = 10 * time.Second

	// flushAtEnd bounds how long the end of a collector waits for the bus.
	flushAtEnd = 5 * time.Second

	// retryFirst and retryLast bound the pauses between attempts to reach a bus
	// that is full or away, and between restarts of a source.
	retryFirst = 50 * time.Millisecond
	retryLast  = 5 * time.Second
	// restartLast bounds the pause before a failed source is tried again.
	restartLast = time.Minute

	// latenessLive and latenessRemote are how late events may come by default:
	// a live source reads what just happened, a remote sender may have waited
	// for a network. They hold the low-water mark back, so that stragglers are
	// judged.
	latenessLive   = 10 * time.Second
	latenessRemote = time.Hour

	// limitSources bounds a sources.yaml: each source costs goroutines and
	// memory.
	limitSources = 256
	// limitSourcesFile bounds the file itself.
	limitSourcesFile = 1 << 20

	// limitIdentities bounds the cache of (tenant, name): 100 bytes each.
	limitIdentities = 200_000
	// limitTenantKeys bounds the cache of tenants' keys.
	limitTenantKeys = 20_000

	// strangerRate (a second) and strangerBurst bound the sealed names that
	// failed logins leave: 5 MB a day at 200 bytes each. Beyond it a guessed name
	// has its hash only.
	strangerRate  = 0.3
	strangerBurst = 5000

	// limitBody bounds an HTTP request's body, as sent and as unpacked: four
	// times what one message of the bus may hold raw, because JSON repeats its
	// keys.
	limitBody = 4 << 20
	// limitBadItems bounds the refused items that an answer lists.
	limitBadItems = 100
	// limitIdempotency bounds the idempotency keys remembered, and
	// idempotencyFor how long.
	limitIdempotency = 200_000
	idempotencyFor   = 10 * time.Minute
	// limitIdempotencyKey bounds a key as sent; it is kept as a hash.
	limitIdempotencyKey = 256
	// limitBuckets bounds the rate buckets, one a token.
	limitBuckets = 10_000
	// defaultRate and defaultBurst bound the events a second of one token: more
	// than one sender of the largest customers makes, less than what would
	// starve the others.
	defaultRate  = 50_000
	defaultBurst = 100_000
	// intakeAtOnce bounds the requests that are decoded at the same time: each
	// may hold limitBody twice.
	intakeAtOnce = 32

	// limitImports bounds the imports that run at once: each holds a publisher.
	limitImports = 4
	// limitKnown bounds the imports remembered under one beginning of a file.
	limitKnown = 64
	// limitExamples bounds the refused lines that a summary shows.
	limitExamples = 20
	// importLateness is how disordered an imported log may be before its events
	// come too late to be judged.
	importLateness = time.Hour

	// limitProcesses bounds how many processes polling looks at.
	limitProcesses = 65_536
	// limitDisks and limitNICs bound what a host reports each time.
	limitDisks = 64
	limitNICs  = 64
)

package sink

import "time"

const mib = 1 << 20

// Bounds of a cut of events. The protocols allow 500,000 rows and 64 MiB; what
// really bounds a cut is ClickHouse's memory, since a cut must be one block:
// with several, one that is refused could be half stored, and could not be
// divided. Measured with the embedded engine (420 MiB a statement), 38 columns:
// an insert into one partition takes about 3 times, one over several days about
// 5.7 times the weight below, whatever the mix of columns and texts.
const (
	cutTime = time.Second // how long a message waits for company
	// cutWeight allows about 200,000 rows of usual width, and 290 MiB of memory
	// for a cut over midnight. A cut that ClickHouse has no memory for would be
	// repeated for ever.
	cutWeight = 48 * mib
	// rowWeight is what a row costs besides its raw bytes: fixed columns and
	// offsets, also of what is absent.
	rowWeight   = 160
	cutMessages = 1500 // ClickHouse spends about half a millisecond on each
)

// Rebuilding of small messages.
const (
	// smallRows is below which a message costs ClickHouse more than its rows do.
	smallRows = 512
	// mergeRows and mergeBytes (raw) close a rebuilt message: those of a full
	// message of a collector.
	mergeRows  = 8192
	mergeBytes = 768 << 10
)

// Bounds of a cut of findings or work.
const (
	findingsTime = 100 * time.Millisecond // of the second that event to finding may take
	workTime     = time.Second            // nobody waits for it: the console overlays what is not here yet
	rowsMessages = 2000
	rowsBytes    = 16 * mib // NDJSON; as Go values some four times that
	// maxLine bounds one finding: keys and evidence are bounded by the engine.
	maxLine = 512 << 10
)

// Repeating.
const (
	retryFirst = 250 * time.Millisecond
	retryMost  = 10 * time.Second
	// insertTimeout bounds one insert; ClickHouse stuck for longer is tried
	// again, under the same token.
	insertTimeout = 2 * time.Minute
	// graceTime is what a sink takes at its end to finish the cut in hand.
	graceTime = 5 * time.Second
	// standbyEvery is how often a sink that stands by tries for the lease.
	standbyEvery = time.Second
)

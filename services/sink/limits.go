package sink

import "time"

const mib = 1 << 20

// Bounds of a cut of events (protocols, section 6).
const (
	cutTime     = time.Second // how long a message waits for company
	cutRows     = 500_000     // half of what ClickHouse takes as one block
	cutBytes    = 64 * mib    // as stored on the bus; held once here and once in a memory file
	cutMessages = 1500        // ClickHouse spends about half a millisecond on each
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

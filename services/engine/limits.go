package engine

import "time"

const (
	// checkpointEvery and checkpointEvents say when a checkpoint is due: what a
	// restart replays at most.
	checkpointEvery  = 30 * time.Second
	checkpointEvents = 1_000_000
	// tickEvery is how often time passes in a silent stream (protocols, 3).
	tickEvery = 10 * time.Second
	// lanesEvery is how often an engine looks for lanes without an owner: with
	// the lease's 10 s it takes a dead engine's lanes over within 15 s.
	lanesEvery = 3 * time.Second
	// statusEvery is how often the figures that others read are taken.
	statusEvery = time.Second
	// partBytes bounds one output message; protocols, 4. A single finding is far
	// smaller, its evidence is bounded.
	partBytes = 480 << 10
	// retryMin and retryMax bound the pause before an output is offered again
	// while the bus is full or away.
	retryMin, retryMax = 20 * time.Millisecond, 2 * time.Second
	// endWithin bounds the last checkpoint and the release of the leases.
	endWithin = 5 * time.Second
	// ruleSetMax bounds a rule set read from the bus.
	ruleSetMax = 64 << 20
)

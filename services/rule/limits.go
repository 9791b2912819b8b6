package rule

import "time"

// Every bound of the package, with its reason.
const (
	// limitFileBytes bounds one file of a set; the longest real rules with
	// tests stay below a tenth of it.
	limitFileBytes = 1 << 20
	// limitSetBytes bounds a packed set: it travels through the object store.
	limitSetBytes = 64 << 20
	// limitFiles bounds the files of a set: 10,000 rules and their lists.
	limitFiles = 20_000
	// limitNesting bounds nesting in YAML; a rule needs five levels.
	limitNesting = 64
	// limitErrors bounds what one load reports; nobody reads more.
	limitErrors = 200

	// limitExpression bounds the text of an expression. expr bounds memory, not
	// time, so time is bounded by length, nodes and the ban of loops.
	limitExpression = 4096
	// limitNodes bounds the nodes of an expression.
	limitNodes = 500
	// limitDepth bounds how deep an expression nests; parser and checker recurse.
	limitDepth = 60
	// limitPattern bounds the instructions of a regular expression: with a
	// message of 32 KiB it bounds one match to a tenth of a second.
	limitPattern = 2000
	// limitRunMemory bounds what the VM may allocate in one run, in its own
	// units (elements).
	limitRunMemory = 100_000
	// limitIn bounds the values of one `in [...]`.
	limitIn = 400

	limitID        = 100  // bytes of a rule id
	limitText      = 8192 // bytes of a title, description or response
	limitTags      = 32
	limitGroupBy   = 8
	limitTests     = 200     // tests a rule
	limitItems     = 1000    // items a test
	limitRepeat    = 200_000 // events a test, so that tests stay quick
	limitListSize  = 500_000 // entries a list
	limitExcept    = 1000    // exceptions a set
	limitTiers     = 64      // tiers an allowance
	limitAllowance = 1000    // allowances a set

	minWindow   = time.Second
	maxWindow   = 400 * 24 * time.Hour // a year, and what hangs over
	minSuppress = time.Minute
	maxSuppress = 400 * 24 * time.Hour

	// maxAggregates bounds the aggregates and allowances of a condition: each
	// has a slot in the environment.
	maxAggregates = 16
	// maxShares is the number of bits that an entry has for share(...).
	maxShares = 6

	// MaxExact is how many entries a key keeps one by one, in its window and
	// the horizon behind it. Beyond it the oldest fold into panes: count, sum,
	// share, min and max stay exact per pane, distinct has a standard error of
	// 2.3 %, percentiles a relative error of 1 %, and a window's start is exact
	// to a pane. 4,096 entries are about 100 kB.
	MaxExact = 4096
	// foldTo is how many stay one by one after a fold, so that folding is paid
	// once in a thousand events.
	foldTo = 3072
	// panesPerWindow is the number of panes a window spans.
	panesPerWindow = 64

	// DefaultMaxKeys bounds the keys a rule holds over all lanes; each lane has
	// a sixteenth, so that evictions do not depend on who owns which lanes.
	DefaultMaxKeys = 1 << 20
	// DefaultMemoryBytes bounds what all windows hold, as estimated; each lane
	// has a sixteenth.
	DefaultMemoryBytes = 192 << 20
	// maxImports bounds import domains at one time; the one that was silent
	// longest is dropped for a new one.
	maxImports = 16
	// maxCollectors bounds the collectors whose marks a domain remembers.
	maxCollectors = 10_000
	// maxOwnValues bounds the distinct combinations of event fields that a
	// condition of one key looks at; an entry has 23 bits for it.
	maxOwnValues = 1<<23 - 1
	// maxLateBy bounds the collectors that late events are counted by.
	maxLateBy = 100

	// horizonMost is how far the horizon may lag behind the clock.
	horizonMost = time.Hour
	// markHeard is how long a collector's mark counts.
	markHeard = 5 * time.Minute
	// importSilent is how long an import that never ended keeps its state.
	importSilent = 24 * time.Hour

	// limitSnapshot bounds a lane's snapshot.
	limitSnapshot = 1 << 30
)

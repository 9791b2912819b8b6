package store

import "time"

// Every bound of the package, with its reason.
const (
	// defaultMemory bounds the embedded engine. Below minMemory it cannot merge
	// parts of 500,000 rows beside an insert.
	defaultMemory = 700 << 20
	minMemory     = 300 << 20
	// statementMemoryShare is the part of the engine's memory that one statement
	// may take, in per cent, so that a person's question never starves an insert.
	statementMemoryShare = 60

	// defaultConnections statements run at once: the sink's insert, and a few
	// questions. More would only share the same cores.
	defaultConnections = 4
	maxConnections     = 16
	// defaultThreads of one statement; a question must leave a core to the rest.
	defaultThreads = 2
	maxThreads     = 64
	// idleConnections are kept open for the next statement; opening one costs
	// half a millisecond.
	idleConnections = 8

	// closeWait bounds how long Close waits for running statements before it
	// kills them, and killWait how long for them to end.
	closeWait = 8 * time.Second
	killWait  = 2 * time.Second
	// killEvery repeats a kill until the statement is gone: one sent before the
	// engine has registered the statement finds nothing.
	killEvery = 50 * time.Millisecond
	// healthWait is how long an answer to SELECT 1 may take.
	healthWait = 2 * time.Second

	// limitStatement bounds a statement's text. Ours have a few kilobytes; a
	// person's beyond it is not a question any more.
	limitStatement = 256 << 10
	// limitParams bounds the bound parameters of a statement, in bytes.
	limitParams = 4 << 20
	// insertChunk is what is handed to the engine at once of an insert's body.
	insertChunk = 1 << 20
	// limitErrorText bounds what is kept of the engine's error message; parsers
	// quote the data they choke on.
	limitErrorText = 2 << 10

	// houseTimeout bounds a statement of ours that was given no earlier deadline.
	houseTimeout = 10 * time.Minute
	// personTimeout bounds a person's statement.
	personTimeout = 60 * time.Second
	// limitResultBytes bounds what a person's statement may return.
	limitResultBytes = 256 << 20
	// limitValue bounds one row of a person's result as JSON.
	limitValue = 16 << 20

	// maxInsertRows of the small tables go into one insert; a caller's longer
	// list is cut into several.
	maxInsertRows = 100_000
	// maxBlockRows is the most rows that ClickHouse takes as one block
	// (max_insert_block_size of 26.7 is 1,048,449): beyond it an insert would
	// stop being one part per partition.
	maxBlockRows = 1_048_449
	// maxBlockBytes lets a cut of 64 MiB, unpacked, stay one block.
	maxBlockBytes = 1 << 30

	// Lists: what is returned when nothing is asked for, and at most.
	defaultFindings  = 10_000
	maxFindings      = 100_000
	defaultEvents    = 100
	maxEvents        = 10_000
	maxEventIDs      = 1_000
	defaultStandings = 10_000
	maxStandings     = 100_000
	defaultTimes     = 10_000
	maxTimes         = 100_000
	maxUsageRows     = 1_000_000
	maxUsageDays     = 4_000
	defaultSQLRows   = 10_000
	maxSQLRows       = 1_000_000
	maxGaps          = 1_000
	maxLedgerRows    = 200_000
	maxClosedDays    = 400
	maxTouchedDays   = 4_000

	// maxMeters and the bounds of a meter's window: a fair-use period is at most
	// a year and a bit.
	maxMeters      = 100
	minMeterWindow = time.Minute
	maxMeterWindow = 400 * 24 * time.Hour
	// maxSinceTenants is for how many tenants above an allowance the moment is
	// looked up; they come by ratio, highest first.
	maxSinceTenants = 1_000

	// maxReleaseRows bounds a day's release: services × versions × resources ×
	// tiers. Beyond it something else than a product's parts stands in
	// resource.name, and the release says so instead of growing.
	maxReleaseRows = 200_000
	// minTenants and maxShare: a row of fewer tenants, or with one tenant above
	// half of the uses, could be read back to a customer (design, section 5).
	minTenants = 11
	// dayCloses after its end: what comes later is counted, not released.
	dayCloses = 24 * time.Hour
	// ledgerSlack is how long before a batch's bus time its events may have been
	// received: the spool of a collector that was cut off.
	ledgerSlack = 8 * 24 * time.Hour

	// simulatedFor is how long "no simulated events" is believed; simulatedSlack
	// is how long an event may wait between receipt and storage without being
	// missed by the next look.
	simulatedFor   = time.Minute
	simulatedSlack = ledgerSlack

	// promisedMillis is the hoster's promise for a window, in milliseconds.
	promisedMillis = 2000
)

package console

import "time"

// Every bound of the package, with its reason.
const (
	// maxBody bounds a request's body: a statement and some JSON around it.
	maxBody = 256 << 10
	// maxStatement bounds the text of a statement, in bytes; store refuses
	// beyond 256 KiB.
	maxStatement = 128 << 10
	// bodyTimeout is how long a client may take to send its body.
	bodyTimeout = 10 * time.Second
	// answerTimeout bounds a question and its answer; store gives up on a
	// person's statement after 60 s.
	answerTimeout = 90 * time.Second
	// streamTimeout bounds one write to a client that reads a stream: who takes
	// nothing for so long is gone.
	streamTimeout = 30 * time.Second

	// questionsAtOnce is how many questions the store is asked at the same time,
	// fewer than the statements it runs at once: the sink's inserts never wait
	// for people. Of them at most statementsAtOnce are somebody's own SQL, so that
	// the lists do not wait for it either.
	questionsAtOnce  = 3
	statementsAtOnce = 2
	// queueWait is how long a question waits for its turn before it is told to
	// come back.
	queueWait = 15 * time.Second
	// queueMax bounds those that wait, so that a flood is refused at once.
	queueMax = 64

	// tokenRate and tokenBurst bound the requests of one token, per second:
	// scripts that poll are fine, a loop without a pause is not.
	tokenRate  = 50
	tokenBurst = 200
	// failEvery and failBurst bound attempts with a wrong token from one
	// address (IPv6: from one /64).
	failEvery = 6 * time.Second
	failBurst = 10
	// knownFor is how long a token that was good still passes from an address
	// that is being throttled, so that one wrong script does not lock out its
	// neighbours.
	knownFor = 10 * time.Minute
	// maxTracked bounds each table of tokens and addresses kept for the above;
	// full, its oldest entries go.
	maxTracked = 4096
	// maxSecret bounds a bearer token, in bytes; ours have some 50.
	maxSecret = 256

	// tailClients and tailPerToken bound the open tails: each decodes the stream
	// anew.
	tailClients  = 16
	tailPerToken = 4
	// tailLines and tailBytes bound what waits for one client; beyond it events
	// are left out, counted, and the client is told.
	tailLines = 4096
	tailBytes = 8 << 20
	// tailAlive is how often an idle tail says that it lives.
	tailAlive = 15 * time.Second

	// defaultList and maxList bound the rows of an answer.
	defaultList = 10_000
	maxList     = 100_000
	// defaultStatementRows and maxStatementRows those of a statement.
	defaultStatementRows = 10_000
	maxStatementRows     = 1_000_000

	// ledgerDefault is the stretch a ledger covers when none is asked for, and
	// ledgerMax the longest: 92 days × 24 hours × sources fill a page nobody
	// reads.
	ledgerDefault = 24 * time.Hour
	ledgerMax     = 92 * 24 * time.Hour
	// scanMessages and scanTime bound the look at what waits on the bus and at
	// the dead letters; when one is reached the ledger says so.
	scanMessages = 200_000
	scanTime     = 5 * time.Second

	// tokenForMost bounds the life of a token that is made here.
	tokenForMost = 400 * 24 * time.Hour
)

// Package sink carries the streams EVENTS, FINDINGS and WORK into ClickHouse.
//
// One sink is active, by the lease "sink"; others stand by. Correctness does
// not rest on the lease but on the recorded cut: what is about to be inserted
// is written down by compare-and-set before it is, so two sinks cannot both go
// on, and a sink that starts over an open cut repeats it, the same messages
// under the same token, which ClickHouse stores once.
//
// An event's way: messages are gathered for at most a second (gather.go); each
// one's frames and rows are checked, small ones are rebuilt into larger ones
// and all are spliced, unread, into one Arrow stream (cut.go); the cut {done,
// first, last, rows, excluded} is recorded; one insert under the token
// "events:<first>-<last>"; the rows ClickHouse wrote are compared with the
// rows recorded; the table batches and the collectors' numbers are written;
// then the position moves (events.go).
//
// A cut that ClickHouse refuses for its data is halved until the message at
// fault stands alone; that one goes to DEADLETTER and is excluded. Each half
// is a recorded cut of its own, so a crash in the midst of it changes nothing.
// (Halving finds one among 1,500 by some twenty inserts; one by one would leave
// as many parts as messages.)
//
// Findings, work and identities have computed ids and revisions: written twice
// they are there once, so their position moves after the insert and needs no
// token (follow.go).
//
// When ClickHouse or the bus is away the sink repeats with growing pauses,
// holds one cut in memory, says so once, and shows it in Status. The bus keeps
// the rest. It never drops a message, and never reads ahead of what limits.go
// allows.
package sink

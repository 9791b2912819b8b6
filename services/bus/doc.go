// Package bus is the house's NATS JetStream: the one ordered stream of events
// and everything that moves beside it. It is the only package that imports
// nats.go and nats-server.
//
// What it owns
//
//   - the server: embedded in the process (in-process connections, a listener
//     only when asked for) or any NATS given by URL; one code path for both;
//   - the topology: streams, key-value buckets and the object store, declared
//     as one table (topology.go) and applied at every start;
//   - writing: Publisher (events of one collector, numbered and fenced), Lane
//     (findings of one lane, fenced), control messages, work, audit, intake,
//     dead letters;
//   - reading: Reader, ordered, from a position, over reconnects;
//   - what must be agreed upon between processes: leases, checkpoints, rule
//     sets, the sink's cuts, numbers, tokens, the bus's clock;
//   - purging EVENTS and FINDINGS by those positions, and by nothing else.
//
// What it promises
//
//   - A nil error of a publish means JetStream stored the message. A publish
//     whose outcome is unknown is decided by asking the stream, never by
//     guessing: repeated with the same numbers it is stored once.
//   - Two writers of one subject cannot both go on: the later one is told
//     ErrFenced by the expected last sequence of the subject. Leases only save
//     work; correctness rests on this fence.
//   - A Reader returns every message of its stream from its position on, in
//     order, once; where messages at its position are gone it says so with a
//     *PurgedError instead of going on.
//   - Nothing is purged that a lane, the sink or the last hour needs. A full
//     stream refuses (ErrFull); it never drops.
//
// What it never does: look into a payload, decide what an event or a finding
// means, or keep a message in memory beyond the bounds in limits.go.
//
// A folder belongs to one process (a lock file holds this), and to one key:
// opened with another key it refuses to start rather than begin anew.
package bus

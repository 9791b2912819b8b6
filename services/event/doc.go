// Package event is what coc speaks about: the event, the batch of events that
// travels on the bus, and the finding that a rule makes of them.
//
// [Fields] is the one list of an event's fields, with name, type, privacy class
// and limit of each; the Arrow schema, the JSON codec, the tables, the rule
// language and the rights of readers are made from it or tested against it. Add
// a field there first.
//
// An event comes in as JSON ([JSONDecoder], strict) or from a parser, is checked
// ([Event.Validate]) and shortened ([Event.Cut]), and goes into a [Builder]. The
// builder encodes up to [LimitRows] events as one Arrow IPC stream with LZ4
// bodies: one message of the bus. A reader of the bus decodes it into a [Batch]
// ([Decode], or [DecodeFields] for some columns) whose texts alias one block of
// memory until Release, and asks it by column and dictionary code or row by row.
// ClickHouse takes the very same bytes: [Splice] joins messages without
// unpacking them, [Merge] rebuilds many small ones into one.
//
// The package promises that decoding never panics and never allocates more than
// limits.go allows, whatever the bytes; that the same events give the same
// bytes; and that what it refuses it refuses with a [Refusal] that names the
// reason and the field.
//
// It knows nothing of NATS, ClickHouse, rules, files or clocks, and starts no
// goroutines.
package event

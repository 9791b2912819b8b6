// Package engine runs the rules over the recorded stream and writes what they
// find: EVENTS in, FINDINGS out.
//
// An engine owns lanes, by lease. It reads the whole stream once, decodes each
// message once and lets one [rule.Runner] judge it for all its lanes. Its state
// is a function of the stream, so it acknowledges nothing: a checkpoint per lane
// says from where to go on, and the last message of the lane's output says up to
// which input the findings are out already. Between the two it computes and
// publishes nothing. So after a kill at any moment each finding is in FINDINGS
// once, and the bytes are those of an engine that was never disturbed.
//
// A session (session.go) is one ownership of a set of lanes: leases, checkpoints,
// replay, then live. It ends when a lease is lost, when another owner's fence
// refuses an output, when more lanes become free, or with the process; the next
// session begins at the checkpoints. Lanes whose checkpoints stand at different
// places are cohorts (cohort.go) that read the same messages and join when they
// meet.
//
// The owner of lane 0 also stores the ticks by which time passes in the stream,
// and the switch to the configured rule set when another is active.
//
// The engine never stops for a bad message: what cannot be decoded is skipped by
// every engine alike and counted; the sink keeps it as a dead letter. It does
// stop at a rule set that it cannot load, and says which.
package engine

// Package stats makes reports of what the store holds: the anonymous release
// of each closed day, and the response times per tenant.
//
// A day closes 24 hours after its end in the hoster's zone. Then, once and
// never again, its release is made; what a release may hold and what it leaves
// out is decided in store, in one statement. What arrives for a released day
// later is counted and shown beside it, not added: a figure that changed would
// tell what it changed by.
//
// Response times per tenant are not anonymous and not final: each day that
// openings came in for is built anew.
//
// [Stats.Run] makes a pass every minute; [Stats.Pass] is one. A pass that fails
// half way is taken up by the next, since each step can be repeated and says in
// the store that it was done. The package keeps one thing of its own, a
// position: up to when what was received has been looked at. It stands on the
// bus if there is one, and when it is lost everything is built again, which
// costs time and nothing else.
//
// It promises that no day is released while an import runs, while the sink has
// not stored what the bus holds, or while events still come in for it.
package stats

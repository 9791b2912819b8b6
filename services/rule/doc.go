// Package rule is the detection language: it reads a folder of rules, checks
// it as a whole, compiles it, and evaluates batches of events into findings.
//
//   - Load, LoadDir and Open give a [Set]: immutable, checked, shared. A set
//     with one error is not loaded; all its errors come back at once, each with
//     file, line, column, the source line and a caret (errors.go, yaml.go).
//   - A [Runner] evaluates a Set: mutable, one owner. Its findings are a
//     function of its inputs alone: no clock, no random, no order of maps.
//   - RunTests and Backtest put the same Runner behind simulated time and files.
//
// The way of an event: the index (index.go) decides on dictionary codes which
// rules could match a row; the native part of match (conjunct.go) tests texts
// and numbers in place; what is left runs in the expr VM (env.go, expression.go).
// A hit gets its key and lane (hit.go) and joins the key's window (window.go,
// aggregate.go; beyond the exact number panes.go and sketch.go). At the end of
// the message each touched key is judged once (judge.go), and what is true of
// its cells of time (cell.go, grid.go) is published if it is news (publish.go).
//
// What is promised, exactly:
//
//   - The window of an event at t holds all events of its key in (t - W, t],
//     those of the same moment too. The event fires when the condition is true
//     of that window. So firing is a property of the set of events: the order of
//     arrival does not matter within the horizon. Entries stand in order of
//     (time, identity); a straggler is placed where it belongs, and what it
//     changes is judged again. order_test.go compares the Runner with an
//     evaluator of a few lines.
//   - All firings of a key in a cell of the grid are one finding. It is fired by
//     the first of them, and counts the events from the start of that one's
//     window to the last firing.
//   - Up to MaxExact events of a key, in its window and the horizon behind it,
//     all this is exact. Beyond, the oldest fold into panes, the finding says
//     that it is approximate, and what was once said of an event stays.
//   - Events older than the horizon, keys that had to go for lack of room and
//     run-time errors are counted by rule, never silent.
//
// The package reads no environment, opens no connection and starts no
// goroutine; the only clock it reads tells how long a rule's test took.
package rule

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
// Order of arrival does not matter within the horizon: entries stand in order
// of (time, identity), a straggler is placed where it belongs and what it
// changes is judged again. The property test in order_test.go compares the
// Runner with an evaluator of a few lines.
//
// The package never reads a clock or the environment, opens no connection and
// starts no goroutine.
package rule

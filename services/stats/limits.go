package stats

import "time"

const (
	// defaultEvery is the time between passes: a person who waits for a figure
	// waits a minute.
	defaultEvery = time.Minute
	// defaultQuiet is how long nothing may have come in for a day before it is
	// released: between the files of one import a moment passes. A pass that
	// finds days too fresh is followed by the next after as long.
	defaultQuiet = 30 * time.Second
	// recount is how often what came late for a day is counted again, and
	// recountMost how many days at most in a pass: of 400 released days each is
	// counted about once an hour.
	recount     = time.Hour
	recountMost = 8
	// overlap is how far before its position a pass looks for touched days: what
	// was received then may have been stored since.
	overlap = 5 * time.Minute
	// wide is how far a pass looks back once every wideEvery: a collector that
	// was cut off sends what it received days ago, and the bus refuses live
	// events older than a week.
	wide      = 8 * 24 * time.Hour
	wideEvery = time.Hour
	// retryMost bounds the days remembered because building them failed.
	retryMost = 4000
)

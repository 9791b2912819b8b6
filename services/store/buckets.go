package store

import (
	"fmt"
	"strings"
)

// BucketCount is the number of buckets of response times.
const BucketCount = 8

// BucketBounds are the upper bounds of the buckets in milliseconds, included;
// the last bucket holds what took longer.
var BucketBounds = [BucketCount - 1]float64{100, 200, 500, 1000, 2000, 5000, 10000}

// bucketColumns are their names in the tables.
const bucketColumns = "ms_100, ms_200, ms_500, ms_1000, ms_2000, ms_5000, ms_10000, ms_more"

// bucketCounts counts durations by bucket, one expression a column of
// bucketColumns. A NULL duration is in none.
func bucketCounts() string {
	var parts []string
	for i := range BucketCount {
		var terms []string
		if i > 0 {
			terms = append(terms, fmt.Sprintf("duration > %g", BucketBounds[i-1]))
		}
		if i < len(BucketBounds) {
			terms = append(terms, fmt.Sprintf("duration <= %g", BucketBounds[i]))
		}
		parts = append(parts, "toInt64(countIf("+strings.Join(terms, " AND ")+")) AS "+strings.Split(bucketColumns, ", ")[i])
	}
	return strings.Join(parts, ", ")
}

// bucketSums adds the columns up.
func bucketSums() string {
	names := strings.Split(bucketColumns, ", ")
	for i, n := range names {
		names[i] = "sum(" + n + ")"
	}
	return strings.Join(names, ", ")
}

// bucketTargets are the places of the buckets for Scan.
func bucketTargets(b *[BucketCount]int64) []any {
	list := make([]any, BucketCount)
	for i := range b {
		list[i] = &b[i]
	}
	return list
}

// bucketValues are the buckets for Append.
func bucketValues(b *[BucketCount]int64) []any {
	list := make([]any, BucketCount)
	for i := range b {
		list[i] = b[i]
	}
	return list
}

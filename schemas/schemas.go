// Package schemas holds the contracts of the house as files: the event, the
// rule and the finding as JSON schemas, and the tables of ClickHouse as
// numbered migrations. Other packages read them from Files, so a binary carries
// the contracts it was built with.
package schemas

import "embed"

// Files holds event.schema.json, rule.schema.json and finding.schema.json, and
// the migrations under clickhouse/NNNN_name.sql.
//
//go:embed *.json clickhouse/*.sql
var Files embed.FS

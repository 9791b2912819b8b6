// Package store is ClickHouse as the house sees it, and the only place with
// SQL. It owns the tables (schemas/clickhouse), the inserts, the questions, and
// who may see what.
//
// # Two engines, one path
//
// Open starts the embedded engine (libchdb, bound without cgo) or connects to a
// server. Both are spoken to by the same clickhouse-go calls over HTTP; for the
// embedded one transport.go answers the requests in the process and behaves as
// a server's HTTP interface does: one statement a request, settings for this
// request only, bound parameters, errors with their code, written rows in the
// summary. What is particular to the engine: its memory is bounded by its own
// configuration (engine_config.go), it has grants for tables only and none for
// files, addresses or other sources, and statements that reach for files
// anyway are refused before they run. One process can have one engine, one
// folder one process.
//
// # What it promises
//
//   - InsertEvents writes the very bytes that came over the bus, as one block,
//     and once per token. Data never becomes part of a statement's text.
//   - A row that changes (finding, batch, work, identity) has a computed key and
//     a version: writing it twice leaves one.
//   - Every value is bound, none is written into a statement. Every list has a
//     limit and says when it was cut.
//   - A statement ends with its context: a running one is killed.
//   - A role sees the columns of its classes in the tables of roles.go, through
//     typed questions and through SQL alike. The class of a column is the class
//     of its field; a column without one fails a test.
//   - A day's release is computed once and never changed, and nothing about a
//     customer can be read from it that fewer than 11 tenants, or one dominant
//     tenant, would give away.
//
// # How a person's statement is held to its role
//
// It must be one SELECT. A lexer (lexer.go) refuses what could be read in two
// ways and every database's name before a dot; EXPLAIN AST shows the syntax
// without running anything, and only known nodes, tables and functions pass
// (analyse.go). Then it runs, read-only, in the role's catalogue (catalogue.go):
// a database of views that have the role's tables with the role's columns and
// nothing else. The catalogue is the guarantee, the rest says what was refused,
// by name: resolving names with EXPLAIN QUERY TREE alone would not do, because
// ClickHouse computes scalar subqueries while it analyses, so that an error
// would tell what may not be asked.
//
// # What it never does
//
// It knows no names of people but sealed ones, decides over no rule, reads no
// environment, and keeps nothing in memory that is not in ClickHouse.
package store

// Command coc is the Cyber Operations Center's event pipeline: one binary with
// roles. `coc up` runs them all in one process with an embedded NATS server and
// an embedded ClickHouse engine; `coc collector`, `coc engine`, `coc sink`, `coc
// stats` and `coc console` run one each against servers given by address. The
// other commands are clients of a running instance, or work on files alone.
//
// The package turns flags and COC_… variables into the configurations of the
// roles, starts them in the order of the flow (bus, store, engine, sink, stats,
// collector, HTTP) and stops them in the reverse order within 10 s. It is the
// only reader of the environment and the only one that ends the process.
//
// Files: main.go is the table of contents of the commands; config.go holds the
// flags that several share; up.go and roles.go start roles; server.go is the
// HTTP listener with health and metrics; client.go and cmd_*.go are the
// commands that ask a running instance; bench.go measures.
//
// Exit codes: 0 done, 1 failed, 2 used wrongly.
package main

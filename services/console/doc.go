// Package console is the HTTP API: what analysts, account managers, support,
// product teams, operators and programs ask of coc over the network. It reads
// the store and the bus and changes neither, but for access tokens.
//
// [New] builds the API; [Console.Handler] serves /v1/… and /openapi.json, the
// description of it all. Each operation is a file: findings, usage, tenants,
// response times, ledger, tail, sql, tokens, status.
//
// Who may call what stands in one table, access.go, by role; what of an answer
// a role sees is decided in store, by the class of each field, a second time
// and independently. A request shows who asks by its bearer token, nothing
// else: no cookies, so no forged requests from other sites. Tokens of role
// intake open nothing here. An operation without a row in the table is
// refused.
//
// Lists come as one JSON object with what one must know to read them: the
// hoster's zone, whether there is more, whether anything was simulated. Tail
// and SQL are streams of JSON lines that always end with a line that says how
// they ended, so a broken connection is not taken for the end.
//
// The package promises that no request holds more than its bounds (limits.go),
// that a slow or hostile client cannot keep the sink from inserting, and that
// no answer ever holds user.name. It starts goroutines for tail only; they end
// with their request.
package console

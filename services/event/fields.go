package event

// Type is the shape of a field's value, on the bus and in the tables.
type Type uint8

const (
	// Dict is a text with few distinct values in a batch; a dictionary on the
	// bus, LowCardinality(String) in ClickHouse. Absent is the empty text.
	Dict Type = iota
	// Text is a text that mostly differs from event to event. Absent is the
	// empty text.
	Text
	// Time is a moment in UTC with millisecond resolution, Unix milliseconds in
	// Go. Only received may be absent (0), and only before the bus.
	Time
	// Int is a signed 64-bit number; nullable unless the field is Required.
	Int
	// Float is a 64-bit floating point number, always finite; nullable.
	Float
	// Map holds the labels: text to text, sorted by key.
	Map
)

// Class is the privacy class of a field. Column grants, retention, redaction
// and what a release may name follow from it and from nothing else.
type Class string

const (
	// Public tells nothing about a customer: what happened, when, where it runs.
	Public Class = "public"
	// Tenant names or measures a customer company.
	Tenant Class = "tenant"
	// Person points at one human being, if only by a keyed hash or an address.
	Person Class = "person"
	// Free is text that somebody wrote; it may hold anything.
	Free Class = "free"
)

// Field describes one field of the event: the only list of them. The Arrow
// schema, the JSON codec, the tables, the rule language and the privacy classes
// are made from it or tested against it.
type Field struct {
	// Name as rules and JSON write it, in the terms of the Elastic Common Schema.
	Name string
	// Column is Name with underscores: the name in Arrow and ClickHouse.
	Column string
	Type   Type
	Class  Class
	// Limit is the longest accepted value in bytes of a text; see limits.go.
	Limit int
	// Kept is false for the one field that travels on the bus only: user.name.
	Kept bool
	// Internal fields are set by coc itself; a producer that sends one is refused.
	Internal bool
	// Required fields are never null.
	Required bool
	Doc      string
}

// Indexes into Fields. The order is that of the Arrow schema; append only, and
// raise SchemaVersion when it changes.
const (
	FTime = iota
	FReceived
	FKind
	FAction
	FOutcome
	FMessage
	FSource
	FID
	FMarks
	FCollector
	FEpoch
	FSeq
	FTenantID
	FTenantTier
	FUserName
	FUserHash
	FUserType
	FSessionID
	FSourceIP
	FSourceCountry
	FDatacenter
	FHostName
	FServiceName
	FServiceVersion
	FResourceType
	FResourceName
	FResourceTitle
	FTicket
	FProcessName
	FProcessPID
	FProcessParent
	FProcessExecutable
	FProcessCommandLine
	FDuration
	FServerDuration
	FBytes
	FValue
	FLabels
	fieldCount
)

// SchemaVersion is the version of the Arrow schema, written into each message.
// A reader accepts its own version and the one before it.
const SchemaVersion = "1"

// Fields is the event, field by field, indexed by the F constants. It is read
// only.
var Fields = [fieldCount]Field{
	FTime:     {Name: "time", Type: Time, Class: Public, Kept: true, Required: true, Doc: "When it happened, UTC, milliseconds."},
	FReceived: {Name: "received", Type: Time, Class: Public, Kept: true, Internal: true, Required: true, Doc: "When a collector took it in, by the bus's clock; retention counts from here."},
	FKind:     {Name: "kind", Type: Dict, Class: Public, Limit: limitWord, Kept: true, Required: true, Doc: "system, process or user."},
	FAction:   {Name: "action", Type: Dict, Class: Public, Limit: limitWord, Kept: true, Required: true, Doc: "What happened: login, window_opened, backup_finished, process_started, host_cpu …"},
	FOutcome:  {Name: "outcome", Type: Dict, Class: Public, Limit: limitWord, Kept: true, Doc: "success, failure or unknown."},
	FMessage:  {Name: "message", Type: Text, Class: Free, Limit: LimitMessage, Kept: true, Doc: "The raw line, with names replaced and secrets cut."},

	FSource:    {Name: "event.source", Type: Dict, Class: Public, Limit: limitWord, Kept: true, Internal: true, Doc: "The configured source it came from."},
	FID:        {Name: "event.id", Type: Text, Class: Public, Limit: limitName, Kept: true, Doc: "The producer's own id of it."},
	FMarks:     {Name: "event.marks", Type: Dict, Class: Public, Limit: limitName, Kept: true, Internal: true, Doc: "What coc did to it, separated by spaces: cut:message, secret:process.command_line …"},
	FCollector: {Name: "collector.id", Type: Dict, Class: Public, Limit: limitWord, Kept: true, Internal: true, Doc: "The collector that numbered it."},
	FEpoch:     {Name: "collector.epoch", Type: Int, Class: Public, Kept: true, Internal: true, Required: true, Doc: "The numbering it belongs to; a collector that lost its state starts a new one."},
	FSeq:       {Name: "collector.seq", Type: Int, Class: Public, Kept: true, Internal: true, Required: true, Doc: "Its number in that numbering, from 1 without gaps."},

	FTenantID:      {Name: "tenant.id", Type: Dict, Class: Tenant, Limit: limitWord, Kept: true, Doc: "The customer company's id."},
	FTenantTier:    {Name: "tenant.tier", Type: Dict, Class: Tenant, Limit: limitWord, Kept: true, Doc: "The product tier the tenant bought."},
	FUserName:      {Name: "user.name", Type: Dict, Class: Person, Limit: limitName, Kept: false, Doc: "The account's name. On the bus only; kept nowhere but sealed in identities."},
	FUserHash:      {Name: "user.hash", Type: Dict, Class: Person, Limit: limitName, Kept: true, Internal: true, Doc: "HMAC-SHA-256 of the name under the tenant's key, or the name itself of a system account."},
	FUserType:      {Name: "user.type", Type: Dict, Class: Public, Limit: limitWord, Kept: true, Doc: "customer, staff, service or system."},
	FSessionID:     {Name: "session.id", Type: Text, Class: Person, Limit: limitName, Kept: true, Doc: "The session, as the producer names it."},
	FSourceIP:      {Name: "source.ip", Type: Dict, Class: Person, Limit: limitIP, Kept: true, Doc: "The address it came from, in canonical form."},
	FSourceCountry: {Name: "source.country", Type: Dict, Class: Person, Limit: limitWord, Kept: true, Doc: "ISO 3166-1 alpha-2 code of the address's country."},

	FDatacenter:     {Name: "datacenter", Type: Dict, Class: Public, Limit: limitWord, Kept: true, Doc: "The data centre it happened in."},
	FHostName:       {Name: "host.name", Type: Dict, Class: Public, Limit: limitName, Kept: true, Doc: "The machine it happened on."},
	FServiceName:    {Name: "service.name", Type: Dict, Class: Public, Limit: limitName, Kept: true, Doc: "The part of the product: profit, insite, connector …"},
	FServiceVersion: {Name: "service.version", Type: Dict, Class: Public, Limit: limitWord, Kept: true, Doc: "That part's version."},

	FResourceType:  {Name: "resource.type", Type: Dict, Class: Public, Limit: limitWord, Kept: true, Doc: "window, job, backup, connector, report, document, check …"},
	FResourceName:  {Name: "resource.name", Type: Dict, Class: Public, Limit: limitName, Kept: true, Doc: "The product's own name of it."},
	FResourceTitle: {Name: "resource.title", Type: Dict, Class: Free, Limit: LimitText, Kept: true, Doc: "What a customer called it."},
	FTicket:        {Name: "ticket", Type: Text, Class: Tenant, Limit: limitName, Kept: true, Doc: "The ticket that authorised it."},

	FProcessName:        {Name: "process.name", Type: Dict, Class: Public, Limit: limitName, Kept: true, Doc: "The program's short name."},
	FProcessPID:         {Name: "process.pid", Type: Int, Class: Public, Kept: true, Doc: "Its process id."},
	FProcessParent:      {Name: "process.parent", Type: Dict, Class: Public, Limit: limitName, Kept: true, Doc: "The short name of the program that started it."},
	FProcessExecutable:  {Name: "process.executable", Type: Dict, Class: Free, Limit: LimitText, Kept: true, Doc: "The path of the program's file."},
	FProcessCommandLine: {Name: "process.command_line", Type: Text, Class: Free, Limit: LimitText, Kept: true, Doc: "How it was called, secrets cut."},

	FDuration:       {Name: "duration", Type: Float, Class: Public, Kept: true, Doc: "How long it took as the user felt it, milliseconds."},
	FServerDuration: {Name: "server.duration", Type: Float, Class: Public, Kept: true, Doc: "Our share of it, milliseconds."},
	FBytes:          {Name: "bytes", Type: Int, Class: Public, Kept: true, Doc: "How much was moved or made, bytes."},
	FValue:          {Name: "value", Type: Float, Class: Public, Kept: true, Doc: "A gauge's reading; its unit is the action's."},
	FLabels:         {Name: "labels", Type: Map, Class: Free, Limit: LimitText, Kept: true, Doc: "What else the producer says, text to text."},
}

var byName = make(map[string]int, fieldCount)

// The table is completed once, at start, from itself alone: no order of
// packages matters.
func init() {
	for i := range Fields {
		Fields[i].Column = columnOf(Fields[i].Name)
		byName[Fields[i].Name] = i
	}
}

func columnOf(name string) string {
	b := []byte(name)
	for i, c := range b {
		if c == '.' {
			b[i] = '_'
		}
	}
	return string(b)
}

// FieldByName returns the index into Fields of a dotted name, or -1.
func FieldByName(name string) int {
	if i, ok := byName[name]; ok {
		return i
	}
	return -1
}

package store

import (
	"fmt"
	"slices"
	"strings"

	"github.com/opencoc/coc/services/event"
)

// Role is what a person or a program may do.
type Role string

// The roles of the house (design, section 1).
const (
	RoleAnalyst        Role = "analyst"
	RoleAccountManager Role = "account_manager"
	RoleSupport        Role = "support"
	RoleProduct        Role = "product"
	RoleOperator       Role = "operator"
	RolePrivacy        Role = "privacy"
	RoleAdministrator  Role = "administrator"
)

// Reader is who asks: the role of a token, and the token's id for the record
// (never its secret).
type Reader struct {
	Role  Role
	Token string
}

// right is one row of the table of roles.
type right struct {
	role    Role
	classes []event.Class
	tables  []string
	sql     bool // may write statements of its own
}

var (
	releaseTables = []string{tableReleaseDays, tableReleaseLate, tableReleaseUsage}
	allClasses    = []event.Class{event.Public, event.Tenant, event.Person, event.Free}
)

// rights is the whole of who sees what: a column is seen by a role that has
// both its table and its class. Standing, ledger and gaps are questions over
// events and batches with their own right, because their answers name no person.
var rights = []right{
	{RoleAnalyst, allClasses, tablesPlus(releaseTables, tableEvents, tableBatches, tableFindings, tableResponseTimes, viewStanding, viewLedger), true},
	{RoleAccountManager, []event.Class{event.Public, event.Tenant}, tablesPlus(releaseTables, tableFindings, tableResponseTimes, viewStanding), false},
	{RoleSupport, []event.Class{event.Public, event.Tenant}, tablesPlus(releaseTables, tableEvents, tableFindings, tableResponseTimes, viewStanding), false},
	{RoleProduct, []event.Class{event.Public}, releaseTables, true},
	{RoleOperator, []event.Class{event.Public, event.Tenant}, without(everyTable, tableIdentities), true},
	{RolePrivacy, allClasses, everyTable, true},
	{RoleAdministrator, allClasses, everyTable, true},
}

// The tables, and what is asked of several at once.
const (
	tableEvents        = "events"
	tableBatches       = "batches"
	tableFindings      = "findings"
	tableIdentities    = "identities"
	tableWork          = "work"
	tableMigrations    = "migrations"
	tableReleaseMade   = "release_made"
	tableReleaseDays   = "release_days"
	tableReleaseLate   = "release_late"
	tableReleaseUsage  = "release_usage"
	tableResponseTimes = "tenant_response_times"
	viewStanding       = "standing"
	viewLedger         = "ledger"
)

var everyTable = []string{
	tableEvents, tableBatches, tableFindings, tableIdentities, tableWork, tableMigrations, tableReleaseMade,
	tableReleaseDays, tableReleaseLate, tableReleaseUsage, tableResponseTimes, viewStanding, viewLedger,
}

// otherColumns gives the class of every column that is not a field of the
// event. A column of a table that has none fails the test over the tables.
var otherColumns = map[string]map[string]event.Class{
	tableEvents:  classed(event.Public, "id"),
	tableBatches: classed(event.Public, "seq bus_time collector_id collector_epoch first rows bytes mark schema import sources refused excluded"),
	tableFindings: merged(
		classed(event.Public, "id rule logic title class severity status lane cell_from cell_to window_from window_to fired fired_by first_seen last_seen count revision evidence continues import withdrawn approximate seq"),
		// key is seen entry by entry: each has the class of its field.
		classed(event.Tenant, "tenant key terms_expr terms_value how")),
	tableIdentities: merged(classed(event.Public, "key_id revision"), classed(event.Tenant, "tenant_id"), classed(event.Person, "user_hash sealed first_seen last_seen")),
	tableWork: merged(classed(event.Public, "kind seq time role hash previous"), classed(event.Tenant, "id"),
		classed(event.Person, "actor"), classed(event.Free, "reason data")),
	tableMigrations:   classed(event.Public, "number name checksum applied"),
	tableReleaseMade:  merged(classed(event.Public, "day zone released document"), classed(event.Tenant, "events no_tenant simulated")),
	tableReleaseDays:  classed(event.Public, "day zone released rows few_tenants dominated simulated"),
	tableReleaseLate:  classed(event.Public, "day late counted"),
	tableReleaseUsage: classed(event.Public, "day service version resource_type resource_name tier tenants users uses failures timed ms_100 ms_200 ms_500 ms_1000 ms_2000 ms_5000 ms_10000 ms_more"),
	tableResponseTimes: classed(event.Tenant,
		"tenant_id day window_name client openings timed above_2s ms_100 ms_200 ms_500 ms_1000 ms_2000 ms_5000 ms_10000 ms_more built"),
}

// ClassOf gives the privacy class of a table's column; false if there is no
// such column.
func ClassOf(table, column string) (event.Class, bool) {
	if c, ok := otherColumns[table][column]; ok {
		return c, true
	}
	if table == tableEvents {
		for i := range event.Fields {
			if f := &event.Fields[i]; f.Kept && f.Column == column {
				return f.Class, true
			}
		}
	}
	return "", false
}

// Roles lists the roles in a fixed order.
func Roles() []Role {
	list := make([]Role, len(rights))
	for i, r := range rights {
		list[i] = r.role
	}
	return list
}

// ParseRole reads a role's name; the error lists them.
func ParseRole(s string) (Role, error) {
	if _, ok := Role(s).right(); ok {
		return Role(s), nil
	}
	names := make([]string, len(rights))
	for i, r := range rights {
		names[i] = string(r.role)
	}
	return "", fmt.Errorf("%w: role %q: there are %s", ErrInvalid, s, strings.Join(names, ", "))
}

func (r Role) right() (right, bool) {
	for _, known := range rights {
		if known.role == r {
			return known, true
		}
	}
	return right{}, false
}

// MaySQL says whether the role may write statements of its own.
func (r Role) MaySQL() bool { known, _ := r.right(); return known.sql }

// MaySee says whether the role sees fields of the class.
func (r Role) MaySee(c event.Class) bool {
	known, _ := r.right()
	return slices.Contains(known.classes, c)
}

// MayRead says whether the role may read the table, or ask for "standing" or
// "ledger".
func (r Role) MayRead(table string) bool {
	known, _ := r.right()
	return slices.Contains(known.tables, table)
}

// seesAll says whether nothing at all is hidden from the role.
func (r Role) seesAll() bool {
	for _, table := range everyTable {
		if !r.MayRead(table) {
			return false
		}
		for _, column := range columnsOf(table) {
			if class, _ := ClassOf(table, column); !r.MaySee(class) {
				return false
			}
		}
	}
	return true
}

// read refuses a reader without a right to the table.
func (r Reader) read(table string) error {
	if r.Role.MayRead(table) {
		return nil
	}
	if _, ok := r.Role.right(); !ok {
		return &Refused{Role: r.Role, Object: table, Reason: "there is no such role"}
	}
	return &Refused{Role: r.Role, Object: table, Reason: "it is not among the tables of this role"}
}

// field refuses a filter by a field that the reader may not see: its answers
// would tell the value.
func (r Reader) field(table, column string) error {
	class, ok := ClassOf(table, column)
	if ok && r.Role.MaySee(class) {
		return nil
	}
	return &Refused{Role: r.Role, Object: table + "." + column, Class: class, Reason: "nor ask by it"}
}

// columnsOf lists a table's columns: the event's in order, then the others by
// name.
func columnsOf(table string) []string {
	var list []string
	if table == tableEvents {
		for i := range event.Fields {
			if event.Fields[i].Kept {
				list = append(list, event.Fields[i].Column)
			}
		}
	}
	rest := make([]string, 0, len(otherColumns[table]))
	for name := range otherColumns[table] {
		rest = append(rest, name)
	}
	slices.Sort(rest)
	return append(list, rest...)
}

func classed(c event.Class, columns string) map[string]event.Class {
	m := map[string]event.Class{}
	for _, name := range strings.Fields(columns) {
		m[name] = c
	}
	return m
}

func merged(maps ...map[string]event.Class) map[string]event.Class {
	all := map[string]event.Class{}
	for _, m := range maps {
		for k, v := range m {
			all[k] = v
		}
	}
	return all
}

func tablesPlus(list []string, more ...string) []string { return append(slices.Clone(list), more...) }

func without(list []string, table string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return s == table })
}

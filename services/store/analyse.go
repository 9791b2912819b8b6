package store

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// What a person's statement may be made of, as EXPLAIN AST names the nodes. All
// else is refused: SETTINGS ("Set"; in a subquery it would override readonly:
// tried), INTO OUTFILE and FORMAT (further children of the root), parameters,
// every statement that is not a SELECT.
var allowedNodes = map[string]bool{
	"SelectWithUnionQuery": true, "SelectIntersectExceptQuery": true, "SelectQuery": true, "Subquery": true, "ExpressionList": true,
	"Asterisk": true, "QualifiedAsterisk": true, "ColumnsRegexpMatcher": true, "ColumnsListMatcher": true,
	"QualifiedColumnsRegexpMatcher": true, "QualifiedColumnsListMatcher": true, "ColumnsTransformerList": true,
	"ColumnsExceptTransformer": true, "ColumnsReplaceTransformer": true, "ColumnsReplaceTransformer::Replacement": true,
	"Identifier": true, "TableIdentifier": true, "Literal": true, "Function": true,
	"TablesInSelectQuery": true, "TablesInSelectQueryElement": true, "TableExpression": true, "TableJoin": true, "ArrayJoin": true,
	"OrderByElement": true, "WithElement": true, "WindowDefinition": true, "WindowListElement": true, "InterpolateElement": true,
	"SampleRatio": true, "StorageOrderByElement": true, "NameTypePair": true, "DataType": true,
}

// tableFunctions are the sources beside tables that a statement may have.
var tableFunctions = map[string]bool{"numbers": true, "numbers_mt": true, "generateseries": true, "generate_series": true}

// Functions that reach what is not an argument of theirs: dictionaries, Join
// tables, files, other servers, the server's own affairs; or only burn time.
// By the beginning of their names, and whole.
var (
	deniedPrefixes = []string{
		"__", "addressto", "ai", "catboost", "demangle", "dict", "evalml", "executable", "filesystem", "getclienthttpheader", "getmacro",
		"getmergetreesetting", "getserversetting", "getsetting", "hascolumnintable", "joinget", "llm", "mergetree", "naivebayes", "partitionid",
		"regionhierarchy", "regionin", "regionto", "remote", "s3", "showcertificate", "sleep", "transaction", "zookeeper",
	}
	deniedFunctions = map[string]bool{
		"cluster": true, "currentprofiles": true, "currentroles": true, "currentuser": true, "defaultprofiles": true, "defaultroles": true,
		"enabledprofiles": true, "enabledroles": true, "file": true, "fqdn": true, "hostname": true, "serveruuid": true, "url": true, "user": true,
	}
)

func denied(function string) bool {
	name := strings.ToLower(function)
	return deniedFunctions[name] || slices.ContainsFunc(deniedPrefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}

// node is a line of EXPLAIN AST.
type node struct {
	depth      int
	kind, name string
	children   string
}

// parseNode reads " Function plus (alias x) (children 1)".
func parseNode(line string) node {
	rest := strings.TrimLeft(line, " ")
	n := node{depth: len(line) - len(rest)}
	if i := strings.LastIndex(rest, " (children "); i >= 0 {
		n.children = strings.TrimSuffix(rest[i+len(" (children "):], ")")
		rest = rest[:i]
	}
	n.kind, n.name, _ = strings.Cut(rest, " ")
	if n.kind != "Literal" {
		if i := strings.Index(n.name, " (alias "); i >= 0 {
			n.name = n.name[:i]
		}
	}
	return n
}

// checker decides over one statement of a person. Three looks, each at the
// very text that will run: at its letters, at the tree of its syntax (neither
// runs anything), and at the tree with names resolved, which may compute scalar
// subqueries and therefore comes last and in the role's catalogue.
type checker struct {
	role      Role
	catalogue string          // the database that the statement runs in
	databases map[string]bool // all there are
	with      bool            // the statement names subqueries with WITH
}

func (c *checker) refuse(object, reason string) error {
	return &Refused{Role: c.role, Object: object, Reason: reason}
}

// text looks at the letters: one statement, nothing that could be read in two
// ways, and no database before a dot. So no table outside the catalogue can be
// named at all, wherever in the statement.
func (c *checker) text(text string) error {
	last, empty := "", true
	err := lex(text, func(l lexeme) error {
		empty = false
		switch {
		case l.name == "" && l.char == ';':
			return c.refuse("several statements", "give one")
		case l.name == "" && l.char == '.' && c.databases[last] && last != c.catalogue:
			return c.refuse("database "+last, "write the names of tables without one")
		}
		last = l.name
		return nil
	})
	var two *ambiguity
	switch {
	case errors.As(err, &two):
		return c.refuse(two.what, two.advice)
	case err != nil:
		return fmt.Errorf("running SQL: %w", err)
	case empty:
		return fmt.Errorf("running SQL: %w: there is no statement", ErrInvalid)
	}
	return nil
}

// syntax refuses by the tree of the text alone, as EXPLAIN AST prints it.
func (c *checker) syntax(lines []string) error {
	nodes := make([]node, 0, len(lines))
	for _, line := range lines {
		if strings.TrimSpace(line) != "" {
			n := parseNode(line)
			c.with = c.with || n.kind == "WithElement"
			nodes = append(nodes, n)
		}
	}
	if len(nodes) == 0 || (nodes[0].kind != "SelectWithUnionQuery" && nodes[0].kind != "SelectIntersectExceptQuery") {
		kind := "nothing"
		if len(nodes) > 0 {
			kind = nodes[0].kind
		}
		return c.refuse(kind, "only a SELECT may be run, over "+strings.Join(tablesFor(c.role), ", "))
	}
	if nodes[0].children != "1" && nodes[0].kind == "SelectWithUnionQuery" {
		return c.refuse("FORMAT, SETTINGS or INTO OUTFILE", "they are set for the statement")
	}
	parents := make([]string, 0, 16)
	for _, n := range nodes {
		if n.kind == "Set" {
			return c.refuse("SETTINGS", "they are set for the statement")
		}
		if !allowedNodes[n.kind] {
			return c.refuse(n.kind, "this part of SQL is not offered")
		}
		for len(parents) <= n.depth {
			parents = append(parents, "")
		}
		parents[n.depth] = n.kind
		parent := ""
		if n.depth > 0 {
			parent = parents[n.depth-1]
		}
		if err := c.node(n, parent); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) node(n node, parent string) error {
	switch n.kind {
	case "Function":
		if parent == "TableExpression" {
			return c.source(n.name)
		}
		if denied(n.name) {
			return c.refuse("function "+n.name, "it reaches beyond the tables")
		}
	case "TableIdentifier":
		return c.table(n.name)
	case "Identifier":
		return c.identifier(n.name)
	}
	return nil
}

func (c *checker) source(function string) error {
	if tableFunctions[strings.ToLower(function)] {
		return nil
	}
	return c.refuse("table function "+function, "only numbers and generateSeries are offered")
}

// table decides over what stands after FROM and JOIN. A name of WITH may hide
// behind any word, and is not shown by EXPLAIN AST; what is neither that nor in
// the catalogue does not exist for ClickHouse either.
func (c *checker) table(name string) error {
	if database, table, qualified := strings.Cut(name, "."); qualified {
		if database != c.catalogue {
			return c.refuse(name, "write the table's name without a database")
		}
		name = table
	}
	switch {
	case len(columnsOf(name)) > 0 && c.role.MayRead(name):
		return nil
	case len(columnsOf(name)) > 0:
		return c.refuse(name, "it is not among the tables of this role")
	case c.with:
		return nil
	}
	return fmt.Errorf("running SQL: there is no table %.64q: %w; there are %s", name, ErrNotFound, strings.Join(tablesFor(c.role), ", "))
}

// tablesFor lists the tables a role may ask.
func tablesFor(role Role) []string {
	var list []string
	for _, t := range everyTable {
		if role.MayRead(t) && len(columnsOf(t)) > 0 {
			list = append(list, t)
		}
	}
	return list
}

// identifier refuses what names a hidden table or column. Neither exists in the
// role's catalogue; this only says so better than ClickHouse would.
func (c *checker) identifier(name string) error {
	first, _, qualified := strings.Cut(name, ".")
	if qualified && c.databases[first] && first != c.catalogue {
		return c.refuse(name, "write the names of tables without a database")
	}
	column := name[strings.LastIndexByte(name, '.')+1:]
	if hasColumn(c.role, column) {
		return nil
	}
	if !qualified && len(columnsOf(name)) > 0 && !c.role.MayRead(name) {
		return c.refuse(name, "it is not among the tables of this role")
	}
	for _, table := range tablesFor(c.role) {
		if class, ok := ClassOf(table, column); ok {
			return &Refused{Role: c.role, Object: table + "." + column, Class: class, Reason: "ask somebody whose role does"}
		}
	}
	return nil
}

// hasColumn says whether any table shows the role a column of this name.
func hasColumn(role Role, column string) bool {
	for _, table := range tablesFor(role) {
		if class, ok := ClassOf(table, column); ok && role.MaySee(class) {
			return true
		}
	}
	return false
}

// tree reads the resolved tree, as EXPLAIN QUERY TREE prints it: which tables
// and columns the statement reads. A line that a name forged can only add.
func (c *checker) tree(lines []string) (tables, fields []string, err error) {
	names := map[string][]string{} // by node id
	var columns [][2]string
	for _, line := range lines {
		kind, rest, ok := strings.Cut(strings.TrimSpace(line), " id: ")
		if !ok {
			continue
		}
		id, rest, _ := strings.Cut(rest, ", ")
		switch kind {
		case "TABLE":
			name, _, _ := strings.Cut(lastAfter(rest, "table_name: "), ", ")
			database, table, _ := strings.Cut(name, ".")
			switch {
			case name == "system.one": // a SELECT without FROM
			case database == c.catalogue && c.role.MayRead(table):
				names[id] = append(names[id], table)
				tables = append(tables, table)
			default:
				return nil, nil, c.refuse(name, "it is not among the tables of this role")
			}
		case "TABLE_FUNCTION":
			name, _, _ := strings.Cut(lastAfter(rest, "table_function_name: "), ", ")
			if err := c.source(name); err != nil {
				return nil, nil, err
			}
		case "COLUMN":
			name, _, _ := strings.Cut(strings.TrimPrefix(rest, "column_name: "), ", result_type: ")
			columns = append(columns, [2]string{lastAfter(rest, "source_id: "), name})
		}
	}
	for _, column := range columns {
		for _, table := range names[column[0]] {
			fields = append(fields, table+"."+column[1])
		}
	}
	slices.Sort(tables)
	slices.Sort(fields)
	return slices.Compact(tables), slices.Compact(fields), nil
}

// lastAfter returns what stands after the last occurrence of a mark.
func lastAfter(s, mark string) string {
	i := strings.LastIndex(s, mark)
	if i < 0 {
		return ""
	}
	return s[i+len(mark):]
}

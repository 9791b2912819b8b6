package store

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/opencoc/coc/schemas"
	"github.com/opencoc/coc/services/event"
)

var update = flag.Bool("update", false, "write schemas/event.schema.json from event.Fields")

// object is a JSON object whose members keep their order.
type object []member

type member struct {
	name  string
	value any
}

func (o object) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for i, m := range o {
		if i > 0 {
			b = append(b, ',')
		}
		name, err := json.Marshal(m.name)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(m.value)
		if err != nil {
			return nil, err
		}
		b = append(append(append(b, name...), ':'), value...)
	}
	return append(b, '}'), nil
}

// eventSchema is the JSON schema that event.Fields asks for.
func eventSchema(t *testing.T) []byte {
	t.Helper()
	var properties object
	var groups []string
	inGroup := map[string]object{}
	var required []string
	for i := range event.Fields {
		f := &event.Fields[i]
		properties = append(properties, member{f.Name, fieldSchema(f)})
		if group, name, ok := strings.Cut(f.Name, "."); ok {
			if !slices.Contains(groups, group) {
				groups = append(groups, group)
			}
			inGroup[group] = append(inGroup[group], member{name, object{{"$ref", "#/properties/" + f.Name}}})
		}
		if f.Required && !f.Internal {
			required = append(required, f.Name)
		}
	}
	for _, g := range groups {
		properties = append(properties, member{g, object{
			{"description", "The fields " + g + ".…, written as an object."},
			{"type", "object"}, {"additionalProperties", false}, {"properties", inGroup[g]},
		}})
	}
	schema := object{
		{"$schema", "https://json-schema.org/draft/2020-12/schema"},
		{"$id", "https://opencoc.github.io/coc/schemas/event.schema.json"},
		{"title", "An event"},
		{"description", "One thing that happened. Names follow the Elastic Common Schema and may be written dotted or nested. " +
			"x-class is the privacy class of a field (public, tenant, person, free), x-max-bytes the longest text; of a text with x-cut the rest is cut and marked, others are refused. " +
			"Fields that are readOnly are set by coc; a producer that sends one is refused. A field with x-kept false travels on the bus and is kept in no table. " +
			"Made from services/event/fields.go: go test ./services/store -run Agree -update."},
		{"x-version", event.SchemaVersion},
		{"type", "object"}, {"required", required}, {"additionalProperties", false},
		{"properties", properties},
		{"patternProperties", object{{`^labels\.`, object{{"type", []string{"string", "null"}}, {"x-class", event.Fields[event.FLabels].Class}}}}},
	}
	raw, err := json.Marshal(schema)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := json.Indent(&out, raw, "", "  "); err != nil {
		t.Fatal(err)
	}
	return append(out.Bytes(), '\n')
}

// words are the fields with a fixed vocabulary, as Event.Validate has it.
var words = map[string][]string{"kind": {"system", "process", "user"}, "outcome": {"success", "failure", "unknown", ""}}

func fieldSchema(f *event.Field) object {
	o := object{{"description", f.Doc}}
	kinds := func(names ...string) member {
		if !f.Required {
			names = append(names, "null")
		}
		return member{"type", names}
	}
	switch f.Type {
	case event.Time:
		o = append(o, kinds("string", "integer"), member{"format", "date-time"},
			member{"minimum", int64(event.MinTime)}, member{"exclusiveMaximum", int64(event.MaxTime)})
	case event.Int:
		o = append(o, kinds("integer"))
	case event.Float:
		o = append(o, kinds("number"))
	case event.Map:
		o = append(o, kinds("object"), member{"maxProperties", event.LimitLabels},
			member{"propertyNames", object{{"maxLength", event.LimitLabelKey}}},
			member{"additionalProperties", object{{"type", "string"}}})
	default:
		o = append(o, kinds("string"))
		if list := words[f.Name]; list != nil {
			o = append(o, member{"enum", list})
			if !f.Required {
				o[len(o)-1].value = append(slices.Clone(anyOf(list)), nil)
			}
			break
		}
		if f.Class != event.Free {
			o = append(o, member{"maxLength", f.Limit})
		}
	}
	if f.Limit > 0 {
		o = append(o, member{"x-max-bytes", f.Limit})
	}
	if f.Class == event.Free {
		o = append(o, member{"x-cut", true})
	}
	o = append(o, member{"x-class", f.Class})
	if f.Internal {
		o = append(o, member{"readOnly", true})
	}
	if !f.Kept {
		o = append(o, member{"x-kept", false})
	}
	return o
}

func anyOf(list []string) []any {
	out := make([]any, len(list))
	for i, s := range list {
		out[i] = s
	}
	return out
}

func TestTheFourFormsOfTheEventAgree(t *testing.T) {
	t.Run("JSON schema", func(t *testing.T) {
		want := eventSchema(t)
		if *update {
			if err := os.WriteFile("../../schemas/event.schema.json", want, 0o644); err != nil {
				t.Fatal(err)
			}
			return
		}
		got, err := schemas.Files.ReadFile("event.schema.json")
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Error("schemas/event.schema.json is not what services/event/fields.go says: go test ./services/store -run Agree -update")
		}
	})
	t.Run("Go type", func(t *testing.T) { goTypeAgrees(t) })
	t.Run("Arrow schema", func(t *testing.T) { arrowAgrees(t) })
	t.Run("tables", func(t *testing.T) { tablesAgree(t) })
}

// goTypeAgrees finds every field in the struct, each at a place of its own, and
// nothing else there.
func goTypeAgrees(t *testing.T) {
	var e event.Event
	places := map[any]string{}
	for i := range event.Fields {
		f := &event.Fields[i]
		if f.Class != event.Public && f.Class != event.Tenant && f.Class != event.Person && f.Class != event.Free {
			t.Errorf("%s has no privacy class, but %q", f.Name, f.Class)
		}
		var place any
		switch f.Type {
		case event.Dict, event.Text:
			if p := e.Text(i); p != nil {
				place = p
			}
		case event.Time, event.Int:
			p, has := e.Int(i)
			if place = p; p == nil {
				place = nil
			}
			if (has == 0) != f.Required {
				t.Errorf("%s: required is %v, its presence bit %d", f.Name, f.Required, has)
			}
		case event.Float:
			p, has := e.Float(i)
			if place = p; p == nil || has == 0 {
				place = nil
			}
		case event.Map:
			place = &e.Labels
		}
		if place == nil {
			t.Errorf("%s is not in the Go type as a %v", f.Name, f.Type)
		} else if places[place] != "" {
			t.Errorf("%s and %s are the same variable", f.Name, places[place])
		}
		places[place] = f.Name
	}
	// Every variable but Has is a field.
	if n := reflect.TypeOf(e).NumField() - 1; n != len(event.Fields) {
		t.Errorf("the Go type has %d variables besides Has, the table %d fields", n, len(event.Fields))
	}
}

func arrowAgrees(t *testing.T) {
	if n := event.Schema.NumFields(); n != len(event.Fields) {
		t.Fatalf("the Arrow schema has %d fields, the table %d", n, len(event.Fields))
	}
	for i, a := range event.Schema.Fields() {
		f := &event.Fields[i]
		want := map[event.Type]arrow.Type{
			event.Dict: arrow.DICTIONARY, event.Text: arrow.STRING, event.Time: arrow.TIMESTAMP,
			event.Int: arrow.INT64, event.Float: arrow.FLOAT64, event.Map: arrow.MAP,
		}[f.Type]
		nullable := (f.Type == event.Int || f.Type == event.Float) && !f.Required
		if a.Name != f.Column || a.Type.ID() != want || a.Nullable != nullable {
			t.Errorf("Arrow field %d is %s %s nullable=%v, the table says %s %s nullable=%v", i, a.Name, a.Type, a.Nullable, f.Column, want, nullable)
		}
	}
}

// tablesAgree compares the table events with the kept fields, and every other
// table's columns with their classes.
func tablesAgree(t *testing.T) {
	type column struct{ table, name, kind, how string }
	var columns []column
	rows, err := house.conn.Query(t.Context(), "SELECT table, name, type, default_kind FROM system.columns WHERE database = 'coc' ORDER BY table, position")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var c column
		if err := rows.Scan(&c.table, &c.name, &c.kind, &c.how); err != nil {
			t.Fatal(err)
		}
		columns = append(columns, c)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	var stored []string
	for _, c := range columns {
		class, ok := ClassOf(c.table, c.name)
		if !ok {
			t.Errorf("column %s.%s has no privacy class: give it one in roles.go", c.table, c.name)
		}
		if c.table != tableEvents || c.how == "ALIAS" {
			continue
		}
		stored = append(stored, c.name)
		i := slices.IndexFunc(event.Fields[:], func(f event.Field) bool { return f.Column == c.name })
		if i < 0 {
			t.Errorf("events.%s is no field of the event", c.name)
			continue
		}
		f := &event.Fields[i]
		if class != f.Class {
			t.Errorf("events.%s is of class %s, the field of class %s", c.name, class, f.Class)
		}
		if want := tableType(f); c.kind != want {
			t.Errorf("events.%s is %s, the field asks for %s", c.name, c.kind, want)
		}
	}
	var kept []string
	for i := range event.Fields {
		if event.Fields[i].Kept {
			kept = append(kept, event.Fields[i].Column)
		}
	}
	if !slices.Equal(stored, kept) {
		t.Errorf("events has the columns\n%v\nthe kept fields are\n%v", stored, kept)
	}
	for table := range otherColumns {
		for _, name := range columnsOf(table) {
			if !slices.ContainsFunc(columns, func(c column) bool { return c.table == table && c.name == name }) {
				t.Errorf("roles.go gives a class to %s.%s, which does not exist", table, name)
			}
		}
	}
}

func tableType(f *event.Field) string {
	switch f.Type {
	case event.Dict:
		return "LowCardinality(String)"
	case event.Text:
		return "String"
	case event.Time:
		return "DateTime64(3, 'UTC')"
	case event.Map:
		return "Map(LowCardinality(String), String)"
	}
	name := map[event.Type]string{event.Int: "Int64", event.Float: "Float64"}[f.Type]
	if !f.Required {
		name = "Nullable(" + name + ")"
	}
	return name
}

func compile(t *testing.T, name string) *jsonschema.Schema {
	t.Helper()
	data, err := schemas.Files.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource(name, doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func valid(t *testing.T, s *jsonschema.Schema, text string) error {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return s.Validate(doc)
}

func TestTheEventSchemaTakesWhatTheDecoderTakes(t *testing.T) {
	s := compile(t, "event.schema.json")
	for text, want := range map[string]bool{
		string(event.AppendJSON(nil, full())):                                                          true,
		`{"time":"2026-03-10T09:00:00Z","kind":"user","action":"login"}`:                               true,
		`{"time":1773133200000,"kind":"user","action":"login","user":{"name":"a"},"labels":{"k":"v"}}`: true,
		`{"time":1773133200000,"kind":"user","action":"login","labels.k":"v","duration":null}`:         true,
		`{"time":1773133200000,"kind":"people","action":"login"}`:                                      false,
		`{"time":1773133200000,"kind":"user","action":"login","outcome":"ok"}`:                         false,
		`{"time":null,"kind":"user","action":"login"}`:                                                 false,
		`{"kind":"user","action":"login"}`:                                                             false,
		`{"time":1773133200000,"kind":"user","action":"login","user":{"nam":"a"}}`:                     false,
		`{"time":1773133200000,"kind":"user","action":"login","pid":1}`:                                false,
		`{"time":1773133200000,"kind":"user","action":"login","labels":{"k":1}}`:                       false,
		`{"time":-1,"kind":"user","action":"login"}`:                                                   false,
		`{"time":1773133200000,"kind":"user","action":7}`:                                              false,
	} {
		d := event.NewJSONDecoder()
		d.Internal = true
		var e event.Event
		decoded := d.Decode([]byte(text), &e)
		if decoded == nil {
			decoded = e.Validate(event.Bounds{})
		}
		if err := valid(t, s, text); (err == nil) != want || (decoded == nil) != want {
			t.Errorf("%s: the schema says %v, the decoder %v", text, err, decoded)
		}
	}
}

// full is an event with every field set to a value of its own.
func full() *event.Event {
	var e event.Event
	for i := range event.Fields {
		f := &event.Fields[i]
		if p := e.Text(i); p != nil {
			*p = f.Name
		}
		if p, has := e.Int(i); p != nil {
			*p = day0.UnixMilli() + int64(i)
			e.Has |= has
		}
		if p, has := e.Float(i); p != nil {
			*p = float64(i) + 0.5
			e.Has |= has
		}
	}
	e.Kind, e.Outcome, e.SourceIP = "user", "success", "192.0.2.1"
	e.SetLabel("colour", "blue")
	return &e
}

func TestTheFindingSchemaIsTheGoType(t *testing.T) {
	s := compile(t, "finding.schema.json")
	f := sampleFinding("0123456789abcdef0123456789abcdef")
	f.Continues, f.Import, f.Withdrawn, f.Approximate = f.ID, "imp", true, true
	raw, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := valid(t, s, string(raw)); err != nil {
		t.Error(err)
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil {
		t.Fatal(err)
	}
	data, err := schemas.Files.ReadFile("finding.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var schema struct {
		Required   []string
		Properties map[string]struct {
			Class string `json:"x-class"`
		}
	}
	if err := json.Unmarshal(data, &schema); err != nil {
		t.Fatal(err)
	}
	for name := range schema.Properties {
		if _, ok := members[name]; !ok {
			t.Errorf("the schema has %s, the Go type has not", name)
		}
	}
	for i := range reflect.TypeFor[event.Finding]().NumField() {
		name, options, _ := strings.Cut(reflect.TypeFor[event.Finding]().Field(i).Tag.Get("json"), ",")
		p, ok := schema.Properties[name]
		if !ok {
			t.Errorf("the Go type has %s, the schema has not", name)
		}
		if optional := options == "omitempty"; optional == slices.Contains(schema.Required, name) {
			t.Errorf("%s: is it required? The schema and the Go type disagree", name)
		}
		for _, column := range columnsOf(tableFindings) {
			if column == name || strings.HasPrefix(column, name+"_") {
				if class, _ := ClassOf(tableFindings, column); string(class) != p.Class {
					t.Errorf("findings.%s is of class %s, in the schema %s is of class %q", column, class, name, p.Class)
				}
			}
		}
	}
}

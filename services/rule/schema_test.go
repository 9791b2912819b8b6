package rule

import (
	"encoding/json"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

const schemaFile = "../../schemas/rule.schema.json"

func schema(t *testing.T) (*jsonschema.Schema, map[string]any) {
	t.Helper()
	data, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("rule.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("rule.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s, doc.(map[string]any)
}

func valid(t *testing.T, s *jsonschema.Schema, content string) error {
	t.Helper()
	var v any
	if err := yaml.Unmarshal([]byte(content), &v); err != nil {
		return err
	}
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	return s.Validate(doc)
}

func at(doc map[string]any, path ...string) map[string]any {
	for _, p := range path {
		doc, _ = doc[p].(map[string]any)
	}
	return doc
}

func texts(v any) (out []string) {
	for _, s := range v.([]any) {
		out = append(out, s.(string))
	}
	return out
}

func TestTheSchemaKnowsWhatTheLoaderKnows(t *testing.T) {
	_, doc := schema(t)
	same := func(what string, got, want []string) {
		t.Helper()
		got, want = slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))
		if !slices.Equal(got, want) {
			t.Errorf("%s: the schema says %v, the loader %v", what, got, want)
		}
	}
	props := at(doc, "properties")
	same("keys", slices.Collect(maps.Keys(props)), ruleKeys)
	same("class", texts(at(props, "class")["enum"]), classes)
	same("severity", texts(at(props, "severity")["enum"]), severities)
	same("status", texts(at(props, "status")["enum"]), statuses)
	test := at(props, "tests", "items", "properties")
	same("a test", slices.Collect(maps.Keys(test)), []string{"name", "start", "with", "events", "expect"})
	with := slices.Collect(maps.Keys(at(test, "with", "properties")))
	fields := slices.DeleteFunc(FieldNames(), func(f string) bool { return f == "time" })
	same("with", with, append(fields, "labels"))
	same("an event", slices.Collect(maps.Keys(at(test, "events", "items", "properties"))), append(with, "at", "every", "repeat"))
	same("expect", slices.Collect(maps.Keys(at(test, "expect", "properties"))), []string{"findings", "key", "count", "fired", "severity"})
	group := at(props, "group_by", "items")["anyOf"].([]any)[0].(map[string]any)
	for _, f := range texts(group["enum"]) {
		if _, err := tryLoad(t, map[string]string{"r.yaml": head + "match: true\ngroup_by: [" + f + "]\n"}); err != nil {
			t.Errorf("the schema offers group_by %s, the loader refuses it: %v", f, err)
		}
	}
}

func TestSchemaAndLoaderRefuseTheSame(t *testing.T) {
	s, _ := schema(t)
	ok := head + "match: kind == \"user\"\n"
	for _, content := range []string{
		ok, guessing, head + "match: true\n", ok + "status: shadow\ntags: [a, b]\nowner: me\n", ok + "group_by: [tenant.id, labels.x]\nsuppress: 1d12h\n",
		strings.Replace(ok, "title: t", "title: {en: a, nl: b}", 1), ok + "window: 400d\ncondition: count > 1\n",
	} {
		_, err := tryLoad(t, map[string]string{"r.yaml": content})
		if serr := valid(t, s, content); err != nil || serr != nil {
			t.Errorf("%s\nloader: %v\nschema: %v", content, err, serr)
		}
	}
	for _, content := range []string{
		"id: r\n", ok + "colour: red\n", strings.Replace(ok, "abuse", "abus", 1), strings.Replace(ok, "id: r", "id: R", 1), ok + "window: 10m\n", ok + "condition: count > 1\n",
		ok + "group_by: [tenant]\n", ok + "group_by: [message]\n", ok + "group_by: x\n", ok + "window: ten\ncondition: count > 1\n", strings.Replace(ok, "title: t", "title: {nl: b}", 1),
		ok + "tests: [{name: x, events: [], expect: {}}]\n", ok + "tests: [{name: x, events: [{knd: a}], expect: {findings: 0}}]\n", ok + "tests: [{events: [], expect: {findings: 0}}]\n", ok + "severity: low\n",
	} {
		_, err := tryLoad(t, map[string]string{"r.yaml": content})
		if serr := valid(t, s, content); err == nil || serr == nil {
			t.Errorf("%s\nloader: %v\nschema: %v", content, err, serr)
		}
	}
}

func TestShippedRulesFollowTheSchema(t *testing.T) {
	s, _ := schema(t)
	n := 0
	err := filepath.WalkDir("../../rules", func(path string, e fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".yaml" || filepath.Base(filepath.Dir(path)) == "rules" || filepath.Base(filepath.Dir(path)) == "lists" {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		n++
		if err := valid(t, s, string(data)); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n == 0 {
		t.Error("no rules were looked at")
	}
}

package rule

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

// head is a whole rule but for match; a test appends what it is about.
const head = "id: r\ntitle: t\nclass: abuse\nseverity: low\n"

func TestErrorsNameTheirPlace(t *testing.T) {
	f := func(name, content string, want ...string) {
		t.Helper()
		_, err := tryLoad(t, map[string]string{name: content})
		if err == nil {
			t.Errorf("loaded:\n%s", content)
			return
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("the error\n%v\ndoes not say %q", err, w)
			}
		}
	}
	// Expressions, in each of YAML's ways to write a text.
	f("a/r.yaml", head+"match: kind == \"user\" && acton == \"x\"\n", "a/r.yaml:5:26: there is no field \"acton\"; did you mean action?", "  | match: kind == \"user\" && acton", "  |                          ^")
	f("r.yaml", head+"match: 'user.nmae == \"root\"'\n", "r.yaml:5:9:", "did you mean user.name?")
	f("r.yaml", head+"match: |\n  kind == \"user\"\n    && acton == \"x\"\n", "r.yaml:7:8:", "did you mean action?")
	f("r.yaml", head+"match: >-\n  kind == \"user\"\n\n  && acton == \"x\"\n", "r.yaml:8:6:", "did you mean action?")
	f("r.yaml", head+"match: kind == \"user\" &&\n  acton == \"x\"\n", "r.yaml:6:3:", "did you mean action?")
	f("r.yaml", head+"match: kind == 5\n", "r.yaml:5:13:", "mismatched types")
	f("r.yaml", head+"match: kind\n", "r.yaml:5:8:", "must be true or false")
	f("r.yaml", head+"match: kind == \"user\" &&\n", "r.yaml:5:24:", "unexpected token")
	f("r.yaml", head+"match: user == \"x\"\n", "user is a group of fields", "user.name")
	f("r.yaml", head+"match: user_name == \"x\"\n", "did you mean user.name?")
	f("r.yaml", head+"match: contans(message, \"x\")\n", "there is no function \"contans\"")
	f("r.yaml", head+"match: in_lst(source.ip, \"x\")\n", "did you mean in_list?")
	f("r.yaml", head+"match: in_list(source.ip, \"x\")\n", "r.yaml:5:27: there is no list \"x\"", "lists/x.txt")
	f("r.yaml", head+"match: count > 3\n", "there is no field \"count\"")
	f("r.yaml", head+"match: sum(bytes) > 3\n", "belongs into condition")
	f("r.yaml", head+"match: now() > 3\n", "no clock but the event's")
	f("r.yaml", head+"match: date(\"2026-01-01\") == 1\n", "no clock but the event's")
	f("r.yaml", head+"match: any([1,2], true)\n", "rules have no loops")
	f("r.yaml", head+"match: all(1..1000000, true)\n", "rules have no loops")
	f("r.yaml", head+"match: bytes in 1..100000000\n", "ranges are not known")
	f("r.yaml", head+"match: message + message == \"x\"\n", "texts cannot be joined")
	f("r.yaml", head+"match: message matches action\n", "must be a constant text")
	f("r.yaml", head+"match: message matches \"(\"\n", "not a regular expression")
	f("r.yaml", head+"match: message matches \"(a?){1000}(b{1,900}c?)\"\n", "the pattern has", "at most 2000")
	f("r.yaml", head+"match: let x = 1; x == 1\n", "r.yaml:5:")
	f("r.yaml", head+"match: user?.name == \"x\"\n", "r.yaml:5:")
	f("r.yaml", head+"match: kind == nil\n", "there is no nil")
	f("r.yaml", head+"match: local(time).hours > 3\n", "did you mean hour?")
	f("r.yaml", head+"match: cidr(source.ip, \"10.0.0.0/99\")\n", "is not a network")
	f("r.yaml", head+"match: allowance(\"x\", tenant.tier) > 1\n", "there is no allowance \"x\"")
	f("r.yaml", head+"match: has(kind)\n", "has(…) is about")
	f("r.yaml", head+"match: collector.seq > 3\n", "it says nothing about what happened")
	f("r.yaml", head+"match: __env == 1\n", "there is no field")
	f("r.yaml", head+"match: $env.kind == \"x\"\n", "r.yaml:5:")
	f("r.yaml", head+"match: {a: 1}.a == 1\n", "r.yaml:5:")
	f("r.yaml", head+"match: kind == \"x\" | len()\n", "r.yaml:5:")
	f("r.yaml", head+"match: "+strings.Repeat("(", 500)+"true"+strings.Repeat(")", 500)+"\n", "nested deeper")
	f("r.yaml", head+"match: "+strings.Repeat("!", 500)+"true\n", "r.yaml:5:")
	f("r.yaml", head+"match: "+strings.Repeat("not ", 500)+"true\n", "nested deeper")
	f("r.yaml", head+"match: kind == \"x\""+strings.Repeat(" or kind == \"x\"", 300)+"\n", "at most 4096")

	cond := head + "match: kind == \"user\"\nwindow: 10m\ncondition: "
	f("r.yaml", cond+"count\n", "must be true or false")
	f("r.yaml", cond+"cuont > 3\n", "did you mean count?")
	f("r.yaml", cond+"sum(kind) > 3\n", "sum(…) cannot measure kind")
	f("r.yaml", cond+"distinct(bytes) > 3\n", "bytes is a number")
	f("r.yaml", cond+"sum(byts) > 3\n", "did you mean bytes?")
	f("r.yaml", cond+"sum(bytes + 1) > 3\n", "measures a field, not an expression")
	f("r.yaml", cond+"count(kind == \"x\") > 3\n", "count has no arguments")
	f("r.yaml", cond+"share(kind) > 0.5\n", "must be true or false")
	f("r.yaml", cond+"count > 3 && user.name == \"x\"\n", "windows keep no names")
	f("r.yaml", cond+"count > 3 && message contains \"x\"\n", "windows keep no free text")
	f("r.yaml", cond+"count > 3 && labels[\"x\"] == \"y\"\n", "windows keep no free text")
	f("r.yaml", cond+"share(count > 3) > 1\n", "r.yaml:7:18:")

	// Keys and values.
	f("r.yaml", head+"match: kind == \"x\"\ncondtion: count > 3\n", "r.yaml:6:1: a rule has no key \"condtion\"; did you mean condition?")
	f("r.yaml", head+"match: kind == \"x\"\nwindow: 10m\n", "a window needs a condition")
	f("r.yaml", head+"match: kind == \"x\"\ncondition: count > 1\n", "a condition needs a window")
	f("r.yaml", head+"match: kind == \"x\"\nwindow: 10 minutes\ncondition: count > 1\n", "r.yaml:6:9: window must be a length of time", "10m")
	f("r.yaml", head+"match: kind == \"x\"\nwindow: 401d\ncondition: count > 1\n", "from 1s to 400d")
	f("r.yaml", head+"match: kind == \"x\"\nsuppress: 1s\n", "suppress must be from 1m to 400d")
	f("r.yaml", head+"match: kind == \"x\"\ngroup_by: [tenant]\n", "there is no field \"tenant\"")
	f("r.yaml", head+"match: kind == \"x\"\ngroup_by: [user.name, user.hash]\n", "stands in group_by twice")
	f("r.yaml", head+"match: kind == \"x\"\ngroup_by: [bytes]\n", "is a number and makes no key")
	f("r.yaml", head+"match: kind == \"x\"\ngroup_by: tenant.id\n", "group_by must be a list")
	f("r.yaml", "id: R!\ntitle: t\nclass: abuse\nseverity: low\nmatch: true\n", "\"R!\" is no rule id")
	f("r.yaml", "id: r\ntitle: t\nclass: abus\nseverity: low\nmatch: true\n", "r.yaml:3:8: class cannot be \"abus\"; did you mean abuse?")
	f("r.yaml", "id: r\n", "the rule has no title", "the rule has no class", "the rule has no severity", "the rule has no match", "4 errors")
	f("r.yaml", head+"match: true\ntitle: again\n", "already defined")
	f("r.yaml", "id: r\ntitle: {nl: x}\nclass: abuse\nseverity: low\nmatch: true\n", "no text in English")
	f("r.yaml", head+"match: true\ntests:\n  - name: x\n    with: {knd: user}\n    events: [{}]\n    expect: {finding: 1}\n", "did you mean kind?", "did you mean findings?", "does not say how many")
	f("r.yaml", "", "the file is empty")
	f("r.yaml", "# nothing\n", "the file is empty")
	f("r.yaml", "- a\n", "a rule must be keys with values")
	f("r.yaml", "id: [\n", "r.yaml:1:")
	f("r.yaml", "id: &a r\ntitle: *a\n", "anchors and aliases are not read")
	f("r.yaml", "id: r\n---\nid: s\n", "2 documents")
	f("r.yaml", "id: \xff\n", "not text in UTF-8")
	f("r.yaml", "id: a\x00b\n", "not text in UTF-8")
	f("r.yaml", strings.Repeat("[", 100_000), "nested deeper")
	f("r.yaml", "a: "+strings.Repeat("- ", 10_000), "r.yaml:1:")
	f("r.yaml", strings.Repeat("x: 1\n", 300_000), "at most")
	f("exceptions.yaml", "- {rule: nobody, when: 'kind == \"x\"', reason: r, owner: o, expires: 2027-01-31}\n", "exceptions.yaml:1:10: there is no rule \"nobody\"")
	f("exceptions.yaml", "- {when: 'knd == \"x\"'}\n", "the exception has no rule", "did you mean kind?")
	f("exceptions.yaml", "- {rule: r, when: true, reason: r, owner: o, expires: tomorrow}\n", "expires is not a date")
	f("allowances.yaml", "a: {unit: x, meter: {acton: y, aggregate: count, window: 1d}, default: 1}\n", "did you mean action?")
	f("allowances.yaml", "a: {unit: x, meter: {action: y, aggregate: sum(kind), window: 1d}, default: 1}\n", "the aggregate \"sum(kind)\" is not known")
	f("allowances.yaml", "a: {unit: x}\n", "has no meter", "has no default")
	f("lists/l.yaml", "type: cidr\nentries: [10.0.0.0/8, ten]\n", "\"ten\" is not a network")
	f("lists/l.yaml", "type: text\n", "the list has no entries")
}

func TestAllErrorsOfAllFilesComeAtOnce(t *testing.T) {
	_, err := tryLoad(t, map[string]string{
		"a.yaml":          head + "match: knd == \"x\"\ncolour: red\n",
		"b.yaml":          strings.Replace(head, "id: r", "id: r", 1) + "match: kind == \"x\"\nwindow: soon\n",
		"allowances.yaml": "a: {unit: x}\n",
		"lists/n.yaml":    "type: cidr\nentries: [ten]\n",
	})
	var list Errors
	if !errors.As(err, &list) || len(list) != 8 {
		t.Fatalf("%d errors, want 8:\n%v", len(list), err)
	}
	if !strings.HasSuffix(err.Error(), "8 errors: the set was not loaded") {
		t.Errorf("%v", err)
	}
}

// A chain as long as it may be loads at once, with || and && in turn.
func TestLongChainsLoadQuickly(t *testing.T) {
	for _, part := range []string{` or kind == "x"`, ` or bytes > 1 and kind == "y"`, ` or (bytes > 1 or len(message) > 2)`, ` and not (kind == "y" or bytes == 2)`} {
		text := `kind == "a"`
		for len(text)+len(part) < limitExpression && strings.Count(text, "not ") < limitDepth {
			if next := text + part; strings.Count(next, "==")+strings.Count(next, ">") > 110 {
				break
			}
			text += part
		}
		began := time.Now()
		if _, err := tryLoad(t, map[string]string{"r.yaml": head + "match: '" + text + "'\n"}); err != nil {
			t.Errorf("%s: %v", part, err)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("%s: loading took %v", part, took)
		}
	}
}

func TestAFolderThatIsNone(t *testing.T) {
	for _, dir := range []string{"/nowhere", "load_test.go"} {
		if _, err := LoadDir(dir, Options{}); err == nil || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v", dir, err)
		}
	}
	odd := t.TempDir()
	if err := os.Symlink("/dev/zero", filepath.Join(odd, "r.yaml")); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadDir(odd, Options{}); err == nil || !strings.Contains(err.Error(), "r.yaml is no file") {
		t.Errorf("a device: %v", err)
	}
	if _, err := Load(fstest.MapFS{"README.md": {Data: []byte("x")}}, Options{}); err == nil || !strings.Contains(err.Error(), "no rules") {
		t.Errorf("an empty folder: %v", err)
	}
	if _, err := Load(fstest.MapFS{"r.yaml": {Data: []byte(head + "match: true\n")}}, Options{Zone: time.FixedZone("X", 60)}); err == nil {
		t.Error("a zone without a name was taken: the packed set could not be read")
	}
}

func TestAPackedSetIsTheSameSet(t *testing.T) {
	files := map[string]string{"abuse/guessing.yaml": guessing, "allowances.yaml": fewAllowance, "lists/nets.txt": "10.0.0.0/8\n"}
	a := loadFiles(t, files)
	b, err := Open(a.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if a.Digest() != b.Digest() || b.Digest() != loadFiles(t, files).Digest() || b.Zone().String() != "Europe/Amsterdam" || len(b.Rules()) != 1 {
		t.Error("the opened set is another")
	}
	files["abuse/guessing.yaml"] += "# a comment\n"
	if loadFiles(t, files).Digest() == a.Digest() {
		t.Error("another file, the same digest")
	}
	for _, bad := range []string{"", "{}", "[]", `{"version":2}`, `{"version":1,"zone":"Mars/Olympus","files":{}}`, `{"version":1,"zone":"UTC","files":{"r.yaml":"id"}}`} {
		if _, err := Open([]byte(bad)); err == nil {
			t.Errorf("opened %q", bad)
		}
	}
}

func TestTheLogicHashFollowsWhatDecides(t *testing.T) {
	logic := func(rule string) (string, string) {
		r := loadFiles(t, map[string]string{"r.yaml": rule}).rules[0]
		return r.Logic, r.windowHash
	}
	l, w := logic(guessing)
	same := func(old, now string, sameLogic, sameWindow bool) {
		t.Helper()
		if !strings.Contains(guessing, old) {
			t.Fatalf("%q is not in the rule", old)
		}
		l2, w2 := logic(strings.Replace(guessing, old, now, 1))
		if (l2 == l) != sameLogic || (w2 == w) != sameWindow {
			t.Errorf("%s → %s: logic the same %v, windows the same %v", old, now, l2 == l, w2 == w)
		}
	}
	same("Guessing", "Other title", true, true)
	same("severity: medium", "severity: high", true, true)
	same(`kind == "user" && action`, `(kind   ==   "user")  and action`, true, true)
	same("condition: count >= 10", "condition: count>=10", true, true)
	same("condition: count >= 10", "condition: count >= 11", false, true)
	same("suppress: 1h", "suppress: 2h", false, true)
	same("window: 10m", "window: 11m", false, false)
	same("window: 10m", "window: 600s", true, true)
	same(`"failure"`, `"success"`, false, false)
	same("[source.ip]", "[source.ip, tenant.id]", false, false)
	same("count >= 10", "distinct(user.hash) >= 10", false, false)
}

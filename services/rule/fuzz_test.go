package rule

import (
	"errors"
	"testing"
	"testing/fstest"
	"time"

	"github.com/opencoc/coc/services/event"
)

func FuzzRuleFile(f *testing.F) {
	for _, s := range []string{
		guessing,
		head + "match: |\n  kind == \"user\"\n  && source.ip in [\"a\", 'b']\n",
		head + "match: true\ngroup_by: [tenant.id, labels.x]\nwindow: 1h30m\ncondition: >-\n  share(night) > 0.5 or p95(duration) / 2 > allowance(\"few\", tenant.tier)\n",
		"- rule: r\n  when: true\n", "a: [b, {c: d}]\n", "a: |2-\n   x\n", "\"a\": 'b''c'\n", "? a\n: b\n", "id: *x\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		began := time.Now()
		set, err := Load(fstest.MapFS{"r.yaml": {Data: []byte(text)}, "allowances.yaml": {Data: []byte(fewAllowance)}}, Options{})
		var list Errors
		if errors.As(err, &list) {
			for _, e := range list {
				if e.Line < 0 || e.Line > 0 && e.Col < 1 {
					t.Errorf("an error without a place: %v", e)
				}
			}
			_ = err.Error()
		}
		if err == nil {
			if again, err := Open(set.Bytes()); err != nil || again.Digest() != set.Digest() {
				t.Errorf("the packed set does not open: %v", err)
			}
		}
		if d := time.Since(began); d > 5*time.Second {
			t.Errorf("loading took %v", d)
		}
	})
}

func FuzzExpression(f *testing.F) {
	for _, s := range []string{
		`kind == "user" && action in ["a", "b"] || !(duration > 5 && bytes % 7 == 1)`,
		`message matches "^a+b" and lower(user.name) contains "x" and len(message) > 3 ? true : night`,
		`local(time).hour >= 21 or holiday or weekend(received)`,
		`in_list(source.ip, "nets") || cidr(source.ip, "10.0.0.0/8") || private(source.ip)`,
		`labels["a"] == labels.b && has(duration) && int(labels.n) > 3 && float("1e400") > 1`,
		`count >= 3 && sum(bytes) / count > 4 && distinct(source.ip) ** 2 > p95(duration)`,
		`share(outcome == "failure") > 0.5 and rate > 1 and min(value) < -max(value)`,
		`2 ^ 3 ^ 9999999 > bytes % 0`, `1 in [1, "a"]`, `kind[0:1] == "u"`, `/* x */`, `"a" not in ["b"]`,
	} {
		f.Add(s)
	}
	events := manyEvents(3)
	events[0].SetLabel("a", "b")
	batch := encode(f, events)
	f.Fuzz(func(t *testing.T, text string) {
		d := &data{lists: map[string]*list{}, allowances: []Allowance{{Name: "few", Default: 3}}}
		nets := &list{List: List{Name: "nets", Type: "cidr"}}
		nets.fill([]string{"10.0.0.0/8", "::1"})
		d.lists["nets"] = nets
		l := newLanguage(d, time.UTC)
		began := time.Now()
		for _, m := range []mode{inMatch, inCondition} {
			v, p := l.vet(text, m)
			if p != nil {
				continue
			}
			program, err := l.compile(v, v.node)
			if err != nil {
				continue
			}
			native, rest := l.split(v.node)
			machine := newMachine(time.UTC)
			for row := range batch.Rows() {
				machine.at(batch, row)
				_, _ = machine.is(program)
				for i := range native {
					native[i].holds(batch, row)
				}
			}
			_ = rest
		}
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("%q took %v", text, took)
		}
	})
}

// What the index tests in place must be what expr says of the same text.
func TestPartsTestedInPlaceAgreeWithTheVM(t *testing.T) {
	events := manyEvents(400)
	for i := range events {
		e := &events[i]
		if i%3 == 0 {
			e.Has = 0
			e.Bytes = 0
		}
		if i%5 == 0 {
			e.SetDuration(float64(i) / 7)
		}
		e.Kind = []string{"user", "system", ""}[i%3]
		e.SessionID = []string{"s1", "s2", ""}[i%3]
	}
	batch := encode(t, events)
	nets := &list{List: List{Name: "nets", Type: "cidr"}}
	nets.fill([]string{"10.0.1.0/24"})
	l := newLanguage(&data{lists: map[string]*list{"nets": nets}}, time.UTC)
	for _, text := range []string{
		`source.ip contains "1"`, `source.ip startsWith "10.0.1"`, `source.ip endsWith ".7"`, `source.ip matches "\\.1?7$"`, `not (source.ip contains "2")`, `not (not (source.ip contains "2"))`,
		`in_list(source.ip, "nets")`, `!in_list(source.ip, "nets")`, `cidr(source.ip, "10.0.2.0/23", "10.0.9.9")`, `private(source.ip)`,
		`kind == "user" || bytes > 700`, `kind == "user" && bytes > 500 || source.ip contains "9" && duration > 1 or session.id == "s2"`, `(kind == "user" || bytes > 700) && (duration > 2 || kind != "system")`,
		`kind == "user"`, `"user" == kind`, `kind != "user"`, `not (kind == "user")`, `!(kind != "user")`,
		`kind in ["user", "system"]`, `kind not in ["user", ""]`, `!(kind in ["user"])`, `kind == "user" or kind == "" || kind in ["x", "system"]`,
		`session.id == "s1"`, `session.id in ["s1", "s2"]`, `kind == ""`,
		`bytes > 500`, `500 < bytes`, `bytes >= 500 and bytes <= 900`, `bytes == 0`, `bytes != 0`, `bytes > -1`, `bytes > 0.5`, `-1 < bytes`,
		`duration > 3`, `duration >= 10.5`, `20 >= duration`, `duration == 0`, `time > 1767610810000`, `process.pid < 1`,
		`kind == "user" && bytes > 100 && session.id == "s1" && message == ""`,
	} {
		v, p := l.vet(text, inMatch)
		if p != nil {
			t.Fatal(p)
		}
		native, rest := l.split(v.node)
		if rest != nil {
			t.Errorf("%s is not tested in place", text)
		}
		program, err := l.compile(v, v.node)
		if err != nil {
			t.Fatal(err)
		}
		m := newMachine(time.UTC)
		for row := range batch.Rows() {
			m.at(batch, row)
			want, err := m.is(program)
			if err != nil {
				t.Fatal(err)
			}
			got := true
			for i := range native {
				got = got && native[i].holds(batch, row)
			}
			if got != want {
				t.Fatalf("%s, row %d %s: in place %v, in the VM %v", text, row, describeRow(batch, row), got, want)
			}
		}
	}
}

func describeRow(b *event.Batch, row int) string {
	var e event.Event
	b.Event(row, &e)
	return string(event.AppendJSON(nil, &e))
}

func TestConditionsInClosuresAgreeWithTheVM(t *testing.T) {
	l := newLanguage(&data{}, time.UTC)
	for _, text := range []string{
		"count >= 3", "3 <= count", "count > 2 && sum(bytes) > 100 || avg(duration) < 2.5", "!(count == 3)", "not (count != 3) and rate > 0",
		"sum(bytes) / count > 10", "sum(bytes) / 0 > 1", "-count < -2", "avg(bytes) - min(bytes) * 2 + max(bytes) >= 7", "avg(bytes) != avg(bytes)", "count == 2.5 || count <= 4.0",
	} {
		v, p := l.vet(text, inCondition)
		if p != nil {
			t.Fatal(p)
		}
		native := nativeCondition(v.node)
		if native == nil {
			t.Errorf("%s runs in the VM", text)
			continue
		}
		c, _, err := l.compileCondition(v, text, 1000, nil)
		if err != nil {
			t.Fatal(err)
		}
		c.native = nil
		m := newMachine(time.UTC)
		for n := range 64 {
			var x measures
			for i := range v.slots {
				x[i] = float64((n >> i) % 5)
				if n%7 == 6 && !v.slots[i].whole() {
					x[i] = absent
				}
			}
			want, err := c.holds(m, &x)
			if err != nil {
				t.Fatal(err)
			}
			if got := native(&x); got != want {
				t.Fatalf("%s of %v: closure %v, VM %v", text, x, got, want)
			}
		}
	}
}

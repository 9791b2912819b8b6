package collector

import (
	"strings"
	"testing"

	"github.com/opencoc/coc/services/event"
)

func TestNamesAreReplacedAsWords(t *testing.T) {
	f := func(s, name, want string) {
		t.Helper()
		if got, _ := replaceName(s, name, "u-1"); got != want {
			t.Errorf("%q without %q became %q, want %q", s, name, got, want)
		}
	}
	f("jan", "jan", "u-1")
	f("for jan from", "jan", "for u-1 from")
	f("/home/jan/x.jan", "jan", "/home/u-1/x.u-1")
	f("backup_jan-2", "jan", "backup_u-1-2")
	f("JAN Jan jAN", "jan", "u-1 u-1 u-1")
	f("january trojan 2jan jan3", "jan", "january trojan 2jan jan3")
	f("user_1 user_10", "user_1", "u-1 user_10")
	f("jan.de.vries@x.nl", "jan.de.vries@x.nl", "u-1")
	f("Özil özil Özilé", "özil", "u-1 u-1 Özilé")
	f("a jan", "jan ", "a jan")
	f("ja", "jan", "ja")
	f("janjan jan", "jan", "janjan u-1")
	f("", "jan", "")
	f("x", "x", "u-1")
	f("X", "x", "u-1")
	f("by x, /x", "x", "by x, /x")
	f("(jan)\"jan\"", "jan", "(u-1)\"u-1\"")
}

func TestAnAccountCannotChangeTheWordsThatRulesGoBy(t *testing.T) {
	e := event.Event{Action: "login", ServiceName: "profit", Message: "login of login"}
	replaceNames(&e, []person{{"login", "u-1"}, {"profit", "u-2"}})
	if e.Action != "login" || e.ServiceName != "profit" || e.Message != "u-1 of u-1" {
		t.Errorf("became %s", event.AppendJSON(nil, &e))
	}
	e = event.Event{Action: "login", ServiceName: "svc-jan.jansen", TenantID: "jan.jansen"}
	replaceNames(&e, []person{{"jan.jansen", "u-1"}})
	if e.ServiceName != "svc-u-1" || e.TenantID != "jan.jansen" || !strings.Contains(e.Marks, "name:tenant.id") {
		t.Errorf("became %s", event.AppendJSON(nil, &e))
	}
}

func TestNamesInKeysOfLabelsAreReplaced(t *testing.T) {
	e := event.Event{Labels: []event.Label{{Key: "a", Value: "jan"}, {Key: "of jan", Value: "2"}, {Key: "z jan", Value: "3"}}}
	replaceNames(&e, []person{{"jan", "u-1"}})
	if got := string(event.AppendJSON(nil, &e)); got != `{"labels":{"a":"u-1","of u-1":"2","z u-1":"3"}}` {
		t.Errorf("became %s", got)
	}
}

func TestSystemAccountsAreNoPeople(t *testing.T) {
	l := newAccountList([]string{"svc-*", "erp"})
	for _, name := range []string{"root", "www-data", "systemd-resolve", "_apt", "svc-backup", "erp", `NT AUTHORITY\SYSTEM`} {
		if !l.has(name) {
			t.Errorf("%s is taken for a person", name)
		}
	}
	for _, name := range []string{"jan", "rootje", "systemd-", "erp2", ""} {
		if l.has(name) {
			t.Errorf("%s is taken for a system account", name)
		}
	}
}

func FuzzReplaceName(f *testing.F) {
	f.Add("for jan from", "jan")
	f.Add("Özil", "özil")
	f.Fuzz(func(t *testing.T, s, name string) {
		if len(name) < minName {
			return
		}
		got, _ := replaceName(s, name, "u-00000000")
		if at := indexName(got, name, 0); at >= 0 && !strings.Contains("u-00000000", strings.ToLower(name)) && !strings.Contains(name, "u") && !strings.Contains(name, "0") && !strings.Contains(name, "-") {
			t.Fatalf("%q is still in %q", name, got)
		}
	})
}

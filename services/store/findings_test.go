package store

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/opencoc/coc/services/event"
)

func sampleFinding(id string) event.Finding {
	at := event.Stamp(day0.UnixMilli())
	return event.Finding{
		ID: id, Rule: "abuse.password-guessing-address", Logic: "00112233445566aa", Title: "Password guessing", Class: "abuse", Severity: "medium",
		Status: "production", Lane: 3, Cell: event.Span{From: at, To: at + 600_000}, Tenant: "t1",
		Key:   map[string]string{"source.ip": "192.0.2.7", "tenant.id": "t1"},
		Terms: []event.Term{{Expr: "count", Value: 10}}, Window: event.Span{From: at - 600_000, To: at},
		How: "10 failed logins within 10 minutes", Fired: at, FiredBy: "c-1-10", FirstSeen: at - 1000, LastSeen: at + 1000, Count: 11, Revision: 1,
		Evidence: []string{"c-1-1", "c-1-11"},
	}
}

var admin = Reader{Role: RoleAdministrator}

// hostile texts that must come back as they went in, and do nothing else.
var hostile = []string{
	`'; DROP TABLE events; --`, "a\nb\tc\r\\d\x00e", "`x` \"y\" 'z'", `{x:String}`, `\N`, "\\", "NULL", "İstanbul – ünïcödé 🚀", "%s%d%_", "'||(SELECT 1)||'", "\n\n", "",
}

func TestAFindingComesBackWhole(t *testing.T) {
	f := sampleFinding("00000000000000000000000000000001")
	f.Rule, f.Continues, f.Import, f.Approximate = "whole", "0000", "imp-1", true
	f.Title, f.How = hostile[0], hostile[1]
	f.Key = map[string]string{}
	for i, text := range hostile {
		f.Key[fmt.Sprint("k", i)] = text
		f.Evidence = append(f.Evidence, text)
		f.Terms = append(f.Terms, event.Term{Expr: text, Value: float64(i) + 0.25})
	}
	for range 2 {
		if err := house.InsertFindings(t.Context(), []FindingRow{{f, 9}}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := house.Finding(t.Context(), admin, f.ID)
	if err != nil || !reflect.DeepEqual(got, f) {
		t.Errorf("wrote %+v\nread  %+v\n%v", f, got, err)
	}
	page, err := house.Findings(t.Context(), admin, FindingFilter{Rule: "whole"})
	if err != nil || len(page.Findings) != 1 || page.More {
		t.Errorf("written twice it is listed as %+v, %v", page, err)
	}
}

func TestTheHighestRevisionCounts(t *testing.T) {
	const id = "00000000000000000000000000000002"
	f := sampleFinding(id)
	f.Rule = "revised"
	for _, revision := range []int64{2, 1, 3} {
		f.Revision, f.Count, f.Withdrawn = revision, 10*revision, revision == 3
		if err := house.InsertFindings(t.Context(), []FindingRow{{f, 1}}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := house.Finding(t.Context(), admin, id)
	if err != nil || got.Revision != 3 || got.Count != 30 || !got.Withdrawn {
		t.Errorf("the last revision is %+v, %v", got, err)
	}
	count := func(filter FindingFilter) int {
		t.Helper()
		filter.Rule = "revised"
		page, err := house.Findings(t.Context(), admin, filter)
		if err != nil {
			t.Fatal(err)
		}
		return len(page.Findings)
	}
	if n := count(FindingFilter{}); n != 0 {
		t.Error("a withdrawn finding is listed")
	}
	if n := count(FindingFilter{Withdrawn: true}); n != 1 {
		t.Errorf("a withdrawn finding is listed %d times when asked for", n)
	}
	list, err := house.FindingRevisions(t.Context(), admin, id)
	if err != nil || len(list) == 0 || list[0].Revision != 3 {
		t.Errorf("its revisions are %+v, %v", list, err)
	}
	if _, err := house.Finding(t.Context(), admin, "no' OR 1=1 --"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a finding that is not there gives %v", err)
	}
}

func TestFindingsAreFiltered(t *testing.T) {
	var rows []FindingRow
	for i := range 10 {
		f := sampleFinding(fmt.Sprintf("f1lt%028d", i))
		at := event.Stamp(day0.Add(time.Duration(i) * time.Hour).UnixMilli())
		f.Rule, f.Class, f.Fired, f.FirstSeen, f.LastSeen = fmt.Sprint("filtered.", i%2), "fair_use", at, at, at+1000
		f.Tenant, f.Severity = hostile[0], "high"
		if i == 9 {
			f.Status = "shadow"
		}
		if i == 8 {
			f.Import = "imp"
		}
		rows = append(rows, FindingRow{f, uint64(i)})
	}
	if err := house.InsertFindings(t.Context(), rows); err != nil {
		t.Fatal(err)
	}
	list := func(f FindingFilter, want ...int) {
		t.Helper()
		f.Tenant = hostile[0]
		page, err := house.Findings(t.Context(), admin, f)
		if err != nil {
			t.Fatal(err)
		}
		var got []int
		for _, x := range page.Findings {
			var n int
			if _, err := fmt.Sscanf(x.ID, "f1lt%d", &n); err != nil {
				t.Fatal(err)
			}
			got = append(got, n)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%+v lists %v, wanted %v", f, got, want)
		}
	}
	list(FindingFilter{}, 8, 7, 6, 5, 4, 3, 2, 1, 0)
	list(FindingFilter{Shadow: true, Limit: 2}, 9, 8)
	list(FindingFilter{Live: true, Limit: 1}, 7)
	list(FindingFilter{Import: "imp"}, 8)
	list(FindingFilter{Rule: "filtered.1"}, 7, 5, 3, 1)
	list(FindingFilter{Class: "abuse"})
	list(FindingFilter{Severity: "high", Since: day0.Add(7 * time.Hour)}, 8, 7)
	list(FindingFilter{Since: day0.Add(2 * time.Hour), Until: day0.Add(4 * time.Hour)}, 3, 2)
	page, err := house.Findings(t.Context(), admin, FindingFilter{Tenant: hostile[0], Limit: 9})
	if err != nil || page.More {
		t.Errorf("nine of nine: more is %v, %v", page.More, err)
	}
	if _, err := house.Findings(t.Context(), admin, FindingFilter{Limit: maxFindings + 1}); !errors.Is(err, ErrInvalid) {
		t.Errorf("a limit beyond the bound gives %v", err)
	}
}

func TestHostileTextsAreOnlyTexts(t *testing.T) {
	var events []event.Event
	for i, text := range hostile {
		events = append(events, event.Event{
			Time: day0.UnixMilli() + int64(i), Received: day0.UnixMilli(), Kind: "user", Action: "hostile", Collector: "hostile", Epoch: 1, Seq: int64(i + 1),
			TenantID: text, Message: text, ID: text, Labels: []event.Label{{Key: "k", Value: text}},
		})
	}
	put(t, "hostile", events...)
	for i, text := range hostile {
		if text == "" {
			continue
		}
		page, err := house.Events(t.Context(), admin, EventFilter{Tenant: text, Action: "hostile", Search: text, IDs: []string{text}})
		if err != nil || len(page.Events) != 1 {
			t.Errorf("%q: %d events, %v", text, len(page.Events), err)
			continue
		}
		if !reflect.DeepEqual(page.Events[0], events[i]) {
			t.Errorf("wrote %+v\nread  %+v", events[i], page.Events[0])
		}
		rows, _, err := ask(t, RoleAdministrator, "SELECT message FROM events WHERE action = 'hostile' AND collector_seq = "+fmt.Sprint(i+1))
		if err != nil || len(rows) != 1 {
			t.Errorf("%q by SQL: %v, %v", text, rows, err)
		}
	}
}

func TestEveryFieldComesBack(t *testing.T) {
	e := full()
	e.UserName = "" // on the bus only
	e.Collector, e.Action = "every-field", "every_field"
	put(t, "every-field", *e)
	page, err := house.Events(t.Context(), admin, EventFilter{Action: "every_field"})
	if err != nil || len(page.Events) != 1 || !reflect.DeepEqual(page.Events[0], *e) {
		t.Errorf("wrote %+v\nread  %+v, %v", *e, page.Events, err)
	}
	none := event.Event{Time: 1, Received: 2, Kind: "system", Action: "no_field", Collector: "every-field", Epoch: 1, Seq: 2}
	put(t, "no-field", none)
	page, err = house.Events(t.Context(), admin, EventFilter{Action: "no_field"})
	if err != nil || len(page.Events) != 1 || !reflect.DeepEqual(page.Events[0], none) {
		t.Errorf("wrote %+v\nread  %+v, %v", none, page.Events, err)
	}
}

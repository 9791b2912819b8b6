package store

import (
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

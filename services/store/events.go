package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/opencoc/coc/services/event"
)

// EventFilter says which events. Empty texts and zero times are no bound.
type EventFilter struct {
	Tenant, Kind, Action, Outcome string
	Source                        string // event.source
	UserHash, SourceIP            string
	Host, Service                 string
	ResourceType, ResourceName    string
	Search                        string   // a part of message, whatever its case
	IDs                           []string // as Event.EventID gives them, at most 1,000
	Since, Until                  time.Time
	ReceivedSince                 time.Time
	Limit                         int // default 100, at most 10,000
}

// EventPage is a list of events; More says that Limit cut it.
type EventPage struct {
	Events []event.Event
	More   bool
}

// Events lists events, newest first. Without a tenant or a time it reads the
// whole table: give one.
func (s *Store) Events(ctx context.Context, r Reader, f EventFilter) (EventPage, error) {
	if err := r.read(tableEvents); err != nil {
		return EventPage{}, err
	}
	limit, err := limitOf("listing events", f.Limit, defaultEvents, maxEvents)
	if err != nil {
		return EventPage{}, err
	}
	w, err := f.where(r)
	if err != nil {
		return EventPage{}, err
	}
	shown := shownFields(r.Role)
	columns := make([]string, len(shown))
	for i, field := range shown {
		columns[i] = event.Fields[field].Column
	}
	query := "SELECT " + strings.Join(columns, ", ") + " FROM events" + w.String() +
		" ORDER BY time DESC, collector_id, collector_epoch, collector_seq DESC LIMIT {limit:UInt64}"
	var page EventPage
	err = s.each(ctx, query, append(w.args, clickhouse.Named("limit", limit+1)), func(rows driver.Rows) error {
		e, err := scanEvent(rows, shown)
		page.Events = append(page.Events, e)
		return err
	})
	if err != nil {
		return EventPage{}, wrap("reading events", err)
	}
	if len(page.Events) > limit {
		page.Events, page.More = page.Events[:limit], true
	}
	return page, nil
}

func (f *EventFilter) where(r Reader) (*where, error) {
	var w where
	for _, c := range []struct{ column, value string }{
		{"tenant_id", f.Tenant}, {"kind", f.Kind}, {"action", f.Action}, {"outcome", f.Outcome}, {"event_source", f.Source},
		{"user_hash", f.UserHash}, {"source_ip", f.SourceIP}, {"host_name", f.Host}, {"service_name", f.Service},
		{"resource_type", f.ResourceType}, {"resource_name", f.ResourceName},
	} {
		if c.value == "" {
			continue
		}
		if err := r.field(tableEvents, c.column); err != nil {
			return nil, err
		}
		w.equal(c.column, c.value)
	}
	if f.Search != "" {
		if err := r.field(tableEvents, "message"); err != nil {
			return nil, err
		}
		w.add("positionCaseInsensitiveUTF8(message, {search:String}) > 0", "search", f.Search)
	}
	if len(f.IDs) > maxEventIDs {
		return nil, fmt.Errorf("listing events: %w: %d ids, give at most %d", ErrInvalid, len(f.IDs), maxEventIDs)
	}
	if len(f.IDs) > 0 {
		w.add("id IN {ids:Array(String)}", "ids", f.IDs)
	}
	w.from("time", "since", f.Since)
	w.before("time", "until", f.Until)
	w.from("received", "received_since", f.ReceivedSince)
	return &w, nil
}

// shownFields are the kept fields that a role may see, as indexes.
func shownFields(r Role) []int {
	var list []int
	for i := range event.Fields {
		if f := &event.Fields[i]; f.Kept && r.MaySee(f.Class) {
			list = append(list, i)
		}
	}
	return list
}

func scanEvent(rows driver.Rows, shown []int) (event.Event, error) {
	var e event.Event
	var labels map[string]string
	into := make([]any, len(shown))
	for i, field := range shown {
		f := &event.Fields[field]
		switch f.Type {
		case event.Dict, event.Text:
			into[i] = e.Text(field)
		case event.Time:
			into[i] = new(time.Time)
		case event.Int:
			if f.Required {
				into[i], _ = e.Int(field)
			} else {
				into[i] = new(*int64)
			}
		case event.Float:
			into[i] = new(*float64)
		case event.Map:
			into[i] = &labels
		}
	}
	if err := rows.Scan(into...); err != nil {
		return e, err
	}
	for i, field := range shown {
		switch v := into[i].(type) {
		case *time.Time:
			p, _ := e.Int(field)
			*p = v.UnixMilli()
		case **int64:
			if p, has := e.Int(field); *v != nil {
				*p = **v
				e.Has |= has
			}
		case **float64:
			if p, has := e.Float(field); *v != nil {
				*p = **v
				e.Has |= has
			}
		}
	}
	for k, v := range labels {
		e.Labels = append(e.Labels, event.Label{Key: k, Value: v})
	}
	slices.SortFunc(e.Labels, func(a, b event.Label) int { return strings.Compare(a.Key, b.Key) })
	return e, nil
}

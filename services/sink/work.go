package sink

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/opencoc/coc/services/bus"
	"github.com/opencoc/coc/services/event"
	"github.com/opencoc/coc/services/store"
)

// followWork stores WORK: sealed names into identities, all else into work.
func (s *Sink) followWork(reading, writing context.Context) error {
	f := &rows{
		follower: follower{Sink: s, name: bus.CutWork, p: &s.state.work, reading: reading, writing: writing},
		open:     s.bus.Work, delay: workTime, from: "sink-work",
		insert: s.insertWork,
	}
	return f.follow()
}

// identity is a message of WORK of the kind identity, as collectors write it.
type identity struct {
	Tenant    string      `json:"tenant"`
	Hash      string      `json:"hash"`
	Sealed    []byte      `json:"sealed"`
	Key       string      `json:"key"`
	FirstSeen event.Stamp `json:"first_seen"`
}

// change is any other message of WORK.
type change struct {
	Actor    string          `json:"actor"`
	Role     string          `json:"role"`
	Reason   string          `json:"reason"`
	Time     time.Time       `json:"time"` // zero: when the bus stored it
	Hash     string          `json:"hash"`
	Previous string          `json:"previous"`
	Data     json.RawMessage `json:"data"` // absent: the whole message
}

func (s *Sink) insertWork(ctx context.Context, msgs []bus.Message) (int64, error) {
	var people []store.Identity
	var changes []store.WorkRow
	for _, m := range msgs {
		if kind, _ := m.WorkKind(); kind == bus.KindIdentity {
			p, err := readIdentity(m)
			if err != nil {
				return 0, err
			}
			people = append(people, p)
			continue
		}
		c, err := readChange(m)
		if err != nil {
			return 0, err
		}
		changes = append(changes, c)
	}
	if err := s.bounded(len(people), func() error { return s.store.InsertIdentities(ctx, people) }); err != nil {
		return 0, err
	}
	return int64(len(people) + len(changes)), s.bounded(len(changes), func() error { return s.store.InsertWork(ctx, changes) })
}

func readIdentity(m bus.Message) (store.Identity, error) {
	var r identity
	if err := json.Unmarshal(m.Data, &r); err != nil {
		return store.Identity{}, fmt.Errorf("%w: message %d of WORK is not an identity: %w", store.ErrData, m.Seq, err)
	}
	if r.Hash == "" || len(r.Sealed) == 0 {
		return store.Identity{}, fmt.Errorf("%w: message %d of WORK is an identity without hash or sealed name", store.ErrData, m.Seq)
	}
	first := time.UnixMilli(int64(r.FirstSeen)).UTC()
	return store.Identity{Tenant: r.Tenant, Hash: r.Hash, Sealed: r.Sealed, Key: r.Key, FirstSeen: first, LastSeen: first, Revision: m.Seq}, nil
}

func readChange(m bus.Message) (store.WorkRow, error) {
	var r change
	if err := json.Unmarshal(m.Data, &r); err != nil {
		return store.WorkRow{}, fmt.Errorf("%w: message %d of WORK is not a change: %w", store.ErrData, m.Seq, err)
	}
	if r.Time.IsZero() {
		r.Time = m.Time
	}
	if len(r.Data) == 0 {
		r.Data = m.Data
	}
	kind, id := m.WorkKind()
	return store.WorkRow{Kind: kind, ID: id, Seq: m.Seq, Time: r.Time.UTC(), Actor: r.Actor, Role: r.Role, Reason: r.Reason,
		Data: string(r.Data), Hash: r.Hash, Previous: r.Previous}, nil
}

package bus

import (
	"context"
	"time"
)

// StreamInfo is what metrics tell of a stream.
type StreamInfo struct {
	Name                string
	Messages, Bytes     uint64
	FirstSeq, LastSeq   uint64
	MaxBytes            int64
	FirstTime, LastTime time.Time
	Consumers           int
	Subjects            uint64
}

// Info returns one entry for each stream of the topology, in its order.
func (b *Bus) Info(ctx context.Context) ([]StreamInfo, error) {
	infos := make([]StreamInfo, 0, len(streams))
	for _, s := range streams {
		i, err := b.streams[s.name].Info(ctx)
		if err != nil {
			return nil, explain(err, "bus: cannot read the stream "+s.name)
		}
		infos = append(infos, StreamInfo{
			Name: s.name, Messages: i.State.Msgs, Bytes: i.State.Bytes,
			FirstSeq: i.State.FirstSeq, LastSeq: i.State.LastSeq, MaxBytes: i.Config.MaxBytes,
			FirstTime: i.State.FirstTime, LastTime: i.State.LastTime,
			Consumers: i.State.Consumers, Subjects: i.State.NumSubjects,
		})
	}
	return infos, nil
}

// LastEvent is the sequence of the last message of EVENTS, 0 when there never
// was one.
func (b *Bus) LastEvent(ctx context.Context) (uint64, error) {
	i, err := b.streams[streamEvents].Info(ctx)
	if err != nil {
		return 0, explain(err, "bus: cannot read EVENTS")
	}
	return i.State.LastSeq, nil
}

// LastFinding is the sequence of the last message of FINDINGS, 0 when there
// never was one.
func (b *Bus) LastFinding(ctx context.Context) (uint64, error) {
	i, err := b.streams[streamFindings].Info(ctx)
	if err != nil {
		return 0, explain(err, "bus: cannot read FINDINGS")
	}
	return i.State.LastSeq, nil
}

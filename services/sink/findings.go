package sink

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/opencoc/coc/services/bus"
	"github.com/opencoc/coc/services/event"
	"github.com/opencoc/coc/services/store"
)

// followFindings stores FINDINGS: a cut at the latest 100 ms after one waits.
func (s *Sink) followFindings(reading, writing context.Context) error {
	f := &rows{
		follower: follower{Sink: s, name: bus.CutFindings, p: &s.state.findings, reading: reading, writing: writing},
		open:     s.bus.Findings, delay: findingsTime, from: "sink-findings",
		insert: s.insertFindings,
	}
	return f.follow()
}

func (s *Sink) insertFindings(ctx context.Context, msgs []bus.Message) (int64, error) {
	var list []store.FindingRow
	for _, m := range msgs {
		var err error
		if list, err = appendFindings(list, m); err != nil {
			return 0, err
		}
	}
	return int64(len(list)), s.bounded(len(list), func() error { return s.store.InsertFindings(ctx, list) })
}

// appendFindings reads NDJSON, one finding a line.
func appendFindings(list []store.FindingRow, m bus.Message) ([]store.FindingRow, error) {
	n := 0
	for line := range bytes.Lines(m.Data) {
		n++
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			continue
		}
		if len(line) > maxLine {
			return nil, fmt.Errorf("%w: line %d of message %d of FINDINGS has %d bytes, at most %d are read", store.ErrData, n, m.Seq, len(line), maxLine)
		}
		var f event.Finding
		if err := json.Unmarshal(line, &f); err != nil {
			return nil, fmt.Errorf("%w: line %d of message %d of FINDINGS is not a finding: %w", store.ErrData, n, m.Seq, err)
		}
		if f.ID == "" || f.Rule == "" {
			return nil, fmt.Errorf("%w: line %d of message %d of FINDINGS has no id or no rule", store.ErrData, n, m.Seq)
		}
		list = append(list, store.FindingRow{Finding: f, Seq: m.Seq})
	}
	return list, nil
}

// bounded skips an insert of nothing.
func (s *Sink) bounded(n int, insert func() error) error {
	if n == 0 {
		return nil
	}
	return insert()
}

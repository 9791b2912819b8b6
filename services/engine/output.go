package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/opencoc/coc/services/event"
)

// publish writes the findings of one input, lane by lane. A lane whose output
// already names this input or a later one has them out: nothing is written.
func (s *session) publish(ctx context.Context, c *cohort, in uint64, findings []event.Finding) error {
	if len(findings) == 0 {
		return nil
	}
	for _, l := range c.lanes {
		if in <= l.out.In() {
			continue
		}
		parts, n, err := partsOf(findings, l.number)
		if err != nil {
			return err
		}
		if n == 0 {
			continue
		}
		if err := s.offer(ctx, l, in, parts); err != nil {
			return err
		}
		s.update(func(st *Status) { st.Published += int64(len(parts)); st.Findings += int64(n) })
	}
	return nil
}

// partsOf encodes a lane's findings as NDJSON, cut into messages: the same
// findings give the same parts.
func partsOf(findings []event.Finding, lane int) (parts [][]byte, n int, err error) {
	var part []byte
	for i := range findings {
		if findings[i].Lane != lane {
			continue
		}
		line, err := json.Marshal(&findings[i])
		if err != nil {
			return nil, 0, fmt.Errorf("encode finding %s of rule %s: %w", findings[i].ID, findings[i].Rule, err)
		}
		if len(part) > 0 && len(part)+len(line)+1 > partBytes {
			parts = append(parts, part)
			part = nil
		}
		part = append(append(part, line...), '\n')
		n++
	}
	if len(part) > 0 {
		parts = append(parts, part)
	}
	return parts, n, nil
}

// offer publishes until the bus has taken it. A full or absent bus holds the
// engine back: that is what bounds it.
func (s *session) offer(ctx context.Context, l *lane, in uint64, parts [][]byte) error {
	for wait := retryMin; ; wait = min(2*wait, retryMax) {
		err := l.out.Publish(ctx, in, parts...)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case !busy(err):
			return fmt.Errorf("publish findings of message %d in lane %d: %w", in, l.number, err)
		}
		s.update(func(st *Status) { st.Problem = "waits for the bus: " + err.Error() })
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		s.update(func(st *Status) { st.Problem = "" })
	}
}

package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/opencoc/coc/services/bus"
	"github.com/opencoc/coc/services/rule"
)

// lane is one owned lane: its output and its checkpoint.
type lane struct {
	number     int
	out        *bus.Lane
	checkpoint bus.Checkpoint // as saved last; zero before the first
}

// cohort is the lanes whose state stands at the same place of the stream, with
// the runner that holds it. Before the first rule set there is no runner.
type cohort struct {
	seq    uint64 // the state holds messages through this one
	runner *rule.Runner
	digest string
	lanes  []*lane
}

// load opens the lanes and restores them from their checkpoints, as one cohort
// for each place, the furthest behind first.
func (e *Engine) load(ctx context.Context, numbers []int) ([]*cohort, error) {
	var list []*cohort
	for _, n := range numbers {
		out, err := e.Bus.OpenLane(ctx, n)
		if err != nil {
			return nil, fmt.Errorf("open lane %d: %w", n, err)
		}
		l := &lane{number: n, out: out}
		blob, err := e.loadCheckpoint(ctx, l)
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(list, func(c *cohort) bool { return c.seq == l.checkpoint.Seq && c.digest == l.checkpoint.Digest })
		if i < 0 {
			c := &cohort{seq: l.checkpoint.Seq, digest: l.checkpoint.Digest}
			if c.digest != "" {
				set, err := e.ruleSet(ctx, c.digest)
				if err != nil {
					return nil, err
				}
				c.runner = rule.NewRunner(set, rule.RunnerOptions{NoLanes: true})
			}
			list, i = append(list, c), len(list)
		}
		c := list[i]
		c.lanes = append(c.lanes, l)
		if c.runner == nil {
			continue
		}
		if err := c.runner.Restore(n, bytes.NewReader(blob)); err != nil {
			return nil, fmt.Errorf("restore lane %d from its checkpoint at message %d: %w", n, l.checkpoint.Seq, err)
		}
	}
	slices.SortFunc(list, func(a, b *cohort) int { return int(int64(a.seq) - int64(b.seq)) })
	return list, nil
}

func (e *Engine) loadCheckpoint(ctx context.Context, l *lane) ([]byte, error) {
	cp, r, err := e.Bus.LoadCheckpoint(ctx, l.number)
	if errors.Is(err, bus.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("load the checkpoint of lane %d: %w", l.number, err)
	}
	blob, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		return nil, fmt.Errorf("read the checkpoint of lane %d: %w", l.number, err)
	}
	l.checkpoint = cp
	return blob, nil
}

// ruleSet opens a stored set. Without it the stream cannot be judged as it was
// meant, so the engine stops rather than guess.
func (e *Engine) ruleSet(ctx context.Context, digest string) (*rule.Set, error) {
	if e.Set != nil && e.Set.Digest() == digest {
		return e.Set, nil
	}
	data, err := e.Bus.GetRules(ctx, digest)
	if err != nil {
		return nil, fmt.Errorf("read rule set %.12s: %w; put it back from a back-up of the bus, or activate another set", digest, err)
	}
	if len(data) > ruleSetMax {
		return nil, fmt.Errorf("rule set %.12s has %d bytes, more than %d", digest, len(data), ruleSetMax)
	}
	set, err := rule.Open(data)
	if err != nil {
		return nil, fmt.Errorf("rule set %.12s does not load in this version of coc: %w", digest, err)
	}
	return set, nil
}

// switchTo puts another rule set in force, at the message that says so.
func (c *cohort) switchTo(set *rule.Set) {
	if c.digest == set.Digest() {
		return
	}
	c.digest = set.Digest()
	if c.runner != nil {
		c.runner.Switch(set)
		return
	}
	c.runner = rule.NewRunner(set, rule.RunnerOptions{NoLanes: true})
	for _, l := range c.lanes {
		c.runner.AddLane(l.number)
	}
}

// join moves the lanes of other, which stands at the same place, into c.
func (c *cohort) join(other *cohort) error {
	if c.runner != nil {
		for _, l := range other.lanes {
			var state bytes.Buffer
			if err := other.runner.Snapshot(l.number, &state); err != nil {
				return fmt.Errorf("move lane %d: %w", l.number, err)
			}
			if err := c.runner.Restore(l.number, &state); err != nil {
				return fmt.Errorf("move lane %d: %w", l.number, err)
			}
		}
	}
	c.lanes = append(c.lanes, other.lanes...)
	slices.SortFunc(c.lanes, func(a, b *lane) int { return a.number - b.number })
	return nil
}

package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/opencoc/coc/services/bus"
)

// keyActive is where the house writes down which rule set was switched to last:
// a hint that spares reading the stream to its end before a start. Switching
// twice to the same set changes nothing.
const keyActive = "rules.active"

// lead does what one engine does for all: the switch to the configured rules,
// and the ticks. It belongs to the owner of lane 0.
func (e *Engine) lead(ctx context.Context, switched bool) {
	ticker := time.NewTicker(e.Tick)
	defer ticker.Stop()
	for {
		if !switched {
			err := e.activate(ctx)
			switched = err == nil
			if err != nil && ctx.Err() == nil {
				e.Log.Error("the rules could not be put in force; trying again", "error", err)
			}
		}
		if _, err := e.Bus.PublishControl(ctx, bus.Meta{Control: bus.ControlTick, Time: e.Bus.Now().UnixMilli()}); err != nil && ctx.Err() == nil {
			e.Log.Warn("a tick could not be stored; deadlines wait for the next", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// activate stores the configured set and publishes the switch, unless it is the
// one in force.
func (e *Engine) activate(ctx context.Context) error {
	house, err := e.Bus.KV(bus.BucketHouse)
	if err != nil {
		return err
	}
	digest := e.Set.Digest()
	now, err := house.Get(ctx, keyActive)
	if err == nil && string(now.Value) == digest {
		return nil
	}
	if err != nil && !errors.Is(err, bus.ErrNotFound) {
		return fmt.Errorf("read which rules are in force: %w", err)
	}
	if err := e.Bus.PutRules(ctx, digest, e.Set.Bytes()); err != nil {
		return fmt.Errorf("store rule set %.12s: %w", digest, err)
	}
	if _, err := e.Bus.PublishControl(ctx, bus.Meta{Control: bus.ControlRules, Time: e.Bus.Now().UnixMilli(), Digest: digest}); err != nil {
		return fmt.Errorf("switch to rule set %.12s: %w", digest, err)
	}
	if _, err := house.Put(ctx, keyActive, []byte(digest)); err != nil {
		return fmt.Errorf("write down that rule set %.12s is in force: %w", digest, err)
	}
	e.Log.Info("rules switched", "digest", digest[:12], "rules", len(e.Set.Rules()))
	return nil
}

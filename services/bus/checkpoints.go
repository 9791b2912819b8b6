package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Checkpoint points at the state of a lane.
type Checkpoint struct {
	Seq    uint64    `json:"seq"`    // the state holds inputs through this one; reading goes on at Seq+1
	Digest string    `json:"digest"` // of the rule set
	In     uint64    `json:"in"`     // last input whose findings were out
	Saved  time.Time `json:"saved"`
	Size   int64     `json:"size"` // of the blob, bytes
	Object string    `json:"object"`
	// Revision of the pointer, for the next SaveCheckpoint; 0: there was none.
	Revision uint64 `json:"-"`
}

func checkpointKey(lane int) string { return fmt.Sprintf("lane.%02d", lane) }

// SaveCheckpoint stores the blob, then the pointer to it on condition that the
// pointer is still the one that c.Revision names (as loaded or saved last),
// and returns the checkpoint with its new revision. ErrConflict: another owner
// saved meanwhile. The purge goes by c.Seq: call it only when all findings
// through c.Seq are stored.
func (b *Bus) SaveCheckpoint(ctx context.Context, lane int, c Checkpoint, blob io.Reader) (Checkpoint, error) {
	if lane < 0 || lane >= Lanes {
		return c, fmt.Errorf("bus: lane %d: %w", lane, ErrInvalid)
	}
	if err := b.checkDisk(); err != nil {
		return c, err
	}
	given, old := c, c.Object
	// The name holds the revision it was made on, so that what a failed save
	// left behind can be told from what another owner is saving now.
	c.Object = fmt.Sprintf("%s%d.%s", objectPrefix(lane), c.Revision, randomText())
	info, err := b.state.Put(ctx, jetstream.ObjectMeta{
		Name: c.Object, Opts: &jetstream.ObjectMetaOptions{ChunkSize: checkpointChunk},
	}, blob)
	if err != nil {
		return given, explain(err, fmt.Sprintf("bus: cannot store the checkpoint of lane %d", lane))
	}
	c.Size, c.Saved = int64(info.Size), b.Now().UTC()
	revision, err := b.movePointer(ctx, lane, c)
	if err != nil {
		return given, errors.Join(err, b.dropUnused(ctx, lane, c, err))
	}
	c.Revision = revision
	if old != "" {
		b.dropObject(ctx, old)
	}
	if _, done := b.swept.LoadOrStore(lane, true); !done {
		b.sweep(ctx, lane, c)
	}
	return c, nil
}

func (b *Bus) movePointer(ctx context.Context, lane int, c Checkpoint) (uint64, error) {
	data, err := json.Marshal(c)
	if err != nil {
		return 0, fmt.Errorf("bus: checkpoint of lane %d: %w", lane, err)
	}
	rev, err := b.kvs[bucketPositions].Update(ctx, checkpointKey(lane), data, c.Revision)
	if err == nil {
		return rev, nil
	}
	// The answer may be lost and the pointer moved; then it names this blob.
	if now, e := b.Checkpoint(ctx, lane); e == nil && now.Object == c.Object {
		return now.Revision, nil
	}
	return 0, err
}

// dropUnused removes a blob that no pointer will name: only after a conflict,
// for after an unclear outcome the pointer may still come to name it.
func (b *Bus) dropUnused(ctx context.Context, lane int, c Checkpoint, cause error) error {
	if !errors.Is(cause, ErrConflict) {
		return nil
	}
	if now, err := b.Checkpoint(ctx, lane); err != nil || now.Object == c.Object {
		return err
	}
	b.dropObject(ctx, c.Object)
	return nil
}

// Checkpoint returns the pointer alone; ErrNotFound when there is none.
func (b *Bus) Checkpoint(ctx context.Context, lane int) (Checkpoint, error) {
	e, err := b.kvs[bucketPositions].Get(ctx, checkpointKey(lane))
	if err != nil {
		return Checkpoint{}, err
	}
	var c Checkpoint
	if err := json.Unmarshal(e.Value, &c); err != nil {
		return Checkpoint{}, fmt.Errorf("bus: the checkpoint pointer of lane %d is not readable: %w", lane, err)
	}
	c.Revision = e.Revision
	return c, nil
}

// LoadCheckpoint returns the pointer and the blob, which the caller closes;
// ErrNotFound when there is none. Reading the blob ends with ctx and fails at
// its end when its digest is not the stored one.
func (b *Bus) LoadCheckpoint(ctx context.Context, lane int) (Checkpoint, io.ReadCloser, error) {
	for try := 0; ; try++ {
		c, err := b.Checkpoint(ctx, lane)
		if err != nil {
			return Checkpoint{}, nil, err
		}
		blob, err := b.state.Get(ctx, c.Object)
		if err == nil {
			return c, blob, nil
		}
		if !errors.Is(err, jetstream.ErrObjectNotFound) {
			return Checkpoint{}, nil, explain(err, fmt.Sprintf("bus: cannot read the checkpoint of lane %d", lane))
		}
		if try == 3 { // it was replaced between the two reads at most once or twice
			return Checkpoint{}, nil, fmt.Errorf("bus: the checkpoint of lane %d names the blob %s, which is gone: the bus's folder is damaged; restore it from a back-up", lane, c.Object)
		}
	}
}

func objectPrefix(lane int) string { return fmt.Sprintf("lane-%02d.", lane) }

// sweep removes what saves that failed left behind. A blob made on an older
// revision than the pointer's can never be named any more; one made on the
// newest may belong to the next owner's save under way.
func (b *Bus) sweep(ctx context.Context, lane int, now Checkpoint) {
	objects, err := b.state.List(ctx)
	if err != nil {
		return // nothing there, or the next start sweeps
	}
	for _, o := range objects {
		rest, ok := strings.CutPrefix(o.Name, objectPrefix(lane))
		if !ok || o.Name == now.Object {
			continue
		}
		text, _, _ := strings.Cut(rest, ".")
		if rev, err := strconv.ParseUint(text, 10, 64); err == nil && rev < now.Revision {
			b.dropObject(ctx, o.Name)
		}
	}
}

// dropObject removes an object and the marker that its removal leaves: every
// checkpoint has a name of its own, and markers would add up.
func (b *Bus) dropObject(ctx context.Context, name string) {
	if err := b.state.Delete(ctx, name); err != nil && !errors.Is(err, jetstream.ErrObjectNotFound) {
		b.cfg.Log.Warn("an old checkpoint could not be removed; it is at the next start", "object", name, "error", err)
		return
	}
	stream, err := b.js.Stream(ctx, "OBJ_"+objectState)
	if err == nil {
		err = stream.Purge(ctx, jetstream.WithPurgeSubject(objectMarker(name)))
	}
	if err != nil {
		b.cfg.Log.Debug("the marker of a removed checkpoint stays", "object", name, "error", err)
	}
}

package sink

import (
	"context"
	"errors"
	"time"

	"github.com/opencoc/coc/services/bus"
	"github.com/opencoc/coc/services/store"
)

// rows stores one stream whose rows have computed ids: written twice they are
// there once, so the position moves after the insert and there is no token.
type rows struct {
	follower
	open  func(context.Context, uint64) (*bus.Reader, error)
	delay time.Duration // how long a message waits for company
	from  string        // in a dead letter
	// insert stores the messages and returns how many rows they made. One that
	// cannot be read, or that the store refuses, gives store.ErrData.
	insert func(context.Context, []bus.Message) (int64, error)
}

func (f *rows) follow() error {
	err := f.run()
	if errors.Is(err, errEnded) {
		return nil
	}
	return err
}

func (f *rows) run() error {
	if err := f.begin(); err != nil {
		return err
	}
	r, err := f.follower.open(f.open)
	if err != nil {
		return err
	}
	defer r.Close()
	for f.reading.Err() == nil {
		msgs, err := f.gather(r)
		if len(msgs) > 0 {
			err = errors.Join(f.put(msgs), err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (f *rows) gather(r *bus.Reader) (msgs []bus.Message, err error) {
	var until time.Time
	for size := 0; len(msgs) < rowsMessages && size < rowsBytes; {
		m, ok, err := f.next(r, until)
		if err != nil || !ok {
			return msgs, err
		}
		if len(msgs) == 0 {
			until = time.Now().Add(f.delay)
		}
		msgs, size = append(msgs, m), size+len(m.Data)
	}
	return msgs, nil
}

func (f *rows) put(msgs []bus.Message) error {
	begun := time.Now()
	n, err := f.save(msgs)
	if err != nil {
		return err
	}
	last := msgs[len(msgs)-1]
	if err := f.record(bus.Cut{Done: last.Seq}); err != nil {
		return err
	}
	f.p.wrote(last.Seq, int64(len(msgs)), n, last.Time, f.bus.Now(), time.Since(begun))
	return nil
}

// save inserts; what is refused for its data is halved until the message at
// fault stands alone and goes to the dead letters.
func (f *rows) save(msgs []bus.Message) (n int64, err error) {
	err = f.repeat("insert "+f.name, func(ctx context.Context) (err error) {
		n, err = f.insert(ctx, msgs)
		return err
	})
	switch {
	case !errors.Is(err, store.ErrData):
		return n, err
	case len(msgs) == 1:
		return 0, f.giveUp(msgs[0], err)
	}
	left, err := f.save(msgs[:len(msgs)/2])
	if err != nil {
		return left, err
	}
	right, err := f.save(msgs[len(msgs)/2:])
	return left + right, err
}

func (f *rows) giveUp(m bus.Message, cause error) error {
	d := bus.DeadLetter{Reason: "bad_message", From: f.from, Source: m.Subject, Detail: cause.Error(), Seq: m.Seq, Subject: m.Subject, Data: m.Data}
	err := f.repeat("keep a dead letter", func(ctx context.Context) error { return f.bus.DeadLetter(ctx, d) })
	if err != nil {
		return err
	}
	f.p.deadLettered.Add(1)
	f.log.Error("a message went to the dead letters", "stream", f.name, "sequence", m.Seq, "error", cause)
	return nil
}

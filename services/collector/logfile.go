package collector

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/opencoc/coc/services/event"
)

// logfilePoll is how often a followed file is looked at. Notifications of the
// kernel would save little and are missed on network file systems.
const logfilePoll = 500 * time.Millisecond

// rotationGrace is how long a renamed file is read on while the new one is
// empty.
const rotationGrace = 10 * time.Second

// startLogfile follows a file.
func startLogfile(c *Collector, s *sourceState) func(context.Context) error {
	return func(ctx context.Context) error {
		zone := c.cfg.Zone
		if s.TZ != "" {
			z, err := loadZone(s.TZ)
			if err != nil {
				return fmt.Errorf("source %s: %w", s.Name, err)
			}
			zone = z
		}
		f := &follower{s: s, pack: s.packer(), parser: newLineParser(s.Format, zone, c.cfg.Bus.Now, 0)}
		f.parser.host, f.parser.tenant = s.Host, s.Tenant
		for k, v := range s.Labels {
			f.parser.labels = append(f.parser.labels, event.Label{Key: k, Value: v})
		}
		f.parser.bounds = func() event.Bounds { return event.LiveBounds(c.cfg.Bus.Now()) }
		defer f.close()
		return f.run(ctx)
	}
}

// follower reads one path through rotation, truncation and restarts.
type follower struct {
	s      *sourceState
	pack   *packer
	parser *lineParser

	file *logFile
	skip int   // events of the next line that are on the bus already
	old  int64 // lines too old to be taken
}

// run follows the file until ctx ends.
func (f *follower) run(ctx context.Context) error {
	if err := f.resume(); err != nil {
		return err
	}
	for {
		more, err := f.round(ctx)
		if err != nil {
			return err
		}
		if more {
			continue
		}
		f.s.idle()
		if err := sleep(ctx, logfilePoll); err != nil {
			return nil
		}
	}
}

// resume opens the file that was read last, where it was left.
func (f *follower) resume() error {
	var at filePlace
	skip, found, err := f.s.resume(&at)
	if err != nil {
		return err
	}
	if !found || at.Path != f.s.Path {
		return nil // begins at the start of the file
	}
	file, err := findFile(f.s.Path, at)
	if err != nil {
		return err
	}
	if file == nil {
		f.s.log.Warn("the file read last was rotated away and is not beside it: what was not read of it is lost to this source; import it with coc import", "path", f.s.Path, "offset", at.Offset)
		return nil
	}
	f.file, f.skip = file, skip
	return nil
}

// round reads what is there, and says whether there may be more at once.
func (f *follower) round(ctx context.Context) (more bool, err error) {
	if f.file == nil {
		if f.file, err = openLog(f.s.Path, f.s.Path); err != nil {
			f.s.set(sourceWaiting, err.Error())
			return false, nil
		}
	}
	f.s.set(sourceRunning, f.detail())
	if err := f.file.checkTruncated(); err != nil {
		return false, err
	}
	if f.file.truncated {
		f.s.log.Info("the file was cut: reading from its start", "path", f.s.Path)
		f.file.truncated = false
		f.skip = 0
	}
	if err := f.readAll(ctx); err != nil {
		return false, err
	}
	gone, err := f.replaced()
	if err != nil || !gone {
		return false, err
	}
	// Rotated: what came between the last reading and the check is read once
	// more, then a last line without its newline counts as one.
	if err := f.readAll(ctx); err != nil {
		return false, err
	}
	if line, size, cut := f.file.lines.rest(); size > 0 {
		if err := f.line(ctx, line, size, cut); err != nil {
			return false, err
		}
	}
	if err := f.pack.flush(ctx); err != nil {
		return false, err
	}
	next, err := f.file.next()
	if err != nil {
		return false, err
	}
	f.close()
	f.file = next // nil: the path names nothing just now
	return true, nil
}

// replaced says whether the path now names another file.
func (f *follower) replaced() (bool, error) {
	if f.file.opened != f.s.Path {
		return true, nil // an older file is done when it is read
	}
	gone, err := f.file.replaced()
	if err != nil || !gone {
		return false, err
	}
	// A daemon writes on to the renamed file until it is told: wait for the new
	// one to be written to.
	if f.file.replacedAt.IsZero() {
		f.file.replacedAt = f.s.c.cfg.Now()
	}
	info, err := os.Stat(f.s.Path)
	return err == nil && (info.Size() > 0 || f.s.c.cfg.Now().Sub(f.file.replacedAt) > rotationGrace), nil
}

func (f *follower) detail() string {
	if f.old > 0 {
		return fmt.Sprintf("%d lines are older than 7 days and were left out: bring them in with coc import %s", f.old, f.s.Path)
	}
	return "polling"
}

// readAll reads whole lines to the end of the file.
func (f *follower) readAll(ctx context.Context) error {
	for n := 0; ; n++ {
		line, size, cut, err := f.file.lines.next()
		switch {
		case errors.Is(err, io.EOF):
			f.s.claim.Store(f.s.c.now())
			return f.pack.flush(ctx)
		case err != nil:
			return fmt.Errorf("read %s: %w", f.file.opened, err)
		}
		if err := f.line(ctx, line, size, cut); err != nil {
			return err
		}
		if n%limitParcelRows == limitParcelRows-1 {
			if err := f.pack.flush(ctx); err != nil {
				return err
			}
		}
	}
}

// line hands one line's events over.
func (f *follower) line(ctx context.Context, raw []byte, size int64, cut bool) error {
	before, err := f.file.place()
	if err != nil {
		return err
	}
	f.file.offset += size
	after, err := f.file.place()
	if err != nil {
		return err
	}
	drafts, err := f.parser.parse(string(raw))
	skip := f.skip
	f.skip = 0
	if err != nil {
		return f.refused(ctx, err, raw, before, after)
	}
	if cut {
		for i := range drafts {
			drafts[i].Mark("cut:line")
		}
	}
	for i := range drafts {
		if t := drafts[i].Time; t > f.s.claim.Load() {
			f.s.claim.Store(min(t, f.s.c.now()))
		}
	}
	return f.pack.add(ctx, drafts, before, after, skip)
}

// refused counts a line that is no event. Lines that are too old stay in their
// file, which is said; others go to the dead letters.
func (f *follower) refused(ctx context.Context, why error, raw []byte, before, after filePlace) error {
	r := new(event.Refusal)
	if asRefusal(why, &r) && r.Reason == event.TooOld {
		f.old++
		f.s.refuse(f.s.Name, r.Reason, 1)
	} else if err := f.s.refuseItem(ctx, f.s.Name, why, raw, "", 0); err != nil {
		return err
	}
	return f.pack.add(ctx, nil, before, after, 0)
}

func (f *follower) close() {
	if f.file != nil {
		f.file.f.Close()
		f.file = nil
	}
}

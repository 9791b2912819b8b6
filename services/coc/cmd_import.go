package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/opencoc/coc/services/collector"
	"github.com/opencoc/coc/services/event"
)

// progressEvery is how often a line of progress is renewed.
const progressEvery = 200 * time.Millisecond

// ImportCmd brings log files in.
type ImportCmd struct {
	Client   ClientFlags       `embed:""`
	Files    []string          `arg:"" name:"file" help:"Files to import, .gz too; - is standard input."`
	Format   string            `enum:",sshd,syslog,access,json" default:"" placeholder:"FORMAT" help:"Format of the lines: sshd, syslog, access or json (default: guessed from the first lines)."`
	Year     int               `placeholder:"YEAR" help:"Year of the first line, for logs without years (default: the one that brings it nearest to now)."`
	TZ       string            `name:"tz" placeholder:"ZONE" help:"Time zone of logs without one, such as Europe/Amsterdam (default: the hoster's)."`
	Zone     string            `default:"${zone}" env:"COC_ZONE" placeholder:"ZONE" help:"With --dry-run: the hoster's time zone (default: ${default})."`
	Host     string            `placeholder:"NAME" help:"Machine of lines that name none (default: none)."`
	Tenant   string            `placeholder:"ID" help:"Tenant of lines that name none (default: none)."`
	Label    map[string]string `placeholder:"KEY=VALUE" help:"Label put on every event; may be repeated (default: none)."`
	Lateness time.Duration     `placeholder:"DURATION" help:"How far lines may be out of order in time (default: 1h)."`
	DryRun   bool              `help:"Print the events as JSON lines and import nothing; needs no server (default: import)."`
	Again    bool              `help:"Import also what was imported before, a second time (default: only what is new)."`
	NoWait   bool              `help:"Return when the events are on the bus (default: when engine and sink are through with them)."`
	JSON     bool              `name:"json" help:"Print each file's sum as JSON, one a line (default: as text)."`
}

// Run imports file after file; the first that fails ends it.
func (c *ImportCmd) Run(g *Globals) error {
	o := collector.ImportOptions{Format: c.Format, Year: c.Year, TZ: c.TZ, Host: c.Host, Tenant: c.Tenant, Labels: c.Label, Lateness: c.Lateness, Again: c.Again}
	if err := o.Validate(); err != nil {
		return usageError{err}
	}
	if c.DryRun {
		return c.dryRun(g, o)
	}
	cl, err := c.Client.connect(g)
	if err != nil {
		return err
	}
	// An import is answered when it is stored; a full bus may hold it for long.
	up := &importer{cmd: c, g: g, client: &collector.ImportClient{HTTP: newHTTP(0), URL: cl.url, Token: cl.token}, bar: newProgress(g)}
	for _, path := range c.Files {
		if err := up.file(path, o); err != nil {
			up.bar.clear()
			return fmt.Errorf("%s: %w", safe(path), cl.importFailed(err))
		}
	}
	return up.sum()
}

// importFailed puts a broken connection into the words of the other commands.
func (c *client) importFailed(err error) error {
	if opErr := c.unreachable(err); c.local != "" && opErr.Error() == noInstance(c.local).Error() {
		return opErr
	}
	return err
}

type importer struct {
	cmd    *ImportCmd
	g      *Globals
	client *collector.ImportClient
	bar    *progress
	files  int
	total  collector.Summary
}

func (u *importer) file(path string, o collector.ImportOptions) error {
	began := u.g.Now()
	show := func(p collector.Progress) { u.bar.show(path, p) }
	var sum collector.Summary
	var err error
	if path == "-" {
		var spooled string
		if spooled, err = spool(u.g.Stdin); err != nil {
			return err
		}
		defer os.Remove(spooled)
		sum, err = u.client.ImportFrom(u.g.Ctx, "-", func() (io.ReadCloser, error) { return os.Open(spooled) }, o, show)
	} else {
		sum, err = u.client.Import(u.g.Ctx, path, o, show)
	}
	if err != nil {
		return err
	}
	if !u.cmd.NoWait && sum.ID != "" && sum.Seq > 0 {
		if _, err := u.client.Wait(u.g.Ctx, sum.ID, func(s collector.ImportState) {
			u.bar.text(fmt.Sprintf("%s: stored, engine at %s and sink at %s of %s", path, number(int64(s.Engine)), number(int64(s.Sink)), number(int64(s.Seq))))
		}); err != nil {
			return err
		}
	}
	u.bar.clear()
	u.files++
	u.total.Events += sum.Events
	u.total.Lines += sum.Lines
	u.total.Seconds += u.g.Now().Sub(began).Seconds()
	if u.cmd.JSON {
		return writeLines(u.g.Stdout, []collector.Summary{sum})
	}
	_, err = io.WriteString(u.g.Stdout, importText(&sum, path, u.g.Now().Sub(began)))
	return err
}

func (u *importer) sum() error {
	if u.cmd.JSON || u.files < 2 {
		return nil
	}
	_, err := fmt.Fprintf(u.g.Stdout, "%s: %s from %s in %.1f s\n", plural(int64(u.files), "file", "files"),
		plural(u.total.Events, "event", "events"), plural(u.total.Lines, "line", "lines"), u.total.Seconds)
	return err
}

// importText is the closing sum of one file.
func importText(s *collector.Summary, path string, took time.Duration) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: ", safe(path))
	switch {
	case s.Known:
		b.WriteString("imported before, nothing added; --again insists\n")
		return b.String()
	case s.Resumed:
		b.WriteString("an interrupted import was finished: ")
	case s.Skipped > 0:
		fmt.Fprintf(&b, "its first %s were imported before; added ", size(float64(s.Skipped)))
	}
	fmt.Fprintf(&b, "%s from %s", plural(s.Events, "event", "events"), plural(s.Lines, "line", "lines"))
	if s.Format != "" {
		fmt.Fprintf(&b, " (%s)", safe(s.Format))
	}
	seconds := took.Seconds()
	fmt.Fprintf(&b, " in %.1f s", seconds)
	if seconds > 0 {
		fmt.Fprintf(&b, ", %s events/s", number(int64(float64(s.Events)/seconds)))
	}
	b.WriteByte('\n')
	if s.First != 0 {
		fmt.Fprintf(&b, "  from %s to %s UTC\n", moment(s.First, time.UTC), moment(s.Last, time.UTC))
	}
	for _, l := range []struct {
		head   string
		counts map[string]int64
	}{{"events", s.Actions}, {"refused", s.Refused}, {"marked", s.Marked}} {
		if len(l.counts) > 0 {
			fmt.Fprintf(&b, "  %s: %s\n", l.head, countsText(l.counts))
		}
	}
	for _, x := range s.Examples[:min(len(s.Examples), maxExamples)] {
		fmt.Fprintf(&b, "  line %s: %s\n", number(x.Line), safe(strings.Join(slices.DeleteFunc([]string{x.Reason, x.Field, x.Detail}, func(s string) bool { return s == "" }), ", ")))
	}
	return b.String()
}

// maxCounts bounds how many counts are listed, the largest.
const maxCounts = 8

// maxExamples bounds the refused lines that are shown; --json has more of them.
const maxExamples = 3

func countsText(counts map[string]int64) string {
	names := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		if d := counts[b] - counts[a]; d != 0 {
			return int(max(-1, min(1, d)))
		}
		return strings.Compare(a, b)
	})
	var list []string
	for _, n := range names[:min(len(names), maxCounts)] {
		list = append(list, fmt.Sprintf("%s %s", safe(n), number(counts[n])))
	}
	if len(names) > maxCounts {
		rest := int64(0)
		for _, n := range names[maxCounts:] {
			rest += counts[n]
		}
		list = append(list, "others "+number(rest))
	}
	return strings.Join(list, ", ")
}

// spool copies standard input to a file, since an import reads its input more
// than once.
func spool(in io.Reader) (path string, err error) {
	f, err := os.CreateTemp("", "coc-stdin-*") // mode 0600
	if err != nil {
		return "", fmt.Errorf("cannot keep standard input for a second reading: %w", err)
	}
	_, cerr := io.Copy(f, in)
	if err := errors.Join(cerr, f.Close()); err != nil {
		_ = os.Remove(f.Name())
		return "", fmt.Errorf("cannot keep standard input for a second reading: %w", err)
	}
	return f.Name(), nil
}

// dryRun prints the events of the files, names of people included: it is for
// the eyes of who has the file.
func (c *ImportCmd) dryRun(g *Globals, o collector.ImportOptions) error {
	zone, err := loadZone(c.Zone)
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(g.Stdout, 256<<10)
	var line []byte
	print := func(e *event.Event) error {
		line = append(event.AppendJSON(line[:0], e), '\n')
		_, err := out.Write(line)
		return err
	}
	for _, path := range c.Files {
		began := g.Now()
		sum, err := c.parse(g, path, o, zone, print)
		if err = errors.Join(err, out.Flush()); err != nil {
			return fmt.Errorf("%s: %w", safe(path), err)
		}
		fmt.Fprint(g.Stderr, importText(&sum, path, g.Now().Sub(began)))
	}
	return nil
}

func (c *ImportCmd) parse(g *Globals, path string, o collector.ImportOptions, zone *time.Location, fn func(*event.Event) error) (collector.Summary, error) {
	if path != "-" {
		return collector.ParsePath(g.Ctx, path, o, g.Now(), zone, fn)
	}
	spooled, err := spool(g.Stdin)
	if err != nil {
		return collector.Summary{}, err
	}
	defer os.Remove(spooled)
	f, err := os.Open(spooled)
	if err != nil {
		return collector.Summary{}, err
	}
	defer f.Close()
	return collector.ParseFile(g.Ctx, f, o, g.Now(), zone, fn)
}

// loadZone finds the zone of a flag.
func loadZone(name string) (*time.Location, error) {
	z, err := time.LoadLocation(name)
	if err != nil || name == "" {
		return nil, usageError{fmt.Errorf("--zone %q is not a time zone: give a name such as Europe/Amsterdam", name)}
	}
	return z, nil
}

// progress is one line on a terminal that is written over; elsewhere nothing.
type progress struct {
	w     io.Writer
	on    bool
	now   func() time.Time
	last  time.Time
	began time.Time
	stage string
	from  int64 // bytes when the stage began
}

func newProgress(g *Globals) *progress {
	return &progress{w: g.Stderr, on: isTerminal(g.Stderr), now: g.Now}
}

func (p *progress) show(name string, s collector.Progress) {
	if !p.on {
		return
	}
	now := p.now()
	if s.Stage != p.stage {
		p.stage, p.began, p.from = s.Stage, now, s.Bytes
	}
	text := fmt.Sprintf("%s: %s %s", name, s.Stage, size(float64(s.Bytes)))
	if s.Total > 0 {
		text += " of " + size(float64(s.Total)) + ", " + share(s.Bytes, s.Total)
	}
	if d := now.Sub(p.began).Seconds(); d >= 1 {
		text += ", " + size(float64(s.Bytes-p.from)/d) + "/s"
	}
	p.text(text)
}

func (p *progress) text(s string) {
	now := p.now()
	if !p.on || now.Sub(p.last) < progressEvery {
		return
	}
	p.last = now
	fmt.Fprintf(p.w, "\r\x1b[K%s", cut(safe(s), maxCell)) // to the line's start, clear it
}

// clear takes the line away.
func (p *progress) clear() {
	if p.on && !p.last.IsZero() {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.last = time.Time{}
	}
}

package collector

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/opencoc/coc/services/event"
)

const (
	// journalFirst is how far back the journal is read the first time: enough
	// for a newcomer to see something, little enough to be judged as live.
	journalFirst = time.Hour
	// journalPause without a line means that the journal was read to its end.
	journalPause = 200 * time.Millisecond
	// limitStderr bounds what journalctl may say.
	limitStderr = 4 << 10
)

// journalPlace is where the journal source goes on.
type journalPlace struct {
	Cursor string `json:"cursor"`
	Micros int64  `json:"micros"` // time of that entry, should the cursor be gone
}

// journalFields are all that is asked for.
var journalFields = []string{"MESSAGE", "SYSLOG_IDENTIFIER", "SYSLOG_PID", "PRIORITY", "_COMM", "_PID", "_EXE", "_HOSTNAME", "_SYSTEMD_UNIT", "_SOURCE_REALTIME_TIMESTAMP", "_TRANSPORT"}

// startJournal follows the systemd journal through journalctl: its files have no
// stable format of their own, and libsystemd would need cgo.
func startJournal(c *Collector, s *sourceState) func(context.Context) error {
	return func(ctx context.Context) error {
		program, err := exec.LookPath("journalctl")
		if err != nil {
			return &errAbsent{"journalctl is not installed here: follow a log file instead (kind: logfile in sources.yaml)"}
		}
		note, err := journalReadable(ctx, program)
		if err != nil {
			return err
		}
		j := &journalReader{s: s, program: program, note: note, pack: s.packer(), bounds: func() event.Bounds { return event.LiveBounds(c.cfg.Bus.Now()) }}
		return j.run(ctx)
	}
}

// journalReadable asks for one entry, to find out what may be read.
func journalReadable(ctx context.Context, program string) (note string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "--output=cat", "--lines=1", "--no-pager")
	var stderr limitedBuffer
	cmd.Stderr = &stderr
	err = cmd.Run()
	said := stderr.String()
	const mend = "let it: sudo usermod -aG systemd-journal $USER, then log in again"
	switch {
	case strings.Contains(said, "insufficient permissions"):
		return "", &errAbsent{"this user may not read the journal; " + mend}
	case strings.Contains(said, "No journal files were found"):
		return "", &errAbsent{"this machine keeps no journal; make it keep one: sudo mkdir -p /var/log/journal && sudo systemctl restart systemd-journald"}
	case strings.Contains(said, "not seeing messages from other users"):
		return "this user sees its own messages only; " + mend, nil
	case err != nil && ctx.Err() == nil:
		return "", fmt.Errorf("journalctl does not work here: %w: %s", err, firstLine(said))
	}
	return "", nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}

// journalReader runs one journalctl.
type journalReader struct {
	s       *sourceState
	program string
	note    string
	pack    *packer
	bounds  func() event.Bounds

	at   journalPlace
	skip int
	// behind is the time in microseconds up to which entries are on the bus,
	// when the cursor is gone.
	behind int64
	d      [1]draft
}

type journalLine struct {
	text []byte
	cut  bool
	err  error
}

func (j *journalReader) run(ctx context.Context) error {
	skip, found, err := j.s.resume(&j.at)
	if err != nil {
		return err
	}
	j.skip = skip
	args := []string{"--output=json", "--all", "--follow", "--no-pager", "--lines=all", "--output-fields=" + strings.Join(journalFields, ",")}
	switch {
	case found && skip > 0:
		args = append(args, "--cursor="+j.at.Cursor)
	case found:
		args = append(args, "--after-cursor="+j.at.Cursor)
	default:
		args = append(args, "--since=@"+strconv.FormatInt(j.s.c.cfg.Bus.Now().Add(-journalFirst).Unix(), 10))
	}
	err = j.follow(ctx, args)
	if err != nil && found && strings.Contains(err.Error(), "cursor") {
		// The entry was removed (vacuumed): go on behind its time.
		j.s.log.Warn("the journal forgot the entry read last; going on behind its time", "error", err)
		j.behind, j.skip = j.at.Micros, 0
		args[len(args)-1] = "--since=@" + strconv.FormatInt(j.at.Micros/1e6, 10)
		err = j.follow(ctx, args)
	}
	return err
}

func (j *journalReader) follow(ctx context.Context, args []string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, j.program, args...)
	var stderr limitedBuffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("journalctl: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("journalctl: %w", err)
	}
	lines := make(chan journalLine, 256)
	go readJournal(ctx, out, lines)
	detail := "journalctl --follow"
	if j.note != "" {
		detail += "; " + j.note
	}
	j.s.set(sourceRunning, detail)
	err = j.pump(ctx, lines)
	cancel()
	for range lines { // its reader ends when the pipe does
	}
	waitErr := cmd.Wait()
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return err
	case stderr.Len() > 0:
		return fmt.Errorf("journalctl ended: %s", firstLine(stderr.String()))
	}
	return fmt.Errorf("journalctl ended: %w", waitErr)
}

// readJournal brings journalctl's lines to the pump until its output ends.
func readJournal(ctx context.Context, out io.Reader, lines chan<- journalLine) {
	defer close(lines)
	r := newLineReader(out)
	for {
		line, _, cut, err := r.next()
		l := journalLine{bytes.Clone(line), cut, err}
		select {
		case lines <- l:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// pump hands entries over, and what has gathered at each tick.
func (j *journalReader) pump(ctx context.Context, lines <-chan journalLine) error {
	tick := time.NewTicker(journalPause)
	defer tick.Stop()
	came := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := j.pack.flush(ctx); err != nil {
				return err
			}
			if !came {
				j.s.idle()
			}
			came = false
		case l, ok := <-lines:
			came = true
			if !ok {
				return nil
			}
			if l.err != nil {
				return errors.Join(j.pack.flush(ctx), l.err)
			}
			if err := j.entry(ctx, l.text, l.cut); err != nil {
				return err
			}
		}
	}
}

// entry hands one entry over.
func (j *journalReader) entry(ctx context.Context, line []byte, cut bool) error {
	if cut || len(line) == 0 || line[0] != '{' {
		if len(line) > 0 {
			j.s.refuse(j.s.Name, event.TooLong, 1)
			j.s.log.Warn("an entry of the journal is no JSON within the limit and is left out", "bytes", len(line))
		}
		return nil
	}
	var e journalEntry
	if err := json.Unmarshal(line, &e); err != nil {
		return j.s.refuseItem(ctx, j.s.Name, &event.Refusal{Reason: event.BadJSON, Detail: err.Error()}, line, "", 0)
	}
	micros := e.number(e.Realtime)
	if j.behind > 0 && micros <= j.behind {
		return nil
	}
	// The same place means "this entry" with a skip, and "behind it" without.
	here := journalPlace{e.Cursor, micros}
	d := &j.d[0]
	n := j.draft(d, &e)
	if err := d.Validate(j.bounds()); err != nil {
		j.at = here
		if err := j.s.refuseItem(ctx, j.s.Name, err, line, "", 0); err != nil {
			return err
		}
		return j.pack.add(ctx, nil, here, here, 0)
	}
	d.times = n
	if d.Time > j.s.claim.Load() {
		j.s.claim.Store(min(d.Time, j.s.c.now()))
	}
	skip := j.skip
	j.skip, j.at = 0, here
	return j.pack.add(ctx, j.d[:], here, here, skip)
}

// draft fills d from an entry and returns how often it happened.
func (j *journalReader) draft(d *draft, e *journalEntry) int {
	*d = draft{Event: event.Event{Labels: d.Labels[:0]}, names: d.names[:0]}
	// When the sender said it, unless its clock and the journal's disagree.
	d.Time = e.number(e.Realtime) / 1000
	if said := e.number(e.Source) / 1000; said > 0 && said <= d.Time && d.Time-said < time.Hour.Milliseconds() {
		d.Time = said
	}
	message, mark := cleanLine(e.text(e.Message))
	d.Message = message
	d.HostName = printable(e.text(e.Host))
	d.ProcessName = baseName(printable(e.text(e.Identifier)))
	if d.ProcessName == "" {
		d.ProcessName = printable(e.text(e.Comm))
	}
	d.ProcessExecutable = e.text(e.Exe)
	pid := e.number(e.SyslogPID)
	if pid == 0 {
		pid = e.number(e.PID)
	}
	if pid > 0 {
		d.SetPID(pid)
	}
	n, inner := 1, message
	if times, what, ok := repeated(message); ok {
		n, inner = times, what
	}
	readMessage(d, inner)
	d.label("unit", printable(e.text(e.Unit)))
	d.label("priority", e.text(e.Priority))
	if mark != "" {
		d.Mark(mark)
	}
	if d.HostName == "" {
		d.HostName = j.s.Host
	}
	d.TenantID = j.s.Tenant
	for k, v := range j.s.Labels {
		if d.Label(k) == "" {
			d.label(k, v)
		}
	}
	if n > 1 {
		d.label("repeated", itoa(int64(n)))
		if n > limitRepeat {
			d.Mark("cut:repeated")
		}
	}
	if err := d.Validate(j.bounds()); err != nil {
		j.plain(d)
	}
	return min(n, limitRepeat)
}

// plain keeps an entry whose parts are not acceptable as its message alone; one
// whose time is refused stays refused.
func (j *journalReader) plain(d *draft) {
	names := d.names
	if d.UserName != "" && len(names) < limitNames {
		names = append(names, d.UserName)
	}
	*d = draft{Event: event.Event{Time: d.Time, Message: d.Message, TenantID: d.TenantID, Marks: d.Marks}, names: names}
	d.what(kindSystem, actionLine, "")
	d.Mark("unparsed:message")
}

// journalEntry is an entry as journalctl writes it. A field is a text, an array
// of byte values when it is no text, an array of both when it is there twice, or
// null.
type journalEntry struct {
	Cursor     string         `json:"__CURSOR"`
	Realtime   jsontext.Value `json:"__REALTIME_TIMESTAMP"`
	Source     jsontext.Value `json:"_SOURCE_REALTIME_TIMESTAMP"`
	Message    jsontext.Value `json:"MESSAGE"`
	Identifier jsontext.Value `json:"SYSLOG_IDENTIFIER"`
	SyslogPID  jsontext.Value `json:"SYSLOG_PID"`
	Priority   jsontext.Value `json:"PRIORITY"`
	Comm       jsontext.Value `json:"_COMM"`
	PID        jsontext.Value `json:"_PID"`
	Exe        jsontext.Value `json:"_EXE"`
	Host       jsontext.Value `json:"_HOSTNAME"`
	Unit       jsontext.Value `json:"_SYSTEMD_UNIT"`
}

// text reads a field in any of its forms.
func (e *journalEntry) text(v jsontext.Value) string {
	switch v.Kind() {
	case '"':
		var s string
		if json.Unmarshal(v, &s) == nil {
			return s
		}
	case '0':
		return string(v)
	case '[':
		var codes []uint8Value
		if json.Unmarshal(v, &codes) == nil {
			b := make([]byte, len(codes))
			for i, c := range codes {
				b[i] = byte(c)
			}
			return string(b)
		}
		var several []jsontext.Value
		if json.Unmarshal(v, &several) == nil && len(several) > 0 && several[0].Kind() != '[' {
			return e.text(several[0])
		}
	}
	return ""
}

// uint8Value is a byte written as a number: a []uint8 would be read as base64.
type uint8Value uint16

func (e *journalEntry) number(v jsontext.Value) int64 {
	n, err := strconv.ParseInt(e.text(v), 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// limitedBuffer keeps the first bytes written to it.
type limitedBuffer struct{ bytes.Buffer }

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if room := limitStderr - b.Len(); room > 0 {
		b.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

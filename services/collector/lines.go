package collector

import (
	"strings"
	"time"

	"github.com/opencoc/coc/services/event"
)

// Format is a form of log line that can be read.
type Format struct{ Name, Doc string }

// Names of formats.
const (
	formatSSHD   = "sshd"
	formatSyslog = "syslog"
	formatAccess = "access"
	formatJSON   = "json"
)

// Formats lists the formats of logfile sources and imports.
func Formats() []Format {
	return []Format{
		{formatSSHD, "an auth.log: syslog lines of sshd, sudo, su, useradd, CRON, systemd-logind; the same as syslog"},
		{formatSyslog, "syslog lines of any program: RFC 3164, today's rsyslog with ISO times, RFC 5424"},
		{formatAccess, "a web server's access log, common or combined format, a duration behind it where there is one"},
		{formatJSON, "events as JSON, one object a line, or CloudEvents 1.0"},
	}
}

func knownFormat(name string) bool {
	for _, f := range Formats() {
		if f.Name == name {
			return true
		}
	}
	return false
}

func formatNames() string {
	var names []string
	for _, f := range Formats() {
		names = append(names, f.Name)
	}
	return strings.Join(names, ", ")
}

// lineParser turns the lines of one log into events. It keeps what lines depend
// on one another: the year, and what "last message repeated" repeats. One
// goroutine at a time.
type lineParser struct {
	format       string
	clock        clock
	host, tenant string
	labels       []event.Label
	bounds       func() event.Bounds
	jsonReader   *jsonReader
	drafts       []draft
	lastMessage  string // of lastHeader's host and tag
	lastHeader   header
}

// newLineParser returns a parser of one log. year is that of its first line; 0
// finds each line's year from now.
func newLineParser(format string, zone *time.Location, now func() time.Time, year int) *lineParser {
	return &lineParser{
		format: format,
		clock:  clock{zone: zone, now: now, year: year},
		bounds: func() event.Bounds { return event.Bounds{Now: now()} },
	}
}

// parse returns the events of one line, good until the next call. A line of
// JSON may be refused (*event.Refusal); a line of text never is: what nobody
// understands is a log_line. An empty line is no event.
func (p *lineParser) parse(line string) ([]draft, error) {
	clean, mark := cleanLine(line)
	p.drafts = p.drafts[:0]
	if strings.TrimSpace(clean) == "" {
		return nil, nil
	}
	if p.format == formatJSON {
		return p.parseJSON(line)
	}
	d := p.next()
	d.Message = clean
	repeats := 1
	if p.format == formatAccess {
		p.parseAccess(d, clean)
	} else {
		repeats = p.parseSyslog(d, clean)
	}
	if mark != "" {
		d.Mark(mark)
	}
	p.complete(d)
	if err := d.Validate(p.bounds()); err != nil {
		if r := new(event.Refusal); asRefusal(err, &r) && (r.Reason == event.TooOld || r.Reason == event.TooNew) {
			return nil, err
		}
		p.plain(d)
		if err := d.Validate(p.bounds()); err != nil {
			return nil, err
		}
	}
	return p.repeat(repeats), nil
}

func (p *lineParser) next() *draft {
	if len(p.drafts) < cap(p.drafts) {
		p.drafts = p.drafts[:len(p.drafts)+1]
		d := &p.drafts[len(p.drafts)-1]
		*d = draft{Event: event.Event{Labels: d.Labels[:0]}, names: d.names[:0]}
		return d
	}
	p.drafts = append(p.drafts, draft{})
	return &p.drafts[len(p.drafts)-1]
}

// parseSyslog fills d from a syslog line and returns how often it happened.
func (p *lineParser) parseSyslog(d *draft, line string) int {
	h := readHeader(line, &p.clock)
	if !h.ok {
		d.what(kindSystem, actionLine, "")
		p.guessTime(d)
		return 1
	}
	d.Time, d.HostName, d.ProcessName = h.time, h.host, h.tag
	if h.hasPID {
		d.SetPID(h.pid)
	}
	n, msg := 1, h.msg
	if times, inner, ok := repeated(h.msg); ok {
		n, msg = times, inner
	} else if times, ok := lastRepeated(h.msg); ok && p.lastMessage != "" && p.lastHeader.host == h.host {
		n, msg = times, p.lastMessage
		d.ProcessName = p.lastHeader.tag
		if p.lastHeader.hasPID {
			d.SetPID(p.lastHeader.pid)
		}
	}
	readMessage(d, msg)
	p.lastHeader, p.lastMessage = h, msg
	return n
}

// guessTime gives a line without a readable time that of the line before it, or
// of now, and says so.
func (p *lineParser) guessTime(d *draft) {
	d.Time = p.clock.last
	if d.Time == 0 {
		d.Time = p.clock.now().UnixMilli()
	}
	d.Mark("guessed:time")
}

// complete adds what the source knows and its lines do not say.
func (p *lineParser) complete(d *draft) {
	if d.HostName == "" {
		d.HostName = p.host
	}
	if d.TenantID == "" {
		d.TenantID = p.tenant
	}
	for _, l := range p.labels {
		if d.Label(l.Key) == "" && len(d.Labels) < event.LimitLabels {
			d.SetLabel(l.Key, l.Value)
		}
	}
}

// plain takes back all that was read from a line whose parts are not
// acceptable, such as a name of 600 bytes: the line itself is kept.
func (p *lineParser) plain(d *draft) {
	at, message, marks, host, tag := d.Time, d.Message, d.Marks, d.HostName, d.ProcessName
	if at < event.MinTime || at >= event.MaxTime {
		at = 0
	}
	names := d.names
	if d.UserName != "" && len(names) < limitNames {
		names = append(names, d.UserName)
	}
	*d = draft{Event: event.Event{Time: at, Message: message, Marks: marks, Labels: d.Labels[:0]}, names: names}
	d.what(kindSystem, actionLine, "")
	d.Mark("unparsed:message")
	if len(host) <= limitHost {
		d.HostName = host
	}
	if len(tag) <= limitTag {
		d.ProcessName = tag
	}
	if at == 0 {
		p.guessTime(d)
	}
	p.complete(d)
}

// repeat says that the parsed event happened n times, at most limitRepeat; a
// label says how often the line said.
func (p *lineParser) repeat(n int) []draft {
	if n > 1 {
		d := &p.drafts[0]
		d.label("repeated", itoa(int64(n)))
		if n > limitRepeat {
			d.Mark("cut:repeated")
		}
		d.times = min(n, limitRepeat)
	}
	return p.drafts
}

// parseJSON reads a line that is an event or a CloudEvent.
func (p *lineParser) parseJSON(line string) ([]draft, error) {
	if p.jsonReader == nil {
		p.jsonReader = newJSONReader()
	}
	d := p.next()
	if err := p.jsonReader.read([]byte(strings.TrimRight(line, "\r\n")), d); err != nil {
		return nil, err
	}
	p.complete(d)
	if err := d.Validate(p.bounds()); err != nil {
		return nil, err
	}
	return p.drafts, nil
}

// LineOptions says how TestLine reads a line.
type LineOptions struct {
	Format       string // "": guess
	Year         int
	Zone         *time.Location // nil: UTC
	Host, Tenant string
	Now          time.Time
}

// TestLine shows what a line becomes: the format it was read as, and its
// events, with secrets cut and names left as they are. An error says what is
// wrong with it.
func TestLine(line string, o LineOptions) (format string, events []event.Event, err error) {
	if o.Zone == nil {
		o.Zone = time.UTC
	}
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	if o.Format == "" {
		o.Format = guessFormat([]string{line})
	}
	p := newLineParser(o.Format, o.Zone, func() time.Time { return o.Now }, o.Year)
	p.host, p.tenant = o.Host, o.Tenant
	drafts, err := p.parse(line)
	if err != nil {
		return o.Format, nil, err
	}
	for i := range drafts {
		e := drafts[i].Event
		e.Labels = append([]event.Label(nil), e.Labels...)
		cutSecrets(&e)
		e.Cut()
		for range drafts[i].rows() {
			events = append(events, e)
		}
	}
	return o.Format, events, nil
}

// guessFormat looks at the first lines of a log.
func guessFormat(lines []string) string {
	votes := map[string]int{}
	c := clock{zone: time.UTC, now: time.Now}
	for _, line := range lines {
		line, _ = cleanLine(line)
		text := strings.TrimSpace(line)
		var d draft
		switch {
		case text == "":
		case strings.HasPrefix(text, "{"):
			votes[formatJSON]++
		case readAccess(&d, text):
			votes[formatAccess]++
		case readHeader(text, &c).ok:
			votes[formatSyslog]++
		}
	}
	best := formatSyslog
	for _, f := range [...]string{formatAccess, formatJSON} {
		if votes[f] > votes[best] {
			best = f
		}
	}
	return best
}

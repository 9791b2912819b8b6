package collector

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencoc/coc/services/bus"
	"github.com/opencoc/coc/services/event"
)

// importPrefix begins the collector ids of imports.
const importPrefix = "import-"

// ImportOptions says how a file is read. All but Lateness and Again decide what
// its events are, so they are part of an import's identity.
type ImportOptions struct {
	// Format is sshd, syslog, access or json; "" guesses from the first lines.
	Format string
	// Year is that of the first line, for logs without years; 0: the latest year
	// in which the first line is not in the future.
	Year int
	// TZ is an IANA zone for logs without one; "": the hoster's.
	TZ string
	// Host and Tenant are for lines that name none.
	Host, Tenant string
	// Labels are put on every event.
	Labels map[string]string
	// Lateness is how disordered the file may be: an event that is older than the
	// latest before it by more is stored and not judged. Default 1 h.
	Lateness time.Duration
	// Again imports what was imported before once more, as new events.
	Again bool
	// Source is event.source. Default "import".
	Source string
}

// Validate fills in defaults and refuses what would fail later.
func (o *ImportOptions) Validate() error {
	if o.Source == "" {
		o.Source = "import"
	}
	if o.Lateness == 0 {
		o.Lateness = importLateness
	}
	switch {
	case o.Format != "" && !knownFormat(o.Format):
		return fmt.Errorf("unknown format %q: known are %s", o.Format, formatNames())
	case o.Year != 0 && (o.Year < 1970 || o.Year > 2261):
		return fmt.Errorf("year %d: give one from 1970 to 2261", o.Year)
	case o.Lateness < 0 || o.Lateness > 366*24*time.Hour:
		return fmt.Errorf("lateness %v: give 0 to 366 days", o.Lateness)
	case bus.CheckName(o.Source) != nil:
		return fmt.Errorf("source %q: use 1 to 64 of A-Z a-z 0-9 - and _", o.Source)
	case len(o.Host) > 512 || printable(o.Host) != o.Host:
		return fmt.Errorf("host: at most 512 bytes without control characters")
	case len(o.Tenant) > 128 || printable(o.Tenant) != o.Tenant:
		return fmt.Errorf("tenant: at most 128 bytes without control characters")
	case len(o.Labels) > event.LimitLabels/2:
		return fmt.Errorf("%d labels: give at most %d", len(o.Labels), event.LimitLabels/2)
	}
	for k, v := range o.Labels {
		if k == "" || len(k) > event.LimitLabelKey || printable(k) != k || len(v) > event.LimitText {
			return fmt.Errorf("label %q: keys have 1 to %d bytes, values at most %d", k, event.LimitLabelKey, event.LimitText)
		}
	}
	if o.TZ != "" {
		if _, err := loadZone(o.TZ); err != nil {
			return fmt.Errorf("unknown time zone %q: give one such as Europe/Amsterdam or UTC", o.TZ)
		}
	}
	return nil
}

func (o *ImportOptions) zone(house *time.Location) (*time.Location, error) {
	if o.TZ == "" {
		return house, nil
	}
	return loadZone(o.TZ)
}

// values writes the options as parameters of a request, in a fixed order.
func (o *ImportOptions) values() url.Values {
	v := url.Values{}
	set := func(key, value string) {
		if value != "" {
			v.Set(key, value)
		}
	}
	format := o.Format
	if format == formatSSHD {
		format = formatSyslog // the same reader, so the same events
	}
	set("format", format)
	if o.Year != 0 {
		v.Set("year", strconv.Itoa(o.Year))
	}
	set("tz", o.TZ)
	set("host", o.Host)
	set("tenant", o.Tenant)
	set("source", o.Source)
	for key, value := range o.Labels {
		v.Add("label", key+"="+value)
	}
	slices.Sort(v["label"])
	return v
}

// readOptions is the other way round.
func readOptions(v url.Values) (o ImportOptions, err error) {
	o = ImportOptions{Format: v.Get("format"), TZ: v.Get("tz"), Host: v.Get("host"), Tenant: v.Get("tenant"), Source: v.Get("source")}
	if y := v.Get("year"); y != "" {
		if o.Year, err = strconv.Atoi(y); err != nil {
			return o, fmt.Errorf("year %q is no number", y)
		}
	}
	if l := v.Get("lateness"); l != "" {
		if o.Lateness, err = time.ParseDuration(l); err != nil {
			return o, fmt.Errorf("lateness %q is no duration such as 1h", l)
		}
	}
	for _, l := range v["label"] {
		key, value, ok := strings.Cut(l, "=")
		if !ok {
			return o, fmt.Errorf("label %q is not key=value", l)
		}
		if o.Labels == nil {
			o.Labels = map[string]string{}
		}
		o.Labels[key] = value
	}
	if err := o.Validate(); err != nil {
		return o, err
	}
	if o.Format == "" {
		return o, fmt.Errorf("an import has a format: %s", formatNames())
	}
	return o, nil
}

// importKey is where the imports of files that begin with the same line, read
// the same way, are remembered.
func importKey(o *ImportOptions, firstLine []byte) string {
	h := sha256.New()
	h.Write([]byte(o.values().Encode()))
	h.Write([]byte{0})
	h.Write(firstLine[:min(len(firstLine), limitFirstLine)])
	return "head." + hex.EncodeToString(h.Sum(nil)[:16])
}

// limitFirstLine bounds what of a file's first line names it.
const limitFirstLine = 4096

// importID is the collector id of an import: a hash of the options, of the
// content up to where it ends, and of where it begins. Nothing but the content
// and the options decides an event's identity, so an import that is repeated
// after an interruption gives each event the number it had.
func importID(o *ImportOptions, from, to int64, sum [sha256.Size]byte, again int) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s\x00%d\x00%d\x00%x\x00%d", o.values().Encode(), from, to, sum, again)
	return importPrefix + hex.EncodeToString(h.Sum(nil)[:8])
}

// importEpoch is the epoch of every import: its id says all.
const importEpoch = 1

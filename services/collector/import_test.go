package collector

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencoc/coc/services/event"
)

func (h *house) importer() *ImportClient { return &ImportClient{URL: h.serve().URL} }

// imported returns the events of EVENTS as they are called and what they say.
func (h *house) imported() map[string]string {
	all := map[string]string{}
	for _, e := range h.events() {
		all[e.EventID()] = fmt.Sprint(e.Time, e.Action, e.Outcome, e.SourceIP, e.Label("port"))
	}
	return all
}

func (h *house) importFile(c *ImportClient, path string, o ImportOptions) Summary {
	h.t.Helper()
	sum, err := c.Import(context.Background(), path, o, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	return sum
}

func writeFile(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	must(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// oldLine is a line of 2016, numbered by its port.
func oldLine(n int) string {
	return fmt.Sprintf("Mar %d %02d:%02d:%02d web1 sshd[77]: Failed password for jan from 192.0.2.%d port %d ssh2\n", 10+n/86400, n/3600%24, n/60%60, n%60, n%250, n)
}

func oldLines(from, to int) string {
	var b strings.Builder
	for n := from; n < to; n++ {
		b.WriteString(oldLine(n))
	}
	return b.String()
}

func TestARealAuthLogIsImportedOnce(t *testing.T) {
	path := filepath.Join(sharedData, "logs/sshd_auth.log")
	if _, err := os.Stat(path); err != nil {
		t.Skipf("the shared data is not here: %v", err)
	}
	h := testHouse(t, httpOnly, nil)
	c := h.importer()
	o := ImportOptions{Format: "sshd", Year: 2016}
	sum := h.importFile(c, path, o)
	if sum.Lines != 7121 || sum.Events != 7446 || sum.Seq == 0 || !strings.HasPrefix(sum.ID, importPrefix) {
		t.Errorf("summary %+v", sum)
	}
	again := h.importFile(c, path, o)
	if !again.Known || again.Events != 0 {
		t.Errorf("again: %+v", again)
	}
	if n := len(h.events()); n != 7446 {
		t.Errorf("%d events are stored", n)
	}
	// A dry run calls the events the same.
	var ids []string
	dry, err := ParsePath(t.Context(), path, o, time.Now(), h.c.cfg.Zone, func(e *event.Event) error {
		ids = append(ids, e.EventID())
		return nil
	})
	must(t, err)
	stored := h.imported()
	for _, id := range ids {
		if stored[id] == "" {
			t.Fatalf("the dry run's %s is not stored", id)
		}
	}
	if len(ids) != 7446 || dry.ID != sum.ID || dry.Events != sum.Events || dry.First != sum.First || dry.Last != sum.Last || !maps.Equal(dry.Actions, sum.Actions) {
		t.Errorf("dry run %+v, import %+v", dry, sum)
	}
	// The messages are a time domain of their own, with marks that never go back
	// and one last message.
	mark, ends := int64(0), 0
	for _, m := range h.messages() {
		if m.Meta.Import == "" {
			continue
		}
		if m.Meta.Import != sum.ID || m.Meta.Collector != sum.ID || m.Meta.Epoch != importEpoch || m.Meta.Mark < mark || ends > 0 {
			t.Errorf("message %+v", m.Meta)
		}
		for _, e := range m.events {
			if e.Time < mark {
				t.Errorf("an event of %d after the mark %d", e.Time, mark)
			}
		}
		if mark = m.Meta.Mark; m.Meta.ImportEnd {
			ends++
		}
	}
	if ends != 1 {
		t.Errorf("%d last messages", ends)
	}
	s, err := c.State(t.Context(), sum.ID)
	if err != nil || s.State != "stored" || s.Events != 7446 || s.Seq != sum.Seq {
		t.Errorf("state %+v, %v", s, err)
	}
	if hold := h.importFile(c, path, ImportOptions{Format: "sshd", Year: 2016, Again: true}); hold.Events != 7446 || hold.ID == sum.ID {
		t.Errorf("insisting: %+v", hold)
	}
	if third := h.importFile(c, path, ImportOptions{Format: "sshd", Year: 2016, Again: true}); third.Events != 7446 {
		t.Errorf("insisting once more: %+v", third)
	}
	if n := len(h.events()); n != 3*7446 {
		t.Errorf("%d events are stored", n)
	}
}

func TestAFileThatHasGrownAddsWhatIsNew(t *testing.T) {
	h := testHouse(t, httpOnly, nil)
	c := h.importer()
	o := ImportOptions{Year: 2016, TZ: "UTC"}
	path := writeFile(t, "auth.log", oldLines(0, 1000))
	if sum := h.importFile(c, path, o); sum.Events != 1000 || sum.Format != formatSyslog {
		t.Errorf("first %+v", sum)
	}
	// Grown by whole lines, then by half a line, then by its other half.
	appendTo(t, path, oldLines(1000, 1500))
	if sum := h.importFile(c, path, o); sum.Events != 500 || sum.Skipped == 0 || sum.Known {
		t.Errorf("grown %+v", sum)
	}
	half := oldLine(1500)
	appendTo(t, path, half[:len(half)-1])
	if sum := h.importFile(c, path, o); sum.Events != 1 {
		t.Errorf("a line without its newline %+v", sum)
	}
	appendTo(t, path, "\n"+oldLine(1501))
	if sum := h.importFile(c, path, o); sum.Events != 1 {
		t.Errorf("its newline and one more %+v", sum)
	}
	appendTo(t, path, oldLine(1502)[:40])
	h.importFile(c, path, o)
	appendTo(t, path, oldLine(1502)[40:])
	if sum := h.importFile(c, path, o); sum.Events != 1 {
		t.Errorf("the rest of a line %+v", sum)
	}
	ports := map[string]int{}
	for _, e := range h.events() {
		ports[e.Label("port")]++
	}
	for n := range 1503 {
		if ports[fmt.Sprint(n)] != 1 {
			t.Errorf("line %d is there %d times", n, ports[fmt.Sprint(n)])
		}
	}
	if ports[""] != 1 || len(ports) != 1504 { // the half line, which nobody could know to be one
		t.Errorf("%d other events of %d", ports[""], len(ports))
	}
	if sum := h.importFile(c, path, o); !sum.Known {
		t.Errorf("unchanged %+v", sum)
	}
	// The year goes on rolling in the new part.
	appendTo(t, path, "Dec 31 23:59:59 web1 x: a\nJan  1 00:00:01 web1 x: b\n")
	h.importFile(c, path, o)
	appendTo(t, path, "Feb  1 00:00:01 web1 x: c\n")
	if sum := h.importFile(c, path, o); time.UnixMilli(int64(sum.First)).UTC().Year() != 2017 {
		t.Errorf("the new part is of %v", time.UnixMilli(int64(sum.First)).UTC())
	}
}

func TestOtherOptionsAreAnotherImport(t *testing.T) {
	h := testHouse(t, httpOnly, nil)
	c := h.importer()
	path := writeFile(t, "auth.log", oldLines(0, 10))
	h.importFile(c, path, ImportOptions{Year: 2016})
	if sum := h.importFile(c, path, ImportOptions{Year: 2017}); sum.Events != 10 {
		t.Errorf("another year %+v", sum)
	}
	if sum := h.importFile(c, path, ImportOptions{Year: 2016, Format: "sshd"}); !sum.Known {
		t.Errorf("sshd is syslog %+v", sum)
	}
	if sum := h.importFile(c, path, ImportOptions{Year: 2016, Lateness: time.Minute}); !sum.Known {
		t.Errorf("lateness is not part of the events %+v", sum)
	}
	other := writeFile(t, "copy.log", oldLines(0, 10))
	if sum := h.importFile(c, other, ImportOptions{Year: 2016}); !sum.Known {
		t.Errorf("a copy under another name %+v", sum)
	}
	packed := filepath.Join(t.TempDir(), "auth.log.gz")
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	w.Write([]byte(oldLines(0, 10) + oldLines(10, 12)))
	must(t, w.Close())
	must(t, os.WriteFile(packed, z.Bytes(), 0o600))
	if sum := h.importFile(c, packed, ImportOptions{Year: 2016}); sum.Events != 2 {
		t.Errorf("the same, packed and grown %+v", sum)
	}
}

// breaking is a transport that breaks a request after so many bytes.
type breaking struct{ after int64 }

func (b *breaking) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodPost {
		r = r.Clone(r.Context())
		r.Body = io.NopCloser(io.MultiReader(io.LimitReader(r.Body, b.after), failing{}))
	}
	return http.DefaultTransport.RoundTrip(r)
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("the line broke") }

func TestAnInterruptedImportGoesOnWithoutDoubles(t *testing.T) {
	h := testHouse(t, httpOnly, nil)
	c := h.importer()
	o := ImportOptions{Year: 2016, TZ: "UTC"}
	path := writeFile(t, "auth.log", oldLines(0, 30_000))
	info, err := os.Stat(path)
	must(t, err)
	for _, share := range []int64{90, 50, 95} {
		broken := &ImportClient{URL: c.URL, HTTP: &http.Client{Transport: &breaking{info.Size() * share / 100}}}
		if _, err := broken.Import(t.Context(), path, o, nil); err == nil {
			t.Fatal("the broken request succeeds")
		}
		eventually(t, "the server notices", func() bool {
			h.c.imports.mu.Lock()
			defer h.c.imports.mu.Unlock()
			return len(h.c.imports.running) == 0
		})
	}
	if n := len(h.events()); n == 0 || n >= 30_000 {
		t.Fatalf("%d events are stored; the test needs some", n)
	}
	// Meanwhile the file grew: the interrupted part is finished first.
	appendTo(t, path, oldLines(30_000, 30_100))
	sum := h.importFile(c, path, o)
	if !sum.Resumed || sum.Events != 30_100 {
		t.Errorf("resumed %+v", sum)
	}
	ports := map[string]int{}
	for _, e := range h.events() {
		ports[e.Label("port")]++
	}
	for n := range 30_100 {
		if ports[fmt.Sprint(n)] != 1 {
			t.Fatalf("line %d is there %d times", n, ports[fmt.Sprint(n)])
		}
	}
	if sum := h.importFile(c, path, o); !sum.Known {
		t.Errorf("once more %+v", sum)
	}
}

func TestAnImportWhoseEndWasNotNotedIsKnownAllTheSame(t *testing.T) {
	h := testHouse(t, httpOnly, nil)
	c := h.importer()
	path := writeFile(t, "auth.log", oldLines(0, 100))
	o := ImportOptions{Year: 2016, Format: "syslog"}
	must(t, o.Validate())
	h.importFile(c, path, o)
	key := importKey(&o, []byte(strings.TrimSuffix(oldLine(0), "\n")))
	must(t, h.c.imports.change(t.Context(), key, func(r *importRecord) error {
		if len(r.Entries) != 1 {
			t.Fatalf("record %+v", r)
		}
		r.Entries[0].Stored = false // the process died just before
		return nil
	}))
	if sum := h.importFile(c, path, o); !sum.Resumed {
		t.Errorf("resumed %+v", sum)
	}
	if n := len(h.events()); n != 100 {
		t.Errorf("%d events", n)
	}
}

func TestThroughIsWhenEngineAndSinkArePast(t *testing.T) {
	pos := Positions{}
	h := testHouse(t, httpOnly, func(c *Config) { c.Through = func(context.Context) (Positions, error) { return pos, nil } })
	c := h.importer()
	sum := h.importFile(c, writeFile(t, "a.log", oldLines(0, 10)), ImportOptions{Year: 2016})
	for _, p := range []Positions{{}, {Engine: sum.Seq}, {Sink: sum.Seq}} {
		pos = p
		if s, err := c.State(t.Context(), sum.ID); err != nil || s.State != "stored" {
			t.Errorf("at %+v: %+v, %v", p, s, err)
		}
	}
	pos = Positions{sum.Seq, sum.Seq + 5}
	if s, err := c.Wait(t.Context(), sum.ID, nil); err != nil || s.State != "through" {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := c.State(t.Context(), "import-none"); err == nil || !strings.Contains(err.Error(), "no import") {
		t.Errorf("an unknown one: %v", err)
	}
}

func TestWhatCannotBeImportedIsNamed(t *testing.T) {
	h := testHouse(t, httpOnly, nil)
	c := h.importer()
	dir := t.TempDir()
	f := func(path string, o ImportOptions, want string) {
		t.Helper()
		_, err := c.Import(t.Context(), path, o, nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want …%s…", path, err, want)
		}
		if _, err := ParsePath(t.Context(), path, o, time.Now(), time.UTC, func(*event.Event) error { return nil }); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s, dry: %v, want …%s…", path, err, want)
		}
	}
	f(dir, ImportOptions{}, "folder")
	f(filepath.Join(dir, "none"), ImportOptions{}, "no such file")
	f(writeFile(t, "a", "x"), ImportOptions{Format: "xml"}, "known are sshd")
	f(writeFile(t, "a", "x"), ImportOptions{TZ: "Mars"}, "time zone")
	f(writeFile(t, "a", "x"), ImportOptions{Year: 5}, "year 5")
	f(writeFile(t, "a.gz", "x"), ImportOptions{}, "unpack")
	f("/dev/null", ImportOptions{}, "device")
	empty := h.importFile(c, writeFile(t, "a", ""), ImportOptions{})
	if empty.Events != 0 || empty.Known {
		t.Errorf("an empty file %+v", empty)
	}
	if blank := h.importFile(c, writeFile(t, "a", "\r\n\n"), ImportOptions{}); blank.Events != 0 || blank.Lines != 0 {
		t.Errorf("a blank file %+v", blank)
	}
}

func TestAwkwardContentIsKeptAndMarked(t *testing.T) {
	h := testHouse(t, httpOnly, nil)
	c := h.importer()
	at := "2016-03-27T13:06:56Z web1 x[1]: "
	text := at + "crlf\r\n" + at + "nul \x00\x00 here\n" + at + "bytes \xff\xfe here\n" + at + strings.Repeat("long ", 2<<20) + "\n\n" + "no time at all\n" +
		at + "password=geheim\n" + at + "without a newline"
	sum := h.importFile(c, writeFile(t, "x.log", text), ImportOptions{})
	if sum.Lines != 7 || sum.Events != 7 {
		t.Errorf("summary %+v", sum)
	}
	for mark, n := range map[string]int64{"nul": 1, "utf8": 1, "cut": 2, "guessed": 1, "secret": 1} {
		if sum.Marked[mark] != n {
			t.Errorf("%d events marked %s, want %d (%v)", sum.Marked[mark], mark, n, sum.Marked)
		}
	}
	for _, e := range h.events() {
		if strings.ContainsAny(e.Message, "\r\x00") || strings.Contains(e.Message, "geheim") || e.Time != 1459084016000 {
			t.Errorf("kept %.200q at %d", e.Message, e.Time)
		}
	}
}

func TestAnImportOfJSONCountsWhatItRefuses(t *testing.T) {
	h := testHouse(t, httpOnly, nil)
	c := h.importer()
	good := `{"time":"2015-05-17T10:05:03Z","kind":"user","action":"x"}`
	text := good + "\nnot JSON\n" + good + "\n{}\n" + strings.Repeat(`{"a":`, 1000) + "\n" + `{"time":"1960-01-01T00:00:00Z","kind":"user","action":"x"}` + "\n"
	sum := h.importFile(c, writeFile(t, "x.json", text), ImportOptions{Format: "json"})
	if sum.Events != 2 || sum.Lines != 6 || sum.Refused[event.BadJSON] != 1 || sum.Refused[event.MissingField] != 1 || sum.Refused[event.UnknownField] != 1 || sum.Refused[event.BadValue] != 1 || len(sum.Examples) != 4 || sum.Examples[0].Line != 2 {
		t.Errorf("summary %+v", sum)
	}
	for _, m := range h.messages() {
		if m.Meta.ImportEnd && m.Meta.Refused["import:bad_json"] != 1 {
			t.Errorf("headers %+v", m.Meta)
		}
	}
}

func TestFormatsAreGuessed(t *testing.T) {
	f := func(want string, lines ...string) {
		t.Helper()
		if got := guessFormat(lines); got != want {
			t.Errorf("%q is taken for %s, want %s", lines, got, want)
		}
	}
	f(formatSyslog, oldLine(1))
	f(formatSyslog, "2016-03-27T13:06:56Z web1 x[1]: y")
	f(formatSyslog, "nothing known")
	f(formatSyslog)
	f(formatAccess, `1.2.3.4 - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 1`)
	f(formatJSON, `{"a":1}`, `{"b":2}`)
	f(formatAccess, "garbage", `1.2.3.4 - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 1`)
}

func TestAnImportOverFourHundredDays(t *testing.T) {
	h := testHouse(t, httpOnly, nil)
	c := h.importer()
	var b strings.Builder
	day := time.Date(2014, 1, 1, 12, 0, 0, 0, time.UTC)
	for n := range 500 {
		b.WriteString(day.AddDate(0, 0, n).Format(time.Stamp) + " web1 x: y\n")
	}
	sum := h.importFile(c, writeFile(t, "x.log", b.String()), ImportOptions{Year: 2014, TZ: "UTC"})
	if sum.Events != 500 || int64(sum.First) != day.UnixMilli() || int64(sum.Last) != day.AddDate(0, 0, 499).UnixMilli() {
		t.Errorf("summary %+v, last %v", sum, time.UnixMilli(int64(sum.Last)).UTC())
	}
}

func TestTheImportHandlerRefusesNonsense(t *testing.T) {
	h := testHouse(t, httpOnly, nil)
	s := h.serve()
	f := func(query string, want int) {
		t.Helper()
		a, err := http.Post(s.URL+"/v1/imports?"+query, "", strings.NewReader("x"))
		must(t, err)
		a.Body.Close()
		if a.StatusCode != want {
			t.Errorf("%s gives %d, want %d", query, a.StatusCode, want)
		}
	}
	sum := strings.Repeat("0", 64)
	f("", 400)
	f("format=syslog&key=head.x&from=0&to=1", 400)
	f("format=syslog&key=head.x&from=0&to=-1&sha256="+sum, 400)
	f("format=syslog&key=head.x&from=5&to=5&sha256="+sum, 400)
	f("format=syslog&key=head.x&from=0&to=99999999999999999999&sha256="+sum, 400)
	f("format=syslog&key=id.x&from=0&to=1&sha256="+sum, 400)
	f("format=syslog&key=head.x%20y&from=0&to=1&sha256="+sum, 400)
	f("format=nonsense&key=head.x&from=0&to=1&sha256="+sum, 400)
	f("format=syslog&label=x&key=head.x&from=0&to=1&sha256="+sum, 400)
	f("format=syslog&key=head.x&from=0&to=5&sha256="+sum, 400) // shorter than it says
	f("format=syslog&key=head.x&from=0&to=1&sha256="+sum, 200)
}

func TestNamesInAnImportAreSealed(t *testing.T) {
	h := testHouse(t, httpOnly, nil)
	h.importFile(h.importer(), writeFile(t, "auth.log", oldLines(0, 3)), ImportOptions{Year: 2016})
	for _, e := range h.events() {
		if strings.Contains(e.Message, "jan") || e.UserName != "jan" || len(e.UserHash) != 32 {
			t.Errorf("kept %s", event.AppendJSON(nil, &e))
		}
	}
}

package collector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencoc/coc/services/event"
)

// sshLine is a line of an auth.log of now, numbered by its port.
func sshLine(n int) string {
	return fmt.Sprintf("%s web1 sshd[77]: Failed password for root from 192.0.2.7 port %d ssh2\n", time.Now().UTC().Format(time.RFC3339Nano), n)
}

func sshLines(from, to int) string {
	var b strings.Builder
	for n := from; n < to; n++ {
		b.WriteString(sshLine(n))
	}
	return b.String()
}

// appendTo writes to the end of a file.
func appendTo(t testing.TB, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// wantPorts checks that lines 0 to n-1 are on the bus, each once.
func (h *house) wantPorts(n int) {
	h.t.Helper()
	eventually(h.t, fmt.Sprintf("%d events", n), func() bool { return h.stored() >= int64(n) })
	seen := map[string]int{}
	events := h.events()
	for _, e := range events {
		seen[e.Label("port")]++
	}
	for i := range n {
		if seen[fmt.Sprint(i)] != 1 {
			h.t.Errorf("line %d is there %d times", i, seen[fmt.Sprint(i)])
		}
	}
	if len(events) != n {
		h.t.Errorf("%d events, want %d", len(events), n)
	}
}

// stored counts the events in EVENTS by its headers' last numbers.
func (h *house) stored() (n int64) {
	numbers, err := h.bus.LastNumbers(context.Background(), "test")
	if err != nil {
		h.t.Fatal(err)
	}
	return numbers.Last
}

func logSource(path, more string) string {
	return "sources:\n  - kind: logfile\n    name: auth\n    path: " + path + "\n    format: sshd\n" + more
}

func TestAFileIsFollowedThroughRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "auth.log")
	h := testHouse(t, logSource(path, ""), nil)
	if s := h.c.Status().Sources[0]; s.State != sourceWaiting {
		t.Errorf("an absent file: %+v", s)
	}
	appendTo(t, path, sshLines(0, 100))
	h.wantPorts(100)
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	appendTo(t, path+".1", sshLines(100, 110)) // the daemon was not told yet
	appendTo(t, path, sshLines(110, 200))
	h.wantPorts(200)
	appendTo(t, path, "unfinished "+strings.TrimSuffix(sshLine(200), "\n"))
	if err := os.Rename(path, path+".2"); err != nil {
		t.Fatal(err)
	}
	appendTo(t, path, sshLines(201, 203))
	eventually(t, "the unfinished line counts as one", func() bool { return h.stored() == 203 })
}

func TestAFileThatIsCutIsReadFromItsStart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "auth.log")
	appendTo(t, path, sshLines(0, 100))
	h := testHouse(t, logSource(path, ""), nil)
	h.wantPorts(100)
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	appendTo(t, path, sshLines(100, 110))
	h.wantPorts(110)
	// Cut and grown beyond the old position between two looks: the beginning
	// tells.
	var all strings.Builder
	for n := 110; n < 400; n++ {
		all.WriteString(sshLine(n))
	}
	if err := os.WriteFile(path, []byte(all.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	h.wantPorts(400)
}

func TestAfterARestartAFileGoesOnWhereItStopped(t *testing.T) {
	path := filepath.Join(t.TempDir(), "auth.log")
	sources := logSource(path, "")
	appendTo(t, path, sshLines(0, 100))
	h := testHouse(t, sources, nil)
	h.wantPorts(100)
	h.stop()
	appendTo(t, path, sshLines(100, 150))
	h.start(sources, nil)
	h.wantPorts(150)
	h.stop()
	// Rotated twice while nothing ran.
	appendTo(t, path, sshLines(150, 160))
	must(t, os.Rename(path, path+".2"))
	appendTo(t, path+".1", sshLines(160, 170))
	long := time.Now().Add(-time.Hour) // the order of rotated files is that of their times
	must(t, os.Chtimes(path+".2", long, long))
	appendTo(t, path, sshLines(170, 180))
	h.start(sources, nil)
	h.wantPorts(180)
	if epochs := h.epochs(); len(epochs) != 1 {
		t.Errorf("epochs %v, want one", epochs)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (h *house) epochs() map[int64]bool {
	all := map[int64]bool{}
	for _, e := range h.events() {
		all[e.Epoch] = true
	}
	return all
}

// TestADeathAtAnyMomentNeitherLosesNorDoubles copies the state folder at every
// moment that matters, goes on, and then starts from the copy, as after kill -9.
func TestADeathAtAnyMomentNeitherLosesNorDoubles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "auth.log")
	sources := logSource(path, "")
	appendTo(t, path, sshLines(0, 50))
	h := testHouse(t, sources, nil)
	h.wantPorts(50)
	// The file was written before the message was sent; the process died before
	// it could write again.
	before := read(t, filepath.Join(h.state, "positions.json"))
	h.stop()
	must(t, os.WriteFile(filepath.Join(h.state, "positions.json"), before, 0o600))
	appendTo(t, path, sshLines(50, 70))
	h.start(sources, nil)
	h.wantPorts(70)

	// Written before a message that was never stored.
	h.stop()
	p, err := openPositions(h.state)
	must(t, err)
	_, epoch, last := p.numbers()
	future, err := json.Marshal(place{At: filePlace{Path: path, Offset: 1 << 20}})
	must(t, err)
	must(t, p.prepare(epoch, last+1, 20, map[string]json.RawMessage{"auth": future}))
	appendTo(t, path, sshLines(70, 90))
	h.start(sources, nil)
	h.wantPorts(90)
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	return data
}

func TestALostStateFolderBeginsANewEpoch(t *testing.T) {
	h := testHouse(t, httpOnly, nil)
	s := h.serve()
	token := h.token("erp", "*")
	post(t, s.URL, token, ev(""), nil)
	h.stop()
	must(t, os.RemoveAll(h.state))
	h.start(httpOnly, nil)
	s = h.serve()
	post(t, s.URL, token, ev(""), nil)
	epochs := map[int64]string{}
	for _, m := range h.messages() {
		if m.Meta.Rows > 0 {
			epochs[m.Meta.Epoch] = m.Meta.Previous
		}
	}
	if len(epochs) != 2 {
		t.Fatalf("epochs %v, want two", epochs)
	}
	named := false
	for epoch := range epochs {
		for other, previous := range epochs {
			named = named || other > epoch && previous == fmt.Sprintf("%d-1", epoch)
		}
	}
	if !named {
		// The name travels on the epoch's first message, which may be a heartbeat.
		for _, m := range h.messages() {
			named = named || m.Meta.Previous != ""
		}
	}
	if !named {
		t.Errorf("the new epoch does not name the last number of the old: %v", epochs)
	}
}

func TestALostBusBeginsANewEpoch(t *testing.T) {
	h := testHouse(t, httpOnly, nil)
	post(t, h.serve().URL, h.token("erp", "*"), ev(""), nil)
	h.stop()
	other := testBus(t, t.TempDir())
	t.Cleanup(func() { must(t, other.Close(context.Background())) })
	p, err := openPositions(h.state)
	must(t, err)
	_, epoch, _ := p.numbers()
	h.bus = other
	h.start(httpOnly, nil)
	post(t, h.serve().URL, h.token("erp", "*"), ev(""), nil)
	if e := h.events()[0]; e.Epoch <= epoch {
		t.Errorf("epoch %d after %d", e.Epoch, epoch)
	}
}

func TestLongLinesAndRepeatsInAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "auth.log")
	at := time.Now().UTC().Format(time.RFC3339)
	long := at + " web1 x[1]: " + strings.Repeat("y", 10<<20) + "\n"
	repeats := at + " web1 sshd[1]: message repeated 9000 times: [ Failed password for root from 192.0.2.7 port 1 ssh2]\n"
	old := "Mar 27 13:08:09 web1 sshd[1361]: Failed password for root from 192.0.2.7 port 1 ssh2\n"
	must(t, os.WriteFile(path, []byte(sshLine(0)+long+"\r\n\x00\x00\n"+repeats+old+sshLine(1)), 0o600))
	h := testHouse(t, logSource(path, ""), nil)
	eventually(t, "all are stored", func() bool { return h.stored() == 9000+4 })
	logins, cut, nul := 0, 0, 0
	for _, e := range h.events() {
		switch {
		case e.Action == "login":
			logins++
		case strings.Contains(e.Marks, "cut:line") && strings.Contains(e.Marks, "cut:message") && len(e.Message) == event.LimitMessage:
			cut++
		case strings.Contains(e.Marks, "nul:message"):
			nul++
		}
	}
	if logins != 9002 || cut != 1 || nul != 1 {
		t.Errorf("%d logins, %d cut lines, %d with NULs", logins, cut, nul)
	}
	eventually(t, "the line that is too old is told of", func() bool {
		s := h.c.Status().Sources[0]
		return s.Refused[event.TooOld] == 1 && strings.Contains(s.Detail, "coc import")
	})
	// A parcel ended within the repeats: after a restart nothing comes twice.
	h.stop()
	appendTo(t, path, sshLine(2))
	h.start(logSource(path, ""), nil)
	eventually(t, "the last line", func() bool { return h.stored() == 9000+5 })
}

func TestAPlaceWithinALineLeavesOutWhatIsStored(t *testing.T) {
	path := filepath.Join(t.TempDir(), "auth.log")
	at := time.Now().UTC().Format(time.RFC3339)
	repeats := at + " web1 sshd[1]: message repeated 5000 times: [ Failed password for root from 192.0.2.7 port 1 ssh2]\n"
	must(t, os.WriteFile(path, []byte(sshLine(0)+repeats), 0o600))
	info, err := os.Stat(path)
	must(t, err)
	first := int64(len(sshLine(0)))
	line := read(t, path)[:first]
	if line[len(line)-1] != '\n' {
		first = int64(strings.IndexByte(string(read(t, path)), '\n') + 1)
	}
	b := testBus(t, t.TempDir())
	t.Cleanup(func() { must(t, b.Close(context.Background())) })
	h := &house{t: t, bus: b, state: t.TempDir()}
	p, err := openPositions(h.state)
	must(t, err)
	at2, err := json.Marshal(place{At: filePlace{Path: path, Inode: inodeOf(info), Offset: first}, Skip: 4000})
	must(t, err)
	must(t, p.prepare(1, 1, 1, map[string]json.RawMessage{"auth": at2}))
	p.confirm(1, 1)
	must(t, p.save())
	h.start(logSource(path, ""), nil)
	eventually(t, "the rest of the line", func() bool { return h.stored() == 1000 })
	h.stop()
	if n := len(h.events()); n != 1000 {
		t.Errorf("%d events", n)
	}
}

func TestAFolderOrAForbiddenFileIsNamed(t *testing.T) {
	dir := t.TempDir()
	h := testHouse(t, logSource(dir, ""), nil)
	eventually(t, "it is named", func() bool {
		s := h.c.Status().Sources[0]
		return s.State == sourceWaiting && strings.Contains(s.Detail, "folder")
	})
}

func TestARefusedLineOfJSONGoesToTheDeadLetters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.json")
	must(t, os.WriteFile(path, []byte(ev("")+"\nnot JSON\n"+ev("")+"\n"), 0o600))
	h := testHouse(t, "sources:\n  - {kind: logfile, name: j, path: "+path+", format: json}\n", nil)
	eventually(t, "both are stored", func() bool { return h.stored() == 2 })
	d := h.deadLetters()
	if len(d) != 1 || d[0].Reason != event.BadJSON || d[0].Source != "j" {
		t.Fatalf("dead letters %+v", d)
	}
	if plain, err := h.c.Unseal(t.Context(), d[0].Data); err != nil || string(plain) != "not JSON" {
		t.Errorf("it holds %q, %v", plain, err)
	}
}

func TestTheMarkOfAFileThatLagsIsItsOwn(t *testing.T) {
	now := int64(1_000_000_000)
	live := &sourceState{Source: Source{Lateness: 10 * time.Second}, kind: kindByName("host")}
	file := &sourceState{Source: Source{Lateness: time.Second}, kind: kindByName("logfile")}
	push := &sourceState{Source: Source{Lateness: time.Hour}, kind: kindByName("http")}
	absent := &sourceState{Source: Source{Lateness: time.Second}, kind: kindByName("journal")}
	f := func(want int64, sources ...*sourceState) {
		t.Helper()
		if got := lowWater(sources, now); got != want {
			t.Errorf("mark %d, want %d", got, want)
		}
	}
	f(now-3_600_000, absent)
	live.claim.Store(now)
	f(now-10_000, live, absent)
	file.claim.Store(now - 60_000)
	f(now-61_000, live, file)
	file.claim.Store(now)
	file.sent.Store(now - 5000)
	f(now-10_000, live, file)
	file.pending.Store(1) // handed over, not in this message
	file.sent.Store(now - 50_000)
	f(now-51_000, live, file)
	f(now-3_600_000, live, file, push)
}

func TestAMarkNeverGoesBackAndNeverPassesWhatIsNotSent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "auth.log")
	h := testHouse(t, logSource(path, "    lateness: 1s\n"), nil)
	for n := range 5 {
		appendTo(t, path, sshLines(n*100, n*100+100))
		h.wantPorts(n*100 + 100)
	}
	mark := int64(0)
	for _, m := range h.messages() {
		if m.Meta.Mark < mark {
			t.Errorf("mark %d after %d", m.Meta.Mark, mark)
		}
		for _, e := range m.events {
			if e.Time < mark {
				t.Errorf("message %d brings an event of %d after the mark %d", m.Seq, e.Time, mark)
			}
		}
		mark = m.Meta.Mark
	}
}

// A full bus holds a source back, and meanwhile its file is rotated twice.
func TestAFileRotatedTwiceBetweenTwoLooks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "auth.log")
	log := sshLines(0, 100)
	appendTo(t, path, log)
	h := testHouse(t, logSource(path, ""), nil)
	h.wantPorts(100)
	at := time.Now()
	rotate := func(to string, age time.Duration) {
		t.Helper()
		if err := errors.Join(os.Rename(path, path+to), os.Chtimes(path+to, at, at.Add(-age))); err != nil {
			t.Fatal(err)
		}
	}
	// The order of names says nothing; what is older, packed or a copy stays.
	appendTo(t, path+".0", sshLine(900))
	appendTo(t, path+".9.gz", sshLine(901))
	appendTo(t, path+".bak", log)
	must(t, os.Chtimes(path+".0", at, at.Add(-time.Hour)))
	rotate(".3", 3*time.Second)
	appendTo(t, path, sshLines(100, 120))
	rotate(".1", 2*time.Second)
	appendTo(t, path, sshLines(120, 130))
	rotate(".2", time.Second)
	appendTo(t, path, sshLines(130, 140))
	h.wantPorts(140)
}

package collector

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"sync"
)

// positions is where the sources go on, tied to what is on the bus. Before a
// message is sent, its numbers and the cursors after it are noted; after a crash
// the bus's last number says which cursors count. So a line is neither lost nor
// sent twice, whenever the process dies.
type positions struct {
	file string

	mu    sync.Mutex
	state positionState
	found bool // the file was there
}

type positionState struct {
	// Epoch and Last are what is known to be stored.
	Epoch int64 `json:"epoch"`
	Last  int64 `json:"last"`
	// Now holds the cursors as of Last.
	Now map[string]json.RawMessage `json:"now"`
	// Sent describes a message whose outcome was not known when this was written;
	// Then holds the cursors after it.
	Sent *sentState                 `json:"sent,omitempty"`
	Then map[string]json.RawMessage `json:"then,omitempty"`
}

type sentState struct {
	Epoch int64 `json:"epoch"`
	First int64 `json:"first"`
	Rows  int64 `json:"rows"`
}

// openPositions reads the file of a state folder, if there is one.
func openPositions(dir string) (*positions, error) {
	p := &positions{file: filepath.Join(dir, "positions.json")}
	data, err := os.ReadFile(p.file)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the positions of the sources: %w", err)
	}
	if err := json.Unmarshal(data, &p.state); err != nil {
		return nil, fmt.Errorf("%s holds no positions (%w): remove it; the collector then starts a new epoch and reads its files from the start", p.file, err)
	}
	p.found = true
	return p, nil
}

// numbers returns the last number known to be stored; known is false when there
// was no file.
func (p *positions) numbers() (known bool, epoch, last int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.found && p.state.Epoch != 0, p.state.Epoch, p.state.Last
}

// resolve decides, with the numbers of the bus, what became of the message that
// was under way.
func (p *positions) resolve(epoch, last int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.state.Sent
	if s == nil {
		return
	}
	if s.Epoch == epoch && s.Rows > 0 && last >= s.First+s.Rows-1 {
		p.adopt()
		p.state.Epoch, p.state.Last = s.Epoch, s.First+s.Rows-1
	}
	p.state.Sent, p.state.Then = nil, nil
}

// adopt makes the cursors of the message under way the valid ones.
func (p *positions) adopt() {
	if len(p.state.Then) == 0 {
		return
	}
	now := maps.Clone(p.state.Now)
	if now == nil {
		now = make(map[string]json.RawMessage)
	}
	maps.Copy(now, p.state.Then)
	p.state.Now = now
}

// prepare notes a message that is about to be sent. A message without cursors
// is noted in memory only: nothing hangs on it.
func (p *positions) prepare(epoch, first, rows int64, cursors map[string]json.RawMessage) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state.Sent, p.state.Then = nil, nil
	p.state.Epoch, p.state.Last = epoch, first-1
	if len(cursors) == 0 && p.found {
		return nil
	}
	if len(cursors) > 0 {
		p.state.Sent, p.state.Then = &sentState{epoch, first, rows}, cursors
	}
	return p.write()
}

// confirm notes that the message is stored.
func (p *positions) confirm(epoch, last int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.adopt()
	p.state.Epoch, p.state.Last = epoch, last
	p.state.Sent, p.state.Then = nil, nil
}

// cursor returns where a source goes on; nil when it starts.
func (p *positions) cursor(name string) json.RawMessage {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state.Now[name]
}

// save writes what is known, at the end.
func (p *positions) save() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.write()
}

// write replaces the file as a whole. No fsync: what must survive is the death
// of the process, and the bus itself syncs every two minutes by default.
func (p *positions) write() error {
	data, err := json.Marshal(&p.state)
	if err != nil {
		return fmt.Errorf("positions: %w", err)
	}
	if err := os.WriteFile(p.file+".new", data, 0o600); err != nil {
		return fmt.Errorf("note the positions of the sources: %w", err)
	}
	if err := os.Rename(p.file+".new", p.file); err != nil {
		return fmt.Errorf("note the positions of the sources: %w", err)
	}
	p.found = true
	return nil
}

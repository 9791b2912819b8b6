package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/opencoc/coc/services/bus"
	"github.com/opencoc/coc/services/store"
)

// lockData makes the data folder and takes a role in it for this process. The lock is the
// kernel's and goes with the process, however it ends.
func lockData(dir, role string) (release func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the data folder %s: %w; give another with --data", dir, unwrapPath(err))
	}
	path := filepath.Join(dir, role+".lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot write into the data folder %s: %w; give another with --data", dir, unwrapPath(err))
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		who, _ := os.ReadFile(path)
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("another coc %s (process %s) runs on %s: stop it, or give this one a folder of its own with --data", role, strings.TrimSpace(string(who)), dir)
		}
		return nil, fmt.Errorf("cannot lock %s: %w; the data folder must be on a local file system", path, err)
	}
	_ = f.Truncate(0) // who holds it is told as a courtesy; the lock does not depend on it
	_, _ = f.WriteAt([]byte(fmt.Sprintln(os.Getpid())), 0)
	return func() { _ = f.Close() }, nil
}

// key loads or makes one of the data folder's keys.
func (n *node) key(name string) ([]byte, error) {
	dir, err := n.flags.dir("keys")
	if err != nil {
		return nil, err
	}
	return loadKey(filepath.Join(dir, name+".key"))
}

const (
	localNote = "local instance"
	// localTokenFor is how long the token of the data folder lives; it is renewed
	// at each start.
	localTokenFor = 400 * 24 * time.Hour
)

// localToken is the administrator's token of this data folder, for the commands
// of whoever may read the folder. An older one that still works is kept, so that
// a restart does not leave a trail of tokens.
func (n *node) localToken() (string, error) {
	ctx := n.g.Ctx
	if old, err := readInstance(n.flags.Data); err == nil {
		if t, err := n.bus.VerifyToken(ctx, old.Token); err == nil && time.Until(t.Expires) > localTokenFor/2 {
			return old.Token, nil
		}
	}
	secret, err := n.bus.IssueToken(ctx, bus.Token{Role: string(store.RoleAdministrator), Note: localNote, Expires: n.g.Now().Add(localTokenFor)})
	if err != nil {
		return "", fmt.Errorf("cannot make the local token: %w", err)
	}
	return secret, nil
}

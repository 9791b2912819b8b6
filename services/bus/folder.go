package bus

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// folder is a data folder taken by this process: locked, writable, with disk
// left, and opened with the key it was made with.
type folder struct {
	dir    string
	unlock func()
	had    []string // streams found before the server started
}

func takeFolder(c Config) (*folder, error) {
	if st, err := os.Stat(c.StoreDir); err == nil && !st.IsDir() {
		return nil, fmt.Errorf("bus: %s is a file; give a folder", c.StoreDir)
	}
	if err := os.MkdirAll(c.StoreDir, 0o700); err != nil {
		return nil, fmt.Errorf("bus: cannot make the folder %s: %w; give one that this user may write to", c.StoreDir, err)
	}
	unlock, err := lockFolder(c.StoreDir)
	if err != nil {
		return nil, err
	}
	f := &folder{dir: c.StoreDir, unlock: unlock}
	if err := f.check(c); err != nil {
		unlock()
		return nil, err
	}
	return f, nil
}

func (f *folder) check(c Config) error {
	free, err := c.free(f.dir)
	if err != nil {
		return err
	}
	if free < minFreeBytes {
		return fmt.Errorf("bus: the disk of %s has %d MiB left and needs %d: free some, or give a folder on another disk", f.dir, free/mib, minFreeBytes/mib)
	}
	if f.had, err = storedStreams(f.dir); err != nil {
		return err
	}
	return f.checkKey(c.Key)
}

// checkKey compares the key with the one the folder was made with. Without
// this the server would skip the streams it cannot decrypt and the topology
// would make new, empty ones in their place.
func (f *folder) checkKey(key []byte) error {
	path := filepath.Join(f.dir, "key.check")
	want := "none"
	if key != nil {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte("coc bus folder"))
		want = hex.EncodeToString(mac.Sum(nil))
	}
	have, err := os.ReadFile(path)
	switch {
	case errors.Is(err, os.ErrNotExist) && len(f.had) == 0:
		return writeFile(path, want+"\n")
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("bus: %s holds streams but not the file key.check, so their key is not known: restore it from the back-up of the folder", f.dir)
	case err != nil:
		return fmt.Errorf("bus: cannot read %s: %w", path, err)
	}
	switch got := strings.TrimSpace(string(have)); {
	case got == want:
		return nil
	case got == "none":
		return fmt.Errorf("bus: %s is not encrypted, and a key was given: start without the key, or with an empty folder", f.dir)
	case want == "none":
		return fmt.Errorf("bus: %s is encrypted: give its key", f.dir)
	}
	return fmt.Errorf("bus: %s is encrypted with another key: give the key it was made with", f.dir)
}

// writeFile writes and syncs before the name appears, so that a crash leaves
// no half of it.
func writeFile(path, text string) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("bus: cannot write %s: %w", tmp, err)
	}
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return fmt.Errorf("bus: cannot write %s: %w", tmp, err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("bus: cannot write %s: %w", path, err)
	}
	return nil
}

// storedStreams lists the streams in the folder by their directories.
func storedStreams(dir string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(dir, "jetstream", "$G", "streams"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("bus: cannot read the streams in %s: %w", dir, err)
	}
	var names []string
	for _, e := range entries {
		meta := filepath.Join(dir, "jetstream", "$G", "streams", e.Name(), "meta.inf")
		if _, err := os.Stat(meta); err == nil {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

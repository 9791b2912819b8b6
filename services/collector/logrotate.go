package collector

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// logFile is a followed file that is open.
type logFile struct {
	f      *os.File
	opened string // where it was opened
	path   string // of the source
	lines  *lineReader
	inode  uint64
	offset int64 // behind the last line handed over

	// head is the hash of the first headSize bytes. A file that begins otherwise
	// than before is another one, though inode and size may fit.
	head      string
	headSize  int64
	truncated bool

	replacedAt time.Time // when its path was first seen to name another file
}

// filePlace is where a file source goes on.
type filePlace struct {
	Path     string `json:"path"`
	Inode    uint64 `json:"inode"`
	Offset   int64  `json:"offset"`
	Head     string `json:"head,omitempty"`
	HeadSize int64  `json:"head_size,omitempty"`
}

const (
	// headBytes are hashed to know a file again: a line or two.
	headBytes = 256
	// limitRotated bounds the files looked at beside a rotated one.
	limitRotated = 1000
)

func openLog(path, source string) (*logFile, error) {
	f, err := os.Open(path)
	if err != nil {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil, fmt.Errorf("%s is not there yet", path)
		case errors.Is(err, fs.ErrPermission):
			return nil, fmt.Errorf("%s may not be read by this user: add the user to the file's group (ls -l %s), for logs of Debian: sudo usermod -aG adm $USER", path, path)
		}
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no file but a %s: give the file", path, kindOfFile(info))
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &logFile{f: f, opened: path, path: source, lines: newLineReader(f), inode: inodeOf(info)}, nil
}

func kindOfFile(info fs.FileInfo) string {
	switch mode := info.Mode(); {
	case mode.IsDir():
		return "folder"
	case mode&fs.ModeNamedPipe != 0:
		return "pipe"
	case mode&fs.ModeSocket != 0:
		return "socket"
	case mode&fs.ModeDevice != 0:
		return "device"
	}
	return "special file"
}

// seek goes on behind the last line handed over.
func (l *logFile) seek(offset int64) error {
	if _, err := l.f.Seek(offset, io.SeekStart); err != nil {
		return fmt.Errorf("%s: %w", l.opened, err)
	}
	l.offset = offset
	l.lines = newLineReader(l.f)
	return nil
}

// place is the position as it is kept.
func (l *logFile) place() (filePlace, error) {
	if l.headSize < headBytes && l.headSize < l.offset {
		size := min(l.offset, headBytes)
		head, err := hashHead(l.f, size)
		if err != nil {
			return filePlace{}, fmt.Errorf("%s: %w", l.opened, err)
		}
		l.head, l.headSize = head, size
	}
	return filePlace{Path: l.path, Inode: l.inode, Offset: l.offset, Head: l.head, HeadSize: l.headSize}, nil
}

func hashHead(f *os.File, size int64) (string, error) {
	buf := make([]byte, size)
	if _, err := f.ReadAt(buf, 0); err != nil {
		return "", err
	}
	sum := sha256.Sum256(buf)
	return hex.EncodeToString(sum[:8]), nil
}

// checkTruncated looks whether the file was cut and written anew, as copytruncate
// does, and goes to its start if so.
func (l *logFile) checkTruncated() error {
	info, err := l.f.Stat()
	if err != nil {
		return err
	}
	cut := info.Size() < l.offset
	if !cut && l.headSize > 0 {
		head, err := hashHead(l.f, l.headSize)
		cut = err != nil || head != l.head
	}
	if !cut {
		return nil
	}
	l.truncated, l.head, l.headSize = true, "", 0
	return l.seek(0)
}

// replaced says whether the path names another file by now. A path that names
// nothing is in the midst of a rotation: not yet.
func (l *logFile) replaced() (bool, error) {
	now, err := os.Stat(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at %s: %w", l.path, err)
	}
	mine, err := l.f.Stat()
	if err != nil {
		return false, err
	}
	return !os.SameFile(now, mine), nil
}

// next opens the file that was written after this one, which is read: the
// oldest rotated one that came later, else what the path names by now; nil when
// that is nothing or may not be read. A log may be rotated more than once
// between two looks, as when a full bus held the source back.
func (l *logFile) next() (*logFile, error) {
	// Opened before it is looked for others, so that it is the youngest: what is
	// rotated from here on comes after it.
	youngest, err := openLog(l.path, l.path)
	if err != nil {
		youngest = nil // said when it is opened again
	}
	between, err := l.between(youngest)
	if err != nil || between == "" {
		return youngest, err
	}
	if youngest != nil {
		youngest.f.Close()
	}
	return openLog(between, l.path)
}

// between returns the oldest file beside the path that was written to after l
// and, when there is a youngest, not after that; "" when there is none.
func (l *logFile) between(youngest *logFile) (path string, err error) {
	mine, err := l.f.Stat()
	if err != nil {
		return "", err
	}
	var last fs.FileInfo
	if youngest != nil {
		if last, err = youngest.f.Stat(); err != nil {
			return "", err
		}
	}
	files, err := rotatedFiles(l.path)
	if err != nil {
		return "", err
	}
	var oldest fs.FileInfo
	for _, r := range files {
		info := r.info
		switch at := info.ModTime(); {
		case !at.After(mine.ModTime()), os.SameFile(info, mine), r.path == filepath.Clean(l.path):
			continue
		case last != nil && (os.SameFile(info, last) || at.After(last.ModTime())):
			continue
		case oldest != nil && !at.Before(oldest.ModTime()), isCopy(r, files):
			continue
		}
		path, oldest = r.path, info
	}
	return path, nil
}

// copyBytes are compared to tell a copy from a log.
const copyBytes = 64 << 10

// isCopy says whether a file begins as an older one of the list does: somebody
// copied a log to look at it. Of a long file its first copyBytes are compared.
func isCopy(r rotatedFile, list []rotatedFile) bool {
	mine := beginning(r.path)
	for _, o := range list {
		if o.info.ModTime().Before(r.info.ModTime()) && o.info.Size() >= int64(len(mine)) && bytes.HasPrefix(beginning(o.path), mine) {
			return true
		}
	}
	return false
}

// beginning returns a file's first copyBytes, as far as they can be read.
func beginning(path string) []byte {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	data, _ := io.ReadAll(io.LimitReader(f, copyBytes)) // what cannot be read is no copy of anything
	return data
}

// rotatedFile is a file whose name begins as the log's.
type rotatedFile struct {
	path string
	info fs.FileInfo
}

// rotatedFiles lists the path itself and the rotated ones beside it.
func rotatedFiles(path string) (list []rotatedFile, err error) {
	dir, base := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("look for rotated files of %s: %w", path, err)
	}
	for _, entry := range entries {
		name := entry.Name()
		if !strings.HasPrefix(name, base) || packed(name) || len(list) >= limitRotated {
			continue
		}
		if info, err := entry.Info(); err == nil && info.Mode().IsRegular() {
			list = append(list, rotatedFile{filepath.Join(dir, name), info})
		}
	}
	return list, nil
}

// findFile finds the file that was read last: the path itself, or a rotated one
// beside it. nil when it is not there any more.
func findFile(path string, at filePlace) (*logFile, error) {
	files, err := rotatedFiles(path)
	if err != nil {
		return nil, err
	}
	for _, r := range files {
		if inodeOf(r.info) != at.Inode {
			continue
		}
		if l := openAt(r.path, path, at); l != nil {
			if r.path == filepath.Clean(path) {
				l.opened = path // as the configuration writes it: it was not rotated
			}
			return l, nil
		}
	}
	return nil, nil
}

// openAt opens a file if it is the one of the position.
func openAt(path, source string, at filePlace) *logFile {
	l, err := openLog(path, source)
	if err != nil {
		return nil
	}
	info, err := l.f.Stat()
	if err == nil && info.Size() >= at.Offset {
		head := ""
		if at.HeadSize > 0 && at.HeadSize <= headBytes {
			head, err = hashHead(l.f, at.HeadSize)
		}
		if err == nil && head == at.Head && l.seek(at.Offset) == nil {
			l.head, l.headSize = at.Head, at.HeadSize
			return l
		}
	}
	l.f.Close()
	return nil
}

func packed(name string) bool {
	for _, end := range [...]string{".gz", ".xz", ".bz2", ".zst", ".lz4"} {
		if strings.HasSuffix(name, end) {
			return true
		}
	}
	return false
}

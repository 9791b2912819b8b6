package collector

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/klauspost/compress/gzip"
)

// checkImportFile says in one sentence why a path cannot be imported.
func checkImportFile(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("there is no such file")
	case err != nil:
		return err
	case info.IsDir():
		return fmt.Errorf("it is a folder: give the files in it, such as %s/*.log", strings.TrimSuffix(path, "/"))
	case !info.Mode().IsRegular():
		return fmt.Errorf("it is no file but a %s: write what it gives into a file first", kindOfFile(info))
	}
	return nil
}

// openImport opens a file; one that ends in .gz is unpacked.
func openImport(path string) (io.ReadCloser, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if !strings.HasSuffix(path, ".gz") {
		return f, nil
	}
	z, err := gzip.NewReader(bufio.NewReaderSize(f, 256<<10))
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("unpack: %w", err)
	}
	return &gzipFile{z, f}, nil
}

type gzipFile struct {
	*gzip.Reader
	f *os.File
}

func (g *gzipFile) Close() error { return errors.Join(g.Reader.Close(), g.f.Close()) }

// content is what a survey finds out about a file.
type content struct {
	size      int64
	sum       [sha256.Size]byte
	firstLine []byte
	// sums holds the hash of the first n bytes for each n asked for; next the
	// byte that follows them.
	sums map[int64][sha256.Size]byte
	next map[int64]byte
}

// survey reads a content once: its format, where the options leave it open, its
// first line, its hash, and the hashes of the beginnings of the lengths that
// lengths names once the first line is known. progress may be nil.
func survey(ctx context.Context, open func() (io.ReadCloser, error), o *ImportOptions, lengths func(firstLine []byte) ([]int64, error), progress func(int64)) (*content, error) {
	r, err := open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	in := bufio.NewReaderSize(r, 256<<10)
	head, err := in.Peek(128 << 10)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	c := &content{sums: map[int64][sha256.Size]byte{}, next: map[int64]byte{}}
	c.firstLine, _, _ = bytes.Cut(head, []byte("\n"))
	c.firstLine = bytes.Clone(c.firstLine)
	if o.Format == "" {
		o.Format = guessHead(head)
	}
	var at []int64
	if lengths != nil && len(head) > 0 {
		if at, err = lengths(c.firstLine); err != nil {
			return nil, err
		}
	}
	return c, c.hash(ctx, in, at, progress)
}

// guessHead guesses from the first lines.
func guessHead(head []byte) string {
	lines := strings.SplitN(string(head), "\n", 51)
	if len(lines) > 1 {
		lines = lines[:len(lines)-1]
	}
	return guessFormat(lines)
}

// hash reads all, stopping at the lengths asked for, which ascend.
func (c *content) hash(ctx context.Context, in io.Reader, at []int64, progress func(int64)) error {
	h := sha256.New()
	buf := make([]byte, 256<<10)
	for ctx.Err() == nil {
		want := int64(len(buf))
		if len(at) > 0 {
			want = min(want, at[0]-c.size)
		}
		n, err := io.ReadFull(in, buf[:want])
		if n > 0 {
			if _, asked := c.sums[c.size]; asked {
				c.next[c.size] = buf[0]
			}
		}
		h.Write(buf[:n])
		c.size += int64(n)
		for len(at) > 0 && at[0] == c.size {
			c.sums[c.size] = [sha256.Size]byte(h.Sum(nil))
			at = at[1:]
		}
		if progress != nil {
			progress(c.size)
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			c.sum = [sha256.Size]byte(h.Sum(nil))
			return nil
		}
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

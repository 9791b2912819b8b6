package collector

import (
	"bufio"
	"errors"
	"io"
)

// lineReader cuts a stream into lines. A line longer than limitLine comes as its
// beginning; the rest up to the newline is skipped and counted. It holds at most
// limitLine bytes.
type lineReader struct {
	r    *bufio.Reader
	line []byte
	size int64 // bytes of the open line so far, those skipped included
}

func newLineReader(r io.Reader) *lineReader {
	return &lineReader{r: bufio.NewReaderSize(r, 64<<10)}
}

// next returns the next whole line without its newline, and how many bytes it
// took with it. cut says that its end was skipped. At the end of what is there
// it returns io.EOF and keeps the open line: call it again when more may have
// come. line is valid until the next call.
func (l *lineReader) next() (line []byte, size int64, cut bool, err error) {
	for {
		part, err := l.r.ReadSlice('\n')
		l.size += int64(len(part))
		if room := limitLine - len(l.line); room > 0 {
			l.line = append(l.line, part[:min(room, len(part))]...)
		}
		switch {
		case err == nil:
			line, size = l.line, l.size
			l.line, l.size = l.line[:0], 0
			cut = size > int64(len(line))
			if !cut {
				line = line[:len(line)-1]
			}
			if cap(l.line) > 64<<10 && len(line) < 64<<10 {
				l.line = nil // one long line must not be paid for ever
			}
			return line, size, cut, nil
		case errors.Is(err, bufio.ErrBufferFull):
		default:
			return nil, 0, false, err
		}
	}
}

// rest returns the line that the stream ended in, if any.
func (l *lineReader) rest() (line []byte, size int64, cut bool) {
	line, size = l.line, l.size
	l.line, l.size = nil, 0
	return line, size, size > int64(len(line))
}

package event

import (
	"bytes"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// scanner reads the part of JSON that an event is made of: objects, texts,
// numbers and the three literals (RFC 8259, no leniency). Intake spends most of
// its time here, and a general tokenizer takes twice as long (BenchmarkDecodeJSON;
// FuzzScanner holds this one against jsontext). Escapes, which are rare, are
// left to jsontext.
type scanner struct {
	data []byte
	pos  int
}

// peek skips white space and returns the next byte, 0 at the end.
func (s *scanner) peek() byte {
	for s.pos < len(s.data) {
		switch c := s.data[s.pos]; c {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return c
		}
	}
	return 0
}

func (s *scanner) broken(what string) error {
	if s.pos >= len(s.data) {
		return refuse(BadJSON, -1, "it ends before the object does")
	}
	return refuse(BadJSON, -1, "at byte %d: %s", s.pos, what)
}

// take consumes one expected byte.
func (s *scanner) take(c byte) error {
	if s.peek() != c {
		return s.broken("expected '" + string(rune(c)) + "'")
	}
	s.pos++
	return nil
}

// next moves to the next member of an object: true when there is one, with the
// position at its name. first is true right after the opening brace.
func (s *scanner) next(first bool) (bool, error) {
	switch c := s.peek(); {
	case c == '}':
		s.pos++
		return false, nil
	case first:
	case c == ',':
		s.pos++
	default:
		return false, s.broken("expected ',' or '}'")
	}
	if s.peek() != '"' {
		return false, s.broken("expected a name in quotes")
	}
	return true, nil
}

// text returns the inside of a quoted text, aliasing the input, or unquoted into
// *scratch when it holds escapes.
func (s *scanner) text(scratch *[]byte) ([]byte, error) {
	start := s.pos
	ascii := true
	for i := start + 1; i < len(s.data); i++ {
		switch c := s.data[i]; {
		case c == '"':
			raw := s.data[start+1 : i]
			if !ascii && !utf8.Valid(raw) {
				return nil, s.broken("a text that is not valid UTF-8")
			}
			s.pos = i + 1
			return raw, nil
		case c == '\\':
			return s.escaped(start, i, scratch)
		case c < 0x20:
			s.pos = i
			return nil, s.broken("a control character in a text: write it as an escape")
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	s.pos = len(s.data)
	return nil, s.broken("")
}

// escaped finds the end of a text that holds an escape at i, and unquotes it.
func (s *scanner) escaped(start, i int, scratch *[]byte) ([]byte, error) {
	for ; i < len(s.data) && s.data[i] != '"'; i++ {
		if s.data[i] == '\\' {
			i++
		}
	}
	if i >= len(s.data) {
		s.pos = len(s.data)
		return nil, s.broken("")
	}
	out, err := jsontext.AppendUnquote((*scratch)[:0], s.data[start:i+1])
	if err != nil {
		return nil, s.broken("a text with a bad escape or not valid UTF-8")
	}
	*scratch = out
	s.pos = i + 1
	return out, nil
}

// literal consumes null, true or false.
func (s *scanner) literal() ([]byte, error) {
	for _, w := range [...]string{"null", "true", "false"} {
		if bytes.HasPrefix(s.data[s.pos:], []byte(w)) {
			s.pos += len(w)
			return s.data[s.pos-len(w) : s.pos], nil
		}
	}
	return nil, s.broken("expected a value")
}

// number consumes a number and returns its bytes.
func (s *scanner) number() ([]byte, error) {
	start := s.pos
	digits := func() bool {
		from := s.pos
		for s.pos < len(s.data) && s.data[s.pos]-'0' < 10 {
			s.pos++
		}
		return s.pos > from
	}
	at := func(c byte) bool { return s.pos < len(s.data) && s.data[s.pos] == c }
	if at('-') {
		s.pos++
	}
	if at('0') {
		s.pos++
	} else if !digits() {
		return nil, s.broken("expected a value")
	}
	if at('.') {
		if s.pos++; !digits() {
			return nil, s.broken("a number without digits after its point")
		}
	}
	if at('e') || at('E') {
		if s.pos++; at('+') || at('-') {
			s.pos++
		}
		if !digits() {
			return nil, s.broken("a number without digits in its exponent")
		}
	}
	return s.data[start:s.pos], nil
}

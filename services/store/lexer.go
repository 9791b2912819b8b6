package store

import (
	"errors"
	"fmt"
	"strings"
)

// token measures what stands at the start of s, which is not empty: a quoted
// text, a comment, or one byte.
func token(s string) (n int, isComment bool, err error) {
	switch {
	case strings.HasPrefix(s, "--"):
		if i := strings.IndexByte(s, '\n'); i >= 0 {
			return i, true, nil
		}
		return len(s), true, nil
	case strings.HasPrefix(s, "/*"):
		i := strings.Index(s[2:], "*/")
		if i < 0 {
			return 0, false, errors.New("a comment is not closed")
		}
		return i + 4, true, nil
	case s[0] == '\'' || s[0] == '"' || s[0] == '`':
		for i := 1; i < len(s); i++ {
			switch s[i] {
			case '\\':
				i++
			case s[0]:
				return i + 1, false, nil
			}
		}
		return 0, false, fmt.Errorf("a %c is not closed", s[0])
	}
	return 1, false, nil
}

// lexeme is a piece of a statement: a name, written plainly or in quotes, or a
// byte that is neither part of a name nor space. Texts come as a single quote.
type lexeme struct {
	name string // "" for a byte
	char byte
}

// ambiguity is something in a statement that ClickHouse and lex could read in
// two ways, so that a part of the statement could hide from lex.
type ambiguity struct{ what, advice string }

func (a *ambiguity) Error() string { return a.what + ": " + a.advice }

// lex hands the pieces of a statement to fn, without comments and space. What
// could be read in two ways is an *ambiguity: outside quotes and comments all
// but ASCII (ClickHouse knows typographic quotes), $ (begins a heredoc), # (a
// comment), a backslash in a quoted name (hides its letters), a comment within
// a comment.
func lex(text string, fn func(lexeme) error) error {
	for i := 0; i < len(text); {
		n, isComment, err := token(text[i:])
		if err != nil {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		piece := text[i : i+n]
		i += n
		l := lexeme{char: piece[0]}
		switch {
		case isComment && strings.Contains(piece[2:], "/*"):
			return &ambiguity{"a comment within a comment", "take it out"}
		case isComment, l.char == ' ', l.char == '\t', l.char == '\n', l.char == '\r':
			continue
		case l.char == '"' || l.char == '`':
			if strings.Contains(piece, `\`) {
				return &ambiguity{"the name " + piece, "a name cannot hold a backslash"}
			}
			l.name = piece[1 : len(piece)-1]
		case isWordByte(l.char):
			end := i
			for end < len(text) && isWordByte(text[end]) {
				end++
			}
			l.name, i = text[i-1:end], end
		case l.char < ' ' || l.char > '~' || l.char == '$' || l.char == '#' || l.char == '\\':
			return &ambiguity{fmt.Sprintf("the character %q outside quotes", rune(l.char)), "take it out, or put it into quotes"}
		}
		if err := fn(l); err != nil {
			return err
		}
	}
	return nil
}

func isWordByte(b byte) bool {
	return b == '_' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9'
}

// firstWord is a statement's first name, past comments, space and parentheses.
func firstWord(text string) string {
	found := errors.New("found")
	word := ""
	_ = lex(text, func(l lexeme) error {
		if l.name == "" && l.char == '(' {
			return nil
		}
		word = l.name
		return found
	})
	return strings.ToUpper(word)
}

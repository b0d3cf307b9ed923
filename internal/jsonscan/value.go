// Package jsonscan checks JSON text (RFC 8259) and finds values in it, in place: nothing is built from it and nothing
// allocated. What is hostile is passed by Skip first, what is valid is walked over as a Value.
package jsonscan

import (
	"bytes"
	"encoding/hex"
	"errors"
	"iter"

	"github.com/tidwall/gjson"
)

// ErrNotString means that a value is missing or no string.
var ErrNotString = errors.New("not a string")

// Value is the text of one value out of valid JSON text, without space around it; nil for a value that is not there.
type Value []byte

// IsObject reports whether v is an object.
func (v Value) IsObject() bool { return len(v) > 0 && v[0] == '{' }

// IsArray reports whether v is an array.
func (v Value) IsArray() bool { return len(v) > 0 && v[0] == '[' }

// IsString reports whether v is a string.
func (v Value) IsString() bool { return len(v) > 0 && v[0] == '"' }

// IsNumber reports whether v is a number.
func (v Value) IsNumber() bool { return len(v) > 0 && (v[0] == '-' || isDigit(v[0])) }

// Each iterates over the members of an object, or over the elements of an array with nil keys. Other values have none.
func (v Value) Each() iter.Seq2[Value, Value] {
	return func(yield func(key, element Value) bool) {
		if !v.IsObject() && !v.IsArray() {
			return
		}
		for i := skipSeparators(v, 1); i < len(v) && v[i] != ']' && v[i] != '}'; {
			var key Value
			if v.IsObject() {
				end := valueEnd(v, i)
				key = v[i:end]
				i = skipSeparators(v, end)
			}
			end := valueEnd(v, i)
			if !yield(key, v[i:end]) {
				return
			}
			i = skipSeparators(v, end)
		}
	}
}

// Content returns what a string stands for: a part of v unless there are escapes in it. It need not be UTF-8.
func (v Value) Content() ([]byte, error) {
	if !v.IsString() {
		return nil, ErrNotString
	}
	if bytes.IndexByte(v, '\\') < 0 {
		return v[1 : len(v)-1], nil
	}
	return []byte(gjson.ParseBytes(v).Str), nil
}

// AppendHex appends the bytes that a string of hex digits, of either case, stands for.
func (v Value) AppendHex(dst []byte) ([]byte, error) {
	digits, err := v.Content()
	if err != nil {
		return dst, err
	}
	b, err := hex.AppendDecode(dst, digits)
	if err != nil {
		return dst, errors.New("not hex")
	}
	return b, nil
}

// valueEnd returns the position behind the value that begins at i.
func valueEnd(text []byte, i int) int {
	depth := 0
	for ; i < len(text); i++ {
		switch text[i] {
		case '"':
			i = stringEnd(text, i)
		case '[', '{':
			depth++
		case ']', '}':
			depth--
		default:
			if depth > 0 {
				continue
			}
			if n := bytes.IndexAny(text[i:], ",]} \t\r\n"); n >= 0 {
				return i + n
			}
			return len(text)
		}
		if depth == 0 {
			return min(i+1, len(text))
		}
	}
	return i
}

// stringEnd returns the position of the quote that ends the string which begins at i, or the end of text.
func stringEnd(text []byte, i int) int {
	for i++; ; i++ {
		n := bytes.IndexByte(text[i:], '"')
		if n < 0 {
			return len(text)
		}
		i += n
		escapes := 0
		for text[i-1-escapes] == '\\' {
			escapes++
		}
		if escapes%2 == 0 {
			return i
		}
	}
}

// skipSeparators returns the position of the first byte from i on that is neither space, comma nor colon.
func skipSeparators(text []byte, i int) int {
	for i < len(text) && isSeparator(text[i]) {
		i++
	}
	return i
}

func isSeparator(c byte) bool {
	return c == ',' || c == ':' || c == ' ' || c == '\t' || c == '\r' || c == '\n'
}

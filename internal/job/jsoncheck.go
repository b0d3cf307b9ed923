package job

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
)

// checkJSON returns an error for a text that is not one valid JSON value
// (RFC 8259), or one nested too deeply.
//
// It is here for its speed (BenchmarkCheckJSON): templates are strings of hex
// and base64 for the most part, which it looks through eight bytes at a time.
func checkJSON(text []byte) error {
	end, err := checkValue(text, skipSpace(text, 0), 0)
	if err == nil && skipSpace(text, end) != len(text) {
		err = errNotJSON
	}
	return err
}

// checkValue returns the position behind the value that begins at i.
func checkValue(text []byte, i, depth int) (end int, err error) {
	if i == len(text) {
		return i, errNotJSON
	}
	switch text[i] {
	case '"':
		return checkString(text, i)
	case '{':
		return checkList(text, i, depth+1, true)
	case '[':
		return checkList(text, i, depth+1, false)
	}
	if text[i] == '-' || isDigit(text[i]) {
		return checkNumber(text, i)
	}
	for _, word := range []string{"true", "false", "null"} {
		if bytes.HasPrefix(text[i:], []byte(word)) {
			return i + len(word), nil
		}
	}
	return i, errNotJSON
}

// checkList returns the position behind the object or array that begins at i.
func checkList(text []byte, i, depth int, object bool) (end int, err error) {
	if depth > maxJSONDepth {
		return i, fmt.Errorf("JSON nested deeper than %d", maxJSONDepth)
	}
	closing := text[i] + 2 // '{' and '}', '[' and ']' are two apart
	i = skipSpace(text, i+1)
	if i < len(text) && text[i] == closing {
		return i + 1, nil
	}
	for {
		if object {
			if i == len(text) || text[i] != '"' {
				return i, errNotJSON
			}
			if i, err = checkString(text, i); err != nil {
				return i, err
			}
			if i = skipSpace(text, i); i == len(text) || text[i] != ':' {
				return i, errNotJSON
			}
			i = skipSpace(text, i+1)
		}
		if i, err = checkValue(text, i, depth); err != nil {
			return i, err
		}
		i = skipSpace(text, i)
		switch {
		case i == len(text):
			return i, errNotJSON
		case text[i] == closing:
			return i + 1, nil
		case text[i] != ',':
			return i, errNotJSON
		}
		i = skipSpace(text, i+1)
	}
}

// checkString returns the position behind the string that begins at i.
func checkString(text []byte, i int) (end int, err error) {
	for i++; ; {
		i += plain(text[i:])
		switch rest := text[i:]; {
		case len(rest) == 0 || rest[0] < ' ':
			return i, errNotJSON
		case rest[0] == '"':
			return i + 1, nil
		case len(rest) > 1 && bytes.IndexByte([]byte(`"\/bfnrt`), rest[1]) >= 0:
			i += 2
		case len(rest) > 5 && rest[1] == 'u' && isHex(rest[2:6]):
			i += 6
		default:
			return i, errNotJSON
		}
	}
}

// plain returns how many bytes b begins with that are neither a quote nor a
// backslash nor a control character.
func plain(b []byte) int {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	n := 0
	for ; len(b)-n >= 8; n += 8 {
		// The top bit of each byte that is one of them; borrows may set bits
		// above the first of them, never below it.
		x := binary.LittleEndian.Uint64(b[n:])
		quote, backslash := x^ones*'"', x^ones*'\\'
		found := ((x-ones*' ')&^x | (quote-ones)&^quote | (backslash-ones)&^backslash) & tops
		if found != 0 {
			return n + bits.TrailingZeros64(found)/8
		}
	}
	for n < len(b) && b[n] >= ' ' && b[n] != '"' && b[n] != '\\' {
		n++
	}
	return n
}

func isHex(b []byte) bool {
	for _, c := range b {
		if !isDigit(c) && (c|0x20 < 'a' || c|0x20 > 'f') {
			return false
		}
	}
	return true
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// checkNumber returns the position behind the number that begins at i.
func checkNumber(text []byte, i int) (end int, err error) {
	at := func(i int) byte {
		if i < len(text) {
			return text[i]
		}
		return 0
	}
	if at(i) == '-' {
		i++
	}
	digits := i
	i = skipDigits(text, i)
	if i == digits || text[digits] == '0' && i > digits+1 {
		return i, errNotJSON
	}
	if at(i) == '.' {
		digits = i + 1
		if i = skipDigits(text, digits); i == digits {
			return i, errNotJSON
		}
	}
	if at(i)|0x20 == 'e' {
		if i++; at(i) == '+' || at(i) == '-' {
			i++
		}
		digits = i
		if i = skipDigits(text, digits); i == digits {
			return i, errNotJSON
		}
	}
	return i, nil
}

func skipDigits(text []byte, i int) int {
	for i < len(text) && isDigit(text[i]) {
		i++
	}
	return i
}

func skipSpace(text []byte, i int) int {
	for i < len(text) && (text[i] == ' ' || text[i] == '\t' || text[i] == '\r' || text[i] == '\n') {
		i++
	}
	return i
}

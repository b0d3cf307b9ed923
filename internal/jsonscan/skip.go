package jsonscan

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

// What Skip and SkipString return instead of a position.
const (
	Invalid = -1 // not JSON
	TooDeep = -2 // arrays and objects nested deeper than allowed
)

// Skip returns the position behind the value that begins at i, in which arrays and objects are nested at most depth
// deep. It is negative for what is no such value.
//
// Skip is here for its speed (BenchmarkSkip): the strings of templates and jobs are looked through eight bytes at a
// time.
func Skip(text []byte, i, depth int) int {
	if i >= len(text) {
		return Invalid
	}
	switch text[i] {
	case '"':
		return SkipString(text, i)
	case '{', '[':
		return skipList(text, i, depth, func(_ Value, i, depth int) int { return Skip(text, i, depth) })
	case 't':
		return skipWord(text, i, "true")
	case 'f':
		return skipWord(text, i, "false")
	case 'n':
		return skipWord(text, i, "null")
	}
	return skipNumber(text, i)
}

// SkipEach is Skip, but has skip pass the elements of the array or the values of the object's members: megabytes are
// checked and walked over at once. Skip is given the key, nil in an array, the position of the value and the depth that is
// left to it, and returns what Skip does.
func SkipEach(text []byte, i, depth int, skip func(key Value, i, depth int) int) int {
	if i < len(text) && (text[i] == '{' || text[i] == '[') {
		return skipList(text, i, depth, skip)
	}
	return Skip(text, i, depth)
}

// skipList passes the object or array that begins at i.
func skipList(text []byte, i, depth int, skip func(key Value, i, depth int) int) int {
	if depth == 0 {
		return TooDeep
	}
	object := text[i] == '{'
	closing := text[i] + 2 // '{' and '}', '[' and ']' are two apart
	i = SkipSpace(text, i+1)
	if i < len(text) && text[i] == closing {
		return i + 1
	}
	for {
		var key Value
		if object {
			start := i
			if i = SkipString(text, i); i < 0 {
				return Invalid
			}
			key = text[start:i]
			if i = SkipSpace(text, i); i == len(text) || text[i] != ':' {
				return Invalid
			}
			i = SkipSpace(text, i+1)
		}
		if i = skip(key, i, depth-1); i < 0 {
			return i
		}
		i = SkipSpace(text, i)
		switch {
		case i == len(text):
			return Invalid
		case text[i] == closing:
			return i + 1
		case text[i] != ',':
			return Invalid
		}
		i = SkipSpace(text, i+1)
	}
}

// SkipString returns the position behind the string that begins at i, or Invalid.
func SkipString(text []byte, i int) int {
	if i >= len(text) || text[i] != '"' {
		return Invalid
	}
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	for i++; ; {
		for ; len(text)-i >= 8; i += 8 {
			// The top bit of each byte that is a quote, a backslash or a control character; borrows may set bits above
			// the first of them, never below it.
			x := binary.LittleEndian.Uint64(text[i:])
			quote, backslash := x^ones*'"', x^ones*'\\'
			found := ((x-ones*' ')&^x | (quote-ones)&^quote | (backslash-ones)&^backslash) & tops
			if found != 0 {
				i += bits.TrailingZeros64(found) / 8
				break
			}
		}
		for i < len(text) && text[i] >= ' ' && text[i] != '"' && text[i] != '\\' {
			i++
		}
		switch {
		case i == len(text) || text[i] < ' ':
			return Invalid
		case text[i] == '"':
			return i + 1
		}
		switch rest := text[i+1:]; {
		case len(rest) > 0 && bytes.IndexByte([]byte(`"\/bfnrt`), rest[0]) >= 0:
			i += 2
		case len(rest) > 4 && rest[0] == 'u' && isHex(rest[1:5]):
			i += 6
		default:
			return Invalid
		}
	}
}

func skipWord(text []byte, i int, word string) int {
	if !bytes.HasPrefix(text[i:], []byte(word)) {
		return Invalid
	}
	return i + len(word)
}

func skipNumber(text []byte, i int) int {
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
		return Invalid
	}
	if at(i) == '.' {
		digits = i + 1
		if i = skipDigits(text, digits); i == digits {
			return Invalid
		}
	}
	if at(i)|0x20 == 'e' {
		if i++; at(i) == '+' || at(i) == '-' {
			i++
		}
		digits = i
		if i = skipDigits(text, digits); i == digits {
			return Invalid
		}
	}
	return i
}

func skipDigits(text []byte, i int) int {
	for i < len(text) && isDigit(text[i]) {
		i++
	}
	return i
}

// SkipSpace returns the position of the first byte from i on that is no space.
func SkipSpace(text []byte, i int) int {
	for i < len(text) && (text[i] == ' ' || text[i] == '\t' || text[i] == '\r' || text[i] == '\n') {
		i++
	}
	return i
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

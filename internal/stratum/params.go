package stratum

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"strconv"
	"strings"

	"btcpool/internal/jsonscan"
)

// Parameters are the JSON text of an array out of a line that was parsed, or nil. Those that miners send once a
// connection are read by encoding/json.

// elements puts the leading elements of params into list and returns their number; those that are missing stay nil.
// What follows behind len(list) is not looked at.
func elements(params jsonscan.Value, list []jsonscan.Value) int {
	n := 0
	for _, v := range params.Each() {
		if n == len(list) {
			break
		}
		list[n] = v
		n++
	}
	return n
}

// decode returns what v stands for, which must not be null.
func decode[T any](v jsonscan.Value) (T, error) {
	var p *T
	if err := json.Unmarshal(v, &p); err != nil || p == nil {
		var zero T
		return zero, ErrParams
	}
	return *p, nil
}

// number returns a number; what is beyond a float64 is infinite.
func number(v jsonscan.Value) (float64, bool) {
	if !v.IsNumber() {
		return 0, false
	}
	n, _ := strconv.ParseFloat(string(v), 64) // fails for what is out of range only
	return n, true
}

// unquoted returns a string as written, without its quotes, and nil for another value.
func unquoted(v jsonscan.Value) []byte {
	if !v.IsString() {
		return nil
	}
	return v[1 : len(v)-1]
}

// bare returns a number, or what a string of one holds.
func bare(v jsonscan.Value) []byte {
	if v.IsString() {
		return unquoted(v)
	}
	return v
}

// text returns what a string stands for, or the digits of a number.
func text(v jsonscan.Value) (string, bool) {
	if v.IsNumber() {
		return string(v), true
	}
	s, err := decode[string](v)
	return s, err == nil
}

// words returns a text meant for people, whatever it is that a pool sends in its place.
func words(v jsonscan.Value) string {
	if text, err := v.Content(); err == nil {
		return strings.ToValidUTF8(string(text), "\uFFFD")
	}
	if string(v) == "null" {
		return ""
	}
	return string(v)
}

var errWord = errors.New("not a string of 8 hex digits")

// word reads a string of exactly 8 hex digits.
func word(v jsonscan.Value) (uint32, error) {
	n, ok := parseHex(unquoted(v), 8)
	if !ok {
		return 0, errWord
	}
	return uint32(n), nil
}

// hexValue holds the value of each hex digit, of either case, and 255 for every other byte.
var hexValue = func() (table [256]byte) {
	for i := range table {
		table[i] = 255
	}
	for i, c := range []byte("0123456789abcdef") {
		table[c] = byte(i)
	}
	for i, c := range []byte("ABCDEF") {
		table[c] = byte(10 + i)
	}
	return table
}()

// digits returns hex digits without the 0x that some write before them.
func digits(text []byte) []byte {
	if len(text) > 2 && text[0] == '0' && text[1]|0x20 == 'x' {
		return text[2:]
	}
	return text
}

// parseHex reads exactly size hex digits. Those before the last 16 must be 0.
func parseHex(text []byte, size int) (uint64, bool) {
	if len(text) != size {
		return 0, false
	}
	for ; len(text) > 16; text = text[1:] {
		if text[0] != '0' {
			return 0, false
		}
	}
	var n uint64
	for _, c := range text {
		v := hexValue[c]
		if v > 15 {
			return 0, false
		}
		n = n<<4 | uint64(v)
	}
	return n, true
}

// parseHex32 reads 1 to 8 hex digits, with or without 0x.
func parseHex32(text []byte) (uint32, bool) {
	text = digits(text)
	n, ok := parseHex(text, min(max(len(text), 1), 8))
	return uint32(n), ok
}

// Escape returns what stands for text between the quotes of JSON.
func Escape(text string) []byte {
	quoted, _ := json.Marshal(text) // a string always encodes
	return quoted[1 : len(quoted)-1]
}

func appendString(dst []byte, text string) []byte {
	dst = append(dst, '"')
	dst = append(dst, Escape(text)...)
	return append(dst, '"')
}

func appendHex32(dst []byte, n uint32) []byte {
	return hex.AppendEncode(dst, []byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

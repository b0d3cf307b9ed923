package job

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/tidwall/gjson"
)

// The bounds of what is decoded at all.
const (
	maxJSONSize  = 64 << 20 // bytes
	maxJSONDepth = 32
	maxJSONKeys  = 256 // of one object
)

var (
	errNotJSON   = errors.New("not valid JSON")
	errNotObject = errors.New("not an object")
	errNotArray  = errors.New("not an array")
	errNotString = errors.New("not a string")
	errNotHash   = errors.New("not 64 hex digits")
)

// value is the text of one value in a valid JSON text, nil for one that is not
// there. It is walked in place: a template holds megabytes of hex that most
// readers only step over, which takes gjson far longer.
type value []byte

// parseObject returns the object that b is, after checking that all of it is
// valid JSON.
func parseObject(b []byte) (value, error) {
	if len(b) > maxJSONSize {
		return nil, fmt.Errorf("%d bytes of JSON exceed the limit of %d", len(b), maxJSONSize)
	}
	if err := checkJSON(b); err != nil {
		return nil, err
	}
	object := value(b[skipSeparators(b, 0):])
	if !object.isObject() {
		return nil, errNotObject
	}
	return object, nil
}

// stringEnd returns the position of the quote that ends the string which begins
// at i, or the end of text.
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

// skipSeparators returns the position of the first byte from i on that is
// neither space, comma nor colon.
func skipSeparators(text []byte, i int) int {
	for i < len(text) && isSeparator(text[i]) {
		i++
	}
	return i
}

func isSeparator(c byte) bool {
	return c == ',' || c == ':' || c == ' ' || c == '\t' || c == '\r' || c == '\n'
}

func (v value) isObject() bool { return len(v) > 0 && v[0] == '{' }
func (v value) isArray() bool  { return len(v) > 0 && v[0] == '[' }
func (v value) isString() bool { return len(v) > 0 && v[0] == '"' }

// each iterates over the members of an object, or over the elements of an array
// with nil keys. Other values have none.
func (v value) each() iter.Seq2[value, value] {
	return func(yield func(key, element value) bool) {
		if !v.isObject() && !v.isArray() {
			return
		}
		for i := skipSeparators(v, 1); i < len(v) && v[i] != ']' && v[i] != '}'; {
			var key value
			if v.isObject() {
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

// content returns what a string stands for.
func (v value) content() ([]byte, error) {
	if !v.isString() {
		return nil, errNotString
	}
	if bytes.IndexByte(v, '\\') < 0 {
		return v[1 : len(v)-1], nil
	}
	return []byte(gjson.ParseBytes(v).Str), nil
}

func (v value) text() (string, error) {
	s, err := v.content()
	if err != nil {
		return "", err
	}
	if !utf8.Valid(s) {
		return "", errors.New("not UTF-8")
	}
	return string(s), nil
}

func (v value) hex() ([]byte, error) {
	digits, err := v.content()
	if err != nil {
		return nil, err
	}
	b, err := hex.AppendDecode(nil, digits)
	if err != nil {
		return nil, errors.New("not hex")
	}
	return b, nil
}

func (v value) base64() ([]byte, error) {
	digits, err := v.content()
	if err != nil {
		return nil, err
	}
	return base64.StdEncoding.Strict().AppendDecode(nil, digits)
}

// hash reads 64 hex digits in display order.
func (v value) hash() (chainhash.Hash, error) {
	digits, err := v.content()
	if err != nil {
		return chainhash.Hash{}, err
	}
	var hash chainhash.Hash
	if len(digits) != hex.EncodedLen(len(hash)) {
		return chainhash.Hash{}, errNotHash
	}
	if _, err := hex.Decode(hash[:], digits); err != nil {
		return chainhash.Hash{}, errNotHash
	}
	slices.Reverse(hash[:])
	return hash, nil
}

// fields reads the values of one object by key. Its getters note the first
// value that is missing or wrong in err; what they return is then of no use.
type fields struct {
	values map[string]value
	err    error
}

// fieldsOf returns the values of object; the last one counts where a key is
// repeated.
func fieldsOf(object value) *fields {
	f := &fields{values: make(map[string]value)}
	for key, v := range object.each() {
		name, err := key.text()
		f.fail("key", err)
		if f.values[name] = v; len(f.values) > maxJSONKeys {
			f.err = fmt.Errorf("more than %d keys", maxJSONKeys)
			break
		}
	}
	return f
}

func (f *fields) has(key string) bool {
	v, ok := f.values[key]
	return ok && string(v) != "null"
}

// hasAll reports whether all keys are there. Some of them are an error.
func (f *fields) hasAll(keys ...string) bool {
	missing := slices.IndexFunc(keys, func(key string) bool { return !f.has(key) })
	if missing < 0 {
		return true
	}
	if slices.ContainsFunc(keys, f.has) {
		f.fail(keys[missing], errors.New("missing beside its like"))
	}
	return false
}

// fail notes err, if it is one and the first.
func (f *fields) fail(key string, err error) {
	if err != nil && f.err == nil {
		f.err = fmt.Errorf("%s: %w", key, err)
	}
}

// object returns the values of an object; its err is the caller's to pass on.
func (f *fields) object(key string) *fields {
	v := f.values[key]
	if !v.isObject() {
		f.fail(key, errNotObject)
	}
	return fieldsOf(v)
}

// integer returns an integer from lowest to highest.
func (f *fields) integer(key string, lowest, highest int64) int64 {
	v := string(f.values[key])
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n < lowest || n > highest {
		f.fail(key, fmt.Errorf("%.30q is not an integer from %d to %d", v, lowest, highest))
	}
	return n
}

// unsigned returns an integer from 0 to highest.
func (f *fields) unsigned(key string, highest uint64) uint64 {
	v := string(f.values[key])
	n, err := strconv.ParseUint(v, 10, 64)
	if err != nil || n > highest {
		f.fail(key, fmt.Errorf("%.30q is not an integer from 0 to %d", v, highest))
	}
	return n
}

func (f *fields) boolean(key string) bool {
	v := string(f.values[key])
	if v != "true" && v != "false" {
		f.fail(key, errors.New("neither true nor false"))
	}
	return v == "true"
}

func (f *fields) text(key string) string {
	s, err := f.values[key].text()
	f.fail(key, err)
	return s
}

// hex returns the bytes that hex digits stand for, nil for none.
func (f *fields) hex(key string) []byte {
	b, err := f.values[key].hex()
	f.fail(key, err)
	if len(b) == 0 {
		return nil
	}
	return b
}

func (f *fields) hash(key string) chainhash.Hash {
	hash, err := f.values[key].hash()
	f.fail(key, err)
	return hash
}

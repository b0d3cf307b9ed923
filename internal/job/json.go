package job

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/btcsuite/btcd/chainhash/v2"

	"btcpool/internal/bitcoin"
	"btcpool/internal/jsonscan"
)

// The bounds of what is decoded at all.
const (
	maxJSONSize  = 64 << 20 // bytes
	maxJSONDepth = 32
	maxJSONKeys  = 256 // in one object
)

var (
	errNotJSON   = errors.New("not valid JSON")
	errNotObject = errors.New("not an object")
	errNotArray  = errors.New("not an array")
	errNotHash   = errors.New("not 64 hex digits")
)

// parseObject returns the object that b is, after checking that all of it is valid JSON. It is walked in place: a
// template holds megabytes of hex that most readers only step over, which takes gjson far longer.
func parseObject(b []byte) (jsonscan.Value, error) {
	return walkObject(b, func(_ jsonscan.Value, i, depth int) int { return jsonscan.Skip(b, i, depth) })
}

// walkObject is parseObject, but has skip pass the values as jsonscan.SkipEach does. What it has seen is of no use when
// there is an error.
func walkObject(b []byte, skip func(key jsonscan.Value, i, depth int) int) (jsonscan.Value, error) {
	if len(b) > maxJSONSize {
		return nil, fmt.Errorf("%d bytes of JSON exceed the limit of %d", len(b), maxJSONSize)
	}
	start := jsonscan.SkipSpace(b, 0)
	end := jsonscan.SkipEach(b, start, maxJSONDepth, skip)
	if end == jsonscan.TooDeep {
		return nil, fmt.Errorf("JSON nested deeper than %d", maxJSONDepth)
	}
	if end < 0 || jsonscan.SkipSpace(b, end) != len(b) {
		return nil, errNotJSON
	}
	object := jsonscan.Value(b[start:end])
	if !object.IsObject() {
		return nil, errNotObject
	}
	return object, nil
}

// parse returns what read makes of the fields of the object that b is. what says in errors what b should have been.
func parse[T any](what string, b []byte, read func(*fields) T) (T, error) {
	object, err := parseObject(b)
	var result T
	if err == nil {
		f := fieldsOf(object)
		result, err = read(f), f.err
	}
	if err != nil {
		var none T
		return none, fmt.Errorf("%s: %w", what, err)
	}
	return result, nil
}

func textOf(v jsonscan.Value) (string, error) {
	s, err := v.Content()
	if err != nil {
		return "", err
	}
	if !utf8.Valid(s) {
		return "", errors.New("not UTF-8")
	}
	return string(s), nil
}

// isKey reports whether a member's key is name, however it is written.
func isKey(key jsonscan.Value, name string) bool {
	content, err := key.Content()
	return err == nil && string(content) == name
}

// hashOf reads 64 hex digits in display order.
func hashOf(v jsonscan.Value) (chainhash.Hash, error) {
	digits, err := v.Content()
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

// fields reads the values of one object by key. Its getters note the first value that is missing or wrong in err; what
// they return is then of no use.
type fields struct {
	values map[string]jsonscan.Value
	err    error
}

// fieldsOf returns the values of object; the last one counts where a key is repeated.
func fieldsOf(object jsonscan.Value) *fields {
	f := newFields()
	for key, v := range object.Each() {
		if !f.add(key, v) {
			break
		}
	}
	return f
}

func newFields() *fields { return &fields{values: make(map[string]jsonscan.Value)} }

// add takes in a member, and reports whether there may be more of them.
func (f *fields) add(key, v jsonscan.Value) bool {
	if len(f.values) > maxJSONKeys {
		return false
	}
	name, err := textOf(key)
	f.fail("key", err)
	if f.values[name] = v; len(f.values) > maxJSONKeys {
		f.err = fmt.Errorf("more than %d keys", maxJSONKeys)
		return false
	}
	return true
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
	if !v.IsObject() {
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
	s, err := textOf(f.values[key])
	f.fail(key, err)
	return s
}

func (f *fields) base64(key string) []byte {
	b, err := f.values[key].Content()
	if err == nil {
		b, err = base64.StdEncoding.Strict().AppendDecode(nil, b)
	}
	f.fail(key, err)
	return b
}

// hex returns the bytes that hex digits stand for, nil for none.
func (f *fields) hex(key string) []byte {
	b, err := f.values[key].AppendHex(nil)
	f.fail(key, err)
	if len(b) == 0 {
		return nil
	}
	return b
}

// chainWork reads the work of a chain as nodes write it; zero when there is none.
func (f *fields) chainWork(key string) (work bitcoin.Work) {
	if f.has(key) {
		var err error
		work, err = bitcoin.ParseChainWork(f.text(key))
		f.fail(key, err)
	}
	return work
}

func (f *fields) hash(key string) chainhash.Hash {
	hash, err := hashOf(f.values[key])
	f.fail(key, err)
	return hash
}

package stratum

import (
	"bytes"
	"errors"

	"btcpool/internal/jsonscan"
)

const (
	// maxDepth bounds the nesting of arrays and objects in a line. The deepest one known, the answer to
	// mining.subscribe, needs 4.
	maxDepth = 16
	maxID    = 64 // bytes of an id that a pool sends
)

// Message is one line of a pool: a request or notification if it has a method, else an answer. Its slices are parts of
// that line.
type Message struct {
	ID     []byte // JSON text of a number or a string, nil for none
	Method []byte // as written, without its quotes
	Params []byte // JSON text of an array, nil when there is none
	Result []byte // JSON text, nil when there is none
	Error  []byte // JSON text, nil when there is none, which null and false say too
}

// ParseMessage reads a line of a pool. All of it must be valid JSON, nested at most maxDepth deep; keys it does not
// know are skipped, and of repeated ones the last counts.
func ParseMessage(line []byte) (Message, error) {
	var m Message
	if m.scan(line) != len(line) {
		return Message{}, ErrSyntax
	}
	if id := jsonscan.Value(m.ID); id.IsArray() || id.IsObject() || len(id) > maxID {
		return Message{}, errors.New("id is not a short number or string")
	}
	if id := jsonscan.Value(m.ID); !id.IsNumber() && !id.IsString() {
		m.ID = nil
	}
	if method := jsonscan.Value(m.Method); method != nil && !method.IsString() && string(method) != "null" {
		return Message{}, errors.New("method is not a string")
	}
	m.Method = unquoted(m.Method)
	if !jsonscan.Value(m.Params).IsArray() {
		m.Params = nil
	}
	if e := string(m.Error); e == "null" || e == "false" {
		m.Error = nil
	}
	return m, nil
}

// scan sets all members to their JSON text in the object that line begins with, and leaves those that are missing nil.
// It returns the object's length with the blanks around it, or jsonscan.Invalid when there is none.
func (m *Message) scan(line []byte) int {
	i := skipBlank(line, 0)
	if i == len(line) || line[i] != '{' {
		return jsonscan.Invalid
	}
	i = jsonscan.SkipSpace(line, i+1)
	if i < len(line) && line[i] == '}' {
		return skipBlank(line, i+1)
	}
	for {
		start := i
		if i = jsonscan.SkipString(line, i); i < 0 {
			return jsonscan.Invalid
		}
		key := line[start+1 : i-1]
		if i = jsonscan.SkipSpace(line, i); i == len(line) || line[i] != ':' {
			return jsonscan.Invalid
		}
		start = jsonscan.SkipSpace(line, i+1)
		if i = jsonscan.Skip(line, start, maxDepth-1); i < 0 {
			return jsonscan.Invalid
		}
		value := line[start:i]
		switch string(key) {
		case "id":
			m.ID = value
		case "method":
			m.Method = value
		case "params":
			m.Params = value
		case "result":
			m.Result = value
		case "error":
			m.Error = value
		}
		i = jsonscan.SkipSpace(line, i)
		switch {
		case i == len(line):
			return jsonscan.Invalid
		case line[i] == '}':
			return skipBlank(line, i+1)
		case line[i] != ',':
			return jsonscan.Invalid
		}
		i = jsonscan.SkipSpace(line, i+1)
	}
}

// byteOrderMark begins the texts of some editors and libraries.
const byteOrderMark = "\xef\xbb\xbf"

// skipBlank is jsonscan.SkipSpace that also passes what some put around their lines: the zero byte that ends texts in
// C, and the byte order mark.
func skipBlank(line []byte, i int) int {
	for {
		i = jsonscan.SkipSpace(line, i)
		switch rest := line[i:]; {
		case len(rest) > 0 && rest[0] == 0:
			i++
		case bytes.HasPrefix(rest, []byte(byteOrderMark)):
			i += len(byteOrderMark)
		default:
			return i
		}
	}
}

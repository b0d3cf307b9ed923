package stratum

import (
	"strconv"

	"btcpool/internal/jsonscan"
)

// Request is one line of a miner. Its slices are parts of that line.
type Request struct {
	ID     []byte // JSON text of any value, for the answer to repeat; nil for none
	Method []byte // as written, without its quotes
	Params []byte // JSON text of an array, nil when there is none
	Result []byte // of an answer, if it is a string: as written, without its quotes
}

// ParseRequest reads the request that a line begins with as ParseMessage does, and returns its length n: less than the
// line's when another one follows. Of an answer it returns what it holds, with ErrAnswer.
func ParseRequest(line []byte) (r Request, n int, err error) {
	var m Message
	if n = m.scan(line); n < 0 {
		if skipBlank(line, 0) == len(line) {
			return Request{}, len(line), ErrBlank
		}
		return Request{}, len(line), ErrSyntax
	}
	r = Request{ID: m.ID, Method: unquoted(m.Method)}
	if string(r.ID) == "null" {
		r.ID = nil
	}
	params := jsonscan.Value(m.Params)
	if params.IsArray() {
		r.Params = m.Params
	}
	if r.Method == nil && (m.Result != nil || m.Error != nil) {
		r.Result = unquoted(m.Result)
		return r, n, ErrAnswer
	}
	if len(r.Method) == 0 || params != nil && r.Params == nil && string(params) != "null" {
		return r, n, ErrRequest
	}
	return r, n, nil
}

// AppendTo appends r as a line.
func (r Request) AppendTo(dst []byte) []byte {
	dst = append(dst, `{"id":`...)
	dst = appendID(dst, r.ID)
	dst = append(dst, `,"method":"`...)
	dst = append(dst, r.Method...)
	dst = append(dst, `","params":`...)
	if r.Params == nil {
		dst = append(dst, "[]"...)
	} else {
		dst = append(dst, r.Params...)
	}
	return append(dst, "}\n"...)
}

// beginRequest appends the beginning of a request, up to its parameters, which end with "]}\n".
func beginRequest(dst []byte, id uint64, method string) []byte {
	dst = append(dst, `{"id":`...)
	dst = strconv.AppendUint(dst, id, 10)
	dst = append(dst, `,"method":"`...)
	dst = append(dst, method...)
	return append(dst, `","params":[`...)
}

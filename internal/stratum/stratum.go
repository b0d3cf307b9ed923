// Package stratum is the text of Stratum V1: requests of miners are parsed,
// answers and notifications appended, lines told apart. It has no sockets and
// no state, and what it parses is hostile: bounded, checked, never guessed.
//
// The texts are btcpool's, byte for byte, because firmware is known to depend
// on them. Version rolling and the other extensions are those of BIP 310.
package stratum

import "errors"

// The errors of parsing.
var (
	// ErrSyntax means that a line is no JSON object; nothing of it is known.
	ErrSyntax = errors.New("not a JSON object")
	// ErrRequest means that the method is missing or a value has the wrong
	// type. The id is known.
	ErrRequest = errors.New("not a request")
	// ErrAnswer means that a line answers a request, which only this side's
	// miners get.
	ErrAnswer = errors.New("an answer")
	// ErrParams means that the parameters are not those of the method.
	ErrParams = errors.New("illegal parameters")
)

// Request is one line of a miner. Its slices are parts of that line.
type Request struct {
	ID     []byte // JSON text of a number or a string, nil for anything else
	Method []byte // as written, without its quotes
	Params []byte // JSON text of an array, nil when there is none
	Result []byte // of an answer, if it is a string: as written, without its quotes
}

// ParseRequest reads a line; of one that is an answer it returns what it holds,
// with ErrAnswer. All of it must be valid JSON, nested at most
// maxDepth deep; keys it does not know are skipped, and of repeated ones the
// last counts.
func ParseRequest(line []byte) (Request, error) {
	var r Request
	i := space(line, 0)
	if i == len(line) || line[i] != '{' {
		return Request{}, ErrSyntax
	}
	wrongType, answer := false, false
	i = space(line, i+1)
	if i < len(line) && line[i] == '}' {
		i++
	} else {
		for {
			key, next := stringAt(line, i)
			if next < 0 {
				return Request{}, ErrSyntax
			}
			i = space(line, next)
			if i == len(line) || line[i] != ':' {
				return Request{}, ErrSyntax
			}
			start := space(line, i+1)
			end := skipValue(line, start, 1)
			if end < 0 {
				return Request{}, ErrSyntax
			}
			value := line[start:end]
			switch string(key) {
			case "id":
				r.ID = nil
				if isNumber(value) || value[0] == '"' {
					r.ID = value
				}
			case "result":
				answer, r.Result = true, nil
				if value[0] == '"' {
					r.Result = value[1 : len(value)-1]
				}
			case "error":
				answer = true
			case "method":
				r.Method = nil
				if value[0] == '"' {
					r.Method = value[1 : len(value)-1]
				}
			case "params":
				r.Params = nil
				wrongType = value[0] != '[' && value[0] != 'n'
				if value[0] == '[' {
					r.Params = value
				}
			}
			i = space(line, end)
			if i == len(line) {
				return Request{}, ErrSyntax
			}
			if line[i] == '}' {
				i++
				break
			}
			if line[i] != ',' {
				return Request{}, ErrSyntax
			}
			i = space(line, i+1)
		}
	}
	if space(line, i) != len(line) {
		return Request{}, ErrSyntax
	}
	if answer && r.Method == nil {
		return r, ErrAnswer
	}
	r.Result = nil
	if wrongType || len(r.Method) == 0 {
		return r, ErrRequest
	}
	return r, nil
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

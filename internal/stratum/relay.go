package stratum

import (
	"errors"
	"fmt"

	"btcpool/internal/jsonscan"
)

// What a proxy changes in lines that it passes on. All else of a line stays as it is.

// AppendAnswerTo appends an answer of a pool, which m was read from, as the answer to the request of that id.
func AppendAnswerTo(dst, line []byte, m *Message, id []byte) []byte {
	if m.ID == nil {
		return append(append(dst, line...), '\n')
	}
	at := cap(line) - cap(m.ID) // m.ID is a part of line
	dst = append(dst, line[:at]...)
	dst = appendID(dst, id)
	dst = append(dst, line[at+len(m.ID):]...)
	return append(dst, '\n')
}

// Extension is what a proxy puts into a pool's jobs, and takes out of the shares for them: a mark before the id of each
// job, by which it knows whose the job is, and bytes of the coinbase between the first part and the miner's extranonce1.
type Extension struct {
	Mark byte
	// Coinbase1, in hex, is what the first part of the coinbase ends with: the pool's extranonce1, where the miner's own
	// is a part of the pool's extranonce2.
	Coinbase1 []byte
	// ExtraNonce2, in hex, is what the pool's extranonce2 begins with then.
	ExtraNonce2 []byte
}

var errNotify = errors.New("parameters are not those of mining.notify")

// AppendNotify appends mining.notify with these parameters of a pool. With clean it makes the jobs before worthless,
// whatever the pool says of its own.
func (e Extension) AppendNotify(dst, params []byte, clean bool) ([]byte, error) {
	begin := len(dst)
	dst = append(dst, `{"id":null,"method":"mining.notify","params":[`...)
	n := 0
	for _, v := range jsonscan.Value(params).Each() {
		if n > 0 {
			dst = append(dst, ',')
		}
		switch n {
		case 0:
			id := bare(v)
			if len(id) == 0 || len(id) > maxJobID || !v.IsString() && !v.IsNumber() {
				return dst[:begin], fmt.Errorf("job id is not a text of 1 to %d bytes", maxJobID)
			}
			dst = append(dst, '"', e.Mark)
			dst = append(dst, id...)
			dst = append(dst, '"')
		case 2:
			if !v.IsString() {
				return dst[:begin], errNotify
			}
			dst = append(dst, v[:len(v)-1]...)
			dst = append(dst, e.Coinbase1...)
			dst = append(dst, '"')
		case 8:
			if text := string(v); text != "true" && text != "false" {
				return dst[:begin], errNotify
			}
			if clean {
				v = jsonscan.Value("true")
			}
			dst = append(dst, v...)
		default:
			dst = append(dst, v...)
		}
		n++
	}
	if n < 9 {
		return dst[:begin], errNotify
	}
	return append(dst, "]}\n"...), nil
}

// MarkOf returns the mark of the job that a share, by the parameters of mining.submit, is for.
func MarkOf(params []byte) (mark byte, ok bool) {
	var list [2]jsonscan.Value
	if elements(params, list[:]) < len(list) {
		return 0, false
	}
	id := bare(list[1])
	if len(id) < 2 {
		return 0, false
	}
	return id[0], true
}

// AppendSubmit appends mining.submit with these parameters of a miner, for worker, which is JSON text without its quotes;
// nil: as the miner says. They must have a mark.
func (e Extension) AppendSubmit(dst []byte, id uint64, params, worker []byte) ([]byte, error) {
	begin := len(dst)
	dst = beginRequest(dst, id, "mining.submit")
	n := 0
	for _, v := range jsonscan.Value(params).Each() {
		if n > 0 {
			dst = append(dst, ',')
		}
		switch {
		case n == 0 && worker != nil:
			dst = append(dst, '"')
			dst = append(dst, worker...)
			dst = append(dst, '"')
		case n == 1:
			job := bare(v)
			if len(job) < 2 {
				return dst[:begin], ErrParams
			}
			dst = append(dst, '"')
			dst = append(dst, job[1:]...)
			dst = append(dst, '"')
		case n == 2 && len(e.ExtraNonce2) > 0:
			own := digits(unquoted(v))
			if !v.IsString() {
				return dst[:begin], ErrParams
			}
			dst = append(dst, '"')
			dst = append(dst, e.ExtraNonce2...)
			dst = append(dst, own...)
			dst = append(dst, '"')
		default:
			dst = append(dst, v...)
		}
		n++
	}
	if n < 5 {
		return dst[:begin], ErrParams
	}
	return append(dst, "]}\n"...), nil
}

// AppendSubscribeAs appends mining.subscribe as a proxy does to a server that gives its sessions the extranonce1 that the
// proxy names: software, extranonce1 and the miner's IPv4 address as a number, 0 for any other.
func AppendSubscribeAs(dst []byte, id uint64, software string, extraNonce1, ip uint32) []byte {
	dst = beginRequest(dst, id, "mining.subscribe")
	dst = appendString(dst, software)
	dst = append(dst, `,"`...)
	dst = appendHex32(dst, extraNonce1)
	return fmt.Appendf(dst, "\",%d]}\n", ip)
}

// AppendSetExtranonce appends the notification of an extranonce1, in hex, and a size of extranonce2 for the jobs to come.
func AppendSetExtranonce(dst, extraNonce1 []byte, extraNonce2Size int) []byte {
	dst = append(dst, `{"id":null,"method":"mining.set_extranonce","params":["`...)
	dst = append(dst, extraNonce1...)
	return fmt.Appendf(dst, "\",%d]}\n", extraNonce2Size)
}

// AppendRequest appends a request with parameters that are JSON text of an array, or nil.
func AppendRequest(dst []byte, id uint64, method, params []byte) []byte {
	dst = beginRequest(dst, id, string(method))
	if len(params) > 2 {
		dst = append(dst, params[1:len(params)-1]...)
	}
	return append(dst, "]}\n"...)
}

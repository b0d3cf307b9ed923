package stratum

import (
	"math"
	"strconv"

	"btcpool/internal/jsonscan"
	"btcpool/internal/share"
)

func appendID(dst, id []byte) []byte {
	if id == nil {
		return append(dst, "null"...)
	}
	return append(dst, id...)
}

// beginAnswer appends the beginning of an answer, up to its result.
func beginAnswer(dst, id []byte) []byte {
	dst = append(dst, `{"id":`...)
	dst = appendID(dst, id)
	return append(dst, `,"result":`...)
}

// AppendAnswer appends an answer; result and fault are JSON text.
func AppendAnswer(dst, id []byte, result, fault string) []byte {
	dst = append(beginAnswer(dst, id), result...)
	dst = append(dst, `,"error":`...)
	dst = append(dst, fault...)
	return append(dst, "}\n"...)
}

// AppendResult appends the answer to what was accepted; result is JSON text.
func AppendResult(dst, id []byte, result string) []byte {
	dst = append(beginAnswer(dst, id), result...)
	return append(dst, ",\"error\":null}\n"...)
}

// AppendTrue appends the answer to what was accepted.
func AppendTrue(dst, id []byte) []byte { return AppendResult(dst, id, "true") }

// AppendError appends the answer to what was not.
func AppendError(dst, id []byte, status share.Status) []byte {
	status = status.Told()
	dst = append(dst, `{"id":`...)
	dst = appendID(dst, id)
	dst = append(dst, `,"result":null,"error":[`...)
	dst = strconv.AppendInt(dst, int64(status), 10)
	dst = append(dst, `,"`...)
	dst = append(dst, status.Text()...)
	return append(dst, "\",null]}\n"...)
}

// Number returns the number of the request that an answer is for.
func (m *Message) Number() (uint64, bool) {
	n, err := strconv.ParseUint(string(bare(m.ID)), 10, 64)
	return n, err == nil
}

// Refusal reports whether an answer refuses its request, and with which code and text; it is for requests that are
// granted by the result true. Stratum's errors are [code, text, traceback]; some pools send an object with code and
// message, or the text alone. What an error does not say is 0 or "".
func (m *Message) Refusal() (code int, text string, refused bool) {
	var parts [2]jsonscan.Value // code and text
	switch e := jsonscan.Value(m.Error); {
	case e == nil && string(m.Result) == "true":
		return 0, "", false
	case e == nil:
		return 0, "result is not true", true
	case e.IsArray():
		elements(e, parts[:])
	case e.IsObject():
		for key, v := range e.Each() {
			switch string(key) {
			case `"code"`:
				parts[0] = v
			case `"message"`:
				parts[1] = v
			}
		}
	default:
		parts[1] = e
	}
	if n, err := strconv.ParseFloat(string(bare(parts[0])), 64); err == nil && math.Abs(n) <= math.MaxInt32 {
		code = int(n)
	}
	return code, words(parts[1]), true
}

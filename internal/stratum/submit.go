package stratum

import (
	"encoding/hex"

	"btcpool/internal/jsonscan"
)

// Submit is what mining.submit carries.
type Submit struct {
	Worker      []byte // as written, without its quotes: which one that was authorized
	JobID       []byte // as written, without its quotes
	ExtraNonce2 uint64 // its bytes as a big-endian number
	Time        uint32
	Nonce       uint32
	VersionBits uint32
	Rolled      bool // VersionBits was given
}

// AppendSubmit appends mining.submit with an extranonce2 of size bytes.
func AppendSubmit(dst []byte, id uint64, s Submit, size int) []byte {
	dst = beginRequest(dst, id, "mining.submit")
	dst = append(dst, '"')
	dst = append(dst, s.Worker...)
	dst = append(dst, `","`...)
	dst = append(dst, s.JobID...)
	dst = append(dst, `","`...)
	for i := size - 1; i >= 0; i-- {
		dst = hex.AppendEncode(dst, []byte{byte(s.ExtraNonce2 >> (8 * i))})
	}
	dst = append(dst, `","`...)
	dst = appendHex32(dst, s.Time)
	dst = append(dst, `","`...)
	dst = appendHex32(dst, s.Nonce)
	if s.Rolled {
		dst = append(dst, `","`...)
		dst = appendHex32(dst, s.VersionBits)
	}
	return append(dst, "\"]}\n"...)
}

// ParseSubmit reads the parameters of mining.submit: worker, job id, extranonce2 of size bytes, time, nonce and, from
// miners that roll the version, version bits, which may also be null or empty. All are hex, with 0x before it or not. The
// extranonce2 has its full width, and those of its bytes that are before the last 8 are zero; other numbers may lack
// leading zeros, as small miners write them. What does not decode is ErrParams, never zero. Worker and JobID are parts
// of params; they may be numbers, and the worker null.
func ParseSubmit(params []byte, size int) (Submit, error) {
	var list [6][]byte
	n, ok := texts(params, list[:])
	if !ok || n < 5 {
		return Submit{}, ErrParams
	}
	s := Submit{Worker: list[0], JobID: list[1], Rolled: len(list[5]) > 0}
	extraNonce2, ok2 := parseHex(digits(list[2]), 2*size)
	time, ok3 := parseHex32(list[3])
	nonce, ok4 := parseHex32(list[4])
	if !ok2 || !ok3 || !ok4 {
		return Submit{}, ErrParams
	}
	s.ExtraNonce2, s.Time, s.Nonce = extraNonce2, time, nonce
	if s.Rolled {
		if s.VersionBits, ok = parseHex32(list[5]); !ok {
			return Submit{}, ErrParams
		}
	}
	return s, nil
}

// texts is elements for strings, which it puts into list without their quotes. It is not ok when one of them is
// something else, unless it is clear what that means.
func texts(params []byte, list [][]byte) (n int, ok bool) {
	i := jsonscan.SkipSpace(params, min(1, len(params)))
	for n < len(list) && i < len(params) && params[i] != ']' {
		start := i
		if i = jsonscan.Skip(params, i, 1); i < 0 {
			return n, false
		}
		switch v := jsonscan.Value(params[start:i]); {
		case v.IsString():
			list[n] = unquoted(v)
		case v.IsNumber() && n < 2: // hex digits without quotes would not be clear
			list[n] = v
		case string(v) != "null" || n != 0 && n != 5:
			return n, false
		}
		n++
		if i = jsonscan.SkipSpace(params, i); i < len(params) && params[i] == ',' {
			i = jsonscan.SkipSpace(params, i+1)
		}
	}
	return n, true
}

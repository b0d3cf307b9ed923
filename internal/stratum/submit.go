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
	Rolled      bool   // VersionBits was given
	Prefix      uint32 // by ParseGrandSubmit: the bytes of the extranonce2 before ExtraNonce2
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
	return parseSubmit(&list, digits(list[2]), size)
}

// ParseGrandSubmit is ParseSubmit with an extranonce2 of 12 bytes. As btcpool has it, its first 4 may be where the worker is
// else, which is nobody then.
func ParseGrandSubmit(params []byte) (Submit, error) {
	var list [6][]byte
	n, ok := texts(params, list[:])
	if !ok || n < 5 {
		return Submit{}, ErrParams
	}
	const size, all = 8, 12
	extraNonce2, prefix := digits(list[2]), list[0]
	whole := len(extraNonce2) == 2*all
	if whole {
		prefix, extraNonce2 = extraNonce2[:2*(all-size)], extraNonce2[2*(all-size):]
	}
	s, err := parseSubmit(&list, extraNonce2, size)
	if s.Prefix, ok = parseHex32(prefix); err != nil || !ok {
		return Submit{}, ErrParams
	}
	if !whole {
		s.Worker = nil
	}
	return s, nil
}

// parseSubmit reads what all have, with these digits of the extranonce2.
func parseSubmit(list *[6][]byte, extra []byte, size int) (Submit, error) {
	s := Submit{Worker: list[0], JobID: list[1], Rolled: len(list[5]) > 0}
	extraNonce2, ok2 := parseHex(extra, 2*size)
	time, ok3 := parseHex32(list[3])
	nonce, ok4 := parseHex32(list[4])
	if !ok2 || !ok3 || !ok4 {
		return Submit{}, ErrParams
	}
	s.ExtraNonce2, s.Time, s.Nonce = extraNonce2, time, nonce
	if s.Rolled {
		var ok bool
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

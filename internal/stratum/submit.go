package stratum

// Submit is what mining.submit carries.
type Submit struct {
	Worker      []byte // as written, which one that was authorized; part of the line
	JobID       []byte // likewise
	ExtraNonce2 uint64 // its bytes as a big-endian number
	Time        uint32
	Nonce       uint32
	VersionBits uint32
	Rolled      bool // VersionBits was given
}

// ParseSubmit reads the parameters of mining.submit: worker, job id,
// extranonce2 of size bytes (at most 8), time, nonce and, from miners that roll
// the version, version bits. All are hex. The extranonce2 has its full width;
// numbers may lack leading zeros, as small miners write them. What does not
// decode is ErrParams, never zero.
func ParseSubmit(params []byte, size int) (Submit, error) {
	var texts [6][]byte
	n, ok := strings(params, texts[:])
	if !ok || n < 5 {
		return Submit{}, ErrParams
	}
	s := Submit{Worker: texts[0], JobID: texts[1], Rolled: n == 6}
	extraNonce2, ok2 := parseHex(texts[2], 2*size)
	time, ok3 := parseHex32(texts[3])
	nonce, ok4 := parseHex32(texts[4])
	if !ok2 || !ok3 || !ok4 {
		return Submit{}, ErrParams
	}
	s.ExtraNonce2, s.Time, s.Nonce = extraNonce2, time, nonce
	if s.Rolled {
		if s.VersionBits, ok = parseHex32(texts[5]); !ok {
			return Submit{}, ErrParams
		}
	}
	return s, nil
}

// parseHex32 reads 1 to 8 hex digits.
func parseHex32(text []byte) (uint32, bool) {
	n, ok := parseHex(text, min(max(len(text), 1), 8))
	return uint32(n), ok
}

// strings puts the leading elements of the array params into texts, without
// quotes and with their escapes, and returns their number. It is not ok when
// one of them is no string; what follows behind len(texts) is not looked at.
func strings(params []byte, texts [][]byte) (n int, ok bool) {
	if len(params) == 0 {
		return 0, true
	}
	i := space(params, 1)
	for n < len(texts) && i < len(params) && params[i] != ']' {
		text, end := stringAt(params, i)
		if end < 0 {
			return n, false
		}
		texts[n] = text
		n++
		i = space(params, end)
		if i < len(params) && params[i] == ',' {
			i = space(params, i+1)
		}
	}
	return n, true
}

package stratum

import "btcpool/internal/jsonscan"

// AppendAuthorize appends mining.authorize.
func AppendAuthorize(dst []byte, id uint64, name, password string) []byte {
	dst = beginRequest(dst, id, "mining.authorize")
	dst = appendString(dst, name)
	dst = append(dst, ',')
	dst = appendString(dst, password)
	return append(dst, "]}\n"...)
}

// ParseAuthorize returns the worker's full name and the password, "" when there is none. Either may be a number. A
// password that is neither is no reason to refuse: it opens nothing.
func ParseAuthorize(params []byte) (name, password string, err error) {
	var list [2]jsonscan.Value
	elements(params, list[:])
	name, ok := text(list[0])
	if !ok {
		return "", "", ErrParams
	}
	password, _ = text(list[1])
	return name, password, nil
}

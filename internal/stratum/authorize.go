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

// ParseAuthorize returns the worker's full name and the password, "" when there is none.
func ParseAuthorize(params []byte) (name, password string, err error) {
	var list [2]jsonscan.Value
	elements(params, list[:])
	if name, err = decode[string](list[0]); err != nil {
		return "", "", err
	}
	if list[1] != nil && string(list[1]) != "null" {
		if password, err = decode[string](list[1]); err != nil {
			return "", "", err
		}
	}
	return name, password, nil
}

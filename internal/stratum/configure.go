package stratum

import (
	"fmt"
	"math/bits"
	"slices"
	"strconv"

	"btcpool/internal/bitcoin"
	"btcpool/internal/jsonscan"
)

// Configure is what a miner asks for in mining.configure (BIP 310).
type Configure struct {
	Extensions []string // all that it named, sorted, each once

	VersionMask uint32 // version-rolling.mask; all bits when it is not given
	MinBitCount int    // version-rolling.min-bit-count: a mask with fewer bits is of no use

	MinimumDifficulty *bitcoin.Difficulty // nil when it is missing or no positive number
}

// The extensions of BIP 310.
const (
	VersionRolling      = "version-rolling"
	MinimumDifficulty   = "minimum-difficulty"
	SubscribeExtranonce = "subscribe-extranonce"
	Info                = "info"
)

// Asks reports whether the miner named the extension.
func (c Configure) Asks(extension string) bool {
	_, found := slices.BinarySearch(c.Extensions, extension)
	return found
}

// Mask returns the version bits that miner and server agree on when the server allows those in allowed. It is 0 when
// the miner asked for none or when they are fewer than the miner needs.
func (c Configure) Mask(allowed uint32) uint32 {
	mask := c.VersionMask & allowed
	if !c.Asks(VersionRolling) || bits.OnesCount32(mask) < c.MinBitCount {
		return 0
	}
	return mask
}

// AppendConfigure appends mining.configure with the extensions that c asks for and their options.
func AppendConfigure(dst []byte, id uint64, c Configure) []byte {
	dst = beginRequest(dst, id, "mining.configure")
	dst = append(dst, '[')
	for i, extension := range c.Extensions {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(dst, extension)
	}
	dst = append(dst, `],{`...)
	if c.Asks(MinimumDifficulty) && c.MinimumDifficulty != nil {
		dst = append(dst, `"minimum-difficulty.value":`...)
		dst = c.MinimumDifficulty.AppendTo(dst)
		if c.Asks(VersionRolling) {
			dst = append(dst, ',')
		}
	}
	if c.Asks(VersionRolling) {
		dst = append(dst, `"version-rolling.mask":"`...)
		dst = appendHex32(dst, c.VersionMask)
		dst = append(dst, `","version-rolling.min-bit-count":`...)
		dst = strconv.AppendInt(dst, int64(c.MinBitCount), 10)
	}
	return append(dst, "}]}\n"...)
}

// ParseConfigure reads the parameters of mining.configure: a list of extension names and an object of their options.
// A single name need not be in a list, and numbers may be texts. Options that are null, an empty list or of the wrong
// type count as missing.
func ParseConfigure(params []byte) (Configure, error) {
	var list [2]jsonscan.Value
	elements(params, list[:])
	var c Configure
	var err error
	if list[0].IsString() {
		var one string
		one, err = decode[string](list[0])
		c.Extensions = []string{one}
	} else {
		c.Extensions, err = decode[[]string](list[0])
	}
	if err != nil {
		return Configure{}, err
	}
	slices.Sort(c.Extensions)
	c.Extensions = slices.Compact(c.Extensions)
	options := list[1]
	if options != nil && !options.IsObject() && !isNothing(options) {
		return Configure{}, ErrParams
	}
	c.VersionMask = 1<<32 - 1
	for key, v := range options.Each() {
		switch string(key) {
		case `"version-rolling.mask"`:
			c.VersionMask = parseMask(v)
		case `"version-rolling.min-bit-count"`:
			c.MinBitCount, _ = strconv.Atoi(string(bare(v)))
		case `"minimum-difficulty.value"`:
			c.MinimumDifficulty = nil
			if d, err := difficulty(v); err == nil {
				c.MinimumDifficulty = &d
			}
		}
	}
	return c, nil
}

// isNothing reports whether options are given and say nothing: null, or the empty list that some libraries write for an
// empty object.
func isNothing(options jsonscan.Value) bool {
	return string(options) == "null" || options.IsArray() && elements(options, make([]jsonscan.Value, 1)) == 0
}

// parseMask reads version bits: hex digits, or a number. What is neither means none.
func parseMask(v jsonscan.Value) uint32 {
	text, base := v, 10
	if v.IsString() {
		text, base = digits(unquoted(v)), 16
	}
	n, err := strconv.ParseUint(string(text), base, 32)
	if err != nil {
		return 0
	}
	return uint32(n)
}

// AppendConfigured appends the answer to mining.configure: what c asked for, by name, and whether it is granted. The
// mask is 0 when there is no version rolling.
func AppendConfigured(dst, id []byte, c Configure, mask uint32) []byte {
	dst = append(beginAnswer(dst, id), '{')
	for i, extension := range c.Extensions {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(dst, extension)
		dst = append(dst, ':')
		switch extension {
		case VersionRolling:
			dst = strconv.AppendBool(dst, mask != 0)
			if mask != 0 {
				dst = append(dst, `,"version-rolling.mask":"`...)
				dst = appendHex32(dst, mask)
				dst = append(dst, '"')
			}
		case MinimumDifficulty:
			dst = strconv.AppendBool(dst, c.MinimumDifficulty != nil)
		case SubscribeExtranonce, Info:
			dst = append(dst, "true"...)
		default:
			dst = append(dst, "false"...)
		}
	}
	return append(dst, "},\"error\":null}\n"...)
}

// ParseConfigured reads what the result of mining.configure says about version
// rolling: the bits that may be rolled, if it is granted. Not all pools repeat the
// mask when they grant all of it; asked is the one of the request.
func ParseConfigured(result []byte, asked uint32) (mask uint32, granted bool, err error) {
	var text jsonscan.Value
	for key, v := range jsonscan.Value(result).Each() {
		switch string(key) {
		case `"version-rolling"`:
			granted = string(v) == "true"
		case `"version-rolling.mask"`:
			text = v
		}
	}
	switch {
	case !granted:
		return 0, false, nil
	case text == nil:
		return asked, true, nil
	}
	if mask, err = word(text); err != nil {
		return 0, false, fmt.Errorf("version-rolling.mask: %w", err)
	}
	return mask, true, nil
}

// AppendSetVersionMask appends the notification of the version bits that may be rolled.
func AppendSetVersionMask(dst []byte, mask uint32) []byte {
	dst = append(dst, `{"id":null,"method":"mining.set_version_mask","params":["`...)
	dst = appendHex32(dst, mask)
	return append(dst, "\"]}\n"...)
}

// ParseSetVersionMask reads the parameters of mining.set_version_mask, which holds at once.
func ParseSetVersionMask(params []byte) (uint32, error) {
	var list [1]jsonscan.Value
	elements(params, list[:])
	return word(list[0])
}

// ParseMultiVersion returns the version bits that a miner of before BIP 310 says it rolls.
func ParseMultiVersion(params []byte) (mask uint32, err error) {
	var list [1]jsonscan.Value
	elements(params, list[:])
	n, err := strconv.ParseUint(string(bare(list[0])), 10, 32)
	if err != nil {
		return 0, ErrParams
	}
	return uint32(n), nil
}

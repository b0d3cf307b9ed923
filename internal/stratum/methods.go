package stratum

import (
	"encoding/json"
	"math/bits"
	"slices"
	"strconv"

	"btcpool/internal/bitcoin"
)

// The parameters below are rare: encoding/json reads them. Each function takes
// Request.Params.

// elements returns the elements of params, of which there must be at least n.
func elements(params []byte, n int) ([]json.RawMessage, error) {
	var list []json.RawMessage
	if len(params) > 0 {
		if err := json.Unmarshal(params, &list); err != nil {
			return nil, ErrParams
		}
	}
	if len(list) < n {
		return nil, ErrParams
	}
	return list, nil
}

func decode[T any](text json.RawMessage) (T, error) {
	var v *T
	if err := json.Unmarshal(text, &v); err != nil || v == nil {
		var zero T
		return zero, ErrParams
	}
	return *v, nil
}

// ParseSubscribe returns the miner's software, "" when it does not say, and the
// extranonce1 of the session that it would like to resume, which is the id of
// its subscriptions.
func ParseSubscribe(params []byte) (agent string, session uint32, resume bool, err error) {
	list, err := elements(params, 0)
	if err != nil {
		return "", 0, false, err
	}
	if len(list) > 0 && string(list[0]) != "null" {
		if agent, err = decode[string](list[0]); err != nil {
			return "", 0, false, err
		}
	}
	if len(list) > 1 {
		if id, err := decode[string](list[1]); err == nil { // anything else is no id of ours
			n, ok := parseHex([]byte(id), 8)
			session, resume = uint32(n), ok
		}
	}
	return agent, session, resume, nil
}

// ParseAuthorize returns the worker's full name and the password, "" when there
// is none.
func ParseAuthorize(params []byte) (name, password string, err error) {
	list, err := elements(params, 1)
	if err != nil {
		return "", "", err
	}
	if name, err = decode[string](list[0]); err != nil {
		return "", "", err
	}
	if len(list) > 1 && string(list[1]) != "null" {
		if password, err = decode[string](list[1]); err != nil {
			return "", "", err
		}
	}
	return name, password, nil
}

// ParseSuggestDifficulty returns the difficulty of mining.suggest_difficulty, a
// positive number or its text, rounded up to a power of two.
func ParseSuggestDifficulty(params []byte) (bitcoin.Difficulty, error) {
	list, err := elements(params, 1)
	if err != nil {
		return 0, err
	}
	return difficulty(list[0])
}

// difficulty reads a positive number, or the text of one.
func difficulty(text json.RawMessage) (bitcoin.Difficulty, error) {
	number := string(text)
	if text[0] == '"' {
		var err error
		if number, err = decode[string](text); err != nil {
			return 0, err
		}
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || !(f > 0) {
		return 0, ErrParams
	}
	return bitcoin.DifficultyAtLeast(f), nil
}

// ParseSuggestTarget returns the difficulty of mining.suggest_target, whose
// parameter is a target of 1 to 64 hex digits, above zero, rounded up to a
// power of two.
func ParseSuggestTarget(params []byte) (bitcoin.Difficulty, error) {
	list, err := elements(params, 1)
	if err != nil {
		return 0, err
	}
	digits, err := decode[string](list[0])
	if err != nil || len(digits) == 0 || len(digits) > 64 {
		return 0, ErrParams
	}
	var target bitcoin.Target // least significant byte first
	for i := range len(digits) {
		v := hexValue[digits[len(digits)-1-i]]
		if v > 15 {
			return 0, ErrParams
		}
		target[i/2] |= v << (4 * (i % 2))
	}
	if target == (bitcoin.Target{}) {
		return 0, ErrParams
	}
	return bitcoin.DifficultyAtLeast(target.Difficulty()), nil
}

// ParseMultiVersion returns the version bits that a miner of before BIP 310
// says it rolls.
func ParseMultiVersion(params []byte) (mask uint32, err error) {
	list, err := elements(params, 1)
	if err != nil {
		return 0, err
	}
	return decode[uint32](list[0])
}

// The capabilities that agents know.
const (
	VersionRollingFrames = "verrol" // shares with version bits
	SubmitResponses      = "subres" // verdicts on shares
)

// ParseCapabilities returns what an agent asks for in agent.get_capabilities.
// One that lists nothing only wants to see what there is.
func ParseCapabilities(params []byte) ([]string, error) {
	list, err := elements(params, 0)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return decode[[]string](list[0])
}

// Configure is what a miner asks for in mining.configure (BIP 310).
type Configure struct {
	Extensions []string // all that it named, sorted, each once

	VersionMask uint32 // of version-rolling; all bits when it is not given
	MinBitCount int    // of version-rolling: a mask with fewer bits is of no use

	MinimumDifficulty *bitcoin.Difficulty // nil when it is missing or no positive number
}

// The extensions of BIP 310.
const (
	VersionRolling      = "version-rolling"
	MinimumDifficulty   = "minimum-difficulty"
	SubscribeExtranonce = "subscribe-extranonce"
	Info                = "info"
)

// ParseConfigure reads the parameters of mining.configure: a list of extension
// names and an object of their options. Options of the wrong type count as
// missing.
func ParseConfigure(params []byte) (Configure, error) {
	list, err := elements(params, 1)
	if err != nil {
		return Configure{}, err
	}
	var c Configure
	if c.Extensions, err = decode[[]string](list[0]); err != nil {
		return Configure{}, err
	}
	slices.Sort(c.Extensions)
	c.Extensions = slices.Compact(c.Extensions)

	var options map[string]json.RawMessage
	if len(list) > 1 {
		if options, err = decode[map[string]json.RawMessage](list[1]); err != nil {
			return Configure{}, err
		}
	}
	if text, ok := options["version-rolling.mask"]; !ok {
		c.VersionMask = 1<<32 - 1
	} else if mask, err := decode[string](text); err == nil {
		if n, err := strconv.ParseUint(mask, 16, 32); err == nil {
			c.VersionMask = uint32(n)
		}
	}
	if n, err := decode[int](options["version-rolling.min-bit-count"]); err == nil {
		c.MinBitCount = n
	}
	if value, ok := options["minimum-difficulty.value"]; ok {
		if d, err := difficulty(value); err == nil {
			c.MinimumDifficulty = &d
		}
	}
	return c, nil
}

// Asks reports whether the miner named the extension.
func (c Configure) Asks(extension string) bool {
	_, found := slices.BinarySearch(c.Extensions, extension)
	return found
}

// Mask returns the version bits that miner and server agree on when the server
// allows those in allowed. It is 0 when the miner asked for none or when they
// are fewer than the miner needs.
func (c Configure) Mask(allowed uint32) uint32 {
	mask := c.VersionMask & allowed
	if !c.Asks(VersionRolling) || bits.OnesCount32(mask) < c.MinBitCount {
		return 0
	}
	return mask
}

package stratum

import (
	"errors"
	"fmt"
	"math"
	"strconv"

	"btcpool/internal/jsonscan"
)

// AppendSubscribe appends mining.subscribe. session is the extranonce1 of the session to resume, as the pool wrote it;
// "" asks for a new one.
func AppendSubscribe(dst []byte, id uint64, agent, session string) []byte {
	dst = beginRequest(dst, id, "mining.subscribe")
	dst = appendString(dst, agent)
	if session != "" {
		dst = append(dst, ',')
		dst = appendString(dst, session)
	}
	return append(dst, "]}\n"...)
}

// ParseSubscribe returns the miner's software, "" when it does not say, and the extranonce1 of the session that it
// would like to resume, which is the id of its subscriptions.
func ParseSubscribe(params []byte) (agent string, session uint32, resume bool) {
	var list [2]jsonscan.Value
	elements(params, list[:])
	agent, _ = text(list[0])
	n, resume := parseHex(unquoted(list[1]), 8) // anything else is no id of ours
	return agent, uint32(n), resume
}

// AppendSubscribed appends the answer to mining.subscribe.
func AppendSubscribed(dst, id []byte, extraNonce1 uint32, extraNonce2Size int) []byte {
	dst = append(beginAnswer(dst, id), `[[["mining.set_difficulty","`...)
	dst = appendHex32(dst, extraNonce1)
	dst = append(dst, `"],["mining.notify","`...)
	dst = appendHex32(dst, extraNonce1)
	dst = append(dst, `"]],"`...)
	dst = appendHex32(dst, extraNonce1)
	dst = append(dst, `",`...)
	dst = strconv.AppendInt(dst, int64(extraNonce2Size), 10)
	return append(dst, "],\"error\":null}\n"...)
}

// ParseSubscribed reads the result of mining.subscribe, of which the subscriptions are passed over.
func ParseSubscribed(result []byte) (extraNonce1 []byte, extraNonce2Size int, err error) {
	var list [3]jsonscan.Value
	if n := elements(result, list[:]); !jsonscan.Value(result).IsArray() || n < len(list) {
		return nil, 0, errors.New("result is not [subscriptions, extranonce1, extranonce2 size]")
	}
	return parseExtraNonces(list[1], list[2])
}

// maxSession is how long a name of a session may be, in bytes.
const maxSession = 64

// ParseSession returns by what name the session that the result of mining.subscribe begins can be resumed: the one of
// the subscription of jobs. "" if there is none.
func ParseSession(result []byte) string {
	var list [1]jsonscan.Value
	elements(result, list[:])
	var subscriptions [4]jsonscan.Value
	n := elements(list[0], subscriptions[:])
	for _, v := range append(subscriptions[:min(n, len(subscriptions))], list[0]) { // one need not be in a list
		var pair [2]jsonscan.Value
		elements(v, pair[:])
		method, _ := text(pair[0])
		if name, ok := text(pair[1]); ok && method == "mining.notify" && len(name) <= maxSession {
			return name
		}
	}
	return ""
}

// ParseSetExtranonce reads the parameters of mining.set_extranonce, which are for the jobs to come.
func ParseSetExtranonce(params []byte) (extraNonce1 []byte, extraNonce2Size int, err error) {
	var list [2]jsonscan.Value
	if elements(params, list[:]) < len(list) {
		return nil, 0, errors.New("extranonce1 or the size of extranonce2 is missing")
	}
	return parseExtraNonces(list[0], list[1])
}

// What is taken of a pool's extranonces, in bytes.
const (
	maxExtraNonce1 = 64
	maxExtraNonce2 = 32
)

func parseExtraNonces(first, size jsonscan.Value) (extraNonce1 []byte, extraNonce2Size int, err error) {
	if extraNonce1, err = first.AppendHex(nil); err != nil {
		return nil, 0, fmt.Errorf("extranonce1: %w", err)
	}
	if len(extraNonce1) > maxExtraNonce1 {
		return nil, 0, fmt.Errorf("extranonce1 of %d bytes, at most %d", len(extraNonce1), maxExtraNonce1)
	}
	n, ok := number(size)
	if !ok || n != math.Trunc(n) || n < 1 || n > maxExtraNonce2 {
		return nil, 0, fmt.Errorf("extranonce2 size %.40s is not a whole number from 1 to %d", size, maxExtraNonce2)
	}
	return extraNonce1, int(n), nil
}

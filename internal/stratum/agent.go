package stratum

import (
	"fmt"
	"slices"

	"btcpool/internal/jsonscan"
)

// The capabilities that agents know.
const (
	VersionRollingFrames = "verrol"    // shares with version bits
	SubmitResponses      = "subres"    // verdicts on shares
	SmallDifficulties    = "smalldiff" // difficulties below 1
	Batches              = "batch"     // shares and verdicts in batches
	Sessions             = "session"   // a connection may go on with another's
)

// extensions are the capabilities that btcpool does not have. They are told to those only that ask for one of them, so
// that what others hear stays as it is.
var extensions = []string{SmallDifficulties, Batches, Sessions}

// ParseCapabilities returns what an agent asks for in agent.get_capabilities. One that lists nothing only wants to see
// what there is.
func ParseCapabilities(params []byte) ([]string, error) {
	var list [1]jsonscan.Value
	if elements(params, list[:]) == 0 {
		return nil, nil
	}
	return decode[[]string](list[0])
}

// AppendCapabilities appends the answer to agent.get_capabilities with these wishes, which has no member for an error. key
// is for who wishes for sessions: by it the agent may end this one from another connection. 0: it cannot.
func AppendCapabilities(dst, id []byte, wishes []string, key uint64) []byte {
	dst = append(beginAnswer(dst, id), `{"capabilities":["`+VersionRollingFrames+`","`+SubmitResponses+`"`...)
	extended := func(word string) bool { return slices.Contains(extensions, word) }
	if slices.ContainsFunc(wishes, extended) {
		for _, word := range extensions {
			dst = append(append(append(dst, `,"`...), word...), '"')
		}
	}
	dst = append(dst, ']')
	if key != 0 && slices.Contains(wishes, Sessions) {
		dst = fmt.Appendf(dst, `,"session_key":"%016x"`, key)
	}
	return append(dst, "}}\n"...)
}

// ParseSessionKey returns the key in the result of agent.get_capabilities, "" if there is none.
func ParseSessionKey(result []byte) string {
	answer, err := decode[struct {
		SessionKey string `json:"session_key"`
	}](result)
	if _, ok := parseHex([]byte(answer.SessionKey), 16); !ok || err != nil {
		return ""
	}
	return answer.SessionKey
}

// ParseEndSession returns the extranonce1 and the key in the parameters of agent.end_session.
func ParseEndSession(params []byte) (session uint32, key uint64, ok bool) {
	var list [2]jsonscan.Value
	elements(params, list[:])
	n, ok := parseHex(unquoted(list[0]), 8)
	key, keyOK := parseHex(unquoted(list[1]), 16)
	return uint32(n), key, ok && keyOK
}

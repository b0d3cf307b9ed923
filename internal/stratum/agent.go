package stratum

import "btcpool/internal/jsonscan"

// The capabilities that agents know.
const (
	VersionRollingFrames = "verrol" // shares with version bits
	SubmitResponses      = "subres" // verdicts on shares
)

// ParseCapabilities returns what an agent asks for in agent.get_capabilities. One that lists nothing only wants to see
// what there is.
func ParseCapabilities(params []byte) ([]string, error) {
	var list [1]jsonscan.Value
	if elements(params, list[:]) == 0 {
		return nil, nil
	}
	return decode[[]string](list[0])
}

// AppendCapabilities appends the answer to agent.get_capabilities, which has no member for an error.
func AppendCapabilities(dst, id []byte) []byte {
	return append(beginAnswer(dst, id), `{"capabilities":["`+VersionRollingFrames+`","`+SubmitResponses+"\"]}}\n"...)
}

package stratum

import (
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

// AppendCapabilities appends the answer to agent.get_capabilities with these wishes, which has no member for an error.
func AppendCapabilities(dst, id []byte, wishes []string) []byte {
	dst = append(beginAnswer(dst, id), `{"capabilities":["`+VersionRollingFrames+`","`+SubmitResponses+`"`...)
	extended := func(word string) bool { return slices.Contains(extensions, word) }
	if slices.ContainsFunc(wishes, extended) {
		for _, word := range extensions {
			dst = append(append(append(dst, `,"`...), word...), '"')
		}
	}
	return append(dst, "]}}\n"...)
}

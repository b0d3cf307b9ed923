package v1

import (
	"regexp"
	"strings"

	"btcpool/internal/bitcoin"
	"btcpool/internal/stratum"
)

// Wishes are what a miner asks for with its login: by custom in the password, as in "d=1024,md=64".
type Wishes struct {
	Start, Floor       bitcoin.Difficulty
	HasStart, HasFloor bool
	Unclear            bool // there is a wish that cannot be read
}

const unclearWish = "the difficulty in your password is not clear, so it is as without: write it as in d=65536"

var equals = regexp.MustCompile(`\s*=\s*`)

// parsePassword finds wishes however they are separated. A number may be grouped by the same commas.
func parsePassword(password string) Wishes {
	parts := strings.FieldsFunc(equals.ReplaceAllString(password, "="), func(r rune) bool {
		return strings.ContainsRune(",;& \t", r)
	})
	var w Wishes
	for i, part := range parts {
		key, value, _ := strings.Cut(part, "=")
		start := false
		switch strings.ToLower(key) {
		case "d", "diff", "difficulty":
			start = true
		case "md", "mindiff":
		default:
			continue
		}
		for _, more := range parts[i+1:] {
			if strings.Trim(more, "0123456789") == "" {
				value += ","
			} else if len(more) > 1 || !strings.Contains("kmgtp", strings.ToLower(more)) {
				break
			}
			value += more
		}
		d, err := stratum.ParseDifficulty(value)
		switch {
		case strings.Trim(value, "0.") == "": // by custom: none
		case err != nil:
			w.Unclear = true
		case start:
			w.Start, w.HasStart = d, true
		default:
			w.Floor, w.HasFloor = d, true
		}
	}
	return w
}

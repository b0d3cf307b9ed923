package stratum

import (
	"math"
	"strconv"
	"strings"

	"btcpool/internal/bitcoin"
)

// ParseDifficulty reads a difficulty as people write it, rounded up to a power of
// two: a positive number, whose thousands may be grouped as in 65,536 or 65_536,
// with K, M, G, T or P behind it for powers of 1000. What is not clear, "inf" and
// "NaN" among it, is ErrParams.
func ParseDifficulty(text string) (bitcoin.Difficulty, error) {
	text = strings.TrimSpace(text)
	unit := 1.0
	if n := len(text) - 1; n > 0 {
		if power := strings.IndexByte("kmgtp", text[n]|0x20); power >= 0 {
			text, unit = strings.TrimSpace(text[:n]), math.Pow(1000, float64(power+1))
		}
	}
	digits, ok := ungroup(text)
	if !ok || strings.Trim(digits, "0123456789.eE+-") != "" {
		return 0, ErrParams
	}
	f, err := strconv.ParseFloat(digits, 64)
	if f *= unit; err != nil || !(f > 0) || math.IsInf(f, 0) {
		return 0, ErrParams
	}
	return bitcoin.DifficultyAtLeast(f), nil
}

// ungroup returns text without what separates its groups of three digits.
func ungroup(text string) (digits string, ok bool) {
	whole, fraction, dot := strings.Cut(text, ".")
	i := strings.IndexAny(whole, ",_' ")
	if i < 0 {
		return text, true
	}
	groups := strings.Split(whole, whole[i:i+1])
	for n, group := range groups {
		if len(group) > 3 || len(group) < 3 && (n > 0 || group == "") || strings.Trim(group, "0123456789") != "" {
			return "", false
		}
	}
	digits = strings.Join(groups, "")
	if dot {
		digits += "." + fraction
	}
	return digits, true
}

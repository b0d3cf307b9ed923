package sserver

import (
	"strconv"
	"strings"

	"btcpool/internal/bitcoin"
	"btcpool/internal/share"
)

// splitName splits what a miner logs in with into user and worker at the first
// dot. The user is in the form that canonical makes.
func splitName(name string, canonical func(string) string) (user, worker string) {
	user, worker, _ = strings.Cut(name, ".")
	return canonical(user), share.WorkerName(worker)
}

// isNiceHash recognizes the miners of its buyers.
func isNiceHash(userAgent string) bool {
	return strings.HasPrefix(strings.ToLower(userAgent), "nicehash/")
}

// passwordOptions are the wishes that a password may hold, as in "d=1024,md=64".
type passwordOptions struct {
	start, floor       bitcoin.Difficulty
	hasStart, hasFloor bool
}

func parsePassword(password string) passwordOptions {
	var o passwordOptions
	for part := range strings.SplitSeq(password, ",") {
		key, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		f, err := strconv.ParseFloat(value, 64)
		if err != nil || !(f > 0) {
			continue
		}
		switch key {
		case "d":
			o.start, o.hasStart = bitcoin.DifficultyAtLeast(f), true
		case "md":
			o.floor, o.hasFloor = bitcoin.DifficultyAtLeast(f), true
		}
	}
	return o
}

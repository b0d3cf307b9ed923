package sserver

import (
	"strconv"
	"strings"

	"btcpool/internal/bitcoin"
)

const (
	maxUserName   = 200 // bytes
	maxWorkerName = 20
	maxAgent      = 30
	defaultWorker = "__default__"
)

// splitName splits what a miner logs in with into user and worker at the first
// dot. The user is empty when there is none, or none of permitted length.
func splitName(name string, caseInsensitive bool) (user, worker string) {
	user, worker, _ = strings.Cut(name, ".")
	user, worker = clean(user), clean(worker)
	if caseInsensitive {
		user = strings.ToLower(user)
	}
	if len(user) > maxUserName {
		user = ""
	}
	worker = worker[:min(len(worker), maxWorkerName)]
	if worker == "" {
		worker = defaultWorker
	}
	return user, worker
}

// isNiceHash recognizes the miners of its buyers.
func isNiceHash(userAgent string) bool {
	return strings.HasPrefix(strings.ToLower(userAgent), "nicehash/")
}

// clean keeps only the characters that names may have.
func clean(name string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', strings.ContainsRune("-._:|^/", r):
			return r
		}
		return -1
	}, name)
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

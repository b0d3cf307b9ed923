package v1

import (
	"strconv"
	"strings"

	"btcpool/internal/bitcoin"
)

// Wishes are what a miner asks for with its login: by custom in the password, as
// in "d=1024,md=64".
type Wishes struct {
	Start, Floor       bitcoin.Difficulty
	HasStart, HasFloor bool
}

func parsePassword(password string) Wishes {
	var w Wishes
	for part := range strings.SplitSeq(password, ",") {
		key, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		f, err := strconv.ParseFloat(value, 64)
		if err != nil || !(f > 0) {
			continue
		}
		switch key {
		case "d":
			w.Start, w.HasStart = bitcoin.DifficultyAtLeast(f), true
		case "md":
			w.Floor, w.HasFloor = bitcoin.DifficultyAtLeast(f), true
		}
	}
	return w
}

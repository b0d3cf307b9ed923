package sserver

import (
	"strings"

	"btcpool/internal/share"
)

const maxUserName = 200 // bytes

// splitName splits what a miner logs in with into user and worker at the first
// dot. The user, in its canonical form, is empty when there is none, or none of
// permitted length.
func splitName(name string, canonical func(string) string) (user, worker string) {
	user, worker, _ = strings.Cut(name, ".")
	if user = canonical(share.CleanName(user)); len(user) > maxUserName {
		user = ""
	}
	return user, share.WorkerName(worker)
}

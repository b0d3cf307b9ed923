package sserver

import (
	"strings"

	"btcpool/internal/share"
)

// splitName splits what a miner logs in with into user and worker at the first
// dot. The user is in the form that canonical makes.
func splitName(name string, canonical func(string) string) (user, worker string) {
	user, worker, _ = strings.Cut(name, ".")
	return canonical(user), share.WorkerName(worker)
}

package sserver

import (
	"strings"

	"btcpool/internal/guard"
	"btcpool/internal/share"
)

// splitName splits what a miner logs in with into user and worker at the first
// dot. The user is in the form that canonical makes.
func splitName(name string, canonical func(string) string) (user, worker string) {
	user, worker, _ = strings.Cut(name, ".")
	return canonical(user), share.WorkerName(worker)
}

// worker is whom shares are credited to.
type worker struct {
	UserName string
	UserID   int32
	Name     string // without the user's
	ID       int64
	Conduct  guard.Conduct // of its shares on this connection
}

func (w *worker) fullName() string { return fullName(w.UserName, w.Name) }

func fullName(user, worker string) string { return user + "." + worker }

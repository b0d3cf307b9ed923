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

// worker is whom shares are credited to.
type worker struct {
	UserName string
	UserID   int32
	Name     string // without the user's
	ID       int64
}

func (w worker) fullName() string { return w.UserName + "." + w.Name }

// is reports whether a login with name makes this worker.
func (w worker) is(name []byte, canonical func(string) string) bool {
	n := len(w.UserName)
	if len(name) == n+1+len(w.Name) && string(name[:n]) == w.UserName && name[n] == '.' && string(name[n+1:]) == w.Name {
		return true
	}
	user, own := splitName(string(name), canonical)
	return user == w.UserName && own == w.Name
}

package sserver

import (
	"strings"

	"btcpool/internal/bitcoin"
	"btcpool/internal/guard"
	"btcpool/internal/share"
	"btcpool/internal/stratum"
	"btcpool/internal/users"
)

// splitLogin splits what a miner logs in with into user, in canonical form, and worker. A difficulty that it wishes may
// stand behind the user, as in "alice+1024.rig": hasStart says so.
func splitLogin(login string, of *users.List) (user, worker string, start bitcoin.Difficulty, hasStart bool) {
	account, rest, _ := strings.Cut(login, ".")
	if name, wish, ok := strings.Cut(account, "+"); ok {
		if d, err := stratum.ParseDifficulty(wish); err == nil {
			start, hasStart = d, true
			login = name + "." + rest
		}
	}
	user, worker = of.Split(login)
	return user, share.WorkerName(worker), start, hasStart
}

// worker is whom shares are credited to.
type worker struct {
	Login    string // as it said when it logged in; "" if that was very long
	UserName string
	UserID   int32
	Past     []credit // its ids on the chains that the session has left
	Name     string   // without the user's
	ID       int64
	Conduct  guard.Conduct // of its shares on this connection
}

func (w *worker) fullName() string { return fullName(w.UserName, w.Name) }

func fullName(user, worker string) string { return user + "." + worker }

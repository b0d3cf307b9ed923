package agentproxy

import (
	"slices"
	"time"
)

const (
	// goneFor is for how long a machine that has left is still shown: it is the one that is looked for.
	goneFor = 24 * time.Hour
	maxGone = 1000
)

// gone are machines that have left and not come back, oldest first.
type gone struct{ workers []worker }

// add notes one that has left.
func (g *gone) add(w worker, now time.Time) {
	w.Online, w.Hashrate, w.Pool, w.left = false, nil, nil, now
	g.remove(w.login, w.Name, w.IP)
	g.workers = append(g.workers, w)
	if len(g.workers) > maxGone {
		g.workers = slices.Delete(g.workers, 0, len(g.workers)-maxGone)
	}
}

// sweep forgets those that have left long ago.
func (g *gone) sweep(now time.Time) {
	g.workers = slices.DeleteFunc(g.workers, func(w worker) bool { return now.Sub(w.left) > goneFor })
}

// remove forgets one that has come back, and returns what was known of it.
func (g *gone) remove(login, name, ip string) worker {
	i := slices.IndexFunc(g.workers, func(w worker) bool { return w.login == login && w.Name == name && w.IP == ip })
	if i < 0 {
		return worker{}
	}
	w := g.workers[i]
	g.workers = slices.Delete(g.workers, i, i+1)
	return w
}

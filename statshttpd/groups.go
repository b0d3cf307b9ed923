package statshttpd

import (
	"cmp"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"btcpool/internal/httpapi"
	"btcpool/internal/share"
)

type (
	groupsAnswer struct {
		Time     time.Time     `json:"time"`
		Starting bool          `json:"starting"`
		User     string        `json:"user"`
		UserID   int32         `json:"user_id"`
		Total    int           `json:"total"`
		Limit    int           `json:"limit"`
		Offset   int           `json:"offset"`
		Groups   []groupAnswer `json:"groups"`
	}
	groupAnswer struct {
		Group         string       `json:"group"`
		Workers       int          `json:"workers"`
		WorkersOnline int          `json:"workers_online"`
		WorkersSilent int          `json:"workers_silent"`
		LastShareAt   *time.Time   `json:"last_share_at"`
		Best          *bestAnswer  `json:"best_share"`
		Hashrate      spans        `json:"hashrate"`
		Shares        sharesAnswer `json:"shares_1h"`
	}
)

// group is the sum of a user's workers whose names begin alike.
type group struct {
	name            string
	workers, online int // that had a share
	last            int64
	best            record
	tally
}

// groupOf is the name of a worker's group, empty where it has none.
func (s *Service) groupOf(worker string) string {
	if i := strings.IndexAny(worker, s.cfg.GroupSeparators); i >= 0 {
		return worker[:i]
	}
	return ""
}

// add counts a worker in. b.mu is held.
func (g *group) add(b *board, w *worker, now time.Time) {
	g.workers++
	if w.online(now) {
		g.online++
	}
	g.last = max(g.last, w.last)
	if w.best.beats(g.best) {
		g.best = w.best
	}
	t := b.tally(&w.window, now.Unix())
	g.Rate1m.add(t.Rate1m)
	g.Rate5m.add(t.Rate5m)
	g.Rate15m.add(t.Rate15m)
	g.Rate1h.add(t.Rate1h)
	g.Rate1d.add(t.Rate1d)
	g.Accepted.add(t.Accepted)
	g.Stale.add(t.Stale)
	g.Rejected.add(t.Rejected)
	for status, of := range t.Reasons {
		if g.Reasons == nil {
			g.Reasons = make(map[share.Status]amount)
		}
		sum := g.Reasons[status]
		sum.add(of)
		g.Reasons[status] = sum
	}
}

// add sums rates up; the sum is known as soon as one of them is.
func (r *rate) add(of rate) {
	if of.Known {
		r.HashesPerSecond += of.HashesPerSecond
		r.Shares += of.Shares
		r.Known = true
	}
}

// groups returns the groups of a user by name.
func (s *Service) groups(now time.Time, userID int32) []group {
	return s.groupOrders.get(strconv.Itoa(int(userID)), now, func(*order[group]) *order[group] {
		sums := make(map[string]*group)
		for chunk := range slices.Chunk(s.board.workersOf(userID), orderChunk) { // shares are not kept waiting
			s.board.mu.RLock()
			for _, w := range chunk {
				if w.waits != nil {
					continue
				}
				name := s.groupOf(w.Name)
				if sums[name] == nil {
					sums[name] = &group{name: name}
				}
				sums[name].add(s.board, w, now)
			}
			s.board.mu.RUnlock()
		}
		next := &order[group]{rows: make([]group, 0, len(sums))}
		for _, name := range slices.Sorted(maps.Keys(sums)) {
			next.rows = append(next.rows, *sums[name])
		}
		return next
	}).rows
}

// groupRanks are the values of sort beside a group's name; "-" before one turns it round.
var groupRanks = map[string]func(g *group) float64{
	"hashrate_5m":  func(g *group) float64 { return g.Rate5m.HashesPerSecond },
	"hashrate_1h":  func(g *group) float64 { return g.Rate1h.HashesPerSecond },
	"hashrate_1d":  func(g *group) float64 { return g.Rate1d.HashesPerSecond },
	"last_share":   func(g *group) float64 { return float64(g.last) },
	"reject_ratio": func(g *group) float64 { return g.rejectRatio() },
	"silent":       func(g *group) float64 { return float64(g.workers - g.online) },
	"workers":      func(g *group) float64 { return float64(g.workers) },
}

func (s *Service) getGroups(r *http.Request, q *httpapi.Query) (any, error) {
	choices := []string{"group", "-group"}
	for _, by := range slices.Sorted(maps.Keys(groupRanks)) {
		choices = append(choices, by, "-"+by)
	}
	var (
		now    = s.moment()
		sort   = q.Choice("sort", choices...)
		search = line(q.Text("q", "", maxNameBytes))
		limit  = q.Integer("limit", 100, 1, 1000)
		offset = q.Integer("offset", 0, 0, maxOffset)
	)
	if err := q.Done(); err != nil {
		return nil, err
	}
	id := s.board.idOf(r.PathValue("user"))
	if id < 0 {
		return nil, errNoSuchUser
	}
	all := slices.DeleteFunc(slices.Clone(s.groups(now, id)), func(g group) bool { return !strings.Contains(line(g.name), search) })
	by, down := strings.CutPrefix(sort, "-")
	switch rank := groupRanks[by]; {
	case rank != nil:
		slices.SortStableFunc(all, func(x, y group) int {
			order := cmp.Compare(rank(&x), rank(&y))
			if down {
				return -order
			}
			return order
		})
	case down:
		slices.Reverse(all)
	}
	a := groupsAnswer{
		Time: now, Starting: !s.replayed.Load(), User: s.board.userName(id), UserID: id,
		Total: len(all), Limit: limit, Offset: offset, Groups: []groupAnswer{},
	}
	for i := offset; i < min(offset+limit, len(all)); i++ {
		g := &all[i]
		a.Groups = append(a.Groups, groupAnswer{
			Group: g.name, Workers: g.workers, WorkersOnline: g.online, WorkersSilent: g.workers - g.online,
			LastShareAt: timeOf(g.last), Best: answerOfBest(g.best), Hashrate: g.spans(), Shares: g.shares(),
		})
	}
	return a, nil
}

// userName is what a user is called, empty when that is not known.
func (b *board) userName(id int32) string {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if u := b.users[id]; u != nil {
		return u.Name
	}
	return ""
}

// workersOf returns the workers of a user, those in the lobby too.
func (b *board) workersOf(id int32) []*worker {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if u := b.users[id]; u != nil {
		return slices.Collect(maps.Values(u.workers))
	}
	return nil
}

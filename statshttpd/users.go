package statshttpd

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// userView is one user at one moment.
type userView struct {
	ID                      int32
	Name                    string
	Workers, Online, Silent int // known that had a share; of them online, and not
	past
	tally
}

// active is the number of a user's workers with a share in the last hour. b.mu is held.
func (u *user) active(now time.Time) (n int) {
	for _, w := range u.workers {
		if w.waits == nil && !w.silent(now) {
			n++
		}
	}
	return n
}

// listedUser is a user in a list.
type listedUser struct {
	id      int32
	u       *user
	name    string
	online  int  // workers
	workers int  // that had a share
	active  bool // one of them in the last hour
}

// listUsers returns the users of a list of workers, by name.
func (b *board) listUsers(workers []listed) []listedUser {
	byID := make(map[int32]*listedUser)
	for i := range workers {
		l := &workers[i]
		u := byID[l.UserID]
		if u == nil {
			u = &listedUser{id: l.UserID, name: l.user}
			byID[l.UserID] = u
		}
		if l.state&isWaiting != 0 {
			continue
		}
		u.workers++
		u.active = u.active || l.state&isActive != 0
		if l.state&isOnline != 0 {
			u.online++
		}
	}
	all := make([]listedUser, 0, len(byID))
	b.mu.RLock()
	for id, l := range byID {
		if l.u = b.users[id]; l.u != nil {
			all = append(all, *l)
		}
	}
	b.mu.RUnlock()
	slices.SortFunc(all, func(x, y listedUser) int { return cmp.Or(strings.Compare(x.name, y.name), cmp.Compare(x.id, y.id)) })
	return all
}

// users returns all users in the order that sort names.
func (s *Service) users(now time.Time, sort string) *order[listedUser] {
	names := s.userOrders.get("name", now, func(*order[listedUser]) *order[listedUser] {
		next := &order[listedUser]{rows: s.board.listUsers(s.workers(now, "name").rows)}
		next.index(func(l *listedUser) (string, brief) { return line(l.name), brief{user: l.id, state: l.state()} })
		return next
	})
	return arranged(s.userOrders, names, now, sort, func(by string, down bool) []int32 {
		return s.board.sorted(len(names.rows), down, func(i int) float64 {
			l := &names.rows[i]
			if by == byWorkers {
				return float64(l.online)
			}
			return ranks[by](s.board, &l.u.window, now.Unix())
		})
	})
}

// byWorkers orders users by their workers that are online.
const byWorkers = "workers"

// userPage returns a page of the users that keep keeps and that contain what is searched, and how many there are on all
// pages.
func (s *Service) userPage(now time.Time, sort string, keep func(*listedUser, brief) bool, search string, limit, offset int) (views []*userView, total int) {
	page, total := s.users(now, sort).page(keep, search, limit, offset)
	s.board.mu.RLock()
	defer s.board.mu.RUnlock()
	for _, l := range page {
		views = append(views, s.board.userView(l, now))
	}
	return views, total
}

// userView is of what l is. b.mu is held.
func (b *board) userView(l *listedUser, now time.Time) *userView {
	return &userView{
		ID: l.id, Name: l.name, Workers: l.workers, Online: l.online, Silent: l.workers - l.online,
		past: b.past(&l.u.window), tally: b.tally(&l.u.window, now.Unix()),
	}
}

// findUser returns the user called so, or of that id in decimal where no name fits; nil when there is none.
func (s *Service) findUser(now time.Time, name string) *userView {
	b := s.board
	b.mu.RLock()
	defer b.mu.RUnlock()
	id, ok := b.userID(name)
	if !ok {
		return nil
	}
	l := &listedUser{id: id, u: b.users[id], name: b.users[id].Name}
	for _, w := range b.users[id].workers {
		if w.waits != nil {
			continue
		}
		l.workers++
		if w.online(now) {
			l.online++
		}
	}
	return b.userView(l, now)
}

// idOf returns the id of the user called so, or of that id in decimal; -1 when there is none.
func (b *board) idOf(name string) int32 {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if id, ok := b.userID(name); ok {
		return id
	}
	return -1
}

func (l *listedUser) state() (s state) {
	if l.active {
		s |= isActive
	}
	switch {
	case l.online > 0:
		s |= isOnline
	case l.workers > 0:
		s |= isSilent
	}
	return s
}

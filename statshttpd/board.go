package statshttpd

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"btcpool/internal/bitcoin"
	"btcpool/internal/share"
)

const (
	maxAhead  = time.Minute      // a share from further in the future is refused; one from less counts as now
	onlineFor = 10 * time.Minute // a worker is online that long after its last sign of life, unless it is known to have left
)

// Why a share is not counted. Each has its label in the metrics.
var (
	errShareOld    = errors.New("share is older than the windows")
	errShareFuture = errors.New("share is from the future")
)

// workerKey names a worker as shares do.
type workerKey struct {
	UserID   int32
	WorkerID int64 // share.WorkerID of the worker's name; the same name gives the same id for every user
}

// worker is one worker that gave a sign of life within the last hour, or whose row in the database is not cleared yet.
type worker struct {
	window
	seen           int64 // unix time of the last share or connection, 0 for one that is only in the database
	left           int64 // unix time of the last disconnection that left no session behind, 0 when none
	sessions       int   // connections that came and did not go, as far as events were read
	server         uint8 // id of the server that the last of them is to
	lastDifficulty bitcoin.Difficulty
}

func (w *worker) online(now time.Time) bool {
	return w.seen > now.Add(-onlineFor).Unix() && w.left < w.seen
}

// board is everything statshttpd knows of users and workers. It is safe for concurrent use.
type board struct {
	limit int // workers in memory, and names

	mu      sync.RWMutex
	now     int64 // unix time of the last share that was counted
	pool    window
	recent  ring // accepted by the pool, an hour in fine buckets: the effort of a round needs them
	users   map[int32]*window
	workers map[workerKey]*worker
	names   map[workerKey]workerName
	userIDs map[int32]string
	renamed map[workerKey]workerName // names the database does not have yet
}

func newBoard(limit int) *board {
	return &board{
		limit:   limit,
		pool:    newWindow(),
		recent:  newRing(fineWidth, int(hour)/fineWidth+1),
		users:   make(map[int32]*window),
		workers: make(map[workerKey]*worker),
		names:   make(map[workerKey]workerName),
		userIDs: make(map[int32]string),
		renamed: make(map[workerKey]workerName),
	}
}

// addShare counts a valid share. It returns false when there was no room for its worker: user and pool count it still.
func (b *board) addShare(now time.Time, s *share.Share) (kept bool, err error) {
	if s.Time > now.Add(maxAhead).Unix() {
		return false, errShareFuture
	}
	t := min(s.Time, now.Unix())
	if t <= now.Unix()-int64(hour) {
		return false, errShareOld
	}
	b.mu.Lock()
	defer b.mu.Unlock()

	if now.Unix() < b.now {
		b.forgetAfter(now.Unix())
	}
	b.now = now.Unix()
	w := b.workerAt(workerKey{s.UserID, s.WorkerID})
	difficulty := s.Difficulty
	status := s.Status
	if status.IsAccepted() {
		b.recent.add(t, amount{Work: difficulty.Hashes(), Shares: 1})
		if w != nil {
			w.lastDifficulty = difficulty
		}
	} else {
		status = status.Known()
		if w != nil && w.accepted > 0 {
			difficulty = share.RejectedDifficulty(difficulty, w.lastDifficulty)
		}
	}
	work := difficulty.Hashes()
	b.pool.add(t, status, work, s.IP)
	if w == nil {
		if u := b.users[s.UserID]; u != nil {
			u.add(t, status, work, s.IP)
		}
		return false, nil
	}
	w.add(t, status, work, s.IP)
	w.seen = max(w.seen, t)
	b.users[s.UserID].add(t, status, work, s.IP)
	return true, nil
}

// forgetAfter takes back what was counted behind unix time t: the clock was ahead, and what comes now would be too old
// for windows that have gone on. b.mu is held.
func (b *board) forgetAfter(t int64) {
	b.pool.forgetAfter(t)
	b.recent.forgetAfter(t)
	for _, u := range b.users {
		u.forgetAfter(t)
	}
	for _, w := range b.workers {
		w.forgetAfter(t)
		w.seen, w.left = min(w.seen, t), min(w.left, t)
	}
}

// workerAt returns the worker of that key, made when it is new, with its user; nil when there is no room. b.mu is held.
func (b *board) workerAt(k workerKey) *worker {
	if w := b.workers[k]; w != nil {
		return w
	}
	if len(b.workers) >= b.limit {
		return nil
	}
	w := &worker{window: newWindow()}
	b.workers[k] = w
	if b.users[k.UserID] == nil {
		b.users[k.UserID] = new(newWindow())
	}
	return w
}

// addEvent takes in who came or went. With live false the event is history, whose names the database mostly has. It
// returns false when there was no room for the worker.
func (b *board) addEvent(now time.Time, e *share.Event, live bool) (kept bool) {
	b.mu.Lock()
	defer b.mu.Unlock()

	switch e.Action {
	case share.ServerDead:
		b.serverLeft(uint8(e.SessionID>>24), min(e.Time.Unix(), now.Unix()))
		return true
	case share.ServerServing:
		return true
	}
	k := workerKey{e.UserID, e.WorkerID}
	if e.Action == share.MinerConnect {
		if !b.rename(k, e, live) {
			return false
		}
	}
	t := min(e.Time.Unix(), now.Unix())
	if t <= now.Unix()-int64(hour) {
		return true
	}
	if e.Action == share.MinerDead {
		if w := b.workers[k]; w != nil {
			if w.sessions = max(w.sessions-1, 0); w.sessions == 0 {
				w.left = t
			}
		}
		return true
	}
	w := b.workerAt(k)
	if w == nil {
		return false
	}
	w.sessions++
	w.server = uint8(e.SessionID >> 24)
	w.seen = max(w.seen, t)
	w.left = min(w.left, w.seen-1) // a worker that comes back within the second is there
	return true
}

// serverLeft ends the sessions of workers that came to a server last. One that is elsewhere too is back with its next
// share. b.mu is held.
func (b *board) serverLeft(id uint8, t int64) {
	for _, w := range b.workers {
		if w.sessions > 0 && w.server == id {
			w.sessions, w.left = 0, max(t, w.seen)
		}
	}
}

// expire forgets whoever is silent, and returns how many workers are left. It is to be called once the zeros that their
// windows have become are written.
func (b *board) expire(now time.Time) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	earliest := now.Unix() - int64(hour) - coarseWidth
	maps.DeleteFunc(b.workers, func(_ workerKey, w *worker) bool { return w.silent(now) && w.seen < earliest })
	live := make(map[int32]bool, len(b.users))
	for k := range b.workers {
		live[k.UserID] = true
	}
	maps.DeleteFunc(b.users, func(id int32, _ *window) bool { return !live[id] })
	return len(b.workers)
}

// tally is the last hour of one window in figures.
type tally struct {
	Rate1m, Rate5m, Rate15m, Rate1h rate
	Accepted, Stale, Rejected       amount // in the last hour
	Reasons                         map[share.Status]amount
}

func (w *window) tally(now int64) tally {
	t := tally{
		Rate1m: w.rate(now, minute), Rate5m: w.rate(now, fiveMinutes),
		Rate15m: w.rate(now, quarterHour), Rate1h: w.rate(now, hour),
		Accepted: w.acceptedSum(now, hour),
		Stale:    w.staleSum(now, hour),
	}
	t.Rejected, t.Reasons = w.rejectedSum(now, hour)
	return t
}

// workerView is one worker at one moment.
type workerView struct {
	workerKey
	workerName
	UserName  string
	Online    bool
	LastShare int64 // unix time, 0 when there is none
	tally
}

func (b *board) view(k workerKey, w *worker, now time.Time) *workerView {
	return &workerView{
		workerKey: k, workerName: b.names[k], UserName: b.userIDs[k.UserID],
		Online: w.online(now), LastShare: w.last, tally: w.tally(now.Unix()),
	}
}

// selection is a page of workers.
type selection struct {
	keep          func(user string, name workerName, online bool) bool
	rank          func(w *worker, now int64) float64 // what they are ordered by; nil: by name
	down          bool                               // the largest first
	limit, offset int
}

// page returns the workers that sel selects, and how many there are on all pages. Equal ones are ordered by name.
func (b *board) page(now time.Time, sel selection) (views []*workerView, total int) {
	type ranked struct {
		workerKey
		user, name string
		rank       float64
	}
	var all []ranked
	b.mu.RLock()
	for k, w := range b.workers {
		user, name := b.userIDs[k.UserID], b.names[k]
		if w.seen == 0 || !sel.keep(user, name, w.online(now)) {
			continue
		}
		r := ranked{workerKey: k, user: user, name: name.Name}
		if sel.rank != nil {
			r.rank = sel.rank(w, now.Unix())
		}
		all = append(all, r)
	}
	b.mu.RUnlock() // shares are not kept waiting while this is sorted

	byName := func(x, y ranked) int {
		return cmp.Or(strings.Compare(x.user, y.user), strings.Compare(x.name, y.name),
			cmp.Compare(x.UserID, y.UserID), cmp.Compare(x.WorkerID, y.WorkerID))
	}
	slices.SortFunc(all, func(x, y ranked) int {
		switch {
		case sel.down && sel.rank == nil:
			return byName(y, x)
		case x.rank == y.rank:
			return byName(x, y)
		case sel.down:
			return cmp.Compare(y.rank, x.rank)
		default:
			return cmp.Compare(x.rank, y.rank)
		}
	})

	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, r := range all[min(sel.offset, len(all)):min(sel.offset+sel.limit, len(all))] {
		if w := b.workers[r.workerKey]; w != nil {
			views = append(views, b.view(r.workerKey, w, now))
		}
	}
	return views, len(all)
}

// find returns the worker called so, nil when there is none. Where no name fits, decimal ids count.
func (b *board) find(now time.Time, user, name string) *workerView {
	var byID *workerView
	b.mu.RLock()
	defer b.mu.RUnlock()
	for k, w := range b.workers {
		if w.seen == 0 {
			continue
		}
		userFits := b.userIDs[k.UserID] == user
		nameFits := b.names[k].Name == name
		if userFits && nameFits && name != "" {
			return b.view(k, w, now)
		}
		if (userFits || strconv.Itoa(int(k.UserID)) == user) && (nameFits || strconv.FormatInt(k.WorkerID, 10) == name) {
			byID = b.view(k, w, now)
		}
	}
	return byID
}

// poolView is the whole pool at one moment.
type poolView struct {
	tally
	Online, Users     int        // workers online, and users of such
	Known, KnownUsers int        // workers with a sign of life in the last hour, and users of such
	Minutes           [60]amount // accepted by minute, oldest first; the last is the one before the running minute
	MinutesEnd        int64      // unix time at which the last of them ended
}

func (b *board) poolView(now time.Time) poolView {
	b.mu.RLock()
	defer b.mu.RUnlock()
	v := poolView{tally: b.pool.tally(now.Unix())}
	users := make(map[int32]bool, len(b.users)) // of workers seen: is one online
	for k, w := range b.workers {
		if w.seen == 0 {
			continue
		}
		v.Known++
		online := w.online(now)
		if online {
			v.Online++
		}
		users[k.UserID] = users[k.UserID] || online
	}
	v.KnownUsers = len(users)
	for _, online := range users {
		if online {
			v.Users++
		}
	}
	running := now.Unix() / coarseWidth
	v.MinutesEnd = running * coarseWidth
	for i := range v.Minutes {
		v.Minutes[i] = b.pool.coarse.at(running - int64(len(v.Minutes)-i))
	}
	return v
}

// workSince estimates the pool's accepted hashes from t on, which must lie within the last hour.
func (b *board) workSince(now, t time.Time) float64 {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.recent.since(now.Unix(), t.Unix())
}

// sortedReasons orders reject reasons, most work first.
func sortedReasons(reasons map[share.Status]amount) []share.Status {
	return slices.SortedFunc(maps.Keys(reasons), func(a, b share.Status) int {
		return cmp.Or(reasons[b].Work.Cmp(reasons[a].Work), cmp.Compare(a, b))
	})
}

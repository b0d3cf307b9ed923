package statshttpd

import (
	"cmp"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"btcpool/internal/bitcoin"
	"btcpool/internal/share"
	"btcpool/internal/store"
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

// workerName is what only events and the database know of a worker.
type workerName struct{ Name, Agent string }

// farmLink is a connection of a farm proxy.
type farmLink struct {
	Proxy   netip.Addr
	Session uint32
}

// worker is one worker that had a share within the last hour, one that is in the lobby, or one whose row in the database
// is not cleared yet.
type worker struct {
	window
	workerName
	through        farmLink
	waits          *place // in the lobby, nil once it had a share
	seen           int64  // unix time of the last share or connection, 0 for one that is only in the database
	left           int64  // unix time of the last disconnection that left no session behind, 0 when none
	sessions       int    // connections that came and did not go, as far as events were read
	server         uint8  // id of the server that the last of them is to
	lastDifficulty bitcoin.Difficulty
}

func (w *worker) online(now time.Time) bool {
	return w.seen > now.Add(-onlineFor).Unix() && w.left < w.seen
}

// user is the sum of its workers.
type user struct {
	window
	Name    string
	workers int
}

// board is everything statshttpd knows of users and workers. It is safe for concurrent use.
type board struct {
	limit int // workers in memory, and as many in the lobby

	mu        sync.RWMutex
	now       int64 // unix time at which the last share was counted
	pool      window
	recent    ring // accepted by the pool, an hour in fine buckets: the effort of a round needs them
	users     map[int32]*user
	workers   map[workerKey]*worker
	lobby     lobby
	fullUntil time.Time                // nobody is silent enough before to make room
	givenUp   uint64                   // of the lobby, for others
	left      []store.Worker           // rows of workers that made room for others
	renamed   map[workerKey]workerName // names the database does not have yet
	nameless  map[workerKey]bool       // had a share, and nobody said their name
}

func newBoard(limit int) *board {
	return &board{
		limit:    limit,
		recent:   newRing(fineWidth, int(hour)/fineWidth+1),
		users:    make(map[int32]*user),
		workers:  make(map[workerKey]*worker),
		lobby:    newLobby(),
		renamed:  make(map[workerKey]workerName),
		nameless: make(map[workerKey]bool),
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
	w := b.proven(now, workerKey{s.UserID, s.WorkerID})
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
	if u := b.users[s.UserID]; u != nil {
		u.add(t, status, work, s.IP)
	}
	if w == nil {
		return false, nil
	}
	w.add(t, status, work, s.IP)
	w.seen = max(w.seen, t)
	return true, nil
}

// forgetAfter takes back what was counted behind unix time t: the clock was ahead, and what comes now would be too old
// for windows that have gone on. b.mu is held.
func (b *board) forgetAfter(t int64) {
	b.fullUntil = time.Time{}
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

// proven returns the worker of that key, which has a share; nil when there is no room. b.mu is held.
func (b *board) proven(now time.Time, k workerKey) *worker {
	w := b.workers[k]
	if w != nil && w.waits == nil {
		return w
	}
	if len(b.workers)-b.lobby.size >= b.limit && !b.makeRoom(now) {
		return nil
	}
	if w == nil {
		w = b.enter(k)
	} else {
		b.lobby.remove(w.waits)
		w.waits = nil
		for _, of := range []*window{&w.window, &b.users[k.UserID].window, &b.pool} {
			if of.last == 0 {
				of.begin(w.seen)
			}
		}
	}
	if w.workerName == (workerName{}) {
		b.nameless[k] = true
	} else {
		b.renamed[k] = w.workerName
	}
	return w
}

// enter makes a worker. b.mu is held.
func (b *board) enter(k workerKey) *worker {
	w := &worker{}
	b.workers[k] = w
	if b.users[k.UserID] == nil {
		b.users[k.UserID] = &user{}
	}
	b.users[k.UserID].workers++
	return w
}

// drop forgets a worker, and its user if nothing is known of it but the name. b.mu is held.
func (b *board) drop(k workerKey) {
	w, u := b.workers[k], b.users[k.UserID]
	if w.waits != nil {
		b.lobby.remove(w.waits)
	}
	delete(b.workers, k)
	delete(b.renamed, k)
	delete(b.nameless, k)
	if u.workers--; u.workers == 0 && u.last == 0 {
		delete(b.users, k.UserID)
	}
}

// batch is how many make room at once: to find them takes a look at all.
func (b *board) batch() int { return max(b.limit/100, 1) }

// makeRoom forgets the workers that are silent for the longest, none that may be mining. b.mu is held.
func (b *board) makeRoom(now time.Time) bool {
	const lookAgain = 10 * time.Second
	if now.Before(b.fullUntil) {
		return false
	}
	var silent []workerKey
	for k, w := range b.workers {
		if w.waits == nil && w.last <= now.Add(-onlineFor).Unix() {
			silent = append(silent, k)
		}
	}
	if len(silent) == 0 {
		b.fullUntil = now.Add(lookAgain)
		return false
	}
	slices.SortFunc(silent, func(x, y workerKey) int { return cmp.Compare(b.workers[x].last, b.workers[y].last) })
	for _, k := range silent[:min(len(silent), b.batch())] {
		w := b.workers[k]
		over := window{accepted: w.accepted, last: w.last, lastIP: w.lastIP}
		b.left = append(b.left, over.row(k, now.Unix()))
		b.drop(k)
	}
	return true
}

// addEvent takes in who came or went. With live false the event is history, whose names the database mostly has.
func (b *board) addEvent(now time.Time, e *share.Event, live bool) {
	b.mu.Lock()
	defer b.mu.Unlock()

	t := min(e.Time.Unix(), now.Unix())
	k := workerKey{e.UserID, e.WorkerID}
	w := b.workers[k]
	switch {
	case e.Action == share.ServerDead:
		b.serverLeft(uint8(e.SessionID>>24), t)
		return
	case e.Action == share.ServerServing:
		return
	case e.Action == share.MinerDead:
		if w != nil && t > now.Unix()-int64(hour) {
			if w.sessions = max(w.sessions-1, 0); w.sessions == 0 {
				w.left = t
			}
		}
		return
	case w == nil:
		w = b.welcome(k, e.IP)
	}
	b.rename(k, w, e, live)
	w.through = farmLink{}
	if e.Desc == share.FromAgent {
		w.through = farmLink{e.IP, e.SessionID}
	}
	if t <= now.Unix()-int64(hour) {
		return
	}
	w.sessions++
	w.server = uint8(e.SessionID >> 24)
	w.seen = max(w.seen, t)
	w.left = min(w.left, w.seen-1) // a worker that comes back within the second is there
}

// welcome makes a worker that is in the lobby. b.mu is held.
func (b *board) welcome(k workerKey, ip netip.Addr) *worker {
	if b.lobby.size >= b.limit {
		for _, k := range b.lobby.surplus(b.batch()) {
			b.drop(k)
			b.givenUp++
		}
	}
	w := b.enter(k)
	w.waits = b.lobby.add(k, ip)
	return w
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

// expire forgets whoever is silent, and returns how many workers are left that had a share. It is to be called once the
// zeros that their windows have become are written. Who is connected may wait for its first share.
func (b *board) expire(now time.Time) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	earliest := now.Unix() - int64(hour) - coarseWidth
	for k, w := range b.workers {
		if w.silent(now) && w.seen < earliest && (w.waits == nil || w.sessions == 0) {
			b.drop(k)
		}
	}
	maps.DeleteFunc(b.users, func(_ int32, u *user) bool { return u.workers == 0 && u.silent(now) })
	return len(b.workers) - b.lobby.size
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
	Through   farmLink // zero when it is connected itself
	Online    bool
	LastShare int64 // unix time, 0 when there is none
	tally
}

func (b *board) view(k workerKey, w *worker, now time.Time) *workerView {
	return &workerView{
		workerKey: k, workerName: w.workerName, UserName: b.users[k.UserID].Name, Through: w.through,
		Online: w.online(now), LastShare: w.last, tally: w.tally(now.Unix()),
	}
}

// selection is a page of workers.
type selection struct {
	keep          func(user string, w *worker, online bool) bool
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
		user := b.users[k.UserID].Name
		if w.seen == 0 || !sel.keep(user, w, w.online(now)) {
			continue
		}
		r := ranked{workerKey: k, user: user, name: w.Name}
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
		userFits := b.users[k.UserID].Name == user
		nameFits := w.Name == name
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
	Online, Users     int        // workers online that had a share, and users of such
	Known, KnownUsers int        // workers with a share in the last hour, and users of such
	Waiting           int        // workers online that had none
	Minutes           [60]amount // accepted by minute, oldest first; the last is the one before the running minute
	MinutesEnd        int64      // unix time at which the last of them ended
}

func (b *board) poolView(now time.Time) poolView {
	b.mu.RLock()
	defer b.mu.RUnlock()
	v := poolView{tally: b.pool.tally(now.Unix())}
	users := make(map[int32]bool, len(b.users)) // of workers seen: is one online
	for k, w := range b.workers {
		online := w.online(now)
		if w.waits != nil && online {
			v.Waiting++
		}
		if w.waits != nil || w.seen == 0 {
			continue
		}
		v.Known++
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

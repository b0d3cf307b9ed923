package statshttpd

import (
	"cmp"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strconv"
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

// worker is one worker that had a share, or one that is in the lobby.
type worker struct {
	window
	workerName
	through        farmLink
	waits          *place // in the lobby, nil once it had a share
	seen           int64  // unix time of the last share or connection, 0 for one that is only in the database
	left           int64  // unix time of the last disconnection that left no session behind, 0 when none
	since          int64  // unix time at which the first of its sessions began, 0 while there is none
	sessions       int32  // connections that came and did not go, as far as events were read
	server         uint8  // id of the server that its last share or connection came to, 0: not known
	renamed        uint32 // how often its name, agent or proxy has changed
	cleared        bool   // its row has the zeros that its window has become
	lastDifficulty bitcoin.Difficulty
}

func (w *worker) online(now time.Time) bool {
	return w.seen > now.Add(-onlineFor).Unix() && w.left < w.seen
}

// silentSince tells whether no share and no connection is known after that unix time.
func (w *worker) silentSince(t int64) bool { return max(w.last, w.seen) <= t }

// user is the sum of its workers.
type user struct {
	window
	Name    string
	workers map[int64]*worker // by id
	cleared bool
}

// server is what came by one of the pool's servers.
type server struct {
	window
	serving int64 // unix time at which the process began to serve, 0 when that is not known
	gone    int64 // unix time of the last event that all its sessions are over, 0 when none
}

// board is everything statshttpd knows of users and workers. It is safe for concurrent use.
type board struct {
	limit       int  // workers in memory, and as many in the lobby
	acceptStale bool // shares that were accepted though late count as accepted

	mu        sync.RWMutex
	now       int64 // unix time at which the last share was counted
	pool      window
	recent    ring // accepted by the pool, an hour in fine buckets: the effort of a round needs them
	users     map[int32]*user
	workers   map[workerKey]*worker
	names     map[string]int32 // ids of users by name
	servers   map[uint8]*server
	roundFrom int64 // unix time of the last block, 0 when none is known
	dayEnd    int64 // unix time up to which windows' hours go, 0 before they are read
	lobby     lobby
	fullUntil time.Time                // nobody is silent enough before to make room
	givenUp   uint64                   // of the lobby, for others
	left      []store.Worker           // rows of workers that made room for others
	renamed   map[workerKey]workerName // names the database does not have yet
	unread    map[workerKey]bool       // workers and users (worker 0) with a share whose rows were not asked for
}

func newBoard(limit int) *board {
	return &board{
		limit:   limit,
		recent:  recentRing(),
		users:   make(map[int32]*user),
		workers: make(map[workerKey]*worker),
		names:   make(map[string]int32),
		servers: make(map[uint8]*server),
		lobby:   newLobby(),
		renamed: make(map[workerKey]workerName),
		unread:  make(map[workerKey]bool),
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
	if b.acceptStale && status.IsAccepted() {
		status = share.StatusAccept
	}
	if status.IsAccepted() {
		b.recent.add(t, difficulty.Hashes().Float())
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
	count := func(to *window) {
		to.add(t, status, work, s.IP)
		if status.IsAccepted() {
			to.reach(t, s.BitsReached, b.roundFrom)
		}
	}
	count(&b.pool)
	if s.ID != (share.ID{}) {
		count(&b.server(s.ID.Server).window)
	}
	if u := b.users[s.UserID]; u != nil {
		count(&u.window)
		u.cleared = false
	}
	if w == nil {
		return false, nil
	}
	count(&w.window)
	w.seen, w.cleared = max(w.seen, t), false
	if s.ID != (share.ID{}) {
		w.server = s.ID.Server
	}
	return true, nil
}

// server returns the one of that id. b.mu is held.
func (b *board) server(id uint8) *server {
	if b.servers[id] == nil {
		b.servers[id] = new(server)
	}
	return b.servers[id]
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
	for _, s := range b.servers {
		s.forgetAfter(t)
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
	b.unread[k] = true
	if b.users[k.UserID].last == 0 {
		b.unread[workerKey{UserID: k.UserID}] = true
	}
	if w.workerName != (workerName{}) {
		b.renamed[k] = w.workerName
	}
	return w
}

// enter makes a worker. b.mu is held.
func (b *board) enter(k workerKey) *worker {
	w := &worker{}
	b.workers[k] = w
	if b.users[k.UserID] == nil {
		b.users[k.UserID] = &user{workers: make(map[int64]*worker)}
	}
	b.users[k.UserID].workers[k.WorkerID] = w
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
	delete(b.unread, k)
	delete(u.workers, k.WorkerID)
	if len(u.workers) == 0 && u.last == 0 {
		b.dropUser(k.UserID)
	}
}

func (b *board) dropUser(id int32) {
	if name := b.users[id].Name; b.names[name] == id {
		delete(b.names, name)
	}
	delete(b.users, id)
	delete(b.unread, workerKey{UserID: id})
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
		if !w.cleared {
			w.release()
			b.left = append(b.left, w.row(k, now.Unix()))
		}
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
		b.server(uint8(e.SessionID >> 24)).serving = t
		return
	case e.Action == share.MinerDead:
		if w != nil && t > now.Unix()-int64(hour) {
			if w.sessions = max(w.sessions-1, 0); w.sessions == 0 {
				w.left, w.since = t, 0
			}
		}
		return
	case w == nil:
		w = b.welcome(k, e.IP)
	}
	b.rename(k, w, e, live)
	through := farmLink{}
	if e.Desc == share.FromAgent {
		through = farmLink{e.IP, e.SessionID}
	}
	if w.through != through {
		w.through = through
		w.renamed++
	}
	if t <= now.Unix()-int64(hour) {
		return
	}
	if w.sessions++; w.since == 0 {
		w.since = t
	}
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
	b.server(id).gone = t
	for _, w := range b.workers {
		if w.sessions > 0 && w.server == id {
			w.sessions, w.since, w.left = 0, 0, max(t, w.seen)
		}
	}
}

// expire gives back the memory of windows that have become empty, and returns how many workers are left with a share in
// the last hour. It is to be called once the zeros are written. A worker is forgotten when it had no share for keep, 0:
// for ever; and one that never had one when it is gone. Who is connected may wait.
func (b *board) expire(now time.Time, keep time.Duration) (active int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	earliest := now.Unix() - int64(hour) - coarseWidth
	for k, w := range b.workers {
		switch {
		case w.waits != nil:
			if w.seen < earliest && w.sessions == 0 {
				b.drop(k)
			}
		case !w.silent(now):
			active++
		case keep != 0 && w.silentSince(now.Add(-keep).Unix()):
			b.drop(k)
		case !w.cleared && w.over(now):
			w.cleared = true
			w.release()
		}
	}
	for id, u := range b.users {
		switch {
		case !u.over(now):
		case len(u.workers) == 0:
			b.dropUser(id)
		case !u.cleared:
			u.cleared = true
			u.release()
		}
	}
	return active
}

// tally is the last hour of one window in figures.
type tally struct {
	Rate1m, Rate5m, Rate15m, Rate1h, Rate1d rate

	Accepted, Stale, Rejected amount // in the last hour
	Reasons                   map[share.Status]amount
}

func (b *board) tally(w *window, now int64) tally {
	t := tally{
		Rate1m: w.rate(now, minute), Rate5m: w.rate(now, fiveMinutes),
		Rate15m: w.rate(now, quarterHour), Rate1h: w.rate(now, hour),
		Rate1d:   w.dayRate(now, b.dayEnd),
		Accepted: w.acceptedSum(now, hour),
		Stale:    w.staleSum(now, hour),
	}
	t.Rejected, t.Reasons = w.rejectedSum(now, hour)
	return t
}

// past is what is remembered of the time before the windows.
type past struct {
	First, Last int64  // unix times of shares, 0 when there is none
	Best        record // ever
	RoundBest   record // of this round
}

func (b *board) past(w *window) past {
	p := past{First: w.first, Last: w.last, Best: w.best}
	if w.round.At >= b.roundFrom {
		p.RoundBest = w.round
	}
	return p
}

// workerView is one worker at one moment.
type workerView struct {
	workerKey
	workerName
	UserName   string
	Online     bool
	Waits      bool // for its first share
	Sessions   int
	Since      int64    // unix time, 0 when that is not known
	Server     uint8    // 0: not known
	Through    farmLink // zero when it is connected itself
	IP         netip.Addr
	Difficulty *bitcoin.Difficulty // of the last accepted share
	past
	tally
}

func (b *board) view(k workerKey, w *worker, now time.Time) *workerView {
	v := &workerView{
		workerKey: k, workerName: w.workerName, UserName: b.users[k.UserID].Name,
		Online: w.online(now), Waits: w.waits != nil, Sessions: int(w.sessions), Since: w.since, Server: w.server, Through: w.through,
		IP: w.lastIP, past: b.past(&w.window), tally: b.tally(&w.window, now.Unix()),
	}
	if w.accepted > 0 {
		v.Difficulty = new(w.lastDifficulty)
	}
	return v
}

// userID returns the id of the user called so, or of that id in decimal where no name fits. b.mu is held.
func (b *board) userID(name string) (id int32, ok bool) {
	if id, ok = b.names[name]; ok && b.users[id] != nil {
		return id, true
	}
	n, err := strconv.ParseInt(name, 10, 32)
	return int32(n), err == nil && b.users[int32(n)] != nil
}

// find returns the worker called so, nil when there is none. Where no name fits, decimal ids count.
func (b *board) find(now time.Time, user, name string) *workerView {
	b.mu.RLock()
	defer b.mu.RUnlock()
	id, ok := b.userID(user)
	if !ok {
		return nil
	}
	k := workerKey{id, share.WorkerID(name)}
	if w := b.workers[k]; w != nil && w.Name == name && name != "" {
		return b.view(k, w, now)
	}
	for other, w := range b.users[id].workers { // other software may make other ids of names
		if w.Name == name {
			return b.view(workerKey{id, other}, w, now)
		}
	}
	n, err := strconv.ParseInt(name, 10, 64)
	if k.WorkerID = n; err == nil && b.workers[k] != nil {
		return b.view(k, b.workers[k], now)
	}
	return nil
}

// counts are numbers of workers and users at one moment.
type counts struct {
	Online, Users     int // workers online that had a share, and users of such
	Known, KnownUsers int // workers with a share in the last hour, and users of such
	Waiting           int // workers online that had none
	Silent            int // workers whose last share is older
}

func (b *board) count(now time.Time) (n counts) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, u := range b.users {
		online, known := 0, 0
		for _, w := range u.workers {
			here := w.online(now)
			switch {
			case w.waits != nil && here:
				n.Waiting++
			case w.waits != nil:
			case w.silent(now):
				n.Silent++
			default:
				known++
				if here {
					online++
				}
			}
		}
		n.Known += known
		n.Online += online
		n.KnownUsers += min(known, 1)
		n.Users += min(online, 1)
	}
	return n
}

// poolView is the whole pool at one moment.
type poolView struct {
	counts
	past
	tally
	Minutes    [60]amount // accepted by minute, oldest first; the last is the one before the running minute
	MinutesEnd int64      // unix time at which the last of them ended
}

// poolView takes numbers that are kept between requests as orders are: to look at all workers takes long.
func (s *Service) poolView(now time.Time) poolView {
	kept := s.poolCounts.get("", now, func(*order[counts]) *order[counts] {
		return &order[counts]{rows: []counts{s.board.count(now)}}
	})
	return s.board.poolView(now, kept.rows[0])
}

func (b *board) poolView(now time.Time, n counts) poolView {
	b.mu.RLock()
	defer b.mu.RUnlock()
	v := poolView{counts: n, past: b.past(&b.pool), tally: b.tally(&b.pool, now.Unix())}
	running := now.Unix() / coarseWidth
	v.MinutesEnd = running * coarseWidth
	for i := range v.Minutes {
		v.Minutes[i] = b.pool.coarse.at(running - int64(len(v.Minutes)-i))
	}
	return v
}

// serverView is a server at one moment.
type serverView struct {
	id                  uint8
	serving, gone, last int64
	workers             int // online that were seen there last
	tally
}

// serverViews returns all servers by their ids.
func (b *board) serverViews(now time.Time) (views []serverView) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	var workers [256]int
	for _, w := range b.workers {
		if w.online(now) {
			workers[w.server]++
		}
	}
	for _, id := range slices.Sorted(maps.Keys(b.servers)) {
		s := b.servers[id]
		v := serverView{id: id, serving: s.serving, gone: s.gone, last: s.last, workers: workers[id], tally: b.tally(&s.window, now.Unix())}
		v.Rate1d = rate{} // the tables do not tell servers apart
		views = append(views, v)
	}
	return views
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

package slparser

import (
	"math/big"

	"btcpool/internal/bitcoin"
	"btcpool/internal/share"
	"btcpool/internal/sharefile"
	"btcpool/internal/store"
)

// totals is the work of somebody in some time, exactly.
type totals struct {
	accept, stale bitcoin.Work
	score         sum // in units of 10^-25
	earn          sum // satoshi, in units of 10^-25
	rejects       []rejects
}

// rejects is what was refused for a reason.
type rejects struct {
	status share.Status
	work   bitcoin.Work
}

func (t *totals) rejected() bitcoin.Work {
	var all bitcoin.Work
	for _, r := range t.rejects {
		all = all.Add(r.work)
	}
	return all
}

func (t *totals) addReject(status share.Status, w bitcoin.Work) {
	for i := range t.rejects {
		if r := &t.rejects[i]; r.status == status {
			r.work = r.work.Add(w)
			return
		}
	}
	t.rejects = append(t.rejects, rejects{status, w})
}

func (t *totals) add(u *totals) {
	t.accept = t.accept.Add(u.accept)
	t.stale = t.stale.Add(u.stale)
	t.score.add(&u.score)
	t.earn.add(&u.earn)
	for _, r := range u.rejects {
		t.addReject(r.status, r.work)
	}
}

// earnSat is the earned amount in satoshi, rounded to the nearest.
func (t *totals) earnSat() *big.Int {
	half := new(big.Int).Rsh(scoreOne, 1)
	return half.Div(half.Add(half, t.earn.big()), scoreOne)
}

// row makes the row of a table, which shares no memory with t.
func (t *totals) row(k key, period int) store.Stats {
	st := store.Stats{
		StatsKey: store.StatsKey{UserID: int32(k.user), WorkerID: k.worker, Period: period},
		Accept:   t.accept,
		Stale:    t.stale,
		Reject:   t.rejected(),
		Score:    t.score.big(),
		EarnSat:  t.earnSat(),
	}
	if len(t.rejects) > 0 {
		st.RejectDetail = make(map[share.Status]bitcoin.Work, len(t.rejects))
		for _, r := range t.rejects {
			st.RejectDetail[r.status] = r.work
		}
	}
	return st
}

// key says whose work it is: a worker's, a user's (worker 0), or the pool's (both 0).
type key struct{ user, worker int64 }

// entry is the day of a key.
type entry struct {
	key
	changed uint32 // a bit for each hour that differs from the database
	hours   [24]*totals
}

func (e *entry) hour(h uint8) *totals {
	if e.hours[h] == nil {
		e.hours[h] = new(totals)
	}
	e.changed |= 1 << h
	return e.hours[h]
}

func (e *entry) day() *totals {
	all := new(totals)
	for _, t := range e.hours {
		if t != nil {
			all.add(t)
		}
	}
	return all
}

func (e *entry) add(from *entry) {
	for h, t := range from.hours {
		if t != nil {
			e.hour(uint8(h)).add(t)
		}
	}
}

// worker is the day of a worker.
type worker struct {
	user     *entry
	accepted bool               // the worker had a share accepted
	last     bitcoin.Difficulty // and this was its difficulty
	entry
}

func (w *worker) clamp(d bitcoin.Difficulty) bitcoin.Difficulty {
	if w.accepted {
		return share.RejectedDifficulty(d, w.last)
	}
	return d
}

// rules say how shares count.
type rules struct {
	network     bitcoin.Network
	earnings    Earnings
	acceptStale bool
	singleUser  int32
}

// credit is what of a share counts, or of successive shares of a worker that are alike.
type credit struct {
	key
	shares       uint64
	status       share.Status
	bits, height uint32
	hour         uint8
	difficulty   bitcoin.Difficulty
}

// work is what its shares count with when each counts with difficulty d.
func (c *credit) work(d bitcoin.Difficulty) bitcoin.Work { return d.Hashes().Times(c.shares) }

// creditOf tells whose share it is, and false if it is nobody's.
func (r *rules) creditOf(s *share.Share) (credit, bool) {
	user := s.UserID
	if r.singleUser != 0 {
		if s.UserID != r.singleUser || s.ExtUserID == 0 {
			return credit{}, false
		}
		user = s.ExtUserID
	}
	return credit{key{int64(user), s.WorkerID}, 1, s.Status, s.Bits, s.Height, uint8(s.Time % 86400 / 3600), s.Difficulty}, true
}

// dayStats are the statistics of a day's file. The same shares in the same order give the same numbers, however often
// they are read; the order matters for each worker by itself.
type dayStats struct {
	day     sharefile.Day
	rules   rules
	pool    entry
	users   map[int64]*entry
	workers workers
	worths  worths

	found []*worker // of addToWorkers
	where []*totals
}

func newDayStats(day sharefile.Day, rules rules) *dayStats {
	return &dayStats{
		day: day, rules: rules, users: make(map[int64]*entry), workers: newWorkers(),
		worths: worths{earnings: rules.earnings, network: rules.network},
	}
}

func (d *dayStats) user(id int64) *entry {
	e := d.users[id]
	if e == nil {
		e = &entry{key: key{user: id}}
		d.users[id] = e
	}
	return e
}

func (d *dayStats) worker(k key) *worker {
	w := d.workers.get(k)
	if w == nil {
		w = &worker{entry: entry{key: k}}
		d.workers.put(w)
	}
	return w
}

// find returns the day of a key, nil if it did nothing.
func (d *dayStats) find(k key) *entry {
	switch {
	case k == key{}:
		return &d.pool
	case k.worker == 0:
		return d.users[k.user]
	}
	if w := d.workers.get(k); w != nil {
		return &w.entry
	}
	return nil
}

// add counts shares for their worker, their user and the pool, in the hour of their own time.
func (d *dayStats) add(c *credit) {
	w := d.worker(c.key)
	if w.user == nil {
		w.user = d.user(c.user)
	}
	d.addTo(w, c, w.hour(c.hour), w.user.hour(c.hour), d.pool.hour(c.hour))
}

// addToWorkers counts shares for their workers alone; users and the pool get them by merge. It finds all before it adds:
// then it waits for several at a time to come from memory.
func (d *dayStats) addToWorkers(credits []credit) {
	for i := range credits {
		d.found = append(d.found, d.worker(credits[i].key))
	}
	for i, w := range d.found {
		d.where = append(d.where, w.hour(credits[i].hour))
	}
	for i, t := range d.where {
		d.addTo(d.found[i], &credits[i], t)
	}
	d.found, d.where = d.found[:0], d.where[:0]
}

// addTo counts shares of a worker.
//
// What was not accepted counts with a limited difficulty: see share.RejectedDifficulty. Before the worker's first
// accepted share of the day no limit is known and it counts in full; btcpool counts at most 4 then. Of reasons that
// nobody has defined there is one.
func (d *dayStats) addTo(w *worker, c *credit, all ...*totals) {
	if c.shares > 1 && c.status.IsAccepted() && c.status.IsStale() {
		first, others := *c, *c // the first one bounds what the others count with
		first.shares, others.shares = 1, c.shares-1
		d.addAlike(w, &first, all)
		c = &others
	}
	d.addAlike(w, c, all)
}

func (d *dayStats) addAlike(w *worker, c *credit, all []*totals) {
	accepted, stale := c.status.IsAccepted(), c.status.IsStale()
	switch {
	case accepted && (!stale || d.rules.acceptStale):
		work, v := c.work(c.difficulty), d.worths.of(c).times(c.shares)
		for _, t := range all {
			t.accept = t.accept.Add(work)
			t.score.add(&v.score)
			t.earn.add(&v.earn)
		}
	case stale:
		work := c.work(w.clamp(c.difficulty))
		for _, t := range all {
			t.stale = t.stale.Add(work)
		}
	default:
		work, reason := c.work(w.clamp(c.difficulty)), c.status.Known()
		for _, t := range all {
			t.addReject(reason, work)
		}
	}
	if accepted {
		w.accepted, w.last = true, c.difficulty
	}
}

// merge takes workers over that shares were added to alone, and counts them for their users and the pool.
func (d *dayStats) merge(other *dayStats) {
	for w := range other.workers.all {
		w.user = d.user(w.key.user)
		w.user.add(&w.entry)
		d.pool.add(&w.entry)
		d.workers.put(w)
	}
}

// entries calls do for all that did something.
func (d *dayStats) entries(do func(*entry)) {
	do(&d.pool)
	for _, e := range d.users {
		do(e)
	}
	for w := range d.workers.all {
		do(&w.entry)
	}
}

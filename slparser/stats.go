package slparser

import (
	"math/big"

	"btcpool/internal/bitcoin"
	"btcpool/internal/share"
	"btcpool/internal/sharefile"
	"btcpool/internal/store"
)

// scoreOne is the score of a share that is worth a block.
var scoreOne = new(big.Int).Exp(big.NewInt(10), big.NewInt(25), nil)

// totals is the work of somebody in some time, exactly.
type totals struct {
	accept, stale bitcoin.Work
	reject        map[share.Status]bitcoin.Work
	score         big.Int // in units of 10^-25
	earn          big.Int // satoshi, in units of 10^-25
}

func (t *totals) rejected() bitcoin.Work {
	var sum bitcoin.Work
	for _, w := range t.reject {
		sum = sum.Add(w)
	}
	return sum
}

func (t *totals) addReject(status share.Status, w bitcoin.Work) {
	if t.reject == nil {
		t.reject = make(map[share.Status]bitcoin.Work)
	}
	t.reject[status] = t.reject[status].Add(w)
}

func (t *totals) add(u *totals) {
	t.accept = t.accept.Add(u.accept)
	t.stale = t.stale.Add(u.stale)
	for status, w := range u.reject {
		t.addReject(status, w)
	}
	t.score.Add(&t.score, &u.score)
	t.earn.Add(&t.earn, &u.earn)
}

// earnSat is the earned amount in satoshi, rounded to the nearest.
func (t *totals) earnSat() *big.Int {
	half := new(big.Int).Rsh(scoreOne, 1)
	return half.Div(half.Add(half, &t.earn), scoreOne)
}

// row makes the row of a table, which shares no memory with t.
func (t *totals) row(k key, period int) store.Stats {
	st := store.Stats{
		StatsKey: store.StatsKey{UserID: k.user, WorkerID: k.worker, Period: period},
		Accept:   t.accept,
		Stale:    t.stale,
		Reject:   t.rejected(),
		Score:    new(big.Int).Set(&t.score),
		EarnSat:  t.earnSat(),
	}
	if len(t.reject) > 0 {
		st.RejectDetail = make(map[share.Status]bitcoin.Work, len(t.reject))
		for status, w := range t.reject {
			st.RejectDetail[status] = w
		}
	}
	return st
}

// key says whose work it is: a worker's, a user's (worker 0), or the pool's (both 0).
type key struct {
	user   int32
	worker int64
}

// entry is the day of a key.
type entry struct {
	hours   [24]*totals
	changed uint32 // a bit for each hour that differs from the database

	accepted bool               // the worker had a share accepted
	last     bitcoin.Difficulty // and this was its difficulty
}

func (e *entry) hour(h int) *totals {
	if e.hours[h] == nil {
		e.hours[h] = new(totals)
	}
	e.changed |= 1 << h
	return e.hours[h]
}

func (e *entry) day() *totals {
	sum := new(totals)
	for _, t := range e.hours {
		if t != nil {
			sum.add(t)
		}
	}
	return sum
}

// dayStats are the statistics of a day's file. The same shares in the same order give the same numbers, however often
// they are read.
type dayStats struct {
	day     sharefile.Day
	network bitcoin.Network
	entries map[key]*entry
	worth   map[worthKey]worth
}

func newDayStats(day sharefile.Day, network bitcoin.Network) *dayStats {
	return &dayStats{day: day, network: network, entries: make(map[key]*entry), worth: make(map[worthKey]worth)}
}

func (d *dayStats) entry(k key) *entry {
	e := d.entries[k]
	if e == nil {
		e = new(entry)
		d.entries[k] = e
	}
	return e
}

// add counts a valid share for its worker, its user and the pool, in the hour of its own time.
//
// What was not accepted counts with a limited difficulty: see share.RejectedDifficulty. Before the worker's first
// accepted share of the day no limit is known and it counts in full; btcpool counts at most 4 then.
func (d *dayStats) add(s *share.Share) {
	hour := int(s.Time % 86400 / 3600)
	worker := d.entry(key{s.UserID, s.WorkerID})
	for _, e := range []*entry{worker, d.entry(key{s.UserID, 0}), d.entry(key{})} {
		t := e.hour(hour)
		switch {
		case s.Status.IsAccepted() && !s.Status.IsStale():
			v := d.worthOf(s)
			t.accept = t.accept.Add(s.Difficulty.Hashes())
			t.score.Add(&t.score, v.score)
			t.earn.Add(&t.earn, v.earn)
		case s.Status.IsStale():
			t.stale = t.stale.Add(worker.clamp(s.Difficulty).Hashes())
		default:
			t.addReject(s.Status, worker.clamp(s.Difficulty).Hashes())
		}
	}
	if s.Status.IsAccepted() {
		worker.accepted, worker.last = true, s.Difficulty
	}
}

func (e *entry) clamp(d bitcoin.Difficulty) bitcoin.Difficulty {
	if e.accepted {
		return share.RejectedDifficulty(d, e.last)
	}
	return d
}

// worth is what an accepted share is worth, both in units of 10^-25.
type worth struct{ score, earn *big.Int }

type worthKey struct {
	bits, height uint32
	difficulty   bitcoin.Difficulty
}

// maxWorth bounds the cache: real shares of a day have some hundred different combinations.
const maxWorth = 10_000

func (d *dayStats) worthOf(s *share.Share) worth {
	k := worthKey{s.Bits, s.Height, s.Difficulty}
	v, ok := d.worth[k]
	if !ok {
		v.score = score(s.Bits, s.Difficulty)
		v.earn = new(big.Int).Mul(v.score, big.NewInt(d.network.Subsidy(int32(min(s.Height, 1<<31-1)))))
		if len(d.worth) >= maxWorth {
			clear(d.worth)
		}
		d.worth[k] = v
	}
	return v
}

// score is the part of a block that a share is: its difficulty by the network's, at most 1, in units of 10^-25, rounded
// down. It is 0 when bits are no target.
func score(bits uint32, difficulty bitcoin.Difficulty) *big.Int {
	target, err := bitcoin.TargetFromBits(bits)
	if err != nil {
		return new(big.Int)
	}
	// difficulty / (difficulty1 / target), and difficulty1 is 0xffff·2^208.
	var bigEndian [len(target)]byte
	for i, b := range target {
		bigEndian[len(target)-1-i] = b
	}
	n := new(big.Int).SetBytes(bigEndian[:])
	n.Mul(n, scoreOne)
	one := new(big.Int).Lsh(big.NewInt(0xffff), 208)
	if difficulty >= 0 {
		n.Lsh(n, uint(difficulty))
	} else {
		one.Lsh(one, uint(-difficulty))
	}
	if n.Div(n, one); n.Cmp(scoreOne) > 0 {
		return n.Set(scoreOne)
	}
	return n
}

// changes are the rows to write, and what they were made of.
type changes struct {
	days, hours []store.Stats
	taken       map[*entry]uint32

	day      sharefile.Day
	pool     bitcoin.Work // accepted that day
	logBytes int64        // how much of the day's file that is; 0: a part
}

// takeChanges returns the rows that differ from the database, taking it for granted that they will be written.
func (d *dayStats) takeChanges() changes {
	c := changes{taken: make(map[*entry]uint32), day: d.day}
	if pool := d.entries[key{}]; pool != nil {
		c.pool = pool.day().accept
	}
	for k, e := range d.entries {
		if e.changed == 0 {
			continue
		}
		c.taken[e] = e.changed
		for h, t := range e.hours {
			if e.changed&(1<<h) != 0 {
				c.hours = append(c.hours, t.row(k, int(d.day)*100+h))
			}
		}
		c.days = append(c.days, e.day().row(k, int(d.day)))
		e.changed = 0
	}
	return c
}

// giveBack has changes that were not written taken again.
func (c *changes) giveBack() {
	for e, hours := range c.taken {
		e.changed |= hours
	}
}

package statshttpd

import (
	"math"
	"net/netip"
	"slices"
	"time"

	"btcpool/internal/bitcoin"
	"btcpool/internal/share"
	"btcpool/internal/store"
)

// span is a length of time that sums and rates are given for.
type span int64 // seconds

const (
	minute        span = 60
	fiveMinutes   span = 5 * 60
	quarterHour   span = 15 * 60
	hour          span = 60 * 60
	day           span = 24 * 60 * 60
	dayHours           = 23                        // whole hours of a day that the tables have; the rest is in memory
	fineWidth          = 10                        // seconds a bucket of the rings behind spans up to a quarter of an hour
	coarseWidth        = 60                        // seconds a bucket of the rings behind the hour
	coarseBuckets      = int(hour)/coarseWidth + 4 // an hour's minutes stay until they are cut, see minutes.go
	fineBuckets        = int(quarterHour)/fineWidth + 1
	minRateShares      = 4 // below so many a rate says nothing, unless the whole span is covered
)

// amount is what a number of shares is worth.
type amount struct {
	Work   bitcoin.Work
	Shares uint64
}

func (a *amount) add(b amount) {
	a.Work = a.Work.Add(b.Work)
	a.Shares += b.Shares
}

// rate is a hashrate with what is known about its quality.
type rate struct {
	HashesPerSecond float64
	Shares          uint64 // that it was measured with; its relative standard error is 1/sqrt(Shares)
	Known           bool   // false: it is being measured
}

// refusal is what was not accepted of one minute for one reason.
type refusal struct {
	minute int64 // unix time / 60
	work   float64
	shares uint32
	status share.Status
}

// record is a best share: the smaller bits are, as sserver writes those of a hash, the better.
type record store.Record

// beats tells whether r is better than other.
func (r record) beats(other record) bool {
	return r.Bits != 0 && (other.Bits == 0 || r.Bits < other.Bits)
}

// window is the last hour of a worker, a user, a server or the pool, and what is remembered of the time before. The zero
// value is that of one without a share, which takes little memory.
type window struct {
	fine, coarse ring      // accepted
	refused      []refusal // stale ones too, made on use: there are few
	accepted     uint64    // shares since the window exists
	began        int64     // unix time of the login, or of the first accepted share where none is known; 0 before
	opening      amount    // that share: it took a time before began, which is not known; zero after a login
	first        int64     // unix time of the first share ever, as far as known; 0 before
	last         int64     // unix time of the last share of any kind, 0 before
	lastIP       netip.Addr
	best         record  // ever
	round        record  // of the round that its time belongs to
	hours        float64 // accepted hashes of the whole hours before the board's dayEnd, from the tables
}

// begin says that work has begun at unix time t, and not only with the first share.
func (w *window) begin(t int64) {
	if w.began == 0 || t <= w.began {
		w.began, w.opening = t, amount{}
	}
}

// add counts one share of the given worth at unix time t.
func (w *window) add(t int64, status share.Status, work bitcoin.Work, ip netip.Addr) {
	if t >= w.last {
		w.last, w.lastIP = t, ip
	}
	if w.first == 0 || t < w.first {
		w.first = t
	}
	if status.IsStale() || !status.IsAccepted() {
		w.refuse(t, status, work.Float())
		return
	}
	w.accepted++
	if w.fine.size() == 0 {
		w.fine, w.coarse = fineRing(), coarseRing()
	}
	if w.began == 0 || t < w.began {
		w.began, w.opening = t, amount{Work: work, Shares: 1}
	}
	w.fine.add(t, work.Float())
	w.coarse.add(t, work.Float())
}

// refuse counts a share that was not accepted, or late.
func (w *window) refuse(t int64, status share.Status, work float64) {
	minute := t / coarseWidth
	at := len(w.refused) - 1
	for at >= 0 && (w.refused[at].minute != minute || w.refused[at].status != status) {
		at--
	}
	if at >= 0 {
		w.refused[at].work += work
		w.refused[at].shares++
		return
	}
	if len(w.refused) == cap(w.refused) {
		w.refused = slices.DeleteFunc(w.refused, func(r refusal) bool { return r.minute <= minute-int64(coarseBuckets) })
	}
	w.refused = append(w.refused, refusal{minute, work, 1, status})
}

// reach takes in an accepted share whose hash has those bits, in a round that began at unix time round.
func (w *window) reach(t int64, bits uint32, round int64) {
	r := record{Bits: bits, At: t}
	ever, now := r.beats(w.best), t >= round && (w.round.At < round || r.beats(w.round))
	if !ever && !now {
		return // as nearly always
	}
	if _, err := bitcoin.TargetFromBits(bits); err != nil {
		return
	}
	if ever {
		w.best = r
	}
	if now {
		w.round = r
	}
}

// forgetAfter takes back what was counted behind unix time t: the clock was ahead.
func (w *window) forgetAfter(t int64) {
	w.first, w.last = min(w.first, t), min(w.last, t)
	w.best.At, w.round.At = min(w.best.At, t), min(w.round.At, t)
	if w.began > t {
		w.began, w.opening = 0, amount{}
	}
	w.fine.forgetAfter(t)
	w.coarse.forgetAfter(t)
	w.refused = slices.DeleteFunc(w.refused, func(r refusal) bool { return r.minute > t/coarseWidth })
}

// release gives back the memory of shares, all of which are too old.
func (w *window) release() { w.fine, w.coarse, w.refused = ring{}, ring{}, nil }

// source returns the ring that answers for s.
func (w *window) source(s span) *ring {
	if s > quarterHour {
		return &w.coarse
	}
	return &w.fine
}

// acceptedSum is the accepted work of the last s seconds, the running bucket included: what btcpool's columns and answers
// hold. Up to a quarter of an hour it is without the number of shares.
func (w *window) acceptedSum(now int64, s span) amount {
	r := w.source(s)
	return r.sum(now, int(int64(s)/max(r.width, 1)))
}

// rate is the accepted work of s seconds and the running bucket over exactly the time they cover. Where the login is not
// that old, it is all work over the time since then; where only the first share is known, the work after that share.
func (w *window) rate(now int64, s span) rate {
	r := w.source(s)
	if w.began == 0 || r.size() == 0 {
		return rate{}
	}
	work := r.sum(now, int(int64(s)/r.width)+1).Work.Float()
	shares := w.shares(now, s, work)
	covered := int64(s) + now%r.width
	if since := now - w.began; since < covered {
		work, shares := max(work-w.opening.Work.Float(), 0), max(shares, w.opening.Shares)-w.opening.Shares
		return rate{HashesPerSecond: work / float64(max(since, 1)), Shares: shares, Known: shares >= minRateShares}
	}
	return rate{HashesPerSecond: work / float64(covered), Shares: shares, Known: true}
}

// shares is how many shares gave the accepted work of s seconds: those of the minutes that hold these, by the part of
// their work. It says how good a rate is.
func (w *window) shares(now int64, s span, work float64) uint64 {
	around := w.coarse.sum(now, int(s)/coarseWidth+1)
	if s > quarterHour || around.Shares == 0 {
		return around.Shares
	}
	return uint64(math.Round(work / around.Work.Float() * float64(around.Shares)))
}

// dayRate is the accepted work of a day, of the whole hours before dayEnd from the tables and what came since, over the
// time they cover or, where that is shorter, the time since the first share.
func (w *window) dayRate(now, dayEnd int64) rate {
	if dayEnd == 0 || now-dayEnd >= int64(coarseBuckets-1)*coarseWidth || w.first == 0 {
		return rate{}
	}
	var since float64
	if w.coarse.size() > 0 {
		since = w.coarse.since(now, dayEnd)
	}
	covered := max(now-max(dayEnd-dayHours*int64(hour), w.first), 1)
	return rate{HashesPerSecond: (w.hours + since) / float64(covered), Known: covered >= int64(hour)}
}

// staleSum is the amount that came too late in the last s seconds.
func (w *window) staleSum(now int64, s span) (total amount) {
	for _, r := range w.refused {
		if r.status.IsStale() && r.within(now, s) {
			total.add(r.amount())
		}
	}
	return total
}

// difficulty is that of the hash, 0 when there is none.
func (r record) difficulty() float64 {
	target, err := bitcoin.TargetFromBits(r.Bits)
	if err != nil {
		return 0
	}
	return target.Difficulty()
}

// rejectRatio is the part of all shares of the last hour that was stale or rejected, by number.
func (w *window) rejectRatio(now int64) float64 {
	if len(w.refused) == 0 {
		return 0
	}
	shares, refused := w.judged(now, hour)
	return float64(refused) / float64(max(shares, 1))
}

// judged are the shares of the minutes of s, the running one included, and those of them that were stale or rejected.
func (w *window) judged(now int64, s span) (shares, refused uint64) {
	for _, r := range w.refused {
		if r.within(now, s) {
			refused += uint64(r.shares)
		}
	}
	return refused + w.coarse.sum(now, int(s)/coarseWidth).Shares, refused
}

// within tells whether r is of the minute that runs at unix time now, or of those before it that s spans.
func (r *refusal) within(now int64, s span) bool {
	current := now / coarseWidth
	return r.minute <= current && r.minute > current-int64(s)/coarseWidth
}

func (r *refusal) amount() amount { return amount{workOf(r.work), uint64(r.shares)} }

// rejectedSum is the amount refused for other reasons in the last s seconds, in all and by reason (nil when none).
func (w *window) rejectedSum(now int64, s span) (total amount, reasons map[share.Status]amount) {
	for _, r := range w.refused {
		if r.status.IsStale() || !r.within(now, s) {
			continue
		}
		if reasons == nil {
			reasons = make(map[share.Status]amount)
		}
		of := reasons[r.status]
		of.add(r.amount())
		reasons[r.status] = of
		total.add(r.amount())
	}
	return total, reasons
}

// silent says whether the last share is out of every sum.
func (w *window) silent(now time.Time) bool {
	return w.last < now.Unix()-int64(hour)-coarseWidth
}

// over says whether the last share fell out of every ring, and so has been cut.
func (w *window) over(now time.Time) bool {
	return w.last < now.Unix()-int64(coarseBuckets)*coarseWidth
}

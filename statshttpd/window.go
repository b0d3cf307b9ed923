package statshttpd

import (
	"net/netip"
	"time"

	"btcpool/internal/bitcoin"
	"btcpool/internal/share"
)

// span is a length of time that sums and rates are given for.
type span int64 // seconds

const (
	minute        span = 60
	fiveMinutes   span = 5 * 60
	quarterHour   span = 15 * 60
	hour          span = 60 * 60
	fineWidth          = 10 // seconds a bucket of the rings behind spans up to a quarter of an hour
	coarseWidth        = 60 // seconds a bucket of the rings behind the hour
	coarseBuckets      = int(hour)/coarseWidth + 1
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

// ring holds amounts by time, in buckets of a fixed width. Sums are exact: buckets are integers and leave as a whole.
type ring struct {
	width   int64 // seconds
	newest  int64 // number of the newest bucket: unix time / width
	buckets []amount
}

func newRing(width int64, buckets int) ring {
	return ring{width: width, buckets: make([]amount, buckets)}
}

func fineRing() ring   { return newRing(fineWidth, fineBuckets) }
func coarseRing() ring { return newRing(coarseWidth, coarseBuckets) }

// add puts a at unix time t. What is older than the ring reaches is dropped.
func (r *ring) add(t int64, a amount) {
	size := int64(len(r.buckets))
	n := t / r.width
	for i := max(r.newest+1, n-size+1); i <= n; i++ {
		r.buckets[i%size] = amount{}
	}
	r.newest = max(r.newest, n)
	if n > r.newest-size {
		r.buckets[n%size].add(a)
	}
}

// forgetAfter takes back what was put behind unix time t: the clock was ahead.
func (r *ring) forgetAfter(t int64) {
	if len(r.buckets) == 0 {
		return
	}
	size, n := int64(len(r.buckets)), t/r.width
	for i := max(n, r.newest-size) + 1; i <= r.newest; i++ {
		r.buckets[i%size] = amount{}
	}
	r.newest = min(r.newest, n)
}

// sum adds up the bucket that runs at unix time now and the n-1 before it.
func (r *ring) sum(now int64, n int) amount {
	var total amount
	size := int64(len(r.buckets))
	if size == 0 {
		return total
	}
	current := now / r.width
	first, last := max(current-int64(n), r.newest-size, -1)+1, min(current, r.newest)
	for i, at := first, first%size; i <= last; i++ {
		total.add(r.buckets[at])
		if at++; at == size {
			at = 0
		}
	}
	return total
}

// since estimates the work from unix time t on; the bucket that t falls into counts by its part after t. Work older
// than the ring reaches is missing from it.
func (r *ring) since(now, t int64) float64 {
	current, from := now/r.width, t/r.width
	whole := current - from // buckets after the one that t falls into
	switch {
	case whole < 0:
		return 0
	case whole >= int64(len(r.buckets)):
		return r.sum(now, len(r.buckets)).Work.Float()
	}
	part := float64((from+1)*r.width-t) / float64(r.width)
	return part*r.at(from).Work.Float() + r.sum(now, int(whole)).Work.Float()
}

// at returns the bucket of number n, zero when the ring does not hold it.
func (r *ring) at(n int64) amount {
	if n < 0 || n > r.newest || n <= r.newest-int64(len(r.buckets)) {
		return amount{}
	}
	return r.buckets[n%int64(len(r.buckets))]
}

// rate is a hashrate with what is known about its quality.
type rate struct {
	HashesPerSecond float64
	Shares          uint64 // that it was measured with; its relative standard error is 1/sqrt(Shares)
	Known           bool   // false: it is being measured
}

// window is the last hour of a worker, a user or the pool. The zero value is that of one without a share, which takes
// little memory.
type window struct {
	fine, coarse ring // accepted
	stale        *ring
	rejected     map[share.Status]*ring
	accepted     uint64 // shares since the window exists
	began        int64  // unix time of the login, or of the first accepted share where none is known; 0 before
	opening      amount // that share: it took a time before began, which is not known; zero after a login
	last         int64  // unix time of the last share of any kind, 0 before
	lastIP       netip.Addr
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
	one := amount{Work: work, Shares: 1}
	switch {
	case status.IsStale():
		if w.stale == nil {
			w.stale = new(coarseRing())
		}
		w.stale.add(t, one)
	case status.IsAccepted():
		w.accepted++
		if w.fine.buckets == nil {
			w.fine, w.coarse = fineRing(), coarseRing()
		}
		if w.began == 0 || t < w.began {
			w.began, w.opening = t, one
		}
		w.fine.add(t, one)
		w.coarse.add(t, one)
	default:
		if w.rejected == nil {
			w.rejected = make(map[share.Status]*ring)
		}
		r := w.rejected[status]
		if r == nil {
			r = new(coarseRing())
			w.rejected[status] = r
		}
		r.add(t, one)
	}
}

// forgetAfter takes back what was counted behind unix time t: the clock was ahead.
func (w *window) forgetAfter(t int64) {
	w.last = min(w.last, t)
	if w.began > t {
		w.began, w.opening = 0, amount{}
	}
	w.fine.forgetAfter(t)
	w.coarse.forgetAfter(t)
	if w.stale != nil {
		w.stale.forgetAfter(t)
	}
	for _, r := range w.rejected {
		r.forgetAfter(t)
	}
}

// source returns the ring that answers for s.
func (w *window) source(s span) *ring {
	if s > quarterHour {
		return &w.coarse
	}
	return &w.fine
}

// acceptedSum is the accepted amount of the last s seconds, the running bucket included: what btcpool's columns and
// answers hold.
func (w *window) acceptedSum(now int64, s span) amount {
	r := w.source(s)
	return r.sum(now, int(int64(s)/max(r.width, 1)))
}

// rate is the accepted work of s seconds and the running bucket over exactly the time they cover. Where the login is not
// that old, it is all work over the time since then; where only the first share is known, the work after that share.
func (w *window) rate(now int64, s span) rate {
	r := w.source(s)
	if w.began == 0 || r.buckets == nil {
		return rate{}
	}
	a := r.sum(now, int(int64(s)/r.width)+1)
	covered := int64(s) + now%r.width
	if since := now - w.began; since < covered {
		work, shares := max(a.Work.Float()-w.opening.Work.Float(), 0), max(a.Shares, w.opening.Shares)-w.opening.Shares
		return rate{HashesPerSecond: work / float64(max(since, 1)), Shares: shares, Known: shares >= minRateShares}
	}
	return rate{HashesPerSecond: a.Work.Float() / float64(covered), Shares: a.Shares, Known: true}
}

// staleSum is the amount that came too late in the last s seconds.
func (w *window) staleSum(now int64, s span) amount {
	if w.stale == nil {
		return amount{}
	}
	return w.stale.sum(now, int(s)/coarseWidth)
}

// rejectedSum is the amount refused for other reasons in the last s seconds, in all and by reason (nil when none).
func (w *window) rejectedSum(now int64, s span) (amount, map[share.Status]amount) {
	var total amount
	var reasons map[share.Status]amount
	for status, r := range w.rejected {
		a := r.sum(now, int(s)/coarseWidth)
		if a.Shares == 0 {
			continue
		}
		if reasons == nil {
			reasons = make(map[share.Status]amount, len(w.rejected))
		}
		reasons[status] = a
		total.add(a)
	}
	return total, reasons
}

// silent says whether the last share fell out of every ring.
func (w *window) silent(now time.Time) bool {
	return w.last < now.Unix()-int64(hour)-coarseWidth
}

package statshttpd

import (
	"math"
	"math/bits"

	"btcpool/internal/bitcoin"
)

// ring holds amounts by time, in buckets of a fixed width. Shares of one miner are worth the same, or powers of two
// more, so that a bucket's work is a small number of a unit; only where that does not fit are the buckets wide. Sums
// are floats, exact while the work in the ring is less than 2^53 times its easiest share's, and buckets leave as a
// whole. The zero value has no buckets, and takes no share.
type ring struct {
	width   int64 // seconds
	newest  int64 // number of the newest bucket: unix time / width
	buckets int32
	counts  bool     // the number of shares, too
	unit    float64  // hashes that a work in narrow is counted in; 0: none was
	narrow  []uint16 // work by bucket, and behind that the shares where these are counted; nil: wide instead
	wide    *wideBuckets
}

type wideBuckets struct {
	work   []float64 // hashes
	shares []uint32  // nil: are not counted
}

func newRing(width int64, buckets int) ring {
	return ring{width: width, buckets: int32(buckets), counts: true, narrow: make([]uint16, 2*buckets)}
}

func coarseRing() ring { return newRing(coarseWidth, coarseBuckets) }

// fineRing does without the number of shares, see window.shares.
func fineRing() ring {
	return ring{width: fineWidth, buckets: int32(fineBuckets), narrow: make([]uint16, fineBuckets)}
}

// recentRing is for an hour in fine buckets.
func recentRing() ring { return newRing(fineWidth, int(hour)/fineWidth+1) }

func (r *ring) size() int64 { return int64(r.buckets) }

// add puts a share of that work at unix time t. What is older than the ring reaches is dropped.
func (r *ring) add(t int64, work float64) {
	size := r.size()
	n := t / r.width
	for i := max(r.newest+1, n-size+1); i <= n; i++ {
		r.clear(i % size)
	}
	r.newest = max(r.newest, n)
	if n <= r.newest-size {
		return
	}
	at := n % size
	if r.wide == nil && (r.addNarrow(at, work) || r.coarsen() && r.addNarrow(at, work)) {
		return
	}
	r.widen()
	r.wide.work[at] += work
	if r.counts {
		r.wide.shares[at]++
	}
}

// addNarrow counts a share in units. It returns false, and has done nothing, where these do not fit.
func (r *ring) addNarrow(at int64, work float64) bool {
	if r.unit == 0 {
		r.unit = work
	}
	if work < r.unit && !r.refine(work) {
		return false
	}
	units := work / r.unit
	sum := float64(r.narrow[at]) + units
	if units != math.Trunc(units) || sum > math.MaxUint16 {
		return false
	}
	if r.counts {
		shares := &r.narrow[r.size()+at]
		if *shares == math.MaxUint16 {
			return false
		}
		*shares++
	}
	r.narrow[at] = uint16(sum)
	return true
}

// refine makes a smaller work the unit.
func (r *ring) refine(work float64) bool {
	by := r.unit / work
	if by != math.Trunc(by) {
		return false
	}
	works := r.narrow[:r.size()]
	for _, n := range works {
		if float64(n)*by > math.MaxUint16 {
			return false
		}
	}
	for i, n := range works {
		works[i] = uint16(float64(n) * by)
	}
	r.unit = work
	return true
}

// coarsen makes the unit as large as works allow: easy shares may have left the ring. It returns false when that
// changes nothing.
func (r *ring) coarsen() bool {
	works := r.narrow[:r.size()]
	var all uint16
	for _, n := range works {
		all |= n
	}
	if all == 0 {
		r.unit = 0
		return true
	}
	by := bits.TrailingZeros16(all)
	for i := range works {
		works[i] >>= by
	}
	r.unit = math.Ldexp(r.unit, by)
	return by > 0
}

// widen has buckets hold any amounts.
func (r *ring) widen() {
	if r.wide != nil {
		return
	}
	r.wide = &wideBuckets{work: make([]float64, r.buckets)}
	if r.counts {
		r.wide.shares = make([]uint32, r.buckets)
	}
	for i := range r.wide.work {
		r.wide.work[i] = float64(r.narrow[i]) * r.unit
		if r.counts {
			r.wide.shares[i] = uint32(r.narrow[int(r.buckets)+i])
		}
	}
	r.narrow = nil
}

func (r *ring) clear(at int64) {
	if r.wide != nil {
		if r.wide.work[at] = 0; r.counts {
			r.wide.shares[at] = 0
		}
		return
	}
	if r.narrow[at] = 0; r.counts {
		r.narrow[r.size()+at] = 0
	}
}

// forgetAfter takes back what was put behind unix time t: the clock was ahead.
func (r *ring) forgetAfter(t int64) {
	size := r.size()
	if size == 0 {
		return
	}
	n := t / r.width
	for i := max(n, r.newest-size) + 1; i <= r.newest; i++ {
		r.clear(i % size)
	}
	r.newest = min(r.newest, n)
}

// sum adds up the bucket that runs at unix time now and the n-1 before it.
func (r *ring) sum(now int64, n int) amount {
	size := r.size()
	if size == 0 {
		return amount{}
	}
	current := now / r.width
	first, last := max(current-int64(n), r.newest-size, -1)+1, min(current, r.newest)
	var units, shares uint64
	var work float64
	for i, at := first, first%size; i <= last; i++ {
		if r.wide == nil {
			units += uint64(r.narrow[at])
			if r.counts {
				shares += uint64(r.narrow[size+at])
			}
		} else {
			work += r.wide.work[at]
			if r.counts {
				shares += uint64(r.wide.shares[at])
			}
		}
		if at++; at == size {
			at = 0
		}
	}
	return amount{workOf(work + float64(units)*r.unit), shares}
}

// at returns the bucket of number n, zero when the ring does not hold it.
func (r *ring) at(n int64) amount {
	return r.sum(n*r.width, 1)
}

// workOf is that many hashes, at most 2^128-1.
func workOf(hashes float64) bitcoin.Work {
	const word = 1 << 64
	if hashes >= word*word {
		return bitcoin.Work{Hi: math.MaxUint64, Lo: math.MaxUint64}
	}
	hi := math.Floor(hashes / word)
	return bitcoin.Work{Hi: uint64(hi), Lo: uint64(hashes - hi*word)}
}

// since estimates the work from unix time t on; the bucket that t falls into counts by its part after t. Work older
// than the ring reaches is missing from it.
func (r *ring) since(now, t int64) float64 {
	current, from := now/r.width, t/r.width
	whole := current - from // buckets after the one that t falls into
	switch {
	case whole < 0:
		return 0
	case whole >= r.size():
		return r.sum(now, int(r.size())).Work.Float()
	}
	part := float64((from+1)*r.width-t) / float64(r.width)
	return part*r.at(from).Work.Float() + r.sum(now, int(whole)).Work.Float()
}

package miner

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// Each power of two of nanoseconds has 2^subBits buckets, so a value read back is at most 1/2^subBits (1.6 %) too high.
const subBits = 6

// histogram counts durations in constant memory; all its methods may be called at the same time.
type histogram struct {
	counts [(64 - subBits + 1) << subBits]atomic.Uint64
	max    atomic.Int64
}

// Percentiles of a set of durations, in milliseconds.
type Percentiles struct {
	Count uint64  `json:"count"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P99   float64 `json:"p99"`
	Max   float64 `json:"max"`
}

func (h *histogram) add(d time.Duration) {
	d = max(d, 0)
	h.counts[bucket(uint64(d))].Add(1)
	for {
		old := h.max.Load()
		if int64(d) <= old || h.max.CompareAndSwap(old, int64(d)) {
			return
		}
	}
}

// bucket returns the index of a value: values below 2^subBits have their own, above, the exponent and the subBits bits
// after the leading one choose.
func bucket(v uint64) int {
	exp := max(0, bits.Len64(v)-1-subBits)
	return exp<<subBits + int(v>>exp)
}

// top returns the highest value of a bucket.
func top(index int) uint64 {
	exp := max(0, index>>subBits-1)
	return (uint64(index-exp<<subBits)+1)<<exp - 1
}

func (h *histogram) percentiles() Percentiles {
	counts := make([]uint64, len(h.counts))
	var p Percentiles
	for i := range h.counts {
		counts[i] = h.counts[i].Load()
		p.Count += counts[i]
	}
	longest := h.max.Load()
	p.Max = milliseconds(longest)
	// at returns the smallest bucket's top that at least n of the values do not exceed.
	at := func(n uint64) float64 {
		var seen uint64
		for i, c := range counts {
			if seen += c; c > 0 && seen >= n {
				return milliseconds(min(int64(top(i)), longest))
			}
		}
		return p.Max
	}
	if p.Count > 0 {
		p.P50, p.P90, p.P99 = at((p.Count*50+99)/100), at((p.Count*90+99)/100), at((p.Count*99+99)/100)
	}
	return p
}

func milliseconds(ns int64) float64 {
	return float64(time.Duration(ns).Microseconds()) / 1000
}

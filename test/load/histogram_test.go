//go:build integration

package load

import (
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// histogram counts times with an error below 1/64, in buckets whose width doubles each 64.
type histogram struct {
	buckets [64 * 40]int
	n       int
	longest int64
}

func (h *histogram) add(ns int64) {
	v := max(ns, 0)
	shift := max(bits.Len64(uint64(v))-7, 0)
	h.buckets[min(shift*64+int(v>>shift), len(h.buckets)-1)]++
	h.n++
	h.longest = max(h.longest, v)
}

// at returns the time below which that part of all is.
func (h *histogram) at(part float64) time.Duration {
	rest := int(part * float64(h.n))
	for i, n := range h.buckets {
		if rest -= n; rest < 0 {
			if i < 128 {
				return time.Duration(i)
			}
			shift := i/64 - 1
			return time.Duration((int64(i-shift*64) + 1) << shift)
		}
	}
	return time.Duration(h.longest)
}

func TestHistogram(t *testing.T) {
	t.Parallel()
	var h histogram
	times := make([]int64, 10_000)
	for i := range times {
		times[i] = int64(math.Exp(rand.Float64() * math.Log(float64(time.Minute))))
		h.add(times[i])
	}
	slices.Sort(times)
	for _, part := range []float64{0, .5, .9, .99, .9999} {
		got, want := float64(h.at(part)), float64(times[int(part*float64(len(times)))])
		if math.Abs(got-want) > want/64+1 {
			t.Errorf("at %v: %v, sorted %v", part, time.Duration(got), time.Duration(want))
		}
	}
	if got := h.at(1); int64(got) != times[len(times)-1] {
		t.Errorf("at 1: %v, longest %v", got, time.Duration(times[len(times)-1]))
	}
}

package slparser

import (
	"math/bits"
	"math/rand/v2"
)

// workers finds workers by their keys, once for each share, in about a third of the time that a map of Go's takes:
// BenchmarkWorkers.
//
// Miners choose names, and by them keys: where those are found is not theirs to know, so that they cannot all choose
// one place.
type workers struct {
	places []place // a power of two of them, at most half of them taken
	shift  int     // of a key's hash, whose highest bits say where to begin
	count  int
	odd    key // random odd numbers
}

type place struct {
	key
	worker *worker // nil: free
}

const leastPlaces = 64

func newWorkers() workers {
	t := workers{odd: key{int64(rand.Uint64() | 1), int64(rand.Uint64() | 1)}} //nolint:gosec // spreads a hash table; who chose workers to meet would have to see it
	t.resize(leastPlaces)
	return t
}

func (t *workers) resize(places int) {
	old := t.places
	t.places, t.shift = make([]place, places), 64-bits.Len(uint(places-1))
	for _, s := range old {
		if s.worker != nil {
			*t.place(s.key) = s
		}
	}
}

// place returns where a key is, or where to put it.
func (t *workers) place(k key) *place {
	last := len(t.places) - 1
	for i := int(uint64(k.worker*t.odd.worker+k.user*t.odd.user) >> t.shift); ; i++ {
		if s := &t.places[i&last]; s.worker == nil || s.key == k {
			return s
		}
	}
}

// get returns nil for a key that is not there.
func (t *workers) get(k key) *worker { return t.place(k).worker }

// put adds a worker that is not there yet.
func (t *workers) put(w *worker) {
	if t.count++; t.count > len(t.places)/2 {
		t.resize(2 * len(t.places))
	}
	*t.place(w.key) = place{w.key, w}
}

// all yields every worker.
func (t *workers) all(yield func(*worker) bool) {
	for _, s := range t.places {
		if s.worker != nil && !yield(s.worker) {
			return
		}
	}
}

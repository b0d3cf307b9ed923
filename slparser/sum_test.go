package slparser

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

// TestSumTimes adds as often as times says, with carries into all words.
func TestSumTimes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.OneOf(rapid.Uint64(), rapid.Just[uint64](math.MaxUint64))
		s := sum{word.Draw(t, "s[0]"), word.Draw(t, "s[1]"), rapid.Uint64Max(1<<48).Draw(t, "s[2]")}
		n := rapid.Uint64Range(0, 300).Draw(t, "n")
		var want sum
		for range n {
			want.add(&s)
		}
		if got := s.times(n); got != want {
			t.Errorf("%v times %d is %v, want %v", s, n, got, want)
		}
	})
}

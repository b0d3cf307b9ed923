package miner_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"btcpool/internal/miner"
)

func TestHistogram(t *testing.T) {
	t.Parallel()
	var h miner.Histogram
	for ms := range int64(1000) {
		h.Add((ms + 1) * 1e6)
	}
	got := h.Percentiles()
	near := cmp.Comparer(func(a, b float64) bool { return a >= b/1.02 && a <= b*1.02 })
	want := miner.Percentiles{Count: 1000, P50: 500, P90: 900, P99: 990, Max: 1000}
	if diff := cmp.Diff(want, got, near); diff != "" {
		t.Error(diff)
	}
	var extremes miner.Histogram
	for _, ns := range []int64{-1, 0, 1, 63, 64, 127, 128, 1<<62 + 1, 1<<63 - 1} {
		extremes.Add(ns)
	}
	if got := extremes.Percentiles(); got.Count != 9 || got.P99 != got.Max {
		t.Errorf("%+v", got)
	}
	if got, want := new(miner.Histogram).Percentiles(), (miner.Percentiles{}); got != want {
		t.Errorf("empty: %+v", got)
	}
}

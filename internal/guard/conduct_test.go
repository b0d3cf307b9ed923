package guard

import (
	"testing"
	"time"

	"btcpool/internal/share"
)

func TestConduct(t *testing.T) {
	t.Parallel()
	limits := Limits{InvalidShares: 0.5, InvalidAmong: 4}
	const ok, low, late = share.StatusAccept, share.StatusLowDifficulty, share.StatusStale
	for _, test := range []struct {
		name   string
		shares []share.Status
		want   bool // of the last
	}{
		{"three of four", []share.Status{low, ok, low, low}, true},
		{"half", []share.Status{low, ok, low, ok}, false},
		{"late", []share.Status{late, late, late, share.StatusJobNotFound}, false},
		{"too few", []share.Status{low, low, low}, false},
		{"each four by themselves", []share.Status{low, low, ok, ok, low, low, ok, ok}, false},
		{"the second four", []share.Status{ok, ok, ok, ok, share.StatusDuplicate, low, ok, share.StatusTimeTooNew}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var c, unlimited Conduct
			for i, status := range test.shares {
				got := c.Judged(status, limits)
				if want := test.want && i == len(test.shares)-1; got != want || unlimited.Judged(status, Limits{}) {
					t.Errorf("share %d: %v", i, got)
				}
			}
		})
	}
}

func TestPace(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	var p Pace
	const rate = 100
	for i, step := range []struct {
		after time.Duration
		lines int
		want  time.Duration
	}{
		{0, 1000, 0}, // the burst
		{0, 50, 500 * time.Millisecond},
		{500 * time.Millisecond, 10, 100 * time.Millisecond},
		{0, 100_000, time.Second},
		{time.Second, 1, 10 * time.Millisecond},
		{time.Hour, 1000, 0},
	} {
		now = now.Add(step.after)
		if got := p.Spent(step.lines, rate, now); (got - step.want).Abs() > time.Microsecond {
			t.Errorf("step %d: pause of %s, want %s", i, got, step.want)
		}
	}
}

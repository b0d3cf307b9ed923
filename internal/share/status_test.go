package share_test

import (
	"testing"

	"btcpool/internal/share"
)

func TestStatusGroups(t *testing.T) {
	t.Parallel()
	for status, want := range map[share.Status]struct{ accepted, stale bool }{
		share.StatusAccept:             {true, false},
		share.StatusSolved:             {true, false},
		share.StatusAcceptStale:        {true, true},
		share.StatusSolvedStale:        {true, true},
		share.StatusJobNotFoundOrStale: {false, true},
		share.StatusStale:              {false, true},
		share.StatusJobNotFound:        {false, false},
		share.StatusLowDifficulty:      {false, false},
		share.StatusRejectNoReason:     {false, false},
		share.StatusUnknown:            {false, false},
	} {
		if status.IsAccepted() != want.accepted || status.IsStale() != want.stale {
			t.Errorf("%d: accepted %t, stale %t; want %+v", status, status.IsAccepted(), status.IsStale(), want)
		}
	}
}

func TestStatusText(t *testing.T) {
	t.Parallel()
	for status, want := range map[share.Status]string{
		1798084231: "Share accepted",
		21:         "Job not found (=stale)",
		22:         "Duplicate share",
		23:         "Low difficulty",
		37:         "Stale share",
		12345:      "Unknown",
	} {
		if got := status.Text(); got != want {
			t.Errorf("%d: %q, want %q", status, got, want)
		}
	}
}

func TestWorkerID(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]int64{
		"hello": 0x503d8319a48348cd, // the double SHA-256 of "hello" ends, as computed, in cd4883a419833d50
		"":      0x56944c5d3f98413e, // that of nothing in 3e41983f5d4c9456
	} {
		if got := share.WorkerID(name); got != want {
			t.Errorf("WorkerID(%q) = %#x, want %#x", name, got, want)
		}
	}
}

package sserver

import (
	"time"

	"btcpool/internal/share"
)

// tally is what became of shares.
type tally struct {
	Accepted, Rejected uint32
	Last               int64 // when one was accepted, unix seconds; 0: never
}

func (t *tally) add(status share.Status, now time.Time) {
	if !status.IsAccepted() {
		t.Rejected++
		return
	}
	t.Accepted++
	t.Last = now.Unix()
}

// rejectRate recognizes a miner of whose rejected shares there are too many to be worth logging: maxRejects within
// rejectWindow.
type rejectRate struct {
	At   []int64 // unix seconds of the last maxRejects, a ring
	Next int
}

const (
	maxRejects   = 20
	rejectWindow = 60 // seconds
)

// add counts a reject and reports whether it is one too many.
func (r *rejectRate) add(now time.Time) bool {
	if r.At == nil {
		r.At = make([]int64, maxRejects)
	}
	r.At[r.Next] = now.Unix()
	r.Next = (r.Next + 1) % maxRejects
	since := now.Unix() - r.At[r.Next]
	return since >= 0 && since < rejectWindow // below 0: the clock was set back, and nothing is known
}

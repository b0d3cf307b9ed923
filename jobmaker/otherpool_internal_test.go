package jobmaker

import "testing"

// What poolwatcher makes of other pools' words is followed for a short time and gives way to anything that our own
// nodes say.
func TestScheduleOtherPool(t *testing.T) {
	t.Parallel()
	const full, empty = 10, 0
	const ours, theirs = false, true
	type step struct {
		now          float64
		height       int32 // 0: no template
		transactions int
		on           byte
		fromPool     bool
		want         result
		job          reason // "": none
		jobHeight    int32
		jobOn        byte
	}
	first := step{0, 100, full, 'a', ours, accepted, newHeight, 100, 'a'}
	next := step{5, 101, empty, 'b', theirs, accepted, newHeight, 101, 'b'}
	for name, steps := range map[string][]step{
		"our own full template replaces it": {
			first, next,
			{now: 6, height: 101, transactions: full, on: 'b', want: accepted, job: nowFull, jobHeight: 101, jobOn: 'b'},
		},
		"our own template on another block wins": {
			first, next,
			{now: 6, height: 101, transactions: empty, on: 'c', want: accepted, job: newBranch, jobHeight: 101, jobOn: 'c'},
			{now: 7, height: 101, on: 'd', fromPool: theirs, want: otherPool},
		},
		"our own one of an earlier second wins": {
			first,
			{now: 5, height: 101, on: 'b', fromPool: theirs, want: accepted, job: newHeight, jobHeight: 101, jobOn: 'b'},
			{now: 4, height: 101, transactions: full, on: 'c', want: accepted, job: newBranch, jobHeight: 101, jobOn: 'c'},
		},
		"its block is not one that was left": {
			first, next,
			{now: 6, height: 101, transactions: full, on: 'c', want: accepted, job: newBranch, jobHeight: 101, jobOn: 'c'},
			{now: 7, height: 101, transactions: full, on: 'b', want: accepted, job: newBranch, jobHeight: 101, jobOn: 'b'},
		},
		"miners are sent back when no node confirms it": {
			first, next,
			{now: 10, height: 100, transactions: full, on: 'a', want: accepted},
			{now: 19.9},
			{now: 20, job: refuted, jobHeight: 100, jobOn: 'a'},
			{now: 21, height: 101, on: 'd', fromPool: theirs, want: otherPool}, // once a height
			{now: 40, job: routine, jobHeight: 100, jobOn: 'a'},
			{now: 41, height: 101, transactions: full, on: 'b', want: accepted, job: newHeight, jobHeight: 101, jobOn: 'b'},
			{now: 42, height: 102, on: 'e', fromPool: theirs, want: accepted, job: newHeight, jobHeight: 102, jobOn: 'e'},
		},
		"no ladder of them": {
			first, next,
			{now: 6, height: 102, on: 'd', fromPool: theirs, want: otherPool},
		},
		"not without a template of our own":   {{now: 0, height: 101, on: 'b', fromPool: theirs, want: otherPool}},
		"not of our height":                   {first, {now: 1, height: 100, on: 'b', fromPool: theirs, want: otherPool}},
		"not of a height after the next":      {first, {now: 1, height: 102, on: 'b', fromPool: theirs, want: otherPool}},
		"not with transactions that are ours": {first, {now: 1, height: 101, transactions: full, on: 'b', fromPool: theirs, want: otherPool}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSchedule()
			for i, step := range steps {
				now := at(step.now)
				if step.height != 0 {
					c := newCandidate(step.height, step.transactions, now)
					c.PrevHash[0], c.fromPool, c.hash = step.on, step.fromPool, c.hash+string(step.on)
					if got := s.offer(c, now); got != step.want {
						t.Fatalf("step %d: template is %s, want %s", i, got, step.want)
					}
				}
				c, why := s.next(now)
				if why != step.job {
					t.Fatalf("step %d: job for reason %q, want %q", i, why, step.job)
				}
				if why == "" {
					continue
				}
				if c.Height != step.jobHeight || c.PrevHash[0] != step.jobOn {
					t.Fatalf("step %d: job of height %d on %q, want %d on %q", i, c.Height, c.PrevHash[0], step.jobHeight, step.jobOn)
				}
				s.sent(c, now)
			}
		})
	}
}

// At a retarget nobody knows the bits but a node.
func TestScheduleOtherPoolBits(t *testing.T) {
	t.Parallel()
	s := newSchedule()
	s.offer(newCandidate(100, 1, at(0)), at(0))
	c := newCandidate(101, 0, at(1))
	c.Bits, c.fromPool = 0x1d00ffff, true
	if got := s.offer(c, at(1)); got != otherPool {
		t.Errorf("template is %s", got)
	}
}

package jobmaker

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"btcpool/internal/bitcoin"
	"btcpool/internal/job"
)

var epoch = time.Unix(1_700_000_000, 0)

func at(second float64) time.Time { return epoch.Add(time.Duration(second * float64(time.Second))) }

func newSchedule() *schedule {
	network, err := bitcoin.NetworkByName("mainnet")
	if err != nil {
		panic(err)
	}
	return &schedule{interval: 20 * time.Second, life: 90 * time.Second, emptyLife: 15 * time.Second, maxSkew: 60 * time.Second, network: network}
}

func newCandidate(height int32, transactions int, created time.Time) candidate {
	return candidate{
		Template: &job.Template{Height: height, Transactions: transactions},
		hash:     fmt.Sprint(height, transactions, created.Unix()),
		created:  created,
	}
}

// offer is what the service does with a template.
func (s *schedule) offer(c candidate, now time.Time) result {
	created, r := s.admit(c.hash, c.created, now)
	if r != accepted {
		return r
	}
	c.created = created
	return s.add(c, now)
}

func TestSchedule(t *testing.T) {
	t.Parallel()
	const full, empty = 10, 0
	// A step is a template that arrives, or none (height 0), and the job that is made thereupon.
	type step struct {
		now, created float64
		height       int32
		transactions int
		want         result
		job          reason // "": none
		jobHeight    int32
		on           byte // the block that the template, or the job, builds on
	}
	for _, tt := range []struct {
		name  string
		steps []step
	}{
		{"nothing to do without templates", []step{
			{now: 0}, {now: 100},
		}},
		{"first job at once, then by interval, without new templates too", []step{
			{0, 0, 100, full, accepted, newHeight, 100, 0},
			{now: 19.9},
			{now: 20, job: routine, jobHeight: 100},
			{now: 39},
			{now: 40, job: routine, jobHeight: 100},
		}},
		{"a new template of the same height waits for the interval", []step{
			{0, 0, 100, full, accepted, newHeight, 100, 0},
			{5, 5, 100, full, accepted, "", 0, 0},
			{now: 20, job: routine, jobHeight: 100},
		}},
		{"a new height leaves at once", []step{
			{0, 0, 100, full, accepted, newHeight, 100, 0},
			{1, 1, 101, full, accepted, newHeight, 101, 0},
			{2, 2, 103, full, accepted, newHeight, 103, 0},
		}},
		{"empty, then full", []step{
			{0, 0, 100, full, accepted, newHeight, 100, 0},
			{1, 1, 101, empty, accepted, newHeight, 101, 0},
			{2, 2, 101, empty, accepted, "", 0, 0},
			{3, 3, 101, full, accepted, nowFull, 101, 0},
			{4, 4, 101, empty, accepted, "", 0, 0},
			{now: 23, job: routine, jobHeight: 101},
		}},
		{"the same template again", []step{
			{0, 0, 100, full, accepted, newHeight, 100, 0},
			{1, 0, 100, full, duplicate, "", 0, 0},
		}},
		{"no better than another of the same second", []step{
			{0, 0, 100, full, accepted, newHeight, 100, 0},
			{0, 0, 100, full + 1, duplicate, "", 0, 0},
		}},
		{"too old and too new", []step{
			{60, 0, 100, full, skewed, "", 0, 0},
			{0, 60, 100, full, skewed, "", 0, 0},
			{59.9, 0, 100, full, accepted, newHeight, 100, 0},
			{0, 59.9, 101, full, accepted, newHeight, 101, 0},
		}},
		{"the clock of gbtmaker is an hour behind", []step{
			{0, 0, 100, full, accepted, newHeight, 100, 0},
			{5, -3595, 101, full, skewed, "", 0, 0},
			{15, -3585, 101, full, accepted, newHeight, 101, 0},
			{16, -3584, 102, full, accepted, newHeight, 102, 0},
			{36, 36, 103, full, accepted, newHeight, 103, 0},
		}},
		{"the clock of gbtmaker is an hour ahead", []step{
			{0, 3600, 100, full, skewed, "", 0, 0},
			{10, 3610, 100, full, accepted, newHeight, 100, 0},
			{20, 20, 101, full, accepted, newHeight, 101, 0},
		}},
		{"what comes an hour late comes at once", []step{
			{0, -3600, 100, full, skewed, "", 0, 0},
			{0.1, -3570, 100, full, skewed, "", 0, 0},
			{0.2, -3540, 101, full, skewed, "", 0, 0},
			{0.3, 0, 110, full, accepted, newHeight, 110, 0},
		}},
		{"a lower height waits for twice the interval", []step{
			{0, 0, 100, full, accepted, newHeight, 100, 0},
			{1, 1, 99, full, lowHeight, "", 0, 0},
			{now: 20, job: routine, jobHeight: 100},
			{39, 39, 99, full, lowHeight, "", 0, 0},
			{40, 40, 99, full, accepted, routine, 100, 0},
			{now: 89, job: routine, jobHeight: 100},
			{90, 90, 99, full, accepted, "", 0, 0},
			{now: 109, job: routine, jobHeight: 99},
		}},
		{"an empty best template protects its height as a full one does", []step{
			{0, 0, 100, empty, accepted, newHeight, 100, 0},
			{1, 1, 99, full, lowHeight, "", 0, 0},
			{now: 20, job: routine, jobHeight: 100},
			{39, 39, 99, full, lowHeight, "", 0, 0},
			{41, 41, 99, full, accepted, routine, 99, 0},
		}},
		{"never back to an older template when the node falls silent after a block", []step{
			{0, 0, 100, full, accepted, newHeight, 100, 'a'},
			{5, 5, 101, empty, accepted, newHeight, 101, 'b'},
			{now: 25, job: routine, jobHeight: 101, on: 'b'},
			{now: 45, job: routine, jobHeight: 101, on: 'b'},
			{now: 89, job: routine, jobHeight: 101, on: 'b'},
			{now: 1000, job: routine, jobHeight: 101, on: 'b'},
		}},
		{"nor to one between when a lower, newer one takes over", []step{
			{0, 0, 100, full, accepted, newHeight, 100, 'a'},
			{1, 1, 101, empty, accepted, newHeight, 101, 'b'},
			{50, 50, 99, full, accepted, routine, 99, 'c'},
		}},
		{"the last template is kept", []step{
			{0, 0, 100, full, accepted, newHeight, 100, 0},
			{now: 1000, job: routine, jobHeight: 100},
			{1001, 1001, 99, full, accepted, "", 0, 0},
			{now: 1020, job: routine, jobHeight: 99},
		}},
		{"a rival of the same height wins at once, full or empty", []step{
			{0, 0, 100, full, accepted, newHeight, 100, 'a'},
			{1, 1, 100, empty, accepted, newBranch, 100, 'b'},
			{2, 2, 100, full, accepted, nowFull, 100, 'b'},
			{now: 22, job: routine, jobHeight: 100, on: 'b'},
		}},
		{"an older rival does not", []step{
			{1, 1, 100, full, accepted, newHeight, 100, 'a'},
			{2, 0, 100, full, otherBranch, "", 0, 'b'},
		}},
		{"nodes that stay on rivals cost one change each", []step{
			{0, 0, 100, full, accepted, newHeight, 100, 'a'},
			{1, 1, 100, full, accepted, newBranch, 100, 'b'},
			{5, 5, 100, full, otherBranch, "", 0, 'a'},
			{6, 6, 100, full, accepted, "", 0, 'b'},
			{7, 7, 100, full, accepted, newBranch, 100, 'c'},
			{10, 10, 100, full, otherBranch, "", 0, 'a'},
			{11, 11, 100, full, otherBranch, "", 0, 'b'},
			{12, 12, 101, full, accepted, newHeight, 101, 'd'},
			{13, 13, 101, full, accepted, newBranch, 101, 'e'},
			{14, 14, 101, full, otherBranch, "", 0, 'd'},
			{now: 33, job: routine, jobHeight: 101, on: 'e'},
		}},
		{"a block that was left is gone back to when its rival is silent", []step{
			{0, 0, 100, empty, accepted, newHeight, 100, 'a'},
			{1, 1, 100, empty, accepted, newBranch, 100, 'b'},
			{20, 20, 100, empty, otherBranch, "", 0, 'a'},
			{now: 21, job: routine, jobHeight: 100, on: 'b'},
			{41, 41, 100, empty, accepted, newBranch, 100, 'a'},
			{42, 42, 100, empty, otherBranch, "", 0, 'b'},
		}},
		{"full beats a younger empty one", []step{
			{0, 0, 100, full, accepted, newHeight, 100, 0},
			{5, 5, 100, empty, accepted, "", 0, 0},
			{now: 20, job: routine, jobHeight: 100},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newSchedule()
			for i, step := range tt.steps {
				now := at(step.now)
				if step.height != 0 {
					c := newCandidate(step.height, step.transactions, at(step.created))
					c.PrevHash[0] = step.on
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
				if c.Height != step.jobHeight || c.PrevHash[0] != step.on {
					t.Fatalf("step %d: job of height %d on %d, want %d on %d", i, c.Height, c.PrevHash[0], step.jobHeight, step.on)
				}
				s.sent(c, now)
			}
		})
	}
}

// The node of a lower template knows that the block of the best one is left: once a block, and only of the block that
// is the best one's.
func TestScheduleAbandonedBlock(t *testing.T) {
	t.Parallel()
	s := newSchedule()
	on := func(height int32, created float64, block, left byte) candidate {
		c := newCandidate(height, 10, at(created))
		c.PrevHash[0], c.left[0] = block, left
		return c
	}
	for i, step := range []struct {
		c    candidate
		want result
		job  reason
	}{
		{on(100, 0, 'a', 0), accepted, newHeight},
		{on(102, 1, 'c', 0), accepted, newHeight},
		{on(100, 2, 'a', 'b'), lowHeight, ""}, // another block than ours was left
		{on(100, 3, 'a', 'c'), accepted, abandoned},
		{on(100, 4, 'a', 'c'), accepted, ""},
		{on(102, 5, 'c', 0), accepted, newHeight}, // another node does not agree
		{on(100, 6, 'a', 'c'), lowHeight, ""},
		{on(103, 7, 'd', 0), accepted, newHeight},
		{on(101, 8, 'b', 'd'), accepted, abandoned},
	} {
		now := step.c.created
		if got := s.offer(step.c, now); got != step.want {
			t.Fatalf("step %d: template is %s, want %s", i, got, step.want)
		}
		c, why := s.next(now)
		if why != step.job {
			t.Fatalf("step %d: job for reason %q, want %q", i, why, step.job)
		}
		if why != "" {
			s.sent(c, now)
		}
	}
}

// A template that was made by a clock which was ahead does not hold up those that come when the clock is right.
func TestScheduleClockSetBack(t *testing.T) {
	t.Parallel()
	s := newSchedule()
	ahead := newCandidate(100, 10, at(3000))
	ahead.PrevHash[0] = 'a'
	if r := s.offer(ahead, at(3000)); r != accepted {
		t.Fatal(r)
	}
	s.next(at(10))
	for i, c := range []candidate{newCandidate(100, 11, at(20)), newCandidate(100, 12, at(30))} {
		c.PrevHash[0] = 'a' + byte(i) // the second is a rival
		if r := s.offer(c, c.created); r != accepted {
			t.Fatalf("template %d is %s", i, r)
		}
		if got, _ := s.next(c.created); got.hash != c.hash {
			t.Errorf("template %d is not the best", i)
		}
	}
}

// Other bits on the same block, as testnets have after 20 minutes, make a job at once, also when the template with them
// is empty.
func TestScheduleNewBits(t *testing.T) {
	t.Parallel()
	s := newSchedule()
	hard, easy, more := newCandidate(100, 10, at(0)), newCandidate(100, 0, at(1)), newCandidate(100, 10, at(2))
	hard.Bits, easy.Bits, more.Bits = 0x1b00ffff, 0x1d00ffff, 0x1d00ffff
	for i, step := range []struct {
		c    candidate
		want reason
	}{{hard, newHeight}, {easy, newBits}, {more, nowFull}} {
		if r := s.offer(step.c, step.c.created); r != accepted {
			t.Fatalf("step %d: %s", i, r)
		}
		c, why := s.next(step.c.created)
		if why != step.want {
			t.Fatalf("step %d: job for reason %q, want %q", i, why, step.want)
		}
		s.sent(c, step.c.created)
	}
}

// Only what another pool said is taken back to an older template.
func TestSchedulePoolWordTakenBack(t *testing.T) {
	t.Parallel()
	s := newSchedule()
	send := func(want reason, now time.Time) candidate {
		t.Helper()
		c, why := s.next(now)
		if why != want {
			t.Fatalf("job for reason %q, want %q", why, want)
		}
		s.sent(c, now)
		return c
	}
	own, said := newCandidate(100, 10, at(0)), newCandidate(101, 0, at(1))
	said.PrevHash[0], said.fromPool = 'b', true
	s.offer(own, at(0))
	send(newHeight, at(0))
	s.offer(said, at(1))
	send(newHeight, at(1))
	if c := send(refuted, at(16)); c.Height != 100 || c.left != said.PrevHash {
		t.Errorf("job of height %d, left %s", c.Height, c.left)
	}
}

func TestScheduleForgetsHashes(t *testing.T) {
	t.Parallel()
	s := newSchedule()
	for i := range recentHashes + 1 {
		if r := s.offer(newCandidate(100+int32(i), 1, at(0)), at(0)); r != accepted {
			t.Fatalf("template %d is %s", i, r)
		}
	}
	if _, r := s.admit(newCandidate(101, 1, at(0)).hash, at(0), at(0)); r != duplicate {
		t.Errorf("the last but 19th template is %s", r)
	}
	if _, r := s.admit(newCandidate(100, 1, at(0)).hash, at(0), at(0)); r != accepted {
		t.Errorf("the last but 20th template is %s", r)
	}
}

// Whatever comes, the schedule stays bounded, never lets the miners wait longer than the interval, and makes jobs of
// the best template only.
func TestScheduleLaws(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := newSchedule()
		now := epoch
		for i := range rapid.IntRange(1, 300).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 30).Draw(t, "pause")) * time.Second)
			if rapid.Bool().Draw(t, "template") {
				created := now.Add(time.Duration(rapid.IntRange(-70, 70).Draw(t, "skew")) * time.Second)
				c := newCandidate(rapid.Int32Range(1, 5).Draw(t, "height"), rapid.IntRange(0, 1).Draw(t, "transactions"), created)
				c.PrevHash[0] = rapid.Byte().Draw(t, "on")
				s.offer(c, now)
			}
			c, why := s.next(now)
			if len(s.candidates) > maxCandidates || len(s.recent) > recentHashes || len(s.left) > maxLeft {
				t.Fatalf("step %d: %d candidates, %d hashes", i, len(s.candidates), len(s.recent))
			}
			if why == "" {
				if len(s.candidates) > 0 && now.Sub(s.last.sent) >= s.interval {
					t.Fatalf("step %d: no job for %s", i, now.Sub(s.last.sent))
				}
				continue
			}
			for _, other := range s.candidates {
				if other.compare(c) > 0 {
					t.Fatalf("step %d: job of height %d, while there is %d", i, c.Height, other.Height)
				}
				if other.Height == c.Height && other.PrevHash != c.PrevHash {
					t.Fatalf("step %d: rivals of height %d", i, c.Height)
				}
			}
			s.sent(c, now)
		}
	})
}

// News of other chains make a job, but not instead of a better reason.
func TestScheduleUrgent(t *testing.T) {
	t.Parallel()
	s := newSchedule()
	s.urgent = true
	if _, why := s.next(at(0)); why != "" {
		t.Fatalf("job for reason %q without a template", why)
	}
	s.offer(newCandidate(100, 1, at(0)), at(0))
	c, why := s.next(at(0))
	if why != newHeight {
		t.Fatalf("job for reason %q", why)
	}
	s.sent(c, at(0))
	if _, why := s.next(at(1)); why != otherChains {
		t.Fatalf("job for reason %q", why)
	}
	s.urgent = false
	if _, why := s.next(at(1)); why != "" {
		t.Fatalf("job for reason %q", why)
	}
}

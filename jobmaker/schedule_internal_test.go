package jobmaker

import (
	"fmt"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"pgregory.net/rapid"

	"btcpool/internal/job"
)

var epoch = time.Unix(1_700_000_000, 0)

func at(second float64) time.Time { return epoch.Add(time.Duration(second * float64(time.Second))) }

func newSchedule() *schedule {
	return &schedule{interval: 20 * time.Second, life: 90 * time.Second, emptyLife: 15 * time.Second, maxSkew: 60 * time.Second}
}

func newCandidate(height int32, transactions int, created time.Time) candidate {
	return candidate{
		Template: &job.Template{Height: height, TxIDs: make([]chainhash.Hash, transactions)},
		hash:     fmt.Sprint(height, transactions, created.Unix()),
		created:  created,
	}
}

// offer is what the service does with a template.
func (s *schedule) offer(c candidate, now time.Time) result {
	if r := s.admit(c.hash, c.created, now); r != accepted {
		return r
	}
	return s.add(c, now)
}

func TestSchedule(t *testing.T) {
	t.Parallel()
	const full, empty = 10, 0
	// A step is a template that arrives, or none (height 0), and the job that
	// is made thereupon.
	type step struct {
		now, created float64
		height       int32
		transactions int
		want         result
		job          reason // "": none
		jobHeight    int32
	}
	for _, tt := range []struct {
		name  string
		steps []step
	}{
		{"nothing to do without templates", []step{
			{now: 0}, {now: 100},
		}},
		{"first job at once, then by interval, without new templates too", []step{
			{0, 0, 100, full, accepted, newHeight, 100},
			{now: 19.9},
			{now: 20, job: routine, jobHeight: 100},
			{now: 39},
			{now: 40, job: routine, jobHeight: 100},
		}},
		{"a new template of the same height waits for the interval", []step{
			{0, 0, 100, full, accepted, newHeight, 100},
			{5, 5, 100, full, accepted, "", 0},
			{now: 20, job: routine, jobHeight: 100},
		}},
		{"a new height leaves at once", []step{
			{0, 0, 100, full, accepted, newHeight, 100},
			{1, 1, 101, full, accepted, newHeight, 101},
			{2, 2, 103, full, accepted, newHeight, 103},
		}},
		{"empty, then full", []step{
			{0, 0, 100, full, accepted, newHeight, 100},
			{1, 1, 101, empty, accepted, newHeight, 101},
			{2, 2, 101, empty, accepted, "", 0},
			{3, 3, 101, full, accepted, nowFull, 101},
			{4, 4, 101, empty, accepted, "", 0},
			{now: 23, job: routine, jobHeight: 101},
		}},
		{"the same template again", []step{
			{0, 0, 100, full, accepted, newHeight, 100},
			{1, 0, 100, full, duplicate, "", 0},
		}},
		{"no better than another of the same second", []step{
			{0, 0, 100, full, accepted, newHeight, 100},
			{0, 0, 100, full + 1, duplicate, "", 0},
		}},
		{"too old and too new", []step{
			{60, 0, 100, full, skewed, "", 0},
			{0, 60, 100, full, skewed, "", 0},
			{59.9, 0, 100, full, accepted, newHeight, 100},
			{0, 59.9, 101, full, accepted, newHeight, 101},
		}},
		{"a lower height waits for twice the interval", []step{
			{0, 0, 100, full, accepted, newHeight, 100},
			{1, 1, 99, full, lowHeight, "", 0},
			{now: 20, job: routine, jobHeight: 100},
			{39, 39, 99, full, lowHeight, "", 0},
			{40, 40, 99, full, accepted, routine, 100},
			{now: 89, job: routine, jobHeight: 100},
			{90, 90, 99, full, accepted, "", 0},
			{now: 109, job: routine, jobHeight: 99},
		}},
		{"a lower height is taken while the best is empty", []step{
			{0, 0, 100, empty, accepted, newHeight, 100},
			{1, 1, 99, full, accepted, "", 0},
			{now: 14, job: ""},
			{now: 15, job: ""},
			{now: 20, job: routine, jobHeight: 99},
			{21, 21, 100, full, accepted, newHeight, 100},
		}},
		{"the last template is kept", []step{
			{0, 0, 100, full, accepted, newHeight, 100},
			{now: 1000, job: routine, jobHeight: 100},
			{1001, 1001, 99, full, accepted, "", 0},
			{now: 1020, job: routine, jobHeight: 99},
		}},
		{"full beats a younger empty one", []step{
			{0, 0, 100, full, accepted, newHeight, 100},
			{5, 5, 100, empty, accepted, "", 0},
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
				if c.Height != step.jobHeight {
					t.Fatalf("step %d: job of height %d, want %d", i, c.Height, step.jobHeight)
				}
				s.sent(c, now)
			}
		})
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
	if r := s.admit(newCandidate(101, 1, at(0)).hash, at(0), at(0)); r != duplicate {
		t.Errorf("the last but 19th template is %s", r)
	}
	if r := s.admit(newCandidate(100, 1, at(0)).hash, at(0), at(0)); r != accepted {
		t.Errorf("the last but 20th template is %s", r)
	}
}

// Whatever comes, the schedule stays bounded, never lets the miners wait longer
// than the interval, and makes jobs of the best template only.
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
				s.offer(c, now)
			}
			c, why := s.next(now)
			if len(s.candidates) > maxCandidates || len(s.recent) > recentHashes {
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
			}
			s.sent(c, now)
		}
	})
}

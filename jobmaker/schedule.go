package jobmaker

import (
	"cmp"
	"slices"
	"time"

	"btcpool/internal/job"
)

const (
	recentHashes  = 20  // templates that are known again
	maxCandidates = 100 // more than live templates from any sane set of nodes
)

// result says what became of a template; it is a metric label.
type result string

const (
	accepted  result = "accepted"
	invalid   result = "invalid"    // not a template
	duplicate result = "duplicate"  // seen, or no better than one seen
	skewed    result = "skewed"     // made too long ago, or too far in the future
	lowHeight result = "low_height" // of a node that lags behind another
)

// reason says why a job is made; it is a metric label.
type reason string

const (
	newHeight reason = "height"
	nowFull   reason = "full" // the last job was empty
	routine   reason = "interval"
)

// candidate is a template that may become a job.
type candidate struct {
	*job.Template
	hash    string
	created time.Time
}

// compare orders candidates from worse to better: height, then transactions,
// then time.
func (c candidate) compare(d candidate) int {
	if n := cmp.Compare(c.Height, d.Height); n != 0 {
		return n
	}
	if c.Empty() != d.Empty() {
		if c.Empty() {
			return -1
		}
		return 1
	}
	return c.created.Compare(d.created)
}

// schedule decides which template becomes a job, and when, by btcpool's rules.
// It knows no clock.
type schedule struct {
	interval        time.Duration // between routine jobs
	life, emptyLife time.Duration // of candidates
	maxSkew         time.Duration

	recent     []string    // hashes of the last accepted templates, oldest first
	candidates []candidate // from worst to best; not empty once a template was accepted
	last       struct {
		height int32
		empty  bool
		sent   time.Time
	}
}

// admit judges a template by its envelope, before it is parsed.
func (s *schedule) admit(hash string, created, now time.Time) result {
	switch {
	case slices.Contains(s.recent, hash):
		return duplicate
	case now.Sub(created).Abs() >= s.maxSkew:
		return skewed
	}
	return accepted
}

// add takes in a template that was admitted. A lower height than that of the
// best template is refused for twice the job interval, so that two nodes of
// different heights do not throw miners back and forth; an empty best template
// grants no such protection.
func (s *schedule) add(c candidate, now time.Time) result {
	s.expire(now)
	if n := len(s.candidates); n > 0 {
		best := s.candidates[n-1]
		if c.Height < best.Height && !best.Empty() && c.created.Sub(best.created) < 2*s.interval {
			return lowHeight
		}
	}
	i, found := slices.BinarySearchFunc(s.candidates, c, candidate.compare)
	if found {
		return duplicate
	}
	s.candidates = slices.Insert(s.candidates, i, c)
	s.candidates = s.candidates[max(0, len(s.candidates)-maxCandidates):]
	s.recent = append(s.recent, c.hash)
	s.recent = s.recent[max(0, len(s.recent)-recentHashes):]
	return accepted
}

// expire drops candidates whose life is over, but never the last one.
func (s *schedule) expire(now time.Time) {
	if len(s.candidates) == 0 {
		return
	}
	best := s.candidates[len(s.candidates)-1]
	s.candidates = slices.DeleteFunc(s.candidates, func(c candidate) bool {
		life := s.life
		if c.Empty() {
			life = s.emptyLife
		}
		return now.Sub(c.created) >= life
	})
	if len(s.candidates) == 0 {
		s.candidates = append(s.candidates, best)
	}
}

// next returns the template to make a job of now and why, or "" for no job.
func (s *schedule) next(now time.Time) (candidate, reason) {
	s.expire(now)
	if len(s.candidates) == 0 {
		return candidate{}, ""
	}
	best := s.candidates[len(s.candidates)-1]
	switch {
	case best.Height > s.last.height:
		return best, newHeight
	case best.Height == s.last.height && s.last.empty && !best.Empty():
		return best, nowFull
	case s.untilRoutine(now) <= 0:
		return best, routine
	}
	return candidate{}, ""
}

// untilRoutine returns how long to wait for the next routine job.
func (s *schedule) untilRoutine(now time.Time) time.Duration {
	return s.last.sent.Add(s.interval).Sub(now)
}

// sent notes that a job was made of c.
func (s *schedule) sent(c candidate, now time.Time) {
	s.last.height, s.last.empty, s.last.sent = c.Height, c.Empty(), now
}

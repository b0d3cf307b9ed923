package jobmaker

import (
	"cmp"
	"slices"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"

	"btcpool/internal/bitcoin"
	"btcpool/internal/job"
)

const (
	recentHashes  = 20  // templates that are known again
	maxCandidates = 100 // more than live templates from any sane set of nodes
	maxLeft       = 16  // more than rival blocks of any height
)

// result says what became of a message; it is a metric label.
type result string

const (
	accepted     result = "accepted"
	invalid      result = "invalid"       // not what its topic is for
	duplicate    result = "duplicate"     // seen, or no better than one seen
	skewed       result = "skewed"        // made too long ago, or too far in the future
	wrongNetwork result = "wrong_network" // a template of another network
	farFuture    result = "far_future"    // a template whose blocks nodes would refuse for their time
	lowHeight    result = "low_height"    // a template of a node that lags behind another
	lessWork     result = "less_work"     // a template on a branch with less work than the best one's
	wrongBits    result = "wrong_bits"    // a template with bits that are easier than a chain can have come to
	otherBranch  result = "other_branch"  // a template on a block that was left for its rival
	otherPool    result = "other_pool"    // a template of poolwatcher that is not to be followed
)

// reason says why a job is made; it is a metric label.
type reason string

const (
	newHeight   reason = "height"
	newBranch   reason = "branch"       // another block of the same height to build on
	moreWork    reason = "work"         // a lower block to build on, with more work below it
	nowFull     reason = "full"         // the last job was empty
	newBits     reason = "bits"         // another difficulty on the same block, as on testnets after 20 minutes
	refuted     reason = "refuted"      // our nodes have not got the block that another pool named
	abandoned   reason = "abandoned"    // a node of ours has left the block for a lower one
	otherChains reason = "other_chains" // news of chains mined along
	routine     reason = "interval"
)

// candidate is a template that may become a job.
type candidate struct {
	*job.Template
	hash     string
	created  time.Time
	fromPool bool           // made by poolwatcher of another pool's word: no node of ours has seen its block
	left     chainhash.Hash // block that its node has left for a lower one; zero: none
	work     bitcoin.Work   // in the chain up to the block it is on; zero: unknown
}

// heavier reports whether the work below the template is known to be more than that below another.
func (c candidate) heavier(than bitcoin.Work) bool {
	return !c.work.IsZero() && !than.IsZero() && c.work.Cmp(than) > 0
}

// compare orders candidates from worse to better: height, then transactions, then time.
func (c candidate) compare(d candidate) int {
	full := cmp.Compare(min(c.Transactions, 1), min(d.Transactions, 1))
	return cmp.Or(cmp.Compare(c.Height, d.Height), full, c.created.Compare(d.created))
}

// schedule decides which template becomes a job, and when, by btcpool's rules. It knows no clock.
//
// Templates come from nodes that may see different chains, and miners must not be thrown back and forth between them:
//
//   - Of branches the one with more work counts, whatever its height: it
//     displaces the others at once, and is never left for one with less, unless
//     its node has left it. Heights stand in for work where a template does not
//     say it, as those of btcpool do not.
//   - A template with bits easier than consensus lets a chain of the best one's
//     come to is refused, unless there is more work below it.
//   - A lower height than that of the best template is refused until templates
//     are twice the job interval newer than the best one. A template never
//     makes way for a lower one that is older than itself, however old it is:
//     when nodes fall silent the last good job stays.
//   - When the node of a lower template has left the block of the best one, the
//     lower template displaces it at once: that node knows. It does so once a
//     block, so that nodes that disagree do not throw miners back and forth.
//   - Of rival blocks at the same height the one built on last wins at once,
//     for that is what a reorganisation looks like: the first template on
//     another block that is not older than the best one displaces all on the
//     block before. The block that was left is not gone back to while there
//     are templates on its rival: only when they are twice the job interval
//     old, or at another height. So nodes that stay on rival blocks cost one
//     change a rival, not one a template.
//   - A template that poolwatcher made of another pool's word is followed only
//     from a template of our own nodes to the next height, once a height, and
//     any template of theirs for that height displaces it. If none comes while
//     it lives, miners are sent back.
type schedule struct {
	interval        time.Duration // between routine jobs
	life, emptyLife time.Duration // of candidates
	maxSkew         time.Duration
	network         bitcoin.Network

	recent     []string         // hashes of the last accepted templates, oldest first
	candidates []candidate      // from worst to best, one block a height to build on; not empty once a template was accepted
	left       []chainhash.Hash // blocks below the best template that were left for a rival
	branch     branch           // the one of the best templates
	believed   int32            // height of the last template that was taken from poolwatcher
	refuted    chainhash.Hash   // the last block that was left because a node had left it
	pulse      job.Pulse        // of templates whose time is not near ours
	urgent     bool             // chains mined along want a job
	last       lastJob
}

// lastJob is what is remembered of the last job; its zero value: there was none.
type lastJob struct {
	height   int32
	prevHash chainhash.Hash
	bits     uint32
	work     bitcoin.Work
	empty    bool
	fromPool bool
	sent     time.Time
}

// admit judges a template by its envelope, before it is parsed, and returns when it was made by our clock: the one of
// who made it may be wrong.
func (s *schedule) admit(hash string, created, now time.Time) (time.Time, result) {
	switch {
	case slices.Contains(s.recent, hash):
		return created, duplicate
	case now.Sub(created).Abs() < s.maxSkew:
		return created, accepted
	case s.pulse.Live(created, now):
		return now, accepted
	}
	return created, skewed
}

// add takes in a template that was admitted.
func (s *schedule) add(c candidate, now time.Time) result {
	s.expire(now)
	if c.fromPool {
		if !s.believable(c) {
			return otherPool
		}
		s.believed = c.Height
	}
	if n := len(s.candidates); n > 0 {
		best := s.candidates[n-1]
		early := c.created.Sub(best.created) < 2*s.interval
		own, known := s.own()
		knows := s.knows(c, best)
		var refused result
		if known && !knows && !c.fromPool {
			refused = s.compareBranches(c, own, now)
		}
		switch {
		case c.fromPool:
		case knows:
			s.refuted = best.PrevHash
			s.displace(c)
		case refused != "":
			return refused
		case known && c.heavier(own.work) && c.PrevHash != own.PrevHash && c.Height <= own.Height:
			s.displace(c)
			s.leave(own.PrevHash)
		case best.fromPool && c.Height == best.Height: // our own nodes know
		case c.Height > best.Height:
			s.left = nil
		case c.Height < best.Height:
			if early && !best.fromPool {
				return lowHeight
			}
		case c.PrevHash != best.PrevHash:
			if early && slices.Contains(s.left, c.PrevHash) || c.created.Before(best.created) {
				return otherBranch
			}
			s.leave(best.PrevHash)
		}
	}
	s.candidates = slices.DeleteFunc(s.candidates, func(d candidate) bool {
		return d.Height == c.Height && (d.PrevHash != c.PrevHash || d.fromPool || d.Bits != c.Bits && !c.created.Before(d.created))
	})
	i, found := slices.BinarySearchFunc(s.candidates, c, candidate.compare)
	if found {
		return duplicate
	}
	s.candidates = slices.Insert(s.candidates, i, c)
	if !c.fromPool && i == len(s.candidates)-1 {
		s.branch.follow(c)
	}
	s.candidates = s.candidates[max(0, len(s.candidates)-maxCandidates):]
	s.recent = append(s.recent, c.hash)
	s.recent = s.recent[max(0, len(s.recent)-recentHashes):]
	return accepted
}

// believable reports whether another pool's word may be followed.
func (s *schedule) believable(c candidate) bool {
	if len(s.candidates) == 0 {
		return false
	}
	best := s.candidates[len(s.candidates)-1]
	return !best.fromPool && c.Empty() && c.Height == best.Height+1 && c.Bits == best.Bits && c.Height > s.believed
}

func (s *schedule) leave(block chainhash.Hash) {
	s.left = slices.DeleteFunc(s.left, func(h chainhash.Hash) bool { return h == block })
	s.left = append(s.left, block)
	s.left = s.left[max(0, len(s.left)-maxLeft):]
}

// displace makes c the highest candidate.
func (s *schedule) displace(c candidate) {
	s.candidates = slices.DeleteFunc(s.candidates, func(d candidate) bool { return d.Height > c.Height })
	s.branch.blocks = nil
}

// own returns the best template of our own nodes.
func (s *schedule) own() (best candidate, ok bool) {
	for _, c := range slices.Backward(s.candidates) {
		if !c.fromPool {
			return c, true
		}
	}
	return candidate{}, false
}

// compareBranches returns why c is not to be followed from own because of the branch that it is on, or "".
func (s *schedule) compareBranches(c, own candidate, now time.Time) result {
	s.branch.compare(c, now)
	early := c.created.Sub(own.created) < 2*s.interval
	switch {
	case c.PrevHash == own.PrevHash, c.heavier(own.work):
		return ""
	case own.heavier(c.work) && (early || !s.network.OnDemand): // chains on demand may begin anew
		if c.Height < own.Height && s.branch.has(c) {
			return lowHeight // its node lags behind
		}
		s.branch.lighter = now
		s.branch.part(min(c.Height, own.Height)-1, now)
		return lessWork
	case s.easier(c, own):
		s.branch.part(min(c.Height, own.Height)-1, now)
		return wrongBits
	}
	return ""
}

// easier reports whether no chain can have come to the bits of c by the rules that gave those of best, or the other way
// round, and c's are the easier ones.
func (s *schedule) easier(c, best candidate) bool {
	target, err := bitcoin.TargetFromBits(c.Bits)
	was, bestErr := bitcoin.TargetFromBits(best.Bits)
	if err != nil || bestErr != nil || target.Difficulty() >= was.Difficulty() {
		return false
	}
	return s.network.SamePeriod(c.Height, best.Height) || !s.network.Reachable(target, c.Height, was, best.Height)
}

// knows reports whether the node of c, which is lower than best, has left the block of best, and that is news.
func (s *schedule) knows(c, best candidate) bool {
	return c.Height < best.Height && c.left == best.PrevHash && c.left != s.refuted && !c.created.Before(best.created)
}

// expire drops candidates whose life is over. The best one stays until one is there that is newer, unless it was
// another pool's word.
func (s *schedule) expire(now time.Time) {
	if len(s.candidates) == 0 {
		return
	}
	for i := range s.candidates { // a clock was ahead when it was made, and has been set right
		if c := &s.candidates[i]; c.created.Sub(now) >= s.maxSkew {
			c.created = now
		}
	}
	slices.SortStableFunc(s.candidates, candidate.compare)
	over := func(c candidate) bool {
		life := s.life
		if c.Empty() {
			life = s.emptyLife
		}
		return now.Sub(c.created) >= life
	}
	best := s.candidates[len(s.candidates)-1]
	overtaken := over(best) && !best.fromPool
	s.candidates = slices.DeleteFunc(s.candidates[:len(s.candidates)-1], func(c candidate) bool {
		return over(c) || overtaken && !c.created.After(best.created)
	})
	if !over(best) || len(s.candidates) == 0 {
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
	case best.Height == s.last.height && best.PrevHash != s.last.prevHash:
		if best.heavier(s.last.work) {
			best.left = s.last.prevHash
		}
		return best, newBranch
	case best.Height < s.last.height && best.heavier(s.last.work):
		best.left = s.last.prevHash
		return best, moreWork
	case best.Height == s.last.height && best.Bits != s.last.bits:
		return best, newBits
	case best.Height == s.last.height && s.last.empty && !best.Empty():
		return best, nowFull
	case best.Height < s.last.height && s.last.fromPool:
		best.left = s.last.prevHash
		return best, refuted
	case best.Height < s.last.height && best.left == s.last.prevHash && best.left != (chainhash.Hash{}):
		return best, abandoned
	case s.urgent:
		return best, otherChains
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
	s.last = lastJob{height: c.Height, prevHash: c.PrevHash, bits: c.Bits, work: c.work, empty: c.Empty(), fromPool: c.fromPool, sent: now}
}

package poolwatcher

import (
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"

	"btcpool/internal/bitcoin"
	"btcpool/internal/job"
	"btcpool/internal/stratum"
)

const (
	// jobLifetime is how old our own job may be to be compared with.
	jobLifetime = time.Minute
	// maxAhead is how far in the future another pool's time may be.
	maxAhead = 10 * time.Minute
)

// verdict says what became of a pool's job; it is a metric label.
type verdict string

const (
	verdictNew       verdict = "new"          // its block is one to work on at once
	verdictSame      verdict = "same"         // on the block that the pool had already, or its first job
	verdictKnown     verdict = "known"        // our own job or our node has the block
	verdictNoJob     verdict = "no_own_job"   // we have none to compare it with
	verdictHeight    verdict = "wrong_height" // not the one after ours
	verdictBits      verdict = "wrong_bits"   // not ours, or nobody knows: a retarget
	verdictWork      verdict = "no_work"      // the hash does not meet the target: no block has it
	verdictTime      verdict = "wrong_time"   // before ours, or far in the future
	verdictInvalid   verdict = "invalid"      // no height can be read
	verdictWaiting   verdict = "waiting"      // other pools have to agree
	verdictUnchecked verdict = "unchecked"    // our node does not answer
	verdictBusy      verdict = "busy"         // the block that it named before is still being looked at
	verdictRepeated  verdict = "repeated"     // another pool was faster
)

var verdicts = []verdict{
	verdictNew, verdictSame, verdictKnown, verdictNoJob, verdictHeight, verdictBits, verdictWork, verdictTime,
	verdictInvalid, verdictWaiting, verdictUnchecked, verdictRepeated, verdictBusy,
}

// claim is what a pool says about the chain.
type claim struct {
	prevHash chainhash.Hash // that of the block it works on
	height   int32          // that of the block it works for
	bits     uint32
	time     uint32
}

// claimOf reads a pool's job.
func claimOf(j *stratum.Job) (claim, error) {
	height, err := bitcoin.CoinbaseHeight(j.Coinbase1)
	return claim{j.PrevHash, height, j.Bits, j.Time}, err
}

// check holds a claim against our own job, by the rules of btcpool's poolwatcher and one more: the hash of the block
// that the pool works on must meet the target that our own job has for it, so that a new one can only come from who has
// found a block. It does not ask our node.
func (c claim) check(own *job.StratumJob, now time.Time) verdict {
	switch {
	case own == nil || now.Sub(own.ID.Time()).Abs() > jobLifetime: // or a clock is wrong
		return verdictNoJob
	case c.prevHash == own.PrevHash || c.height == own.Height:
		return verdictKnown
	case c.height != own.Height+1:
		return verdictHeight
	case c.bits != own.Bits || c.height%bitcoin.RetargetInterval == 0:
		return verdictBits
	case c.time < own.MinTime || time.Unix(int64(c.time), 0).Sub(now) > maxAhead:
		return verdictTime
	}
	if target, err := bitcoin.TargetFromBits(own.Bits); err != nil || !target.Met(&c.prevHash) {
		return verdictWork
	}
	return verdictNew
}

// view is what is known of our own chain and of the pools'.
type view struct {
	agree int
	own   *job.StratumJob           // the newest; nil: none yet
	pools map[string]chainhash.Hash // what each connected pool works on
	sent  chainhash.Hash            // the block of our last template
}

// hear takes in what a pool says.
func (v *view) hear(pool string, c claim, now time.Time) verdict {
	last, known := v.pools[pool]
	v.pools[pool] = c.prevHash
	switch {
	case !known || last == c.prevHash:
		return verdictSame
	case c.prevHash == v.sent:
		return verdictRepeated
	}
	result := c.check(v.own, now)
	if result == verdictNew && v.agreeing(c.prevHash) < v.agree {
		return verdictWaiting
	}
	return result
}

func (v *view) agreeing(block chainhash.Hash) (n int) {
	for _, hash := range v.pools {
		if hash == block {
			n++
		}
	}
	return n
}

// forget is called when the connection to a pool has ended.
func (v *view) forget(pool string) { delete(v.pools, pool) }

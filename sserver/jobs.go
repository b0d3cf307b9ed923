package sserver

import (
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"

	"btcpool/internal/bitcoin"
	"btcpool/internal/job"
)

// work is a job that miners may work on. It does not change, but for the shares that were seen.
type work struct {
	*job.StratumJob
	target    bitcoin.Target // the network's
	merged    merged         // blocks of other chains
	coinbases []coinbase     // the first is that of the job itself
	made      time.Time      // by its id, but not later than it came: clocks may differ
	tip       uint64         // number of its previous block, in the order in which they became current
	seen      shareSet
}

func (w *work) empty() bool { return len(w.MerkleBranch) == 0 }

// hash builds the coinbase and the header of a share and returns the header's hash. Both stay in sc.
func (w *work) hash(sc *scratch, extraNonce1 uint32, sub *submission, version uint32) chainhash.Hash {
	of := &w.coinbases[sub.coinbase]
	if sub.grand {
		sc.coinbase = append(sc.coinbase[:0], of.GrandCoinbase1...)
		sc.coinbase = binary.BigEndian.AppendUint32(sc.coinbase, extraNonce1)
		sc.coinbase = binary.BigEndian.AppendUint32(sc.coinbase, sub.Prefix)
	} else {
		sc.coinbase = append(sc.coinbase[:0], of.Coinbase1...)
		sc.coinbase = binary.BigEndian.AppendUint32(sc.coinbase, extraNonce1)
	}
	sc.coinbase = binary.BigEndian.AppendUint64(sc.coinbase, sub.ExtraNonce2)
	sc.coinbase = append(sc.coinbase, of.Coinbase2...)
	return bitcoin.DoubleSHA256(w.AppendHeader(sc.header[:0], sc.coinbase, version, sub.Time, sub.Nonce))
}

// round says what all miners are to work on from its moment on.
type round struct {
	number uint64 // from 1
	work   *work
	start  time.Time
}

// jobBook keeps the jobs that miners may work on and decides which they are sent. One goroutine calls add and tick;
// everything else is safe from any.
type jobBook struct {
	lifetime, maxDelay, resend, grace time.Duration

	render   func(*job.StratumJob) renditions
	subPools bool // users may work for coinbases of sub-pools

	mu    sync.Mutex       // guards the writers' side
	left  []chainhash.Hash // previous blocks that were current before, oldest first
	pulse job.Pulse        // of jobs that look too old

	works atomic.Pointer[[]*work]   // in the order of arrival; replaced, never changed
	tip   atomic.Uint64             // of the jobs that are not stale
	since atomic.Pointer[time.Time] // when it became that
	round atomic.Pointer[round]     // nil before the first job
}

// Why a job is not taken.
var (
	errJobLate   = errors.New("too old by the clock of this machine")
	errJobKnown  = errors.New("known")
	errJobBehind = errors.New("behind the current block")
	errJobProxy  = errors.New("another pool's: not supported")
)

const (
	maxWorks = 256 // a bound, not a plan: jobs come each 20 s or so and live 300 s
	maxLeft  = 16
)

func newJobBook(cfg Config) *jobBook {
	b := &jobBook{
		lifetime: cfg.MaxJobLifetime.Std(),
		maxDelay: cfg.MaxJobDelay.Std(),
		resend:   cfg.MiningNotifyInterval.Std(),
		grace:    cfg.StaleGrace.Std(),
		render:   renderer(cfg),
		subPools: cfg.UserChain.Path != "",
	}
	b.works.Store(new([]*work))
	return b
}

// add takes a job and reports whether it starts a round.
//
// A job with another previous block makes all earlier ones stale. Going back, to a lower height or to a block of the
// same that was left, is for a node that lags or sees another branch: it happens only when the current block has had no
// job for maxDelay, or when jobmaker says that this very block is left: a node of ours has left it, or it was another
// pool's word and is taken back.
func (b *jobBook) add(j *job.StratumJob, m merged, now time.Time) (sent bool, err error) {
	w, err := b.work(j, m, now)
	if err != nil {
		return false, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	age := max(now.Sub(j.ID.Time()), 0) // one ahead of our clock is as good as any
	if age > b.maxDelay {
		if !b.pulse.Live(j.ID.Time(), now) {
			return false, errJobLate
		}
		age = 0
	}
	if b.find(j.ID) != nil {
		return false, errJobKnown
	}
	current := b.newest()
	tip := b.tip.Load()
	if current == nil || current.PrevHash != j.PrevHash {
		if current != nil {
			back := j.Height < current.Height || j.Height == current.Height && slices.Contains(b.left, j.PrevHash)
			if back && j.Left != current.PrevHash && now.Sub(current.made) <= b.maxDelay {
				return false, errJobBehind
			}
			b.leave(current.PrevHash, j.PrevHash)
		}
		tip++
	}
	w.made, w.tip = now.Add(-age), tip
	works := append(slices.Clone(*b.works.Load()), w)
	if len(works) > maxWorks {
		works = works[1:]
	}
	b.works.Store(&works)
	if tip != b.tip.Load() {
		b.since.Store(&now)
	}
	b.tip.Store(tip)

	if b.newest() != w || !b.urgent(w) {
		return false, nil
	}
	b.start(w, now)
	return true, nil
}

// work makes one of a job, whose tip is not known yet.
func (b *jobBook) work(j *job.StratumJob, m merged, made time.Time) (*work, error) {
	target, err := bitcoin.TargetFromBits(j.Bits)
	if err != nil {
		return nil, err
	}
	if j.Proxy.Difficulty > 0 {
		return nil, errJobProxy
	}
	return &work{StratumJob: j, target: target, merged: m, coinbases: b.coinbases(j), made: made}, nil
}

// urgent reports whether miners should have w at once: it is on a new block, it has transactions and theirs has none,
// its blocks are of another difficulty, as on testnets after 20 minutes, or another chain asks for it.
func (b *jobBook) urgent(w *work) bool {
	last := b.round.Load()
	return last == nil || last.work.tip != w.tip || last.work.empty() && !w.empty() || last.work.Bits != w.Bits || w.MergedMiningClean
}

func (b *jobBook) leave(old, next chainhash.Hash) {
	b.left = slices.DeleteFunc(b.left, func(h chainhash.Hash) bool { return h == next })
	if len(b.left) == maxLeft {
		b.left = b.left[1:]
	}
	b.left = append(b.left, old)
}

func (b *jobBook) start(w *work, now time.Time) {
	var number uint64 = 1
	if last := b.round.Load(); last != nil {
		number = last.number + 1
	}
	b.round.Store(&round{number: number, work: w, start: now})
}

// tick forgets jobs at the end of their life, but for the newest, and reports whether it started a round because there
// was none for long.
func (b *jobBook) tick(now time.Time) (sent bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	newest := b.newest()
	works := *b.works.Load()
	expired := func(w *work) bool { return w != newest && now.Sub(w.made) > b.lifetime }
	if slices.ContainsFunc(works, expired) {
		works = slices.DeleteFunc(slices.Clone(works), expired)
		b.works.Store(&works)
	}
	last := b.round.Load()
	if last == nil || now.Sub(last.start) < b.resend {
		return false
	}
	b.start(newest, now)
	return true
}

// newest returns the last job that came among those that are not stale and not older than one that came before, nil
// before the first. Ids tell no order: they go back with jobmaker's clock.
func (b *jobBook) newest() *work {
	var newest *work
	tip := b.tip.Load()
	for _, w := range *b.works.Load() {
		if w.tip == tip && (newest == nil || newest.made.Sub(w.made) < time.Second/2) {
			newest = w
		}
	}
	return newest
}

// find returns the job with this id, nil if there is none.
func (b *jobBook) find(id job.ID) *work {
	works := *b.works.Load()
	for i := len(works) - 1; i >= 0; i-- {
		if works[i].ID == id {
			return works[i]
		}
	}
	return nil
}

func (b *jobBook) stale(w *work) bool { return w.tip != b.tip.Load() }

// justLeft reports whether w is on the block before the current one.
func (b *jobBook) justLeft(w *work) bool { return w.tip+1 == b.tip.Load() }

// outOfTime reports whether a block of w with this time is none: since that time its bits have had to be those of the
// current job.
func (b *jobBook) outOfTime(w *work, time uint32) bool {
	current := b.round.Load().work
	return current.tip == w.tip && current.Bits != w.Bits && time >= current.MinTime
}

// late reports whether shares of w, which is stale, are credited all the same: its miners may not have heard of the
// current block.
func (b *jobBook) late(w *work, now time.Time) bool {
	return b.grace > 0 && b.justLeft(w) && now.Sub(*b.since.Load()) <= b.grace
}

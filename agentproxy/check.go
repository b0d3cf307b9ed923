package agentproxy

import (
	"encoding/binary"
	"maps"
	"slices"

	"github.com/btcsuite/btcd/chainhash/v2"

	"btcpool/internal/bitcoin"
	"btcpool/internal/share"
)

// checker judges shares as a pool does, so that junk costs no traffic. It is the loop's.
type checker struct {
	seen     seenSet
	coinbase []byte // scratch
	header   [80]byte
}

// finding is what the check says of a share.
type finding struct {
	status share.Status
	easy   bool // it meets the machine's own difficulty, and not the pool's
	block  bool // it meets the network's target: whatever else is said, it is for the pool
	hash   chainhash.Hash
}

// A time is refused that no pool takes: agents' pools have btcpool's rule, others at most that of the network. Of the
// earliest that a job may have, pools say nothing; it is little more than an hour before the job's.
const (
	maxAhead      = 2 * 60 * 60
	maxAheadAgent = 600
	maxBehind     = 2 * 60 * 60
)

// check judges a share for j of the miner with that number. Of one that is as good as the pool's difficulty within what
// floating-point numbers can say, the pool decides.
func (c *checker) check(j sentJob, t toldDifficulty, number uint16, sub *solution) finding {
	w := j.work
	f := finding{status: share.StatusAccept, hash: c.hash(w, number, sub)}
	f.block = w.target.Met(&f.hash)
	ahead := int64(maxAhead)
	if w.link.agent {
		ahead = maxAheadAgent
	}
	reached := bitcoin.Target(f.hash).Difficulty() * (1 + 1e-9)
	switch offset := int64(sub.time) - int64(w.time); {
	case offset < -maxBehind:
		f.status = share.StatusTimeTooOld
	case offset > ahead:
		f.status = share.StatusTimeTooNew
	case reached < t.difficulty:
		f.status = share.StatusLowDifficulty
	case !c.seen.add(binary.LittleEndian.Uint64(f.hash[:])):
		f.status = share.StatusDuplicate
	default:
		f.easy = reached < t.pool
	}
	return f
}

func (c *checker) hash(w *work, number uint16, sub *solution) chainhash.Hash {
	c.coinbase = append(c.coinbase[:0], w.whole.Coinbase1...)
	c.coinbase = binary.BigEndian.AppendUint32(c.coinbase, uint32(number))
	c.coinbase = binary.BigEndian.AppendUint32(c.coinbase, sub.extraNonce2)
	c.coinbase = append(c.coinbase, w.whole.Coinbase2...)
	version := uint32(w.whole.Version)
	if sub.rolled { // BIP 310
		version = version&^w.link.versionBits | sub.versionBits
	}
	return bitcoin.DoubleSHA256(w.whole.AppendHeader(c.header[:0], c.coinbase, version, sub.time, sub.nonce))
}

// maxSeen is how many shares are remembered at least, if there were as many: those of two minutes of 10,000 machines.
const maxSeen = 1 << 17

// seenSet remembers the last maxSeen to 2·maxSeen shares by a part of their hashes. Each of them has cost its machine
// work. The zero value is ready.
type seenSet struct {
	young, old map[uint64]struct{}

	recording bool
	fresh     []uint64 // that came while recording
}

// add reports whether a share is new.
func (s *seenSet) add(key uint64) bool {
	_, young := s.young[key]
	_, old := s.old[key]
	if young || old {
		return false
	}
	if s.young == nil || len(s.young) == maxSeen {
		s.young, s.old = make(map[uint64]struct{}), s.young
	}
	s.young[key] = struct{}{}
	if s.recording {
		s.fresh = append(s.fresh, key)
	}
	return true
}

// record returns all shares, and has recorded return those that are still to come.
func (s *seenSet) record() (old, young []uint64) {
	s.recording, s.fresh = true, nil
	return slices.Collect(maps.Keys(s.old)), slices.Collect(maps.Keys(s.young))
}

func (s *seenSet) recorded() (fresh []uint64) {
	fresh = s.fresh
	s.recording, s.fresh = false, nil
	return fresh
}

// restore adds what another process has recorded, in its order.
func (s *seenSet) restore(some seenShares) {
	of := &s.young
	switch some.generation {
	case seenFresh:
		for _, key := range some.keys {
			s.add(key)
		}
		return
	case seenOld:
		of = &s.old
	}
	if *of == nil {
		*of = make(map[uint64]struct{}, len(some.keys))
	}
	for _, key := range some.keys {
		(*of)[key] = struct{}{}
	}
}

package sserver

import (
	"context"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"

	"btcpool/internal/bitcoin"
	"btcpool/internal/share"
)

// The latest time a header may have.
const (
	maxTimeAhead  = 600      // seconds beyond the job's
	maxClockAhead = 2 * 3600 // seconds beyond the clock's: consensus refuses more
)

// submission is what a miner found, as every protocol says it.
type submission struct {
	job         uint8 // sentJob.Number
	extraNonce2 uint64
	time        uint32
	nonce       uint32
	versionBits uint32
	rolled      bool // versionBits were given
}

// scratch is memory for one batch of requests.
type scratch struct {
	out      []byte // answers
	coinbase []byte
	header   [80]byte
	seq      uint64 // of the last share to be durable before the answers leave
}

// judge decides on a submission. A share that the statistics need is in the
// spool afterwards, and sc.seq is its number: the answer must wait for it.
func (s *session) judge(ctx context.Context, sub submission, now time.Time, sc *scratch) share.Status {
	status := s.verdict(ctx, sub, now, sc)
	s.srv.metrics.judged(status)
	return status
}

func (s *session) verdict(ctx context.Context, sub submission, now time.Time, sc *scratch) share.Status {
	sent, ok := s.sentJob(sub.job)
	if !ok {
		return share.StatusJobNotFound
	}
	w := s.srv.jobs.find(sent.ID)
	if w == nil {
		return share.StatusJobNotFound
	}
	key := shareKey{
		extraNonce2: sub.extraNonce2,
		extraNonce1: s.ID,
		time:        sub.time,
		nonce:       sub.nonce,
		versionBits: sub.versionBits,
	}
	if w.seen.has(key) {
		s.Rejects.add(now) // never logged, but counted with those that are
		return share.StatusDuplicate
	}
	status, bitsReached := s.check(ctx, w, sent, sub, now, sc)
	if status != share.StatusAccept && s.Rejects.add(now) {
		s.srv.metrics.rejectsUnsaid.Inc()
		return status
	}
	seq, err := s.log(w, sent, sub, status, bitsReached, now)
	switch {
	case err != nil && status == share.StatusAccept:
		return share.StatusInternalError // not credited, and not seen either
	case err != nil:
		return status
	}
	if status == share.StatusAccept {
		sc.seq = seq
		w.seen.add(key)
		s.count(sent.Difficulty, now)
	}
	return status
}

// count lets the miner's difficulty follow an accepted share of difficulty d.
func (s *session) count(d bitcoin.Difficulty, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.srv.vardiff.Share(&s.Difficulty, d, now) {
		s.srv.metrics.diffChanges.Inc()
	}
}

// check applies the rules that need no memory. bitsReached is 0 when a rule was
// broken before the hash was needed.
func (s *session) check(ctx context.Context, w *work, sent sentJob, sub submission, now time.Time, sc *scratch) (status share.Status, bitsReached uint32) {
	latest := min(int64(w.Time)+maxTimeAhead, now.Unix()+maxClockAhead)
	switch {
	case s.srv.jobs.stale(w):
		return share.StatusStale, 0
	case sub.time < w.MinTime:
		return share.StatusTimeTooOld, 0
	case int64(sub.time) > latest:
		return share.StatusTimeTooNew, 0
	case sub.versionBits&^s.VersionMask != 0:
		return share.StatusIllegalVersionMask, 0
	}
	version := uint32(w.Version)
	if sub.rolled { // BIP 310
		version = version&^s.VersionMask | sub.versionBits&s.VersionMask
	}
	hash := w.hash(sc, s.ID, sub, version)
	if w.target.Met(&hash) {
		s.solved(ctx, w, hash, sc)
	}
	if !sent.Difficulty.Target().Met(&hash) {
		return share.StatusLowDifficulty, bitcoin.BitsOfHash(&hash)
	}
	return share.StatusAccept, bitcoin.BitsOfHash(&hash)
}

func (s *session) sentJob(number uint8) (sentJob, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.Jobs) - 1; i >= 0; i-- {
		if s.Jobs[i].Number == number {
			return s.Jobs[i], true
		}
	}
	return sentJob{}, false
}

// log puts the share into the spool.
func (s *session) log(w *work, sent sentJob, sub submission, status share.Status, bitsReached uint32, now time.Time) (seq uint64, err error) {
	entry := share.Share{
		ID:          share.ID{Server: s.srv.serverID, Epoch: s.srv.shares.Epoch()},
		JobID:       uint64(w.ID),
		WorkerID:    s.WorkerID,
		UserID:      s.UserID,
		Status:      status,
		Time:        now.Unix(),
		IP:          s.IP,
		Difficulty:  sent.Difficulty,
		Bits:        w.Bits,
		Height:      uint32(w.Height),
		Nonce:       sub.nonce,
		SessionID:   s.ID,
		VersionBits: sub.versionBits,
		BitsReached: bitsReached,
	}
	return s.srv.shares.Append(uint64(s.WorkerID), func(dst []byte, seq uint64) []byte {
		entry.ID.Seq = seq
		return entry.AppendTo(dst)
	})
}

// solved hands a block over before anything else happens to its share. The
// block is in sc.
func (s *session) solved(ctx context.Context, w *work, hash chainhash.Hash, sc *scratch) {
	block := share.Solved{
		JobID:      uint64(w.ID),
		WorkerID:   s.WorkerID,
		UserID:     s.UserID,
		Height:     w.Height,
		Header:     sc.header,
		WorkerName: s.fullName(),
		Coinbase:   sc.coinbase,
	}
	s.srv.metrics.solved.Inc()
	seq, err := s.srv.blocks.Append(uint64(s.WorkerID), func(dst []byte, _ uint64) []byte {
		return block.AppendTo(dst)
	})
	if err == nil {
		err = s.srv.blocks.Wait(ctx, seq)
	}
	event := s.srv.log.Info()
	if err != nil {
		event = s.srv.log.Error().Err(err).Hex("header", sc.header[:]).Hex("coinbase", sc.coinbase)
	}
	event.Stringer("hash", hash).Int32("height", w.Height).Str("worker", block.WorkerName).Msg("block solved")
}

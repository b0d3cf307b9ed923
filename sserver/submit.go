package sserver

import (
	"context"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"

	"btcpool/internal/bitcoin"
	"btcpool/internal/share"
	"btcpool/internal/spool"
	v1 "btcpool/internal/stratum/v1"
)

// maxTimeAhead is how far a header's time may be beyond the job's, in seconds.
const maxTimeAhead = 600

// submission is what a miner found, with whom it is for.
type submission struct {
	v1.Submission
	chain    *chain // whose job it is for; of an unknown job, that which the miner works on
	miner    *miner
	worker   *worker // who is credited
	userID   int32   // its id on that chain
	coinbase uint8   // of the job, the one that the miner was told
	stranger bool    // no: the share is for an account that has not logged in
	grand    bool    // Prefix is a part of the extranonce
}

// scratch is memory for one batch of requests.
type scratch struct {
	out      []byte // answers
	coinbase []byte
	header   [80]byte
	seq      uint64 // of the last share to be durable before the answers leave, in the spool of chain
	chain    uint8
	solved   bool  // the last share solved a block, of whichever chain
	misuse   error // why the session is to end
}

// reset readies sc for the next batch.
func (sc *scratch) reset() { sc.out, sc.seq, sc.misuse = sc.out[:0], 0, nil }

// judge decides on a submission. A share that the statistics need is in the spool afterwards, and sc.seq is its number:
// the answer must wait for it.
func (s *session) judge(sub *submission) share.Status {
	sub.chain, sub.userID = s.chain(), sub.worker.UserID
	now, sc := s.loop.now, &s.loop.sc
	conduct := &sub.worker.Conduct
	status := share.StatusIPBanned
	if barred := now.Before(conduct.BarredUntil); !barred {
		status = s.verdict(sub, now, sc)
	}
	sub.chain.metrics.judged(status)
	s.Tally.add(status, now)
	if status == share.StatusIPBanned || status == share.StatusUnauthorized { // the latter is no misconduct
		return status
	}
	s.regard(status)
	if conduct.Judged(status, s.srv.cfg.Limits) {
		s.condemn(sub)
	}
	return status
}

func (s *session) verdict(sub *submission, now time.Time, sc *scratch) share.Status {
	sent, difficulty, ok := s.sentJob(sub.Job, sub.miner)
	if !ok || sub.NoJob {
		return share.StatusJobNotFound
	}
	c := s.srv.chains[sent.Chain]
	if sent.Chain != s.Chain {
		var ok bool
		sub.chain = c
		sub.userID, ok = s.idOn(c, sub.worker)
		sub.stranger = sub.stranger || !ok
	}
	w := c.jobs.find(sent.ID)
	if w == nil || int(sent.Coinbase) >= len(w.coinbases) {
		return share.StatusJobNotFound
	}
	sub.coinbase = sent.Coinbase
	if sub.JobTime {
		sub.Time, sub.JobTime = w.Time+sent.Later, false
	}
	key := shareKey{
		extraNonce2: [3]uint32{sub.Prefix, uint32(sub.ExtraNonce2 >> 32), uint32(sub.ExtraNonce2)},
		extraNonce1: s.ID,
		time:        sub.Time,
		nonce:       sub.Nonce,
		versionBits: sub.VersionBits,
	}
	if w.seen.has(key) {
		sub.miner.Rejects.add(now) // never logged, but counted with those that are
		return share.StatusDuplicate
	}
	status, bitsReached := s.check(w, difficulty, sub, now, sc)
	accepted := status.IsAccepted()
	if sc.solved && !accepted {
		w.seen.add(key)
	}
	if !accepted && sub.miner.Rejects.add(now) {
		c.metrics.rejectsUnsaid.Inc()
		return status
	}
	seq, err := s.log(w, difficulty, sub, status, bitsReached, now)
	switch {
	case err != nil && accepted:
		return share.StatusInternalError // not credited, and not seen either
	case err != nil:
		return status
	}
	if sc.solved {
		c.shares.Hurry() // its answer waits for no others
	}
	if accepted {
		s.loop.await(s, c.index, seq)
		w.seen.add(key)
		s.count(sub.miner, difficulty, now)
	}
	return status
}

// count lets the difficulty of m follow an accepted share of difficulty d.
func (s *session) count(m *miner, d bitcoin.Difficulty, now time.Time) {
	if !m.Fixed && s.port.vardiff.Share(&m.Difficulty, d, now) {
		s.srv.metrics.diffChanges.Inc()
	}
}

// check applies the rules that need no memory, to a share that must meet
// difficulty. bitsReached is 0 when a rule was broken before the hash was
// needed. A stale share may still solve another chain's block, and one of the block
// before: whichever of two blocks nodes hear of first wins. One that breaks a rule
// may not.
func (s *session) check(w *work, difficulty bitcoin.Difficulty, sub *submission, now time.Time, sc *scratch) (status share.Status, bitsReached uint32) {
	sc.solved = false
	status = s.legal(w, sub, now)
	jobs := sub.chain.jobs
	stale := jobs.stale(w)
	late := stale && jobs.late(w, now)
	race := stale && jobs.justLeft(w)
	switch {
	case stale && (status != share.StatusAccept || !race && !w.merged.any()):
		return share.StatusStale, 0
	case status != share.StatusAccept:
		return status, 0
	}
	version := uint32(w.Version)
	if sub.Rolled { // all bits that may be are clear in jobs
		version |= sub.VersionBits
	}
	hash := w.hash(sc, s.ID, sub, version)
	dev := s.srv.cfg.Development
	if w.merged.solvedBy(&hash, dev.SubmitInvalidBlocks) {
		sc.solved = true
		s.solvedMerged(w, hash, sub, sc)
	}
	if (!stale || race) && (w.target.Met(&hash) && !jobs.outOfTime(w, sub.Time) || dev.SubmitInvalidBlocks) {
		sc.solved = true
		s.solved(w, hash, sub, sc)
	}
	if stale && !late {
		return share.StatusStale, 0
	}
	reached := bitcoin.BitsOfHash(&hash)
	switch {
	case !difficulty.Target().Met(&hash) && !dev.Simulator:
		return share.StatusLowDifficulty, reached
	case sub.stranger: // unless it is a block, which is too good to lose, nobody has it
		return share.StatusUnauthorized, reached
	case stale:
		return share.StatusAcceptStale, reached
	}
	return share.StatusAccept, reached
}

// legal applies the rules on what a miner may change in a header.
func (s *session) legal(w *work, sub *submission, now time.Time) share.Status {
	latest := min(int64(w.Time)+maxTimeAhead, now.Add(bitcoin.MaxFutureBlockTime).Unix())
	switch {
	case sub.Time < w.MinTime:
		return share.StatusTimeTooOld
	case int64(sub.Time) > latest:
		return share.StatusTimeTooNew
	case sub.VersionBits&^s.versionBits() != 0:
		return share.StatusIllegalVersionMask
	}
	return share.StatusAccept
}

// versionBits are those that the miner may roll: what was agreed upon (BIP 310), or what anybody may, since many do not
// ask and their blocks are valid.
func (s *session) versionBits() uint32 {
	if s.VersionMask != 0 {
		return s.VersionMask
	}
	return s.srv.versionMask
}

// log puts the share into the spool.
func (s *session) log(w *work, difficulty bitcoin.Difficulty, sub *submission, status share.Status, bitsReached uint32, now time.Time) (seq uint64, err error) {
	entry := share.Share{
		ID:          share.ID{Server: uint8(s.srv.serverID.Load()), Epoch: sub.chain.shares.Epoch()},
		JobID:       uint64(w.ID),
		WorkerID:    sub.worker.ID,
		UserID:      sub.userID,
		Status:      status,
		Time:        now.Unix(),
		IP:          s.IP,
		Difficulty:  difficulty,
		Bits:        w.Bits,
		Height:      uint32(w.Height),
		Nonce:       sub.Nonce,
		SessionID:   s.ID,
		VersionBits: sub.VersionBits,
		BitsReached: bitsReached,
	}
	if one := &sub.chain.cfg.SingleUser; one.Mode {
		entry.UserID, entry.ExtUserID = one.ids(sub.userID)
	} else if sub.coinbase == 0 {
		entry.ExtUserID = sub.chain.cfg.SubPool.ExtUserID
	}
	return sub.chain.shares.Append(uint64(sub.worker.ID), func(dst []byte, seq uint64) []byte {
		entry.ID.Seq = seq
		return entry.AppendTo(dst)
	})
}

// solved hands a block over before anything else happens to its share. The block is in sc.
func (s *session) solved(w *work, hash chainhash.Hash, sub *submission, sc *scratch) {
	c, by := sub.chain, sub.worker
	block := solvedBy(w, sub, sc)
	message := share.WithName(block.WorkerName, block.AppendTo(nil))
	c.metrics.solved.Inc()
	err := keep(c.blocks, by.ID, message)
	c.handover.Send(message) // also if this disk has failed
	event := c.log.Info()
	if err != nil {
		event = c.log.Error().Err(err).Hex("header", sc.header[:]).Hex("coinbase", sc.coinbase)
	}
	event.Stringer("hash", hash).Int32("height", w.Height).Str("worker", block.WorkerName).Msg("block solved")
}

func solvedBy(w *work, sub *submission, sc *scratch) share.Solved {
	one := &sub.chain.cfg.SingleUser
	user, _ := one.ids(sub.userID)
	return share.Solved{
		JobID:      uint64(w.ID),
		WorkerID:   sub.worker.ID,
		UserID:     user,
		Height:     w.Height,
		Header:     sc.header,
		WorkerName: one.fullName(sub.worker),
		Coinbase:   sc.coinbase,
	}
}

// keepGrace is how long the loop of who solved a block waits for the disk.
const keepGrace = time.Second

// keep returns when value is on this machine's disk, on its way to Kafka. It is the one thing that loops wait for:
// blocks are rare, and nothing else must happen before.
func keep(in *spool.Spool, workerID int64, value []byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), keepGrace)
	defer cancel()
	seq, err := in.Append(uint64(workerID), func(dst []byte, _ uint64) []byte { return append(dst, value...) })
	if err != nil {
		return err
	}
	return in.Wait(ctx, seq)
}

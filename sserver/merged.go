package sserver

import (
	"errors"
	"fmt"

	"github.com/btcsuite/btcd/chainhash/v2"

	"btcpool/internal/auxwork"
	"btcpool/internal/bitcoin"
	"btcpool/internal/job"
	"btcpool/internal/spool"
)

// merged holds the blocks of other chains that shares of a job may solve. The zero value says that there are none.
type merged struct {
	aux, rsk *bitcoin.Target // nil: none
	auxHash  chainhash.Hash
}

func (m *merged) any() bool { return m.aux != nil || m.rsk != nil }

// solvedBy reports whether a header with this hash solves one of the blocks, or whether there is one when any hash will
// do.
func (m *merged) solvedBy(hash *chainhash.Hash, anyHash bool) bool {
	return m.aux != nil && (anyHash || m.aux.Met(hash)) || m.rsk != nil && (anyHash || m.rsk.Met(hash))
}

// mergedMining reads what j says of other chains. One with a fault is left out: the error is no reason not to work on
// j.
func mergedMining(j *job.StratumJob) (m merged, err error) {
	if j.Aux.Bits != 0 {
		hash, errHash := chainhash.NewHashFromStr(j.Aux.BlockHash)
		target, errBits := bitcoin.TargetFromBits(j.Aux.Bits)
		if err := errors.Join(errHash, errBits); err != nil || len(j.Aux.BlockHash) != chainhash.MaxHashStringSize {
			return m, fmt.Errorf("aux work %.80q, bits %08x: %w", j.Aux.BlockHash, j.Aux.Bits, errors.Join(err, errMerged))
		}
		m.aux, m.auxHash = &target, *hash
	}
	if j.RSK.BlockHash != "" {
		var hash auxwork.RSKHash
		if err := hash.UnmarshalText([]byte(j.RSK.NetworkTarget)); err != nil {
			return m, fmt.Errorf("%w: RSK target: %w", errMerged, err)
		}
		target := hash.Target()
		m.rsk = &target
	}
	return m, nil
}

var errMerged = errors.New("merged mining is not possible")

// solvedMerged hands over the blocks of other chains that the share in sc solves.
func (s *session) solvedMerged(w *work, hash chainhash.Hash, sub *submission, sc *scratch) {
	c, by := sub.chain, sub.worker
	anyHash := s.srv.cfg.Development.SubmitInvalidBlocks
	if w.merged.aux != nil && (anyHash || w.merged.aux.Met(&hash)) {
		block := auxwork.AuxSolved{
			JobID:       uint64(w.ID),
			Hash:        w.merged.auxHash,
			Header:      sc.header,
			Coinbase:    sc.coinbase,
			RPCAddr:     w.Aux.RPCAddr,
			RPCUserPass: w.Aux.RPCUserPass,
		}
		s.handOverMerged(c.auxBlocks, block.AppendTo(nil), by, "aux", hash)
	}
	if w.merged.rsk != nil && (anyHash || w.merged.rsk.Met(&hash)) {
		block := auxwork.RSKSolved{
			Solved:       solvedBy(w, sub, sc),
			FeesForMiner: w.RSK.FeesForMiner,
			RPCAddr:      w.RSK.RPCAddr,
			RPCUserPass:  w.RSK.RPCUserPass,
		}
		s.handOverMerged(c.rskBlocks, block.AppendTo(nil), by, "rsk", hash)
	}
}

func (s *session) handOverMerged(to *spool.Spool, value []byte, by *worker, chain string, hash chainhash.Hash) {
	s.srv.metrics.solvedMerged.WithLabelValues(chain).Inc()
	event := s.srv.log.Info()
	if err := keep(to, by.ID, value); err != nil {
		event = s.srv.log.Error().Err(err)
	}
	event.Stringer("hash", hash).Str("chain", chain).Str("worker", by.fullName()).Msg("merged block solved")
}

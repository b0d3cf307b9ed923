package blkmaker

import (
	"context"
	"encoding/hex"
	"errors"
	"sync"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"

	"btcpool/internal/bitcoin"
	"btcpool/internal/bus"
	"btcpool/internal/job"
	"btcpool/internal/share"
	"btcpool/internal/store"
)

const (
	// templateWait is how long after a solved share its job and template are
	// waited for: topics are independent of each other.
	templateWait = 10 * time.Minute
	// keepSolved is how many concluded solved shares are remembered, so that
	// the second reader does not begin again with what the first has done.
	keepSolved = 1000
)

// solving knows the solved shares that are being worked on, and the last ones
// that were, by block hash.
type solving struct {
	mu        sync.Mutex
	concluded map[chainhash.Hash]chan struct{} // closed when there is no more to do
	order     []chainhash.Hash                 // of those whose channel is closed
}

func newSolving() solving {
	return solving{concluded: make(map[chainhash.Hash]chan struct{})}
}

// begin returns the channel of a block; first says that the caller has to do
// the work.
func (s *solving) begin(hash chainhash.Hash) (concluded chan struct{}, first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, ok := s.concluded[hash]; ok {
		return c, false
	}
	c := make(chan struct{})
	s.concluded[hash] = c
	return c, true
}

// open returns how many blocks are being worked on.
func (s *solving) open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.concluded) - len(s.order)
}

func (s *solving) conclude(hash chainhash.Hash) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.concluded[hash])
	if s.order = append(s.order, hash); len(s.order) > keepSolved {
		delete(s.concluded, s.order[0])
		s.order = s.order[1:]
	}
}

// solve begins with a solved share, unless it has begun already, and returns
// what is closed when all is done for it. That never happens when one of the
// contexts ends first: ctx ends waiting for what is not here yet, work ends
// submission and writing down.
func (s *Service) solve(ctx, work context.Context, m bus.Message) (<-chan struct{}, error) {
	arrived := time.Now()
	solved, err := share.ParseSolved(m.Value)
	if err != nil {
		return nil, err
	}
	hash := chainhash.Hash(bitcoin.DoubleSHA256(solved.Header[:]))
	concluded, first := s.solving.begin(hash)
	if !first {
		return concluded, nil
	}
	s.work.Go(func() {
		b := s.makeBlock(ctx, &solved, hash, m.Time)
		if b == nil {
			if ctx.Err() == nil {
				s.solving.conclude(hash)
			}
			return
		}
		blockHex := hex.EncodeToString(b.raw)
		if err := s.archive.write(b, blockHex); err != nil {
			s.log.Error().Err(err).Stringer("hash", b.hash).Msg("block not kept in data_dir; submitting it all the same")
		}
		s.metrics.prepare.Observe(time.Since(arrived).Seconds())
		state := make(chan store.BlockState, 1)
		s.work.Go(func() {
			if err := s.record(work, row(&solved, b, arrived), state); err == nil {
				s.solving.conclude(hash)
			}
		})
		state <- s.submit(work, b, blockHex)
	})
	return concluded, nil
}

// makeBlock returns the block of a solved share that was sent at the time
// sent, or nil after having said why there is none. It waits for job and
// template.
func (s *Service) makeBlock(ctx context.Context, solved *share.Solved, hash chainhash.Hash, sent time.Time) *block {
	log := s.log.With().Stringer("hash", hash).Uint64("job", solved.JobID).Int32("height", solved.Height).
		Str("worker", solved.WorkerName).Logger()
	log.Info().Msg("solved share")

	id := job.ID(solved.JobID)
	j, txs, err := s.cache.await(ctx, id, s.caughtUp)
	if errors.Is(err, errUnknown) {
		deadline, cancel := context.WithDeadline(ctx, sent.Add(templateWait))
		defer cancel()
		if deadline.Err() == nil {
			log.Warn().Err(err).Msg("solved share waits for its job and template")
		}
		j, txs, err = s.cache.await(ctx, id, deadline.Done())
	}
	if ctx.Err() != nil {
		return nil // it comes again
	}
	result := resultUnknown
	var b *block
	if err == nil {
		result = resultInvalid
		b, err = assemble(solved, j, txs)
	}
	if err != nil {
		s.metrics.solved.WithLabelValues(result).Inc()
		log.Error().Err(err).Hex("header", solved.Header[:]).Hex("coinbase", solved.Coinbase).Time("sent", sent).
			Msg("no block can be made of a solved share")
		return nil
	}
	return b
}

// row is what the database is told of a block.
func row(solved *share.Solved, b *block, now time.Time) store.Block {
	return store.Block{
		UserID:     solved.UserID,
		WorkerID:   solved.WorkerID,
		WorkerName: solved.WorkerName,
		JobID:      solved.JobID,
		Height:     b.height,
		Hash:       b.hash.String(),
		RewardSat:  b.rewardSat,
		Size:       len(b.raw),
		PrevHash:   b.header.PrevBlock.String(),
		Bits:       b.header.Bits,
		Version:    b.header.Version,
		CreatedAt:  now,
		State:      store.Submitted,
	}
}

// record writes a block down, and what the nodes said as soon as they did. It
// fails only when ctx ends.
func (s *Service) record(ctx context.Context, row store.Block, state <-chan store.BlockState) error {
	if err := s.withStore(ctx, "write found block", func(db *store.Store) error { return db.AddBlock(ctx, row) }); err != nil {
		return err
	}
	settled := <-state
	if ctx.Err() != nil {
		return ctx.Err() // the nodes were not heard out
	}
	if err := s.withStore(ctx, "write state of found block", func(db *store.Store) error {
		return db.SettleBlock(ctx, row.Hash, settled)
	}); err != nil {
		return err
	}
	s.wakeFollower()
	return nil
}

package blkmaker

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/rs/zerolog"

	"btcpool/internal/auxwork"
	"btcpool/internal/bitcoin"
	"btcpool/internal/bus"
	"btcpool/internal/job"
	"btcpool/internal/share"
	"btcpool/internal/store"
)

// templateWait is how long after a solved share its job and template are waited
// for: topics are independent of each other.
const templateWait = 10 * time.Minute

// errBusy says that too many solved shares are being worked on.
var errBusy = errors.New("too many solved shares are being worked on: check nodes and database")

// errCrowd says that too many solved shares wait for what they need.
var errCrowd = errors.New("too many solved shares wait for jobs and templates: check their topics, and who can write solved shares")

// worker is what works on solved shares: ctx ends waiting for what is not here yet, work ends submission and writing
// down. What is not done then is done after the next start.
type worker struct {
	*Service
	ctx, work context.Context
}

// takeDirect is for what sserver hands over: a nil error means that the solved share is on disk, and being worked on.
func (w worker) takeDirect(_ context.Context, message []byte) error {
	select {
	case w.room <- struct{}{}:
	default:
		return errBusy
	}
	return w.take(kindBlock, bus.Message{Time: time.Now(), Value: message}, position{})
}

// takeMessage is for what comes through Kafka.
func (w worker) takeMessage(kind kind, topic string, m bus.Message, live bool) error {
	select {
	case w.room <- struct{}{}:
	case <-w.ctx.Done():
		return w.ctx.Err()
	}
	from := position{topic, m.Partition, m.Offset, m.Mark().Checksum}
	if kind == kindBlock {
		m.Value = share.WithName(string(m.Key), m.Value)
	}
	if live { // whatever the clock says of who sent it
		m.Time = time.Now()
	}
	err := w.take(kind, m, from)
	if errors.Is(err, share.ErrSolved) || errors.Is(err, auxwork.ErrMessage) {
		if w.journal.read(from) {
			w.invalidMessage(topic, m, err)
		}
	}
	return nil // the journal has told what failed; the share comes again after a restart
}

// take makes a solved share ours and begins to work on it, unless that was done before. The caller has made room.
func (w worker) take(kind kind, m bus.Message, from position) error {
	arrived := time.Now()
	header, solve, err := w.parse(kind, m.Value)
	if err != nil {
		<-w.room
		return err
	}
	key := solvedKey{kind, bitcoin.DoubleSHA256(header[:])}
	sent := sentAt(m, time.Unix(int64(binary.LittleEndian.Uint32(header[68:])), 0))
	first, err := w.journal.take(key, m.Value, sent, from)
	if !first {
		<-w.room
		return err
	}
	way := wayDirect
	if from.Topic != "" {
		way = wayKafka
	}
	w.metrics.arrivals.WithLabelValues(string(kind), way).Inc()
	w.begin(key, solve, sent, arrived)
	return err
}

// resume works on what an earlier run has left.
func (w worker) resume() {
	for _, t := range w.journal.pending() {
		_, solve, err := w.parse(t.Kind, t.message)
		if err != nil {
			w.log.Error().Err(err).Stringer("hash", t.Hash).Msg("solved share of the journal cannot be read")
			w.journal.finish(t.solvedKey, resultInvalid)
			continue
		}
		w.log.Info().Stringer("hash", t.Hash).Msg("going on with a solved share of the journal")
		select {
		case w.room <- struct{}{}:
			w.begin(t.solvedKey, solve, t.sent, time.Now())
		case <-w.ctx.Done():
			return
		}
	}
}

// solveFunc does all there is to do for a solved share that was sent at the time sent and is here since arrived. It
// returns what became of it, or nothing when a context ended before that was known.
type solveFunc func(key solvedKey, sent, arrived time.Time) (result string)

// parse reads a solved share and returns its header and what is to be done.
func (w worker) parse(kind kind, message []byte) (header [80]byte, solve solveFunc, err error) {
	switch kind {
	case kindBlock:
		solved, err := share.ParseSolved(message)
		if err != nil {
			return header, nil, err
		}
		header = solved.Header
		if !w.journal.knows(solvedKey{kind, bitcoin.DoubleSHA256(header[:])}) {
			err = w.plausible(&solved)
		}
		if err != nil {
			return header, nil, err
		}
		solve = func(key solvedKey, sent, arrived time.Time) string { return w.solve(key, &solved, sent, arrived) }
	case kindAux:
		solved, err := auxwork.ParseAuxSolved(message)
		if err != nil {
			return header, nil, err
		}
		header = solved.Header
		solve = func(key solvedKey, sent, _ time.Time) string { return w.solveAux(key, &solved, sent) }
	case kindRSK:
		solved, err := auxwork.ParseRSKSolved(message)
		if err != nil {
			return header, nil, err
		}
		header = solved.Header
		solve = func(key solvedKey, sent, _ time.Time) string { return w.solveRSK(key, &solved, sent) }
	default:
		return header, nil, fmt.Errorf("solved share of unknown kind %q", kind)
	}
	return header, solve, nil
}

// farOff is how many blocks from the tip a solved share is that nobody needs.
const farOff = 1000

// plausible returns an error for a solved share that no block can come of, whatever its job is.
func (s *Service) plausible(solved *share.Solved) error {
	bits := binary.LittleEndian.Uint32(solved.Header[72:])
	target, err := bitcoin.TargetFromBits(bits)
	if err != nil {
		return fmt.Errorf("%w: %w", share.ErrSolved, err)
	}
	easiest, err := bitcoin.TargetFromBits(s.network.Params.PowLimitBits)
	if err != nil {
		return err
	}
	best, tip := s.best()
	switch {
	case !easiest.Met((*chainhash.Hash)(&target)):
		return fmt.Errorf("%w: bits %08x are easier than %s allows", share.ErrSolved, bits, s.network.Name)
	case solved.JobID == 0 || solved.Height < 1:
		return fmt.Errorf("%w: job %d of height %d", share.ErrSolved, solved.JobID, solved.Height)
	case best != nil && (solved.Height < tip-farOff || solved.Height > tip+farOff):
		return fmt.Errorf("%w: height %d, while the chain is at %d", share.ErrSolved, solved.Height, tip)
	}
	return nil
}

// begin works on a solved share until it is done or a context ends.
func (w worker) begin(key solvedKey, solve solveFunc, sent, arrived time.Time) {
	w.tasks.Go(func() {
		defer func() { <-w.room }()
		if result := solve(key, sent, arrived); result != "" {
			w.journal.finish(key, result)
		}
	})
}

// solve makes a block of a solved share, submits it and writes it down. It returns what became of it, or nothing when a
// context ended before that was known.
func (w worker) solve(key solvedKey, solved *share.Solved, sent, arrived time.Time) (result string) {
	b, result := w.makeBlock(key, solved, sent)
	if b == nil {
		return result
	}
	if b.raw == nil {
		return w.recordAlone(key, row(solved, b, sent))
	}
	w.journal.make(key, &made{Size: b.size, SubPool: b.subPool})
	blockHex := hex.EncodeToString(b.raw)
	w.metrics.prepare.Observe(time.Since(arrived).Seconds())
	settled := make(chan store.BlockState, 1)
	recorded := make(chan error, 1)
	go func() { recorded <- w.record(w.work, key, row(solved, b, sent), settled) }()
	state, result := w.submit(w.work, key, b, blockHex, func() {
		// Not before: 3 MB to the disk would hold up the 3 MB to the nodes.
		w.tasks.Go(func() {
			if err := w.archive.write(b, blockHex); err != nil {
				w.log.Error().Err(err).Stringer("hash", b.hash).Msg("block not kept in data_dir")
			}
		})
	})
	if result != "" {
		settled <- state
	}
	close(settled)
	if err := <-recorded; err != nil {
		return ""
	}
	return result
}

// recordAlone writes down a block that an earlier run has submitted.
func (w worker) recordAlone(key solvedKey, row store.Block) (result string) {
	settled := make(chan store.BlockState, 1)
	settled <- store.Submitted // its follower asks the nodes
	if err := w.record(w.work, key, row, settled); err != nil {
		return ""
	}
	w.metrics.solved.WithLabelValues(resultRecorded).Inc()
	return resultRecorded
}

// makeBlock returns the block of a solved share that was sent at the time sent, or what became of it instead; that is
// nothing when ctx ended. It waits for job and template, unless an earlier run has had them.
func (w worker) makeBlock(key solvedKey, solved *share.Solved, sent time.Time) (b *block, result string) {
	log := w.log.With().Stringer("hash", key.Hash).Uint64("job", solved.JobID).Int32("height", solved.Height).
		Str("worker", solved.WorkerName).Logger()
	log.Debug().Msg("solved share")
	if before := w.journal.madeOf(key); before != nil {
		if b, err := w.madeBefore(before, solved); err == nil {
			return b, ""
		}
	}
	j, txs, err := w.await(solved.JobID, sent, log)
	if err != nil && w.ctx.Err() != nil {
		return nil, ""
	}
	result = resultUnknown
	if err == nil {
		result = resultInvalid
		b, err = assemble(solved, j, txs)
	}
	if err != nil {
		w.metrics.solved.WithLabelValues(result).Inc()
		log.Error().Err(err).Hex("header", solved.Header[:]).Hex("coinbase", solved.Coinbase).Time("sent", sent).
			Msg("no block can be made of a solved share")
	}
	return b, result
}

// madeBefore returns the block that an earlier run has made of a solved share: of its file, of its job, or without raw
// when neither is there any more.
func (w worker) madeBefore(before *made, solved *share.Solved) (*block, error) {
	b, _, err := bare(solved)
	if err != nil {
		return nil, err
	}
	b.subPool = before.SubPool
	if w.archive.restore(b) {
		return b, nil
	}
	if j, txs, _, err := w.cache.find(job.ID(solved.JobID)); err == nil {
		return assemble(solved, j, txs)
	}
	b.size = before.Size
	return b, nil
}

// await returns job and transactions of a share that was sent at the time sent, when they are here; the error wraps
// errUnknown when they do not come.
func (w worker) await(id uint64, sent time.Time, log zerolog.Logger) (*job.StratumJob, []string, error) {
	j, txs, _, err := w.cache.find(job.ID(id))
	if !errors.Is(err, errUnknown) {
		return j, txs, err
	}
	select {
	case w.waiting <- struct{}{}:
	default:
		return nil, nil, fmt.Errorf("%w: %w", err, errCrowd)
	}
	<-w.room // for those that need not wait
	defer func() { w.room <- struct{}{}; <-w.waiting }()
	j, txs, err = w.cache.await(w.ctx, job.ID(id), w.caughtUp)
	if !errors.Is(err, errUnknown) {
		return j, txs, err
	}
	deadline, cancel := context.WithDeadline(w.ctx, sent.Add(templateWait))
	defer cancel()
	if deadline.Err() == nil {
		log.Warn().Err(err).Msg("solved share waits for its job and template")
	}
	return w.cache.await(w.ctx, job.ID(id), deadline.Done())
}

// row is what the database is told of a block.
func row(solved *share.Solved, b *block, found time.Time) store.Block {
	return store.Block{
		UserID:     solved.UserID,
		WorkerID:   solved.WorkerID,
		WorkerName: solved.WorkerName,
		JobID:      solved.JobID,
		Height:     b.height,
		Hash:       b.hash.String(),
		RewardSat:  b.rewardSat,
		Size:       b.size,
		PrevHash:   b.header.PrevBlock.String(),
		Bits:       b.header.Bits,
		Version:    b.header.Version,
		CreatedAt:  found,
		State:      store.Submitted,
		SubPool:    b.subPool,
	}
}

// record writes a block down, and what the nodes said as soon as they did. It fails only when ctx ends.
func (s *Service) record(ctx context.Context, key solvedKey, row store.Block, settled <-chan store.BlockState) error {
	if err := s.withStore(ctx, "write found block", func(db *store.Store) error { return db.AddBlock(ctx, row) }); err != nil {
		return err
	}
	s.journal.wrote(key)
	state, ok := <-settled
	if !ok {
		return ctx.Err() // the nodes were not heard out
	}
	if err := s.withStore(ctx, "write state of found block", func(db *store.Store) error {
		return db.SettleBlock(ctx, row.Hash, state)
	}); err != nil {
		return err
	}
	s.follow.Ring()
	return nil
}

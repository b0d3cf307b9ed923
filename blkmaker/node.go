package blkmaker

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"btcpool/internal/bitcoin/noderpc"
	"btcpool/internal/store"
)

const (
	// watchEvery is how often a node is asked for its tip; it keeps the
	// connection open that a block will take.
	watchEvery = 5 * time.Second
	// submitFor is how long a node that is away is waited for. By then others
	// have built on the parent of the block.
	submitFor = time.Hour
)

// node is one of the nodes that get every block.
type node struct {
	label  string // in metrics and logs: the place in the configuration, from 0
	client *noderpc.Client
	state  atomic.Pointer[nodeState]
}

// nodeState is the last answer of a node.
type nodeState struct {
	tip noderpc.ChainInfo
	err error
}

func newNodes(cfgs []noderpc.Config) ([]*node, error) {
	nodes := make([]*node, len(cfgs))
	for i, cfg := range cfgs {
		client, err := noderpc.New(cfg)
		if err != nil {
			return nil, fmt.Errorf("nodes[%d]: %w", i, err)
		}
		nodes[i] = &node{label: strconv.Itoa(i), client: client}
		nodes[i].state.Store(&nodeState{err: errors.New("not asked yet")})
	}
	return nodes, nil
}

// watch keeps the state of a node.
func (s *Service) watch(ctx context.Context, n *node) error {
	log := s.log.With().Str("node", n.label).Str("url", n.client.URL()).Logger()
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for first := true; ; first = false {
		tip, err := n.client.ChainInfo(ctx)
		if err == nil && tip.Chain != s.network.Chain {
			err = fmt.Errorf("is on chain %q, but network = %q", tip.Chain, s.network.Name)
		}
		if ctx.Err() != nil {
			return nil
		}
		was := n.state.Swap(&nodeState{tip, err})
		switch {
		case err != nil && (first || was.err == nil):
			log.Error().Err(err).Msg("node cannot be used")
		case err == nil && was.err != nil:
			log.Info().Int32("height", tip.Blocks).Msg("node answers")
		}
		if err == nil && tip.BestBlockHash != was.tip.BestBlockHash {
			s.wakeFollower()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// best returns the usable node with the highest chain and that height, or nil.
func (s *Service) best() (best *node, tip int32) {
	for _, n := range s.nodes {
		if state := n.state.Load(); state.err == nil && (best == nil || state.tip.Blocks > tip) {
			best, tip = n, state.tip.Blocks
		}
	}
	return best, tip
}

// Answers to submitblock, as the label verdict.
const (
	verdictAccepted     = "accepted"
	verdictDuplicate    = "duplicate" // the node had it already
	verdictInconclusive = "inconclusive"
	verdictRejected     = "rejected"
	verdictError        = "error" // no answer, or one about the node and not about the block
)

// submit gives a block to all nodes and returns Accepted when the first of them
// has it, Rejected when all have refused it, and Submitted when the nodes leave
// it open, or ctx ended.
func (s *Service) submit(ctx context.Context, b *block, blockHex string) store.BlockState {
	log := s.log.With().Stringer("hash", b.hash).Int32("height", b.height).Logger()
	verdicts := make(chan string, len(s.nodes))
	enough := make(chan struct{})
	defer close(enough)
	for _, n := range s.nodes {
		s.work.Go(func() { verdicts <- s.submitTo(ctx, n, blockHex, enough, log) })
	}
	rejected, inconclusive := 0, 0
	for range s.nodes {
		switch <-verdicts {
		case verdictAccepted, verdictDuplicate:
			s.metrics.solved.WithLabelValues(resultAccepted).Inc()
			log.Info().Int64("reward_sat", b.rewardSat).Int("bytes", len(b.raw)).Msg("block accepted")
			return store.Accepted
		case verdictRejected:
			rejected++
		case verdictInconclusive:
			inconclusive++
		}
	}
	switch {
	case ctx.Err() != nil:
		return store.Submitted
	case rejected == len(s.nodes):
		s.metrics.solved.WithLabelValues(resultRejected).Inc()
		log.Error().Msg("block rejected by every node")
		return store.Rejected
	}
	s.metrics.solved.WithLabelValues(resultUndecided).Inc()
	if inconclusive > 0 {
		log.Warn().Msg("block is stored by a node but not on its chain: another one of that height was first")
	} else {
		log.Error().Str("dir", string(s.archive)).Msg("no node has taken the block: check the nodes; the block is kept in dir, to be submitted by hand")
	}
	return store.Submitted
}

// submitTo gives a block to one node, again and again until it decides, or
// enough is closed: another node has the block and passes it on.
func (s *Service) submitTo(ctx context.Context, n *node, blockHex string, enough <-chan struct{}, log zerolog.Logger) string {
	ctx, cancel := context.WithTimeout(ctx, submitFor)
	defer cancel()
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 10*time.Second) {
		start := time.Now()
		answer, err := n.client.SubmitBlock(ctx, blockHex)
		took := time.Since(start)
		verdict, final := judge(answer, err)
		s.metrics.submissions.WithLabelValues(n.label, verdict).Inc()
		s.metrics.submit.WithLabelValues(n.label).Observe(took.Seconds())
		level := zerolog.InfoLevel
		if verdict == verdictRejected || verdict == verdictError {
			level = zerolog.WarnLevel
		}
		log.WithLevel(level).Str("node", n.label).Str("verdict", verdict).Str("reason", answer.Reason).AnErr("error", err).
			Dur("latency_ms", took).Bool("final", final).Msg("block submitted")
		if final {
			return verdict
		}
		select {
		case <-ctx.Done():
			return verdict
		case <-enough:
			return verdict
		case <-time.After(wait):
		}
	}
}

// judge puts a node's answer into one word; one that is not final may change
// when the block is submitted again.
func judge(answer noderpc.Verdict, err error) (verdict string, final bool) {
	const cannotDecode = -22 // Bitcoin Core's and btcd's RPC_DESERIALIZATION_ERROR
	if refusal := (*noderpc.Error)(nil); errors.As(err, &refusal) && refusal.Code == cannotDecode {
		return verdictRejected, true
	}
	if err != nil {
		return verdictError, false
	}
	switch answer.Outcome {
	case noderpc.Accepted:
		return verdictAccepted, true
	case noderpc.Duplicate:
		return verdictDuplicate, true
	case noderpc.Inconclusive:
		return verdictInconclusive, true
	}
	// A node that lags behind gets the parent later, and clocks go on.
	passing := answer.Reason == "prev-blk-not-found" || answer.Reason == "time-too-new"
	return verdictRejected, !passing
}

// locate returns where the node has a block, nil when it does not know it.
func (n *node) locate(ctx context.Context, hash string) (*noderpc.BlockInfo, error) {
	info, err := n.client.Block(ctx, hash)
	if errors.Is(err, noderpc.ErrUnknownBlock) {
		return nil, nil
	}
	return &info, err
}

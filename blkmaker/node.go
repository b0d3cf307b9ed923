package blkmaker

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"btcpool/internal/bitcoin/noderpc"
	"btcpool/internal/config"
	"btcpool/internal/retry"
	"btcpool/internal/service"
	"btcpool/internal/store"
)

// watchEvery is how often a node is asked for its tip; it keeps the connection open that a block will take.
const watchEvery = 5 * time.Second

// retryPace is how a node is asked again that does not have a block on its chain.
func retryPace() retry.Pace {
	return retry.Pace{First: 100 * time.Millisecond, Longest: 10 * time.Second}
}

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

// newNodes makes clients, without calling, and has closing close them.
func newNodes(cfgs []noderpc.Config, closing *service.Closing) ([]*node, error) {
	nodes := make([]*node, len(cfgs))
	for i, cfg := range cfgs {
		client, err := noderpc.New(cfg)
		if err != nil {
			return nil, config.In(fmt.Sprintf("nodes[%d]", i), err)
		}
		closing.Add(func() error { client.Close(); return nil })
		nodes[i] = &node{label: strconv.Itoa(i), client: client}
		nodes[i].state.Store(&nodeState{err: errors.New("not asked yet")})
	}
	return nodes, nil
}

// ask asks a node for its tip, which must be of our chain.
func (s *Service) ask(ctx context.Context, n *node) *nodeState {
	tip, err := n.client.ChainInfo(ctx)
	if err == nil && tip.Chain != s.network.Chain {
		err = fmt.Errorf("is on chain %q, but network = %q", tip.Chain, s.network.Name)
	}
	return &nodeState{tip, err}
}

// watch keeps the state of a node.
func (s *Service) watch(ctx context.Context, n *node) error {
	log := s.log.With().Str("node", n.label).Str("url", n.client.URL()).Logger()
	for first := true; ; first = false {
		now := s.ask(ctx, n)
		if ctx.Err() != nil {
			return nil
		}
		was := n.state.Swap(now)
		switch {
		case now.err != nil && (first || was.err == nil):
			log.Error().Err(now.err).Msg("node cannot be used")
		case now.err == nil && was.err != nil:
			log.Info().Int32("height", now.tip.Blocks).Msg("node answers")
		}
		if now.err == nil && now.tip.BestBlockHash != was.tip.BestBlockHash {
			s.follow.Ring()
		}
		if !retry.Sleep(ctx, watchEvery) {
			return nil
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

// submission is a block on its way to all nodes.
type submission struct {
	*block
	key      solvedKey
	hex      string // the text of raw
	log      zerolog.Logger
	answered func()        // called each time when a node has answered
	enough   chan struct{} // closed when one node is enough
}

// submit gives a block to all nodes, until one has it on its chain, all have refused it, or it is given up.
// It returns what the database is to be told and what became of the solved share; that is nothing when ctx ended. It
// calls answered once, when the first node has answered.
func (s *Service) submit(ctx context.Context, key solvedKey, b *block, blockHex string, answered func()) (state store.BlockState, result string) {
	log := s.log.With().Stringer("hash", b.hash).Int32("height", b.height).Logger()
	sub := &submission{b, key, blockHex, log, sync.OnceFunc(answered), make(chan struct{})}
	defer close(sub.enough)
	states := make(chan store.BlockState, len(s.nodes))
	for _, n := range s.nodes {
		s.tasks.Go(func() { states <- s.submitTo(ctx, n, sub) })
	}
	rejected := 0
	for range s.nodes {
		switch <-states {
		case store.Accepted:
			s.metrics.solved.WithLabelValues(resultAccepted).Inc()
			log.Info().Int64("reward_sat", b.rewardSat).Int("bytes", len(b.raw)).Msg("block accepted")
			return store.Accepted, resultAccepted
		case store.Rejected:
			rejected++
		}
	}
	switch {
	case ctx.Err() != nil:
		return "", ""
	case rejected == len(s.nodes):
		s.metrics.solved.WithLabelValues(resultRejected).Inc()
		log.Error().Msg("block rejected by every node")
		return store.Rejected, resultRejected
	}
	s.metrics.solved.WithLabelValues(resultUndecided).Inc()
	log.Warn().Str("dir", string(s.archive)).Msg("block is submitted no more, and on no node's chain: it is kept in dir for a week")
	return store.Submitted, resultUndecided
}

// submitTo gives a block to one node. It returns Accepted when the node has the block on its chain, Rejected when the
// node does not want it, and Submitted when neither is so until the block is buried under others, it makes
// room for others, ctx ends, or another node has it and passes it on.
func (s *Service) submitTo(ctx context.Context, n *node, b *submission) store.BlockState {
	last := ""      // verdict
	stored := false // the node has the block, beside its chain
	for pauses := retryPace().Pauses(); ; {
		if !stored {
			verdict, final := s.offer(ctx, n, b, last)
			if final {
				return store.Rejected
			}
			last = verdict
		}
		where, err := n.locate(ctx, b.hash.String())
		switch {
		case err != nil: // asked again
		case where == nil: // refused for now; or btcd, which says nothing of it, lacks the parent
			stored = false
		case where.Confirmations > 0:
			return store.Accepted
		default:
			stored = true
		}
		if best, tip := s.best(); best != nil {
			needless := err == nil && (stored || b.height > tip+buriedBy)
			if tip >= b.height+buriedBy || needless && s.crowded() {
				return store.Submitted
			}
		}
		select {
		case <-ctx.Done():
			return store.Submitted
		case <-b.enough:
			return store.Submitted
		case <-time.After(pauses.NextBackOff()):
		}
	}
}

// crowded reports whether so many solved shares are being worked on that none keeps its room for a block that a node has
// beside its chain, or cannot have before it has many others: the next one may be on the tip. Whoever follows the chain
// goes on with it. So many come at once only where blocks cost nothing, and a node has lost its chain.
func (s *Service) crowded() bool { return len(s.room) > cap(s.room)/2 }

// offer submits a block to a node and keeps what the node says, unless it said the same the last time.
func (s *Service) offer(ctx context.Context, n *node, b *submission, last string) (verdict string, final bool) {
	start := time.Now()
	answer, err := n.client.SubmitBlock(ctx, b.hex)
	took := time.Since(start)
	b.answered()
	verdict, final = judge(answer, err)
	s.metrics.submissions.WithLabelValues(n.label, verdict).Inc()
	s.metrics.submit.WithLabelValues(n.label).Observe(took.Seconds())
	if verdict == last {
		return verdict, final
	}
	level := zerolog.InfoLevel
	if verdict == verdictRejected || verdict == verdictError {
		level = zerolog.WarnLevel
	}
	b.log.WithLevel(level).Str("node", n.label).Str("verdict", verdict).Str("reason", answer.Reason).AnErr("error", err).
		Dur("latency_ms", took).Bool("final", final).Msg("block submitted")
	s.journal.answer(b.key, n.label, verdict, answer.Reason)
	return verdict, final
}

// judge puts a node's answer into one word. Only a rejection can be final: an acceptance has to be confirmed.
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
		return verdictAccepted, false
	case noderpc.Duplicate:
		return verdictDuplicate, false
	case noderpc.Inconclusive:
		return verdictInconclusive, false
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

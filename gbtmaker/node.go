package gbtmaker

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/rs/zerolog"

	"btcpool/internal/bitcoin"
	"btcpool/internal/bitcoin/noderpc"
	"btcpool/internal/job"
	"btcpool/internal/retry"
)

const (
	// lookInterval is how often a node is asked for its tip, and lookTimeout how long it may take to answer: a node
	// that hangs is left after both.
	lookInterval = 2 * time.Second
	lookTimeout  = 3 * time.Second
	// firstRetry is the first pause after a failure; the longest is lookInterval.
	firstRetry = 250 * time.Millisecond
	// lagGrace is how long a node may be behind the others: a block takes a while to reach all of them and to be
	// checked.
	lagGrace = 3 * time.Second
	// maxMissing is how many blocks a node may have only the headers of. A header comes before its block.
	maxMissing = 2
)

// Reasons for not using a node or its template, as the metrics name them.
const (
	reasonRPC      = "rpc"      // no answer, or not one of a node
	reasonChain    = "chain"    // another network, or still downloading
	reasonTemplate = "template" // something that jobs need is missing or wrong, or a rule is unknown
	reasonBits     = "bits"     // its difficulty cannot be
	reasonTime     = "time"     // too far in the future
	reasonLag      = "lag"      // lower than the other nodes or the last template
	reasonBranch   = "branch"   // on a branch with less work than another node's
)

// fault is why a node is not used.
type fault struct {
	reason string
	err    error
}

// node is one of the nodes that templates are taken from.
type node struct {
	label  string // in metrics and logs: the place in the configuration, from 0
	client *noderpc.Client
	zmq    string // address of hashblock; "": it has none
	log    zerolog.Logger

	blocks   chan chainhash.Hash // the newest block that it announced; holds one
	polled   chan []byte         // answers to long polls
	notified retry.Bell          // /notify says that there is a new block
	doubted  retry.Bell          // one way to the node has failed: is it still there?

	// The state is guarded by Service.mu.
	fault   *fault         // nil: can be used
	tip     int32          // height of its newest block
	latest  *template      // nil until there is one
	changed chan struct{}  // closed and replaced with latest
	left    chainhash.Hash // block that its chain was reorganised away from
	asked   chain          // what it said when it was last asked
	work    bitcoin.Work   // in its chain up to tip; zero: it does not tell
	heard   bool           // it has answered, or failed to, once
	behind  time.Time      // since when the node is worse than the others; zero: it is not

	disagrees int32 // since which block it is on another branch; only compareBranches uses it
}

func newNode(i int, cfg noderpc.Config, log zerolog.Logger) (*node, error) {
	client, err := noderpc.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("nodes[%d]: %w", i, err)
	}
	label := strconv.Itoa(i)
	return &node{
		label:    label,
		client:   client,
		zmq:      cfg.ZMQ,
		log:      log.With().Str("node", label).Str("url", client.URL()).Logger(),
		blocks:   make(chan chainhash.Hash, 1),
		polled:   make(chan []byte),
		notified: retry.NewBell(),
		doubted:  retry.NewBell(),
		fault:    &fault{err: errors.New("not asked yet")},
		changed:  make(chan struct{}),
	}, nil
}

// follow keeps the state of n until ctx ends.
func (s *Service) follow(ctx context.Context, n *node) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	pauses := retry.Pace{First: firstRetry, Longest: lookInterval}.Pauses()
	for {
		var t *template
		var f *fault
		select {
		case <-ctx.Done():
			return
		case hash := <-n.blocks:
			t, f = s.takeBlock(ctx, n, hash)
		case response := <-n.polled:
			t, f = s.takePolled(ctx, n, response)
		case <-n.notified:
			t, f = s.takeLook(ctx, n, byNotify)
		case <-n.doubted:
			t, f = s.takeLook(ctx, n, byPeriod)
		case <-timer.C:
			t, f = s.takeLook(ctx, n, byPeriod)
		}
		if ctx.Err() != nil {
			return
		}
		if s.settle(n, t, f, time.Now()) {
			pauses.Reset()
			timer.Reset(min(max(s.untilDue(n, time.Now()), minInterval), lookInterval))
		} else {
			timer.Reset(pauses.NextBackOff())
		}
	}
}

// takeBlock fetches a template because n has announced a block. A node that has been fine so far is not looked at
// first.
func (s *Service) takeBlock(ctx context.Context, n *node, hash chainhash.Hash) (*template, *fault) {
	fine, latest := s.stateOf(n)
	if !fine {
		return s.takeLook(ctx, n, byZMQ)
	}
	if latest.PrevHash == hash { // a long poll was faster
		return nil, nil
	}
	return s.fetchBridged(ctx, n, byZMQ, &hash)
}

// takePolled takes the answer to a long poll.
func (s *Service) takePolled(ctx context.Context, n *node, response []byte) (*template, *fault) {
	received := time.Now()
	if fine, _ := s.stateOf(n); !fine {
		if _, f := s.ask(ctx, n); f != nil {
			return nil, f
		}
	}
	return s.read(ctx, n, byLongPoll, answerOf(response), received)
}

// takeLook looks at n, and fetches a template if that is due or the chain is another.
func (s *Service) takeLook(ctx context.Context, n *node, trigger string) (*template, *fault) {
	tip, f := s.ask(ctx, n)
	if f != nil {
		return nil, f
	}
	fine, latest := s.stateOf(n)
	if fine && latest.PrevHash.String() == tip && s.untilDue(n, time.Now()) > 0 {
		return nil, nil
	}
	if !fine {
		return s.fetch(ctx, n, trigger)
	}
	return s.fetchBridged(ctx, n, trigger, nil)
}

// fetchBridged takes a template from n, which was fine so far, while miners get an empty one if that takes long: on the
// block that n has announced, if any, and on those that it announces meanwhile. One that the template is not on yet is
// left in n.blocks.
func (s *Service) fetchBridged(ctx context.Context, n *node, trigger string, announced *chainhash.Hash) (*template, *fault) {
	var t *template
	var f *fault
	fetched := make(chan struct{})
	go func() {
		defer close(fetched)
		t, f = s.fetch(ctx, n, trigger)
	}()
	stop := func() {}
	for block, news := announced, false; ; news = true {
		if block != nil {
			stop()
			_, latest := s.stateOf(n)
			stop = s.bridge(ctx, n, latest, *block)
		}
		select {
		case <-fetched:
			stop()
			if news && (t == nil || t.PrevHash != *block) {
				select {
				case n.blocks <- *block:
				default: // there is a newer one
				}
			}
			return t, f
		case hash := <-n.blocks:
			block = &hash
		}
	}
}

// stateOf reports whether n can be used, and its newest template, which then exists.
func (s *Service) stateOf(n *node) (fine bool, latest *template) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return n.fault == nil && n.latest != nil, n.latest
}

// untilDue returns how long the newest template of n serves, if nothing happens.
func (s *Service) untilDue(n *node, now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n.latest == nil {
		return 0
	}
	due := n.latest.received.Add(s.interval)
	if easier := n.latest.easier; !easier.IsZero() && easier.Before(due) {
		due = easier
	}
	if c := s.chosen; c != nil && c.node == n {
		if repeat := c.received.Add(s.repeat); repeat.Before(due) {
			due = repeat
		}
	}
	return max(due.Sub(now), 0)
}

// ask returns the hash of n's newest block, or why no templates should be taken from it.
func (s *Service) ask(ctx context.Context, n *node) (tip string, _ *fault) {
	start := time.Now()
	askCtx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	info, err := n.client.ChainInfo(askCtx)
	s.metrics.latency.WithLabelValues(n.label).Set(time.Since(start).Seconds())
	switch {
	case askCtx.Err() != nil && err != nil:
		return "", &fault{reasonRPC, fmt.Errorf("getblockchaininfo: no answer from the node at %s within %s", n.client.URL(), lookTimeout)}
	case err != nil:
		return "", &fault{reasonRPC, err}
	case info.Chain != s.network.Chain:
		return "", &fault{reasonChain, fmt.Errorf("node at %s is on the chain %q, network = %q needs %q", n.client.URL(), info.Chain, s.network.Name, s.network.Chain)}
	// A node thinks that it is downloading whenever its last block is old.
	case info.InitialBlockDownload && !s.network.OnDemand && info.Blocks == info.Headers:
		return "", &fault{reasonChain, fmt.Errorf("node at %s is not synced yet: its newest block, %d, is old: has it peers?", n.client.URL(), info.Blocks)}
	case info.InitialBlockDownload && !s.network.OnDemand, info.Headers-info.Blocks > maxMissing:
		return "", &fault{reasonChain, fmt.Errorf("node at %s is still downloading the chain: it has %d of %d blocks", n.client.URL(), info.Blocks, info.Headers)}
	}
	told := chainOf(info)
	s.mu.Lock()
	n.asked = told
	s.mu.Unlock()
	s.setTip(n, told.height, told.work)
	return info.BestBlockHash, nil
}

func (s *Service) setTip(n *node, height int32, work bitcoin.Work) {
	s.mu.Lock()
	n.tip, n.work = height, work
	s.mu.Unlock()
	s.metrics.nodeHeight.WithLabelValues(n.label).Set(float64(height))
}

// fetch takes a template from n.
func (s *Service) fetch(ctx context.Context, n *node, trigger string) (*template, *fault) {
	start := time.Now()
	a, err := n.blockTemplate(ctx)
	if err != nil {
		return nil, &fault{reasonRPC, err}
	}
	received := time.Now()
	s.metrics.rpcSeconds.WithLabelValues(n.label).Observe(received.Sub(start).Seconds())
	return s.read(ctx, n, trigger, a, received)
}

// read makes a template of a node's answer.
func (s *Service) read(ctx context.Context, n *node, trigger string, a answer, received time.Time) (*template, *fault) {
	parsed, err := job.ParseTemplate(a.text)
	if err != nil {
		return nil, &fault{reasonTemplate, fmt.Errorf("node at %s: %w", n.client.URL(), err)}
	}
	s.mu.Lock()
	last := s.fresh(received)
	s.mu.Unlock()
	work, f := s.workBelow(ctx, n, parsed)
	if f != nil {
		return nil, f
	}
	f = s.refuse(parsed, last, received)
	if f != nil && f.reason == reasonBits && last != nil && s.onAnotherBranch(ctx, n, work, last) {
		f = s.refuse(parsed, nil, received) // it is last that is wrong
	}
	if f != nil {
		f.err = fmt.Errorf("node at %s: %w", n.client.URL(), f.err)
		return nil, f
	}
	if last != nil && parsed.Height < last.Height {
		if err := s.lookForReorganisation(ctx, n, last); err != nil {
			return nil, &fault{reasonRPC, err}
		}
	}
	s.setTip(n, parsed.Height-1, work)
	s.mu.Lock()
	if parsed.PrevHash == n.left { // it is back
		n.left = chainhash.Hash{}
	}
	s.mu.Unlock()
	t := &template{Template: parsed, node: n, trigger: trigger, received: received, work: work, answer: a}
	t.easier = s.easierAt(ctx, t)
	return t, nil
}

// easierAt returns when blocks on that of t get easier, by the rule of testnets that nobody need wait long for one;
// zero: not any more, or unknown.
func (s *Service) easierAt(ctx context.Context, t *template) time.Time {
	p := s.network.Params
	if !s.network.EasyBlocks() || t.Bits == p.PowLimitBits {
		return time.Time{}
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	info, err := t.node.client.Block(ctx, t.PrevHash.String())
	if err != nil || info.Time == 0 {
		return time.Time{}
	}
	// By the node's clock, and after the last second of the others.
	left := time.Duration(info.Time-int64(t.CurTime)+1)*time.Second + p.MinDiffReductionTime
	if left <= 0 {
		return time.Time{}
	}
	return t.received.Add(left)
}

// lookForReorganisation asks n, which is below the block that miners build on by last, whether it has left that block,
// or has lost it in a crash: it has given templates on it and does not know it any more. The error says that n has not
// told.
func (s *Service) lookForReorganisation(ctx context.Context, n *node, last *template) error {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	block := last.PrevHash
	info, err := n.client.Block(ctx, block.String())
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case errors.Is(err, noderpc.ErrUnknownBlock):
		if n.latest == nil || n.latest.PrevHash != block {
			return nil // the block has not come to it yet
		}
	case err != nil:
		return err
	case info.Confirmations >= 0:
		return nil // it has just got the block
	}
	if n.left != block {
		n.left = block
		n.log.Warn().Stringer("hash", block).Msg("node's chain was reorganised to a lower height")
	}
	return nil
}

// settle records a template of n, or why there is none and the node is not to be used. It chooses anew, and reports
// whether n can be used.
func (s *Service) settle(n *node, t *template, f *fault, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	n.heard = true
	if t != nil {
		n.latest = t
		close(n.changed)
		n.changed = make(chan struct{})
	}
	if f == nil {
		f = s.lag(n, now)
	}
	s.change(n, f)
	only := 0.0
	if s.onlyLessWork() {
		only = 1
	}
	s.metrics.onlyLessWork.Set(only)
	s.choose(now)
	if t != nil && t != s.chosen && s.chosen != nil && sameWork(t.Template, s.chosen.Template) {
		s.metrics.unchanged.WithLabelValues(t.trigger).Inc()
	}
	return f == nil
}

// lag returns a fault when n has been lower than it should be, or on a branch with less work than that of another node,
// for too long. s.mu is held.
func (s *Service) lag(n *node, now time.Time) *fault {
	var top int32
	hint := ""
	if c := s.binding(n, now); c != nil && outweighs(c.work, c.Height-1, n.work, n.tip) {
		top = c.Height - 1
		hint = fmt.Sprintf("; miners are on block %d, %s, which no usable node has: if that is a mistake, restart gbtmaker without the nodes that had it",
			top, c.PrevHash)
	}
	worse := top > 0
	for _, other := range s.nodes {
		if other.fault == nil && other != n && outweighs(other.work, other.tip, n.work, n.tip) {
			top, worse, hint = max(top, other.tip), true, ""
		}
	}
	if !worse {
		n.behind = time.Time{}
		return nil
	}
	if n.behind.IsZero() {
		n.behind = now
	}
	if now.Sub(n.behind) < lagGrace {
		return nil
	}
	if n.tip >= top {
		return &fault{reasonBranch, fmt.Errorf("node at %s is on a branch with less work%s", n.client.URL(), hint)}
	}
	return &fault{reasonLag, fmt.Errorf("node at %s is at height %d, behind %d%s", n.client.URL(), n.tip, top, hint)}
}

// onlyLessWork reports whether nodes answer, but none that has as much work as what miners were given. s.mu is held.
func (s *Service) onlyLessWork() (only bool) {
	for _, n := range s.nodes {
		if n.fault == nil {
			return false
		}
		only = only || n.fault.reason == reasonBranch || n.fault.reason == reasonLag
	}
	return only && s.chosen != nil
}

// change makes f the state of n, and logs it when the reason is another than before. s.mu is held.
func (s *Service) change(n *node, f *fault) {
	before := n.fault
	n.fault = f
	if f == nil {
		if before != nil {
			n.log.Info().Int32("height", n.tip).Msg("node can be used")
			s.metrics.up.WithLabelValues(n.label).Set(1)
		}
		return
	}
	s.metrics.failures.WithLabelValues(f.reason).Inc()
	s.metrics.up.WithLabelValues(n.label).Set(0)
	if before == nil || before.reason != f.reason { // the texts differ by ports and heights
		n.log.Warn().Err(f.err).Str("reason", f.reason).Msg("node cannot be used")
	}
}

// subscribe keeps a subscription to the blocks of n.
func (s *Service) subscribe(ctx context.Context, n *node) error {
	up := s.metrics.zmqUp.WithLabelValues(n.label)
	up.Set(0)
	return noderpc.SubscribeBlocks(ctx, noderpc.Subscription{
		Addr: n.zmq, Log: n.log, Silence: s.zmqTimeout,
		OnBlock: func(hash chainhash.Hash) {
			for {
				select {
				case n.blocks <- hash:
					return
				case <-n.blocks: // outdated
				}
			}
		},
		OnMissed: func(count uint32) { s.metrics.missed.WithLabelValues(n.label).Add(float64(count)) },
		OnState: func(subscribed bool) {
			if subscribed {
				up.Set(1)
				return
			}
			up.Set(0)
			n.doubted.Ring()
		},
	})
}

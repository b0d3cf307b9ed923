package auxmaker

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"

	"btcpool/internal/auxpow"
	"btcpool/internal/auxwork"
	"btcpool/internal/bitcoin"
	"btcpool/internal/bitcoin/noderpc"
	"btcpool/internal/retry"
)

// chain is an AuxPoW chain.
type chain struct {
	name   string
	payout string
	zmq    string
	node   *noderpc.Client
	news   retry.Bell // the node has a new block

	method string // the node's RPC method that creates blocks; "": not known yet

	mu    sync.Mutex
	block auxpow.Chain // without place in a tree
	seen  time.Time    // when the node named block last
	fault error        // why the last call failed

	part part // what the chain was of the last message; only writeAux uses it
}

// A part says whether a chain is part of the work.
type part int

const (
	undecided part = iota // its node has been asked for the first time
	included
	leftOut
)

var errNoAnswer = errors.New("no answer yet")

func newChain(cfg Chain) (*chain, error) {
	node, err := noderpc.New(cfg.Config)
	if err != nil {
		return nil, fmt.Errorf("chain %s: %w", cfg.Name, err)
	}
	return &chain{
		name:   cfg.Name,
		payout: cfg.PayoutAddress,
		zmq:    cfg.ZMQ,
		node:   node,
		news:   retry.NewBell(),
		fault:  errNoAnswer,
	}, nil
}

// subscribe waits for the node's news until ctx ends.
func (s *Service) subscribe(ctx context.Context, c *chain) error {
	return noderpc.SubscribeBlocks(ctx, noderpc.Subscription{
		Addr: c.zmq, Log: s.log.With().Str("chain", c.name).Logger(),
		OnBlock:  func(chainhash.Hash) { c.news.Ring() },
		OnMissed: func(n uint32) { s.metrics.missed.WithLabelValues(c.name).Add(float64(n)) },
	})
}

// follow keeps the block of c up to date until ctx ends.
func (s *Service) follow(ctx context.Context, c *chain) {
	repeat(ctx, c.news, s.cfg.PollInterval.Std(), func() {
		start := time.Now()
		block, reason, err := c.fetch(ctx)
		if ctx.Err() != nil {
			return
		}
		before, fault := c.keep(block, start, err)
		if err != nil {
			c.method = "" // the node may come back as another version
			s.metrics.failures.WithLabelValues(c.name, reason).Inc()
			if errors.Is(fault, errNoAnswer) {
				s.changed.Ring()
			}
			return
		}
		s.metrics.rpcSeconds.WithLabelValues(c.name).Observe(time.Since(start).Seconds())
		s.metrics.height.WithLabelValues(c.name).Set(float64(block.Height))
		if block.Hash != before.Hash {
			s.metrics.blocks.WithLabelValues(c.name).Inc()
		}
		if block.Hash != before.Hash || fault != nil {
			s.changed.Ring()
		}
	})
}

// keep notes the outcome of a call, and returns what there was before it.
func (c *chain) keep(block auxpow.Chain, at time.Time, err error) (before auxpow.Chain, fault error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before, fault = c.block, c.fault
	if c.fault = err; err == nil {
		c.block, c.seen = block, at
	}
	return before, fault
}

// fetch asks the node for a block to mine. reason says for the metrics what is wrong.
func (c *chain) fetch(ctx context.Context) (block auxpow.Chain, reason string, err error) {
	if c.method == "" {
		if c.method, err = c.findMethod(ctx); err != nil {
			return auxpow.Chain{}, "rpc", err
		}
	}
	var params []any
	if c.method == createAuxBlock {
		params = append(params, c.payout)
	}
	var answer auxBlock
	if err := c.node.Call(ctx, c.method, &answer, params...); err != nil {
		return auxpow.Chain{}, "rpc", err
	}
	block, err = answer.block(c.name)
	if err != nil {
		return auxpow.Chain{}, "answer", fmt.Errorf("%s: node at %s: %w", c.method, c.node.URL(), err)
	}
	return block, "", nil
}

const createAuxBlock, getAuxBlock = "createauxblock", "getauxblock"

// findMethod returns the method that creates blocks. Old nodes pay to their wallet only.
func (c *chain) findMethod(ctx context.Context) (string, error) {
	var help string
	if err := c.node.Call(ctx, "help", &help); err != nil {
		return "", err
	}
	if c.payout != "" && strings.Contains(help, createAuxBlock) && strings.Contains(help, "submitauxblock") {
		return createAuxBlock, nil
	}
	return getAuxBlock, nil
}

// auxBlock is the node's answer. Pointers tell what is missing.
type auxBlock struct {
	Hash    string `json:"hash"`
	ChainID *int32 `json:"chainid"`
	Height  *int32 `json:"height"`
	Bits    string `json:"bits"`
}

func (b *auxBlock) block(name string) (auxpow.Chain, error) {
	if b.ChainID == nil || b.Height == nil {
		return auxpow.Chain{}, errors.New("chainid or height is missing")
	}
	hash, err := hex.DecodeString(b.Hash)
	if err != nil || len(hash) != chainhash.HashSize {
		return auxpow.Chain{}, fmt.Errorf("hash %.80q is not 64 hex digits", b.Hash)
	}
	slices.Reverse(hash)
	bits, err := strconv.ParseUint(b.Bits, 16, 32)
	if err != nil {
		return auxpow.Chain{}, fmt.Errorf("bits %.80q are not a compact target in hex", b.Bits)
	}
	if _, err := bitcoin.TargetFromBits(uint32(bits)); err != nil {
		return auxpow.Chain{}, err
	}
	return auxpow.Chain{Name: name, ID: *b.ChainID, Hash: chainhash.Hash(hash), Height: *b.Height, Bits: uint32(bits)}, nil
}

// writeAux writes the work of all chains until ctx ends.
func (s *Service) writeAux(ctx context.Context) {
	repeat(ctx, s.changed, s.cfg.PollInterval.Std(), func() {
		now := time.Now()
		tree, chains := s.plant(now)
		if len(chains) == 0 {
			return
		}
		work := s.combine(tree, chains, now)
		s.write(ctx, topicAux, s.cfg.Kafka.Topics.AuxWork, work.AppendTo(nil))
	})
}

// plant returns the tree of the chains whose nodes answer. A chain that has no room in it beside those before it is
// left out.
func (s *Service) plant(now time.Time) (tree auxpow.Tree, in []auxpow.Chain) {
	for _, c := range s.chains {
		c.mu.Lock()
		block, age, fault := c.block, now.Sub(c.seen), c.fault
		c.mu.Unlock()
		if age > s.cfg.WorkLifetime.Std() {
			if !errors.Is(fault, errNoAnswer) {
				s.setPart(c.name, &c.part, leftOut, fault)
			}
			continue
		}
		candidates := append(slices.Clone(in), block)
		candidate, err := auxpow.Plant(candidates)
		if err != nil {
			s.metrics.failures.WithLabelValues(c.name, "slot").Inc()
			s.setPart(c.name, &c.part, leftOut, err)
			continue
		}
		tree, in = candidate, candidates
		s.setPart(c.name, &c.part, included, nil)
	}
	return tree, in
}

// setPart keeps in p whether a chain is part of the work, and logs it when that changes.
func (s *Service) setPart(name string, p *part, now part, fault error) {
	if *p == now {
		return
	}
	*p = now
	if now == included {
		s.metrics.up.WithLabelValues(name).Set(1)
		s.log.Info().Str("chain", name).Msg("chain is part of the work")
	} else {
		s.metrics.up.WithLabelValues(name).Set(0)
		s.log.Warn().Err(fault).Str("chain", name).Msg("chain is left out of the work")
	}
}

// combine returns the message for a tree of at least one chain.
func (s *Service) combine(tree auxpow.Tree, chains []auxpow.Chain, now time.Time) auxwork.Aux {
	work := auxwork.Aux{
		CreatedAt:   uint32(now.Unix()),
		Hash:        tree.Root,
		MerkleSize:  tree.Size,
		MerkleNonce: tree.Nonce,
		ChainID:     chains[0].ID,
		Bits:        auxpow.EasiestBits(chains),
		Chains:      chains,
	}
	for _, c := range chains {
		work.Height = int32(min(int64(work.Height)+int64(c.Height), math.MaxInt32))
	}
	switch {
	case s.cfg.PublishRPC:
		node := s.cfg.Chains[0]
		work.RPCAddr, work.RPCUserPass = node.URL, userPass(node.User, node.Password)
	case len(chains) == 1:
		work.RPCAddr = chains[0].Name
	}
	return work
}

// userPass returns a login as btcpool's messages have it.
func userPass(user, password string) string {
	if user == "" {
		return ""
	}
	return user + ":" + password
}

package gbtmaker

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"

	"btcpool/internal/job"
	"btcpool/internal/retry"
)

// bridge gives miners an empty template on a block that n has announced when n takes longer than emptyAfter to make a
// full one: no work on the block before is of use. Last is the newest template of n. Nothing more comes of it once stop
// was called.
func (s *Service) bridge(ctx context.Context, n *node, last *template, block chainhash.Hash) (stop func()) {
	if s.emptyAfter == 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		late := time.Now().Add(s.emptyAfter)
		t, err := s.emptyTemplate(ctx, n, last, block)
		if !retry.Sleep(ctx, time.Until(late)) {
			return
		}
		if err != nil {
			n.log.Debug().Err(err).Msg("no empty template")
			return
		}
		s.settle(n, t, nil, time.Now())
	}()
	return func() { cancel(); <-done }
}

// emptyTemplate returns a template without transactions on a block, which must follow the one that last is on. It asks
// n for the block's header only.
func (s *Service) emptyTemplate(ctx context.Context, n *node, last *template, block chainhash.Hash) (*template, error) {
	header, err := n.client.Block(ctx, block.String())
	if err != nil {
		return nil, err
	}
	height := last.Height + 1
	p := s.network.Params
	switch {
	case header.PrevHash != last.PrevHash.String() || header.Height != last.Height || header.Confirmations < 1:
		return nil, fmt.Errorf("block %s does not follow the last template", block)
	case header.MedianTime < 1 || header.MedianTime >= math.MaxUint32: // btcd does not tell
		return nil, errors.New("earliest time is unknown")
	case !p.PoWNoRetargeting && (p.ReduceMinDifficulty || !s.network.SamePeriod(height, last.Height)):
		return nil, errors.New("difficulty is unknown")
	}
	now := time.Now()
	earliest := uint32(header.MedianTime) + 1
	response := job.EmptyResponse(&job.Template{
		Height: height, PrevHash: block, Bits: last.Bits, Version: last.Version, Rules: last.Rules,
		CurTime: max(uint32(now.Unix()), earliest), MinTime: earliest, CoinbaseValue: s.network.Subsidy(height),
	})
	t, f := s.read(ctx, n, byZMQ, answerOf(response), now)
	if f != nil {
		return nil, f.err
	}
	return t, nil
}

package auxmaker

import (
	"context"
	"time"

	"btcpool/internal/auxwork"
	"btcpool/internal/auxwork/rskrpc"
)

// rsk is the chain RSK.
type rsk struct {
	name string
	node *rskrpc.Client
	news chan struct{} // the node has a new block; holds one
}

func newRSK(cfg RSK) (*rsk, error) {
	node, err := rskrpc.New(cfg.Config)
	if err != nil {
		return nil, err
	}
	return &rsk{cfg.Name, node, make(chan struct{}, 1)}, nil
}

// followRSK writes the work of RSK until ctx ends.
func (s *Service) followRSK(ctx context.Context) {
	defer s.rsk.node.Close()
	log := s.log.With().Str("chain", s.rsk.name).Logger()
	up, told := false, false
	notify := false // what the node said and no message has carried yet
	var last rskrpc.Work
	repeat(ctx, s.rsk.news, s.cfg.PollInterval.Std(), func() {
		start := time.Now()
		work, err := s.rsk.node.Work(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			s.metrics.failures.WithLabelValues(s.rsk.name, "rpc").Inc()
			s.metrics.up.WithLabelValues(s.rsk.name).Set(0)
			if up || !told {
				log.Warn().Err(err).Msg("no work of the chain")
			}
			up, told = false, true
			return
		case !up:
			log.Info().Msg("chain is part of the work")
			s.metrics.up.WithLabelValues(s.rsk.name).Set(1)
			up = true
		}
		s.metrics.rpcSeconds.WithLabelValues(s.rsk.name).Observe(time.Since(start).Seconds())
		if work.BlockHash != last.BlockHash {
			s.metrics.blocks.WithLabelValues(s.rsk.name).Inc()
		}
		last = work
		notify = notify || work.Notify
		message := auxwork.RSK{
			CreatedAt:       uint32(start.Unix()),
			RPCAddr:         s.rsk.name,
			Target:          work.Target,
			ParentBlockHash: work.ParentBlockHash,
			BlockHash:       work.BlockHash,
			FeesForMiner:    work.FeesForMiner,
			Notify:          notify,
		}
		if s.cfg.PublishRPC {
			message.RPCAddr, message.RPCUserPass = s.cfg.RSK.URL, userPass(s.cfg.RSK.User, s.cfg.RSK.Password)
		}
		if s.write(ctx, topicRSK, s.cfg.Kafka.Topics.RSKWork, message.AppendTo(nil)) {
			notify = false
		}
	})
}

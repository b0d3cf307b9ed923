package auxmaker

import (
	"context"
	"time"

	"btcpool/internal/auxwork"
	"btcpool/internal/auxwork/rskrpc"
	"btcpool/internal/retry"
)

// rsk is the chain RSK.
type rsk struct {
	name string
	node *rskrpc.Client
	news retry.Bell // the node has a new block
	part part       // only followRSK uses it
}

func newRSK(cfg RSK) (*rsk, error) {
	node, err := rskrpc.New(cfg.Config)
	if err != nil {
		return nil, err
	}
	return &rsk{name: cfg.Name, node: node, news: retry.NewBell()}, nil
}

// followRSK writes the work of RSK until ctx ends.
func (s *Service) followRSK(ctx context.Context) {
	name := s.rsk.name
	notify := false // what the node said and no message has carried yet
	var last rskrpc.Work
	repeat(ctx, s.rsk.news, s.cfg.PollInterval.Std(), func() {
		start := time.Now()
		work, err := s.rsk.node.Work(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			s.metrics.failures.WithLabelValues(name, "rpc").Inc()
			s.setPart(name, &s.rsk.part, leftOut, err)
			return
		}
		s.setPart(name, &s.rsk.part, included, nil)
		s.metrics.rpcSeconds.WithLabelValues(name).Observe(time.Since(start).Seconds())
		if work.BlockHash != last.BlockHash {
			s.metrics.blocks.WithLabelValues(name).Inc()
		}
		last = work
		notify = notify || work.Notify
		message := auxwork.RSK{
			CreatedAt:       uint32(start.Unix()),
			RPCAddr:         name,
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

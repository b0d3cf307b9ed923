package main

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/rs/zerolog"

	"btcpool/internal/bitcoin/noderpc"
	"btcpool/internal/bitcoin/regnode"
	"btcpool/internal/bus/embedded"
	"btcpool/internal/durable"
	"btcpool/internal/service"
)

const (
	embeddedNetwork = "regtest"
	// embeddedPayout is a regtest address nobody holds a key to: the embedded chain's coins are worth nothing.
	embeddedPayout = "bcrt1qwv4vhllgu3hsr0k3c2sspleh87dwey3wm0sw4t"
)

// embed opens what the configuration does not name, and says what services are built of.
func (p *pool) embed(deps service.Deps) (err error) {
	cfg := p.cfg
	p.node, p.kafka, p.database, p.payout = cfg.Node, cfg.Kafka, cfg.Database, cfg.PayoutAddress
	lock, err := durable.Lock(cfg.path(""))
	switch {
	case errors.Is(err, durable.ErrLocked):
		return fmt.Errorf("data (-data) = %q: another btcpool uses this folder: stop that one, or choose another", cfg.Data)
	case err != nil:
		return fmt.Errorf("data (-data) = %q: %w", cfg.Data, err)
	}
	p.closing.Add(lock.Close)
	if cfg.embeddedChain() {
		p.chainBits = cfg.bits()
		p.chain, err = regnode.Open(regnode.Config{Dir: cfg.path("chain"), Bits: p.chainBits},
			deps.For("chain").Log.Level(zerolog.ErrorLevel))
		if err != nil {
			return fmt.Errorf("embedded chain: %w", err)
		}
		p.closing.Add(p.chain.Close)
		p.node = noderpc.Config{URL: p.chain.RPCURL(), User: p.chain.User(), Password: p.chain.Password(), ZMQ: p.chain.ZMQAddr()}
		p.payout = cmp.Or(p.payout, embeddedPayout)
	}
	if cfg.embeddedBroker() {
		broker, err := embedded.Start(cfg.path("kafka"), "127.0.0.1:0", deps.For("kafka").Log.Level(zerolog.WarnLevel))
		if err != nil {
			return fmt.Errorf("embedded broker: %w", err)
		}
		p.closing.Add(broker.Close)
		p.kafka.Brokers = []string{broker.Addr()}
	}
	if cfg.embeddedDatabase() {
		p.database.DSN = "sqlite:" + cfg.path("pool.db")
	}
	if len(cfg.Chains) == 0 {
		p.kafka.Topics.AuxWork, p.kafka.Topics.AuxSolved = "", ""
	}
	if cfg.RSK.URL == "" {
		p.kafka.Topics.RSKWork, p.kafka.Topics.RSKSolved = "", ""
	}
	return nil
}

package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/rs/zerolog"

	"btcpool/auxmaker"
	"btcpool/blkmaker"
	"btcpool/gbtmaker"
	"btcpool/internal/bitcoin/noderpc"
	"btcpool/internal/bitcoin/regnode"
	"btcpool/internal/bus/embedded"
	"btcpool/internal/config"
	"btcpool/internal/handover"
	"btcpool/internal/miner"
	"btcpool/internal/service"
	"btcpool/jobmaker"
	"btcpool/sharelogger"
	"btcpool/slparser"
	"btcpool/sserver"
	"btcpool/statshttpd"
)

const (
	embeddedNetwork = "regtest"
	// embeddedPayout is a regtest address nobody holds a key to: the embedded chain's coins are
	// worth nothing.
	embeddedPayout = "bcrt1qwv4vhllgu3hsr0k3c2sspleh87dwey3wm0sw4t"
	demoUser       = "demo.cpu"

	minCPUDifficulty = 1.0 / (1 << 24)
)

// pool is every service of a pool, and what they stand on where that is embedded.
type pool struct {
	cfg Config
	log zerolog.Logger
	out io.Writer // the banner's

	node   *regnode.Node // nil: a real one
	broker *embedded.Broker

	auxmaker    *auxmaker.Service // nil: nothing is mined along
	gbtmaker    *gbtmaker.Service
	jobmaker    *jobmaker.Service
	sserver     *sserver.Service
	blkmaker    *blkmaker.Service
	sharelogger *sharelogger.Service
	slparser    *slparser.Service
	statshttpd  *statshttpd.Service
}

// newPool opens what is embedded and builds every service on it. What it opened is closed again if
// it fails.
func newPool(cfg Config, deps service.Deps, out io.Writer) (_ *pool, err error) {
	p := &pool{cfg: cfg, log: deps.Log, out: out}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	network, data := cfg.network(), cfg.path
	if cfg.embeddedChain() {
		if p.node, err = regnode.Open(regnode.Config{Dir: data("chain"), Bits: cfg.chainBits},
			deps.For("chain").Log.Level(zerolog.ErrorLevel)); err != nil {
			return nil, fmt.Errorf("embedded chain: %w", err)
		}
		cfg.Node = noderpc.Config{URL: p.node.RPCURL(), User: p.node.User(), Password: p.node.Password(), ZMQ: p.node.ZMQAddr()}
		if cfg.PayoutAddress == "" {
			cfg.PayoutAddress = embeddedPayout
		}
	}
	if cfg.embeddedBroker() {
		if p.broker, err = embedded.Start(data("kafka"), "127.0.0.1:0", deps.For("kafka").Log.Level(zerolog.WarnLevel)); err != nil {
			return nil, fmt.Errorf("embedded broker: %w", err)
		}
		cfg.Kafka.Brokers = []string{p.broker.Addr()}
	}
	if cfg.embeddedDatabase() {
		cfg.Database.DSN = "sqlite:" + data("pool.db")
	}

	if len(cfg.Chains) == 0 {
		cfg.Kafka.Topics.AuxWork, cfg.Kafka.Topics.AuxSolved = "", ""
	}
	if cfg.RSK.URL == "" {
		cfg.Kafka.Topics.RSKWork, cfg.Kafka.Topics.RSKSolved = "", ""
	}
	if cfg.minesAlong() {
		if p.auxmaker, err = auxmaker.New(cfg.along(), deps.For("auxmaker")); err != nil {
			return nil, err
		}
	}
	makeTemplates := gbtmaker.DefaultConfig()
	makeTemplates.Network, makeTemplates.Node, makeTemplates.Kafka = network, cfg.Node, cfg.Kafka
	makeTemplates.DataDir = data("gbtmaker")
	if p.gbtmaker, err = gbtmaker.New(makeTemplates, deps.For("gbtmaker")); err != nil {
		return nil, err
	}
	makeJobs := jobmaker.DefaultConfig()
	makeJobs.Network, makeJobs.Kafka = network, cfg.Kafka
	makeJobs.PayoutAddress, makeJobs.CoinbaseText = cfg.PayoutAddress, cfg.CoinbaseText
	if p.jobmaker, err = jobmaker.New(makeJobs, deps.For("jobmaker")); err != nil {
		return nil, err
	}
	makeBlocks := blkmaker.DefaultConfig()
	makeBlocks.Network, makeBlocks.Nodes, makeBlocks.DataDir = network, []noderpc.Config{cfg.Node}, data("blkmaker")
	makeBlocks.Kafka, makeBlocks.Database = cfg.Kafka, cfg.Database
	for _, c := range cfg.Chains {
		makeBlocks.AuxNodes = append(makeBlocks.AuxNodes, blkmaker.AuxNode{Name: c.Name, Config: c.Config})
	}
	if cfg.RSK.URL != "" {
		makeBlocks.RSKNodes = []blkmaker.RSKNode{{Name: cfg.RSK.Name, Config: cfg.RSK.Config}}
	}
	// The direct way of solved shares: nobody outside knows its secret.
	secret := handover.Secret{Token: rand.Text()}
	makeBlocks.Handover = handover.ServerConfig{Listen: "127.0.0.1:0", Secret: secret}
	if p.blkmaker, err = blkmaker.New(makeBlocks, deps.For("blkmaker")); err != nil {
		return nil, err
	}
	serve := sserver.DefaultConfig()
	serve.Users.Network = network
	serve.Listen, serve.DataDir, serve.Kafka, serve.Database = cfg.Stratum, data("sserver"), cfg.Kafka, cfg.Database
	serve.Handover = handover.Config{URLs: []string{"http://" + p.blkmaker.Addr().String()}, Secret: secret}
	if network == embeddedNetwork {
		serve.DefaultDifficulty, serve.MinDifficulty = cfg.cpuDifficulty, minCPUDifficulty
		serve.ShareInterval = config.Duration(2 * time.Second)
	}
	if p.sserver, err = sserver.New(serve, deps.For("sserver")); err != nil {
		return nil, err
	}
	logShares := sharelogger.DefaultConfig()
	logShares.DataDir, logShares.Kafka = data("sharelog"), cfg.Kafka
	if p.sharelogger, err = sharelogger.New(logShares, deps.For("sharelogger")); err != nil {
		return nil, err
	}
	count := slparser.DefaultConfig()
	count.Network, count.DataDir, count.Database, count.Listen = network, data("sharelog"), cfg.Database, "127.0.0.1:0"
	if p.slparser, err = slparser.New(count, deps.For("slparser")); err != nil {
		return nil, err
	}
	show := statshttpd.DefaultConfig()
	show.Listen, show.Kafka, show.Database = cfg.HTTP, cfg.Kafka, cfg.Database
	show.StratumURL = "stratum+tcp://" + p.sserver.Addr().String()
	if p.statshttpd, err = statshttpd.New(show, deps.For("statshttpd")); err != nil {
		return nil, err
	}
	return p, nil
}

// Run runs everything until ctx ends.
func (p *pool) Run(ctx context.Context) error {
	defer p.close()
	type run = func(context.Context) error
	producers := []run{p.gbtmaker.Run, p.greet}
	if p.cfg.Demo {
		producers = append(producers, p.mine)
	}
	if p.auxmaker != nil {
		producers = append(producers, p.auxmaker.Run)
	}
	base := []run{}
	if p.node != nil {
		base = append(base, p.node.Run)
	}
	return runStages(ctx,
		producers,
		[]run{p.jobmaker.Run, p.sserver.Run},
		[]run{p.blkmaker.Run, p.sharelogger.Run, p.statshttpd.Run},
		[]run{p.slparser.Run},
		base,
	)
}

// Ready says which services are not ready yet, and why. What is mined along may
// be away.
func (p *pool) Ready() error {
	var errs []error
	for _, s := range []struct {
		name  string
		ready func() error
	}{
		{"gbtmaker", p.gbtmaker.Ready},
		{"jobmaker", p.jobmaker.Ready},
		{"sserver", p.sserver.Ready},
		{"blkmaker", p.blkmaker.Ready},
		{"sharelogger", p.sharelogger.Ready},
		{"slparser", p.slparser.Ready},
		{"statshttpd", p.statshttpd.Ready},
	} {
		if err := s.ready(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.name, err))
		}
	}
	return errors.Join(errs...)
}

// mine is the demo: a CPU miner that comes in through the front door.
func (p *pool) mine(ctx context.Context) error {
	if !p.awaitReady(ctx) {
		return nil
	}
	return miner.Run(ctx, miner.Config{URL: p.sserver.Addr().String(), User: demoUser, Password: "x", Threads: p.cfg.Threads},
		p.log.With().Str("service", "miner").Logger().Level(zerolog.WarnLevel))
}

// close ends what is embedded, once its users have ended.
func (p *pool) close() {
	if p.broker != nil {
		if err := p.broker.Close(); err != nil {
			p.log.Error().Err(err).Msg("embedded broker not closed cleanly")
		}
	}
	if p.node != nil {
		if err := p.node.Close(); err != nil {
			p.log.Error().Err(err).Msg("embedded chain not closed cleanly")
		}
	}
}

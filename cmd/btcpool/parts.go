package main

import (
	"cmp"
	"crypto/rand"
	"time"

	"btcpool/auxmaker"
	"btcpool/blkmaker"
	"btcpool/gbtmaker"
	"btcpool/internal/bitcoin/noderpc"
	"btcpool/internal/config"
	"btcpool/internal/handover"
	"btcpool/internal/service"
	"btcpool/jobmaker"
	"btcpool/sharelogger"
	"btcpool/slparser"
	"btcpool/sserver"
	"btcpool/statshttpd"
)

// A part is a service of the pool.
type part struct {
	name  string
	stage stage
	// build makes the service, or nil when the configuration does not want it. It may use what the parts above it in
	// the table have told the pool.
	build func(p *pool, deps service.Deps) (service.Runner, error)
	// optional means that the pool is ready without it: what is mined along may be away.
	optional bool
}

// parts are all services of a pool. A new service is one more line here, and its build.
var parts = []part{
	{name: "auxmaker", stage: producers, build: (*pool).newAuxmaker, optional: true},
	{name: "gbtmaker", stage: producers, build: (*pool).newGBTMaker},
	{name: "jobmaker", stage: servers, build: (*pool).newJobmaker},
	{name: "blkmaker", stage: consumers, build: (*pool).newBlkmaker},
	{name: "sserver", stage: servers, build: (*pool).newSServer},
	{name: "sharelogger", stage: consumers, build: (*pool).newSharelogger},
	{name: "slparser", stage: readers, build: (*pool).newSLParser},
	{name: "statshttpd", stage: consumers, build: (*pool).newStatshttpd},
}

func (p *pool) newAuxmaker(deps service.Deps) (service.Runner, error) {
	if !p.cfg.minesAlong() {
		return nil, nil
	}
	cfg := p.cfg.auxmaker()
	cfg.Kafka = p.kafka
	return auxmaker.New(cfg, deps)
}

func (p *pool) newGBTMaker(deps service.Deps) (service.Runner, error) {
	cfg := gbtmaker.DefaultConfig()
	cfg.Network, cfg.Node, cfg.Kafka, cfg.DataDir = p.cfg.network(), p.node, p.kafka, p.cfg.path("gbtmaker")
	if p.cfg.embeddedChain() {
		cfg.EmptyAfter = 0 // it does not halve rewards, as gbtmaker would in an empty template of regtest
	}
	return gbtmaker.New(cfg, deps)
}

func (p *pool) newJobmaker(deps service.Deps) (service.Runner, error) {
	cfg := jobmaker.DefaultConfig()
	cfg.Network, cfg.Kafka, cfg.PayoutAddress, cfg.CoinbaseText = p.cfg.network(), p.kafka, p.payout, p.cfg.CoinbaseText
	return jobmaker.New(cfg, deps)
}

func (p *pool) newBlkmaker(deps service.Deps) (service.Runner, error) {
	cfg := blkmaker.DefaultConfig()
	cfg.Network, cfg.Nodes, cfg.DataDir = p.cfg.network(), []noderpc.Config{p.node}, p.cfg.path("blkmaker")
	cfg.Kafka, cfg.Database = p.kafka, p.database
	for _, c := range p.cfg.Chains {
		cfg.AuxNodes = append(cfg.AuxNodes, blkmaker.AuxNode{Name: c.Name, Config: c.Config})
	}
	if p.cfg.RSK.URL != "" {
		cfg.RSKNodes = []blkmaker.RSKNode{{Name: p.cfg.RSK.Name, Config: p.cfg.RSK.Config}}
	}
	secret := handover.Secret{Token: rand.Text()} // which nobody outside knows
	cfg.Handover = handover.ServerConfig{Listen: "127.0.0.1:0", Secret: secret}
	s, err := blkmaker.New(cfg, deps)
	if err != nil {
		return nil, err
	}
	p.handover = handover.Config{URLs: []string{"http://" + s.Addr().String()}, Secret: secret}
	return s, nil
}

func (p *pool) newSServer(deps service.Deps) (service.Runner, error) {
	cfg := sserver.DefaultConfig()
	cfg.Users.Network, cfg.Listen, cfg.DataDir = p.cfg.network(), p.cfg.Stratum, p.cfg.path("sserver")
	cfg.Kafka, cfg.Database, cfg.Handover = p.kafka, p.database, p.handover
	cfg.MaxConnections = max(min(cfg.MaxConnections, service.Room(service.OpenFiles())), 1) // nobody has asked for more
	if p.cfg.network() == embeddedNetwork {
		const minCPUDifficulty = 1.0 / (1 << 24)
		cfg.DefaultDifficulty, cfg.MinDifficulty = p.cfg.cpuDifficulty, minCPUDifficulty
		cfg.ShareInterval = config.Duration(2 * time.Second)
	}
	if p.cfg.embeddedChain() {
		// A miner sends what meets its own difficulty only: it must stay below the chain's, or blocks wait for shares.
		cfg.DefaultDifficulty = min(p.cfg.cpuDifficulty, sharesOf(p.chainBits))
		cfg.ShareInterval = config.Duration(time.Second)
	}
	s, err := sserver.New(cfg, deps)
	if err != nil {
		return nil, err
	}
	p.stratum = s.Addr()
	return s, nil
}

func (p *pool) newSharelogger(deps service.Deps) (service.Runner, error) {
	cfg := sharelogger.DefaultConfig()
	cfg.DataDir, cfg.Kafka = p.cfg.path("sharelog"), p.kafka
	return sharelogger.New(cfg, deps)
}

func (p *pool) newSLParser(deps service.Deps) (service.Runner, error) {
	cfg := slparser.DefaultConfig()
	cfg.Network, cfg.DataDir, cfg.Database, cfg.Listen = p.cfg.network(), p.cfg.path("sharelog"), p.database, "127.0.0.1:0"
	return slparser.New(cfg, deps)
}

func (p *pool) newStatshttpd(deps service.Deps) (service.Runner, error) {
	cfg := statshttpd.DefaultConfig()
	cfg.Listen, cfg.Kafka, cfg.Database, cfg.Network = p.cfg.HTTP, p.kafka, p.database, p.cfg.Network
	if p.cfg.embeddedChain() {
		cfg.Network = "embedded chain"
	}
	cfg.Dashboard, cfg.Notify, cfg.CheckpointFile = p.cfg.Dashboard, p.cfg.notify(), p.cfg.path("statshttpd.checkpoint")
	cfg.StratumURL = cmp.Or(p.cfg.StratumURL, stratumURL(p.stratum))
	s, err := statshttpd.New(cfg, deps)
	if err != nil {
		return nil, err
	}
	p.dashboard = s.Addr()
	return s, nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/rs/zerolog"

	"btcpool/internal/bitcoin/noderpc"
	"btcpool/internal/bitcoin/regnode"
	"btcpool/internal/bus"
	"btcpool/internal/config"
	"btcpool/internal/handover"
	"btcpool/internal/miner"
	"btcpool/internal/service"
	"btcpool/internal/store"
)

const demoUser = "demo.cpu"

// pool is every service of a pool, and what they stand on where that is embedded.
type pool struct {
	cfg       Config
	log       zerolog.Logger
	out       io.Writer     // where the banner goes
	chain     *regnode.Node // nil: a node is configured
	chainBits uint32        // of chain
	services  []built
	closing   service.Closing

	// What services are built of: as configured, or what is embedded instead.
	node     noderpc.Config
	kafka    bus.Config
	database store.Config
	payout   string

	// What services tell when they are built: the direct way of solved shares to blkmaker, and where sserver and
	// statshttpd listen.
	handover           handover.Config
	stratum, dashboard net.Addr
}

// built is a part that has been built.
type built struct {
	part
	service.Runner
}

// newPool opens what is embedded and builds every service on it. If it fails, everything is closed again.
func newPool(cfg Config, deps service.Deps, out io.Writer) (*pool, error) {
	p := &pool{cfg: cfg, log: deps.Log, out: out}
	if err := p.build(deps); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func (p *pool) build(deps service.Deps) error {
	if err := p.embed(deps); err != nil {
		return err
	}
	for _, part := range parts {
		s, err := part.build(p, deps.For(part.name))
		if err != nil {
			return fmt.Errorf("%s: %w", part.name, p.asTyped(err))
		}
		if s != nil {
			p.closing.Add(s.Close)
			p.services = append(p.services, built{part, s})
		}
	}
	return nil
}

// asTyped returns an error of a service with the key and the flag by which the pool's own address was given.
func (p *pool) asTyped(err error) error {
	var listen *config.ListenError
	if errors.As(err, &listen) {
		switch listen.Addr {
		case p.cfg.Stratum:
			listen.Key = "stratum (-stratum)"
		case p.cfg.HTTP:
			listen.Key = "http (-http)"
		}
	}
	return err
}

// Close ends a pool that has not run. It does nothing to one that has.
func (p *pool) Close() error { return p.closing.Close() }

// Run runs everything until ctx ends.
func (p *pool) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, p.Close()) }()
	var run [stageCount][]func(context.Context) error
	for _, s := range p.services {
		run[s.stage] = append(run[s.stage], s.Run)
	}
	run[producers] = append(run[producers], p.greet)
	if p.cfg.Demo {
		run[producers] = append(run[producers], p.mine)
	}
	if p.chain != nil {
		run[base] = append(run[base], p.chain.Run)
	}
	return runStages(ctx, run[:]...)
}

// Ready says which services are not ready yet, and why.
func (p *pool) Ready() error {
	var errs []error
	for _, s := range p.services {
		if err := s.Ready(); err != nil && !s.optional {
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
	return miner.Run(ctx, miner.Config{URL: p.stratum.String(), User: demoUser, Password: "x", Threads: p.cfg.Threads},
		p.log.With().Str("service", "miner").Logger().Level(zerolog.WarnLevel))
}

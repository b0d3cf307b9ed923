// Package sharelogger keeps the share log: it reads the share topic and writes every valid share to the file of its day
// exactly once, across repeated delivery, crashes and full disks. See internal/sharefile for how.
package sharelogger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"btcpool/internal/retry"
	"btcpool/internal/service"
)

// Service keeps the share logs of one chain or of several, each of which stands by itself.
type Service struct {
	chains  []*chainLog
	several bool
}

// New makes a service. That of one chain has its folder locked and its files recovered.
func New(cfg Config, deps service.Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Service{several: len(cfg.Chains) > 0}
	for i, one := range cfg.PerChain() {
		if cfg.Only != "" && cfg.Only != one.Chain {
			continue
		}
		its := deps
		if s.several {
			its.Log = deps.Log.With().Str("chain", one.Chain).Logger()
			its.Metrics = prometheus.WrapRegistererWith(prometheus.Labels{"chain": one.Chain}, deps.Metrics)
		}
		chain, err := newChain(one, its)
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		if s.several && cfg.Chains[i].DataDir == "" {
			chain.former = cfg.DataDir
		}
		s.chains = append(s.chains, chain)
	}
	if s.several {
		return s, nil
	}
	if err := s.chains[0].open(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close ends a service that has not run. It does nothing to one that has.
func (s *Service) Close() (err error) {
	for _, c := range s.chains {
		err = errors.Join(err, c.close())
	}
	return err
}

// Ready tells what keeps shares from getting to the disk, and of which chain.
func (s *Service) Ready() (err error) {
	for _, c := range s.chains {
		fault := c.ready()
		if fault != nil && s.several {
			fault = fmt.Errorf("%s: %w", c.cfg.Chain, fault)
		}
		err = errors.Join(err, fault)
	}
	return err
}

// Run works until ctx ends, then writes what it has.
func (s *Service) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, s.Close()) }()
	if !s.several || s.chains[0].cfg.once() {
		return s.chains[0].run(ctx)
	}
	var g errgroup.Group
	for _, c := range s.chains {
		g.Go(func() error {
			c.keepRunning(ctx)
			return nil
		})
	}
	return g.Wait()
}

const againInterval = 5 * time.Second

// keepRunning runs until ctx ends, again when that became impossible: other chains must not stop for this one.
func (s *chainLog) keepRunning(ctx context.Context) {
	for {
		err := s.run(ctx)
		if ctx.Err() != nil {
			if err != nil {
				s.log.Error().Err(err).Msg("share log was not closed well")
			}
			return
		}
		s.note(s.adding, err)
		if !retry.Sleep(ctx, againInterval) {
			return
		}
	}
}

package sserver

import (
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"btcpool/internal/bus"
	"btcpool/internal/config"
	"btcpool/internal/handover"
	"btcpool/internal/service"
	"btcpool/internal/spool"
	"btcpool/internal/users"
)

// chain is a block chain that miners work on here: where its jobs come from, and where its shares, blocks and events go.
// Sessions and the jobs that they were sent have its index.
type chain struct {
	index    uint8
	name     string // "": there is no other
	cfg      Config // with what is the chain's own
	log      zerolog.Logger
	rareLog  zerolog.Logger // for what may be said of every job and miner
	metrics  *chainMetrics
	srv      *Service
	bus      *bus.Client
	jobs     *jobBook
	dropping atomic.Pointer[dropping] // nil: the last job was taken

	shares    *spool.Spool
	blocks    *spool.Spool
	auxBlocks *spool.Spool // nil: there is no such topic
	rskBlocks *spool.Spool // nil: there is no such topic
	spooled   []spooled    // the spools above that there are
	handover  *handover.Client
	events    *eventQueue
	miners    atomic.Int64 // sessions that are logged in
}

// maxChains is far more than there are chains of one proof of work.
const maxChains = 32

// spooled is what is kept on disk on its way to a topic.
type spooled struct {
	*spool.Spool
	name  string // that no other has
	topic string
}

// openChain opens the next chain of s, with the spools in cfg's folder.
func (s *Service) openChain(name string, cfg Config, deps service.Deps) (err error) {
	c := &chain{index: uint8(len(s.chains)), name: name, cfg: cfg, log: deps.Log, srv: s, jobs: newJobBook(cfg)}
	c.rareLog = c.log.Sample(&zerolog.BurstSampler{Burst: 1, Period: time.Minute})
	c.metrics = newChainMetrics(deps.Metrics, c)
	c.events = newEventQueue(c.metrics.eventsDropped)
	if c.bus, err = bus.New(cfg.Kafka, deps); err != nil {
		return err
	}
	s.closing.Add(c.bus.Close)
	if c.handover, err = handover.New(cfg.Handover, deps); err != nil {
		return err
	}
	topics := cfg.Kafka.Topics
	for _, part := range []struct {
		spool       **spool.Spool
		name, topic string
	}{
		{&c.shares, "shares", topics.Share},
		{&c.blocks, "blocks", topics.SolvedShare},
		{&c.auxBlocks, "aux_blocks", topics.AuxSolved},
		{&c.rskBlocks, "rsk_blocks", topics.RSKSolved},
	} {
		if part.topic == "" {
			continue
		}
		spoolCfg := spool.Config{Dir: filepath.Join(cfg.DataDir, part.name), MaxBytes: cfg.SpoolMaxBytes}
		if part.spool == &c.shares {
			spoolCfg.MaxAge, spoolCfg.SendGap = cfg.SpoolMaxAge, config.Duration(sendGap)
		} else { // a block waits for no others, and is never too old to be kept
			spoolCfg.SyncGap, spoolCfg.SendGap = -1, -1
		}
		open := spool.Open
		if s.before != nil {
			open = spool.New
		}
		sp, err := open(spoolCfg, deps, part.name)
		if err != nil {
			return err
		}
		s.closing.Add(sp.Close)
		*part.spool = sp
		c.spooled = append(c.spooled, spooled{sp, path.Join(name, part.name), part.topic})
	}
	s.chains = append(s.chains, c)
	return nil
}

// err returns why the chain cannot be mined, or nil.
func (c *chain) err() error {
	for _, sp := range c.spooled {
		if err := sp.Err(); err != nil {
			return fmt.Errorf("shares for topic %s are refused: %w", sp.topic, err)
		}
	}
	return c.jobFault(time.Now())
}

// named says of which chain err is, where there are several.
func (c *chain) named(err error) error {
	if c.name == "" {
		return err
	}
	return fmt.Errorf("%s: %w", c.name, err)
}

func (c *chain) jobAge() time.Duration {
	r := c.jobs.round.Load()
	if r == nil {
		return 0
	}
	return time.Since(r.work.ID.Time())
}

// send has what the chain's sessions leave behind reach Kafka and blkmaker, until ctx ends.
func (c *chain) send(ctx context.Context, g *errgroup.Group) {
	for _, sp := range c.spooled {
		var topic spool.Topic = c.bus.Topic(sp.topic)
		if sp.Spool == c.blocks {
			topic = solvedTopic{topic}
		}
		g.Go(func() error { return sp.Run(ctx, topic) })
	}
	g.Go(func() error { return c.handover.Run(ctx) })
	g.Go(func() error {
		return c.events.run(ctx, func(ctx context.Context, events []bus.Message) error {
			return c.bus.Write(ctx, c.cfg.Kafka.Topics.CommonEvents, events...)
		})
	})
}

// chain is the one that the session's miner works on.
func (s *session) chain() *chain { return s.srv.chains[s.Chain] }

// list has those who may mine that chain.
func (s *session) list() *users.List { return s.port.users[s.Chain] }

// chainsErr returns why no chain can be mined, or nil. Those that cannot while others can are seen in metrics only, lest
// the miners of all be sent elsewhere.
func (s *Service) chainsErr() error {
	var errs []error
	for _, c := range s.chains {
		err := c.err()
		if err == nil {
			return nil
		}
		errs = append(errs, c.named(err))
	}
	return errors.Join(errs...)
}

// nextSync returns before when no chain's shares will be written to disk.
func (s *Service) nextSync() time.Time {
	next := s.chains[0].shares.NextSync()
	for _, c := range s.chains[1:] {
		if t := c.shares.NextSync(); t.After(next) {
			next = t
		}
	}
	return next
}

// firstChain is the one of users who have not chosen. Servers hear of each other by its topic of common events, and
// operators' commands come from its brokers.
func (s *Service) firstChain() *chain { return s.chains[s.first] }

// spooled are the spools of all chains.
func (s *Service) spooled() (all []spooled) {
	for _, c := range s.chains {
		all = append(all, c.spooled...)
	}
	return all
}

// epoch is that of the shares that are taken now: the same on all chains, once there is a term.
func (s *Service) epoch() (epoch uint32) {
	for _, c := range s.chains {
		epoch = max(epoch, c.shares.Epoch())
	}
	return epoch
}

// setEpoch has all shares from now on belong to another epoch.
func (s *Service) setEpoch(epoch uint32) error {
	var errs []error
	for _, c := range s.chains {
		errs = append(errs, c.shares.SetEpoch(epoch))
	}
	return errors.Join(errs...)
}

package sserver

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"btcpool/internal/config"
	"btcpool/internal/registry"
	"btcpool/internal/retry"
)

// validateID reports an id that is neither fixed nor can be leased.
func (c Config) validateID() error {
	var faults config.Faults
	faults.Add(c.ZooKeeper.Validate())
	if c.ServerID == 0 {
		if len(c.ZooKeeper.Servers) == 0 {
			faults.Addf("server_id = 0: must be 1 to 255, or 0 with zookeeper.servers")
		}
		if err := registry.ValidatePath(c.LockPath); err != nil {
			faults.Addf("zookeeper_lock_path: %w", err)
		}
	}
	return faults.Err()
}

// serveTerms serves miners for as long as it has an id, and again with a new one when that was lost, until ctx or work
// ends. It calls done before the last sessions are ended.
//
// The id is kept until they have ended, however long that takes: beyond ends later than ctx.
func (s *Service) serveTerms(ctx, work, beyond context.Context, done func()) error {
	for ctx.Err() == nil && work.Err() == nil {
		err := s.serveTerm(ctx, work, beyond, done)
		if s.gone.Load() || !errors.Is(err, registry.ErrLost) {
			return err
		}
		s.log.Error().Err(err).Msg("server id lost, all miners were disconnected")
	}
	return nil
}

func (s *Service) serveTerm(ctx, work, beyond context.Context, done func()) error {
	asking, cancel := context.WithCancel(beyond)
	defer cancel()
	unlessStopped := context.AfterFunc(ctx, cancel)
	defer context.AfterFunc(work, func() {
		if unlessStopped() {
			cancel()
		}
	})()
	serve := func(held context.Context, lease registry.Lease) error {
		s.lease.Store(&lease)
		err := s.takeEpoch(ctx, held, lease)
		if !unlessStopped() {
			return nil
		}
		if err != nil {
			return err
		}
		return s.term(ctx, work, held, lease.ID, done)
	}
	if before := s.takenOver; before != nil && before.heir != nil {
		return before.heir.Lease(asking, before.lease, serve)
	}
	return s.registry.Lease(asking, s.cfg.LockPath, s.cfg.ServerID, serve)
}

// takeEpoch has the shares of a term belong to an epoch of their own: whoever had its id before, or gets it next, has
// another.
func (s *Service) takeEpoch(ctx, held context.Context, lease registry.Lease) error {
	if s.takenOver != nil { // the spool has begun one, and nobody else has the id
		return nil
	}
	held, cancel := context.WithCancel(held)
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	epoch, err := lease.Epoch(held, max(uint32(time.Now().Unix()), s.epoch()+1))
	if err != nil {
		return err
	}
	return s.setEpoch(epoch)
}

// term serves miners as the server id until ctx ends, and sends them away then. When held ends, the id may be another's
// already: everything stops at once.
func (s *Service) term(ctx, work, held context.Context, id uint8, done func()) error {
	if err := s.begin(id); err != nil {
		return err
	}
	s.inTerm.Store(true)
	defer s.inTerm.Store(false)
	end, stop := context.WithCancel(held)
	defer stop()
	defer context.AfterFunc(work, stop)()
	g, end := errgroup.WithContext(end)
	var loops errgroup.Group
	for _, l := range s.loops {
		loops.Go(func() error {
			defer stop()
			return l.run()
		})
	}
	g.Go(func() error { return s.tick(end) })
	g.Go(func() error { return s.showPresence(end, id) })
	for _, p := range s.ports {
		g.Go(func() error { return s.accept(ctx, p) })
	}
	g.Go(func() error {
		defer stop()
		select {
		case <-ctx.Done():
		case <-end.Done():
		}
		err := s.stopListening()
		if end.Err() == nil {
			s.drain(end)
		}
		return err
	})
	err := g.Wait()
	if held.Err() == nil {
		done()
	}
	defer context.AfterFunc(held, func() { s.onLoops((*loop).cutAll) })()
	err = errors.Join(err, s.hangUp(&loops))
	if s.gone.Load() { // to where their life goes on
		return err
	}
	err = errors.Join(err, s.endLife())
	if err != nil {
		s.commands.Exception(err)
	}
	s.commands.Offline()
	if s.cfg.ServerID == 0 {
		s.serverID.Store(0)
	}
	return err
}

// begin makes what depends on the id, and what an earlier term has ended.
func (s *Service) begin(id uint8) error {
	for _, l := range s.loops {
		if err := l.Reopen(); err != nil {
			return err
		}
	}
	for _, p := range s.ports {
		if err := p.Reopen(); err != nil {
			return err
		}
	}
	if s.takenOver != nil {
		s.takenOver = nil
	} else {
		s.setID(id)
		if err := s.beginLife(id); err != nil {
			return err
		}
	}
	s.commands.Online()
	return nil
}

func (s *Service) setID(id uint8) {
	s.ids = newIDPool(id, s.cfg.MaxJobLifetime.Std())
	s.serverID.Store(uint32(id))
}

// tick gives the loops their time until ctx ends.
func (s *Service) tick(ctx context.Context) error {
	for retry.Sleep(ctx, tickInterval) {
		s.onLoops((*loop).tick)
	}
	return nil
}

// hangUp ends all sessions, and the loops. Nothing is accepted any more.
func (s *Service) hangUp(loops *errgroup.Group) error {
	s.onLoops((*loop).leave)
	if s.board != nil {
		s.board.letGo()
	}
	force := time.AfterFunc(closeGrace, func() { s.onLoops((*loop).cutAll) })
	defer force.Stop()
	err := loops.Wait()
	if !s.gone.Load() { // else they relay
		s.goroutines.Wait()
	}
	return err
}

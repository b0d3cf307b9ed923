package switchapi

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"btcpool/internal/registry"
	"btcpool/internal/retry"
	"btcpool/internal/userchain"
)

const (
	writeBatch    = 1000 // changes that are picked at a time
	writeParallel = 16
	writePause    = time.Second // after a failure
	casTries      = 5           // of a node that others change at the same time
	resultNothing = "nothing"   // to say of a user who has no chain
)

// writeNodes brings changes to ZooKeeper until ctx ends. It is alone in that, so no change overtakes another of the
// same user.
func (s *Service) writeNodes(ctx context.Context) {
	for ctx.Err() == nil {
		due, next := s.waiting.due(time.Now(), writeBatch)
		if len(due) == 0 {
			var timer <-chan time.Time
			if !next.IsZero() {
				timer = time.After(time.Until(next))
			}
			select {
			case <-ctx.Done():
			case <-s.waiting.bell:
			case <-timer:
			}
			continue
		}
		if err := s.writeAll(ctx, due); err != nil {
			s.zookeeper.Set(err)
			retry.Sleep(ctx, writePause)
		} else {
			s.zookeeper.Set(nil)
		}
	}
}

// writeAll writes changes side by side. It leaves the rest alone once ZooKeeper has failed.
func (s *Service) writeAll(ctx context.Context, due []change) error {
	var g errgroup.Group
	var failed atomic.Bool
	g.SetLimit(writeParallel)
	for _, c := range due {
		if failed.Load() || ctx.Err() != nil {
			break
		}
		g.Go(func() error {
			result, err := s.writeNode(ctx, c)
			if err != nil {
				failed.Store(true)
				s.metrics.writes.WithLabelValues("failed").Inc()
				return err
			}
			s.metrics.writes.WithLabelValues(result).Inc()
			s.waiting.done(c, result == resultNothing)
			return nil
		})
	}
	return g.Wait()
}

// writeNode has a user's node say what is wanted, and returns what that took.
func (s *Service) writeNode(ctx context.Context, c change) (result string, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Nodes.Timeout.Std())
	defer cancel()
	if c.first != "" && s.cfg.Nodes.CaseIndex != "" {
		if err := s.writeCase(ctx, c.User); err != nil {
			return "", err
		}
	}
	path := s.cfg.Nodes.UserChain + "/" + c.User
	for range casTries {
		node, err := s.nodes.Get(ctx, path)
		missing := errors.Is(err, registry.ErrNoNode)
		if err != nil && !missing {
			return "", err
		}
		var was userchain.Value
		if !missing {
			if was, err = userchain.ParseValue(node.Content); err != nil {
				s.metrics.invalid.WithLabelValues("node").Inc()
				s.invalidLog.Do(func() { s.log.Warn().Err(err).Str("node", path).Msg("a user's node cannot be read") })
			}
		}
		now := s.valueOf(c, was)
		if now.Chain == "" {
			if c.accepted() {
				s.log.Warn().Str("user", c.User).Msg("a sub-pool is not written: the user has no chain")
			}
			return resultNothing, nil
		}
		text := now.Plain()
		if s.cfg.Nodes.JSON {
			text = now.JSON()
		}
		switch {
		case missing:
			result, err = "created", s.nodes.Create(ctx, path, text)
		case !c.accepted() && bytes.Equal(text, node.Content):
			return "same", nil
		default:
			result = "changed"
			_, err = s.nodes.Set(ctx, path, text, node.Version)
		}
		if !errors.Is(err, registry.ErrExists) && !errors.Is(err, registry.ErrChanged) && !errors.Is(err, registry.ErrNoNode) {
			if err == nil && was.Chain != now.Chain {
				s.log.Info().Str("user", c.User).Str("from", was.Chain).Str("to", now.Chain).Bool("asked_for", c.accepted()).Msg("user switched")
			}
			return result, err
		}
	}
	return "", fmt.Errorf("%s changes all the time", path)
}

// valueOf returns what a node is to say after a change.
func (s *Service) valueOf(c change, was userchain.Value) userchain.Value {
	now := was
	switch {
	case c.Chain != "":
		now.Chain = c.Chain
	case now.Chain == "":
		now.Chain = cmp.Or(c.first, s.lists.first(c.User))
	}
	if c.SubPool != nil {
		now.Subpool = *c.SubPool
	}
	now.PUIDs = make(map[string]int32)
	maps.Copy(now.PUIDs, was.PUIDs)
	maps.Copy(now.PUIDs, s.lists.ids(c.User))
	if c.PUID != 0 && c.Chain != userchain.Auto {
		now.PUIDs[c.Chain] = c.PUID
	}
	return now
}

// writeCase keeps how a user's name is spelled.
func (s *Service) writeCase(ctx context.Context, user string) error {
	path := s.cfg.Nodes.CaseIndex + "/" + strings.ToLower(user)
	if node, err := s.nodes.Get(ctx, path); err == nil && string(node.Content) == user {
		return nil
	} else if err == nil {
		_, err = s.nodes.Set(ctx, path, []byte(user), -1)
		return err
	} else if !errors.Is(err, registry.ErrNoNode) {
		return err
	}
	err := s.nodes.Create(ctx, path, []byte(user))
	if errors.Is(err, registry.ErrExists) {
		return nil // by another switchapi: the next change looks again
	}
	return err
}

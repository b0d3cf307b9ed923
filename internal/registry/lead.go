package registry

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"btcpool/internal/retry"

	"github.com/go-zookeeper/zk"
)

const (
	leadPoll       = 250 * time.Millisecond
	lockPrefix     = "lock-"
	sequenceDigits = 10
)

// candidate is a session that waits for the lead.
type candidate struct {
	*session
	mine     *held // our place in the queue, if any
	leader   observation
	standing bool
}

// campaign waits for the lead; it fails only with ctx.
func (s *session) campaign(ctx context.Context) (*held, error) {
	c := &candidate{session: s}
	for {
		won, err := c.step()
		if err != nil {
			s.waiting(err)
		}
		if won {
			return c.mine, nil
		}
		if !retry.Sleep(ctx, leadPoll) {
			return nil, ctx.Err()
		}
	}
}

// step queues, or looks whether we are the first or whether the first is silent.
func (c *candidate) step() (won bool, err error) {
	names, err := c.children()
	if err != nil {
		return false, err
	}
	names = queue(names)
	if c.mine == nil || !slices.Contains(names, strings.TrimPrefix(c.mine.node, c.path+"/")) {
		if err := c.enqueue(names); err != nil {
			return false, err
		}
		return c.step()
	}
	first := c.path + "/" + names[0]
	if first == c.mine.node {
		err := c.renew(c.mine) // only a write proves that we may begin
		return err == nil, err
	}
	if !c.standing {
		c.standing = true
		c.log.Info().Str("leader", first).Msg("standing by")
	}
	there, stat, err := c.conn.Exists(first)
	if err != nil || !there {
		return false, err
	}
	if c.leader.unchanged(first, stat.Version, c.breaks.Load(), time.Now()) < leadQuiet {
		return false, nil
	}
	c.log.Warn().Str("leader", first).Msg("the leader is silent, its lead ends")
	switch err := c.conn.Delete(first, stat.Version); {
	case errors.Is(err, zk.ErrNoNode), errors.Is(err, zk.ErrBadVersion):
		return false, nil // the node went by itself, or its owner is not silent after all
	case err != nil:
		return false, err
	}
	return c.step()
}

// enqueue makes our node, and removes those that an answer which got lost may have left.
func (c *candidate) enqueue(names []string) error {
	prefix := lockPrefix + c.uuid + "-"
	for _, name := range names {
		if strings.HasPrefix(name, prefix) {
			if err := c.conn.Delete(c.path+"/"+name, -1); err != nil && !errors.Is(err, zk.ErrNoNode) {
				return err
			}
		}
	}
	c.mine = &held{node: c.path + "/" + prefix, lead: true}
	if err := c.create(c.mine); err != nil {
		c.mine = nil
		return err
	}
	return nil
}

// queue returns the names of candidates, in order; others may be there too.
func queue(names []string) []string {
	sequence := func(name string) string { return name[len(name)-sequenceDigits:] }
	names = slices.DeleteFunc(names, func(name string) bool {
		return !strings.HasPrefix(name, lockPrefix) || len(name) < len(lockPrefix)+sequenceDigits ||
			strings.Trim(sequence(name), "0123456789") != ""
	})
	slices.SortFunc(names, func(a, b string) int { return strings.Compare(sequence(a), sequence(b)) })
	return names
}

// observation is the state in which a node has been seen.
type observation struct {
	node    string
	version int32
	breaks  int64
	since   time.Time
}

// unchanged returns for how long the node has been seen as it is. It begins anew after a break of our connection: while
// ZooKeeper was away the leader could not write, and need not.
func (o *observation) unchanged(node string, version int32, breaks int64, now time.Time) time.Duration {
	if seen := (observation{node, version, breaks, o.since}); *o != seen {
		seen.since = now
		*o = seen
	}
	return now.Sub(o.since)
}

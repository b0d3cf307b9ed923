package registry

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"btcpool/internal/retry"

	"github.com/go-zookeeper/zk"
)

// epochSuffix makes of a path that ids are leased under the node that holds the last epoch given out with one of them.
const epochSuffix = "_epoch"

// Epoch returns a number for what the holder does under its id: least or more, and more than anybody has got before who
// leased an id under the same path. A fixed id has no others beside it: least. It waits for ZooKeeper and fails only with
// ctx, or when numbers have come to their end.
func (l Lease) Epoch(ctx context.Context, least uint32) (uint32, error) {
	if l.session == nil {
		return least, nil
	}
	type result struct {
		epoch uint32
		err   error
	}
	got := make(chan result, 1)
	go func() { // a request that ZooKeeper does not answer ends with the session
		var r result
		r.err = retry.Do(ctx, retry.Pace{First: retryInterval, Longest: retryInterval}, func() (err error) {
			r.epoch, err = l.session.nextEpoch(least)
			return err
		}, func(err error, _ time.Duration) { l.session.waiting(err) })
		got <- r
	}()
	select {
	case r := <-got:
		return r.epoch, r.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// nextEpoch writes a new epoch into its node. One whose answer gets lost is nobody's.
func (s *session) nextEpoch(least uint32) (uint32, error) {
	node := s.path + epochSuffix
	for {
		text, stat, err := s.conn.Get(node)
		if errors.Is(err, zk.ErrNoNode) {
			_, err = s.conn.Create(node, nil, 0, zk.WorldACL(zk.PermAll))
			if err == nil || errors.Is(err, zk.ErrNodeExists) {
				continue
			}
		}
		if err != nil {
			return 0, fmt.Errorf("%s: %w", node, err)
		}
		last, err := parseEpoch(text)
		if err != nil {
			s.log.Warn().Str("node", node).Err(err).Msg("what is there is no epoch, and is replaced")
		}
		if last == math.MaxUint32 {
			return 0, retry.Enough(fmt.Errorf("%s: no epoch is left", node))
		}
		epoch := max(least, last+1)
		_, err = s.conn.Set(node, strconv.AppendUint(nil, uint64(epoch), 10), stat.Version)
		if !errors.Is(err, zk.ErrBadVersion) {
			return epoch, err
		}
	}
}

// parseEpoch reads what a node holds; 0 when no epoch was given out, or when it holds something else.
func parseEpoch(text []byte) (uint32, error) {
	if len(text) == 0 {
		return 0, nil
	}
	last, err := strconv.ParseUint(string(text), 10, 32)
	if err != nil {
		return 0, err // with the largest number, when the one that is there is larger
	}
	return uint32(last), nil
}

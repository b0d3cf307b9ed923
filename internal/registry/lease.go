package registry

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"btcpool/internal/retry"

	"github.com/go-zookeeper/zk"
)

// lease waits for an id; it fails only with ctx.
func (s *session) lease(ctx context.Context) (id uint8, h *held, err error) {
	pace := retry.Pace{First: retryInterval, Longest: retryInterval}
	err = retry.Do(ctx, pace, func() (err error) {
		id, h, err = s.tryLease(id)
		return err
	}, func(err error, _ time.Duration) { s.waiting(err) })
	return id, h, err
}

// tryLease takes the lowest id that is free or ours already. With an error it returns the id that it may have got
// nevertheless, or 0.
func (s *session) tryLease(unsure uint8) (uint8, *held, error) {
	names, err := s.children()
	if err != nil {
		return unsure, nil, err
	}
	for id := 1; id <= math.MaxUint8; id++ {
		name := strconv.Itoa(id)
		h := &held{node: s.path + "/" + name}
		switch {
		case uint8(id) == unsure:
			err = s.relearn(h)
			if err == nil {
				h.content = s.content(time.Now())
				err = s.renew(h)
			}
		case slices.Contains(names, name):
			continue
		default:
			err = s.create(h)
		}
		switch {
		case err == nil:
			return uint8(id), h, nil
		case errors.Is(err, zk.ErrNodeExists), errors.Is(err, ErrLost):
		default:
			return uint8(id), nil, fmt.Errorf("%s: %w", h.node, err)
		}
	}
	return 0, nil, errors.New("all ids of 1 to 255 are taken")
}

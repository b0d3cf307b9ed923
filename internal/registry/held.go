package registry

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"btcpool/internal/retry"

	"github.com/go-zookeeper/zk"
)

const (
	// renewals is how often a validity is renewed in its length.
	renewals     = 6
	leadValidity = 2 * time.Second
	// leadQuiet must stay above leadValidity, in every version of this program that stands by for another.
	leadQuiet = leadValidity + time.Second
)

// held is a node of ours.
type held struct {
	node      string
	lead      bool // whether it is a sequential node, which cannot be made again
	content   []byte
	owner     atomic.Int64 // the session that made it
	from      int64        // the session that left it to this one; 0: none, or it is ours by now
	left      atomic.Bool  // another process goes on with it
	version   int32
	confirmed time.Time // when the last write that a quorum has agreed to was sent
}

// life is how long h is ours after it was confirmed.
func (h *held) life(s *session) time.Duration {
	d := s.timeout() * 2 / 3
	if h.lead {
		d = min(d, leadValidity)
	}
	return d
}

// keep renews h until ctx ends or it is lost.
func (s *session) keep(ctx context.Context, h *held, v *validity, cancel context.CancelCauseFunc) {
	confirmed := s.metrics.confirmed.WithLabelValues(s.path)
	confirmed.SetToCurrentTime()
	pause := h.life(s) / renewals
	for h.from != 0 || retry.Sleep(ctx, pause) {
		renew := s.renew
		if h.from != 0 {
			renew = s.take
		}
		switch err := renew(h); {
		case err == nil:
			v.extend(h.confirmed.Add(h.life(s)))
			confirmed.SetToCurrentTime()
		case errors.Is(err, ErrLost):
			if !h.left.Load() {
				cancel(err)
			}
			return
		case ctx.Err() == nil:
			s.waiting(err)
			if h.from != 0 {
				retry.Sleep(ctx, passPace)
			}
		default:
			return
		}
	}
}

// renew writes to the node of h, and makes it again if it is gone with its session. Whose it is, ZooKeeper says:
// contents can be anybody's. An error that is ErrLost is final.
func (s *session) renew(h *held) error {
	for range 3 {
		sent := time.Now()
		stat, err := s.conn.Set(h.node, h.content, h.version)
		switch {
		case err == nil && stat.EphemeralOwner == h.owner.Load():
			h.version, h.confirmed = stat.Version, sent
			return nil
		case err == nil:
			return fmt.Errorf("%s: %w to another process", h.node, ErrLost)
		case errors.Is(err, zk.ErrNoNode) && h.lead:
			return fmt.Errorf("%s: %w: the node is gone", h.node, ErrLost)
		case errors.Is(err, zk.ErrNoNode):
			if err := s.create(h); !errors.Is(err, zk.ErrNodeExists) {
				return err
			}
		case !errors.Is(err, zk.ErrBadVersion):
			return err
		}
		if err := s.relearn(h); err != nil {
			return err
		}
	}
	return fmt.Errorf("%s changes all the time", h.node)
}

// relearn looks at what is in the place of h: it may be by a request of ours whose answer got lost.
func (s *session) relearn(h *held) error {
	there, stat, err := s.conn.Exists(h.node)
	if err != nil || !there {
		return err
	}
	if stat.EphemeralOwner == s.conn.SessionID() {
		h.owner.Store(stat.EphemeralOwner)
		h.from = 0
	}
	if stat.EphemeralOwner == 0 || stat.EphemeralOwner != h.owner.Load() {
		return fmt.Errorf("%s: %w to another process", h.node, ErrLost)
	}
	h.version = stat.Version
	return nil
}

// create makes the node of h; zk.ErrNodeExists if there is one.
func (s *session) create(h *held) error {
	flags := int32(zk.FlagEphemeral)
	if h.lead {
		flags |= zk.FlagSequence
	}
	h.content = s.content(time.Now())
	sent := time.Now()
	node, err := s.conn.Create(h.node, h.content, flags, zk.WorldACL(zk.PermAll))
	if err != nil {
		return err
	}
	h.made(node, s.conn.SessionID(), sent)
	return nil
}

func (h *held) made(node string, owner int64, sent time.Time) {
	h.owner.Store(owner)
	h.node, h.from, h.version, h.confirmed = node, 0, 0, sent
}

// children lists what is under the session's path, which is made if need be.
func (s *session) children() ([]string, error) {
	names, _, err := s.conn.Children(s.path)
	if !errors.Is(err, zk.ErrNoNode) {
		return names, err
	}
	for i := 1; i <= len(s.path); i++ {
		if i < len(s.path) && s.path[i] != '/' {
			continue
		}
		_, err := s.conn.Create(s.path[:i], nil, 0, zk.WorldACL(zk.PermAll))
		if err != nil && !errors.Is(err, zk.ErrNodeExists) {
			return nil, err
		}
	}
	return nil, nil
}

// validity calls a function when its time is over, once.
type validity struct {
	mu    sync.Mutex
	until time.Time
	timer *time.Timer
}

// newValidity returns a validity that begins with the first call of extend.
func newValidity(over func()) *validity {
	v := &validity{timer: time.AfterFunc(time.Hour, over)}
	v.timer.Stop()
	return v
}

func (v *validity) extend(until time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if until.After(v.until) {
		v.until = until
		v.timer.Reset(time.Until(until))
	}
}

func (v *validity) stop() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.timer.Stop()
}

// end returns when the validity ends, as things are.
func (v *validity) end() time.Time {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.until
}

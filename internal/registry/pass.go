package registry

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"btcpool/internal/retry"
	"btcpool/internal/upgrade"

	"github.com/go-zookeeper/zk"
)

// passPace is how often it is looked whether a node has passed.
const passPace = 50 * time.Millisecond

// Estate is a lease that another process is to go on with.
type Estate struct {
	ID    uint8
	Owner int64         // the session that made its node; 0: the id is fixed
	Valid time.Duration // from now on, if nobody renews it
}

// Code is for what another process is told of it.
func (e *Estate) Code(c *upgrade.Codec) {
	upgrade.Uint(c, &e.ID)
	upgrade.Int(c, &e.Owner)
	upgrade.Int(c, &e.Valid)
}

// Estate returns the lease as an Heir needs it.
func (l Lease) Estate() Estate {
	if l.session == nil {
		return Estate{ID: l.ID}
	}
	return Estate{l.ID, l.held.owner.Load(), time.Until(l.validity.end())}
}

// Leave is called when an Heir is about to go on: what becomes of the node is no loss then, and the end of run leaves it
// there until it is the Heir's. If none goes on, undo.
func (l Lease) Leave() (undo func()) {
	if l.session == nil {
		return func() {}
	}
	l.held.left.Store(true)
	return func() { l.held.left.Store(false) }
}

// awaitHeir returns when the node is another's: it would end with the session, and anybody could have the id.
func (s *session) awaitHeir(h *held, until time.Time) {
	ctx, cancel := context.WithDeadline(s.closing, until)
	defer cancel()
	for {
		there, stat, err := s.conn.Exists(h.node)
		if err == nil && (!there || stat.EphemeralOwner != h.owner.Load()) || !retry.Sleep(ctx, passPace) {
			return
		}
	}
}

// Heir is who is to go on with the lease of another process, and is connected before it does.
type Heir struct {
	registry *Registry
	session  *session
}

// Heir returns one, which has to be closed unless Lease is called.
func (r *Registry) Heir(path string) (*Heir, error) {
	s, err := r.open(path)
	if err != nil {
		return nil, err
	}
	return &Heir{r, s}, nil
}

// Close ends an Heir that has not called Lease.
func (h *Heir) Close() { h.session.close() }

// Epoch is Lease.Epoch.
func (h *Heir) Epoch(ctx context.Context, least uint32) (uint32, error) {
	return Lease{session: h.session}.Epoch(ctx, least)
}

// Knows returns nil when the lease is in the place where the Heir would look for it.
func (h *Heir) Knows(e Estate) error {
	node := h.session.node(e.ID)
	there, stat, err := h.session.conn.Exists(node)
	if err == nil && (!there || stat.EphemeralOwner != e.Owner) {
		err = fmt.Errorf("%s is not of the process that leases it", node)
	}
	return err
}

// Lease is Registry.Lease with the id of another process, which does not serve under it any more. The node becomes the
// Heir's while run runs.
func (h *Heir) Lease(ctx context.Context, e Estate, run func(context.Context, Lease) error) error {
	defer h.session.close()
	got := &held{node: h.session.node(e.ID), from: e.Owner}
	got.confirmed = time.Now().Add(e.Valid - got.life(h.session))
	return h.registry.held(ctx, h.session, e.ID, got, run)
}

func (s *session) node(id uint8) string { return s.path + "/" + strconv.Itoa(int(id)) }

// take makes the node of h, which another process has left to it, its own: nobody else can have it in between. An error
// that is ErrLost is final.
func (s *session) take(h *held) error {
	for {
		there, stat, err := s.conn.Exists(h.node)
		switch {
		case err != nil:
			return err
		case !there: // the other process has ended too soon
			err = s.create(h)
		case stat.EphemeralOwner == s.conn.SessionID(): // an answer to us got lost
			err = s.relearn(h)
		case stat.EphemeralOwner != h.from:
			return fmt.Errorf("%s: %w to another process", h.node, ErrLost)
		default:
			err = s.move(h, stat.Version)
		}
		if !errors.Is(err, zk.ErrNodeExists) && !errors.Is(err, zk.ErrBadVersion) && !errors.Is(err, zk.ErrNoNode) {
			return err
		}
	}
}

// move makes another session's node the one of h.
func (s *session) move(h *held, version int32) error {
	h.content = s.content(time.Now())
	sent := time.Now()
	results, err := s.conn.Multi(
		&zk.DeleteRequest{Path: h.node, Version: version},
		&zk.CreateRequest{Path: h.node, Data: h.content, Acl: zk.WorldACL(zk.PermAll), Flags: zk.FlagEphemeral},
	)
	for _, r := range results {
		if err == nil || r.Error != nil {
			err = r.Error
		}
	}
	if err == nil {
		h.made(h.node, s.conn.SessionID(), sent)
	}
	return err
}

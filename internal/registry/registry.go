// Package registry hands out what only one process may have at a time: an id of 1 to 255 for as long as a process runs,
// and the lead among processes that stand by for each other. ZooKeeper decides; without it ids are fixed and everybody
// leads, through the same calls. It also tells of what operators write into nodes that are watched.
//
// An id is an ephemeral node <path>/<id>, the lowest that was free, as btcpool has it, so that both may share a path.
// Who leases one can have an epoch with it, which grows from holder to holder: the node <path>_epoch has the last. The
// lead belongs to the lowest of the ephemeral sequential nodes <path>/lock-<uuid>-<sequence>.
//
// # Never two
//
// What is held is held until a time that is known in advance, its validity. It begins with a write to the held node
// which ZooKeeper acknowledged, counts from before that write was sent, and is renewed six times in its length:
//
//   - An id stays valid for two thirds of the session timeout that the server
//     granted. A quorum agreed to the write, so whichever server leads it
//     later gives the session at least its whole timeout from then on. The
//     last third covers touches of the session that a follower had not passed
//     on when it died, clocks that run unevenly, and the time that a holder
//     takes to stop.
//   - The lead stays valid for 2 s. A candidate deletes the node of a leader
//     which it has seen unchanged for 3 s, under the version it saw, so the
//     lead passes on long before a dead leader's session ends.
//
// The context of the holder ends when the validity does, at the latest, and as soon as somebody else is found in its
// place. Two holders remain possible where no clock of ours can help: if a process that is stopped (SIGSTOP, a virtual
// machine that is moved) finishes on waking what it had begun, if a holder goes on for longer than the rest of the time
// after its context ended, and for one renewal interval if somebody deletes nodes by hand.
//
// # ZooKeeper away
//
// Who asks for an id or the lead waits, and says so. Who has one keeps it while ZooKeeper is away for everybody:
// refused connections to so many servers that the others are no quorum extend the validity just as a write does,
// because nobody can get an id then and because sessions live their whole timeout again once a quorum is back. That
// needs Config.Servers to name the whole ensemble, and firewalls that drop rather than reject. After the return the
// node is still there, or is made again under the same id if that is free; if not, the holder has lost it.
//
// Silence is different: it may be this machine alone which is cut off, so the holder stops with the validity.
// Config.KeepWhenSilent chooses otherwise.
package registry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"btcpool/internal/telemetry"

	"github.com/rs/zerolog"
)

// ErrLost means that an id or the lead is somebody else's now, or may be.
var ErrLost = errors.New("lost")

const retryInterval = time.Second // between attempts to get an id

// Registry is a way to ids and locks. Its methods may be called at the same time; each call has a ZooKeeper session of
// its own.
type Registry struct {
	cfg     Config
	log     zerolog.Logger
	metrics *metrics
}

// New returns a Registry; it connects to nothing.
func New(cfg Config, deps telemetry.Deps) (*Registry, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Registry{cfg: cfg, log: deps.Log, metrics: newMetrics(deps.Metrics)}, nil
}

// Lease is an id that is held.
type Lease struct {
	ID       uint8
	session  *session // nil: the id is fixed
	held     *held
	validity *validity
}

// Lease calls run with an id that no other process has under path, once there is one; fixed, if not 0, is the id, and
// ZooKeeper is not asked. The context that run gets ends with ctx, or before when the id is lost: run has to return at
// once then, for another process may begin with the same id.
//
// It returns nil if ctx ended before there was an id, an error that is ErrLost if the id got lost, else what run
// returns. The id is free again when Lease returns.
func (r *Registry) Lease(ctx context.Context, path string, fixed uint8, run func(context.Context, Lease) error) error {
	if fixed != 0 {
		return run(ctx, Lease{ID: fixed})
	}
	if len(r.cfg.Servers) == 0 {
		return errors.New("an id of 0 needs zookeeper.servers to lease one from")
	}
	s, err := r.open(path)
	if err != nil {
		return err
	}
	defer s.close()
	var id uint8
	h, err := acquire(ctx, s, func() (h *held, err error) {
		id, h, err = s.lease(ctx)
		return h, err
	})
	if err != nil {
		return nil // only the end of ctx gets here
	}
	return r.held(ctx, s, id, h, run)
}

// held calls run with an id that s holds by h.
func (r *Registry) held(ctx context.Context, s *session, id uint8, h *held, run func(context.Context, Lease) error) error {
	gauge := r.metrics.id.WithLabelValues(s.path)
	gauge.Set(float64(id))
	defer gauge.Set(0)
	s.log.Info().Uint8("id", id).Msg("id leased")
	return s.hold(ctx, h, func(ctx context.Context, v *validity) error { return run(ctx, Lease{id, s, h, v}) })
}

// Lead calls run while no other process leads under path, and again each time that the lead was lost and won back. The
// context that run gets ends with ctx, or before when the lead is lost: run has to return at once then. Without
// ZooKeeper, or with an empty path, it is run alone.
//
// It returns nil if ctx ended before there was a lead, else what run returns; an error that is context.Canceled or
// ErrLost is no reason to return if the lead is lost.
func (r *Registry) Lead(ctx context.Context, path string, run func(ctx context.Context) error) error {
	if len(r.cfg.Servers) == 0 || path == "" {
		return run(ctx)
	}
	for ctx.Err() == nil {
		err := r.lead(ctx, path, run)
		if !errors.Is(err, ErrLost) {
			return err
		}
		r.log.Warn().Err(err).Str("path", path).Msg("no longer leading")
	}
	return nil
}

func (r *Registry) lead(ctx context.Context, path string, run func(ctx context.Context) error) error {
	s, err := r.open(path)
	if err != nil {
		return err
	}
	defer s.close()
	h, err := acquire(ctx, s, func() (*held, error) { return s.campaign(ctx) })
	if err != nil {
		return nil // only the end of ctx gets here
	}
	gauge := r.metrics.leader.WithLabelValues(path)
	gauge.Set(1)
	defer gauge.Set(0)
	s.log.Info().Msg("leading")
	return s.hold(ctx, h, func(ctx context.Context, _ *validity) error { return run(ctx) })
}

// acquire calls get; the end of ctx closes the session, which ends any request that get waits for.
func acquire(ctx context.Context, s *session, get func() (*held, error)) (*held, error) {
	stop := context.AfterFunc(ctx, s.close)
	h, err := get()
	if !stop() && err == nil {
		err = ctx.Err()
	}
	return h, err
}

// hold calls run for as long as h is kept, and closes the session afterwards.
func (s *session) hold(ctx context.Context, h *held, run func(context.Context, *validity) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	v := newValidity(func() {
		if !s.cfg.KeepWhenSilent {
			cancel(fmt.Errorf("%s: %w: ZooKeeper has been silent for too long", h.node, ErrLost))
		}
	})
	defer v.stop()
	v.extend(h.confirmed.Add(h.life(s)))
	s.away.Store(new(func(at time.Time) { v.extend(at.Add(h.life(s))) }))

	keepCtx, stopKeeping := context.WithCancel(context.WithoutCancel(ctx))
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		s.keep(keepCtx, h, v, cancel)
	}()
	err := run(ctx, v)
	cause := context.Cause(ctx)
	stopKeeping()
	if h.left.Load() {
		s.awaitHeir(h, v.end())
		cause = nil
	}
	s.close()
	<-kept
	if !errors.Is(cause, ErrLost) {
		return err
	}
	s.metrics.losses.WithLabelValues(s.path).Inc()
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, ErrLost) {
		return cause
	}
	return fmt.Errorf("%w (%v)", err, cause) //nolint:errorlint // what run says decides
}

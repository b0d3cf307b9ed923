// Package notify tells people what happens at the pool: a block was found, a worker fell silent, a hashrate fell, many
// shares are refused; and that it is over. Whoever watches the pool hands over what is seen (Look, Blocks); this package
// judges it, and tells each target of what differs from what the target was told last.
//
// So what is not told yet is no list that grows: while a target does not answer, or is not to be disturbed, it waits as a
// difference, what has ended meanwhile is not told at all, and what is told then is one message. A message is on disk
// before it is sent and until it has been taken; after a crash in between it is sent again with the same id.
//
// The webhook's format is in docs/formats.md.
package notify

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"btcpool/internal/durable"
	"btcpool/internal/retry"
	"btcpool/internal/service"
)

// Interval is the time between two Looks that thresholds are made for.
const Interval = 15 * time.Second

// Notifier judges and tells. Its methods may be called from any goroutine.
type Notifier struct {
	cfg     Config
	log     zerolog.Logger
	metrics *metrics
	writing *service.Fault // the state
	folder  *os.File       // locked

	mu      sync.Mutex
	state   *state
	targets []*target
}

// target is a Target that can be sent to.
type target struct {
	Target
	sender  sender
	bell    retry.Bell
	failing *service.Fault
}

// sender sends one message one way. An error never holds a secret.
type sender interface {
	send(ctx context.Context, m *Message) error
}

// New reads secrets and the state, and keeps the folder to itself. Without targets it returns nil, whose methods do
// nothing.
func New(cfg Config, deps service.Deps) (*Notifier, error) {
	if len(cfg.Targets) == 0 {
		return nil, nil
	}
	targets, err := cfg.open(deps.Log)
	if err != nil {
		return nil, err
	}
	n := &Notifier{
		cfg: cfg, log: deps.Log, targets: targets,
		writing: service.NewFault(deps.Log, zerolog.ErrorLevel, "notifications not written: none are sent", "notifications are written again"),
	}
	n.metrics = newMetrics(deps.Metrics, n)
	if n.folder, err = durable.Lock(cfg.DataDir); err != nil {
		return nil, fmt.Errorf("notify.data_dir: %w", err)
	}
	if n.state, err = readState(cfg.DataDir, n.log); err != nil {
		return nil, errors.Join(fmt.Errorf("notify.data_dir: %w", err), n.folder.Close())
	}
	n.state.take(targets)
	n.write()
	return n, nil
}

func (cfg Config) open(log zerolog.Logger) (targets []*target, err error) {
	var faults []error
	for i, t := range cfg.Targets {
		s, err := t.open()
		if err != nil {
			faults = append(faults, fmt.Errorf("notify.targets[%d].%w", i, err))
			continue
		}
		of := log.With().Str("target", t.Name).Str("kind", string(t.Kind)).Logger()
		targets = append(targets, &target{
			Target: t, sender: s, bell: retry.NewBell(),
			failing: service.NewFault(of, zerolog.WarnLevel, "notification not sent: will try again and again", "notifications are sent again"),
		})
	}
	return targets, errors.Join(faults...)
}

// Close gives the folder back. Nothing may run any more.
func (n *Notifier) Close() error {
	if n == nil {
		return nil
	}
	return n.folder.Close()
}

// Ready tells whether what happens can be kept. That a target does not answer is no reason not to be.
func (n *Notifier) Ready() error {
	if n == nil || n.writing.Err() == nil {
		return nil
	}
	return fmt.Errorf("notifications not written: %w", n.writing.Err())
}

// Look takes in what is seen of the pool, all users and all workers at one moment.
func (n *Notifier) Look(now time.Time, sights iter.Seq[Sight]) {
	if n == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.state.untracked = 0
	for sight := range sights {
		n.state.judge(n.cfg, now, sight)
	}
	n.state.endLook(now)
	n.compose(now)
}

// Blocks takes in the newest blocks, the newest first, as many as Covered asks for.
func (n *Notifier) Blocks(now time.Time, blocks []Block) {
	if n == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.state.takeBlocks(blocks, n.targets)
	n.compose(now)
}

// Covered tells whether the newest blocks, the newest first, are all that may have news.
func (n *Notifier) Covered(blocks []Block) bool {
	if n == nil {
		return true
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.state.covered(blocks)
}

// compose makes the messages that are due, and writes all that has changed. n.mu is held.
func (n *Notifier) compose(now time.Time) {
	for _, t := range n.targets {
		for _, e := range Events {
			if t.wants(e) && n.state.mayTell(t, e, now, n.cfg.Pause.Std()) {
				if m := n.state.compose(t, e, now); m != nil {
					m.Pool = n.cfg.PoolName
					n.state.put(t, e, now, m)
				}
			}
		}
	}
	n.state.forget(now)
	n.write()
	for _, t := range n.targets {
		t.bell.Ring()
	}
}

// write puts the state on disk, if it has changed. n.mu is held.
func (n *Notifier) write() {
	err := n.state.write(n.cfg.DataDir)
	n.writing.Set(err)
}

// Run sends until ctx ends.
func (n *Notifier) Run(ctx context.Context) error {
	if n == nil {
		return nil
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, t := range n.targets {
		g.Go(func() error {
			n.deliver(ctx, t)
			return nil
		})
	}
	return g.Wait()
}

// Test sends a message to each target, and returns what went wrong. It needs no folder.
func Test(ctx context.Context, cfg Config, log zerolog.Logger) error {
	targets, err := cfg.open(log)
	if err != nil {
		return err
	}
	if len(targets) == 0 {
		return errors.New("notify.targets: there are none")
	}
	var faults []error
	for _, t := range targets {
		m := newMessage(testEvent, time.Now())
		m.Pool = cfg.PoolName
		if err := sendInTime(ctx, t.sender, m); err != nil {
			faults = append(faults, fmt.Errorf("%s (%s): %w", t.Name, t.Kind, err))
			continue
		}
		log.Info().Str("target", t.Name).Str("kind", string(t.Kind)).Msg("test message sent")
	}
	return errors.Join(faults...)
}

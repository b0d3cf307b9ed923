package switcher

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"btcpool/internal/chainwatch"
	"btcpool/internal/registry"
	"btcpool/internal/retry"
	"btcpool/internal/userchain"
)

// registrations asks for users that have no node: by a node of their own, which whoever registers them removes when that
// is done, or will not be. However many miners wait for a user, there is one request for it.
type registrations struct {
	nodes   *registry.Nodes
	path    string
	timeout time.Duration // of a call
	limit   time.Duration // of a registration
	metrics *metrics

	mu      sync.Mutex
	pending map[string]*registration
	most    int
}

// registration is a request under way.
type registration struct {
	done chan struct{}
	why  *refusal // once done: why there is no user; nil: look again
}

func newRegistrations(cfg Users, users *chainwatch.Watcher, m *metrics) *registrations {
	if cfg.AutoReg == "" {
		return nil
	}
	return &registrations{
		nodes: users.Nodes(), path: cfg.AutoReg, timeout: cfg.Timeout.Std(), limit: cfg.RegistrationTimeout.Std(),
		metrics: m, pending: make(map[string]*registration), most: cfg.MaxRegistrations,
	}
}

// wait returns when the registration of a user is over, and why it did not come about; nil: the user may be there.
func (r *registrations) wait(ctx context.Context, user, worker string, session uint32) *refusal {
	r.mu.Lock()
	g := r.pending[user]
	if g == nil {
		if len(r.pending) >= r.most {
			r.mu.Unlock()
			r.metrics.registrations.WithLabelValues("too many").Inc()
			return &refuseCrowded
		}
		g = &registration{done: make(chan struct{})}
		r.pending[user] = g
		r.mu.Unlock()
		r.run(ctx, g, user, worker, session)
		return g.why
	}
	r.mu.Unlock()
	select {
	case <-g.done:
		return g.why
	case <-ctx.Done():
		return &refuseUnavailable
	}
}

// run makes a request and waits until it is over.
func (r *registrations) run(ctx context.Context, g *registration, user, worker string, session uint32) {
	defer func() {
		r.mu.Lock()
		delete(r.pending, user)
		r.mu.Unlock()
		close(g.done)
	}()
	node := r.path + "/" + user
	text, _ := json.Marshal(userchain.Request{SessionID: session, Worker: worker}) // a number and a text
	err := r.call(ctx, func(ctx context.Context) error { return r.nodes.Create(ctx, node, text) })
	result := "asked"
	switch {
	case errors.Is(err, registry.ErrExists):
		result = "asked already"
	case err != nil:
		r.metrics.registrations.WithLabelValues("unavailable").Inc()
		g.why = &refuseUnavailable
		return
	}
	r.metrics.registrations.WithLabelValues(result).Inc()
	ctx, cancel := context.WithTimeout(ctx, r.limit)
	defer cancel()
	for {
		err := r.call(ctx, func(ctx context.Context) error { _, err := r.nodes.Get(ctx, node); return err })
		if errors.Is(err, registry.ErrNoNode) {
			r.metrics.registrations.WithLabelValues("done").Inc()
			return
		}
		if !retry.Sleep(ctx, registrationPause) {
			r.metrics.registrations.WithLabelValues("late").Inc()
			g.why = &refuseUnregistered
			return
		}
	}
}

// registrationPause is between looks whether a registration is over.
const registrationPause = 200 * time.Millisecond

func (r *registrations) call(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	return f(ctx)
}

// waiting returns how many registrations are under way.
func (r *registrations) waiting() int {
	if r == nil {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.pending)
}

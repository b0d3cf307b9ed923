package chainwatch

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"btcpool/internal/registry"
	"btcpool/internal/retry"
	"btcpool/internal/service"
	"btcpool/internal/telemetry"
	"btcpool/internal/userchain"
)

// Why a user is not registered.
var (
	ErrCrowded    = errors.New("too many users are to be registered at once")
	ErrUnanswered = errors.New("nobody has dealt with the request to register the user")
)

// Registrations asks for users that have no node: by a node of their own, which whoever registers them (switchapi)
// removes when that is done, or will not be. However many wait for a user, there is one request for it.
type Registrations struct {
	nodes    *registry.Nodes
	path     string
	settings Settings
	results  *prometheus.CounterVec

	mu      sync.Mutex
	pending map[string]*registration
}

// registration is a request under way.
type registration struct {
	done chan struct{}
	err  error // once done
}

// Registrations returns those with requests below path, for users that w follows; nil if path is "".
func (w *Watcher) Registrations(path string, deps service.Deps) *Registrations {
	if path == "" {
		return nil
	}
	set := telemetry.Metrics(deps.Metrics, "chainwatch")
	r := &Registrations{
		nodes: w.nodes.Nodes, path: path, settings: w.cfg.Settings, pending: make(map[string]*registration),
		results: set.Counters("registrations_total", "Requests to register users, by what became of them.", "result"),
	}
	set.GaugeFunc("registrations_waiting", "Users that are being registered.", func() float64 { return float64(r.Waiting()) })
	return r
}

// Wait returns when the request for a user is over: nil when it was dealt with, so that the user may be there, else
// ErrCrowded, ErrUnavailable or ErrUnanswered. The ctx of whoever asks first is that of the request.
func (r *Registrations) Wait(ctx context.Context, user string, request userchain.Request) error {
	r.mu.Lock()
	g := r.pending[user]
	if g == nil {
		if len(r.pending) >= r.settings.MaxRegistrations {
			r.mu.Unlock()
			r.results.WithLabelValues("too many").Inc()
			return ErrCrowded
		}
		g = &registration{done: make(chan struct{})}
		r.pending[user] = g
		r.mu.Unlock()
		g.err = r.request(ctx, user, request)
		r.mu.Lock()
		delete(r.pending, user)
		r.mu.Unlock()
		close(g.done)
		return g.err
	}
	r.mu.Unlock()
	select {
	case <-g.done:
		return g.err
	case <-ctx.Done():
		return ErrUnavailable
	}
}

// request makes a request and waits until it is over.
func (r *Registrations) request(ctx context.Context, user string, request userchain.Request) error {
	node := r.path + "/" + user
	text, _ := json.Marshal(request) // numbers and texts
	err := r.call(ctx, func(ctx context.Context) error { return r.nodes.Create(ctx, node, text) })
	result := "asked"
	switch {
	case errors.Is(err, registry.ErrExists):
		result = "asked already"
	case err != nil:
		r.results.WithLabelValues("unavailable").Inc()
		return ErrUnavailable
	}
	r.results.WithLabelValues(result).Inc()
	ctx, cancel := context.WithTimeout(ctx, r.settings.RegistrationTimeout.Std())
	defer cancel()
	for {
		err := r.call(ctx, func(ctx context.Context) error { _, err := r.nodes.Get(ctx, node); return err })
		if errors.Is(err, registry.ErrNoNode) {
			r.results.WithLabelValues("done").Inc()
			return nil
		}
		if !retry.Sleep(ctx, LookInterval) {
			r.results.WithLabelValues("late").Inc()
			return ErrUnanswered
		}
	}
}

// LookInterval is between looks whether a registration is over.
const LookInterval = 200 * time.Millisecond

func (r *Registrations) call(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, r.settings.Timeout.Std())
	defer cancel()
	return f(ctx)
}

// Waiting returns how many requests are under way.
func (r *Registrations) Waiting() int {
	if r == nil {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.pending)
}

package sserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"btcpool/internal/registry"
	"btcpool/internal/retry"
	"btcpool/internal/telemetry"
	"btcpool/internal/userchain"
	"btcpool/internal/users"
)

// registrations are the users who are asked for by nodes in ZooKeeper, each once however many sessions wait for it.
type registrations struct {
	results *prometheus.CounterVec // result
	max     int

	mu      sync.Mutex
	pending map[string]*registration
}

// registration is one user who is asked for.
type registration struct {
	abandon func()
	done    chan struct{} // closed when the rest is set
	at      place
	err     error
}

func newRegistrations(limit int, set telemetry.Set) *registrations {
	return &registrations{
		results: set.Counters("registrations_total", "Users asked for by nodes in ZooKeeper, by what came of it.", "result"),
		max:     limit, pending: make(map[string]*registration),
	}
}

var (
	errManyAsked  = errors.New("too many users are to be registered at once")
	errNotAnswers = errors.New("the registration of the user is not answered")
)

// answerInterval is how often it is looked whether a request was dealt with.
const answerInterval = 300 * time.Millisecond

// begin is place; a user that is not known is asked for, if that is configured.
func (b *switchboard) begin(ctx context.Context, user string, request userchain.Request) (place, error) {
	at, err := b.place(ctx, user)
	if !errors.Is(err, users.ErrUnknown) || b.srv.cfg.UserChain.AutoReg == "" {
		return at, err
	}
	r := b.asking
	r.mu.Lock()
	asked := r.pending[user]
	switch {
	case asked == nil && len(r.pending) == r.max:
		r.mu.Unlock()
		r.results.WithLabelValues("too many").Inc()
		return place{}, errManyAsked
	case asked == nil:
		ctx, cancel := context.WithTimeout(ctx, b.srv.cfg.UserChain.RegistrationTimeout.Std())
		asked = &registration{abandon: cancel, done: make(chan struct{})}
		r.pending[user] = asked
		b.srv.goroutines.Go(func() {
			defer cancel()
			asked.at, asked.err = b.register(ctx, user, request)
			r.mu.Lock()
			delete(r.pending, user)
			r.mu.Unlock()
			close(asked.done)
		})
	}
	r.mu.Unlock()
	<-asked.done // has a deadline
	return asked.at, asked.err
}

// abandon lets go of all who wait: their sessions are ended.
func (r *registrations) abandon() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, asked := range r.pending {
		asked.abandon()
	}
}

// register asks for a user, and waits until the request is gone and the user known, or ctx ends.
func (b *switchboard) register(ctx context.Context, user string, request userchain.Request) (at place, err error) {
	path := b.srv.cfg.UserChain.AutoReg + "/" + user
	text, _ := json.Marshal(request) // numbers and strings only
	if err = b.call(ctx, func(ctx context.Context) error { return b.nodes.Nodes().Create(ctx, path, text) }); errors.Is(err, registry.ErrExists) {
		err = nil
	}
	for gone := false; err == nil; {
		if !gone { // where ZooKeeper does not say, it may be there
			gone = errors.Is(b.call(ctx, func(ctx context.Context) error { _, err := b.nodes.Nodes().Get(ctx, path); return err }), registry.ErrNoNode)
		}
		if gone {
			if at, err = b.place(ctx, user); !errors.Is(err, users.ErrUnknown) {
				break
			}
			err = nil
		}
		if !retry.Sleep(ctx, answerInterval) {
			err = errNotAnswers
			if gone { // it was answered, and is not known all the same
				err = fmt.Errorf("%s: %w", user, users.ErrUnknown)
			}
		}
	}
	result := "registered"
	switch {
	case err == nil:
	case errors.Is(err, users.ErrUnknown):
		result = "refused"
	case errors.Is(err, errNotAnswers):
		result = "not answered"
	default:
		result = "failed"
	}
	b.asking.results.WithLabelValues(result).Inc()
	return at, err
}

// call asks ZooKeeper.
func (b *switchboard) call(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, b.srv.cfg.UserChain.Timeout.Std())
	defer cancel()
	return f(ctx)
}

package operator

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"btcpool/internal/config"
)

// maxDrainGrace is the longest time over which an operator may send miners away.
const maxDrainGrace = 24 * time.Hour

// drain is at most one that the operator has asked for. It lasts until it is cancelled, with nobody let in, also when
// all miners have gone.
type drain struct {
	mu      sync.Mutex
	current *draining // nil: none
}

type draining struct {
	began       time.Time
	grace       config.Duration
	reconnectTo string
	cancel      context.CancelFunc
	over        bool // all have been sent away
}

// drainView is what the operator is told.
type drainView struct {
	State       string           `json:"state"` // none, draining or drained
	BeganAt     *time.Time       `json:"began_at"`
	Grace       *config.Duration `json:"grace"`
	ReconnectTo *string          `json:"reconnect_to"`
	Connections int64            `json:"connections"` // that are left
}

func (a *API) drainState() drainView {
	a.draining.mu.Lock()
	defer a.draining.mu.Unlock()
	v := drainView{State: "none", Connections: a.srv.Status().Connections}
	if d := a.draining.current; d != nil {
		v.State = "draining"
		if d.over {
			v.State = "drained"
		}
		v.BeganAt, v.Grace, v.ReconnectTo = new(d.began.UTC().Truncate(time.Second)), &d.grace, &d.reconnectTo
	}
	return v
}

func (a *API) getDrain(r *http.Request) (any, error) {
	return a.drainState(), parseQuery(r).Done()
}

// startDrain lets nobody in any more and sends all miners away, while the process goes on.
func (a *API) startDrain(r *http.Request, background func(func(context.Context))) (any, error) {
	order, err := body[struct {
		Grace       config.Duration `json:"grace"`
		ReconnectTo string          `json:"reconnect_to"`
	}](r)
	if err != nil {
		return nil, err
	}
	to, err := ParsePlace(order.ReconnectTo)
	switch {
	case err != nil:
		return nil, badRequest("reconnect_to = %.60q: %v", order.ReconnectTo, err)
	case order.Grace < 0 || order.Grace.Std() > maxDrainGrace:
		return nil, badRequest("grace = %q: must be 0s to %s", order.Grace, maxDrainGrace)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	d := &draining{began: time.Now(), grace: order.Grace, reconnectTo: order.ReconnectTo, cancel: cancel}
	if !a.draining.begin(d, &a.srv.Guard().Closed) {
		cancel()
		return nil, conflict("a drain is going on already: cancel it first")
	}
	background(func(run context.Context) {
		defer cancel()
		defer context.AfterFunc(run, cancel)()
		if err := a.srv.SendAway(ctx, order.Grace.Std(), to); err == nil && ctx.Err() == nil {
			a.draining.finish(d)
		}
	})
	return a.drainState(), nil
}

// cancelDrain lets miners in again. Those who have been sent away are not called back, those who were not stay.
func (a *API) cancelDrain(r *http.Request) (any, error) {
	if err := parseQuery(r).Done(); err != nil {
		return nil, err
	}
	if !a.draining.end(&a.srv.Guard().Closed) {
		return nil, notFound("there is no drain")
	}
	return a.drainState(), nil
}

// begin closes the doors, unless there is a drain already.
func (d *drain) begin(next *draining, closed *atomic.Bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.current != nil {
		return false
	}
	d.current = next
	closed.Store(true)
	return true
}

func (d *drain) finish(which *draining) {
	d.mu.Lock()
	defer d.mu.Unlock()
	which.over = true
}

func (d *drain) end(closed *atomic.Bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.current == nil {
		return false
	}
	d.current.cancel()
	d.current = nil
	closed.Store(false)
	return true
}

package sserver

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"btcpool/internal/config"
)

var errDraining = errors.New("draining, as the operator wished")

// maxDrainGrace is the longest time over which an operator may send miners away.
const maxDrainGrace = 24 * time.Hour

// drains is at most one drain that the operator has asked for. It lasts until it
// is cancelled, with nobody let in, also when all miners have gone.
type drains struct {
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

func (a *adminAPI) drainState() drainView {
	a.drains.mu.Lock()
	defer a.drains.mu.Unlock()
	v := drainView{State: "none", Connections: a.srv.open.Load()}
	if d := a.drains.current; d != nil {
		v.State = "draining"
		if d.over {
			v.State = "drained"
		}
		v.BeganAt, v.Grace, v.ReconnectTo = new(d.began.UTC().Truncate(time.Second)), &d.grace, &d.reconnectTo
	}
	return v
}

func (a *adminAPI) getDrain(r *http.Request) (any, error) {
	return a.drainState(), parseQuery(r).done()
}

// startDrain lets nobody in any more and sends all miners away, while the
// process goes on.
func (a *adminAPI) startDrain(r *http.Request, background func(func(context.Context))) (any, error) {
	order, err := body[struct {
		Grace       config.Duration `json:"grace"`
		ReconnectTo string          `json:"reconnect_to"`
	}](r)
	if err != nil {
		return nil, err
	}
	to, err := parsePlace(order.ReconnectTo)
	switch {
	case err != nil:
		return nil, badRequest("reconnect_to = %.60q: %v", order.ReconnectTo, err)
	case order.Grace < 0 || order.Grace.Std() > maxDrainGrace:
		return nil, badRequest("grace = %q: must be 0s to %s", order.Grace, maxDrainGrace)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	d := &draining{began: time.Now(), grace: order.Grace, reconnectTo: order.ReconnectTo, cancel: cancel}
	if !a.drains.begin(d, &a.srv.guard.Closed) {
		cancel()
		return nil, conflict("a drain is going on already: cancel it first")
	}
	background(func(run context.Context) {
		defer cancel()
		defer context.AfterFunc(run, cancel)()
		a.srv.sendAway(ctx, order.Grace.Std(), to)
		// Those too who were just coming when the doors were closed.
		if err := a.srv.visit(ctx, a.srv.allSessions(ctx), func(s *session) {
			s.reconnect(to)
			s.finish(nil)
		}); err == nil && ctx.Err() == nil {
			a.drains.finish(d)
		}
	})
	return a.drainState(), nil
}

// cancelDrain lets miners in again. Those who have been sent away are not called
// back, those who were not stay.
func (a *adminAPI) cancelDrain(r *http.Request) (any, error) {
	if err := parseQuery(r).done(); err != nil {
		return nil, err
	}
	if !a.drains.end(&a.srv.guard.Closed) {
		return nil, &adminError{http.StatusNotFound, "not_found", "there is no drain"}
	}
	return a.drainState(), nil
}

// begin closes the doors, unless there is a drain already.
func (d *drains) begin(next *draining, closed *atomic.Bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.current != nil {
		return false
	}
	d.current = next
	closed.Store(true)
	return true
}

func (d *drains) finish(which *draining) {
	d.mu.Lock()
	defer d.mu.Unlock()
	which.over = true
}

func (d *drains) end(closed *atomic.Bool) bool {
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

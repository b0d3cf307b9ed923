package poll

import (
	"context"
	"sync"
	"time"

	"btcpool/internal/retry"
)

// Loop is what one goroutine does for its links, again and again:
//
//	for {
//		if err := loop.Wait(true); err != nil {
//			return err
//		}
//		loop.Turn()
//	}
//
// Post and Call are for all other goroutines.
type Loop struct {
	poller *poller
	spare  []func()    // the memory of tasks that are done
	timer  *time.Timer // of Gather
	early  retry.Bell  // ends Gather

	mu        sync.Mutex
	tasks     []func()
	awake     bool // the tasks will be looked at
	gathering bool // they will be, when it is over
	closed    bool
}

// NewLoop returns a loop without links.
func NewLoop() (*Loop, error) {
	p, err := newPoller()
	if err != nil {
		return nil, err
	}
	l := &Loop{poller: p, timer: time.NewTimer(time.Hour), early: retry.NewBell()}
	l.timer.Stop()
	return l, nil
}

// Wait returns when a link has what its owner wants or something was posted, or at once if it is not to block. An error
// is the system's, and lasting.
func (l *Loop) Wait(block bool) error { return l.poller.wait(block && !l.gathered()) }

// Gather waits for d before the next Wait, so that what arrives meanwhile has one turn. It returns earlier when something
// is posted, and at once when the last Wait may not have found all that was ready.
func (l *Loop) Gather(d time.Duration) {
	if d <= 0 || l.poller.more() {
		return
	}
	l.mu.Lock()
	posted := l.awake
	l.gathering = !posted
	l.mu.Unlock()
	if posted {
		return
	}
	l.timer.Reset(d)
	select {
	case <-l.timer.C:
	case <-l.early:
	}
	l.timer.Stop()
}

// gathered ends Gather and reports whether something was posted meanwhile, for which no bell rings.
func (l *Loop) gathered() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	posted := l.gathering && len(l.tasks) > 0
	l.awake = l.awake || posted
	l.gathering = false
	return posted
}

// Turn serves the links that Wait has found ready, and then does what was posted.
func (l *Loop) Turn() {
	l.poller.serve()
	l.mu.Lock()
	tasks := l.tasks
	l.tasks, l.awake = l.spare[:0], false
	l.mu.Unlock()
	for _, f := range tasks {
		f()
	}
	clear(tasks)
	l.spare = tasks
}

// Post has the loop call f and does not wait for it. When the loop is closed, it returns false and f is not called.
func (l *Loop) Post(f func()) bool { return l.post(f, true) }

// post is Post; what is not urgent does not end Gather.
func (l *Loop) post(f func(), urgent bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.tasks = append(l.tasks, f)
	switch {
	case l.awake:
	case !l.gathering:
		l.awake = true
		l.poller.wake()
	case urgent:
		l.awake = true
		l.early.Ring()
	}
	return true
}

// Call has the loop call f and waits until it has. When the loop is closed, f is not called; when ctx ends before f is
// called, it is not, and the error is ctx's.
func (l *Loop) Call(ctx context.Context, f func()) error {
	var (
		mu        sync.Mutex
		abandoned bool
		done      = make(chan struct{})
	)
	if !l.Post(func() {
		mu.Lock()
		defer mu.Unlock()
		if !abandoned {
			f()
			close(done)
		}
	}) {
		return nil
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		mu.Lock()
		defer mu.Unlock()
		select {
		case <-done: // just before
			return nil
		default:
		}
		abandoned = true
		return ctx.Err()
	}
}

// Close ends a loop whose links are closed and that takes no more turns. What was posted before is done. Close may be
// called again.
func (l *Loop) Close() {
	l.mu.Lock()
	closed, tasks := l.closed, l.tasks
	l.closed, l.tasks = true, nil
	l.mu.Unlock()
	if closed {
		return
	}
	for _, f := range tasks {
		f()
	}
	l.poller.close()
}

// Reopen readies a loop that was closed for more turns.
func (l *Loop) Reopen() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		return nil
	}
	p, err := newPoller()
	if err != nil {
		return err
	}
	l.poller, l.closed, l.awake = p, false, false
	return nil
}

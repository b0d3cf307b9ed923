package users

import (
	"context"
	"errors"
	"time"
)

var (
	errAway = errors.New("the source of users is away")
	errBusy = errors.New("too many new users at once")
)

const (
	// maxFinding is how many names are found out about at a time, maxWaiting how many more may wait for that.
	maxFinding = 8
	maxWaiting = 1000
	// findRate bounds how many names per second are found out about, after a burst.
	findRate  = 50
	findBurst = 500

	// A name that was refused is not asked about again for refusalTime, as far as maxRefusals allow to remember it.
	refusalTime = time.Minute
	maxRefusals = 10_000
)

// finding is what some logins wait for.
type finding struct {
	name string
	done chan struct{} // closed when the rest is set
	id   int32
	err  error
}

// ID returns the id of a user, by canonical name. The error wraps ErrUnknown, or is another when nothing can be said
// before the login deadline.
func (l *List) ID(ctx context.Context, name string) (int32, error) {
	if id, ok := l.Cached(name); ok {
		return id, nil
	}
	if !l.admits(name) {
		return 0, ErrUnknown
	}
	ctx, cancel := context.WithTimeout(ctx, l.cfg.LoginDeadline.Std())
	defer cancel()
	select {
	case <-l.ready:
	case <-l.ended:
		return 0, errAway
	case <-ctx.Done():
		return 0, errAway
	}
	f, err := l.ask(name, time.Now())
	if err != nil {
		return 0, err
	}
	select {
	case <-f.done:
		return f.id, f.err
	case <-l.ended:
	case <-ctx.Done(): // a database driver may not have noticed it
	}
	return 0, errAway
}

// ask has name found out about, once for all who ask.
func (l *List) ask(name string, now time.Time) (*finding, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if id, ok := l.ids[name]; ok {
		f := &finding{id: id, done: make(chan struct{})}
		close(f.done)
		return f, nil
	}
	if refused, ok := l.refused[name]; !l.cfg.admitsUnlisted() || ok && now.Sub(refused) < refusalTime {
		return nil, ErrUnknown
	}
	if f := l.finding[name]; f != nil {
		return f, nil
	}
	f := &finding{name: name, done: make(chan struct{})}
	select {
	case l.asked <- f:
		l.finding[name] = f
		return f, nil
	default:
		return nil, errBusy
	}
}

// findAsked finds out about names until ctx ends.
func (l *List) findAsked(ctx context.Context, dir directory) {
	for {
		select {
		case <-ctx.Done():
			return
		case f := <-l.asked:
			if l.pace.Wait(ctx) != nil {
				return
			}
			l.find(ctx, dir, f)
		}
	}
}

func (l *List) find(ctx context.Context, dir directory, f *finding) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.LoginDeadline.Std())
	defer cancel()
	f.id, f.err = dir.find(ctx, f.name)

	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case f.err == nil:
		l.ids[f.name], l.dirty = f.id, true
		l.known.Set(float64(len(l.ids)))
		if l.found != nil {
			l.found[f.name] = f.id
		}
	case errors.Is(f.err, ErrUnknown):
		if len(l.refused) == maxRefusals {
			clear(l.refused)
		}
		l.refused[f.name] = time.Now()
	}
	delete(l.finding, f.name)
	close(f.done)
}

package sserver

import (
	"context"
	"errors"
	"time"
)

var (
	errUnknownUser = errors.New("unknown user")
	errUsersAway   = errors.New("the source of users is away")
	errUsersBusy   = errors.New("too many new users at once")
)

const (
	// maxFinding is how many names are found out about at a time, maxWaiting how
	// many more may wait for that.
	maxFinding = 8
	maxWaiting = 1000
	// findRate bounds how many names per second are found out about, after a
	// burst.
	findRate  = 50
	findBurst = 500

	// A name that was refused is not asked about again for refusalTime, as far as
	// maxRefusals allow to remember it.
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

// id returns the id of a user. The error is errUnknownUser, or another when that
// cannot be said before the login deadline.
func (u *userList) id(ctx context.Context, name string) (int32, error) {
	if id, ok := u.cached(name); ok {
		return id, nil
	}
	if !u.admits(name) {
		return 0, errUnknownUser
	}
	ctx, cancel := context.WithTimeout(ctx, u.cfg.LoginDeadline.Std())
	defer cancel()
	select {
	case <-u.ready:
	case <-u.ended:
		return 0, errUsersAway
	case <-ctx.Done():
		return 0, errUsersAway
	}
	f, err := u.ask(name, time.Now())
	if err != nil {
		return 0, err
	}
	select {
	case <-f.done:
		return f.id, f.err
	case <-u.ended:
	case <-ctx.Done(): // which a database driver may not notice
	}
	return 0, errUsersAway
}

// ask has name found out about, once for all who ask.
func (u *userList) ask(name string, now time.Time) (*finding, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if id, ok := u.ids[name]; ok {
		f := &finding{id: id, done: make(chan struct{})}
		close(f.done)
		return f, nil
	}
	if refused, ok := u.refused[name]; !u.cfg.admitsUnlisted() || ok && now.Sub(refused) < refusalTime {
		return nil, errUnknownUser
	}
	if f := u.finding[name]; f != nil {
		return f, nil
	}
	f := &finding{name: name, done: make(chan struct{})}
	select {
	case u.asked <- f:
		u.finding[name] = f
		return f, nil
	default:
		return nil, errUsersBusy
	}
}

// findAsked finds out about names until ctx ends.
func (u *userList) findAsked(ctx context.Context, dir userDirectory) {
	for {
		select {
		case <-ctx.Done():
			return
		case f := <-u.asked:
			if u.pace.Wait(ctx) != nil {
				return
			}
			u.find(ctx, dir, f)
		}
	}
}

func (u *userList) find(ctx context.Context, dir userDirectory, f *finding) {
	ctx, cancel := context.WithTimeout(ctx, u.cfg.LoginDeadline.Std())
	defer cancel()
	f.id, f.err = dir.find(ctx, f.name)

	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case f.err == nil:
		u.ids[f.name], u.dirty = f.id, true
		u.known.Set(float64(len(u.ids)))
		if u.found != nil {
			u.found[f.name] = f.id
		}
	case errors.Is(f.err, errUnknownUser):
		if len(u.refused) == maxRefusals {
			clear(u.refused)
		}
		u.refused[f.name] = time.Now()
	}
	delete(u.finding, f.name)
	close(f.done)
}

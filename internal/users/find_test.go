package users

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// testDirectory answers when the test lets it.
type testDirectory struct {
	lists chan map[string]int32
	finds chan error // nil: the name is the user 7
}

func (d testDirectory) list(ctx context.Context, _ int32) (map[string]int32, error) {
	select {
	case page := <-d.lists:
		return page, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (d testDirectory) find(ctx context.Context, _ string) (int32, error) {
	select {
	case err := <-d.finds:
		if err != nil {
			return 0, err
		}
		return 7, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// inBubble runs test with a list that follows dir, in a time of its own.
func inBubble(t *testing.T, test func(t *testing.T, l *List, dir testDirectory)) {
	dataDir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l := openList(t, DefaultConfig(), dataDir)
		dir := testDirectory{lists: make(chan map[string]int32), finds: make(chan error)}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { l.follow(ctx, dir) })
		test(t, l, dir)
		cancel()
		wg.Wait()
	})
}

// Logins of one new user are one question, and wait no longer than they may.
func TestLoginsAtOnce(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, l *List, dir testDirectory) {
		start := time.Now()
		if _, err := l.ID(t.Context(), "alice"); !errors.Is(err, errAway) || time.Since(start) != 5*time.Second {
			t.Errorf("before the list is read: %v after %s", err, time.Since(start))
		}
		dir.lists <- nil
		var wg sync.WaitGroup
		login := func(want int32, wantErr error) {
			wg.Go(func() {
				if id, err := l.ID(t.Context(), "alice"); id != want || !errors.Is(err, wantErr) {
					t.Errorf("id %d, %v; want %d, %v", id, err, want, wantErr)
				}
			})
		}
		for range 100 {
			login(0, ErrUnknown)
		}
		synctest.Wait()
		dir.finds <- fmt.Errorf("no: %w", ErrUnknown)
		wg.Wait()
		login(0, ErrUnknown) // without a question
		wg.Wait()
		time.Sleep(refusalTime)
		for range 100 {
			login(7, nil)
		}
		synctest.Wait()
		dir.finds <- nil
		wg.Wait()
	})
}

func TestNewUsersAreBounded(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, l *List, dir testDirectory) {
		dir.lists <- nil
		var wg sync.WaitGroup
		for n := range maxFinding + maxWaiting {
			wg.Go(func() { _, _ = l.ID(t.Context(), fmt.Sprint("user", n)) })
			if n < maxFinding {
				synctest.Wait() // until it is asked for
			}
		}
		synctest.Wait()
		if _, err := l.ID(t.Context(), "alice"); !errors.Is(err, errBusy) {
			t.Errorf("one too many: %v", err)
		}
		start := time.Now()
		wg.Wait()
		if waited := time.Since(start); waited > 5*time.Second {
			t.Errorf("logins waited %s", waited)
		}
	})
}

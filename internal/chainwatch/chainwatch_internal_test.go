package chainwatch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"btcpool/internal/config"
	"btcpool/internal/registry"
	"btcpool/internal/service"
	"btcpool/internal/testkit"
	"btcpool/internal/upgrade"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// alone is a Watcher that nobody but the test answers.
type alone struct {
	*Watcher
	told []string // who, and what the node says
}

func open(t *testing.T, file string, maxAge time.Duration) *alone {
	t.Helper()
	cfg := registry.DefaultConfig()
	cfg.Servers = []string{"127.0.0.1:1"}
	deps := service.Deps{Log: zerolog.Nop()}
	reg, err := registry.New(cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	a := new(alone)
	settings := DefaultSettings()
	settings.Timeout, settings.SweepInterval = config.Duration(testkit.Patience), config.Duration(time.Hour)
	settings.MaxAge, settings.MaxUsers = config.Duration(maxAge), 10_000
	a.Watcher, err = New(reg, Config{
		Path: "/users", File: file, Settings: settings,
		Changed: func(user string, now Answer, heard time.Time) {
			if age := time.Since(heard); age < 0 || age > testkit.Patience {
				t.Errorf("%s was heard of %s ago", user, age)
			}
			a.told = append(a.told, user+" "+now.Value.Chain)
		},
	}, deps)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

// reads has the next user read, as ZooKeeper would say it, with something happening between its answer and ours.
func (a *alone) reads(t *testing.T, text string, written int64, err error, meanwhile func()) {
	t.Helper()
	a.mu.Lock()
	queued := len(a.queue)
	a.mu.Unlock()
	if queued == 0 {
		t.Fatal("nobody is to be read")
	}
	a.watch = func(context.Context, string) (registry.Node, bool, error) {
		meanwhile()
		return registry.Node{Content: []byte(text), Written: written}, true, err
	}
	a.look(t.Context(), a.next(t.Context()))
}

func nothing() {}

// A change that is told before the answer is noted is not missed; a login needs no reading, what is written again is told
// again.
func TestNoChangeIsMissed(t *testing.T) {
	t.Parallel()
	a := open(t, "", time.Hour)
	wants := func(why string, told ...string) {
		t.Helper()
		if diff := cmp.Diff(told, a.told); diff != "" {
			t.Errorf("%s (-want +got):\n%s", why, diff)
		}
		a.told = nil
	}
	rests := func(why string) {
		t.Helper()
		a.mu.Lock()
		defer a.mu.Unlock()
		if len(a.queue) > 0 {
			t.Errorf("%s: somebody is to be read", why)
		}
	}
	a.Follow("alice")
	a.reads(t, "btc", 1, nil, func() { a.touched("/users/alice") })
	wants("first", "alice btc")
	a.reads(t, "bch", 2, nil, nothing)
	wants("the watch was used up at once", "alice bch")
	for range 1000 {
		if answer, ok := a.Use("alice"); !ok || answer.Value.Chain != "bch" {
			t.Fatalf("%+v, %v", answer, ok)
		}
		a.Leave("alice")
		a.Follow("alice")
		a.Leave("alice")
	}
	rests("logins")
	a.reconnected()
	a.reads(t, "bch", 2, nil, nothing)
	wants("connected again")
	a.touched("/users/alice")
	a.reads(t, "bch", 3, nil, nothing)
	wants("written again", "alice bch")
	a.touched("/users/alice")
	a.reads(t, "{", 4, nil, nothing)
	wants("nonsense")
	a.touched("/users/alice")
	a.reads(t, "", 0, errors.New("away"), nothing)
	wants("away")
	if answer, ok := a.Last("alice"); !ok || answer.Value.Chain != "bch" {
		t.Errorf("%+v", answer)
	}
	a.retry()
	a.reads(t, "", 0, fmt.Errorf("x: %w", registry.ErrNoNode), nothing)
	wants("removed", "alice ")
	a.Leave("alice")
	a.touched("/users/alice")
	rests("nobody uses it")
	a.Follow("alice")
	a.reads(t, "btc", 5, nil, nothing)
	wants("it is back", "alice btc")
}

// A sweep looks at all who are in use, and at nobody else.
func TestSweep(t *testing.T) {
	t.Parallel()
	a := open(t, "", time.Hour)
	a.cfg.SweepInterval = config.Duration(50 * time.Millisecond)
	a.cfg.Changed = func(string, Answer, time.Time) {}
	const users = 250
	var reads [users]atomic.Int64
	var strangers atomic.Int64
	a.watch = func(_ context.Context, path string) (registry.Node, bool, error) {
		var n int
		if _, err := fmt.Sscanf(path, "/users/user%d", &n); err != nil {
			strangers.Add(1)
		} else {
			reads[n].Add(1)
		}
		return registry.Node{Content: []byte("btc"), Written: 1}, true, nil
	}
	stop := testkit.Run(t, a.Run)
	for i := range users {
		a.Follow(fmt.Sprint("user", i))
	}
	if _, err := a.Ask(t.Context(), "stranger"); err != nil {
		t.Error(err)
	}
	testkit.Eventually(t, "all are read again", func() bool {
		for i := range reads {
			if reads[i].Load() < 3 {
				return false
			}
		}
		return true
	})
	stop()
	if n := strangers.Load(); n != 1 {
		t.Errorf("who has gone was read %d times", n)
	}
}

// What is known survives a restart for as long as it is good, with what was mined last; a damaged file is as good as
// none, and one that was left to another process is not written.
func TestFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "userchain.json")
	a := open(t, file, time.Hour)
	a.Follow("alice")
	a.reads(t, `{"chain":"bch","puids":{"bch":7}}`, 1, nil, nothing)
	a.Follow("bob")
	a.reads(t, "", 0, registry.ErrNoNode, nothing)
	a.Mines("alice", "btc")
	undo := a.LeaveFile()

	again := open(t, file, time.Hour)
	if answer, ok := again.Use("alice"); !ok || !answer.Known || answer.Value.Chain != "bch" || answer.Value.PUIDs["bch"] != 7 {
		t.Errorf("alice: %+v, %v", answer, ok)
	}
	if mined := again.Mined("alice"); mined != "btc" {
		t.Errorf("alice mined %q", mined)
	}
	if answer, ok := again.Use("bob"); !ok || answer.Known {
		t.Errorf("bob: %+v, %v", answer, ok)
	}
	if _, ok := again.Use("carol"); ok {
		t.Error("carol is remembered, who was never read")
	}
	if old := open(t, file, 0); old.Remembers() {
		t.Error("what is too old is remembered")
	}

	a.Mines("alice", "bch")
	a.save()
	if mined := open(t, file, time.Hour).Mined("alice"); mined != "btc" {
		t.Errorf("the file of another process was written: %q", mined)
	}
	undo()
	a.save()
	if mined := open(t, file, time.Hour).Mined("alice"); mined != "bch" {
		t.Errorf("the file is not written any more: %q", mined)
	}

	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if damaged := open(t, file, time.Hour); damaged.Remembers() {
		t.Error("a damaged file is believed")
	}
}

// Of those whom nobody uses some are forgotten when there are too many; who is in use stays.
func TestMostUsers(t *testing.T) {
	t.Parallel()
	a := open(t, "", time.Hour)
	a.cfg.MaxUsers = 10
	for i := range 10 {
		a.Follow(fmt.Sprint("user", i))
		a.reads(t, "btc", 1, nil, nothing)
	}
	for i := range 5 {
		a.Leave(fmt.Sprint("user", i))
	}
	for i := range 100 {
		a.Mines(fmt.Sprint("stranger", i), "btc")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	var stay []string
	for name, u := range a.users {
		if u.uses > 0 {
			stay = append(stay, name)
		}
	}
	slices.Sort(stay)
	if len(a.users) > 10 || len(stay) != 5 {
		t.Errorf("%d users, of whom %v are in use", len(a.users), stay)
	}
}

// Another process knows what this one did, by the file and what has changed since, and hears of nobody whose node has not
// changed.
func TestMemories(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "users.json")
	one := open(t, file, time.Hour)
	for user, chain := range map[string]string{"alice": "btc", "bob": "bch", "carol": "btc"} {
		one.Follow(user)
		one.reads(t, chain, 7, nil, nothing)
	}
	one.Mines("alice", "bch")
	undo := one.LeaveFile()
	other := open(t, file, time.Hour)
	for _, user := range []string{"alice", "bob"} {
		one.touched("/users/" + user)
		one.reads(t, "bch", int64(len(user))+4, nil, nothing) // bob's is the same still
	}
	now := time.Now()
	w := upgrade.NewWriter(1, now, nil)
	for _, m := range one.Memories() {
		m.Code(w)
	}
	var all []Memory
	for r := upgrade.NewReader(1, now, w.Bytes()); r.Left() > 0; {
		var m Memory
		if m.Code(r); r.Err() != nil {
			t.Fatal(r.Err())
		}
		all = append(all, m)
	}
	other.Remember(all)
	if a, ok := other.Last("alice"); !ok || a.Value.Chain != "bch" || other.Mined("alice") != "bch" || len(all) != 1 {
		t.Errorf("%+v, mined %q, of %d", a, other.Mined("alice"), len(all))
	}
	for user, chain := range map[string]string{"alice": "bch", "bob": "btc", "carol": "btc"} {
		other.Follow(user)
		other.reads(t, chain, 9, nil, nothing)
	}
	if diff := cmp.Diff([]string{"bob btc"}, other.told); diff != "" {
		t.Error(diff)
	}
	if undo(); len(one.Memories()) > 0 {
		t.Error("it is noted still who changes")
	}
}

//go:build integration

package integration

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"btcpool/internal/chainwatch"
	"btcpool/internal/config"
	"btcpool/internal/registry"
	"btcpool/internal/service"
	"btcpool/internal/testkit"
	"btcpool/test/integration/rig"
)

// watching is a chainwatch.Watcher and what it told.
type watching struct {
	*chainwatch.Watcher
	reg  *prometheus.Registry
	stop func()

	mu   sync.Mutex
	told map[string]string
}

func startWatching(t *testing.T, zookeeper, dir string, sweep time.Duration, most int) *watching {
	t.Helper()
	w := &watching{reg: prometheus.NewRegistry(), told: make(map[string]string)}
	deps := service.Deps{Log: zerolog.Nop(), Metrics: w.reg}
	cfg := registry.DefaultConfig()
	cfg.Servers = []string{zookeeper}
	reg, err := registry.New(cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	settings := chainwatch.DefaultSettings()
	settings.SweepInterval, settings.MaxUsers = config.Duration(sweep), most
	w.Watcher, err = chainwatch.New(reg, chainwatch.Config{
		Path: userChain, File: filepath.Join(dir, "userchain.json"), Settings: settings,
		Changed: func(user string, now chainwatch.Answer, _ time.Time) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.told[user] = now.Value.Chain
		},
	}, deps)
	if err != nil {
		t.Fatal(err)
	}
	stop := testkit.Run(t, w.Run)
	keep := testkit.Run(t, func(ctx context.Context) error { w.KeepFile(ctx); return nil })
	w.stop = sync.OnceFunc(func() {
		stop()
		keep()
		_ = w.Close()
	})
	t.Cleanup(w.stop)
	return w
}

func (w *watching) ask(t *testing.T, user string) chainwatch.Answer {
	t.Helper()
	if a, ok := w.Use(user); ok {
		return a
	}
	a, err := w.Ask(t.Context(), user)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (w *watching) says(user string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.told[user]
}

func setNode(t testing.TB, conn *zk.Conn, path, text string) {
	t.Helper()
	testkit.Until(t, testkit.Patience, "writing "+path, func(context.Context) error {
		_, err := conn.Set(path, []byte(text), -1)
		if errors.Is(err, zk.ErrNoNode) {
			for i := 1; i <= len(path); i++ {
				if i == len(path) || path[i] == '/' {
					content := []byte(nil)
					if i == len(path) {
						content = []byte(text)
					}
					if _, err = conn.Create(path[:i], content, 0, zk.WorldACL(zk.PermAll)); err != nil && !errors.Is(err, zk.ErrNodeExists) {
						return err
					}
				}
			}
			return nil
		}
		return err
	})
}

// TestChainWatch follows users through what can happen to their nodes and to ZooKeeper: one watch a user, a node that
// is made later, a session that is over, a restart without ZooKeeper.
func TestChainWatch(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	z := rig.StartZooKeeper(t, dir)
	conn := observer(t, z.Addr)
	setNode(t, conn, userChain+"/alice", "btc")
	setNode(t, conn, userChain+"/carol", `{"chain":"bch","subpool":"","puids":{"bch":7}}`)
	w := startWatching(t, z.Addr, dir, time.Hour, 1<<20)
	if a := w.ask(t, "alice"); !a.Known || a.Value.Chain != "btc" {
		t.Errorf("alice: %+v", a)
	}
	if a := w.ask(t, "carol"); a.Value.Chain != "bch" || a.Value.PUIDs["bch"] != 7 {
		t.Errorf("carol: %+v", a)
	}
	if a := w.ask(t, "bob"); a.Known {
		t.Errorf("bob: %+v", a)
	}
	for range 100_000 {
		w.Use("alice")
		w.Leave("alice")
	}
	if n := w.Nodes(); n == nil || testkit.Metric(t, w.reg, "btcpool_chainwatch_watches") != 3 {
		t.Errorf("%v watches for 3 users", testkit.Metric(t, w.reg, "btcpool_chainwatch_watches"))
	}
	for i := range 1000 { // each takes a watch and sets another
		setNode(t, conn, userChain+"/alice", fmt.Sprintf("chain%d", i))
	}
	setNode(t, conn, userChain+"/bob", "bch")
	testkit.Eventually(t, "changes are told", func() bool { return w.says("alice") == "chain999" && w.says("bob") == "bch" })
	testkit.Eventually(t, "one watch a user", func() bool {
		return testkit.Metric(t, w.reg, "btcpool_chainwatch_watches") == 3
	})
	setNode(t, conn, userChain+"/bob", "no name of a chain") // stays where it is
	setNode(t, conn, userChain+"/alice", "btc")
	testkit.Eventually(t, "alice is told", func() bool { return w.says("alice") == "btc" })
	if w.says("bob") != "bch" {
		t.Errorf("bob is said to mine %s", w.says("bob"))
	}

	z.Kill()
	testkit.Eventually(t, "ZooKeeper is missed", func() bool { return testkit.Metric(t, w.reg, "btcpool_chainwatch_connected") == 0 })
	if a, ok := w.Use("carol"); !ok || a.Value.Chain != "bch" {
		t.Errorf("carol is not remembered: %+v", a)
	}
	if _, err := w.Ask(t.Context(), "dave"); !errors.Is(err, chainwatch.ErrUnavailable) {
		t.Errorf("dave, of whom nothing is known: %v", err)
	}
	w.stop()
	again := startWatching(t, z.Addr, dir, time.Hour, 1<<20)
	if a, ok := again.Use("alice"); !ok || a.Value.Chain != "btc" {
		t.Errorf("alice is not remembered by the next process: %+v, %v", a, ok)
	}
	z.Start()
	setNode(t, conn, userChain+"/alice", "bch")
	testkit.Eventually(t, "alice is told after the outage", func() bool { return again.says("alice") == "bch" })

	z.Pause() // silent: connections stay
	if _, err := again.Ask(t.Context(), "erin"); !errors.Is(err, chainwatch.ErrUnavailable) {
		t.Errorf("erin: %v", err)
	}
	if a, err := again.Ask(t.Context(), "alice"); err != nil || a.Value.Chain != "bch" {
		t.Errorf("alice: %+v, %v", a, err)
	}
	z.Resume()
	setNode(t, conn, userChain+"/alice", "btc")
	testkit.Eventually(t, "alice is told after the silence", func() bool { return again.says("alice") == "btc" })
}

// TestManyNames has miners come by many names, none of which has a node: what is watched and remembered does not grow,
// and who stays is followed all the same.
func TestManyNames(t *testing.T) {
	t.Parallel()
	const most = 10
	dir := t.TempDir()
	z := rig.StartZooKeeper(t, dir)
	conn := observer(t, z.Addr)
	setNode(t, conn, userChain, "")
	w := startWatching(t, z.Addr, dir, time.Second, most)
	for i := range 10 * most {
		user := fmt.Sprintf("nobody%d", i)
		if a := w.ask(t, user); a.Known {
			t.Errorf("%s: %+v", user, a)
		}
		w.Leave(user)
	}
	if a := w.ask(t, "late"); a.Known {
		t.Errorf("late: %+v", a)
	}
	setNode(t, conn, userChain+"/late", "bch")
	testkit.Eventually(t, "who is not watched is told by a sweep", func() bool { return w.says("late") == "bch" })
	for _, of := range []string{"watches", "users"} {
		if n := testkit.Metric(t, w.reg, "btcpool_chainwatch_"+of); n > most {
			t.Errorf("%v %s, at most %d may be", n, of, most)
		}
	}
}

//go:build linux && !streams

package sserver_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"btcpool/internal/bus"
	"btcpool/internal/service"
	"btcpool/internal/testkit"
	"btcpool/internal/upgrade"
	"btcpool/internal/upgrade/upgradetest"
	"btcpool/sserver"
)

// succeed has another server go on with what p serves, and returns it.
func succeed(t testing.TB, p *pool, cfg sserver.Config) *pool {
	t.Helper()
	next, _ := timed(t, p, cfg)
	return next
}

// timed is succeed that tells how long nobody was served.
func timed(t testing.TB, p *pool, cfg sserver.Config) (next *pool, pause time.Duration) {
	t.Helper()
	sessions := p.Sessions()
	before, moved := upgradetest.Offer(t, p)
	next, r := offered(t, p, cfg, before, moved)
	if r.Sessions != sessions {
		t.Fatalf("%d of %d sessions", r.Sessions, sessions)
	}
	t.Logf("%d sessions, pause %s", r.Sessions, r.Pause)
	return next, r.Pause
}

// offered has another server go on with what p has offered.
func offered(t testing.TB, p *pool, cfg sserver.Config, before *upgrade.Predecessor, moved <-chan upgradetest.Outcome) (*pool, upgradetest.Outcome) {
	t.Helper()
	next := &pool{tb: t, metrics: prometheus.NewRegistry(), jobs: p.jobs}
	log := zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.InfoLevel)
	var err error
	next.Service, err = sserver.New(cfg, service.Deps{Log: log, Metrics: next.metrics, Predecessor: before})
	if err != nil {
		t.Fatal(err)
	}
	next.run()
	defer func() { testkit.Eventually(t, "it serves", next.Serving) }()
	r := <-moved
	if r.Err != nil {
		t.Fatal(r.Err)
	}
	return next, r
}

// startKnown starts a pool with a job that whoever takes over reads from Kafka.
func startKnown(t testing.TB, cfg sserver.Config) *pool {
	t.Helper()
	p := startPool(t, cfg)
	topics := cfg.Kafka.Topics
	client := testkit.Bus(t, cfg.Kafka, topics.Job)
	if err := client.Write(t.Context(), topics.Job, bus.Message{Value: p.newJob(1, 100).AppendTo(nil)}); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "ready", func() bool { return p.Ready() == nil })
	return p
}

// 4,000 miners pass to another process, which is this one, too: it works twice as much meanwhile as either would.
func BenchmarkHandOver(b *testing.B) {
	const miners = 4000
	cfg := testConfig(b)
	p := startKnown(b, cfg)
	for range miners {
		p.miner()
	}
	var pauses []time.Duration
	for b.Loop() {
		next, pause := timed(b, p, cfg)
		pauses = append(pauses, pause)
		<-p.ended
		p = next
	}
	slices.Sort(pauses)
	b.ReportMetric(float64(pauses[len(pauses)/2].Microseconds())/1000, "ms-pause")
	b.ReportMetric(float64(pauses[len(pauses)-1].Microseconds())/1000, "ms-longest")
	b.ReportMetric(0, "ns/op")
}

// A session goes on in another process in every phase, with half a line that was read, and with what was sent between.
// No share counts twice, none is refused, nobody gets a job again, and nobody is told of the change.
func TestTakeOver(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	p := startKnown(t, cfg)

	fresh, half := p.dial(), p.dial()
	half.send(`{"id":1,"method":"mining.subsc`)
	subscribed := p.dial()
	var result []json.RawMessage
	subscribed.mustCall(&result, "mining.subscribe", "test/1")
	miner, w := p.miner()
	first, second, third := miner.share(w, 1), miner.share(w, 2), miner.share(w, 3)
	miner.wantSubmit(first, 0)
	testkit.Eventually(t, "all are there", func() bool { return p.Sessions() == 4 })
	miner.nextID++
	line, err := json.Marshal(map[string]any{"id": miner.nextID, "method": "mining.submit", "params": second.params()})
	if err != nil {
		t.Fatal(err)
	}
	before := p.metric("received_bytes_total")
	miner.send(string(line[:20]))
	testkit.Eventually(t, "half a line is read", func() bool { return p.metric("received_bytes_total") == before+20 })

	for range 3 {
		p = succeed(t, p, cfg)
	}

	miner.send(string(line[20:]) + "\n")
	if m := miner.read(); m.ID != float64(miner.nextID) || m.Error != nil {
		t.Fatalf("a share whose line was half sent: %+v", m)
	}
	miner.wantSubmit(first, 22)
	miner.wantSubmit(second, 22)
	miner.wantSubmit(third, 0)
	if len(miner.notes) > 0 {
		t.Errorf("told %+v", miner.notes)
	}
	half.send(`ribe","params":["test/1"]}` + "\n")
	if m := half.read(); m.Error != nil || !strings.Contains(string(m.Result), "mining.notify") {
		t.Errorf("half a line: %+v", m)
	}
	subscribed.mustCall(nil, "mining.authorize", "alice.rig", "x")
	subscribed.work()
	fresh.login()
	fresh.work()
	late := p.dial()
	late.login()
	late.work()
	seen := map[string]bool{}
	for _, c := range []*client{miner, fresh, late} {
		if seen[c.extraNonce1] {
			t.Errorf("extranonce1 %s twice", c.extraNonce1)
		}
		seen[c.extraNonce1] = true
	}

	next := p.newJob(2, 101)
	p.TakeJob(next)
	if got := miner.work(); !got.clean || got.id == w.id {
		t.Errorf("job %+v after %+v", got, w)
	}
	p.stop()
}

// Sessions have gone ahead to another process when one of them mines, one ends, one is ended, and one comes, when one has
// wishes and logs in once more, and all get a job: all of it is so there, too, as nothing is done that is not noted.
func TestTakeOverSince(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	p := startKnown(t, cfg)
	mining, w := p.miner()
	idle, v := p.miner()
	leaving, _ := p.miner()
	busy, y := p.miner()
	hostile := p.dial()
	testkit.Eventually(t, "all are there", func() bool { return p.Sessions() == 5 })
	var late, latest *client
	var u, x work
	rounds := 0
	before, moved := upgradetest.Amid(t, p, sserver.MessageMade, func(round int) {
		if rounds = round; round == 1 {
			p.TakeJob(p.newJob(2, 101))
			w, v, y = mining.work(), idle.work(), busy.work()
		}
		mining.wantSubmit(mining.share(w, uint64(round)), 0)
		switch round {
		case 1:
			late, u = p.miner()
			leaving.conn.Close()
			busy.wantSubmit(busy.share(y, 1), 0)
			busy.mustCall(nil, "mining.authorize", "alice.more", "x")
			busy.mustCall(nil, "mining.suggest_difficulty", 1.0/(1<<20))
			busy.send(`{"id":77,"method":"mining.`)
			testkit.Eventually(t, "one has gone", func() bool { return p.Sessions() == 5 })
		case 2:
			late.wantSubmit(late.share(u, 1), 0)
			latest, x = p.miner()
			hostile.send(strings.Repeat("x", 100_000))
			testkit.Eventually(t, "one has gone", func() bool { return p.Sessions() == 5 })
		}
		if n := p.Unnoted(); n > 0 {
			t.Errorf("%d sessions are others, which nobody has noted", n)
		}
	})
	next, r := offered(t, p, cfg, before, moved)
	if n := next.Sessions(); n != 5 || r.Sessions != 5 || rounds != 2 {
		t.Errorf("%d sessions, %d sent, %d rounds", n, r.Sessions, rounds)
	}
	for n := range uint64(3) {
		mining.wantSubmit(mining.share(w, n+1), []int{22, 22, 0}[n])
		late.wantSubmit(late.share(u, n+1), []int{22, 0, 0}[n])
	}
	idle.wantSubmit(idle.share(v, 1), 0)
	latest.wantSubmit(latest.share(x, 1), 0)
	busy.send("ping\"}\n")
	if m := busy.read(); m.ID != 77.0 {
		t.Errorf("half a line: %+v", m)
	}
	busy.wantSubmit(busy.share(y, 1), 22)
	for {
		if _, err := hostile.readLine(); err != nil {
			break
		}
	}
	if len(mining.notes)+len(idle.notes)+len(late.notes) > 0 {
		t.Errorf("told %+v, %+v, %+v", mining.notes, idle.notes, late.notes)
	}
	next.stop()
}

// A new process that is of a version before sessions went ahead is given them at once.
func TestTakeOverBefore(t *testing.T) {
	t.Parallel()
	p := startKnown(t, testConfig(t))
	p.miner()
	before, moved := upgradetest.Offer(t, p)
	if err := before.Ready([]byte{2, 0}); err != nil {
		t.Fatal(err)
	}
	var kinds []byte
	for len(kinds) == 0 || kinds[len(kinds)-1] != sserver.MessageEnd {
		m, err := before.Receive()
		m.Close()
		if err != nil {
			t.Fatal(err)
		}
		kinds = append(kinds, m.Kind)
	}
	if want := []byte{sserver.MessageShared, sserver.MessageSessions, sserver.MessageEnd}; !slices.Equal(kinds, want) {
		t.Errorf("messages %d, want %d", kinds, want)
	}
	_ = before.Close()
	if err := (<-moved).Err; err == nil {
		t.Error("handed over to nobody")
	}
}

// Whichever of the two dies, and when: the old process goes on as if nothing had been, and the new one does not begin.
func TestCutOff(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	p := startKnown(t, cfg)
	miner, w := p.miner()
	miner.wantSubmit(miner.share(w, 0), 0)
	stays := func(messages int) {
		miner.wantSubmit(miner.share(w, 0), 22)
		miner.wantSubmit(miner.share(w, uint64(messages+2)), 0)
		miner.wantSubmit(miner.share(w, uint64(messages+2)), 22)
		p.dial().login()
	}
	if messages := upgradetest.CutOff(t, p, func(before *upgrade.Predecessor) (*sserver.Service, error) {
		return sserver.New(cfg, service.Deps{Log: zerolog.Nop(), Predecessor: before})
	}, stays, func(messages int, other *sserver.Service) {
		p = &pool{Service: other, tb: t, jobs: p.jobs}
		stays(messages)
	}); messages < 5 {
		t.Errorf("taken over after %d messages", messages)
	}
}

// startKnownChains starts a pool of two chains with jobs that whoever takes over reads from Kafka.
func startKnownChains(t *testing.T, cfg sserver.Config) *pool {
	t.Helper()
	p := startPool(t, cfg)
	for i, one := range cfg.PerChain() {
		client := testkit.Bus(t, one.Kafka)
		if err := client.Write(t.Context(), one.Kafka.Topics.Job, bus.Message{Value: p.newJob(byte(1+i), int32(100+100*i)).AppendTo(nil)}); err != nil {
			t.Fatal(err)
		}
		testkit.Eventually(t, "ready", func() bool { return p.metric("chain_ready", "chain", cfg.Chains[i].Name) == 1 })
	}
	return p
}

// Each session and each of its jobs stays on its chain in a process that lists the chains in another order, and one more;
// what was commanded for users in auto mode, and what users mined last, is known there.
func TestTakeOverChains(t *testing.T) {
	t.Parallel()
	cfg := chainsConfig(t, map[string]string{"alice": "auto", "bob": "btc", "carol": "bch", "dave": "auto"})
	cfg.Chains[btc].Users.Static["dave"], cfg.Chains[bch].Users.Static["dave"] = 11, 12
	p := startKnownChains(t, cfg)
	c, old := p.miner()
	dave := p.dial()
	dave.loginAs("dave")
	dave.work()
	carol := p.dial()
	carol.loginAs("carol")
	carol.work()
	c.wantSubmit(c.share(old, 1), 0)
	p.switchAuto(t, "1", "bch")
	fresh := c.work()
	c.wantSubmit(c.share(fresh, 1), 0)
	if got := dave.work(); got.prev != fresh.prev {
		t.Errorf("job %+v", got)
	}
	dave.conn.Close()
	testkit.Eventually(t, "dave has gone", func() bool { return p.Sessions() == 2 })

	other := cfg
	third := chainSection("third", map[string]int32{"alice": 20})
	other.Chains = []sserver.Chain{third, cfg.Chains[bch], cfg.Chains[btc]}
	other.DefaultChain = "btc"
	testkit.Bus(t, cfg.Kafka, third.JobTopic, third.ShareTopic, third.SolvedShareTopic, third.CommonEventsTopic)
	p = succeed(t, p, other)
	for _, chain := range []string{"bch", "btc"} {
		want := map[string]float64{"bch": 2, "btc": 0}[chain]
		if n := p.metric("chain_sessions", "chain", chain); n != want {
			t.Errorf("%v sessions on %s", n, chain)
		}
	}
	for _, w := range []work{old, fresh} {
		c.wantSubmit(c.share(w, 1), 22)
		c.wantSubmit(c.share(w, 2), 0)
	}
	if len(c.notes)+len(carol.notes) > 0 {
		t.Errorf("told %+v, %+v", c.notes, carol.notes)
	}
	if mined := p.Mined("dave"); mined != "bch" {
		t.Errorf("dave mined %q", mined)
	}
	again := p.dial()
	again.loginAs("dave")
	if got := again.work(); got.prev != fresh.prev {
		t.Errorf("who is in auto mode begins with %+v", got)
	}
	if _, err := p.SwitchAuto("1", map[string]float64{"btc": 1}); err == nil || err.Error() != "done already" {
		t.Errorf("a command that the other process had done: %v", err)
	}
	if users, connections := p.switchAuto(t, "2", "btc"); users != 2 || connections != 2 {
		t.Errorf("%d users, %d connections switched", users, connections)
	}
	if got := c.work(); got.prev != old.prev || !got.clean {
		t.Errorf("job after switching back: %+v", got)
	}
	c.wantSubmit(c.share(fresh, 3), 0)
	p.TakeJobOf(bch, p.newJob(9, 201))
	if got := carol.work(); !got.clean {
		t.Errorf("job of who stayed: %+v", got)
	}
	p.stop()

	for chain, want := range [][]int32{{7, 7}, {8, 8, 8}} {
		var got []int32
		for _, s := range sharesOf(t, cfg, chain, len(want)) {
			got = append(got, s.UserID)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("shares of chain %d (-want +got):\n%s", chain, diff)
		}
	}
}

// A process that lacks a chain, or has its spools elsewhere, is none to go on with.
func TestNotTakenOverChains(t *testing.T) {
	t.Parallel()
	cfg := chainsConfig(t, map[string]string{"alice": "auto"})
	p := startKnownChains(t, cfg)
	c, w := p.miner()
	for want, change := range map[string]func(*sserver.Config){
		`chain "bch" is not configured here`: func(cfg *sserver.Config) { cfg.Chains, cfg.UserChain.Path = cfg.Chains[:1], "" },
		`data_dir of chain "btc" is`:         func(cfg *sserver.Config) { cfg.Chains[btc].DataDir = t.TempDir() },
	} {
		other := cfg
		other.Chains = slices.Clone(cfg.Chains)
		change(&other)
		before, moved := upgradetest.Offer(t, p)
		next, err := sserver.New(other, service.Deps{Log: zerolog.Nop(), Predecessor: before})
		if err == nil {
			err = next.Run(t.Context())
		}
		_ = before.Close()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
		if err := (<-moved).Err; err == nil {
			t.Fatal("taken over")
		}
	}
	c.wantSubmit(c.share(w, 1), 0)
	if users, _ := p.switchAuto(t, "1", "bch"); users != 1 {
		t.Errorf("%d users switched", users)
	}
	c.work()
}

// Shares that come all the time are answered once each, whoever serves.
func TestTakeOverWhileSharesCome(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.DefaultDifficulty = cfg.MinDifficulty // 4 hashes
	p := startKnown(t, cfg)
	const rounds, each = 10, 300
	var miners [4]*client
	var shares [len(miners)][]find
	for i := range miners {
		var w work
		miners[i], w = p.miner()
		for n := range each {
			shares[i] = append(shares[i], miners[i].share(w, uint64(n)))
		}
	}
	var submitting sync.WaitGroup
	var sent atomic.Int64
	for i, miner := range miners {
		submitting.Go(func() {
			for _, s := range shares[i] {
				if code := miner.submit(s); code != 0 {
					t.Errorf("a share was answered with %d", code)
				}
				sent.Add(1)
			}
		})
	}
	for range rounds {
		p = succeed(t, p, cfg)
	}
	if n := sent.Load(); n == each*int64(len(miners)) {
		t.Error("no share came late")
	}
	submitting.Wait()
	for i, miner := range miners {
		for _, s := range shares[i][each-10:] {
			miner.wantSubmit(s, 22)
		}
	}
}

// A process that another one does not take over from goes on as if nothing had been.
func TestNotTakenOver(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	p := startKnown(t, cfg)
	miner, w := p.miner()
	var tries uint64
	for name, other := range map[string]func(*upgrade.Predecessor){
		"gone":      func(*upgrade.Predecessor) {},
		"refuses":   func(b *upgrade.Predecessor) { b.Refuse(context.Canceled) },
		"version 0": func(b *upgrade.Predecessor) { _ = b.Ready([]byte{0, 0}) },
		"version 9": func(b *upgrade.Predecessor) { _ = b.Ready([]byte{9, 0}) },
		"dies in the middle": func(b *upgrade.Predecessor) {
			_ = b.Ready([]byte{1, 0})
			for range 2 {
				m, _ := b.Receive()
				m.Close()
			}
		},
		"dies at the end": func(b *upgrade.Predecessor) {
			_ = b.Ready([]byte{1, 0})
			for n := 0; ; n++ {
				m, err := b.Receive()
				m.Close()
				if err != nil || m.Kind == sserver.MessageEnd {
					return
				}
			}
		},
	} {
		before, moved := upgradetest.Offer(t, p)
		other(before)
		_ = before.Close()
		if err := (<-moved).Err; err == nil {
			t.Fatalf("%s: taken over", name)
		} else {
			t.Logf("%s: %v", name, err)
		}
		tries++
		miner.wantSubmit(miner.share(w, tries), 0)
		miner.wantSubmit(miner.share(w, tries), 22)
		p.dial().login()
	}
}

// A new process that says nothing any more is given up in its time, as it is set: 30 seconds to be ready, in which miners
// are served, and ten for the move.
func TestNewProcessHangs(t *testing.T) {
	t.Parallel()
	for when, hang := range map[string]struct {
		ready   bool
		served  bool // meanwhile
		atLeast time.Duration
		says    string
	}{
		"before it is ready": {served: true, atLeast: 30 * time.Second, says: "the new process is not ready within 30s"},
		"amid the move":      {ready: true, atLeast: 10 * time.Second, says: "i/o timeout"},
	} {
		t.Run(when, func(t *testing.T) {
			t.Parallel()
			p := startKnown(t, testConfig(t))
			miner, w := p.miner()
			began := time.Now()
			before, moved := upgradetest.Offer(t, p)
			defer before.Close()
			if hang.ready {
				_ = before.Ready([]byte{1, 0})
			}
			if hang.served {
				miner.wantSubmit(miner.share(w, 1), 0)
				p.dial().login()
			}
			err := (<-moved).Err
			if err == nil || !strings.Contains(err.Error(), hang.says) {
				t.Fatalf("%v, want %s", err, hang.says)
			}
			if took := time.Since(began); took < hang.atLeast {
				t.Errorf("given up after %s", took)
			}
			miner.wantSubmit(miner.share(w, 2), 0)
			miner.wantSubmit(miner.share(w, 2), 22)
			p.dial().login()
		})
	}
}

// Processes of versions that know each other's state agree on the older one's; what a process of other versions says, or
// what makes no sense, is refused before anything moves.
func TestVersionsOfTheState(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	p := startKnown(t, cfg)
	for what, old := range map[string]struct {
		settings []byte
		version  uint32 // that the new process wants; 0: it refuses
		says     string
	}{
		"one that is older":     {settings: p.SettingsSaying(1, 1), version: 1},
		"one that is newer":     {settings: p.SettingsSaying(9, 2), version: sserver.StateVersion},
		"only what comes later": {settings: p.SettingsSaying(9, 8), says: fmt.Sprintf("state has versions 8 to 9 there, 1 to %d here", sserver.StateVersion)},
		"nothing":               {says: "malformed state"},
		"half of it":            {settings: p.SettingsSaying(2, 1)[:5], says: "malformed state"},
	} {
		t.Run(what, func(t *testing.T) {
			to, before, err := upgrade.Pair(func(to *upgrade.Successor) error { return to.Introduce(old.settings) })
			if err != nil {
				t.Fatal(err)
			}
			next, err := sserver.New(cfg, service.Deps{Log: zerolog.Nop(), Predecessor: before})
			if err != nil { // its process ends
				if old.version > 0 || !strings.Contains(err.Error(), old.says) {
					t.Errorf("%v, want %s", err, old.says)
				}
				to.Kill()
				return
			}
			ended := make(chan error, 1)
			go func() { ended <- next.Run(t.Context()) }()
			wants, err := to.Ready(t.Context())
			if old.version == 0 && (err == nil || !strings.Contains(err.Error(), old.says)) {
				t.Errorf("%v, want %s", err, old.says)
			}
			if old.version > 0 && (err != nil || wants[0] != byte(old.version)) {
				t.Errorf("wants version %v, %v", wants, err)
			}
			to.Kill()
			if err := <-ended; err == nil {
				t.Error("it has begun")
			}
		})
	}
}

// Sessions come behind what they are judged by, such as the server's id, however much that is.
func TestSessionsComeLast(t *testing.T) {
	t.Parallel()
	p := startKnown(t, testConfig(t))
	p.miner()
	p.GiveIDs(200_000)
	before, moved := upgradetest.Offer(t, p)
	if err := before.Ready([]byte{1, 0}); err != nil {
		t.Fatal(err)
	}
	var last byte
	for last != sserver.MessageEnd {
		m, err := before.Receive()
		m.Close()
		if err != nil {
			t.Fatal(err)
		}
		if m.Kind < last {
			t.Errorf("message %d behind %d", m.Kind, last)
		}
		last = m.Kind
	}
	_ = before.Close()
	if err := (<-moved).Err; err == nil {
		t.Error("handed over to nobody")
	}
}

// A disk that says nothing keeps sessions from moving, and nobody from being served who does not need it.
func TestNotMovedWhileDiskHangs(t *testing.T) {
	t.Parallel()
	p := startKnown(t, testConfig(t))
	miner, _ := p.miner()
	p.HoldAnswer()
	before, moved := upgradetest.Offer(t, p)
	defer before.Close()
	if err := before.Ready([]byte{1, 0}); err != nil {
		t.Fatal(err)
	}
	if err := (<-moved).Err; !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	miner.mustCall(nil, "mining.ping")
	p.dial().login()
}

// Who is no user of the new process, or another one, is disconnected, as when the users change.
func TestTakeOverWithOtherUsers(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.Users.Static = map[string]int32{"alice": 7, "bob": 8, "carol": 9}
	p := startKnown(t, cfg)
	changed, removed, same := p.loginAs("test/1", "alice.rig"), p.loginAs("test/1", "bob.rig"), p.loginAs("test/1", "carol.rig")
	cfg.Users.Static = map[string]int32{"alice": 70, "carol": 9}
	succeed(t, p, cfg)
	for _, c := range []*client{changed, removed} {
		c.send(`{"id":9,"method":"mining.ping","params":[]}` + "\n")
		for {
			line, err := c.readLine()
			if err != nil {
				break
			}
			if strings.Contains(line, `"id":9`) {
				t.Errorf("still served: %s", line)
				break
			}
		}
	}
	same.mustCall(nil, "mining.ping")
}

// Connections by TLS go on by way of the process that has their keys, which serves nothing else and ends with them.
func TestTakeOverTLS(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	dir := t.TempDir()
	place := sserver.Listener{Listen: "127.0.0.1:0", TLSCertFile: filepath.Join(dir, "cert"), TLSKeyFile: filepath.Join(dir, "key")}
	authorities := testkit.Certificate(t, place.TLSCertFile, place.TLSKeyFile)
	cfg.Listen, cfg.Listeners = "", []sserver.Listener{place}
	dial := func(p *pool) *client {
		conn, err := tls.Dial("tcp", p.Addr().String(), &tls.Config{RootCAs: authorities})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		c := &client{tb: t, conn: conn, r: bufio.NewReaderSize(conn, 1<<20), nonceBytes: 8}
		c.login()
		return c
	}
	p := startKnown(t, cfg)
	miner := dial(p)
	w := miner.work()
	miner.wantSubmit(miner.share(w, 1), 0)
	var ended []<-chan struct{}
	for i := range uint64(3) {
		ended = append(ended, p.ended)
		p = succeed(t, p, cfg)
		miner.wantSubmit(miner.share(w, i+2), 0)
		miner.wantSubmit(miner.share(w, 1), 22)
	}
	late := dial(p)
	late.wantSubmit(late.share(late.work(), 1), 0)
	for _, done := range ended[1:] {
		<-done // a relay needs nobody in between
	}
	select {
	case <-ended[0]:
		t.Fatal("ended before its connection")
	default:
	}
	miner.conn.Close()
	<-ended[0]
	late.mustCall(nil, "mining.ping")
}

package sserver_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"btcpool/internal/agentwire"
	"btcpool/internal/guard"
	"btcpool/internal/share"
	"btcpool/internal/testkit"
	"btcpool/sserver"
)

// badLogins logs in under n names that are no users', in one packet.
func (c *client) badLogins(n int) {
	c.tb.Helper()
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, `{"id":%d,"method":"mining.authorize","params":["nobody.%d","x"]}`+"\n", i, i)
	}
	c.send(text.String())
}

// wantAdmitted fails the test if the address is banned.
func (p *pool) wantAdmitted() {
	p.tb.Helper()
	c := p.dial()
	defer c.conn.Close()
	c.mustCall(nil, "mining.ping")
}

// invalid is a share of w with a time that is too old.
func (c *client) invalid(w work, extraNonce2 uint64) find {
	return find{job: w.id, time: "00000000", nonce: "00000000", extraNonce2: c.nonceText(extraNonce2)}
}

func TestRefusedLogins(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.Limits.RefusedLogins = 2
	cfg.Limits.BanTime = 10e9
	p := startPool(t, cfg)
	stranger := p.dial()
	stranger.mustCall(nil, "mining.subscribe")
	for i, want := range []float64{29, 29, 28} {
		if m := stranger.call("mining.authorize", "nobody.x"); m.Error == nil || m.Error[0] != want {
			t.Errorf("login %d: %+v", i, m)
		}
	}
	if bans := guard.NewBans(cfg.DataDir, zerolog.Nop(), time.Now()).List(time.Now()); len(bans) != 1 {
		t.Errorf("a ban was announced, and %d are on disk", len(bans))
	}
	stranger.wantEnd()
	p.dial().wantEnd()
	testkit.Eventually(t, "end of the ban", func() bool {
		conn := p.dial()
		conn.send(pingLine + "\n")
		line, err := conn.readLine()
		conn.conn.Close()
		return err == nil && strings.TrimSpace(line) == pongLine
	})
	if got := p.metric("bans_total", "reason", "logins"); got != 1 {
		t.Errorf("%v bans", got)
	}
}

// Who tries out names beside good miners loses the connection; the address stays open to them, also when their line has
// just failed.
func TestRefusedLoginsBesideGoodMiners(t *testing.T) {
	t.Parallel()
	p := startPool(t, testConfig(t))
	p.TakeJob(p.newJob(1, 100))
	good, w := p.miner()
	for range 3 {
		stranger := p.dial()
		stranger.mustCall(nil, "mining.subscribe")
		stranger.badLogins(101)
		if text := stranger.wantEnd(); strings.Count(text, "[29,") != 101 {
			t.Errorf("answers %q", text)
		}
	}
	p.wantAdmitted()
	good.wantSubmit(good.share(w, 1), 0)
	if sessions, bans := p.metric("culprits_total", "kind", "session"), p.metric("bans_total"); sessions != 3 || bans != 0 {
		t.Errorf("%v sessions ended, %v bans", sessions, bans)
	}
	good.conn.Close()
	testkit.Eventually(t, "disconnect", func() bool { return p.Sessions() == 0 })
	stranger := p.dial()
	stranger.mustCall(nil, "mining.subscribe")
	stranger.badLogins(101)
	stranger.wantEnd()
	p.miner()
}

// A farm proxy some of whose names are wrong goes on with the others.
func TestRefusedLoginsOfAProxy(t *testing.T) {
	t.Parallel()
	p := startPool(t, testConfig(t))
	p.TakeJob(p.newJob(1, 100))
	c, w := p.miner()
	c.badLogins(150)
	for range 150 {
		if m := c.read(); m.Error == nil || m.Error[0] != 29.0 {
			t.Fatalf("got %+v", m)
		}
	}
	c.wantSubmit(c.share(w, 1), 0)
	p.wantAdmitted()
}

// Hundreds of workers on a connection are normal, and a limit of ours is nobody's fault.
func TestManyWorkers(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.Limits.LinesPerSec = 0
	p := startPool(t, cfg)
	p.TakeJob(p.newJob(1, 100))
	c, w := p.miner()
	var text strings.Builder
	const tooMany = 300
	for i := range sserver.MaxWorkers - 1 + tooMany {
		fmt.Fprintf(&text, `{"id":%d,"method":"mining.authorize","params":["alice.%d","x"]}`+"\n", i, i)
	}
	go c.send(text.String())
	refused := 0
	for range sserver.MaxWorkers - 1 + tooMany {
		if m := c.read(); m.Error != nil && m.Error[0] == 24.0 {
			refused++
		}
	}
	if refused != tooMany {
		t.Errorf("%d refused", refused)
	}
	if code := p.submitAs(c, "alice.1234", c.share(w, 1)); code != 0 {
		t.Errorf("code %d", code)
	}
	if code := p.submitAs(c, "alice.5200", c.share(w, 2)); code != 0 { // another of the account has it
		t.Errorf("code %d", code)
	}
	if got := p.metric("shares_misnamed_total", "credited", "account"); got != 1 {
		t.Errorf("%v shares of another worker", got)
	}
	p.wantAdmitted()
	p.stop()
	for i, value := range readTopic(t, cfg, cfg.Kafka.Topics.Share, 2) {
		var s share.Share
		if err := s.Parse(value); err != nil || s.WorkerID != share.WorkerID([]string{"1234", "rig"}[i]) {
			t.Errorf("share %+v, %v", s, err)
		}
	}
}

// startStrictPool starts a pool that looks at ten shares before it judges a miner, and has a job.
func startStrictPool(t *testing.T, cfg sserver.Config) *pool {
	t.Helper()
	cfg.Limits.InvalidAmong = 10
	p := startPool(t, cfg)
	p.TakeJob(p.newJob(1, 100))
	return p
}

func TestInvalidShares(t *testing.T) {
	t.Parallel()
	p := startStrictPool(t, testConfig(t))
	c, w := p.miner()
	for i := range uint64(4) {
		c.wantSubmit(c.share(w, i), 0)
	}
	for i := range uint64(6) {
		c.wantSubmit(c.invalid(w, i), 31)
	}
	c.wantEnd()
	p.dial().wantEnd()
	if got := p.metric("bans_total", "reason", "invalid shares"); got != 1 {
		t.Errorf("%v bans", got)
	}
}

func TestInvalidSharesBesideGoodMiners(t *testing.T) {
	t.Parallel()
	p := startStrictPool(t, testConfig(t))
	good, w := p.miner()
	good.wantSubmit(good.share(w, 1), 0)
	c, bad := p.miner()
	for i := range uint64(10) {
		c.wantSubmit(c.invalid(bad, i), 31)
	}
	c.wantEnd()
	p.wantAdmitted()
	good.wantSubmit(good.share(w, 2), 0)
	if sessions, bans := p.metric("culprits_total", "kind", "session"), p.metric("bans_total"); sessions != 1 || bans != 0 {
		t.Errorf("%v sessions ended, %v bans", sessions, bans)
	}
}

// Of several workers on a connection the bad one is refused.
func TestInvalidSharesOfAWorker(t *testing.T) {
	t.Parallel()
	p := startStrictPool(t, testConfig(t))
	c, w := p.miner()
	c.mustCall(nil, "mining.authorize", "alice.bad", "")
	for i := range uint64(10) {
		if code := p.submitAs(c, "alice.bad", c.invalid(w, i)); code != 31 {
			t.Errorf("share %d: code %d", i, code)
		}
	}
	if code := p.submitAs(c, "alice.bad", c.share(w, 1)); code != 28 {
		t.Errorf("code %d", code)
	}
	c.wantSubmit(c.share(w, 2), 0)
	p.wantAdmitted()
	if workers, bans := p.metric("culprits_total", "kind", "worker"), p.metric("bans_total"); workers != 1 || bans != 0 {
		t.Errorf("%v workers barred, %v bans", workers, bans)
	}
}

// One broken miner does not cost a farm its link, nor its address.
func TestInvalidSharesBehindAnAgent(t *testing.T) {
	t.Parallel()
	cfg := simulatorConfig(t)
	cfg.Limits.BanTime = 5e9
	p := startStrictPool(t, cfg)
	a, w := p.agent("", "verrol", "subres")
	a.frame(agentwire.Register{Session: 1, Worker: "good"}, agentwire.Register{Session: 2, Worker: "bad"})
	a.frame(a.framed(w, 1, 1))
	a.wantVerdicts(0, share.StatusAccept)
	bad := a.framed(w, 2, 1)
	old := bad
	old.Time = 1
	want := make([]share.Status, 0, 10)
	for range cap(want) {
		a.frame(old)
		want = append(want, share.StatusTimeTooOld)
	}
	a.wantVerdicts(1, want...)
	a.frame(bad, a.framed(w, 1, 2))
	a.wantVerdicts(11, share.StatusIPBanned, share.StatusAccept)
	p.wantAdmitted()
	if miners, bans := p.metric("culprits_total", "kind", "agent miner"), p.metric("bans_total"); miners != 1 || bans != 0 {
		t.Errorf("%v miners barred, %v bans", miners, bans)
	}
	index := uint16(13)
	testkit.Eventually(t, "end of the ban", func() bool {
		a.frame(bad)
		r, err := agentwire.ParseSubmitResponse(a.readFrame())
		if err != nil || r.Index != index {
			t.Fatal(r, err)
		}
		index++
		return r.Status == share.StatusAccept
	})
}

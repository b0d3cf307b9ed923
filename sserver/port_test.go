package sserver_test

import (
	"bufio"
	"crypto/tls"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"btcpool/internal/guard"
	"btcpool/internal/share"
	"btcpool/internal/testkit"
	"btcpool/sserver"
)

// dialTo connects to another place of the pool than the first.
func (p *pool) dialTo(place int) *client {
	p.tb.Helper()
	conn, err := net.Dial("tcp", p.Addrs()[place].String())
	if err != nil {
		p.tb.Fatal(err)
	}
	p.tb.Cleanup(func() { conn.Close() })
	return &client{tb: p.tb, conn: conn, r: bufio.NewReaderSize(conn, 1<<20), nonceBytes: 8}
}

func TestListeners(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.Listeners = []sserver.Listener{
		{Listen: "127.0.0.1:0", DefaultDifficulty: 8, MinDifficulty: 4},
		{Listen: "[::1]:0"},
	}
	p := startPool(t, cfg)
	p.TakeJob(p.newJob(1, 100))
	for place, want := range []float64{1.0 / (1 << 20), 8, 1.0 / (1 << 20)} {
		c := p.dialTo(place)
		c.login()
		if w := c.work(); w.difficulty != want {
			t.Errorf("place %d: difficulty %v, want %v", place, w.difficulty, want)
		}
		c.mustCall(nil, "mining.suggest_difficulty", 1)
		if w := c.work(); w.difficulty != max(1, want/2) {
			t.Errorf("place %d: difficulty %v after a wish for 1", place, w.difficulty)
		}
	}
}

func TestOnlyListeners(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.Listen = ""
	cfg.Listeners = []sserver.Listener{{Listen: "127.0.0.1:0"}}
	p := startPool(t, cfg)
	p.dial().mustCall(nil, "mining.ping")
}

func TestTLS(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	dir := t.TempDir()
	place := sserver.Listener{Listen: "127.0.0.1:0", TLSCertFile: filepath.Join(dir, "cert"), TLSKeyFile: filepath.Join(dir, "key")}
	authorities := testkit.Certificate(t, place.TLSCertFile, place.TLSKeyFile)
	cfg.Listeners = []sserver.Listener{place}
	cfg.LoginTimeout = 5e9
	p := startPool(t, cfg)
	p.TakeJob(p.newJob(1, 100))

	conn, err := tls.Dial("tcp", p.Addrs()[1].String(), &tls.Config{RootCAs: authorities})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := &client{tb: t, conn: conn, r: bufio.NewReaderSize(conn, 1<<20), nonceBytes: 8}
	c.login()
	w := c.work()
	for i := range uint64(3) {
		c.wantSubmit(c.share(w, i), 0)
	}
	p.TakeJob(p.newJob(2, 101))
	c.work()

	plain := p.dialTo(1)
	plain.send(`{"id":1,"method":"mining.subscribe","params":[]}` + "\n")
	plain.wantEnd()
	silent := p.dialTo(1) // does not shake hands
	silent.wantEnd()
	p.stop()
	c.wantEnd()
}

func TestProxyProtocol(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.Listeners = []sserver.Listener{{Listen: "127.0.0.1:0", ProxyNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}}
	cfg.Limits = guard.DefaultLimits() // which exempt the proxy
	cfg.Limits.PerAddress = 1
	p := startPool(t, cfg)
	p.TakeJob(p.newJob(1, 100))

	c := p.dialTo(1)
	c.send("PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n")
	c.login()
	c.wantSubmit(c.share(c.work(), 1), 0)
	second := p.dialTo(1) // limits are for those behind the proxy
	second.send("PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n")
	second.wantEnd()
	other := p.dialTo(1)
	other.send("PROXY UNKNOWN\r\n")
	other.mustCall(nil, "mining.ping")
	none := p.dialTo(1)
	none.send(pingLine + "\n")
	none.wantEnd()
	if got := p.metric("connections_refused_total", "reason", "proxy header"); got != 1 {
		t.Errorf("%v refused", got)
	}
	// Where no proxy is expected, its header is a line like others.
	liar := p.dial()
	liar.send("PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n")
	if m := liar.read(); m.Error == nil || m.Error[0] != 27.0 {
		t.Errorf("got %+v", m)
	}
	p.stop()
	var s share.Share
	if err := s.Parse(readTopic(t, cfg, cfg.Kafka.Topics.Share, 1)[0]); err != nil || s.IP != netip.MustParseAddr("192.0.2.7") {
		t.Errorf("share %+v, %v", s, err)
	}
}

func TestLinesPerSecond(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.Limits.LinesPerSec = 10
	p := startPool(t, cfg)
	c := p.dial()
	start := time.Now()
	const pings = 150
	c.send(strings.Repeat(pingLine+"\n", pings)) // at once, however slow the machine is
	for range pings {
		if m := c.read(); string(m.Result) != `"pong"` {
			t.Fatalf("got %+v", m)
		}
	}
	c.mustCall(nil, "mining.ping") // is not heard before those are paid for
	if waited := time.Since(start); waited < 700*time.Millisecond {
		t.Errorf("%d lines in %s", pings+1, waited)
	}
	if p.metric("pauses_total") == 0 {
		t.Error("no pause counted")
	}
}

package farm

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"btcpool/agentproxy"
	"btcpool/internal/config"
	"btcpool/internal/testkit"
	"btcpool/sserver"
)

// literal has outages take as long as they are said to; else they are short, and the proxy's times with them:
//
//	go test -v -timeout 30m ./test/farm -run 'TestNobodyLost|TestLongOutage' -args -literal
var literal = flag.Bool("literal", false, "outages of 12 s and 5 min, and a silence of 60 s")

// lasts is a time, or its shorter stand-in.
func lasts(whole, short time.Duration) time.Duration {
	if *literal {
		return whole
	}
	return short
}

// TestNobodyLost has happen to a farm of 25 miners and 5 links what happens in the world. After each of it all of them
// mine, none has been disconnected, and in the end nobody was told anything else than the pool has counted. Limits are
// those of a pool for strangers.
func TestNobodyLost(t *testing.T) {
	t.Parallel()
	const miners, links = 25, 5
	p := startPool(t, nil)
	p.send(p.newJob(1, 100))
	line := newRelay(t, p.Addr().String())
	line.refuse(links - 1)
	x := startProxy(t, func(c *agentproxy.Config) {
		c.Links = links
		c.LoginTimeout = config.Duration(lasts(time.Minute, 10*time.Second))
		c.ReadTimeout = config.Duration(lasts(time.Minute, 3*time.Second))
	}, line.addr())
	r := mine(t, x.Addr(), miners, "any.rig%d", 3)
	well := func(what string) {
		t.Helper()
		testkit.Until(t, testkit.Patience, what+": all links are up and nobody waits", x.whole(links))
		r.everyone(t, what, miners)
		if n := r.Report().Reconnects; n > 0 {
			t.Fatalf("%s: %d miners have lost their connection", what, n)
		}
		t.Logf("%s: all mine", what)
	}
	well("four of five links refused at the start")

	line.cut(1)
	well("a link cut")

	line.refuse(-1)
	line.cut(-1)
	testkit.Eventually(t, "the outage has begun", func() bool { return x.metric("miners_waiting") == miners })
	time.Sleep(lasts(12*time.Second, 2*time.Second))
	line.refuse(0)
	well("an outage of 12 s")

	line.silence()
	time.Sleep(lasts(time.Minute, 3*time.Second))
	line.speak()
	well("a silence of 60 s")

	p.stop()
	p.start()
	p.send(p.newJob(2, 101))
	well("the pool started again")

	for i := range 20 { // a batch holds shares of several jobs, of several blocks, while they change
		p.send(p.newJob(byte(3+i/2), int32(102+i/2)))
		r.goOn(t, 2)
	}
	well("jobs changed within batches")

	strangers := visit(t, x.Addr())
	p.send(p.newJob(100, 200))
	well("strangers at the door")
	strangers()
	well("strangers gone")

	r.stop()
	p.stop()
	p.verify(r)
}

// whole returns why not all links are up or somebody has none, asked again and again.
func (p *proxy) whole(links float64) func(context.Context) error {
	return func(context.Context) error {
		if up, waiting := p.metric("links"), p.metric("miners_waiting"); up != links || waiting > 0 {
			return fmt.Errorf("%v links are up, %v miners wait: %w", up, waiting, p.Ready())
		}
		return nil
	}
}

// visit has strangers come to the port of miners who do all kinds of harm, and returns what has them leave.
func visit(t *testing.T, addr string) (leave func()) {
	t.Helper()
	var conns []net.Conn
	come := func(text string) net.Conn {
		t.Helper()
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
		_ = conn.SetWriteDeadline(time.Now().Add(testkit.Patience))
		_, _ = io.WriteString(conn, text) // it may hang up on the way
		return conn
	}
	for range 300 {
		come("") // and says nothing
	}
	come("null\nnull\n")
	come(strings.Repeat("null\n", 100))
	come(strings.Repeat("[", 4<<20))
	come("\x03\x00\x00\x13\x0e\xe0\x00\x00\x00\x00\x00\x01\x00\x08\x00\x03\x00\x00\x00")              // RDP
	come("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("\x00", 500) + "\n\n\n\n\n") // TLS
	come("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	come("\x7f\x01\xff\xff" + strings.Repeat("a", 70_000))
	for i := range 5 { // log in and do not read
		come(fmt.Sprintf(`{"id":1,"method":"mining.subscribe","params":[]}`+"\n"+
			`{"id":2,"method":"mining.authorize","params":["any.deaf%d","x"]}`+"\n", i))
	}
	return func() {
		for _, c := range conns {
			c.Close()
		}
	}
}

// TestLongOutage has the pool away for longer than machines are let wait. Those that are to be kept are there
// afterwards.
func TestLongOutage(t *testing.T) {
	t.Parallel()
	const miners = 10
	p := startPool(t, nil)
	p.send(p.newJob(1, 100))
	line := newRelay(t, p.Addr().String())
	x := startProxy(t, func(c *agentproxy.Config) {
		c.KeepMiners = true
		c.StandInInterval = config.Duration(lasts(30*time.Second, time.Second))
		c.Patience = config.Duration(lasts(time.Minute, time.Second))
	}, line.addr())
	r := mine(t, x.Addr(), miners, "any.rig%d", 3)
	r.everyone(t, "start", miners)
	line.refuse(-1)
	line.cut(-1)
	testkit.Eventually(t, "the outage has begun", func() bool { return x.metric("miners_waiting") == miners })
	time.Sleep(lasts(5*time.Minute, 4*time.Second))
	line.refuse(0)
	testkit.Until(t, testkit.Patience, "the link is up again", x.whole(1))
	p.send(p.newJob(2, 101))
	r.everyone(t, "an outage of 5 min", miners)
	if rep := r.Report(); rep.Reconnects > 0 {
		t.Errorf("%d miners have lost their connection", rep.Reconnects)
	}
	r.stop()
	p.stop()
	p.verify(r)
}

// TestProxyBehindProxy has one proxy's links go through another one, to a pool that speaks TLS only: the machines of
// both are workers of their own, and a line that breaks costs neither a machine.
func TestProxyBehindProxy(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	place := sserver.Listener{Listen: "127.0.0.1:0", TLSCertFile: filepath.Join(dir, "cert"), TLSKeyFile: filepath.Join(dir, "key")}
	testkit.Certificate(t, place.TLSCertFile, place.TLSKeyFile)
	p := startPool(t, func(c *sserver.Config) { c.Listeners = []sserver.Listener{place} })
	p.send(p.newJob(1, 100))
	line := newRelay(t, p.Addrs()[1].String())

	outer := startProxy(t, func(c *agentproxy.Config) { c.Pools[0].TLS = true }, line.addr())
	testkit.Eventually(t, "a certificate that nobody vouches for is refused", func() bool {
		return strings.Contains(outer.Ready().Error(), "x509")
	})
	outer.stop()
	outer = startProxy(t, func(c *agentproxy.Config) { c.Pools[0].TLS, c.Pools[0].TLSSkipVerify = true, true }, line.addr())
	inner := startProxy(t, func(c *agentproxy.Config) { c.Links, c.Pools[0].Account = 2, "bob" }, outer.Addr())
	const miners = 5
	near, far := mine(t, outer.Addr(), miners, "any.near%d", 3), mine(t, inner.Addr(), miners, "any.far%d", 3)
	well := func(what string) {
		t.Helper()
		near.everyone(t, what, miners)
		far.everyone(t, what, miners)
		testkit.Eventually(t, what+": two links of the other proxy", func() bool { return outer.metric("relays") == 2 })
	}
	well("start")
	line.cut(-1)
	testkit.Until(t, testkit.Patience, "the other proxy has its links again", inner.whole(2))
	well("all lines cut")
	p.send(p.newJob(2, 101))
	well("a new block")
	for who, r := range map[string]*rigs{"near": near, "far": far} {
		if n := r.Report().Reconnects; n > 0 {
			t.Errorf("%d miners of the %s proxy have lost their connection", n, who)
		}
		r.stop()
	}
	p.stop()
	p.verify(near, far)
}

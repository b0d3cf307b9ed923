package agentproxy

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"btcpool/internal/agentwire"
	"btcpool/internal/config"
	"btcpool/internal/service"
	"btcpool/internal/share"
	"btcpool/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakePool says what a test wants, and notes what it hears: lines, and frames in hex.
type fakePool struct {
	t  testing.TB
	ln net.Listener
}

func newFakePool(t testing.TB) *fakePool {
	t.Helper()
	ln, err := net.Listen("tcp", testkit.FreeAddr(t)) // some pools go away, and one comes back
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return &fakePool{t, ln}
}

func (p *fakePool) addr() string { return p.ln.Addr().String() }

// fakeLink is a connection that a pool has accepted.
type fakeLink struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

func (p *fakePool) accept() *fakeLink {
	p.t.Helper()
	_ = p.ln.(*net.TCPListener).SetDeadline(time.Now().Add(testkit.Patience))
	conn, err := p.ln.Accept()
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { conn.Close() })
	_ = conn.SetReadDeadline(time.Now().Add(testkit.Patience))
	return &fakeLink{p.t, conn, bufio.NewReader(conn)}
}

func (l *fakeLink) say(text string) {
	l.t.Helper()
	if _, err := io.WriteString(l.conn, text); err != nil {
		l.t.Fatal(err)
	}
}

// ping is how a link asks a pool that has been quiet for a sign of life.
const ping = `{"id":"ping","method":"agent.get_capabilities","params":[["verrol","subres"]]}`

// hear returns the next line, or frame in hex, but for pings, which come when the machine is slow.
func (l *fakeLink) hear() string {
	l.t.Helper()
	text := l.hearAny()
	for strings.HasPrefix(text, `{"id":"ping",`) {
		text = l.hearAny()
	}
	return text
}

func (l *fakeLink) hearAny() string {
	l.t.Helper()
	first, err := l.r.Peek(1)
	if err != nil {
		l.t.Fatal(err)
	}
	if first[0] == agentwire.Magic {
		return hex.EncodeToString(l.hearFrame())
	}
	line, err := l.r.ReadString('\n')
	if err != nil {
		l.t.Fatal(err)
	}
	return strings.TrimSuffix(line, "\n")
}

func (l *fakeLink) hearFrame() []byte {
	l.t.Helper()
	head, err := l.r.Peek(4)
	if err != nil {
		l.t.Fatal(err)
	}
	frame := make([]byte, int(head[2])|int(head[3])<<8)
	if _, err := io.ReadFull(l.r, frame); err != nil {
		l.t.Fatal(err)
	}
	return frame
}

func (l *fakeLink) want(lines ...string) {
	l.t.Helper()
	for _, want := range lines {
		if diff := cmp.Diff(want, l.hear()); diff != "" {
			l.t.Fatalf("(-want +heard):\n%s", diff)
		}
	}
}

// What btcpool says to an agent.
const (
	capable    = `{"id":"conn_test","result":{"capabilities":["verrol","subres"]}}` + "\n"
	loggedInAs = `{"id":"caps","result":{"capabilities":["verrol","subres"]}}
{"id":"conf","result":{"version-rolling":true,"version-rolling.mask":"1fffe000"},"error":null}
{"id":null,"method":"mining.set_version_mask","params":["1fffe000"]}
{"id":"sub","result":[[["mining.set_difficulty","01a2b3c4"],["mining.notify","01a2b3c4"]],"01a2b3c4",8],"error":null}
{"id":"auth","result":true,"error":null}
{"id":null,"method":"mining.set_difficulty","params":[16384]}
`
)

func notify(id string, clean bool) string {
	return fmt.Sprintf(`{"id":null,"method":"mining.notify","params":["%s","%064x","aa01","bb02",["%064x"],"20000000","1703a30c","65000000",%v]}`+"\n", id, 1, 2, clean)
}

// login does what btcpool does up to the first job.
func (p *fakePool) login() *fakeLink {
	p.t.Helper()
	return p.loginWith("1fffe000", "")
}

// loginWith has version bits and capabilities, as ,"batch", that btcpool does not have.
func (p *fakePool) loginWith(mask, more string) *fakeLink {
	p.t.Helper()
	l := p.accept()
	l.hear()
	l.say(capable)
	for range 4 {
		l.hear()
	}
	l.say(strings.NewReplacer("1fffe000", mask, `,"subres"`, `,"subres"`+more).Replace(loggedInAs) + notify("0", true))
	l.hear() // capabilities again
	return l
}

// proxyOf starts a proxy of pools without their extensions, and verdicts by the pool.
func proxyOf(t testing.TB, change func(*Config), pools ...*fakePool) *Service {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Listeners = []Listener{{Listen: testkit.FreeAddr(t)}}
	cfg.Page = "127.0.0.1:0"
	cfg.Hold = 0
	cfg.DialTimeout, cfg.ReadTimeout, cfg.LoginTimeout = config.Duration(testkit.Patience), config.Duration(testkit.Patience), config.Duration(testkit.Patience)
	for _, p := range pools {
		cfg.Pools = append(cfg.Pools, Pool{Addr: p.addr(), Account: "farm", NoExtensions: true})
	}
	if change != nil {
		change(&cfg)
	}
	metrics := prometheus.NewRegistry()
	s, err := New(cfg, service.Deps{Log: zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.ErrorLevel), Metrics: metrics})
	if err != nil {
		t.Fatal(err)
	}
	registries.Store(s, metrics)
	t.Cleanup(func() { registries.Delete(s) })
	testkit.Run(t, s.Run)
	return s
}

// registries are those of the proxies that tests run.
var registries sync.Map

func (s *Service) counter(t testing.TB, name string, labels ...string) float64 {
	t.Helper()
	reg, _ := registries.Load(s)
	return testkit.Metric(t, reg.(*prometheus.Registry), "btcpool_agentproxy_"+name, labels...)
}

// rig is a machine.
type rig struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

func dial(t *testing.T, s *Service) *rig {
	t.Helper()
	conn, err := net.Dial("tcp", s.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetReadDeadline(time.Now().Add(testkit.Patience))
	return &rig{t, conn, bufio.NewReader(conn)}
}

func (r *rig) say(text string) {
	r.t.Helper()
	if _, err := io.WriteString(r.conn, text+"\n"); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) hear() string {
	r.t.Helper()
	line, err := r.r.ReadString('\n')
	if err != nil {
		r.t.Fatal(err)
	}
	return strings.TrimSuffix(line, "\n")
}

func (r *rig) want(lines ...string) {
	r.t.Helper()
	for _, want := range lines {
		if diff := cmp.Diff(want, r.hear()); diff != "" {
			r.t.Fatalf("(-want +heard):\n%s", diff)
		}
	}
}

// login subscribes and authorizes a machine, up to its first job.
func (r *rig) login(name string) {
	r.t.Helper()
	r.say(`{"id":1,"method":"mining.subscribe","params":["cgminer/4"]}`)
	r.hear()
	r.say(`{"id":2,"method":"mining.authorize","params":["` + name + `","x"]}`)
	for !strings.Contains(r.hear(), "mining.notify") {
	}
}

// farm is a proxy with one machine, whose pool has heard of it.
func farm(t *testing.T, change func(*Config)) (p *fakePool, l *fakeLink, s *Service, r *rig) {
	t.Helper()
	p = newFakePool(t)
	s = proxyOf(t, change, p)
	l = p.login()
	r = dial(t, s)
	r.login("a.rig1")
	l.hear() // register
	return p, l, s, r
}

// onLoop does something in the loop.
func (s *Service) onLoop(t testing.TB, f func()) {
	t.Helper()
	if err := s.loop.Call(t.Context(), f); err != nil {
		t.Fatal(err)
	}
}

// Word for word what BTCAgent says to a pool, and what machines hear.
func TestDialogue(t *testing.T) {
	t.Parallel()
	p := newFakePool(t)
	s := proxyOf(t, nil, p)
	l := p.accept()
	l.want(`{"id":"conn_test","method":"agent.get_capabilities","params":[["verrol"]]}`)
	l.say(capable)
	l.want(
		`{"id":"caps","method":"agent.get_capabilities","params":[["verrol","subres"]]}`,
		`{"id":"conf","method":"mining.configure","params":[["version-rolling"],{"version-rolling.mask":"ffffffff","version-rolling.min-bit-count":0}]}`,
		`{"id":"sub","method":"mining.subscribe","params":["btccom-agent/3.0.0-mu"]}`,
		`{"id":"auth","method":"mining.authorize","params":["farm",""]}`,
	)
	l.say(loggedInAs)
	l.want(`{"id":"caps_again","method":"agent.get_capabilities","params":[["verrol","subres"]]}`)
	l.say(`{"id":"caps_again","result":{"capabilities":["verrol","subres"]}}` + "\n")
	l.say(notify("254", true))

	r := dial(t, s)
	r.say(`{"id":1,"method":"mining.configure","params":[["version-rolling"],{"version-rolling.mask":"00ffe000"}]}`)
	r.want(`{"id":1,"result":{"version-rolling":true,"version-rolling.mask":"00ffe000"},"error":null}`,
		`{"id":null,"method":"mining.set_version_mask","params":["00ffe000"]}`)
	r.say(`{"id":"s","method":"mining.subscribe","params":["cgminer/4.10.0"]}`)
	r.want(`{"id":"s","result":[[["mining.set_difficulty","00000000"],["mining.notify","00000000"]],"00000000",4],"error":null}`)
	r.say(`{"id":3,"method":"mining.authorize","params":["x.s1099x","x"]}`)
	told := func(id string, time string, clean bool) string {
		return fmt.Sprintf(`{"id":null,"method":"mining.notify","params":["%s","%064x","aa0101a2b3c4","bb02",["%064x"],"20000000","1703a30c","%s",%v]}`, id, 1, 2, time, clean)
	}
	r.want(`{"id":3,"result":true,"error":null}`, `{"id":null,"method":"mining.set_difficulty","params":[16384]}`, told("0", "65000000", true))
	l.want("7f011c00" + "0000" + hex.EncodeToString([]byte("cgminer/4.10.0\x00s1099x\x00")))

	// The job's own time is left out, and so are version bits that were not rolled.
	r.say(`{"id":4,"method":"mining.submit","params":["x.s1099x","0","00000001","65000000","b2957c02"]}`)
	r.say(`{"id":5,"method":"mining.submit","params":["x.s1099x","0","00000001","65000001","b2957c02","00c0a000"]}`)
	l.want("7f020f00"+"fe"+"0000"+"01000000"+"027c95b2", "7f131700"+"fe"+"0000"+"01000000"+"027c95b2"+"01000065"+"00a0c000")
	// Verdicts in any order reach those who asked.
	l.say(string(agentwire.SubmitResponse{Index: 1, Status: share.StatusLowDifficulty}.AppendTo(nil)))
	r.want(`{"id":5,"result":null,"error":[23,"Low difficulty",null]}`)
	l.say(string(agentwire.SubmitResponse{Index: 0, Status: share.StatusAccept}.AppendTo(nil)))
	r.want(`{"id":4,"result":true,"error":null}`)
	l.say(string(agentwire.SubmitResponse{Index: 0, Status: share.StatusAccept}.AppendTo(nil))) // nobody asked

	// A new difficulty comes before the job that it is for; those of the link itself are nobody's.
	l.say(`{"id":null,"method":"mining.set_difficulty","params":[1]}` + "\n")
	l.say(string(agentwire.SetDifficulty{Difficulty: 15, Sessions: []agentwire.Session{0, 77}}.AppendTo(nil)))
	l.say(notify("255", false))
	r.want(`{"id":null,"method":"mining.set_difficulty","params":[32768]}`, told("1", "65000000", false))
	l.say(notify("0", false))
	r.want(told("2", "65000000", false))

	// What no job is, and what another machine's bits are, is not sent.
	r.say(`{"id":6,"method":"mining.submit","params":["x","9","00000001","65000000","b2957c02"]}`)
	r.want(`{"id":6,"result":null,"error":[21,"Job not found (=stale)",null]}`)
	r.say(`{"id":7,"method":"mining.submit","params":["x","2","00000001","65000000","b2957c02","20000000"]}`)
	r.want(`{"id":7,"result":null,"error":[33,"Invalid version mask",null]}`)

	// A share goes before its machine does.
	r.say(`{"id":8,"method":"mining.submit","params":["x","1","00000007","65000000","00000001"]}`)
	r.conn.Close()
	l.want("7f020f00"+"ff"+"0000"+"07000000"+"01000000", "7f0406000000")
}

// A quiet pool is asked for a sign of life, and machines hear of their job again.
func TestQuietPool(t *testing.T) {
	t.Parallel()
	p, l, s, r := farm(t, func(c *Config) { c.ReadTimeout = config.Duration(6 * time.Second) })
	if diff := cmp.Diff(ping, l.hearAny()); diff != "" {
		t.Errorf("(-want +heard):\n%s", diff)
	}
	l.say(`{"id":"ping","result":{"capabilities":["verrol","subres"]}}` + "\n")
	s.onLoop(t, func() {
		for _, m := range s.miners {
			m.heardOf = m.heardOf.Add(-minersSilence)
		}
	})
	if line := r.hear(); !strings.Contains(line, `"mining.notify","params":["1",`) || !strings.HasSuffix(line, "false]}") || strings.Contains(line, `"65000000"`) {
		t.Errorf("the job again, with a later time: %s", line)
	}
	// Without a sign the link is over, and the machine goes on by the next one.
	if diff := cmp.Diff(ping, l.hearAny()); diff != "" {
		t.Errorf("(-want +heard):\n%s", diff)
	}
	p.login().hear() // register
	if line := r.hear(); !strings.Contains(line, "mining.notify") || !strings.HasSuffix(line, "true]}") {
		t.Errorf("the job of the new link: %s", line)
	}
}

// A plain pool has nothing to say but jobs, and may have none for longer than read_timeout. It grants no version bits by
// saying nothing of them. One that does not answer for a worker, as ckpool, knows the account only.
func TestQuietPlainPool(t *testing.T) {
	t.Parallel()
	p := newFakePool(t)
	s := proxyOf(t, func(c *Config) { c.Pools[0].Protocol = ProtocolStratum }, p)
	l := p.accept()
	for range 3 {
		l.hear()
	}
	l.say(`{"id":"sub","result":[[],"aabbccdd",9],"error":null}` + "\n" + `{"id":"auth","result":true,"error":null}` + "\n" +
		`{"id":null,"method":"mining.set_difficulty","params":[1000.5]}` + "\n" + notify("x-1", true))
	testkit.Eventually(t, "the link is up", func() bool { return s.counter(t, "links") == 1 })
	r := dial(t, s)
	r.say(`{"id":1,"method":"mining.configure","params":[["version-rolling"],{"version-rolling.mask":"ffffffff"}]}`)
	r.want(`{"id":1,"result":{"version-rolling":false},"error":null}`, `{"id":null,"method":"mining.set_version_mask","params":["00000000"]}`)
	r.say(`{"id":2,"method":"mining.subscribe","params":["cgminer/4"]}`)
	r.hear()
	r.say(`{"id":3,"method":"mining.authorize","params":["a.b","x"]}`)
	r.want(`{"id":3,"result":true,"error":null}`, `{"id":null,"method":"mining.set_difficulty","params":[1000.5]}`)
	r.hear()
	l.want(`{"id":"worker","method":"mining.authorize","params":["farm.b",""]}`)
	s.onLoop(t, func() {
		for link := range s.accounts[""].links {
			link.heard = link.heard.Add(-2 * s.cfg.ReadTimeout.Std())
		}
		s.tick()
	})
	r.say(`{"id":4,"method":"mining.submit","params":["a.b","0","00000007","65000000","b2957c02"]}`)
	l.want(`{"id":0,"method":"mining.submit","params":["farm","x-1","000000000000000007","65000000","b2957c02"]}`)
	l.say(`{"id":0,"result":true,"error":null}` + "\n")
	r.want(`{"id":4,"result":true,"error":null}`)
}

// A pool that is just starting, or silent for a moment, is not taken for one that does not speak the agents' protocol.
func TestPoolStarting(t *testing.T) {
	t.Parallel()
	p := newFakePool(t)
	s := proxyOf(t, func(c *Config) { c.DialTimeout = config.Duration(5 * time.Second) }, p)
	l := p.accept()
	l.hear()
	l.conn.Close()
	l = p.login()
	l.conn.Close() // and now it is known
	silent := p.accept()
	silent.hear()
	p.login() // that is, it was asked again
	s.onLoop(t, func() {
		for link := range s.accounts[""].links {
			if !link.agent {
				t.Error("a plain link")
			}
		}
	})
}

// Names that somebody makes up are not accounts without end.
func TestManyAccounts(t *testing.T) {
	t.Parallel()
	p := newFakePool(t)
	s := proxyOf(t, func(c *Config) { c.MultiUser = true }, p)
	s.onLoop(t, func() {
		for i := range maxAccounts {
			name := fmt.Sprint(i)
			s.accounts[name] = &account{svc: s, name: name, left: time.Now()}
		}
	})
	r := dial(t, s)
	r.say(`{"id":1,"method":"mining.subscribe","params":["cgminer/4"]}`)
	r.hear()
	r.say(`{"id":2,"method":"mining.authorize","params":["one.more","x"]}`)
	r.want(`{"id":2,"result":null,"error":[24,"Unauthorized worker",null]}`)
}

// A share whose link ends is answered, once, and a share for a job of that link later.
func TestLinkLostWithShares(t *testing.T) {
	t.Parallel()
	p, l, _, r := farm(t, nil)
	r.say(`{"id":4,"method":"mining.submit","params":["a.b","0","00000001","65000000","b2957c02"]}`)
	l.hear()
	l.conn.Close()
	r.want(`{"id":4,"result":null,"error":[2147483647,"Unknown",null]}`)
	p.login()
	r.hear() // the new link's job
	r.say(`{"id":5,"method":"mining.submit","params":["a.b","0","00000001","65000000","b2957c02"]}`)
	r.want(`{"id":5,"result":null,"error":[21,"Job not found (=stale)",null]}`)
}

// Answered at once, whatever the pool thinks: as BTCAgent does without submit_response_from_server.
func TestAnsweredAtOnce(t *testing.T) {
	t.Parallel()
	_, _, _, r := farm(t, func(c *Config) { c.PoolVerdicts = false })
	r.say(`{"id":4,"method":"mining.submit","params":["a.b","0","00000001","65000000","b2957c02"]}`)
	r.want(`{"id":4,"result":true,"error":null}`)
}

// What was called good while it waited for others, and then was not sent, is counted as lost.
func TestAnsweredAtOnceAndLost(t *testing.T) {
	t.Parallel()
	_, l, s, r := farm(t, func(c *Config) { c.PoolVerdicts = false })
	s.onLoop(t, func() { s.cfg.Hold = config.Duration(time.Hour) })
	r.say(share4)
	r.want(`{"id":4,"result":true,"error":null}`)
	l.breaks(s)
	if lost := s.counter(t, "shares_lost_total", "reason", "link lost"); lost != 1 {
		t.Errorf("%v shares lost, want 1", lost)
	}
}

// While no pool is there, machines that are to be kept have work at which nothing is found; others are sent away.
func TestPoolAway(t *testing.T) {
	t.Parallel()
	t.Run("kept", func(t *testing.T) {
		t.Parallel()
		p, l, s, r := farm(t, func(c *Config) { c.KeepMiners, c.StandInInterval = true, config.Duration(time.Second) })
		p.ln.Close()
		l.conn.Close()
		r.want(`{"id":null,"method":"mining.set_difficulty","params":[4611686018427387904]}`)
		size := len(r.hear())
		for range 2 {
			if line := r.hear(); !strings.Contains(line, "mining.notify") || len(line) != size {
				t.Errorf("%s: %d bytes, the first had %d", line, len(line), size)
			}
		}
		r.say(`{"id":5,"method":"mining.submit","params":["a.b","1","00000001","65000000","b2957c02"]}`)
		for line := r.hear(); ; line = r.hear() {
			if strings.Contains(line, `"id":5`) {
				if line != `{"id":5,"result":null,"error":[21,"Job not found (=stale)",null]}` {
					t.Errorf("a share that nobody takes: %s", line)
				}
				break
			}
		}
		if err := s.Ready(); err == nil {
			t.Error("ready without a pool")
		}
	})
	t.Run("sent away", func(t *testing.T) {
		t.Parallel()
		p, l, _, r := farm(t, func(c *Config) { c.Patience = 0 })
		p.ln.Close()
		l.conn.Close()
		if line, err := r.r.ReadString('\n'); err == nil {
			t.Errorf("heard %s", line)
		}
	})
}

// A pool that cannot serve a farm says so in a sentence, and the proxy goes on listening.
func TestPoolsThatCannotServe(t *testing.T) {
	t.Parallel()
	for want, answer := range map[string]string{
		"too few to divide": `{"id":"sub","result":[[],"aabbccdd",4],"error":null}`,
		"refuses account \"farm\": 24 Unauthorized worker": `{"id":"sub","result":[[],"aabbccdd",8],"error":null}` + "\n" +
			`{"id":"auth","result":null,"error":[24,"Unauthorized worker",null]}`,
		"not JSON": "HTTP/1.1 400 Bad Request",
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			p := newFakePool(t)
			s := proxyOf(t, func(c *Config) { c.Pools[0].Protocol = ProtocolStratum }, p)
			l := p.accept()
			for range 3 {
				l.hear()
			}
			l.say(answer + "\n")
			testkit.Eventually(t, "it is said why", func() bool {
				err := s.Ready()
				return err != nil && strings.Contains(err.Error(), strings.ReplaceAll(want, "not JSON", "not a JSON object"))
			})
		})
	}
}

// TestHostileMachines has strangers talk to the port of machines: none of them may end or slow the proxy.
func TestHostileMachines(t *testing.T) {
	t.Parallel()
	_, l, s, good := farm(t, func(c *Config) {
		c.LoginTimeout = config.Duration(5 * time.Second)
		c.WriteTimeout = config.Duration(time.Second)
	})
	for _, text := range []string{
		"null\nnull\nnull\nnull\nnull\n",
		strings.Repeat("x", 1<<20),
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("\x00", 500) + "\n\n\n\n\n\n",
		"\x03\x00\x00\x13\x0e\xe0\x00\x00\x00\x00\x00\x01\x00\x08\x00\x03\x00\x00\x00", // RDP
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n\r\nA\r\nB\r\nC\r\n",
		"\x7f\x01\xff\xff" + strings.Repeat("a", 70_000),
		"",
	} {
		r := dial(t, s)
		_, _ = io.WriteString(r.conn, text)
		if _, err := io.Copy(io.Discard, r.r); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Errorf("%.20q: not disconnected: %v", text, err)
		}
	}
	// One that does not read is disconnected, when it is owed too much.
	slow := dial(t, s)
	if err := slow.conn.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	slow.login("a.slow")
	l.hear()        // register
	const jobs = 50 // at a time
	for i := 0; ; i += jobs {
		l.say(strings.Repeat(notify("1", false), jobs))
		for range jobs {
			if !strings.Contains(good.hear(), "mining.notify") {
				t.Fatal("the good machine hears something else")
			}
		}
		var left int
		s.onLoop(t, func() { left = len(s.miners) })
		if left == 1 {
			break
		}
		if i >= 100_000 {
			t.Fatal("the slow machine is still there")
		}
	}
	good.say(`{"id":4,"method":"mining.ping","params":[]}`)
	for !strings.Contains(good.hear(), "pong") {
	}
}

// A machine that has stopped rolling version bits is asked to connect again, once in a while.
func TestLostASICBoost(t *testing.T) {
	t.Parallel()
	_, l, _, r := farm(t, func(c *Config) { c.PoolVerdicts = false })
	go io.Copy(io.Discard, l.r) // ends with the connection
	submit := func(bits string) (reconnects bool) {
		t.Helper()
		r.say(`{"id":4,"method":"mining.submit","params":["a.b","0","00000001","65000000","b2957c02"` + bits + `]}`)
		line := r.hear()
		if reconnects = strings.Contains(line, "client.reconnect"); reconnects {
			line = r.hear()
		}
		if line != `{"id":4,"result":true,"error":null}` {
			t.Fatal(line)
		}
		return reconnects
	}
	for i := range rolledBefore + 1 {
		if submit(`,"00c0a000"`) {
			t.Fatal("asked after", i)
		}
	}
	if !submit("") {
		t.Error("not asked to connect again")
	}
	if submit("") {
		t.Error("asked at once again")
	}
}

func TestPage(t *testing.T) {
	t.Parallel()
	p, l, s, r := farm(t, nil)
	r.say(`{"id":4,"method":"mining.submit","params":["a.b","0","00000001","65000000","b2957c02"]}`)
	l.hear()
	l.say(string(agentwire.SubmitResponse{Status: share.StatusAccept}.AppendTo(nil)))
	r.hear()
	text, err := files.ReadFile("openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	d := testkit.OpenAPI(t, text)
	get := func(target string, want int) (body []byte) {
		t.Helper()
		req, w := httptest.NewRequest(http.MethodGet, target, nil), httptest.NewRecorder()
		s.handler().ServeHTTP(w, req)
		body = w.Body.Bytes()
		if w.Code != want {
			t.Errorf("%s: status %d: %s", target, w.Code, body)
		}
		if _, api := strings.CutPrefix(target, "/api/v1/"); api && target != "/api/v1/openapi.yaml" {
			d.Check(req, w.Result())
		}
		return body
	}
	for target, want := range map[string]int{
		"/": 200, "/page.js": 200, "/page.css": 200, "/other": 404, "/api/v1/openapi.yaml": 200,
		"/api/v1/summary": 200, "/api/v1/summary?x=1": 400, "/api/v1/workers?sort=-name&q=RIG1&limit=1&offset=0": 200,
		"/api/v1/workers?only=silent": 200, "/api/v1/workers?only=x": 400, "/api/v1/workers?sort=x": 400, "/api/v1/workers?limit=0": 400, "/api/v1/workers?limit=1001": 400, "/api/v1/workers?offset=131071": 400,
	} {
		get(target, want)
	}
	var found workers
	testkit.Eventually(t, "the share is shown", func() bool {
		if err := json.Unmarshal(get("/api/v1/workers?q=CGMINER", 200), &found); err != nil {
			t.Fatal(err)
		}
		return found.Total == 1 && found.Workers[0].Accepted == 1
	})
	if w := found.Workers[0]; w.Name != "rig1" || w.Account != "farm" || !w.Online || w.Difficulty != 16384 || w.Hashrate != nil || *w.Pool != p.addr() {
		t.Errorf("got %+v", w)
	}
	var sum summary
	if err := json.Unmarshal(get("/api/v1/summary", 200), &sum); err != nil || len(sum.Links) != 1 || sum.Links[0].VersionMask != "1fffe000" {
		t.Errorf("got %+v, %v", sum.Links, err)
	}
	r.conn.Close()
	testkit.Eventually(t, "one that has left is still shown", func() bool {
		if err := json.Unmarshal(get("/api/v1/workers?q=rig1", 200), &found); err != nil {
			t.Fatal(err)
		}
		return found.Total == 1 && !found.Workers[0].Online
	})
}

package switcher

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"btcpool/internal/chainwatch"
	"btcpool/internal/config"
	"btcpool/internal/service"
	"btcpool/internal/testkit"
	"btcpool/internal/userchain"
)

// pool is a Stratum V1 server that does what a test wants.
type pool struct {
	t    *testing.T
	ln   net.Listener
	name string

	mu    sync.Mutex
	conns []*poolConn
	lines []string // requests of all connections
	// What follows is set before the first connection.
	extraNonce1 string // "": the connection's number
	size        int
	cooperates  bool
	mask        string              // "": it knows of no version rolling
	refuses     func(string) bool   // names
	early       bool                // job and difficulty come before any answer
	silent      map[string]bool     // methods that get no answer
	onJob       func(c *poolConn)   // in place of the job after a login
	difficulty  string              // as JSON
	verdict     func(string) string // result of a share, by its job
}

type poolConn struct {
	net.Conn
	pool        *pool
	number      int
	extraNonce1 string
	first       string // line, if it was no JSON
	jobs        int
}

func startPool(t *testing.T, name string, set ...func(*pool)) *pool {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &pool{t: t, ln: ln, name: name, size: 8, difficulty: "1024", mask: "1fffe000"}
	for _, f := range set {
		f(p)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := p.ln.Accept()
			if err != nil {
				return
			}
			p.mu.Lock()
			c := &poolConn{Conn: conn, pool: p, number: len(p.conns)}
			p.conns = append(p.conns, c)
			p.mu.Unlock()
			serving.Go(c.serve)
		}
	})
	t.Cleanup(func() {
		p.stop()
		serving.Wait()
	})
	return p
}

func (p *pool) addr() string { return p.ln.Addr().String() }

// stop ends the server with all connections.
func (p *pool) stop() {
	_ = p.ln.Close()
	p.cut()
}

// cut ends all connections.
func (p *pool) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close()
	}
}

// count returns how many requests there were that say that.
func (p *pool) count(says string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, line := range p.lines {
		if strings.Contains(line, says) {
			n++
		}
	}
	return n
}

func (p *pool) last(says string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := len(p.lines) - 1; i >= 0; i-- {
		if strings.Contains(p.lines[i], says) {
			return p.lines[i]
		}
	}
	return ""
}

func (c *poolConn) say(format string, args ...any) {
	fmt.Fprintf(c.Conn, format+"\n", args...)
}

func (c *poolConn) notify(clean bool) {
	c.jobs++
	c.say(`{"id":null,"method":"mining.set_difficulty","params":[%s]}`, c.pool.difficulty)
	c.say("%s", notifyLine(fmt.Sprintf("%s%d", c.pool.name, c.jobs), clean))
}

func notifyLine(id string, clean bool) string {
	return fmt.Sprintf(`{"id":null,"method":"mining.notify","params":["%s","%s","01000000aa","bbcc",["%s"],"20000000","1d00ffff","650a0b0c",%v]}`,
		id, strings.Repeat("0f", 32), strings.Repeat("1e", 32), clean)
}

func (c *poolConn) serve() {
	defer c.Close()
	lines := bufio.NewScanner(c)
	lines.Buffer(nil, 1<<20)
	p := c.pool
	for lines.Scan() {
		var req struct {
			ID     json.RawMessage   `json:"id"`
			Method string            `json:"method"`
			Params []json.RawMessage `json:"params"`
		}
		p.mu.Lock()
		p.lines = append(p.lines, lines.Text())
		p.mu.Unlock()
		if err := json.Unmarshal(lines.Bytes(), &req); err != nil {
			c.first = lines.Text()
			continue
		}
		if p.silent[req.Method] {
			continue
		}
		text := func(i int) (s string) {
			if i < len(req.Params) {
				_ = json.Unmarshal(req.Params[i], &s)
			}
			return s
		}
		switch req.Method {
		case "mining.configure":
			if p.mask == "" {
				c.say(`{"id":%s,"result":null,"error":[20,"unknown method",null]}`, req.ID)
			} else {
				c.say(`{"id":%s,"result":{"version-rolling":true,"version-rolling.mask":"%s"},"error":null}`, req.ID, p.mask)
			}
		case "mining.subscribe":
			c.extraNonce1 = p.extraNonce1
			if c.extraNonce1 == "" {
				c.extraNonce1 = fmt.Sprintf("f0%06x", c.number)
			}
			if p.cooperates && len(text(1)) == 8 {
				c.extraNonce1 = text(1)
			}
			c.say(`{"id":%s,"result":[[["mining.set_difficulty","1"],["mining.notify","1"]],"%s",%d],"error":null}`, req.ID, c.extraNonce1, p.size)
			if p.early {
				c.notify(false)
			}
		case "mining.authorize":
			if p.refuses != nil && p.refuses(text(0)) {
				c.say(`{"id":%s,"result":false,"error":[24,"Unauthorized worker here",null]}`, req.ID)
				continue
			}
			c.say(`{"id":%s,"result":true,"error":null}`, req.ID)
			switch {
			case p.onJob != nil:
				p.onJob(c)
			case !p.early && c.jobs == 0:
				c.notify(false)
			}
		case "mining.submit":
			verdict := "true"
			if p.verdict != nil {
				verdict = p.verdict(text(1))
			}
			c.say(`{"id":%s,"result":%s,"error":null}`, req.ID, verdict)
		case "agent.get_capabilities":
			c.say(`{"id":%s,"result":{"capabilities":["verrol","subres"]}}`, req.ID)
		case "test.silence":
		default:
			c.say(`{"id":%s,"result":true,"error":null,"x":"%s"}`, req.ID, p.name)
		}
	}
}

// rig is a switcher whose ZooKeeper is away, so that it knows from a file what users mine, and hears of changes from the
// test.
type rig struct {
	*Service
	t   *testing.T
	reg *prometheus.Registry
}

// startRig starts a switcher of chains, where users mine what is said.
func startRig(t *testing.T, chains []Chain, users map[string]string, set ...func(*Config)) *rig {
	t.Helper()
	cfg := testConfig(t, chains)
	for _, f := range set {
		f(&cfg)
	}
	writeSnapshot(t, cfg, users)
	reg := prometheus.NewRegistry()
	s, err := New(cfg, service.Deps{Log: zerolog.New(os.Stderr).Level(zerolog.ErrorLevel), Metrics: reg})
	if err != nil {
		t.Fatal(err)
	}
	testkit.Run(t, s.Run)
	return &rig{s, t, reg}
}

func testConfig(t *testing.T, chains []Chain) Config {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Listeners = []Listener{{Listen: "127.0.0.1:0"}}
	cfg.Status = "127.0.0.1:0"
	cfg.DataDir = t.TempDir()
	cfg.Chains = chains
	cfg.ZooKeeper.Servers = []string{testkit.FreeAddr(t)} // nobody is there
	cfg.Users.Timeout = config.Duration(200 * time.Millisecond)
	return cfg
}

func writeSnapshot(t *testing.T, cfg Config, users map[string]string) {
	t.Helper()
	type member struct {
		Node *userchain.Value `json:"node"`
		Read int64            `json:"read"`
	}
	all := make(map[string]member)
	for name, says := range users {
		m := member{Read: time.Now().Unix()}
		if says != "" {
			m.Node = &userchain.Value{Chain: says}
		}
		all[name] = m
	}
	text, err := json.Marshal(map[string]any{"saved": time.Now(), "users": all})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(cfg.DataDir, "userchain.json"), text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func chainOf(name string, pools ...*pool) Chain {
	c := Chain{Name: name}
	for _, p := range pools {
		c.Servers = append(c.Servers, Server{Addr: p.addr()})
	}
	return c
}

// says has a user's node say a chain.
func (r *rig) says(user, chain string) {
	r.knows(user, chain)
	r.changed(user, nodeSays(chain), time.Now())
}

// knows has the switcher know what a user's node says, but not its sessions.
func (r *rig) knows(user, chain string) {
	r.users.Remember([]chainwatch.Memory{{User: user, Answer: nodeSays(chain), Read: time.Now()}})
}

func nodeSays(chain string) chainwatch.Answer {
	return chainwatch.Answer{Value: userchain.Value{Chain: chain}, Known: true}
}

// message is a line that a miner got.
type message struct {
	ID     json.RawMessage   `json:"id"`
	Method string            `json:"method"`
	Params []json.RawMessage `json:"params"`
	Result json.RawMessage   `json:"result"`
	Error  json.RawMessage   `json:"error"`
	line   string
}

func (m message) param(i int) string {
	if i >= len(m.Params) {
		return ""
	}
	return strings.Trim(string(m.Params[i]), `"`)
}

// machine is a miner that a test speaks for. Each line that it gets must be JSON.
type machine struct {
	net.Conn
	t     *testing.T
	lines *bufio.Reader
	next  int
}

func (r *rig) machine() *machine {
	r.t.Helper()
	return dialMachine(r.t, r.Addrs()[0].String())
}

func dialMachine(t *testing.T, addr string) *machine {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &machine{Conn: conn, t: t, lines: bufio.NewReader(conn)}
}

// ask sends a request and returns its id.
func (m *machine) ask(method, params string) string {
	m.t.Helper()
	m.next++
	id := fmt.Sprint(m.next)
	m.write(fmt.Sprintf(`{"id":%s,"method":"%s","params":%s}`, id, method, params))
	return id
}

func (m *machine) write(line string) {
	m.t.Helper()
	if _, err := fmt.Fprintf(m.Conn, "%s\n", line); err != nil {
		m.t.Fatal(err)
	}
}

// read returns the next line; the error is the connection's.
func (m *machine) read() (message, error) {
	_ = m.SetReadDeadline(time.Now().Add(testkit.Patience))
	line, err := m.lines.ReadString('\n')
	if err != nil {
		if line != "" {
			m.t.Errorf("part of a line: %q", line)
		}
		return message{}, err
	}
	var got message
	if err := json.Unmarshal([]byte(line), &got); err != nil {
		m.t.Errorf("%q: %v", line, err)
	}
	got.line = strings.TrimSpace(line)
	return got, nil
}

// hear returns the next line that is of a method, or answers the request with an id.
func (m *machine) hear(what string) message {
	m.t.Helper()
	for {
		got, err := m.read()
		if err != nil {
			m.t.Fatalf("waiting for %s: %v", what, err)
		}
		if got.Method == what || got.Method == "" && string(got.ID) == what {
			return got
		}
	}
}

// login subscribes and logs in; more is said in between.
func (m *machine) login(name string, more ...string) (subscribed, job message) {
	m.t.Helper()
	subscribed = m.hear(m.ask("mining.subscribe", `["test/1"]`))
	for _, method := range more {
		params := "[]"
		if method == "mining.configure" {
			params = `[["version-rolling"],{"version-rolling.mask":"1fffe000"}]`
		}
		m.hear(m.ask(method, params))
	}
	answer := m.hear(m.ask("mining.authorize", fmt.Sprintf(`["%s","x"]`, name)))
	if string(answer.Result) != "true" {
		m.t.Fatalf("login: %s", answer.line)
	}
	return subscribed, m.hear("mining.notify")
}

// submit sends a share for a job and returns the answer.
func (m *machine) submit(job string) message {
	m.t.Helper()
	return m.hear(m.ask("mining.submit", fmt.Sprintf(`["alice.rig","%s","01020304","650a0b0c","0000000a"]`, job)))
}

// ended waits for the end of the connection.
func (m *machine) ended() {
	m.t.Helper()
	for {
		if _, err := m.read(); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				m.t.Fatal("the connection has not ended")
			}
			return
		}
	}
}

func background(t *testing.T) context.Context {
	t.Helper()
	return t.Context()
}

// reset reads from the connection as it is now.
func (m *machine) reset() { m.lines = bufio.NewReaderSize(m.Conn, 1<<16) }

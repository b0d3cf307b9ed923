//go:build integration

package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"btcpool/internal/bus"
	"btcpool/internal/job"
	"btcpool/internal/share"
	"btcpool/internal/testkit"
	"btcpool/test/integration/rig"
)

// farmPool is a sserver for the account "alice", with jobs made here.
type farmPool struct {
	*rig.Process
	t           *testing.T
	dir         string
	addr, tls   string
	admin       string
	bus         *bus.Client
	topics      bus.Topics
	ids         *job.IDs
	height      int32
	proxyNumber int
}

func startFarmPool(t *testing.T, kafka bus.Config) *farmPool {
	t.Helper()
	dir := t.TempDir()
	p := &farmPool{
		t: t, dir: dir, addr: testkit.FreeAddr(t), tls: testkit.FreeAddr(t), admin: testkit.FreeAddr(t),
		bus: testkit.Bus(t, kafka, kafka.Topics.Job, kafka.Topics.Share), topics: kafka.Topics, ids: job.NewIDs(1), height: 100,
	}
	cert, key := filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	testkit.Certificate(t, cert, key)
	p.Process = rig.StartService(t, dir, "sserver", "sserver", fmt.Sprintf("listen = %q\nadmin = %q\ndata_dir = %q\n"+
		"default_difficulty = 0.000001\nmin_difficulty = 0.000001\nmax_difficulty = 0.000001\n[[listeners]]\nlisten = %q\ntls_cert_file = %q\ntls_key_file = %q\n"+
		"[limits]\nexempt = []\n[users]\nsource = \"static\"\n[users.static]\nalice = 7\n[kafka]\nbrokers = [%q]\n",
		p.addr, p.admin, filepath.Join(dir, "data"), p.tls, cert, key, kafka.Brokers[0]))
	p.ready()
	return p
}

// ready gives the pool jobs until it has one.
func (p *farmPool) ready() {
	p.t.Helper()
	testkit.Until(p.t, testkit.Patience, "sserver has a job", func(ctx context.Context) error {
		p.newBlock()
		return readyz(ctx, p.admin)
	})
}

func (p *farmPool) newBlock() {
	p.t.Helper()
	p.height++
	j := testkit.Job(p.ids, byte(p.height), p.height)
	if err := p.bus.Write(p.t.Context(), p.topics.Job, bus.Message{Value: j.AppendTo(nil)}); err != nil {
		p.t.Fatal(err)
	}
}

func readyz(ctx context.Context, admin string) error {
	_, err := get(ctx, admin, "/readyz")
	return err
}

func get(ctx context.Context, admin, path string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+path, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(string(text))
	}
	return string(text), err
}

// farmProxy is an agentproxy.
type farmProxy struct {
	*rig.Process
	t           *testing.T
	addr, admin string
}

// startProxy starts one for a pool; text is added to what is said of the pool.
func (p *farmPool) startProxy(pool, text string, within ...string) *farmProxy {
	p.t.Helper()
	p.proxyNumber++
	x := &farmProxy{t: p.t, addr: testkit.FreeAddr(p.t), admin: testkit.FreeAddr(p.t)}
	x.Process = rig.StartService(p.t, p.dir, fmt.Sprint("agentproxy", p.proxyNumber), "agentproxy", fmt.Sprintf(
		"admin = %q\npage = \"\"\nlogin_timeout = \"1m\"\n[[listeners]]\nlisten = %q\n[[pools]]\naddr = %q\naccount = \"alice\"\n%s",
		x.admin, x.addr, pool, text), within...)
	x.ready()
	return x
}

func (x *farmProxy) ready() {
	x.t.Helper()
	testkit.Until(x.t, testkit.Patience, x.Name+" has a link", func(ctx context.Context) error { return readyz(ctx, x.admin) })
}

// mine starts miners there.
func (x *farmProxy) mine(dir, name string, conns int) *rig.Miner {
	x.t.Helper()
	at := &rig.Pool{Stratum: x.addr}
	return at.StartMiner(x.t, dir, name, "-user", "any."+name+"%d", "-conns", fmt.Sprint(conns), "-rate", "4", "-threads", "1", "-reconnect")
}

// more waits until miners have had n more shares acknowledged.
func more(t *testing.T, what string, n int, miners ...*rig.Miner) {
	t.Helper()
	for _, m := range miners {
		want := len(m.Acks()) + n
		testkit.Until(t, testkit.Patience, m.Name+" mines, "+what, func(context.Context) error {
			if got := len(m.Acks()); got < want {
				return fmt.Errorf("%d of %d shares", got, want)
			}
			return nil
		})
	}
}

// TestFarmKilled kills a proxy, the proxy behind it and their pool in turn, in the middle of mining: each share that a
// miner was told is accepted is in the topic once, and there are no more than were left without an answer.
func TestFarmKilled(t *testing.T) {
	t.Parallel()
	kafka := bus.DefaultConfig()
	kafka.Brokers = []string{rig.StartKafka(t, t.TempDir()).Addr}
	p := startFarmPool(t, kafka)
	outer := p.startProxy(p.tls, "tls = true\ntls_skip_verify = true\n")
	inner := p.startProxy(outer.addr, "")
	near, far := outer.mine(p.dir, "near", 5), inner.mine(p.dir, "far", 5)
	const rounds = 2
	for round := range rounds {
		for _, victim := range []*rig.Process{outer.Process, inner.Process, p.Process} {
			what := fmt.Sprintf("before %s is killed, round %d", victim.Name, round+1)
			more(t, what, 10, near, far)
			victim.Kill()
			victim.Start()
			if victim == p.Process {
				p.ready()
			}
		}
	}
	more(t, "at the end", 10, near, far)

	// Lost is what the pool has counted and nobody was told of.
	told, unsure := map[farmShare]int{}, int64(0)
	for _, m := range []*rig.Miner{near, far} {
		if code, err := m.Stop(); err != nil || code != 0 {
			t.Errorf("%s ended with code %d, %v", m.Name, code, err)
		}
		report := m.Report()
		unsure += report.Unanswered + report.Rejected // "Unknown" among them
		for _, a := range m.Acks() {
			_, name, _ := strings.Cut(a.User, ".")
			told[farmShare{share.WorkerID(share.WorkerName(name)), a.Nonce, a.VersionBits}]++
		}
	}
	if code, err := p.Stop(); err != nil || code != 0 { // what is in its spool is in Kafka then
		t.Errorf("sserver ended with code %d, %v", code, err)
	}
	counted := p.counted()
	for k, n := range told {
		if counted[k] != n {
			t.Errorf("share %+v was acknowledged %d times, and counted %d times", k, n, counted[k])
		}
		delete(counted, k)
	}
	for k, n := range counted {
		if n > 1 {
			t.Errorf("share %+v was counted %d times", k, n)
		}
	}
	if int64(len(counted)) > unsure {
		t.Errorf("%d shares were counted that nobody was told of, %d were left open", len(counted), unsure)
	}
	t.Logf("%d shares acknowledged and counted, %d more counted of %d left open", len(told), len(counted), unsure)
}

// farmShare tells shares apart on both sides of the socket.
type farmShare struct {
	worker             int64
	nonce, versionBits uint32
}

// counted returns how often the topic has each accepted share. What was sent again after a kill has the id it had.
func (p *farmPool) counted() map[farmShare]int {
	p.t.Helper()
	ids, counted := map[share.ID]bool{}, map[farmShare]int{}
	ctx, cancel := context.WithTimeout(p.t.Context(), testkit.Patience)
	defer cancel()
	whole := false
	err := p.bus.Read(ctx, p.topics.Share, bus.Earliest(), func(msg bus.Message) error {
		var s share.Share
		if err := s.Parse(msg.Value); err != nil {
			return err
		}
		if s.Status.IsAccepted() && !ids[s.ID] {
			ids[s.ID] = true
			counted[farmShare{s.WorkerID, s.Nonce, s.VersionBits}]++
		}
		return nil
	}, bus.CaughtUp(func() { whole = true; cancel() }))
	if err != nil || !whole {
		p.t.Fatalf("share topic: whole %v, %v", whole, err)
	}
	return counted
}

var severalFailures = regexp.MustCompile(`dials_total\{result="failed",.*\} ([4-9]|\d\d)`)

// TestFarmWithoutDescriptors has strangers take all connections that a proxy serves: it can still reach its pool again.
func TestFarmWithoutDescriptors(t *testing.T) {
	t.Parallel()
	p := startFarmPool(t, testkit.Broker(t))
	x := p.startProxy(p.addr, "", "prlimit", "--nofile=150:150")
	m := x.mine(p.dir, "rig", 3)
	more(t, "alone", 3, m)
	for range 300 {
		conn, err := net.Dial("tcp", x.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
	}
	more(t, "among strangers", 3, m)
	p.Kill()
	testkit.Until(t, testkit.Patience, "the proxy has tried to get a link some times", func(ctx context.Context) error {
		page, err := get(ctx, x.admin, "/metrics")
		if err == nil && !severalFailures.MatchString(page) {
			err = errors.New("not yet")
		}
		return err
	})
	p.Start()
	p.ready()
	x.ready()
	more(t, "after the pool was killed", 3, m)
	if code, err := m.Stop(); err != nil || code != 0 {
		t.Errorf("minersim ended with code %d, %v", code, err)
	}
	if n := m.Report().Reconnects; n > 0 {
		t.Errorf("%d miners have lost their connection", n)
	}
}

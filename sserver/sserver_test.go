package sserver_test

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"btcpool/internal/config"
	"btcpool/internal/job"
	"btcpool/internal/service"
	"btcpool/internal/testkit"
	"btcpool/internal/users"
	"btcpool/sserver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = testkit.Patience

// testConfig is that of a pool that a test's own hashing can serve, with a broker of its own.
func testConfig(tb testing.TB) sserver.Config {
	tb.Helper()
	cfg := sserver.DefaultConfig()
	cfg.Kafka = testkit.Broker(tb)
	cfg.Listen = "127.0.0.1:0"
	cfg.DataDir = tb.TempDir()
	cfg.Limits.Exempt = nil                 // or nothing would be limited, and nobody banned
	cfg.DefaultDifficulty = 1.0 / (1 << 20) // 4096 hashes
	cfg.MinDifficulty = 1.0 / (1 << 30)
	cfg.MiningNotifyInterval = config.Duration(time.Hour) // jobs come when the test sends them
	cfg.LoginTimeout = config.Duration(patience)
	cfg.Users.Kind = users.Static
	cfg.Users.Static = map[string]int32{"alice": 7}
	topics := cfg.Kafka.Topics
	testkit.Bus(tb, cfg.Kafka, topics.Job, topics.Share, topics.SolvedShare, topics.CommonEvents)
	return cfg
}

type pool struct {
	*sserver.Service
	tb      testing.TB
	metrics *prometheus.Registry
	stop    func() // and wait
	ended   chan struct{}
	jobs    *job.IDs
}

func startPool(tb testing.TB, cfg sserver.Config) *pool {
	tb.Helper()
	p := &pool{tb: tb, metrics: prometheus.NewRegistry(), jobs: job.NewIDs(1)}
	var err error
	p.Service, err = sserver.New(cfg, service.Deps{Log: zerolog.New(zerolog.NewTestWriter(tb)).Level(zerolog.ErrorLevel), Metrics: p.metrics})
	if err != nil {
		tb.Fatal(err)
	}
	p.run()
	return p
}

func (p *pool) run() {
	p.tb.Helper()
	p.ended = make(chan struct{})
	p.stop = testkit.Run(p.tb, func(ctx context.Context) error {
		defer close(p.ended)
		return p.Run(ctx)
	})
}

// metric returns the sum of the values of a metric that have the labels, given as name and value.
func (p *pool) metric(name string, labels ...string) float64 {
	p.tb.Helper()
	return testkit.Metric(p.tb, p.metrics, "btcpool_sserver_"+name, labels...)
}

func (p *pool) newJob(prev byte, height int32) *job.StratumJob {
	return testkit.Job(p.jobs, prev, height)
}

// client is a miner. It reads texts by itself and shares no code with the pool.
type client struct {
	tb          testing.TB
	conn        net.Conn
	r           *bufio.Reader
	nextID      int
	extraNonce1 string
	nonceBytes  int // size of the extranonce2
	difficulty  float64
	notes       []message // notifications not yet looked at
}

type message struct {
	ID     any
	Method string
	Params []json.RawMessage
	Result json.RawMessage
	Error  []any
}

func (p *pool) dial() *client {
	p.tb.Helper()
	conn, err := net.Dial("tcp", p.Addr().String())
	if err != nil {
		p.tb.Fatal(err)
	}
	p.tb.Cleanup(func() { conn.Close() })
	return &client{tb: p.tb, conn: conn, r: bufio.NewReaderSize(conn, 1<<20), nonceBytes: 8}
}

// miner returns a client that has logged in, and its first job.
func (p *pool) miner() (*client, work) {
	p.tb.Helper()
	c := p.dial()
	c.login()
	return c, c.work()
}

func (c *client) login() { c.loginAs("alice") }

func (c *client) loginAs(user string) {
	c.tb.Helper()
	c.loginWith("test/1", user, "x")
}

// loginWith is for a software and a password.
func (c *client) loginWith(software, user, password string) {
	c.tb.Helper()
	var result []json.RawMessage
	c.mustCall(&result, "mining.subscribe", software)
	if err := json.Unmarshal(result[1], &c.extraNonce1); err != nil {
		c.tb.Fatal(err)
	}
	if err := json.Unmarshal(result[2], &c.nonceBytes); err != nil {
		c.tb.Fatal(err)
	}
	c.mustCall(nil, "mining.authorize", user+".rig", password)
}

func (c *client) send(text string) {
	c.tb.Helper()
	if _, err := c.conn.Write([]byte(text)); err != nil {
		c.tb.Fatal(err)
	}
}

func (c *client) readLine() (string, error) {
	if err := c.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	return c.r.ReadString('\n')
}

func (c *client) read() message {
	c.tb.Helper()
	line, err := c.readLine()
	if err != nil {
		c.tb.Fatalf("read: %v", err)
	}
	var m message
	if err := json.Unmarshal([]byte(line), &m); err != nil {
		c.tb.Fatalf("%s: %v", line, err)
	}
	return m
}

func (c *client) request(method string, params ...any) (id int) {
	c.tb.Helper()
	if params == nil {
		params = []any{}
	}
	c.nextID++
	line, err := json.Marshal(map[string]any{"id": c.nextID, "method": method, "params": params})
	if err != nil {
		c.tb.Fatal(err)
	}
	c.send(string(line) + "\n")
	return c.nextID
}

// call returns the answer; notifications that come before it are kept.
func (c *client) call(method string, params ...any) message {
	c.tb.Helper()
	id := c.request(method, params...)
	for {
		m := c.read()
		if m.Method != "" {
			c.notes = append(c.notes, m)
			continue
		}
		if m.ID != float64(id) {
			c.tb.Fatalf("answer to %v, want %d", m.ID, id)
		}
		return m
	}
}

func (c *client) mustCall(result any, method string, params ...any) {
	c.tb.Helper()
	m := c.call(method, params...)
	if m.Error != nil {
		c.tb.Fatalf("%s: %v", method, m.Error)
	}
	if result != nil {
		if err := json.Unmarshal(m.Result, result); err != nil {
			c.tb.Fatal(err)
		}
	}
}

// note returns the next notification.
func (c *client) note() message {
	c.tb.Helper()
	if len(c.notes) > 0 {
		m := c.notes[0]
		c.notes = c.notes[1:]
		return m
	}
	return c.read()
}

// work is a job as the miner sees it.
type work struct {
	id, prev, coinbase1, coinbase2 string
	branch                         []string
	version, bits, time            string
	clean                          bool
	difficulty                     float64
}

// work returns the next job.
func (c *client) work() work {
	c.tb.Helper()
	for {
		m := c.note()
		switch m.Method {
		case "mining.set_difficulty":
			if err := json.Unmarshal(m.Params[0], &c.difficulty); err != nil {
				c.tb.Fatal(err)
			}
		case "mining.notify":
			if c.difficulty == 0 {
				c.tb.Fatal("job before the first difficulty")
			}
			w := work{difficulty: c.difficulty}
			for i, v := range []any{&w.id, &w.prev, &w.coinbase1, &w.coinbase2, &w.branch, &w.version, &w.bits, &w.time, &w.clean} {
				if err := json.Unmarshal(m.Params[i], v); err != nil {
					c.tb.Fatal(err)
				}
			}
			return w
		}
	}
}

// find is a share of w: what mining.submit wants behind the worker's name.
type find struct {
	job, extraNonce2, time, nonce, bits string
}

func (f find) params() []any {
	params := []any{"alice.rig", f.job, f.extraNonce2, f.time, f.nonce}
	if f.bits != "" {
		params = append(params, f.bits)
	}
	return params
}

func unhex(tb testing.TB, text string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func unhex32(tb testing.TB, text string) uint32 { return binary.BigEndian.Uint32(unhex(tb, text)) }

// header builds the block header of a share as Stratum's documents tell a miner to.
func (c *client) header(w work, extraNonce2 uint64, version, time uint32) wire.BlockHeader {
	coinbase := unhex(c.tb, w.coinbase1+c.extraNonce1+c.nonceText(extraNonce2)+w.coinbase2)
	root := chainhash.DoubleHashH(coinbase)
	for _, b := range w.branch {
		root = chainhash.DoubleHashH(append(root[:], unhex(c.tb, b)...))
	}
	prev := unhex(c.tb, w.prev)
	for i := 0; i < len(prev); i += 4 {
		prev[i], prev[i+1], prev[i+2], prev[i+3] = prev[i+3], prev[i+2], prev[i+1], prev[i]
	}
	h := wire.BlockHeader{Version: int32(version), MerkleRoot: root, Bits: unhex32(c.tb, w.bits)}
	copy(h.PrevBlock[:], prev)
	h.Timestamp = unixTime(time)
	return h
}

func unixTime(t uint32) time.Time { return time.Unix(int64(t), 0) }

// difficulty1 is the target of difficulty 1.
var difficulty1 = new(big.Int).Lsh(big.NewInt(0xffff), 208)

// mine looks for a header whose difficulty is at least low and below high.
func (c *client) mine(w work, h wire.BlockHeader, low, high float64) (nonce uint32) {
	c.tb.Helper()
	for ; nonce < 1<<26; nonce++ {
		h.Nonce = nonce
		hash := h.BlockHash() // whose first 64 bits tell in most cases
		if near := 0xffff * 0x10000 / float64(binary.LittleEndian.Uint64(hash[24:])); near < low/2 {
			continue
		}
		if d := difficultyOf(h); low <= d && d < high {
			return nonce
		}
	}
	c.tb.Fatal("no share found")
	return 0
}

func difficultyOf(h wire.BlockHeader) float64 {
	hash := h.BlockHash()
	for i := range 16 {
		hash[i], hash[31-i] = hash[31-i], hash[i]
	}
	d, _ := new(big.Float).Quo(new(big.Float).SetInt(difficulty1), new(big.Float).SetInt(new(big.Int).SetBytes(hash[:]))).Float64()
	return d
}

func (c *client) nonceText(extraNonce2 uint64) string {
	return fmt.Sprintf("%0*x", 2*c.nonceBytes, extraNonce2)
}

// share mines a share of w.
func (c *client) share(w work, extraNonce2 uint64) find {
	c.tb.Helper()
	h := c.header(w, extraNonce2, unhex32(c.tb, w.version), unhex32(c.tb, w.time))
	nonce := c.mine(w, h, w.difficulty, 1e30)
	return find{job: w.id, extraNonce2: c.nonceText(extraNonce2), time: w.time, nonce: fmt.Sprintf("%08x", nonce)}
}

// submit returns the error code, 0 when the share was accepted.
func (c *client) submit(f find) int {
	c.tb.Helper()
	m := c.call("mining.submit", f.params()...)
	if m.Error != nil {
		return int(m.Error[0].(float64))
	}
	if string(m.Result) != "true" {
		c.tb.Fatalf("result %s", m.Result)
	}
	return 0
}

func (c *client) wantSubmit(f find, code int) {
	c.tb.Helper()
	if got := c.submit(f); got != code {
		c.tb.Errorf("submit %+v: code %d, want %d", f, got, code)
	}
}

// What New has opened is closed again, whether it fails or the service never runs.
func TestClose(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	failing := cfg
	failing.AdminAPI.Listen, failing.AdminAPI.Token = taken.Addr().String(), adminToken
	if _, err := sserver.New(failing, service.Deps{Log: zerolog.Nop()}); err == nil {
		t.Fatal("two listen at one port")
	}
	cfg.Listen = testkit.FreeAddr(t)
	for range 2 { // at one port
		s, err := sserver.New(cfg, service.Deps{Log: zerolog.Nop()})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestConfigFile(t *testing.T) {
	t.Parallel()
	testkit.SampleNames(t, "../configs/sserver.toml", sserver.Config{},
		"kafka.topics.raw_gbt", "kafka.topics.aux_work", "kafka.topics.rsk_work", // not used here
		"listeners.users.register_url", "listeners.users.static", // as in [users]
		"chains.users.register_url", "chains.users.static", "chains.handover.token")
	cfg := sserver.DefaultConfig()
	if err := service.Load("../configs/sserver.toml", &cfg); err != nil {
		t.Fatal(err)
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	want := sserver.DefaultConfig()
	want.Common = cfg.Common
	want.Users.Static = cfg.Users.Static
	want.DataDir, want.Database = cfg.DataDir, cfg.Database // as the other services' files have them
	if got, want := fmt.Sprintf("%+v", cfg), fmt.Sprintf("%+v", want); got != want {
		t.Errorf("the file does not show the defaults:\n%s\n%s", got, want)
	}
}

// TestStartDifficulty lets a processor find shares at once where processors mine.
func TestStartDifficulty(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		network             string
		configured, minimum float64
		want                float64
	}{
		{"mainnet", 0, 0.00001, 16384},
		{"testnet4", 0, 0.00001, 16384},
		{"regtest", 0, 0.00001, 1.0 / 1024},
		{"regtest", 0, 8, 8},
		{"regtest", 64, 8, 64},
		{"not known", 0, 0.00001, 16384},
	} {
		cfg := sserver.DefaultConfig()
		cfg.Users.Network, cfg.DefaultDifficulty, cfg.MinDifficulty = c.network, c.configured, c.minimum
		if got := cfg.StartDifficulty(); got != c.want {
			t.Errorf("%+v: got %v", c, got)
		}
		if err := cfg.Validate(); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestValidateReportsAll(t *testing.T) {
	t.Parallel()
	cfg := sserver.DefaultConfig()
	cfg.Listen = "3333"
	cfg.ServerID = 0
	cfg.DataDir = ""
	cfg.SpoolMaxBytes = -1
	cfg.MaxConnections = 0
	cfg.DefaultDifficulty = 0
	cfg.VersionMask = "1fffe00"
	cfg.ShareInterval = 0
	cfg.MaxJobLifetime = config.Duration(time.Second)
	cfg.Users.Kind = "api"
	cfg.Users.ListURL = "ftp://x"
	cfg.Kafka.Brokers = nil
	cfg.LongAgents = "("
	cfg.NiceHash.MinDifficulty = -1
	cfg.MaxAgentMiners = -1
	cfg.Drain.Grace = config.Duration(time.Hour)
	cfg.Limits.PerAddress, cfg.Limits.InvalidShares, cfg.Limits.BanTime = -1, 1.5, -1
	cfg.Handover.URLs = []string{"blkmaker"}
	cfg.NonceBytes = 3
	cfg.StaleGrace = config.Duration(time.Hour)
	cfg.Listeners = []sserver.Listener{{Listen: "x", TLSCertFile: "cert", DefaultDifficulty: 1, MinDifficulty: 2}}
	err := cfg.Validate()
	if err == nil {
		t.Fatal("valid")
	}
	for _, key := range []string{
		"listen", "server_id", "data_dir", "spool_max_bytes", "max_connections", "default_difficulty",
		"version_mask", "share_interval", "max_job_lifetime", "users.list_id_api_url", "kafka.brokers",
		"long_timeout_agent", "nicehash.min_difficulty", "max_agent_miners", "drain.grace", "limits.connections_per_address",
		"limits.invalid_shares", "limits.ban_time", "handover.urls[0]", "listeners[0].listen", "tls_key_file",
		"listeners[0].default_difficulty", "extranonce2_size", "stale_grace",
	} {
		if !strings.Contains(err.Error(), key+" ") && !strings.Contains(err.Error(), key+":") {
			t.Errorf("%s is not named in:\n%v", key, err)
		}
	}
}

func TestReady(t *testing.T) {
	t.Parallel()
	p := startPool(t, testConfig(t))
	if err := p.Ready(); err == nil || !strings.Contains(err.Error(), "no job") {
		t.Errorf("before a job: %v", err)
	}
	p.TakeJob(p.newJob(1, 100))
	if err := p.Ready(); err != nil {
		t.Errorf("with a job: %v", err)
	}
}

func TestNewUndoesWhatItDid(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	cfg := testConfig(t)
	cfg.Listen = taken.Addr().String()
	for range 2 { // the second finds no locks left
		_, err := sserver.New(cfg, service.Deps{Log: zerolog.Nop()})
		if err == nil || !strings.Contains(err.Error(), `listen = "`+cfg.Listen+`": another process listens there`) {
			t.Fatalf("error %v", err)
		}
	}
	if _, err := os.Stat(cfg.DataDir); err != nil {
		t.Error(err)
	}
}

// TestMostHashrateHearsFirst has miners of several difficulties, which stand for their hashrates, log in in any order.
func TestMostHashrateHearsFirst(t *testing.T) {
	t.Parallel()
	p := startPool(t, testConfig(t))
	p.TakeJob(p.newJob(1, 100))
	const miners = 12
	for i := range miners {
		c := p.dial()
		c.mustCall(nil, "mining.subscribe", "test/1")
		c.mustCall(nil, "mining.authorize", "alice.rig", fmt.Sprintf("d=%d", 1<<(i*5%miners)))
		c.work()
	}
	p.TakeJob(p.newJob(2, 101)) // by whose tour they are put in order
	testkit.Eventually(t, "the largest are first", func() bool {
		n := 0
		for _, order := range p.Hearing() {
			n += len(order)
			if !slices.IsSortedFunc(order, func(a, b float64) int { return cmp.Compare(b, a) }) {
				return false
			}
		}
		return n == miners
	})
}

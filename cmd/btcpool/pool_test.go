package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"btcpool/auxmaker"
	"btcpool/internal/auxpow/auxpowtest"
	"btcpool/internal/bitcoin/noderpc"
	"btcpool/internal/service"
	"btcpool/internal/share"
	"btcpool/internal/sharefile"
	"btcpool/internal/testkit"
)

// TestDemo mines blocks through every service on the embedded parts, stops, and finds everything again after a restart.
func TestDemo(t *testing.T) {
	t.Parallel()
	cfg := defaultConfig()
	cfg.Data, cfg.Stratum, cfg.HTTP = t.TempDir(), "127.0.0.1:0", "127.0.0.1:0"
	cfg.Demo, cfg.Threads = true, 1
	cfg.chainBits, cfg.cpuDifficulty = 0x1f00ffff, 1.0/(1<<16) // 2^16 hashes a block, as many as a share
	const blocks = 3

	mined := 0
	first := start(t, cfg)
	first.until("blocks are accepted and shares logged", func(ctx context.Context) error {
		var answer struct {
			Blocks []struct{ State, Finder string }
		}
		if err := first.get(ctx, "/api/v1/blocks", &answer); err != nil {
			return err
		}
		mined = 0
		for _, b := range answer.Blocks {
			if b.State == "accepted" && b.Finder == demoUser {
				mined++
			}
		}
		if mined < blocks {
			return fmt.Errorf("%d blocks", mined)
		}
		if n, err := loggedShares(cfg.path("sharelog")); err != nil || n < blocks {
			return fmt.Errorf("%d shares in the log, %w", n, err)
		}
		var pool struct {
			WorkersOnline int `json:"workers_online"`
		}
		if err := first.get(ctx, "/api/v1/pool", &pool); err != nil || pool.WorkersOnline != 1 {
			return fmt.Errorf("%d workers, %w", pool.WorkersOnline, err)
		}
		return nil
	})
	banner := first.out.String()
	for _, want := range []string{"stratum+tcp://" + first.stratum.String(), "http://" + first.dashboard.String()} {
		if !strings.Contains(banner, want) {
			t.Errorf("the banner does not name %s:\n%s", want, banner)
		}
	}
	first.stop()
	if strings.Contains(first.log.String(), "ulimit") {
		t.Error("who tries the pool out is told of a limit of open files")
	}
	height := first.chain.Height()
	if int(height) < blocks {
		t.Errorf("the chain has height %d", height)
	}
	if testkit.Metric(t, first.metrics, "btcpool_blkmaker_arrivals_total", "kind", "block", "way", "direct") == 0 {
		t.Error("no block came by the direct way")
	}

	cfg.Demo = false
	second := start(t, cfg)
	// A second block of a height may have been found before the first was told of; the node has both.
	second.until("everything is there after the restart", func(ctx context.Context) error {
		var answer struct {
			Blocks []struct {
				State  string
				Height int32
			}
		}
		if err := second.get(ctx, "/api/v1/blocks?limit=200", &answer); err != nil {
			return err
		}
		heights := map[int32]bool{}
		for _, b := range answer.Blocks {
			if b.State == "accepted" {
				heights[b.Height] = true
			}
		}
		if len(heights) != int(height) || second.chain.Height() != height {
			return fmt.Errorf("blocks accepted at %v, height %d, want %d", heights, second.chain.Height(), height)
		}
		return nil
	})
	second.stop()
}

// TestMinesAlong mines two other chains with the embedded one.
func TestMinesAlong(t *testing.T) {
	t.Parallel()
	// 2^19 hashes a block: of the first shares, dozens a second, few solve it. A node of RSK gets two a second, and those
	// of a block that is taken would be first.
	const bits = 0x1e1fffff
	aux, rsk := auxpowtest.StartNode(1, bits, false), auxpowtest.StartRSK(bits)
	t.Cleanup(aux.Close)
	t.Cleanup(rsk.Close)
	cfg := defaultConfig()
	cfg.Data, cfg.Stratum, cfg.HTTP = t.TempDir(), "127.0.0.1:0", "127.0.0.1:0"
	cfg.Demo, cfg.Threads = true, 1
	cfg.chainBits, cfg.cpuDifficulty = 0x1f00ffff, 1.0/(1<<16)
	cfg.Chains = []auxmaker.Chain{{Name: "other", PayoutAddress: "us", Config: noderpc.Config{URL: aux.URL(), User: "user", Password: "secret"}}}
	cfg.RSK.URL = rsk.URL()
	start(t, cfg).until("blocks of the other chains are accepted", func(context.Context) error {
		if a, r := len(aux.Accepted()), len(rsk.Accepted()); a < 2 || r < 2 {
			return fmt.Errorf("%d and %d", a, r)
		}
		return nil
	})
}

// running is a pool that runs in this test.
type running struct {
	*pool
	t       *testing.T
	metrics *prometheus.Registry
	out     lockedBuffer
	log     lockedBuffer // warnings and errors
	stop    func()
}

func start(t *testing.T, cfg Config) *running {
	t.Helper()
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	r := &running{t: t, metrics: prometheus.NewRegistry()}
	log := zerolog.New(io.MultiWriter(zerolog.NewTestWriter(t), &r.log)).Level(zerolog.WarnLevel)
	p, err := newPool(cfg, service.Deps{Log: log, Metrics: r.metrics}, &r.out)
	if err != nil {
		t.Fatal(err)
	}
	r.pool = p
	r.stop = testkit.Run(t, p.Run)
	return r
}

func (r *running) until(what string, check func(context.Context) error) {
	r.t.Helper()
	testkit.Until(r.t, 3*time.Minute, what, func(ctx context.Context) error {
		err := check(ctx)
		if err != nil {
			err = errors.Join(err, r.Ready())
		}
		return err
	})
}

func (r *running) get(ctx context.Context, path string, answer any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.dashboard.String()+path, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(answer)
}

// loggedShares counts the accepted shares of the share log.
func loggedShares(dir string) (n int, err error) {
	days, err := sharefile.Days(dir, "BTC")
	if err != nil {
		return 0, err
	}
	for _, day := range days {
		r, err := sharefile.Open(sharefile.Path(dir, "BTC", day))
		if err != nil {
			return 0, err
		}
		defer r.Close()
		for {
			record, err := r.Next()
			if err != nil {
				break // the end for now
			}
			var s share.Share
			if err := s.ParseBody(record); err != nil {
				return 0, err
			}
			if s.Status == share.StatusAccept {
				n++
			}
		}
	}
	return n, nil
}

// lockedBuffer is an io.Writer that can be read while it is written to.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func TestSampleConfig(t *testing.T) {
	t.Parallel()
	file := filepath.Join("..", "..", "configs", "btcpool.toml")
	cfg := defaultConfig()
	if err := service.Load(file, &cfg); err != nil {
		t.Fatal(err)
	}
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
	testkit.SampleNames(t, file, Config{})
}

// TestClose has a pool that cannot be built because the dashboard's port is taken, and pools that never
// run: none keeps a folder, a port or a goroutine. It is not parallel to those that run.
func TestClose(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreAnyFunction("github.com/go-zeromq/zmq4.(*pubMWriter).run")) // a PUB socket's, even when closed
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	cfg := defaultConfig()
	cfg.Data, cfg.Stratum = t.TempDir(), testkit.FreeAddr(t)
	build := func(http string) (*pool, error) {
		cfg := cfg
		cfg.HTTP = http
		return newPool(cfg, service.Deps{Log: zerolog.Nop(), Metrics: prometheus.NewRegistry()}, io.Discard)
	}
	if _, err := build(taken.Addr().String()); err == nil || !strings.Contains(err.Error(), `statshttpd: http (-http) = "`+taken.Addr().String()+`": another process listens there`) {
		t.Errorf("dashboard's port taken: %v", err)
	}
	for range 2 {
		p, err := build("127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := build("127.0.0.1:0"); err == nil || !strings.Contains(err.Error(), `data (-data) = "`+cfg.Data+`": another btcpool uses this folder`) {
			t.Errorf("folder in use: %v", err)
		}
		cfg.Stratum = p.stratum.String() // the next one gets it
		for range 2 {
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestMisconfigured starts nothing: each mistake is refused with what to do about it.
func TestMisconfigured(t *testing.T) {
	t.Parallel()
	const node = "[node]\nrpc_url = \"http://127.0.0.1:8332\"\nrpc_user = \"u\"\nrpc_password = \"p\"\n"
	for name, c := range map[string]struct{ file, want string }{
		"unknown key":                 {"payout_to = \"x\"\n", `unknown key "payout_to"`},
		"node without address":        {"network = \"mainnet\"\n" + node, "payout_address (-payout): name the address"},
		"node without network":        {"payout_address = \"x\"\n" + node, "network (-network): name the node's network"},
		"network without node":        {"network = \"mainnet\"\n", "network (-network) = \"mainnet\": needs a node: give its address as node.rpc_url (-node)"},
		"network that is not":         {"network = \"testnet\"\n", "network (-network): unknown network \"testnet\", known are mainnet, "},
		"address without node":        {"payout_address = \"bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq\"\n", "payout_address (-payout) = \"bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq\": needs a node"},
		"password without user":       {"network = \"mainnet\"\npayout_address = \"bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq\"\n[node]\nrpc_url = \"http://127.0.0.1:8332\"\nrpc_password = \"p\"\n", "node.rpc_user (-node-user): "},
		"address of another network":  {"network = \"mainnet\"\npayout_address = \"" + embeddedPayout + "\"\n" + node, "payout_address"},
		"address with a typing error": {"payout_address = \"bcrt1qwv4vhllgu3hsr0k3c2sspleh87dwey3wm0sw4x\"\n", "payout_address"},
		"chain without node":          {"[[chains]]\nname = \"other\"\n", "chains[0].rpc_url"},
		"no address to listen at":     {"stratum = \"3333\"\n", "stratum (-stratum) = \"3333\": must be host:port"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "btcpool.toml")
			if err := os.WriteFile(file, []byte(c.file), 0o600); err != nil {
				t.Fatal(err)
			}
			var stderr bytes.Buffer
			code := service.Main("btcpool", []string{"-config", file, "-check"}, &stderr, defaultConfig(),
				func(Config, service.Deps) (*pool, error) { return nil, errors.New("must not be built") })
			if code != 2 || !strings.Contains(stderr.String(), c.want) {
				t.Errorf("code %d, want 2 and %q in:\n%s", code, c.want, &stderr)
			}
		})
	}
}

// TestStages holds the order in which a pool stops.
func TestStages(t *testing.T) {
	t.Parallel()
	fault := errors.New("fault")
	for name, c := range map[string]struct {
		err  error // of the function that fails
		want string
	}{
		"stopped":  {nil, "producer consumer base"},
		"one ends": {fault, "producer consumer base"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			var ended []string
			until := func(name string) func(context.Context) error {
				return func(ctx context.Context) error {
					<-ctx.Done()
					mu.Lock()
					defer mu.Unlock()
					ended = append(ended, name)
					return nil
				}
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			failing := func(ctx context.Context) error {
				if c.err == nil {
					cancel()
					<-ctx.Done()
				}
				return c.err
			}
			type run = func(context.Context) error
			err := runStages(ctx, []run{until("producer")}, []run{until("consumer"), failing}, []run{until("base")})
			if !errors.Is(err, c.err) {
				t.Errorf("error %v, want %v", err, c.err)
			}
			if got := strings.Join(ended, " "); got != c.want {
				t.Errorf("ended %q, want %q", got, c.want)
			}
		})
	}
}

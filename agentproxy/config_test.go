package agentproxy

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"btcpool/internal/config"
	"btcpool/internal/service"
	"btcpool/internal/testkit"
)

func TestSample(t *testing.T) {
	t.Parallel()
	path := filepath.Join("..", "configs", "agentproxy.toml")
	testkit.SampleNames(t, path, Config{})
	cfg := DefaultConfig()
	cfg.Listeners = nil
	if err := service.Load(path, &cfg); err != nil {
		t.Fatal(err)
	}
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
	want := DefaultConfig()
	want.Common = cfg.Common
	want.Pools = []Pool{{Addr: "pool.example.org:3333", Account: "farm", Protocol: ProtocolAuto}}
	want.Proxy.URLs = []string{}
	cfg.Allow = nil
	if diff := cmp.Diff(want, cfg); diff != "" {
		t.Errorf("the sample's values are not the defaults (-default +sample):\n%s", diff)
	}
}

func TestConfigFaults(t *testing.T) {
	t.Parallel()
	good := func() Config {
		cfg := DefaultConfig()
		cfg.Pools = []Pool{{Addr: "pool.example.org:3333", Account: "farm"}}
		return cfg
	}
	if err := good().Validate(); err != nil {
		t.Fatal(err)
	}
	for want, spoil := range map[string]func(*Config){
		"listeners: there must be one at least":                      func(c *Config) { c.Listeners = nil },
		`listeners[0].listen = "x": must be host:port`:               func(c *Config) { c.Listeners[0].Listen = "x" },
		"listeners[0].tls_cert_file, tls_key_file":                   func(c *Config) { c.Listeners[0].TLSCertFile = "x" },
		"pools: there must be one at least":                          func(c *Config) { c.Pools = nil },
		`pools[0].addr = "pool": must be host:port`:                  func(c *Config) { c.Pools[0].Addr = "pool" },
		"pools[0].account: must not be empty":                        func(c *Config) { c.Pools[0].Account = "" },
		`pools[0].protocol = "v2"`:                                   func(c *Config) { c.Pools[0].Protocol = "v2" },
		"pools[0].weight = -1: must be 0 to 1000000":                 func(c *Config) { c.Pools[0].Weight = -1 },
		"pools[0].weight = NaN: must be 0 to 1000000":                func(c *Config) { c.Pools[0].Weight = math.NaN() },
		"pools[1].weight: another pool with a weight has the same":   func(c *Config) { c.Pools[0].Weight = 1; c.Pools = append(c.Pools, c.Pools[0]) },
		`pools[0].payout_address: address "bc1qnothing" for mainnet`: func(c *Config) { c.Pools[0].PayoutAddress = "bc1qnothing" },
		"pools[0].payout_share = 90: must be 0 to 1":                 func(c *Config) { c.Pools[0].PayoutShare = 90 },
		"pools[0].payout_share: needs payout_address":                func(c *Config) { c.Pools[0].PayoutShare = 0.9 },
		"links = 0: must be 1 to 255":                                func(c *Config) { c.Links = 0 },
		"max_connections = 0":                                        func(c *Config) { c.MaxConnections = 0 },
		`hold = "-1s": must not be negative`:                         func(c *Config) { c.Hold = config.Duration(-time.Second) },
		`page = "y": must be host:port`:                              func(c *Config) { c.Page = "y" },
		"workers.ip_format: must not be empty":                       func(c *Config) { c.Workers = Workers{ByIP: true} },
		"proxy.urls[0]: must be socks5://":                           func(c *Config) { c.Proxy.URLs = []string{"ftp://u:SECRET@host:1"} },
		`proxy.direct = "maybe": must be never, after or`:            func(c *Config) { c.Proxy.Direct = "maybe" },
		`return_interval = "0s": must be at least 1s`:                func(c *Config) { c.ReturnInterval = 0 },
		`stand_in_interval = "1ms": must be at least 1s`:             func(c *Config) { c.StandInInterval = config.Duration(time.Millisecond) },
		`read_timeout = "1ms": must be at least 1s`:                  func(c *Config) { c.ReadTimeout = config.Duration(time.Millisecond) },
	} {
		cfg := good()
		spoil(&cfg)
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// -check judges a file, and the folder of the log, and says it where people see it.
func TestCheck(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const good = "[[pools]]\naddr = \"a:1\"\naccount = \"x\"\nweight = 70\npayout_address = \"bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080\"\npayout_share = 0.9\n"
	for i, test := range []struct {
		text string
		args []string
		code int
		want string
	}{
		{good, nil, 0, "configuration ok"},
		{good, []string{"-l", dir}, 0, "configuration ok"},
		{good, []string{"-l", filepath.Join(dir, "none")}, 2, "log file: open"},
		{good + "payout_to = 1\n", nil, 2, `unknown key "pools.payout_to"`},
		{strings.Replace(good, "70", "-70", 1), nil, 2, "pools[0].weight = -70"},
		{strings.Replace(good, "bcrt1qw", "bcrt1qq", 1), []string{"-l", dir}, 2, "pools[0].payout_address"},
	} {
		path := filepath.Join(dir, fmt.Sprintf("%d.toml", i))
		if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		var stderr strings.Builder
		if code := Main(append(test.args, "-config", path, "-check"), &stderr); code != test.code || !strings.Contains(stderr.String(), test.want) {
			t.Errorf("%v: exit code %d, %s; want %d, %s", test.args, code, &stderr, test.code, test.want)
		}
	}
}

// The file that BTCAgent ships, with all there is in it.
const btcAgentsFile = `{
  "multi_user_mode": true,
  "agent_type": "btc",
  "always_keep_downconn": true,
  "disconnect_when_lost_asicboost": false,
  "use_ip_as_worker_name": true,
  "ip_worker_name_format": "rig{3}-{4}",
  "fixed_worker_name": "",
  "submit_response_from_server": true,
  "agent_listen_ip": "127.0.0.1",
  "agent_listen_port": 3334,
  "proxy": ["socks5://127.0.0.1:1080", "10.0.0.1:3128"],
  "use_proxy": true,
  "direct_connect_with_proxy": false,
  "direct_connect_after_proxy": true,
  "pool_use_tls": true,
  "pools": [["us.pool.org", 1800, "one"], ["eu.pool.org", 443, "two"], ["cn.pool.org", 25]],
  "http_debug": {"enable": true, "listen": "127.0.0.1:9999"},
  "advanced": {
    "pool_connection_number_per_subaccount": 3,
    "pool_connection_dial_timeout_seconds": 7,
    "pool_connection_read_timeout_seconds": 8,
    "fake_job_notify_interval_seconds": 9,
    "tls_skip_certificate_verify": true,
    "message_queue_size": {"session_manager": 64}
  },
  "colour": "red"
}`

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent_conf.json")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFromBTCAgent(t *testing.T) {
	t.Parallel()
	got, warnings, err := FromBTCAgent(writeFile(t, btcAgentsFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := got.Validate(); err != nil {
		t.Error(err)
	}
	want := DefaultConfig()
	want.Listeners = []Listener{{Listen: "127.0.0.1:3334"}}
	want.MultiUser, want.KeepMiners, want.ReconnectLostASICBoost, want.PoolVerdicts = true, true, false, true
	want.Workers = Workers{ByIP: true, IPFormat: "rig{3}-{4}"}
	want.Proxy = Proxy{URLs: []string{"socks5://127.0.0.1:1080", "10.0.0.1:3128"}, Direct: DirectAfter, TLSSkipVerify: true}
	for _, p := range [][2]string{{"us.pool.org:1800", "one"}, {"eu.pool.org:443", "two"}, {"cn.pool.org:25", ""}} {
		want.Pools = append(want.Pools, Pool{Addr: p[0], Account: p[1], TLS: true, TLSSkipVerify: true, Protocol: ProtocolAuto})
	}
	want.Links = 3
	want.DialTimeout, want.ReadTimeout, want.StandInInterval = config.Duration(7*time.Second), config.Duration(8*time.Second), config.Duration(9*time.Second)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for i, part := range []string{"tls_skip_certificate_verify is true", "http_debug", "message_queue_size", `unknown key "colour"`} {
		if i >= len(warnings) || !strings.Contains(warnings[i], part) {
			t.Errorf("warnings %q, want one of %s", warnings, part)
		}
	}
}

// What BTCAgent does without a key, and what its first generation takes.
func TestFromBTCAgentShort(t *testing.T) {
	t.Parallel()
	got, warnings, err := FromBTCAgent(writeFile(t, `{"always_keep_downconn": "TRUE", "pools": [["h", "3333", "a"]]}`))
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	want := DefaultConfig()
	want.KeepMiners, want.PoolVerdicts, want.Links = true, false, 5
	want.Proxy.Direct = DirectAfter
	want.Pools = []Pool{{Addr: "h:3333", Account: "a", Protocol: ProtocolAuto}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for text, want := range map[string]string{
		`{"agent_type": "eth", "pools": []}`: "only btc is served",
		`{"pools": [["h"]]}`:                 "is not [host, port, account]",
		`{"pools": [["h", 70000, "a"]]}`:     "is not [host, port, account]",
		`{"multi_user_mode": "maybe"}`:       "neither true nor false",
		`{`:                                  "unexpected end",
	} {
		if _, _, err := FromBTCAgent(writeFile(t, text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
	}
}

func TestSplitLegacy(t *testing.T) {
	t.Parallel()
	old, rest, dropped := splitLegacy([]string{"-c", "agent_conf.json", "--l=logs", "-alsologtostderr", "-v", "9", "-check", "-log-level", "debug", "-logtostderr"})
	if old != (legacy{"agent_conf.json", "logs", true}) {
		t.Errorf("got %+v", old)
	}
	if diff := cmp.Diff([]string{"-check", "-log-level", "debug"}, rest); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"-v", "-logtostderr"}, dropped); diff != "" {
		t.Error(diff)
	}
}

func TestServiceFlag(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ args, what, rest string }{
		{"-service install -config a.toml", "install", "-config a.toml"},
		{"-c agent_conf.json --service=stop", "stop", "-c agent_conf.json"},
		{"-config service -log-level debug", "", "-config service -log-level debug"},
		{"-service", "", "-service"},
	} {
		what, rest := splitService(strings.Fields(test.args))
		if what != test.what || strings.Join(rest, " ") != test.rest {
			t.Errorf("%s: %q, %q", test.args, what, rest)
		}
	}
}

package switcher_test

import (
	"strings"
	"testing"

	"btcpool/internal/service"
	"btcpool/internal/testkit"
	"btcpool/switcher"
)

func TestConfigFile(t *testing.T) {
	t.Parallel()
	cfg := switcher.DefaultConfig()
	if err := service.Load("../configs/switcher.toml", &cfg); err != nil {
		t.Fatal(err)
	}
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
	testkit.SampleNames(t, "../configs/switcher.toml", cfg)
}

func TestConfigEnvironment(t *testing.T) {
	for key, value := range map[string]string{
		"CHAINS_0_NAME": "btc", "CHAINS_0_SERVERS_0_ADDR": "sserver:3333", "CHAINS_1_NAME": "bch", "CHAINS_1_SERVERS_0_ADDR": "other:3333",
		"CHAINS_1_SERVERS_1_ADDR": "third:3333", "ZOOKEEPER_SERVERS": "zookeeper:2181", "DEFAULT_CHAIN": "bch", "USERS_AUTOREG": "/autoreg",
	} {
		t.Setenv("BTCPOOL_"+key, value)
	}
	cfg := switcher.DefaultConfig()
	if err := service.Load("", &cfg); err != nil {
		t.Fatal(err)
	}
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
	if cfg.Chains[1].Servers[1].Addr != "third:3333" {
		t.Errorf("chains %+v", cfg.Chains)
	}
}

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	cfg := switcher.DefaultConfig()
	cfg.Listeners = []switcher.Listener{{Listen: "x", TLSCertFile: "cert"}}
	cfg.Status, cfg.DataDir, cfg.MaxConnections, cfg.ServerID, cfg.LockPath = "y", "", 0, 0, "relative"
	cfg.Chains = []switcher.Chain{
		{Name: "auto"},
		{Name: "a/b", UserSuffix: "x/y", Servers: []switcher.Server{{Addr: "nowhere", Weight: -1, ProxyProtocol: 3}}},
		{Name: "btc", Servers: []switcher.Server{{Addr: "a:1"}}},
		{Name: "btc", Servers: []switcher.Server{{Addr: "a:1"}}},
	}
	cfg.DefaultChain, cfg.AutoChain = "ltc", "doge"
	cfg.ExtraNonce2Size, cfg.VersionMask, cfg.Grace, cfg.Hold, cfg.ShutdownGrace = 1, "ffffffff", -1, 0, cfg.LongTimeout
	cfg.Users = switcher.Users{}
	err := cfg.Validate()
	if err == nil {
		t.Fatal("no fault")
	}
	for _, want := range []string{
		`listeners[0].listen = "x"`, "listeners[0].tls_cert_file", `status = "y"`, "data_dir", "max_connections", "zookeeper_lock_path",
		`chains[0].name = "auto"`, "chains[0].servers", `chains[1].name = "a/b"`, "chains[1].user_suffix", "chains[1].servers[0].addr", "weight", "proxy_protocol",
		`chains[3].name = "btc"`, `default_chain = "ltc"`, `auto_chain = "doge"`, "extranonce2_size", "version_mask", "grace", "hold",
		"shutdown_grace_period", "users.chain", "users.max_registrations", "users.timeout", "zookeeper.servers",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no word of %s in:\n%v", want, err)
		}
	}
}

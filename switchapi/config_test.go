package switchapi_test

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	"btcpool/internal/service"
	"btcpool/internal/testkit"
	"btcpool/switchapi"
)

func TestConfigFile(t *testing.T) {
	t.Parallel()
	cfg := switchapi.DefaultConfig()
	if err := service.Load("../configs/switchapi.toml", &cfg); err != nil {
		t.Fatal(err)
	}
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
	testkit.SampleNames(t, "../configs/switchapi.toml", cfg, "kafka.share_partitions", "kafka.topics.")
}

func TestConfigEnvironment(t *testing.T) {
	for key, value := range map[string]string{
		"CHAINS": "btc,bch", "CLIENTS_0_NAME": "us", "CLIENTS_0_TOKEN": "0123456789abcdef", "ZOOKEEPER_SERVERS": "zookeeper:2181",
		"LISTS_0_CHAIN": "btc", "LISTS_0_URL": "http://users/btc", "REGISTRATION_URL": "http://users/new", "REGISTRATION_DEFAULT_CHAIN": "btc",
		"AUTO_ENABLED": "true", "AUTO_SOURCES": "/etc/quotes.json", "AUTO_FAIL_SAFE_CHAIN": "btc", "AUTO_CHAINS_0_CHAIN": "btc", "AUTO_CHAINS_0_COIN": "BTC",
	} {
		t.Setenv("BTCPOOL_"+key, value)
	}
	cfg := switchapi.DefaultConfig()
	if err := service.Load("", &cfg); err != nil {
		t.Fatal(err)
	}
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
}

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	cfg := switchapi.DefaultConfig()
	cfg.Listen, cfg.TLSCertFile, cfg.DataDir, cfg.LogDays, cfg.MaxWaiting = "x", "cert", "", 0, 0
	cfg.Chains = []string{"btc", "btc", "auto", "a/b"}
	cfg.Clients = []switchapi.Client{
		{Name: "one", Token: "short"},
		{Name: "one", TokenSHA256: "beef", Rate: -1},
		{Name: "three"},
		{Name: "", Token: "0123456789abcdef", TokenFile: "f"},
		{Name: "five", TokenSHA256: fmt.Sprintf("%x", sha256.Sum256(nil))},
	}
	cfg.Nodes = switchapi.Nodes{UserChain: "", AutoReg: "relative", SubPool: "/"}
	cfg.Users = switchapi.Users{StripUserSuffix: true, SafetyPeriod: -1}
	cfg.Lists = []switchapi.List{{Chain: "ltc", URL: "ftp://x"}, {Chain: "btc", URL: "http://x"}}
	cfg.Map = switchapi.Map{URL: "x", SubPoolURL: "http://x"}
	cfg.Registration = switchapi.Registration{URL: "x", DefaultChain: "ltc", Password: "a", PasswordFile: "b"}
	cfg.AutoChain = switchapi.AutoChain{
		Enabled: true, Sources: []string{"", "ftp://x"}, MinGain: -1, MinDwell: -1, FailSafeChain: "btc",
		Chains:          []switchapi.AutoOf{{Chain: "btc", Coin: "BTC", MaxHashrate: "100X"}, {Chain: "ltc", Coin: "BTC"}},
		ControllerTopic: "same", ProcessorTopic: "same",
	}
	cfg.Kafka.Brokers = nil
	err := cfg.Validate()
	for _, key := range []string{
		"listen", "tls_cert_file", "data_dir", "log_days", "max_waiting", "chains[1]", "chains[2]", "chains[3]",
		"clients[0].token", "clients[1].name", "clients[1].token_sha256", "clients[1].rate", "clients[2]", "clients[3].name", "clients[3].token",
		"clients[4].token_sha256: is the hash of nothing",
		"zookeeper.servers", "nodes.user_chain", "nodes.autoreg", "nodes.subpool", "nodes.timeout", "users.user_suffix_separator", "users.list_interval",
		"users.reload_interval", "users.safety_period", "lists[0].chain", "lists[0].url", "lists:", "map.url", "map.subpool_url", "map.interval",
		"registration.url", "registration.default_chain", "registration.password", "registration.parallel", "registration.timeout", "registration.deadline",
		"auto.sources[0]", "auto.sources[1]", "auto.interval", "auto.timeout", "auto.min_gain", "auto.min_dwell", "auto.fail_safe_after",
		"auto.fail_safe_chain", "auto.chains[0].max_hashrate", "auto.chains[0].hashrate_url", "auto.chains[1].chain", "auto.chains[1].coin",
		"auto.processor_topic", "kafka.brokers",
	} {
		if err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s is not named in\n%v", key, err)
		}
	}
	if _, newErr := switchapi.New(cfg, service.Deps{}); newErr == nil || newErr.Error() != err.Error() {
		t.Errorf("New: %v", newErr)
	}
	if err := switchapi.DefaultConfig().Validate(); err == nil || !strings.Contains(err.Error(), "clients: 1 to") {
		t.Errorf("open to everybody: %v", err)
	}
}

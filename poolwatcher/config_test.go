package poolwatcher_test

import (
	"strings"
	"testing"

	"btcpool/internal/service"
	"btcpool/internal/testkit"
	"btcpool/poolwatcher"
)

func TestConfigFile(t *testing.T) {
	t.Parallel()
	cfg := poolwatcher.DefaultConfig()
	if err := service.Load("../configs/poolwatcher.toml", &cfg); err != nil {
		t.Fatal(err)
	}
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
	testkit.SampleNames(t, "../configs/poolwatcher.toml", cfg,
		"node.zmq_hashblock", "kafka.share_partitions", "kafka.topics.share", "kafka.topics.solved_share", "kafka.topics.common_events",
		"kafka.topics.aux_work", "kafka.topics.aux_solved", "kafka.topics.rsk_work", "kafka.topics.rsk_solved")
}

func TestConfigEnvironment(t *testing.T) {
	for key, value := range map[string]string{
		"POOLS_0_NAME": "one", "POOLS_0_ADDR": "stratum.example:3333", "POOLS_0_USER": "us", "NODE_RPC_URL": "http://node:8332",
		"NODE_RPC_USER": "u", "NODE_RPC_PASSWORD": "p", "KAFKA_BROKERS": "kafka:9092",
	} {
		t.Setenv("BTCPOOL_"+key, value)
	}
	cfg := poolwatcher.DefaultConfig()
	if err := service.Load("", &cfg); err != nil {
		t.Fatal(err)
	}
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
}

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	cfg := poolwatcher.DefaultConfig()
	cfg.Network, cfg.Agree = "lightnet", 4
	cfg.Pools = []poolwatcher.Pool{{Name: "one", Addr: "host:1", User: "us"}, {Name: "one", Addr: "host:1", User: "us"}, {Name: "three", Addr: "stratum+tcp://host"}}
	cfg.Kafka.Brokers = nil
	err := cfg.Validate()
	for _, key := range []string{"network", "agree", "pools[1].name", "pools[2].addr", "pools[2].user", "node.rpc_url", "kafka.brokers"} {
		if err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%v: does not name %s", err, key)
		}
	}
	if _, newErr := poolwatcher.New(cfg, service.Deps{}); newErr == nil || newErr.Error() != err.Error() {
		t.Errorf("New: %v", newErr)
	}
	if err := poolwatcher.DefaultConfig().Validate(); err == nil || !strings.Contains(err.Error(), "pools: 1 to") {
		t.Errorf("no pools: %v", err)
	}
}

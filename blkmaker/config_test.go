package blkmaker_test

import (
	"strings"
	"testing"

	"btcpool/blkmaker"
	"btcpool/internal/bitcoin/noderpc"
	"btcpool/internal/service"
	"btcpool/internal/testkit"
)

const sample = "../configs/blkmaker.toml"

func TestSampleConfig(t *testing.T) {
	cfg := blkmaker.DefaultConfig()
	if err := service.Load(sample, &cfg); err != nil {
		t.Fatal(err)
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	testkit.SampleNames(t, sample, cfg, "nodes.zmq_hashblock", "aux_nodes.", "rsk_nodes.", "kafka.share_partitions", "kafka.topics.")
	t.Setenv("BTCPOOL_NODES_0_RPC_URL", "http://node:8332")
	t.Setenv("BTCPOOL_DATABASE_DSN", "sqlite:/tmp/pool.db")
	if err := service.Load(sample, &cfg); err != nil {
		t.Fatal(err)
	}
	if cfg.Nodes[0].URL != "http://node:8332" || cfg.Nodes[0].CookieFile == "" || cfg.Database.DSN != "sqlite:/tmp/pool.db" {
		t.Errorf("environment over file: %+v", cfg)
	}
}

func TestValidateReportsAllFaults(t *testing.T) {
	t.Parallel()
	cfg := blkmaker.DefaultConfig()
	cfg.Network, cfg.DataDir, cfg.Confirmations = "moonnet", "", 0
	cfg.Nodes = []noderpc.Config{{}}
	cfg.Kafka.Brokers = nil
	err := cfg.Validate()
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		`network = "moonnet"`, `data_dir = "": must name a folder`, "confirmations = 0: ", "nodes[0].rpc_url: ", "nodes[0].rpc_user: ", "kafka.brokers: ", "database.dsn: ",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in\n%v", want, err)
		}
	}
}

func TestValidateWantsNodes(t *testing.T) {
	t.Parallel()
	if err := blkmaker.DefaultConfig().Validate(); err == nil || !strings.Contains(err.Error(), "[[nodes]]") {
		t.Errorf("%v", err)
	}
}

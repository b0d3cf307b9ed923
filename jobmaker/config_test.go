package jobmaker_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"btcpool/internal/config"
	"btcpool/internal/service"
	"btcpool/internal/testkit"
	"btcpool/jobmaker"
)

// regtestConfig pays to the witness program of BIP 173's example.
func regtestConfig() jobmaker.Config {
	cfg := jobmaker.DefaultConfig()
	cfg.Network = "regtest"
	cfg.PayoutAddress = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"
	cfg.JobInterval = config.Duration(time.Hour) // jobs come when something happens
	return cfg
}

// outputs pays parts of the reward to one address.
func outputs(basisPoints ...int) []jobmaker.Output {
	var list []jobmaker.Output
	for _, n := range basisPoints {
		list = append(list, jobmaker.Output{Address: regtestConfig().PayoutAddress, BasisPoints: n})
	}
	return list
}

func subPools(names ...string) []jobmaker.SubPool {
	var list []jobmaker.SubPool
	for _, name := range names {
		list = append(list, jobmaker.SubPool{Name: name, PayoutAddress: regtestConfig().PayoutAddress})
	}
	return list
}

func TestSampleFile(t *testing.T) {
	t.Parallel()
	var cfg jobmaker.Config // so that the file must name every key
	if err := service.Load("../configs/jobmaker.toml", &cfg); err != nil {
		t.Fatal(err)
	}
	want := jobmaker.DefaultConfig()
	want.Common = cfg.Common
	if diff := cmp.Diff(want, cfg, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("the file differs from the defaults:\n%s", diff)
	}
	testkit.SampleNames(t, "../configs/jobmaker.toml", cfg, "sub_pools.outputs.") // as outputs
	cfg.PayoutAddress = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"
	if err := cfg.Validate(); err != nil {
		t.Errorf("with an address: %v", err)
	}
}

// The tables that the sample file shows are read.
func TestTables(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "jobmaker.toml")
	text := `
network = "regtest"
[[outputs]]
address = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"
basis_points = 9900
[[outputs]]
address = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"
basis_points = 100
[[sub_pools]]
name = "a"
payout_address = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"
[[sub_pools]]
name = "b"
coinbase_text = "/b/"
[[sub_pools.outputs]]
address = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"
basis_points = 10000
`
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	got := jobmaker.DefaultConfig()
	if err := service.Load(path, &got); err != nil {
		t.Fatal(err)
	}
	want := jobmaker.DefaultConfig()
	want.Network = "regtest"
	want.Outputs = outputs(9900, 100)
	want.SubPools = subPools("a", "b")
	want.SubPools[1].PayoutAddress, want.SubPools[1].Outputs, want.SubPools[1].CoinbaseText = "", outputs(10000), "/b/"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if err := got.Validate(); err != nil {
		t.Error(err)
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		change func(*jobmaker.Config)
		want   string // a part of the error, "" for none
	}{
		{"nothing", func(*jobmaker.Config) {}, ""},
		{"no brokers", func(c *jobmaker.Config) { c.Kafka.Brokers = nil }, "kafka.brokers"},
		{"server id 0", func(c *jobmaker.Config) { c.ServerID = 0 }, "server_id = 0: must be 1 to 255"},
		{"server id 256", func(c *jobmaker.Config) { c.ServerID = 256 }, "server_id = 256"},
		{"leased server id", func(c *jobmaker.Config) {
			c.ServerID = 0
			c.ZooKeeper.Servers = []string{"zk:2181"}
		}, ""},
		{"leased server id without a path", func(c *jobmaker.Config) {
			c.ServerID, c.IDLeasePath = 0, ""
			c.ZooKeeper.Servers = []string{"zk:2181"}
		}, "id_lease_path"},
		{"lock without ZooKeeper", func(c *jobmaker.Config) { c.LeaderLockPath = "/lock" }, "needs zookeeper.servers"},
		{"lock", func(c *jobmaker.Config) {
			c.LeaderLockPath = "/locks/jobmaker_lead"
			c.ZooKeeper.Servers = []string{"zk:2181"}
		}, ""},
		{"lock where ids are", func(c *jobmaker.Config) {
			c.LeaderLockPath = c.IDLeasePath
			c.ZooKeeper.Servers = []string{"zk:2181"}
		}, "must not be id_lease_path"},
		{"lock at no path", func(c *jobmaker.Config) {
			c.LeaderLockPath = "lock"
			c.ZooKeeper.Servers = []string{"zk:2181"}
		}, `leader_lock_path = "lock"`},
		{"no server of ZooKeeper", func(c *jobmaker.Config) { c.ZooKeeper.Servers = []string{"zk"} }, "zookeeper.servers"},
		{"no such network", func(c *jobmaker.Config) { c.Network = "main" }, `network = "main": unknown network`},
		{"no address", func(c *jobmaker.Config) { c.PayoutAddress = "" }, "payout_address: must be an address of regtest"},
		{"address of mainnet", func(c *jobmaker.Config) {
			c.PayoutAddress = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"
		}, "not for regtest but for mainnet"},
		{"typing error in the address", func(c *jobmaker.Config) {
			c.PayoutAddress = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt081"
		}, "payout_address"},
		{"longest text", func(c *jobmaker.Config) { c.CoinbaseText = strings.Repeat("x", 77) }, ""},
		{"text too long", func(c *jobmaker.Config) { c.CoinbaseText = strings.Repeat("x", 78) }, "coinbase_text"},
		{"longest text with merged mining", func(c *jobmaker.Config) {
			c.CoinbaseText, c.Kafka.Topics.AuxWork = strings.Repeat("x", 33), "AuxPowBlock"
		}, ""},
		{"text too long with merged mining", func(c *jobmaker.Config) {
			c.CoinbaseText, c.Kafka.Topics.AuxWork = strings.Repeat("x", 34), "AuxPowBlock"
		}, "coinbase_text"},
		{"text with the mark of merged mining", func(c *jobmaker.Config) {
			c.CoinbaseText, c.Kafka.Topics.AuxWork = "\xfa\xbemm", "AuxPowBlock"
		}, "only once"},
		{"text too long with a grand pool", func(c *jobmaker.Config) {
			c.CoinbaseText, c.GrandPool = strings.Repeat("x", 74), true
		}, "coinbase_text"},
		{"outputs", func(c *jobmaker.Config) { c.PayoutAddress, c.Outputs = "", outputs(9900, 100) }, ""},
		{"outputs beside the address", func(c *jobmaker.Config) { c.Outputs = outputs(9900, 100) }, "must be empty when there are outputs"},
		{"too little", func(c *jobmaker.Config) { c.PayoutAddress, c.Outputs = "", outputs(9900, 99) }, "add up to 9999 instead of 10000"},
		{"too much", func(c *jobmaker.Config) { c.PayoutAddress, c.Outputs = "", outputs(9900, 101) }, "add up to 10001 instead of 10000"},
		{"output of nothing", func(c *jobmaker.Config) { c.PayoutAddress, c.Outputs = "", outputs(10000, 0) }, "outputs[1].basis_points = 0"},
		{"output of less", func(c *jobmaker.Config) { c.PayoutAddress, c.Outputs = "", outputs(10001, -1) }, "outputs[1].basis_points = -1"},
		{"output to nobody", func(c *jobmaker.Config) {
			c.PayoutAddress, c.Outputs = "", outputs(10000)
			c.Outputs[0].Address = "nobody"
		}, "outputs[0].address"},
		{"more outputs than miners bear", func(c *jobmaker.Config) {
			c.PayoutAddress, c.Outputs = "", outputs(slices.Repeat([]int{500}, 20)...)
		}, "max_coinbase_size = 500: the coinbase can get 750 bytes long"},
		{"as many outputs as they bear", func(c *jobmaker.Config) {
			c.PayoutAddress, c.Outputs, c.MaxCoinbaseSize = "", outputs(slices.Repeat([]int{500}, 20)...), 750
		}, ""},
		{"sub-pool", func(c *jobmaker.Config) { c.SubPools = subPools("a", "B.1_-") }, ""},
		{"sub-pools of one name", func(c *jobmaker.Config) { c.SubPools = subPools("a", "a") }, `sub_pools[1].name = "a"`},
		{"sub-pool without name", func(c *jobmaker.Config) { c.SubPools = subPools("") }, `sub_pools[0].name = ""`},
		{"sub-pool without address", func(c *jobmaker.Config) {
			c.SubPools = subPools("a")
			c.SubPools[0].PayoutAddress = ""
		}, "sub_pools[0].payout_address"},
		{"sub-pool with a long text", func(c *jobmaker.Config) {
			c.SubPools = subPools("a")
			c.SubPools[0].CoinbaseText = strings.Repeat("x", 78)
		}, "sub_pools[0].coinbase_text"},
		{"policy 3", func(c *jobmaker.Config) { c.AuxNotify = 3 }, "aux_merged_mining_notify = 3: must be 0 to 2"},
		{"policy -1", func(c *jobmaker.Config) { c.RSKNotify = -1 }, "rsk_merged_mining_notify = -1"},
		{"no interval", func(c *jobmaker.Config) { c.JobInterval = 0 }, `job_interval = "0s": must be at least 1s`},
		{"negative life", func(c *jobmaker.Config) { c.GBTLifetime = -1 }, "gbt_life_time"},
		{"short empty life", func(c *jobmaker.Config) {
			c.EmptyGBTLifetime = config.Duration(time.Millisecond)
		}, "empty_gbt_life_time"},
		{"no skew", func(c *jobmaker.Config) { c.MaxTemplateSkew = 0 }, "max_template_skew"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg := regtestConfig()
			tt.change(&cfg)
			err := cfg.Validate()
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

func TestValidateReportsAllFaults(t *testing.T) {
	t.Parallel()
	err := jobmaker.Config{}.Validate()
	for _, key := range []string{
		"kafka.brokers", "server_id", "network", "job_interval", "gbt_life_time", "empty_gbt_life_time", "max_template_skew",
	} {
		if err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("no fault in %s: %v", key, err)
		}
	}
}

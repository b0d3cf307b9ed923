package jobmaker_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"btcpool/internal/service"
	"btcpool/jobmaker"
)

// regtestConfig pays to the witness program of BIP 173's example.
func regtestConfig() jobmaker.Config {
	cfg := jobmaker.DefaultConfig()
	cfg.Network = "regtest"
	cfg.PayoutAddress = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"
	return cfg
}

func TestSampleFile(t *testing.T) {
	t.Parallel()
	var cfg jobmaker.Config // so that the file must name every key
	if err := service.Load("../configs/jobmaker.toml", &cfg); err != nil {
		t.Fatal(err)
	}
	want := jobmaker.DefaultConfig()
	want.Common = cfg.Common
	if diff := cmp.Diff(want, cfg); diff != "" {
		t.Errorf("the file differs from the defaults:\n%s", diff)
	}
	cfg.PayoutAddress = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"
	if err := cfg.Validate(); err != nil {
		t.Errorf("with an address: %v", err)
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
		{"no interval", func(c *jobmaker.Config) { c.JobInterval = 0 }, `job_interval = "0s": must be at least 1s`},
		{"negative life", func(c *jobmaker.Config) { c.GBTLifetime = -1 }, "gbt_life_time"},
		{"short empty life", func(c *jobmaker.Config) {
			c.EmptyGBTLifetime = service.Duration(time.Millisecond)
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

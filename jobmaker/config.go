package jobmaker

import (
	"errors"
	"fmt"
	"math"
	"time"

	"btcpool/internal/bitcoin"
	"btcpool/internal/bus"
	"btcpool/internal/service"
)

// Config is what jobmaker.toml holds.
type Config struct {
	service.Common
	Kafka bus.Config `toml:"kafka"`

	ServerID      int    `toml:"server_id" env:"SERVER_ID"`           // 1 to 255, low byte of the job ids; each jobmaker of a pool has its own
	Network       string `toml:"network" env:"NETWORK"`               // mainnet, testnet3, testnet4, signet or regtest
	PayoutAddress string `toml:"payout_address" env:"PAYOUT_ADDRESS"` // of Network; gets the whole reward
	CoinbaseText  string `toml:"coinbase_text" env:"COINBASE_TEXT"`   // visible in every block found
	BlockVersion  int32  `toml:"block_version"`                       // 0: the template's

	JobInterval      service.Duration `toml:"job_interval"`        // between jobs when nothing happens
	GBTLifetime      service.Duration `toml:"gbt_life_time"`       // templates with transactions older than this make way for others
	EmptyGBTLifetime service.Duration `toml:"empty_gbt_life_time"` // the same for empty templates
	MaxTemplateSkew  service.Duration `toml:"max_template_skew"`   // templates that far from our clock are dropped
}

// DefaultConfig returns a Config that lacks the payout address only.
func DefaultConfig() Config {
	return Config{
		Kafka:            bus.DefaultConfig(),
		ServerID:         1,
		Network:          "mainnet",
		CoinbaseText:     "/btcpool/",
		JobInterval:      service.Duration(20 * time.Second),
		GBTLifetime:      service.Duration(90 * time.Second),
		EmptyGBTLifetime: service.Duration(15 * time.Second),
		MaxTemplateSkew:  service.Duration(60 * time.Second),
	}
}

// Validate reports all faults.
func (c Config) Validate() error {
	errs := []error{c.Kafka.Validate()}
	if c.ServerID < 1 || c.ServerID > math.MaxUint8 {
		errs = append(errs, fmt.Errorf("server_id = %d: must be 1 to 255", c.ServerID))
	}
	for _, d := range []struct {
		key   string
		value service.Duration
	}{
		{"job_interval", c.JobInterval},
		{"gbt_life_time", c.GBTLifetime},
		{"empty_gbt_life_time", c.EmptyGBTLifetime},
		{"max_template_skew", c.MaxTemplateSkew},
	} {
		if d.value.Std() < time.Second {
			errs = append(errs, fmt.Errorf("%s = %q: must be at least 1s", d.key, d.value))
		}
	}
	if _, err := c.payoutScript(); err != nil {
		errs = append(errs, err)
	}
	if err := checkCoinbaseText(c.CoinbaseText); err != nil {
		errs = append(errs, fmt.Errorf("coinbase_text = %q: %w", c.CoinbaseText, err))
	}
	return errors.Join(errs...)
}

func (c Config) payoutScript() ([]byte, error) {
	network, err := bitcoin.NetworkByName(c.Network)
	if err != nil {
		return nil, fmt.Errorf("network = %q: %w", c.Network, err)
	}
	if c.PayoutAddress == "" {
		return nil, fmt.Errorf("payout_address: must be an address of %s", c.Network)
	}
	script, err := network.PayoutScript(c.PayoutAddress)
	if err != nil {
		return nil, fmt.Errorf("payout_address: %w", err)
	}
	return script, nil
}

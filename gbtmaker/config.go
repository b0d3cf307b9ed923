package gbtmaker

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"btcpool/internal/bitcoin"
	"btcpool/internal/bitcoin/noderpc"
	"btcpool/internal/bus"
	"btcpool/internal/service"
)

// Config of a gbtmaker.
type Config struct {
	service.Common
	Network      string           `toml:"network" env:"NETWORK"`             // mainnet, testnet4, signet, regtest, testnet3: what the node must be on
	PollInterval service.Duration `toml:"poll_interval" env:"POLL_INTERVAL"` // from one template to the next when nothing happens
	Node         noderpc.Config   `toml:"node" envPrefix:"NODE_"`
	Kafka        bus.Config       `toml:"kafka"`
}

// DefaultConfig returns a Config that lacks the node only.
func DefaultConfig() Config {
	return Config{
		Network:      "mainnet",
		PollInterval: service.Duration(5 * time.Second),
		Kafka:        bus.DefaultConfig(),
	}
}

// Jobs are not made of templates older than a minute, so the interval leaves
// room for a failed call.
const minPollInterval, maxPollInterval = 100 * time.Millisecond, 30 * time.Second

// Validate reports every fault of c at once.
func (c Config) Validate() error {
	var errs []error
	if _, err := bitcoin.NetworkByName(c.Network); err != nil {
		errs = append(errs, fmt.Errorf("network = %q: %w", c.Network, err))
	}
	if d := c.PollInterval.Std(); d < minPollInterval || d > maxPollInterval {
		errs = append(errs, fmt.Errorf("poll_interval = %q: must be %s to %s", c.PollInterval, minPollInterval, maxPollInterval))
	}
	if err := c.Node.Validate(); err != nil {
		for fault := range strings.Lines(err.Error()) {
			errs = append(errs, fmt.Errorf("node.%s", strings.TrimSpace(fault)))
		}
	}
	return errors.Join(append(errs, c.Kafka.Validate())...)
}

package blkmaker

import (
	"errors"
	"fmt"
	"strings"

	"btcpool/internal/bitcoin"
	"btcpool/internal/bitcoin/noderpc"
	"btcpool/internal/bus"
	"btcpool/internal/service"
	"btcpool/internal/store"
)

// Config is the configuration of a blkmaker.
type Config struct {
	service.Common
	Network       string           `toml:"network" env:"NETWORK"`             // mainnet, testnet4, signet, regtest, testnet3: what the nodes must be on
	DataDir       string           `toml:"data_dir" env:"DATA_DIR"`           // blocks are kept in its folder blocks for a week
	Confirmations int              `toml:"confirmations" env:"CONFIRMATIONS"` // blocks from a found one to the tip, both counted, that make it confirmed
	Nodes         []noderpc.Config `toml:"nodes" envPrefix:"NODES_"`          // every block goes to all of them
	Kafka         bus.Config       `toml:"kafka"`
	Database      store.Config     `toml:"database"`
}

// DefaultConfig returns the configuration to which a file needs to add nodes
// and database.
func DefaultConfig() Config {
	return Config{
		Network:       "mainnet",
		DataDir:       "/var/lib/btcpool/blkmaker",
		Confirmations: 100, // when its reward can be spent
		Kafka:         bus.DefaultConfig(),
	}
}

// Validate reports all faults.
func (c Config) Validate() error {
	var errs []error
	if _, err := bitcoin.NetworkByName(c.Network); err != nil {
		errs = append(errs, fmt.Errorf("network = %q: %w", c.Network, err))
	}
	if c.DataDir == "" {
		errs = append(errs, errors.New(`data_dir: must name a folder`))
	}
	if c.Confirmations < 1 || c.Confirmations > 1_000_000 {
		errs = append(errs, fmt.Errorf("confirmations = %d: must be 1 to 1000000", c.Confirmations))
	}
	if len(c.Nodes) == 0 {
		errs = append(errs, errors.New("nodes: at least one [[nodes]] section is needed"))
	}
	for i, n := range c.Nodes {
		if err := n.Validate(); err != nil {
			for fault := range strings.Lines(err.Error()) {
				errs = append(errs, fmt.Errorf("nodes[%d].%s", i, strings.TrimSpace(fault)))
			}
		}
	}
	return errors.Join(append(errs, c.Kafka.Validate(), c.Database.Validate())...)
}

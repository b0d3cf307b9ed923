package blkmaker

import (
	"errors"
	"fmt"
	"strings"

	"btcpool/internal/auxwork/rskrpc"
	"btcpool/internal/bitcoin"
	"btcpool/internal/bitcoin/noderpc"
	"btcpool/internal/bus"
	"btcpool/internal/handover"
	"btcpool/internal/service"
	"btcpool/internal/store"
)

// Config is the configuration of a blkmaker.
type Config struct {
	service.Common
	Network       string                `toml:"network" env:"NETWORK"`             // what the nodes must be on: one of bitcoin.NetworkNames
	DataDir       string                `toml:"data_dir" env:"DATA_DIR"`           // of this blkmaker alone: journal, recent jobs and templates, and for a week blocks
	Confirmations int                   `toml:"confirmations" env:"CONFIRMATIONS"` // blocks from a found one to the tip, both counted, that make it confirmed
	Handover      handover.ServerConfig `toml:"handover"`                          // where sserver hands solved shares over directly
	Nodes         []noderpc.Config      `toml:"nodes" envPrefix:"NODES_"`          // every block goes to all of them
	AuxNodes      []AuxNode             `toml:"aux_nodes" envPrefix:"AUX_NODES_"`  // of AuxPoW chains; a block goes to all of its chain
	RSKNodes      []RSKNode             `toml:"rsk_nodes" envPrefix:"RSK_NODES_"`
	Kafka         bus.Config            `toml:"kafka"`
	Database      store.Config          `toml:"database"`
}

// AuxNode is a node of an AuxPoW chain.
type AuxNode struct {
	Name string `toml:"name" env:"NAME"` // of the chain in auxmaker's configuration, too
	noderpc.Config
}

// RSKNode is a node of RSK.
type RSKNode struct {
	Name string `toml:"name" env:"NAME"` // of the chain in auxmaker's configuration, too
	rskrpc.Config
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
	within := func(section string, i int, err error) {
		if err != nil {
			for fault := range strings.Lines(err.Error()) {
				errs = append(errs, fmt.Errorf("%s[%d].%s", section, i, strings.TrimSpace(fault)))
			}
		}
	}
	for i, n := range c.Nodes {
		within("nodes", i, n.Validate())
	}
	for i, n := range c.AuxNodes {
		within("aux_nodes", i, errors.Join(checkName(n.Name), n.Validate()))
	}
	for i, n := range c.RSKNodes {
		within("rsk_nodes", i, errors.Join(checkName(n.Name), n.Validate()))
	}
	return errors.Join(append(errs, c.Handover.Validate(), c.Kafka.Validate(), c.Database.Validate())...)
}

func checkName(name string) error {
	const column = 20 // chain_name of found_nmc_blocks
	if name == "" || len(name) > column {
		return fmt.Errorf("name = %q: must be the name of 1 to %d bytes that the chain has in auxmaker's configuration", name, column)
	}
	return nil
}

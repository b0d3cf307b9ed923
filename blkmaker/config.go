package blkmaker

import (
	"errors"
	"fmt"

	"btcpool/internal/auxwork/rskrpc"
	"btcpool/internal/bitcoin"
	"btcpool/internal/bitcoin/noderpc"
	"btcpool/internal/bus"
	"btcpool/internal/config"
	"btcpool/internal/handover"
	"btcpool/internal/service"
	"btcpool/internal/store"
)

// Config is the configuration of a blkmaker.
type Config struct {
	service.Common
	// Network is what the nodes must be on, one of bitcoin.NetworkNames; "mainnet" by default.
	Network string `toml:"network" env:"NETWORK"`
	// DataDir is the folder of the journal, of recent jobs and templates, and for a week of blocks. It is this
	// blkmaker's alone; "/var/lib/btcpool/blkmaker" by default.
	DataDir string `toml:"data_dir" env:"DATA_DIR"`
	// Confirmations is how many blocks from a found one to the tip, both counted, make it confirmed; 100 by default.
	Confirmations int `toml:"confirmations" env:"CONFIRMATIONS"`
	// Handover is where sserver hands solved shares over directly.
	Handover handover.ServerConfig `toml:"handover"`
	// Nodes are those to which every block goes, one at least.
	Nodes []noderpc.Config `toml:"nodes" envPrefix:"NODES_"`
	// AuxNodes are nodes of AuxPoW chains; a block goes to all of its chain.
	AuxNodes []AuxNode `toml:"aux_nodes" envPrefix:"AUX_NODES_"`
	// RSKNodes are nodes of RSK.
	RSKNodes []RSKNode    `toml:"rsk_nodes" envPrefix:"RSK_NODES_"`
	Kafka    bus.Config   `toml:"kafka"`
	Database store.Config `toml:"database"`
}

// AuxNode is a node of an AuxPoW chain.
type AuxNode struct {
	// Name is that of the chain in auxmaker's configuration.
	Name string `toml:"name" env:"NAME"`
	noderpc.Config
}

// RSKNode is a node of RSK.
type RSKNode struct {
	// Name is that of the chain in auxmaker's configuration.
	Name string `toml:"name" env:"NAME"`
	rskrpc.Config
}

// DefaultConfig returns the configuration to which a file needs to add nodes and database.
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
	var faults config.Faults
	_, err := bitcoin.NetworkByName(c.Network)
	faults.Value("network", c.Network, err)
	faults.Folder("data_dir", c.DataDir)
	faults.Number("confirmations", c.Confirmations, 1, 1_000_000)
	if len(c.Nodes) == 0 {
		faults.Addf("nodes: at least one [[nodes]] section is needed")
	}
	for i, n := range c.Nodes {
		faults.In(fmt.Sprintf("nodes[%d]", i), n.Validate())
	}
	for i, n := range c.AuxNodes {
		faults.In(fmt.Sprintf("aux_nodes[%d]", i), errors.Join(checkName(n.Name), n.Validate()))
	}
	for i, n := range c.RSKNodes {
		faults.In(fmt.Sprintf("rsk_nodes[%d]", i), errors.Join(checkName(n.Name), n.Validate()))
	}
	faults.Add(c.Handover.Validate())
	faults.Add(c.Kafka.Validate())
	faults.Add(c.Database.Validate())
	return faults.Err()
}

func checkName(name string) error {
	const column = 20 // chain_name of found_nmc_blocks
	if name == "" || len(name) > column {
		return fmt.Errorf("name = %q: must be the name of 1 to %d bytes that the chain has in auxmaker's configuration", name, column)
	}
	return nil
}

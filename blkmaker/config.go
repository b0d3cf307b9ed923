package blkmaker

import (
	"errors"
	"flag"
	"fmt"
	"math"

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

	// Verify has the database only compared with what data_dir and the chain know of our blocks, and Mend mended.
	Verify bool `toml:"-"`
	Mend   bool `toml:"-"`
	// Mark, unless it is empty, is an address that is paid by the coinbases of our blocks, or a text in them. With it
	// the chain is searched from height Since on.
	Mark  string `toml:"-"`
	Since int    `toml:"-"`
}

// Flags adds the flags of the mode that verifies.
func (c *Config) Flags(flags *flag.FlagSet) {
	flags.BoolVar(&c.Verify, "verify", c.Verify, "compare the database with what data_dir and the chain know of our blocks, print what differs, and exit: 1 if anything does")
	flags.BoolVar(&c.Mend, "mend", c.Mend, "with -verify: write rows that are missing, and states that are wrong")
	flags.StringVar(&c.Mark, "mark", c.Mark, "with -verify: blocks of the chain whose coinbases pay this address, or have this `text`, are ours")
	flags.IntVar(&c.Since, "since", c.Since, "with -mark: the `height` to begin at")
}

// Base leaves the admin address to the blkmaker that makes blocks.
func (c Config) Base() service.Common {
	if c.Verify {
		c.Admin = ""
	}
	return c.Common
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
	if !c.Verify && (c.Mend || c.Mark != "") {
		faults.Addf("-mend and -mark go with -verify")
	}
	if c.Mark != "" {
		faults.Number("-since", c.Since, 1, math.MaxInt32)
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

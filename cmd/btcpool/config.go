package main

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"path/filepath"
	"runtime"
	"strings"

	"btcpool/auxmaker"
	"btcpool/internal/bitcoin"
	"btcpool/internal/bitcoin/noderpc"
	"btcpool/internal/bus"
	"btcpool/internal/service"
	"btcpool/internal/store"
)

// Config is what the whole pool in one process is configured by. What is left out is embedded: a
// chain instead of a node, a broker instead of Kafka, a SQLite file instead of MySQL.
type Config struct {
	service.Common
	Data    string `toml:"data" env:"DATA"`       // folder of everything that is kept, a folder a chain
	Stratum string `toml:"stratum" env:"STRATUM"` // host:port that miners connect to; port 0: any free one
	HTTP    string `toml:"http" env:"HTTP"`       // host:port of the dashboard and the API; port 0: any free one
	Demo    bool   `toml:"demo" env:"DEMO"`       // mine with the CPU
	Threads int    `toml:"demo_threads"`          // of the demo's miner

	Network       string         `toml:"network" env:"NETWORK"`               // of the node: one of bitcoin.NetworkNames
	PayoutAddress string         `toml:"payout_address" env:"PAYOUT_ADDRESS"` // receives the block rewards
	CoinbaseText  string         `toml:"coinbase_text" env:"COINBASE_TEXT"`   // written into each block
	Node          noderpc.Config `toml:"node" envPrefix:"NODE_"`              // rpc_url "": the embedded chain
	Kafka         bus.Config     `toml:"kafka"`                               // no brokers: the embedded broker
	Database      store.Config   `toml:"database"`                            // no dsn: a SQLite file

	Chains []auxmaker.Chain `toml:"chains" envPrefix:"CHAINS_"` // AuxPoW chains that are mined along
	RSK    auxmaker.RSK     `toml:"rsk" envPrefix:"RSK_"`       // rpc_url "": not mined along

	chainBits     uint32  // of the embedded chain; 0: a block in about ten seconds of two cores
	cpuDifficulty float64 // of a miner's first shares on regtest
}

func defaultConfig() Config {
	kafka := bus.DefaultConfig()
	kafka.Brokers = nil
	return Config{
		Common:       service.Common{Log: service.Log{Level: "info", Format: "console"}},
		Data:         "btcpool-data",
		Stratum:      "127.0.0.1:3333",
		HTTP:         "127.0.0.1:8080",
		Threads:      runtime.NumCPU(),
		CoinbaseText: "/btcpool/",

		Kafka: kafka,
		RSK:   auxmaker.DefaultConfig().RSK,

		cpuDifficulty: 1.0 / (1 << 8), // 2^24 hashes
	}
}

// Flags binds the flags of a first try.
func (c *Config) Flags(f *flag.FlagSet) {
	f.StringVar(&c.Data, "data", c.Data, "keep everything in this `folder`")
	f.StringVar(&c.Stratum, "stratum", c.Stratum, "`address` that miners connect to; port 0: any free one")
	f.StringVar(&c.HTTP, "http", c.HTTP, "`address` of the dashboard; port 0: any free one")
	f.BoolVar(&c.Demo, "demo", c.Demo, "mine with this machine's CPU")
	f.StringVar(&c.Network, "network", c.Network, "`name` of the node's network: "+strings.Join(bitcoin.NetworkNames(), ", "))
	f.StringVar(&c.PayoutAddress, "payout", c.PayoutAddress, "`address` that receives the block rewards")
	f.StringVar(&c.Node.URL, "node", c.Node.URL, "`URL` of the node's RPC, as http://127.0.0.1:8332; empty: an embedded chain")
	f.StringVar(&c.Node.User, "node-user", c.Node.User, "RPC `user`")
	f.StringVar(&c.Node.PasswordFile, "node-password-file", c.Node.PasswordFile, "`file` with the RPC password")
	f.StringVar(&c.Node.CookieFile, "node-cookie", c.Node.CookieFile, "the node's cookie `file`, instead of user and password")
	f.StringVar(&c.Node.ZMQ, "node-zmq", c.Node.ZMQ, "the node's zmqpubhashblock `address`; empty: long polling only")
}

// Validate reports all faults.
func (c Config) Validate() error {
	var errs []error
	if c.Data == "" {
		errs = append(errs, errors.New("data: must name a folder"))
	}
	for _, a := range []struct{ key, addr string }{{"stratum", c.Stratum}, {"http", c.HTTP}} {
		if _, _, err := net.SplitHostPort(a.addr); err != nil {
			errs = append(errs, fmt.Errorf("%s = %q: must be host:port", a.key, a.addr))
		}
	}
	if c.Demo && c.Threads < 1 {
		errs = append(errs, fmt.Errorf("demo_threads = %d: must be at least 1", c.Threads))
	}
	if c.embeddedChain() {
		if c.Network != "" && c.Network != embeddedNetwork {
			errs = append(errs, fmt.Errorf("network = %q: needs a node; set node.rpc_url (or -node)", c.Network))
		}
	} else {
		errs = append(errs, c.Node.Validate())
		if c.Network == "" {
			errs = append(errs, fmt.Errorf("network: name the node's network: %s", strings.Join(bitcoin.NetworkNames(), ", ")))
		}
		if c.PayoutAddress == "" {
			errs = append(errs, errors.New("payout_address: name the address that receives the block rewards"))
		}
	}
	if network, err := bitcoin.NetworkByName(c.network()); err != nil {
		errs = append(errs, fmt.Errorf("network: %w", err))
	} else if c.PayoutAddress != "" {
		if _, err := network.PayoutScript(c.PayoutAddress); err != nil {
			errs = append(errs, fmt.Errorf("payout_address: %w", err))
		}
	}
	if !c.embeddedBroker() {
		errs = append(errs, c.Kafka.Validate())
	}
	if !c.embeddedDatabase() {
		errs = append(errs, c.Database.Validate())
	}
	if c.minesAlong() {
		along := c.along()
		along.Kafka = bus.DefaultConfig() // judged above
		errs = append(errs, along.Validate())
	}
	return errors.Join(errs...)
}

func (c Config) minesAlong() bool { return len(c.Chains) > 0 || c.RSK.URL != "" }

// along is the configuration of auxmaker.
func (c Config) along() auxmaker.Config {
	along := auxmaker.DefaultConfig()
	along.Chains, along.RSK, along.Kafka = c.Chains, c.RSK, c.Kafka
	return along
}

func (c Config) embeddedChain() bool    { return c.Node.URL == "" }
func (c Config) embeddedBroker() bool   { return len(c.Kafka.Brokers) == 0 }
func (c Config) embeddedDatabase() bool { return c.Database == store.Config{} }

// network is the name of the chain that is mined.
func (c Config) network() string {
	if c.embeddedChain() {
		return embeddedNetwork
	}
	return c.Network
}

// path returns where something is kept. Chains do not mix: what was mined on the embedded one must
// not turn up among the blocks of a real one.
func (c Config) path(name string) string {
	chain := c.Network
	if c.embeddedChain() {
		chain = "embedded"
	}
	return filepath.Join(c.Data, chain, name)
}

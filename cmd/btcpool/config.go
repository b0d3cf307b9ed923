package main

import (
	"cmp"
	"flag"
	"path/filepath"
	"runtime"
	"strings"

	"btcpool/auxmaker"
	"btcpool/internal/bitcoin"
	"btcpool/internal/bitcoin/noderpc"
	"btcpool/internal/bus"
	"btcpool/internal/config"
	"btcpool/internal/notify"
	"btcpool/internal/service"
	"btcpool/internal/store"
	"btcpool/statshttpd"
)

// Config is what the whole pool in one process is configured by. What is left out is embedded: a chain instead of a
// node, a broker instead of Kafka, a SQLite file instead of MySQL.
type Config struct {
	service.Common
	// Data is the folder of everything that is kept, with a folder for each chain.
	Data string `toml:"data" env:"DATA"`
	// Stratum is host:port that miners connect to, HTTP that of the dashboard and the API; port 0: any free one.
	Stratum string `toml:"stratum" env:"STRATUM"`
	HTTP    string `toml:"http" env:"HTTP"`
	// StratumURL is where the dashboard tells miners to connect, as statshttpd.ParsePlaces reads it; empty: where Stratum
	// listens.
	StratumURL string `toml:"stratum_url" env:"STRATUM_URL"`
	// Demo mines with the CPU, in so many threads.
	Demo    bool `toml:"demo" env:"DEMO"`
	Threads int  `toml:"demo_threads"`

	// Network is that of the node: one of bitcoin.NetworkNames. Empty without a node.
	Network string `toml:"network" env:"NETWORK"`
	// PayoutAddress receives the block rewards.
	PayoutAddress string `toml:"payout_address" env:"PAYOUT_ADDRESS"`
	// CoinbaseText is written into each block.
	CoinbaseText string `toml:"coinbase_text" env:"COINBASE_TEXT"`
	// Node without rpc_url is the embedded chain, Kafka without brokers the embedded broker, and Database without dsn a
	// SQLite file.
	Node     noderpc.Config `toml:"node" envPrefix:"NODE_"`
	Kafka    bus.Config     `toml:"kafka"`
	Database store.Config   `toml:"database"`

	// Chains are the AuxPoW chains that are mined along. So is RSK, if it has an rpc_url.
	Chains []auxmaker.Chain `toml:"chains" envPrefix:"CHAINS_"`
	RSK    auxmaker.RSK     `toml:"rsk" envPrefix:"RSK_"`

	// Dashboard has the pool's name, logo, colours, texts and links.
	Dashboard statshttpd.Dashboard `toml:"dashboard" envPrefix:"DASHBOARD_"`
	// Notify says who is told of what happens. Its folder is in Data unless it names another one.
	Notify notify.Config `toml:"notify" envPrefix:"NOTIFY_"`

	// chainBits is the target of the embedded chain; 0: by the speed of this machine.
	chainBits uint32
	// cpuDifficulty is that of a miner's first shares on regtest.
	cpuDifficulty float64
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

		Notify: notify.DefaultConfig(),

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
	var faults config.Faults
	if c.Data == "" {
		faults.Addf("data = %q: must name a folder", c.Data)
	}
	faults.Listen("stratum", c.Stratum)
	faults.Listen("http", c.HTTP)
	if _, err := statshttpd.ParsePlaces(c.StratumURL); err != nil {
		faults.Addf("stratum_url: %w", err)
	}
	if c.Demo && c.Threads < 1 {
		faults.Addf("demo_threads = %d: must be at least 1", c.Threads)
	}
	faults.Add(c.validateChain())
	if !c.embeddedBroker() {
		faults.Add(c.Kafka.Validate())
	}
	if !c.embeddedDatabase() {
		faults.Add(c.Database.Validate())
	}
	if c.minesAlong() {
		faults.Add(c.auxmaker().Validate())
	}
	faults.In("dashboard", c.Dashboard.Validate())
	faults.In("notify", c.notify().Validate())
	return withFlags(faults.Err())
}

// notify is what statshttpd tells people by.
func (c Config) notify() notify.Config {
	n := c.Notify
	n.DataDir = cmp.Or(n.DataDir, c.path("notify"))
	return n
}

// validateChain reports the faults of what is mined where, and for whom.
func (c Config) validateChain() error {
	var faults config.Faults
	if !c.embeddedChain() {
		faults.In("node", c.Node.Validate())
		if c.Network == "" {
			faults.Addf("network: name the node's network: %s", strings.Join(bitcoin.NetworkNames(), ", "))
		}
		if c.PayoutAddress == "" {
			faults.Addf("payout_address: name the address that receives the block rewards")
		}
	}
	network, err := bitcoin.NetworkByName(cmp.Or(c.Network, embeddedNetwork))
	switch {
	case err != nil:
		faults.Addf("network: %w", err)
	case c.embeddedChain() && network.Name != embeddedNetwork:
		faults.Addf("network = %q: needs a node: give its address as node.rpc_url (-node)", c.Network)
	case c.PayoutAddress == "" || !c.embeddedChain() && c.Network == "":
	default:
		_, err := network.PayoutScript(c.PayoutAddress)
		switch {
		case err != nil && c.embeddedChain() && c.Network == "":
			faults.Addf("payout_address = %q: needs a node: give its address as node.rpc_url (-node), and its network (-network); without one coins are worth nothing", c.PayoutAddress)
		case err != nil:
			faults.Addf("payout_address: %w", err)
		}
	}
	return faults.Err()
}

// flagOf is the flag of a key, if it has one.
var flagOf = map[string]string{
	"data": "-data", "stratum": "-stratum", "http": "-http", "demo": "-demo", "network": "-network", "payout_address": "-payout",
	"node.rpc_url": "-node", "node.rpc_user": "-node-user", "node.rpc_password_file": "-node-password-file",
	"node.rpc_cookie_file": "-node-cookie", "node.zmq_hashblock": "-node-zmq",
}

// withFlags puts the flag behind the key with which a fault begins.
func withFlags(err error) error {
	if err == nil {
		return nil
	}
	var faults config.Faults
	for line := range strings.SplitSeq(err.Error(), "\n") {
		end := max(strings.IndexAny(line, " :"), 0)
		if f := flagOf[line[:end]]; f != "" {
			line = line[:end] + " (" + f + ")" + line[end:]
		}
		faults.Addf("%s", line)
	}
	return faults.Err()
}

func (c Config) minesAlong() bool { return len(c.Chains) > 0 || c.RSK.URL != "" }

// auxmaker is the configuration of auxmaker, but for Kafka.
func (c Config) auxmaker() auxmaker.Config {
	cfg := auxmaker.DefaultConfig()
	cfg.Chains, cfg.RSK = c.Chains, c.RSK
	return cfg
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

// path returns where something is kept. Chains do not mix: what was mined on the embedded one must not turn up among
// the blocks of a real one.
func (c Config) path(name string) string {
	chain := c.Network
	if c.embeddedChain() {
		chain = "embedded"
	}
	return filepath.Join(c.Data, chain, name)
}

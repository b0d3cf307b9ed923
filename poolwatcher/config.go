package poolwatcher

import (
	"crypto/tls"
	"fmt"
	"regexp"

	"btcpool/internal/bitcoin"
	"btcpool/internal/bitcoin/noderpc"
	"btcpool/internal/bus"
	"btcpool/internal/config"
	"btcpool/internal/service"
)

// Config of a poolwatcher.
type Config struct {
	service.Common
	// Network is that of the pools and of our node: one of bitcoin.NetworkNames.
	Network string `toml:"network" env:"NETWORK"`
	// Agree is how many pools must name a block before miners work on it.
	Agree int `toml:"agree" env:"AGREE"`
	// Pools are watched, 1 to 100 of them.
	Pools []Pool `toml:"pools" envPrefix:"POOLS_"`
	// Node is ours: a block that it knows is no news.
	Node noderpc.Config `toml:"node" envPrefix:"NODE_"`
	// Kafka holds the topics of our own jobs and of templates.
	Kafka bus.Config `toml:"kafka"`
}

// Pool is a pool that is watched, over Stratum V1.
type Pool struct {
	// Name is the pool's in messages, logs and metrics.
	Name string `toml:"name" env:"NAME"`
	// Addr is host:port. With TLS the system's authorities must know the pool's certificate.
	Addr string `toml:"addr" env:"ADDR"`
	TLS  bool   `toml:"tls" env:"TLS"`
	// User is an account of that pool. Most pools take any Password.
	User     string `toml:"user" env:"USER"`
	Password string `toml:"password" env:"PASSWORD"`
}

// tls returns nil for a connection without TLS.
func (p Pool) tls() *tls.Config {
	if !p.TLS {
		return nil
	}
	return new(tls.Config)
}

// DefaultConfig returns a Config that lacks pools and node.
func DefaultConfig() Config {
	return Config{Network: "mainnet", Agree: 1, Kafka: bus.DefaultConfig()}
}

// maxPools bounds connections and labels.
const maxPools = 100

var validName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$`)

// Validate reports every fault of c at once.
func (c Config) Validate() error {
	var faults config.Faults
	_, err := bitcoin.NetworkByName(c.Network)
	faults.Value("network", c.Network, err)
	if len(c.Pools) == 0 || len(c.Pools) > maxPools {
		faults.Addf("pools: 1 to %d [[pools]] sections are needed", maxPools)
	}
	if c.Agree < 1 || c.Agree > max(1, len(c.Pools)) {
		faults.Addf("agree = %d: must be 1 to the number of pools", c.Agree)
	}
	names := make(map[string]bool)
	for i, p := range c.Pools {
		if !validName.MatchString(p.Name) || names[p.Name] {
			faults.Addf("pools[%d].name = %q: must be 1 to 32 letters, digits, '.', '_' and '-' that no other has", i, p.Name)
		}
		names[p.Name] = true
		_, _, err := config.Peer(p.Addr)
		faults.Value(fmt.Sprintf("pools[%d].addr", i), p.Addr, err)
		if p.User == "" {
			faults.Addf("pools[%d].user: must name an account of the pool", i)
		}
	}
	faults.In("node", c.Node.Validate())
	faults.Add(c.Kafka.Validate())
	return faults.Err()
}

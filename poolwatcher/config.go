package poolwatcher

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"

	"btcpool/internal/bitcoin"
	"btcpool/internal/bitcoin/noderpc"
	"btcpool/internal/bus"
	"btcpool/internal/service"
)

// Config of a poolwatcher.
type Config struct {
	service.Common
	Network string         `toml:"network" env:"NETWORK"`    // one of bitcoin.NetworkNames
	Agree   int            `toml:"agree" env:"AGREE"`        // so many pools must name a block before miners work on it
	Pools   []Pool         `toml:"pools" envPrefix:"POOLS_"` // that are watched
	Node    noderpc.Config `toml:"node" envPrefix:"NODE_"`   // ours: what it knows needs no watcher
	Kafka   bus.Config     `toml:"kafka"`
}

// Pool is a pool that is watched, over Stratum V1.
type Pool struct {
	Name     string `toml:"name" env:"NAME"`         // in messages, logs and metrics
	Addr     string `toml:"addr" env:"ADDR"`         // host:port
	TLS      bool   `toml:"tls" env:"TLS"`           // the system's authorities must know the pool's certificate
	User     string `toml:"user" env:"USER"`         // an account of that pool
	Password string `toml:"password" env:"PASSWORD"` // most pools take any
}

// tls returns nil when there is none.
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
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if _, err := bitcoin.NetworkByName(c.Network); err != nil {
		fault("network = %q: %w", c.Network, err)
	}
	if len(c.Pools) == 0 || len(c.Pools) > maxPools {
		fault("pools: 1 to %d [[pools]] sections are needed", maxPools)
	}
	if c.Agree < 1 || c.Agree > max(1, len(c.Pools)) {
		fault("agree = %d: must be 1 to the number of pools", c.Agree)
	}
	names := make(map[string]bool)
	for i, p := range c.Pools {
		if !validName.MatchString(p.Name) || names[p.Name] {
			fault("pools[%d].name = %q: must be 1 to 32 letters, digits, '.', '_' and '-' that no other has", i, p.Name)
		}
		names[p.Name] = true
		host, port, err := net.SplitHostPort(p.Addr)
		if n, e := strconv.ParseUint(port, 10, 16); err != nil || e != nil || n == 0 || host == "" {
			fault("pools[%d].addr = %q: must be host:port", i, p.Addr)
		}
		if p.User == "" {
			fault("pools[%d].user: must name an account of the pool", i)
		}
	}
	if err := c.Node.Validate(); err != nil {
		for line := range strings.Lines(err.Error()) {
			fault("node.%s", strings.TrimSpace(line))
		}
	}
	return errors.Join(append(errs, c.Kafka.Validate())...)
}

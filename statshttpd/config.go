package statshttpd

import (
	"time"

	"btcpool/internal/bus"
	"btcpool/internal/config"
	"btcpool/internal/httpapi"
	"btcpool/internal/service"
	"btcpool/internal/store"
)

// Config is what statshttpd is configured by.
type Config struct {
	service.Common
	// Listen is the host:port of the dashboard and the API, "127.0.0.1:8080" by default; port 0 is any free one.
	Listen string `toml:"listen" env:"LISTEN" oldenv:"HTTP_LISTEN"`
	// MaxConnections is how many HTTP connections are open at a time; 512 by default. For one more, the one that waits for
	// a request for the longest is closed.
	MaxConnections int `toml:"max_connections"`
	// StratumURL is where the dashboard tells miners to connect, a list as ParsePlaces reads it; it does not say so when
	// this is empty, the default. Without a host, "stratum+tcp://:3333", it is the host by which the dashboard was
	// reached.
	StratumURL string `toml:"stratum_url" env:"STRATUM_URL"`
	// Network names the chain on the dashboard; it does not say so when this is empty, the default.
	Network string `toml:"network" env:"NETWORK"`
	// FlushDBInterval is the time between two writes of mining_workers, at least 1 s; 15 s by default.
	FlushDBInterval config.Duration `toml:"flush_db_interval"`
	// MaxWorkers is how many workers with a share in the last hour are kept in memory, about 5 KB each, how many that
	// wait for their first share, and how many past events are read; 100000 by default.
	MaxWorkers int `toml:"max_workers"`
	// WorkersRetention is how long mining_workers keeps the row of a worker that has no more shares; 0: for ever; 90
	// days by default. Rows without any share go after a day, whatever it is.
	WorkersRetention config.Duration `toml:"workers_retention"`
	// WebDir is a folder whose files are the dashboard instead of the built-in ones, unless it is empty, the default.
	WebDir   string       `toml:"web_dir"`
	Kafka    bus.Config   `toml:"kafka"`
	Database store.Config `toml:"database"`
}

// DefaultConfig returns what holds for keys that are not set. The database has no default.
func DefaultConfig() Config {
	return Config{
		Listen:           "127.0.0.1:8080",
		MaxConnections:   httpapi.MaxConnections,
		FlushDBInterval:  config.Duration(15 * time.Second),
		MaxWorkers:       100_000,
		WorkersRetention: config.Duration(90 * 24 * time.Hour),
		Kafka:            bus.DefaultConfig(),
	}
}

// Validate reports all faults.
func (c Config) Validate() error {
	var faults config.Faults
	faults.Listen("listen", c.Listen)
	faults.Number("max_connections", c.MaxConnections, 1, 1<<20)
	if _, err := ParsePlaces(c.StratumURL); err != nil {
		faults.Addf("stratum_url: %w", err)
	}
	faults.AtLeast("flush_db_interval", c.FlushDBInterval, time.Second)
	if c.WorkersRetention != 0 {
		faults.AtLeast("workers_retention", c.WorkersRetention, 2*time.Hour)
	}
	faults.Number("max_workers", c.MaxWorkers, 1, 10_000_000)
	faults.Add(c.Kafka.Validate())
	faults.Add(c.Database.Validate())
	return faults.Err()
}

package sharelogger

import (
	"errors"
	"fmt"
	"time"

	"btcpool/internal/bus"
	"btcpool/internal/config"
	"btcpool/internal/service"
	"btcpool/internal/sharefile"
)

// Config is what sharelogger is configured by.
type Config struct {
	service.Common
	DataDir       string          `toml:"data_dir" env:"SHARELOG_DIR"` // of the day files; this process's alone
	Chain         string          `toml:"chain"`                       // part of the files' names
	FlushInterval config.Duration `toml:"flush_interval"`              // a share is on disk after about this time
	FlushBytes    int             `toml:"flush_bytes"`                 // or when this much has been collected; also what is kept in memory at most
	Start         string          `toml:"start"`                       // where a directory without our checkpoints begins: earliest or latest
	Kafka         bus.Config      `toml:"kafka"`
}

// DefaultConfig returns what holds for keys that are not set.
func DefaultConfig() Config {
	return Config{
		DataDir:       "sharelog",
		Chain:         "BTC",
		FlushInterval: config.Duration(2 * time.Second),
		FlushBytes:    8 << 20,
		Start:         startEarliest,
		Kafka:         bus.DefaultConfig(),
	}
}

const (
	startEarliest = "earliest"
	startLatest   = "latest"

	minFlushBytes = 64 << 10
	maxFlushBytes = 64 << 20
)

// Validate reports all faults.
func (c Config) Validate() error {
	var errs []error
	if c.DataDir == "" {
		errs = append(errs, errors.New("data_dir: must be set"))
	}
	if err := sharefile.CheckChain(c.Chain); err != nil {
		errs = append(errs, fmt.Errorf("chain = %q: %w", c.Chain, err))
	}
	if d := c.FlushInterval.Std(); d < 10*time.Millisecond || d > time.Minute {
		errs = append(errs, fmt.Errorf("flush_interval = %q: must be 10ms to 1m", c.FlushInterval))
	}
	if c.FlushBytes < minFlushBytes || c.FlushBytes > maxFlushBytes {
		errs = append(errs, fmt.Errorf("flush_bytes = %d: must be %d to %d", c.FlushBytes, minFlushBytes, maxFlushBytes))
	}
	if c.Start != startEarliest && c.Start != startLatest {
		errs = append(errs, fmt.Errorf("start = %q: must be %s or %s", c.Start, startEarliest, startLatest))
	}
	return errors.Join(append(errs, c.Kafka.Validate())...)
}

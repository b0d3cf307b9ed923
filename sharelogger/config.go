package sharelogger

import (
	"flag"
	"strings"
	"time"
	"unicode"

	"btcpool/internal/bus"
	"btcpool/internal/config"
	"btcpool/internal/service"
	"btcpool/internal/sharefile"
)

// Config is what sharelogger is configured by.
type Config struct {
	service.Common
	// DataDir is the folder of the day files, which is this process's alone; "sharelog" by default. It is made when it
	// is missing.
	DataDir string `toml:"data_dir" env:"DATA_DIR" oldenv:"SHARELOG_DIR"`
	// Chain is part of the files' names; "BTC" by default.
	Chain string `toml:"chain"`
	// FlushInterval is about how long a share may wait until it is on disk; 2 s by default.
	FlushInterval config.Duration `toml:"flush_interval"`
	// FlushBytes is how much is collected, before compression, until it is flushed at once. No more is kept in memory.
	// 8 MB by default.
	FlushBytes int `toml:"flush_bytes"`
	// GroupID is the consumer group that btcpool's sharelogger keeps its offset in: we go on where it stopped, and the
	// other way round. "", the default: none.
	GroupID string `toml:"kafka_group_id"`
	// Start is where a folder without checkpoints of sharelogger begins in the topic: earliest or latest. "", the
	// default: with the earliest if the folder has no files of other software either.
	Start string     `toml:"start"`
	Kafka bus.Config `toml:"kafka"`

	// Repair, unless it is 0, has only this day's file repaired from the topic.
	Repair sharefile.Day `toml:"-"`
}

// Flags adds the flag of the mode that does one thing and exits.
func (c *Config) Flags(flags *flag.FlagSet) {
	flags.Func("repair", "take from the topic again what is damaged or missing in the file of the `day` YYYYMMDD, and exit", func(text string) (err error) {
		c.Repair, err = sharefile.ParseDay(text)
		return err
	})
}

// Base leaves the admin address to the sharelogger that writes.
func (c Config) Base() service.Common {
	if c.Repair != 0 {
		c.Admin = ""
	}
	return c.Common
}

// DefaultConfig returns what holds for keys that are not set.
func DefaultConfig() Config {
	return Config{
		DataDir:       "sharelog",
		Chain:         "BTC",
		FlushInterval: config.Duration(2 * time.Second),
		FlushBytes:    8 << 20,
		Kafka:         bus.DefaultConfig(),
	}
}

const (
	startEarliest = "earliest"
	startLatest   = "latest"

	maxGroupID    = 255
	minFlushBytes = 64 << 10
	maxFlushBytes = 64 << 20
)

// Validate reports all faults.
func (c Config) Validate() error {
	var faults config.Faults
	faults.Folder("data_dir", c.DataDir)
	faults.Value("chain", c.Chain, sharefile.CheckChain(c.Chain))
	if d := c.FlushInterval.Std(); d < 10*time.Millisecond || d > time.Minute {
		faults.Addf("flush_interval = %q: must be 10ms to 1m", c.FlushInterval)
	}
	faults.Number("flush_bytes", c.FlushBytes, minFlushBytes, maxFlushBytes)
	if len(c.GroupID) > maxGroupID || strings.ContainsFunc(c.GroupID, unicode.IsControl) {
		faults.Addf("kafka_group_id = %q: must be at most %d characters", c.GroupID, maxGroupID)
	}
	switch c.Start {
	case "", startEarliest, startLatest:
	default:
		faults.Addf("start = %q: must be %s, %s or empty", c.Start, startEarliest, startLatest)
	}
	faults.Add(c.Kafka.Validate())
	return faults.Err()
}

package sharelogger

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"btcpool/internal/archive"
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
	// CompressionLevel is gzip's, 1 (fast) to 9 (small), 0 (none) or -1, the default: the library's choice.
	CompressionLevel int `toml:"compression_level"`
	// FileMode is the permissions of new day files, octal. "", the default: 0640, less what the umask takes.
	FileMode string `toml:"file_mode"`
	// GroupID is the consumer group that btcpool's sharelogger keeps its offset in: we go on where it stopped, and the
	// other way round. "", the default: none.
	GroupID string `toml:"kafka_group_id"`
	// Start is where a folder without checkpoints of sharelogger begins in the topic: earliest or latest. "", the
	// default: with the earliest if the folder has no files of other software either.
	Start string     `toml:"start"`
	Kafka bus.Config `toml:"kafka"`
	Seal  SealConfig `toml:"seal"`
	// Chains, if there are any, are kept by one process in place of Chain: see PerChain.
	Chains []Chain `toml:"chains"`

	// Repair, unless it is 0, has only this day's file repaired from the topic.
	Repair sharefile.Day `toml:"-"`
	// SealDay, unless it is 0, has only this day sealed, and VerifyDay only this day compared with what it was sealed of.
	SealDay, VerifyDay sharefile.Day `toml:"-"`
	// Only is which of several chains that is about.
	Only string `toml:"-"`
}

// Chain is one of several. All else is as in Config.
type Chain struct {
	// Chain is part of the files' names.
	Chain string `toml:"chain"`
	// DataDir is the folder of the chain's files, which no other chain has. "", the default: one named after the chain in
	// Config's.
	DataDir string `toml:"data_dir"`
	// ShareTopic has the chain's shares and no others.
	ShareTopic string `toml:"share_topic"`
	// GroupID and Start are as in Config.
	GroupID string `toml:"kafka_group_id"`
	Start   string `toml:"start"`
}

// PerChain returns what each chain's share log is kept by.
func (c Config) PerChain() []Config {
	if len(c.Chains) == 0 {
		return []Config{c}
	}
	var all []Config
	for _, chain := range c.Chains {
		one := c
		one.Chains = nil
		one.Chain, one.DataDir, one.GroupID, one.Start = chain.Chain, chain.DataDir, chain.GroupID, chain.Start
		if one.DataDir == "" {
			one.DataDir = filepath.Join(c.DataDir, chain.Chain)
		}
		one.Kafka.Topics.Share = chain.ShareTopic
		all = append(all, one)
	}
	return all
}

// SealConfig says what becomes of past days.
type SealConfig struct {
	// After is how long a day has to be over, and its file the same, until it is sealed; 0, the default: no day is.
	After config.Duration `toml:"after"`
	// RemoveSourceAfter is how many days a day has to be over until its file is removed, if what was sealed of it is
	// verified; 0, the default: none is.
	RemoveSourceAfter int `toml:"remove_source_after"`
	// Archive is where sealed days are copied to.
	Archive archive.Config `toml:"archive"`
}

// Flags adds the flags of the modes that do one thing and exit.
func (c *Config) Flags(flags *flag.FlagSet) {
	day := func(name string, day *sharefile.Day, usage string) {
		flags.Func(name, usage, func(text string) (err error) {
			*day, err = sharefile.ParseDay(text)
			return err
		})
	}
	day("repair", &c.Repair, "take from the topic again what is damaged or missing in the file of the `day` YYYYMMDD, and exit")
	day("seal", &c.SealDay, "make the Parquet file of the `day` YYYYMMDD, and exit")
	flags.StringVar(&c.Only, "chain", "", "with one of the others, when there are several chains: the `chain` it is about")
	day("verify", &c.VerifyDay, "read the Parquet file of the `day` YYYYMMDD, compare it with its source if that is there, and exit")
}

// once tells whether it is to do one thing and exit.
func (c Config) once() bool { return c.Repair != 0 || c.SealDay != 0 || c.VerifyDay != 0 }

// Base leaves the admin address to the sharelogger that writes.
func (c Config) Base() service.Common {
	if c.once() {
		c.Admin = ""
	}
	return c.Common
}

// DefaultConfig returns what holds for keys that are not set.
func DefaultConfig() Config {
	return Config{
		DataDir:          "sharelog",
		Chain:            "BTC",
		FlushInterval:    config.Duration(2 * time.Second),
		FlushBytes:       8 << 20,
		CompressionLevel: -1,
		Kafka:            bus.DefaultConfig(),
	}
}

const (
	startEarliest = "earliest"
	startLatest   = "latest"

	maxGroupID    = 255
	minFlushBytes = 64 << 10
	maxFlushBytes = 64 << 20
)

// fileMode returns 0 if none is configured.
func (c Config) fileMode() (os.FileMode, error) {
	if c.FileMode == "" {
		return 0, nil
	}
	mode, err := strconv.ParseUint(c.FileMode, 8, 32)
	if err != nil || mode&^0o666 != 0 || mode&0o600 != 0o600 {
		return 0, errors.New("must be an octal number from 0600 to 0666, or empty")
	}
	return os.FileMode(mode), nil
}

// Validate reports all faults.
func (c Config) Validate() error {
	var faults config.Faults
	faults.Folder("data_dir", c.DataDir)
	faults.Value("chain", c.Chain, sharefile.CheckChain(c.Chain))
	faults.Add(checkGroup(c.GroupID))
	faults.Add(checkStart(c.Start))
	faults.Add(c.validateChains())
	faults.Add(c.validateOnly())
	if d := c.FlushInterval.Std(); d < 10*time.Millisecond || d > time.Minute {
		faults.Addf("flush_interval = %q: must be 10ms to 1m", c.FlushInterval)
	}
	faults.Number("flush_bytes", c.FlushBytes, minFlushBytes, maxFlushBytes)
	faults.Number("compression_level", c.CompressionLevel, -1, 9)
	_, err := c.fileMode()
	faults.Value("file_mode", c.FileMode, err)
	faults.Add(c.Kafka.Validate())
	if d := c.Seal.After.Std(); d != 0 && (d < time.Minute || d > 30*24*time.Hour) {
		faults.Addf("seal.after = %q: must be 1m to 720h, or 0s", c.Seal.After)
	}
	faults.Number("seal.remove_source_after", c.Seal.RemoveSourceAfter, 0, 10_000)
	if c.Seal.RemoveSourceAfter > 0 && c.Seal.After == 0 {
		faults.Addf("seal.remove_source_after = %d: needs seal.after", c.Seal.RemoveSourceAfter)
	}
	if c.Seal.Archive != (archive.Config{}) && c.Seal.After == 0 {
		faults.Addf("seal.archive: needs seal.after")
	}
	faults.In("seal.archive", c.Seal.Archive.Validate())
	once := 0
	for _, day := range []sharefile.Day{c.Repair, c.SealDay, c.VerifyDay} {
		if day != 0 {
			once++
		}
	}
	if once > 1 {
		faults.Addf("-repair, -seal, -verify: only one of them")
	}
	return faults.Err()
}

func checkGroup(id string) error {
	if len(id) > maxGroupID || strings.ContainsFunc(id, unicode.IsControl) {
		return fmt.Errorf("kafka_group_id = %q: must be at most %d characters", id, maxGroupID)
	}
	return nil
}

func checkStart(start string) error {
	switch start {
	case "", startEarliest, startLatest:
		return nil
	}
	return fmt.Errorf("start = %q: must be %s, %s or empty", start, startEarliest, startLatest)
}

// validateChains wants no two chains to share anything.
func (c Config) validateChains() error {
	var faults config.Faults
	if len(c.Chains) == 0 {
		return nil
	}
	usual := DefaultConfig()
	if c.Chain != usual.Chain || c.GroupID != "" || c.Start != "" || c.Kafka.Topics.Share != usual.Kafka.Topics.Share {
		faults.Addf("chain, kafka_group_id, start, kafka.topics.share: with [[chains]] each chain has its own")
	}
	taken := make(map[string]bool)
	for i, one := range c.PerChain() {
		section := fmt.Sprintf("chains[%d]", i)
		own := func(key, value string) {
			if key = fmt.Sprintf("%s = %q", key, value); taken[key] {
				faults.Addf("%s.%s: another chain has it", section, key)
			}
			taken[key] = true
		}
		faults.Value(section+".chain", one.Chain, sharefile.CheckChain(one.Chain))
		faults.In(section, checkGroup(one.GroupID))
		faults.In(section, checkStart(one.Start))
		faults.Value(section+".share_topic", one.Kafka.Topics.Share, bus.CheckTopic(one.Kafka.Topics.Share))
		own("chain", one.Chain)
		own("data_dir", filepath.Clean(one.DataDir))
		own("share_topic", one.Kafka.Topics.Share)
		if one.GroupID != "" {
			own("kafka_group_id", one.GroupID)
		}
	}
	return faults.Err()
}

// validateOnly wants -chain to name a chain when one thing is done to one of several, and not otherwise.
func (c Config) validateOnly() error {
	var names []string
	for _, one := range c.PerChain() {
		names = append(names, one.Chain)
	}
	switch all := strings.Join(names, ", "); {
	case c.Only != "" && !c.once():
		return errors.New("-chain: needs -repair, -seal or -verify")
	case c.Only == "" && c.once() && len(names) > 1:
		return fmt.Errorf("-chain: must name one of %s", all)
	case c.Only != "" && !slices.Contains(names, c.Only):
		return fmt.Errorf("-chain %s: there is only %s", c.Only, all)
	}
	return nil
}

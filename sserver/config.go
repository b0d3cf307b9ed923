package sserver

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"time"

	"btcpool/internal/bitcoin"
	"btcpool/internal/bus"
	"btcpool/internal/config"
	"btcpool/internal/guard"
	"btcpool/internal/handover"
	"btcpool/internal/job"
	"btcpool/internal/registry"
	"btcpool/internal/service"
	"btcpool/internal/store"
	"btcpool/internal/users"
	"btcpool/sserver/operator"
)

// Config is the file of sserver. Difficulties are decimal numbers, rounded up
// to a power of two; below 1 is allowed.
type Config struct {
	service.Common

	Listen         string          `toml:"listen" env:"SSERVER_LISTEN"`     // host:port for miners; port 0: any free one; "": Listeners only
	ServerID       uint8           `toml:"server_id" env:"SSERVER_ID"`      // 1 to 255, no two alike in a pool: first byte of every extranonce1; 0: leased from ZooKeeper
	DataDir        string          `toml:"data_dir" env:"SSERVER_DATA_DIR"` // spools and the snapshot of the users
	SpoolMaxBytes  int64           `toml:"spool_max_bytes"`                 // shares kept while Kafka is away; miners get errors beyond; 0: 4 GiB
	SpoolMaxAge    config.Duration `toml:"spool_max_age"`                   // of the oldest share kept so, for others to be taken; 0: any
	MaxConnections int             `toml:"max_connections"`                 // further ones are closed at once
	MaxAgentMiners int             `toml:"max_agent_miners"`                // behind all agents; further ones are not served

	DefaultDifficulty float64         `toml:"default_difficulty"`
	MinDifficulty     float64         `toml:"min_difficulty"`
	MaxDifficulty     float64         `toml:"max_difficulty"`
	ShareInterval     config.Duration `toml:"share_interval"`     // wanted between the shares of a miner
	DiffAdjustPeriod  config.Duration `toml:"diff_adjust_period"` // how far back shares count for the difficulty
	HashrateLevels    bool            `toml:"hashrate_levels"`    // from 16 TH/s on miners send shares more often, up to 6 times as often from 512 TH/s on
	VersionMask       string          `toml:"version_mask"`       // version bits that miners may roll, 8 hex digits

	NonceBytes int `toml:"extranonce2_size"` // 4 to 8 bytes; agents always have 8

	MaxJobDelay          config.Duration `toml:"max_job_delay"`          // jobs that arrive later are dropped
	MaxJobLifetime       config.Duration `toml:"max_job_lifetime"`       // shares of older jobs are refused
	MiningNotifyInterval config.Duration `toml:"mining_notify_interval"` // a job is sent again when none was for so long

	StaleGrace config.Duration `toml:"stale_grace"` // shares of the block before are credited so long after a new one; 0: not at all

	LoginTimeout   config.Duration `toml:"login_timeout"`      // from connecting to being authorized
	TCPReadTimeout config.Duration `toml:"tcp_read_timeout"`   // without a request, once authorized
	WriteTimeout   config.Duration `toml:"tcp_write_timeout"`  // until a miner that stopped reading is disconnected
	LongTimeout    config.Duration `toml:"long_timeout"`       // instead of TCPReadTimeout for agents and LongAgents
	LongAgents     string          `toml:"long_timeout_agent"` // regular expression found in the user agent, upper and lower case the same; "": none

	NiceHash    NiceHash                `toml:"nicehash"`
	Drain       Drain                   `toml:"drain"`
	Development Development             `toml:"development"`
	Limits      guard.Limits            `toml:"limits"`
	Handover    handover.Config         `toml:"handover"`
	Listeners   []Listener              `toml:"listeners"` // more of them
	Users       users.Config            `toml:"users"`
	Kafka       bus.Config              `toml:"kafka"`
	Database    store.Config            `toml:"database"`
	AdminAPI    operator.APIConfig      `toml:"admin_api" envPrefix:"ADMIN_API_"`
	Management  operator.CommandsConfig `toml:"management"`
	ZooKeeper   registry.Config         `toml:"zookeeper"`
	LockPath    string                  `toml:"zookeeper_lock_path"` // where ServerID is leased
}

// Development is for trying a pool out. Neither belongs where people mine.
type Development struct {
	Simulator           bool `toml:"simulator"`             // shares need no difficulty
	SubmitInvalidBlocks bool `toml:"submit_invalid_blocks"` // each share is handed over as a block of every chain
}

// NiceHash says what difficulty its buyers' miners do not fall below.
type NiceHash struct {
	MinDifficulty float64 `toml:"min_difficulty"` // 0: as all others'
	Forced        bool    `toml:"forced"`         // for all miners
}

// DefaultConfig returns btcpool's customary values.
func DefaultConfig() Config {
	return Config{
		Listen:               "0.0.0.0:3333",
		ServerID:             1,
		DataDir:              "data/sserver",
		MaxConnections:       100_000,
		MaxAgentMiners:       1_000_000,
		DefaultDifficulty:    16384,
		MinDifficulty:        0.00001,
		MaxDifficulty:        bitcoin.MaxDifficulty.Float(),
		ShareInterval:        config.Duration(10 * time.Second),
		DiffAdjustPeriod:     config.Duration(15 * time.Minute),
		HashrateLevels:       true,
		VersionMask:          "1fffe000",
		NonceBytes:           job.Extranonce2Size,
		MaxJobDelay:          config.Duration(time.Minute),
		MaxJobLifetime:       config.Duration(5 * time.Minute),
		MiningNotifyInterval: config.Duration(30 * time.Second),
		LoginTimeout:         config.Duration(15 * time.Second),
		TCPReadTimeout:       config.Duration(10 * time.Minute),
		WriteTimeout:         config.Duration(20 * time.Second),
		LongTimeout:          config.Duration(7 * 24 * time.Hour),
		LongAgents:           "^nicehash/|^__PoolWatcher__$",
		NiceHash:             NiceHash{MinDifficulty: 524288},
		Limits:               guard.DefaultLimits(),
		Users:                users.DefaultConfig(),
		Kafka:                bus.DefaultConfig(),
		Database:             store.Config{DSN: "sqlite:data/btcpool.db"},
		Management:           operator.DefaultCommands(),
		ZooKeeper:            registry.DefaultConfig(),
		LockPath:             "/locks/sserver_btc", // as btcpool has it: both may share ids
	}
}

// Validate reports all faults.
func (c Config) Validate() error {
	errs := []error{c.Kafka.Validate()}
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	places := c.places()
	if len(places) == 0 {
		fault(`listen = "": must be host:port, as there are no listeners`)
	}
	for i, l := range places {
		prefix := ""
		if own := i - (len(places) - len(c.Listeners)); own >= 0 {
			prefix = fmt.Sprintf("listeners[%d].", own)
		}
		errs = append(errs, l.validate(prefix))
	}
	errs = append(errs, c.validateUsers(), c.Handover.Validate(), c.Drain.validate(c.stopTimeout()), config.In("limits", c.Limits.Validate()),
		c.validateID(), config.In("admin_api", c.AdminAPI.Validate()), config.In("management", c.Management.Validate(c.Kafka.Topics)))
	if _, err := c.longAgents(); err != nil {
		fault("long_timeout_agent = %q: %v", c.LongAgents, err)
	}
	if d := c.NiceHash.MinDifficulty; !(d >= 0 && d <= bitcoin.MaxDifficulty.Float()) {
		fault("nicehash.min_difficulty = %v: must be 0 to 2^%d", d, bitcoin.MaxDifficulty)
	}
	if c.MaxAgentMiners < 0 {
		fault("max_agent_miners = %d: must not be negative", c.MaxAgentMiners)
	}
	if c.DataDir == "" {
		fault(`data_dir = "": must name a directory`)
	}
	if c.SpoolMaxAge < 0 {
		fault("spool_max_age = %q: must not be negative", c.SpoolMaxAge)
	}
	if c.SpoolMaxBytes < 0 {
		fault("spool_max_bytes = %d: must not be negative", c.SpoolMaxBytes)
	}
	if c.MaxConnections < 1 || c.MaxConnections > sessionIDs {
		fault("max_connections = %d: must be 1 to %d", c.MaxConnections, sessionIDs)
	}
	if _, err := strconv.ParseUint(c.VersionMask, 16, 32); err != nil || len(c.VersionMask) != 8 {
		fault("version_mask = %q: must be 8 hex digits", c.VersionMask)
	}
	for _, d := range []struct {
		key   string
		value config.Duration
	}{
		{"share_interval", c.ShareInterval},
		{"max_job_delay", c.MaxJobDelay},
		{"max_job_lifetime", c.MaxJobLifetime},
		{"mining_notify_interval", c.MiningNotifyInterval},
		{"login_timeout", c.LoginTimeout},
		{"tcp_read_timeout", c.TCPReadTimeout},
		{"tcp_write_timeout", c.WriteTimeout},
		{"long_timeout", c.LongTimeout},
	} {
		if d.value.Std() < time.Second {
			fault("%s = %q: must be at least 1s", d.key, d.value)
		}
	}
	if c.StaleGrace < 0 || c.StaleGrace > c.MaxJobDelay {
		fault("stale_grace = %q: must be 0s to max_job_delay = %q", c.StaleGrace, c.MaxJobDelay)
	}
	if c.DiffAdjustPeriod < 10*c.ShareInterval {
		fault("diff_adjust_period = %q: must be at least 10 times share_interval = %q", c.DiffAdjustPeriod, c.ShareInterval)
	}
	if c.MaxJobLifetime < c.MaxJobDelay {
		fault("max_job_lifetime = %q: must be at least max_job_delay = %q", c.MaxJobLifetime, c.MaxJobDelay)
	}
	return errors.Join(errs...)
}

// stopTimeout is how long the frame of services lets stopping take.
func (c Config) stopTimeout() time.Duration {
	if c.StopTimeout == 0 {
		return 30 * time.Second
	}
	return c.StopTimeout.Std()
}

// validateUsers reports all faults of [users] and of what listeners have
// instead.
func (c Config) validateUsers() error {
	var faults config.Faults
	var own []users.Source
	for i, l := range c.Listeners {
		if l.Users != nil {
			faults.In(fmt.Sprintf("listeners[%d].users", i), l.Users.Validate())
			own = append(own, *l.Users)
		}
	}
	faults.In("users", c.Users.Validate(own...))
	if c.Users.InDatabase() || slices.ContainsFunc(own, users.Source.InDatabase) {
		faults.Add(c.Database.Validate())
	}
	return faults.Err()
}

// longAgents returns nil when there is no expression.
func (c Config) longAgents() (*regexp.Regexp, error) {
	if c.LongAgents == "" {
		return nil, nil
	}
	return regexp.Compile("(?i)" + c.LongAgents)
}

// versionMask is that of a valid Config.
func (c Config) versionMask() uint32 {
	mask, _ := strconv.ParseUint(c.VersionMask, 16, 32)
	return uint32(mask)
}

package sserver

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"btcpool/internal/bitcoin"
	"btcpool/internal/bus"
	"btcpool/internal/service"
	"btcpool/internal/store"
	"btcpool/internal/vardiff"
)

// Config is the file of sserver. Difficulties are decimal numbers, rounded up
// to a power of two; below 1 is allowed.
type Config struct {
	service.Common

	Listen         string `toml:"listen" env:"SSERVER_LISTEN"`     // host:port for miners; port 0: any free one
	ServerID       uint8  `toml:"server_id" env:"SSERVER_ID"`      // 1 to 255, no two alike in a pool: first byte of every extranonce1
	DataDir        string `toml:"data_dir" env:"SSERVER_DATA_DIR"` // spools and the snapshot of the users
	SpoolMaxBytes  int64  `toml:"spool_max_bytes"`                 // shares kept while Kafka is away; miners get errors beyond; 0: 4 GiB
	MaxConnections int    `toml:"max_connections"`                 // further ones are closed at once

	DefaultDifficulty float64          `toml:"default_difficulty"`
	MinDifficulty     float64          `toml:"min_difficulty"`
	MaxDifficulty     float64          `toml:"max_difficulty"`
	ShareInterval     service.Duration `toml:"share_interval"`     // wanted between the shares of a miner
	DiffAdjustPeriod  service.Duration `toml:"diff_adjust_period"` // how far back shares count for the difficulty
	VersionMask       string           `toml:"version_mask"`       // version bits that miners may roll, 8 hex digits

	MaxJobDelay          service.Duration `toml:"max_job_delay"`          // jobs that arrive later are dropped
	MaxJobLifetime       service.Duration `toml:"max_job_lifetime"`       // shares of older jobs are refused
	MiningNotifyInterval service.Duration `toml:"mining_notify_interval"` // a job is sent again when none was for so long

	LoginTimeout   service.Duration `toml:"login_timeout"`     // from connecting to being authorized
	TCPReadTimeout service.Duration `toml:"tcp_read_timeout"`  // without a request, once authorized
	WriteTimeout   service.Duration `toml:"tcp_write_timeout"` // until a miner that stopped reading is disconnected

	Users    Users        `toml:"users"`
	Kafka    bus.Config   `toml:"kafka"`
	Database store.Config `toml:"database"`
}

// Users says who may mine.
type Users struct {
	Source          string           `toml:"source"`          // one of the sources below
	ListURL         string           `toml:"list_id_api_url"` // of source api: asked for what is new with ?last_id=
	ListInterval    service.Duration `toml:"list_interval"`   // between such questions
	CaseInsensitive bool             `toml:"case_insensitive"`
	Static          map[string]int32 `toml:"static"`         // of source static: ids by name
	LoginDeadline   service.Duration `toml:"login_deadline"` // for the database to know a name
}

// The sources of users.
const (
	OpenUsers   = "open"   // anyone; created in the database on the first login
	APIUsers    = "api"    // those that an HTTP API lists
	StaticUsers = "static" // those in the configuration
)

// DefaultConfig returns btcpool's customary values.
func DefaultConfig() Config {
	return Config{
		Listen:               "0.0.0.0:3333",
		ServerID:             1,
		DataDir:              "data/sserver",
		MaxConnections:       100_000,
		DefaultDifficulty:    16384,
		MinDifficulty:        0.00001,
		MaxDifficulty:        bitcoin.MaxDifficulty.Float(),
		ShareInterval:        service.Duration(10 * time.Second),
		DiffAdjustPeriod:     service.Duration(15 * time.Minute),
		VersionMask:          "1fffe000",
		MaxJobDelay:          service.Duration(time.Minute),
		MaxJobLifetime:       service.Duration(5 * time.Minute),
		MiningNotifyInterval: service.Duration(30 * time.Second),
		LoginTimeout:         service.Duration(15 * time.Second),
		TCPReadTimeout:       service.Duration(10 * time.Minute),
		WriteTimeout:         service.Duration(20 * time.Second),
		Users: Users{
			Source:          OpenUsers,
			ListInterval:    service.Duration(10 * time.Second),
			CaseInsensitive: true,
			LoginDeadline:   service.Duration(5 * time.Second),
		},
		Kafka:    bus.DefaultConfig(),
		Database: store.Config{DSN: "sqlite:data/btcpool.db"},
	}
}

// Validate reports all faults.
func (c Config) Validate() error {
	errs := []error{c.Kafka.Validate()}
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	if _, port, err := net.SplitHostPort(c.Listen); err != nil {
		fault("listen = %q: must be host:port", c.Listen)
	} else if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		fault("listen = %q: port must be 0 to 65535", c.Listen)
	}
	if c.ServerID == 0 {
		fault("server_id = 0: must be 1 to 255")
	}
	if c.DataDir == "" {
		fault(`data_dir = "": must name a directory`)
	}
	if c.SpoolMaxBytes < 0 {
		fault("spool_max_bytes = %d: must not be negative", c.SpoolMaxBytes)
	}
	if c.MaxConnections < 1 || c.MaxConnections > sessionIDs {
		fault("max_connections = %d: must be 1 to %d", c.MaxConnections, sessionIDs)
	}
	highest := bitcoin.MaxDifficulty.Float()
	for _, d := range []struct {
		key   string
		value float64
	}{
		{"default_difficulty", c.DefaultDifficulty},
		{"min_difficulty", c.MinDifficulty},
		{"max_difficulty", c.MaxDifficulty},
	} {
		if !(d.value > 0 && d.value <= highest) {
			fault("%s = %v: must be above 0 and at most 2^%d", d.key, d.value, bitcoin.MaxDifficulty)
		}
	}
	if c.MinDifficulty > c.DefaultDifficulty || c.DefaultDifficulty > c.MaxDifficulty {
		fault("default_difficulty = %v: must be from min_difficulty = %v to max_difficulty = %v",
			c.DefaultDifficulty, c.MinDifficulty, c.MaxDifficulty)
	}
	if _, err := strconv.ParseUint(c.VersionMask, 16, 32); err != nil || len(c.VersionMask) != 8 {
		fault("version_mask = %q: must be 8 hex digits", c.VersionMask)
	}
	for _, d := range []struct {
		key   string
		value service.Duration
	}{
		{"share_interval", c.ShareInterval},
		{"max_job_delay", c.MaxJobDelay},
		{"max_job_lifetime", c.MaxJobLifetime},
		{"mining_notify_interval", c.MiningNotifyInterval},
		{"login_timeout", c.LoginTimeout},
		{"tcp_read_timeout", c.TCPReadTimeout},
		{"tcp_write_timeout", c.WriteTimeout},
		{"users.list_interval", c.Users.ListInterval},
		{"users.login_deadline", c.Users.LoginDeadline},
	} {
		if d.value.Std() < time.Second {
			fault("%s = %q: must be at least 1s", d.key, d.value)
		}
	}
	if c.DiffAdjustPeriod < 10*c.ShareInterval {
		fault("diff_adjust_period = %q: must be at least 10 times share_interval = %q", c.DiffAdjustPeriod, c.ShareInterval)
	}
	if c.MaxJobLifetime < c.MaxJobDelay {
		fault("max_job_lifetime = %q: must be at least max_job_delay = %q", c.MaxJobLifetime, c.MaxJobDelay)
	}
	switch c.Users.Source {
	case OpenUsers:
		errs = append(errs, c.Database.Validate())
	case APIUsers:
		errs = append(errs, validateListURL(c.Users.ListURL))
	case StaticUsers:
		for name, id := range c.Users.Static {
			if name == "" || id <= 0 {
				fault("users.static has %q = %d: must be a name and an id above 0", name, id)
			}
		}
		if len(c.Users.Static) == 0 {
			fault("users.static: must name at least one user")
		}
	default:
		fault("users.source = %q: must be %s, %s or %s", c.Users.Source, OpenUsers, APIUsers, StaticUsers)
	}
	return errors.Join(errs...)
}

func (c Config) vardiff() vardiff.Policy {
	return vardiff.Policy{
		Interval: c.ShareInterval.Std(),
		Window:   c.DiffAdjustPeriod.Std(),
		Min:      bitcoin.DifficultyAtLeast(c.MinDifficulty),
		Max:      bitcoin.DifficultyAtLeast(c.MaxDifficulty),
	}
}

// versionMask is that of a valid Config.
func (c Config) versionMask() uint32 {
	mask, _ := strconv.ParseUint(c.VersionMask, 16, 32)
	return uint32(mask)
}

package registry

import (
	"errors"
	"regexp"
	"time"

	"btcpool/internal/config"
)

// Config is the section [zookeeper], the same in every service's file.
type Config struct {
	// Servers are host:port of every server of the ensemble. Without any, ids are fixed and everybody leads.
	Servers []string `toml:"servers" env:"ZOOKEEPER_SERVERS"`
	// SessionTimeout is how long the id of a dead process stays taken. The servers have limits of their own.
	SessionTimeout config.Duration `toml:"session_timeout"`
	// KeepWhenSilent has the holder of an id or the lead go on when ZooKeeper is silent, though another process may get
	// the same then.
	KeepWhenSilent bool `toml:"keep_when_silent"`
}

// DefaultConfig returns a Config without servers.
func DefaultConfig() Config {
	return Config{SessionTimeout: config.Duration(10 * time.Second)}
}

// Validate reports all faults.
func (c Config) Validate() error {
	var faults config.Faults
	for _, server := range c.Servers {
		if _, _, err := config.Peer(server); err != nil {
			faults.Addf("servers has %q: %w", config.RedactURL(server), err)
		}
	}
	if d := c.SessionTimeout.Std(); d < 2*time.Second || d > 5*time.Minute {
		faults.Addf("session_timeout = %q: must be 2s to 5m", c.SessionTimeout)
	}
	return config.In("zookeeper", faults.Err())
}

var validPath = regexp.MustCompile(`^(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)+$`)

// ValidatePath reports a path that can be neither leased from nor led under.
func ValidatePath(path string) error {
	if len(path) > 255 || !validPath.MatchString(path) {
		return errors.New(`must be like "/locks/sserver_btc"`)
	}
	return nil
}

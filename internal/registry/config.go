package registry

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"time"

	"btcpool/internal/config"
)

// Config is the section [zookeeper], the same in every service's file.
type Config struct {
	Servers        []string        `toml:"servers" env:"ZOOKEEPER_SERVERS"` // host:port of every server of the ensemble; none: ids are fixed, everybody leads
	SessionTimeout config.Duration `toml:"session_timeout"`                 // until the id of a dead process is free; the servers have limits of their own
	KeepWhenSilent bool            `toml:"keep_when_silent"`                // go on when ZooKeeper is silent, though another may get the same id or lead
}

// DefaultConfig returns a Config without servers.
func DefaultConfig() Config {
	return Config{SessionTimeout: config.Duration(10 * time.Second)}
}

// Validate reports all faults.
func (c Config) Validate() error {
	var errs []error
	for _, server := range c.Servers {
		host, port, err := net.SplitHostPort(server)
		if n, e := strconv.ParseUint(port, 10, 16); err != nil || e != nil || n == 0 || host == "" {
			errs = append(errs, fmt.Errorf("zookeeper.servers has %q: must be host:port", server))
		}
	}
	if d := c.SessionTimeout.Std(); d < 2*time.Second || d > 5*time.Minute {
		errs = append(errs, fmt.Errorf("zookeeper.session_timeout = %q: must be 2s to 5m", c.SessionTimeout))
	}
	return errors.Join(errs...)
}

var validPath = regexp.MustCompile(`^(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)+$`)

// ValidatePath reports a path that can be neither leased from nor led under.
func ValidatePath(path string) error {
	if len(path) > 255 || !validPath.MatchString(path) {
		return errors.New(`must be like "/locks/sserver_btc"`)
	}
	return nil
}

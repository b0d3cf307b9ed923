package chainwatch

import (
	"time"

	"btcpool/internal/config"
)

// Settings are how a service follows users' nodes, and has users registered, as its configuration says.
type Settings struct {
	// MaxRegistrations is how many users may wait for being registered, each for RegistrationTimeout at most.
	MaxRegistrations    int             `toml:"max_registrations"`
	RegistrationTimeout config.Duration `toml:"registration_timeout"`
	// Timeout of one call of ZooKeeper, SweepInterval within which the node of each user in use is read again, MaxAge how
	// long what was read is of use while ZooKeeper is away, restarts included.
	Timeout       config.Duration `toml:"timeout"`
	SweepInterval config.Duration `toml:"sweep_interval"`
	MaxAge        config.Duration `toml:"max_age"`
	// MaxUsers bounds the users that are remembered, and the nodes that are watched.
	MaxUsers int `toml:"max_users"`
}

// DefaultSettings returns what the samples say.
func DefaultSettings() Settings {
	return Settings{
		MaxRegistrations:    50,
		RegistrationTimeout: config.Duration(30 * time.Second),
		Timeout:             config.Duration(3 * time.Second),
		SweepInterval:       config.Duration(5 * time.Minute),
		MaxAge:              config.Duration(7 * 24 * time.Hour),
		MaxUsers:            1_000_000,
	}
}

// Check adds what is wrong with s to faults.
func (s Settings) Check(faults *config.Faults) {
	faults.Number("max_registrations", s.MaxRegistrations, 1, 100_000)
	faults.AtLeast("registration_timeout", s.RegistrationTimeout, time.Second)
	faults.AtLeast("timeout", s.Timeout, 100*time.Millisecond)
	faults.AtLeast("sweep_interval", s.SweepInterval, time.Second)
	faults.AtLeast("max_age", s.MaxAge, time.Minute)
	faults.Number("max_users", s.MaxUsers, 1, 100_000_000)
}

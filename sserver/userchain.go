package sserver

import (
	"time"

	"btcpool/internal/config"
	"btcpool/internal/registry"
)

// UserChain says where users' nodes are in ZooKeeper, and how they are followed.
type UserChain struct {
	// Path is the node above those of users, as switchapi has it in nodes.user_chain. "": users have no nodes.
	Path string `toml:"path"`
	// AutoReg is the node below which users are asked for who are not known, as switchapi has it in nodes.autoreg. "":
	// they are refused.
	AutoReg string `toml:"autoreg"`
	// MaxRegistrations is how many users may wait for being registered, each for RegistrationTimeout at most.
	MaxRegistrations    int             `toml:"max_registrations"`
	RegistrationTimeout config.Duration `toml:"registration_timeout"`
	// Timeout of one call of ZooKeeper, SweepInterval within which the node of each user is read again, MaxAge how long
	// what was read is of use while ZooKeeper is away, restarts included. MaxUsers bounds what is remembered.
	Timeout       config.Duration `toml:"timeout"`
	SweepInterval config.Duration `toml:"sweep_interval"`
	MaxAge        config.Duration `toml:"max_age"`
	MaxUsers      int             `toml:"max_users"`
}

func defaultUserChain() UserChain {
	return UserChain{
		MaxRegistrations:    50,
		RegistrationTimeout: config.Duration(30 * time.Second),
		Timeout:             config.Duration(3 * time.Second),
		SweepInterval:       config.Duration(5 * time.Minute),
		MaxAge:              config.Duration(7 * 24 * time.Hour),
		MaxUsers:            1_000_000,
	}
}

func (u UserChain) validate() error {
	var faults config.Faults
	for _, p := range []struct{ key, path string }{{"path", u.Path}, {"autoreg", u.AutoReg}} {
		if p.path != "" {
			faults.Value(p.key, p.path, registry.ValidatePath(p.path))
		}
	}
	if u.AutoReg != "" && u.Path == "" {
		faults.Addf("autoreg = %q: needs path", u.AutoReg)
	}
	faults.Number("max_registrations", u.MaxRegistrations, 1, 10_000)
	faults.AtLeast("registration_timeout", u.RegistrationTimeout, time.Second)
	faults.AtLeast("timeout", u.Timeout, 100*time.Millisecond)
	faults.AtLeast("sweep_interval", u.SweepInterval, time.Second)
	faults.AtLeast("max_age", u.MaxAge, time.Minute)
	faults.Number("max_users", u.MaxUsers, 1, 100_000_000)
	return faults.Err()
}

package sserver

import (
	"errors"
	"strings"

	"btcpool/internal/config"
	"btcpool/internal/share"
	"btcpool/internal/userchain"
)

// SingleUser has one user stand for all.
type SingleUser struct {
	// Name is the user's, as its node is called. "": nobody stands for all.
	Name string `toml:"name"`
	// Mode has all miners be workers of that user, called by their own user and worker; their users are external ones.
	Mode bool `toml:"mode"`
	// PUID is the user's id, with Mode and without [[chains]]; those have their own.
	PUID int32 `toml:"puid"`
	// Chain has all users mine what that user's node says.
	Chain bool `toml:"chain"`
}

// validate reports all faults but those of PUID.
func (u SingleUser) validate() error {
	var faults config.Faults
	switch {
	case u.Name == "" && u != SingleUser{}:
		faults.Addf("name is missing")
	case u.Name != "" && !u.Mode && !u.Chain:
		faults.Addf("name = %q: has no effect without mode or chain", u.Name)
	case u.Name != "":
		err := userchain.CheckUser(u.Name)
		if strings.Contains(u.Name, ".") {
			err = errors.New("ends at the first dot")
		}
		faults.Value("name", u.Name, err)
	}
	return faults.Err()
}

// validatePUID reports an id that is missing, or of no use. key is where it is.
func (u SingleUser) validatePUID(key string) error {
	var faults config.Faults
	switch {
	case u.Mode && u.PUID <= 0:
		faults.Addf("%s = %d: must be the id of single_user.name, above 0, with single_user.mode", key, u.PUID)
	case !u.Mode && u.PUID != 0:
		faults.Addf("%s = %d: needs single_user.mode", key, u.PUID)
	}
	return faults.Err()
}

// singleChainUser is whose node all users follow; "": each its own.
func (c Config) singleChainUser() string {
	if c.SingleUser.Chain {
		return c.SingleUser.Name
	}
	return ""
}

// workerName is what everybody else calls a worker of a user: the single user has workers of all users.
func (u *SingleUser) workerName(user, name string) string {
	if u.Mode {
		return fullName(user, name)
	}
	return name
}

// fullName is what everybody else calls a worker, with the user whose it is.
func (u *SingleUser) fullName(w *worker) string {
	if u.Mode {
		return fullName(u.Name, w.fullName())
	}
	return w.fullName()
}

// ids are whom a share of a user is for: the user that is credited, and the external one.
func (u *SingleUser) ids(user int32) (credited, external int32) {
	if u.Mode {
		return u.PUID, user
	}
	return user, 0
}

// workerID is the id of a worker of a user.
func (s *Service) workerID(user, name string) int64 {
	return share.WorkerID(s.cfg.SingleUser.workerName(user, name))
}

package sserver

import (
	"btcpool/internal/chainwatch"
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
	chainwatch.Settings
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
	u.Check(&faults)
	return faults.Err()
}

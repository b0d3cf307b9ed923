package jobmaker

import (
	"fmt"
	"math"
	"time"

	"btcpool/internal/bitcoin"
	"btcpool/internal/bus"
	"btcpool/internal/config"
	"btcpool/internal/job"
	"btcpool/internal/registry"
	"btcpool/internal/service"
)

// Config is what jobmaker.toml holds.
type Config struct {
	service.Common
	// Kafka holds the topics. With topics.aux_work = "" no AuxPoW chain is mined along, with topics.rsk_work = "" RSK
	// is not.
	Kafka     bus.Config      `toml:"kafka"`
	ZooKeeper registry.Config `toml:"zookeeper"`

	// ServerID is the low byte of the job ids, 1 to 255: each jobmaker of a pool has its own. 0: one is leased from
	// ZooKeeper, under IDLeasePath.
	ServerID    int    `toml:"server_id" env:"SERVER_ID"`
	IDLeasePath string `toml:"id_lease_path"`
	// LeaderLockPath is in ZooKeeper. Of the jobmakers that share it one makes jobs. "": this one always does.
	LeaderLockPath string `toml:"leader_lock_path" env:"LEADER_LOCK_PATH"`

	// Network is that of templates and addresses: one of bitcoin.NetworkNames.
	Network string `toml:"network" env:"NETWORK"`
	// PayoutAddress gets the whole reward. Outputs, in its place, share it.
	PayoutAddress string   `toml:"payout_address" env:"PAYOUT_ADDRESS"`
	Outputs       []Output `toml:"outputs"`
	// CoinbaseText is visible in every block found.
	CoinbaseText string `toml:"coinbase_text" env:"COINBASE_TEXT"`
	// SubPools have coinbases of their own in the same jobs.
	SubPools []SubPool `toml:"sub_pools"`
	// MaxUpdateText is how many bytes of a text from ZooKeeper are used.
	MaxUpdateText int `toml:"sub_pool_max_update_text"`
	// BlockVersion is the version of all blocks. 0: the template's.
	BlockVersion int32 `toml:"block_version"`

	// CoinbaseLockToHeight sets nLockTime and nSequence as BIP 54 asks.
	CoinbaseLockToHeight bool `toml:"coinbase_lock_to_height"`
	// MaxCoinbaseSize is, in bytes, what the firmware of all miners bears.
	MaxCoinbaseSize int `toml:"max_coinbase_size"`
	// GrandPool makes room in the coinbase for clients with a pool of their own.
	GrandPool bool `toml:"grand_pool"`

	// JobInterval is the time between jobs when nothing happens.
	JobInterval config.Duration `toml:"job_interval"`
	// GBTLifetime and EmptyGBTLifetime are the ages from which on templates with and without transactions make way for
	// others.
	GBTLifetime      config.Duration `toml:"gbt_life_time"`
	EmptyGBTLifetime config.Duration `toml:"empty_gbt_life_time"`
	// MaxTemplateSkew is how far from our clock a template may have been made.
	MaxTemplateSkew config.Duration `toml:"max_template_skew"`

	// AuxNotify and RSKNotify say which work of other chains makes a job at once.
	AuxNotify notify `toml:"aux_merged_mining_notify"`
	RSKNotify notify `toml:"rsk_merged_mining_notify"`
}

// Output is a part of the reward.
type Output struct {
	// Address is of Config.Network.
	Address string `toml:"address"`
	// BasisPoints of all outputs add up to 10000.
	BasisPoints int `toml:"basis_points"`
}

// SubPool is a pool whose miners are served with ours but whose blocks pay to itself. What it has in common with Config
// means the same.
type SubPool struct {
	// Name is 1 to 64 letters, digits, '.', '_' and '-'.
	Name          string   `toml:"name"`
	PayoutAddress string   `toml:"payout_address"`
	Outputs       []Output `toml:"outputs"`
	CoinbaseText  string   `toml:"coinbase_text"`
	// UpdatePath is in ZooKeeper, where address and text may be changed at run time. "": they may not.
	UpdatePath string `toml:"update_path"`
}

// DefaultConfig returns a Config that lacks the payout address only.
func DefaultConfig() Config {
	kafka := bus.DefaultConfig()
	kafka.Topics.AuxWork, kafka.Topics.RSKWork = "", ""
	return Config{
		Kafka:                kafka,
		ZooKeeper:            registry.DefaultConfig(),
		ServerID:             1,
		IDLeasePath:          "/locks/jobmaker_btc",
		Network:              "mainnet",
		CoinbaseText:         "/btcpool/",
		MaxUpdateText:        30,
		CoinbaseLockToHeight: true,
		MaxCoinbaseSize:      500,
		JobInterval:          config.Duration(20 * time.Second),
		GBTLifetime:          config.Duration(90 * time.Second),
		EmptyGBTLifetime:     config.Duration(15 * time.Second),
		MaxTemplateSkew:      config.Duration(60 * time.Second),
		AuxNotify:            notifyHeight,
		RSKNotify:            notifyHeight,
	}
}

// Validate reports all faults.
func (c Config) Validate() error {
	var faults config.Faults
	faults.Add(c.Kafka.Validate())
	faults.Add(c.ZooKeeper.Validate())
	c.validateIdentity(&faults)
	faults.AtLeast("job_interval", c.JobInterval, time.Second)
	faults.AtLeast("gbt_life_time", c.GBTLifetime, time.Second)
	faults.AtLeast("empty_gbt_life_time", c.EmptyGBTLifetime, time.Second)
	faults.AtLeast("max_template_skew", c.MaxTemplateSkew, time.Second)
	faults.Number("aux_merged_mining_notify", int(c.AuxNotify), int(notifyNever), int(notifyHash))
	faults.Number("rsk_merged_mining_notify", int(c.RSKNotify), int(notifyNever), int(notifyHash))
	faults.NotNegative("sub_pool_max_update_text", int64(c.MaxUpdateText))
	_, err := c.builder()
	faults.Add(err)
	c.validateUpdatePaths(&faults)
	return faults.Err()
}

func (c Config) validateUpdatePaths(faults *config.Faults) {
	taken := map[string]bool{c.IDLeasePath: true, c.LeaderLockPath: true}
	for i, sub := range c.SubPools {
		path := sub.UpdatePath
		if path == "" {
			continue
		}
		c.validatePath(faults, fmt.Sprintf("sub_pools[%d].update_path", i), path)
		if taken[path] {
			faults.Addf("sub_pools[%d].update_path = %q: is used for something else already", i, path)
		}
		taken[path] = true
	}
}

// validateIdentity is about who this jobmaker is among others.
func (c Config) validateIdentity(faults *config.Faults) {
	switch {
	case c.ServerID < 0 || c.ServerID > math.MaxUint8 || c.ServerID == 0 && len(c.ZooKeeper.Servers) == 0:
		faults.Addf("server_id = %d: must be 1 to 255, or 0 with zookeeper.servers", c.ServerID)
	case c.ServerID == 0:
		c.validatePath(faults, "id_lease_path", c.IDLeasePath)
	}
	if c.LeaderLockPath != "" {
		c.validatePath(faults, "leader_lock_path", c.LeaderLockPath)
		if c.LeaderLockPath == c.IDLeasePath {
			faults.Addf("leader_lock_path = %q: must not be id_lease_path", c.LeaderLockPath)
		}
	}
}

// validatePath is about a node in ZooKeeper.
func (c Config) validatePath(faults *config.Faults, key, path string) {
	if len(c.ZooKeeper.Servers) == 0 {
		faults.Addf("%s = %q: needs zookeeper.servers", key, path)
	}
	faults.Value(key, path, registry.ValidatePath(path))
}

// builder returns the builder of jobs whose coinbases fit into every block to come, or all faults of the keys it is
// made of.
func (c Config) builder() (builder, error) {
	b := builder{
		subPools:     make(map[string]coinbase),
		blockVersion: c.BlockVersion,
		lockToHeight: c.CoinbaseLockToHeight,
		grandPool:    c.GrandPool,
	}
	network, err := bitcoin.NetworkByName(c.Network)
	if err != nil {
		return builder{}, fmt.Errorf("network = %q: %w", c.Network, err)
	}
	var faults config.Faults
	b.coinbase, err = c.coinbase(b, network, c.PayoutAddress, c.Outputs, c.CoinbaseText)
	faults.Add(err)
	for i, sub := range c.SubPools {
		section := fmt.Sprintf("sub_pools[%d]", i)
		if _, taken := b.subPools[sub.Name]; taken || job.CheckSubPool(sub.Name) != nil {
			faults.Addf("%s.name = %q: must be 1 to %d letters, digits, '.', '_' and '-' that no other has", section, sub.Name, job.MaxSubPool)
		}
		b.subPools[sub.Name], err = c.coinbase(b, network, sub.PayoutAddress, sub.Outputs, sub.CoinbaseText)
		faults.In(section, err)
	}
	return b, faults.Err()
}

func (c Config) coinbase(b builder, network bitcoin.Network, address string, outputs []Output, text string) (coinbase, error) {
	payouts, err := payouts(network, address, outputs)
	if err != nil {
		return coinbase{}, err
	}
	result := coinbase{text: text, payouts: payouts}
	size, err := b.longest(result, c.Kafka.Topics.AuxWork != "", c.Kafka.Topics.RSKWork != "")
	if err != nil {
		return coinbase{}, fmt.Errorf("coinbase_text = %q: with the highest block and latest time to come: %w", text, err)
	}
	if size > c.MaxCoinbaseSize {
		return coinbase{}, fmt.Errorf("max_coinbase_size = %d: the coinbase can get %d bytes long; use fewer outputs", c.MaxCoinbaseSize, size)
	}
	return result, nil
}

func payouts(network bitcoin.Network, address string, outputs []Output) ([]payout, error) {
	if len(outputs) == 0 {
		if address == "" {
			return nil, fmt.Errorf("payout_address: must be an address of %s, or there must be outputs", network.Name)
		}
		script, err := network.PayoutScript(address)
		if err != nil {
			return nil, fmt.Errorf("payout_address: %w", err)
		}
		return []payout{{script, allBasisPoints}}, nil
	}
	var faults config.Faults
	if address != "" {
		faults.Addf("payout_address = %q: must be empty when there are outputs", address)
	}
	var list []payout
	sum := 0
	for i, o := range outputs {
		script, err := network.PayoutScript(o.Address)
		if err != nil {
			faults.Addf("outputs[%d].address: %w", i, err)
		}
		if o.BasisPoints < 1 || o.BasisPoints > allBasisPoints {
			faults.Addf("outputs[%d].basis_points = %d: must be 1 to %d", i, o.BasisPoints, allBasisPoints)
		}
		sum += min(max(o.BasisPoints, 0), allBasisPoints)
		list = append(list, payout{script, int64(o.BasisPoints)})
	}
	if sum != allBasisPoints {
		faults.Addf("outputs: basis_points add up to %d instead of %d", sum, allBasisPoints)
	}
	return list, faults.Err()
}

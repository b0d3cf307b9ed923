package jobmaker

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"time"

	"btcpool/internal/bitcoin"
	"btcpool/internal/bus"
	"btcpool/internal/config"
	"btcpool/internal/registry"
	"btcpool/internal/service"
)

// Config is what jobmaker.toml holds.
type Config struct {
	service.Common
	Kafka     bus.Config      `toml:"kafka"` // topics.aux_work and topics.rsk_work: "" for no merged mining
	ZooKeeper registry.Config `toml:"zookeeper"`

	ServerID       int    `toml:"server_id" env:"SERVER_ID"`               // 1 to 255, low byte of the job ids; each jobmaker of a pool has its own; 0: leased from ZooKeeper
	IDLeasePath    string `toml:"id_lease_path"`                           // in ZooKeeper, where ids are leased
	LeaderLockPath string `toml:"leader_lock_path" env:"LEADER_LOCK_PATH"` // in ZooKeeper; of the jobmakers that share it one makes jobs; "": all do

	Network       string    `toml:"network" env:"NETWORK"`               // one of bitcoin.NetworkNames
	PayoutAddress string    `toml:"payout_address" env:"PAYOUT_ADDRESS"` // of Network; gets the whole reward
	Outputs       []Output  `toml:"outputs"`                             // share the reward, in place of PayoutAddress
	CoinbaseText  string    `toml:"coinbase_text" env:"COINBASE_TEXT"`   // visible in every block found
	SubPools      []SubPool `toml:"sub_pools"`                           // other coinbases in the same jobs
	MaxUpdateText int       `toml:"sub_pool_max_update_text"`            // bytes to which a text that comes through ZooKeeper is cut
	BlockVersion  int32     `toml:"block_version"`                       // 0: the template's

	CoinbaseLockToHeight bool `toml:"coinbase_lock_to_height"` // nLockTime and nSequence of the coinbase as BIP 54 asks
	MaxCoinbaseSize      int  `toml:"max_coinbase_size"`       // bytes of the transaction that all miners' firmware bears
	GrandPool            bool `toml:"grand_pool"`              // room in the coinbase for clients that serve a pool of their own

	JobInterval      config.Duration `toml:"job_interval"`        // between jobs when nothing happens
	GBTLifetime      config.Duration `toml:"gbt_life_time"`       // templates with transactions older than this make way for others
	EmptyGBTLifetime config.Duration `toml:"empty_gbt_life_time"` // the same for empty templates
	MaxTemplateSkew  config.Duration `toml:"max_template_skew"`   // templates that far from our clock are dropped

	AuxNotify notify `toml:"aux_merged_mining_notify"` // AuxPoW work makes a job at once: 0 never, 1 of a greater height, 2 of another hash
	RSKNotify notify `toml:"rsk_merged_mining_notify"` // RSK work makes a job at once: 0 never, 1 when its node asks, 2 of another hash
}

// Output is a part of the reward.
type Output struct {
	Address     string `toml:"address"`      // of Config.Network
	BasisPoints int    `toml:"basis_points"` // of the reward; those of all outputs add up to 10000
}

// SubPool is a pool whose miners are served with ours but whose blocks pay to
// itself.
type SubPool struct {
	Name          string   `toml:"name"`           // 1 to 64 letters, digits, '.', '_' and '-'
	PayoutAddress string   `toml:"payout_address"` // as in Config
	Outputs       []Output `toml:"outputs"`        // as in Config
	CoinbaseText  string   `toml:"coinbase_text"`  // as in Config
	UpdatePath    string   `toml:"update_path"`    // in ZooKeeper, where address and text may be changed while we run; "": they may not
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
	errs := []error{c.Kafka.Validate(), c.ZooKeeper.Validate(), c.validateIdentity()}
	for _, d := range []struct {
		key   string
		value config.Duration
	}{
		{"job_interval", c.JobInterval},
		{"gbt_life_time", c.GBTLifetime},
		{"empty_gbt_life_time", c.EmptyGBTLifetime},
		{"max_template_skew", c.MaxTemplateSkew},
	} {
		if d.value.Std() < time.Second {
			errs = append(errs, fmt.Errorf("%s = %q: must be at least 1s", d.key, d.value))
		}
	}
	for _, n := range []struct {
		key   string
		value notify
	}{
		{"aux_merged_mining_notify", c.AuxNotify},
		{"rsk_merged_mining_notify", c.RSKNotify},
	} {
		if n.value < notifyNever || n.value > notifyHash {
			errs = append(errs, fmt.Errorf("%s = %d: must be 0, 1 or 2", n.key, n.value))
		}
	}
	if c.MaxUpdateText < 0 {
		errs = append(errs, fmt.Errorf("sub_pool_max_update_text = %d: must not be negative", c.MaxUpdateText))
	}
	_, err := c.builder()
	return errors.Join(append(errs, err, c.validateUpdatePaths())...)
}

func (c Config) validateUpdatePaths() error {
	var errs []error
	taken := map[string]bool{c.IDLeasePath: true, c.LeaderLockPath: true}
	for i, sub := range c.SubPools {
		path := sub.UpdatePath
		switch err := registry.ValidatePath(path); {
		case path == "":
		case err != nil:
			errs = append(errs, fmt.Errorf("sub_pools[%d].update_path = %q: %w", i, path, err))
		case len(c.ZooKeeper.Servers) == 0:
			errs = append(errs, fmt.Errorf("sub_pools[%d].update_path = %q: needs zookeeper.servers", i, path))
		case taken[path]:
			errs = append(errs, fmt.Errorf("sub_pools[%d].update_path = %q: is used for something else already", i, path))
		}
		taken[path] = true
	}
	return errors.Join(errs...)
}

// validateIdentity is about who this jobmaker is among others.
func (c Config) validateIdentity() error {
	var errs []error
	switch {
	case c.ServerID < 0 || c.ServerID > math.MaxUint8:
		errs = append(errs, fmt.Errorf("server_id = %d: must be 1 to 255, or 0 with zookeeper.servers", c.ServerID))
	case c.ServerID > 0:
	case len(c.ZooKeeper.Servers) == 0:
		errs = append(errs, errors.New("server_id = 0: must be 1 to 255, or 0 with zookeeper.servers"))
	default:
		if err := registry.ValidatePath(c.IDLeasePath); err != nil {
			errs = append(errs, fmt.Errorf("id_lease_path = %q: %w", c.IDLeasePath, err))
		}
	}
	switch {
	case c.LeaderLockPath == "":
	case len(c.ZooKeeper.Servers) == 0:
		errs = append(errs, fmt.Errorf("leader_lock_path = %q: needs zookeeper.servers", c.LeaderLockPath))
	case c.LeaderLockPath == c.IDLeasePath:
		errs = append(errs, fmt.Errorf("leader_lock_path = %q: must not be id_lease_path", c.LeaderLockPath))
	default:
		if err := registry.ValidatePath(c.LeaderLockPath); err != nil {
			errs = append(errs, fmt.Errorf("leader_lock_path = %q: %w", c.LeaderLockPath, err))
		}
	}
	return errors.Join(errs...)
}

var validSubPool = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// builder returns the builder of jobs whose coinbases fit into every block to
// come, or all faults of the keys it is made of.
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
	var errs []error
	if b.coinbase, err = c.coinbase(b, network, c.PayoutAddress, c.Outputs, c.CoinbaseText); err != nil {
		errs = append(errs, err)
	}
	for i, sub := range c.SubPools {
		if _, taken := b.subPools[sub.Name]; taken || !validSubPool.MatchString(sub.Name) {
			errs = append(errs, fmt.Errorf("sub_pools[%d].name = %q: must be 1 to 64 letters, digits, '.', '_' and '-' that no other has", i, sub.Name))
		}
		if b.subPools[sub.Name], err = c.coinbase(b, network, sub.PayoutAddress, sub.Outputs, sub.CoinbaseText); err != nil {
			errs = append(errs, fmt.Errorf("sub_pools[%d]: %w", i, err))
		}
	}
	return b, errors.Join(errs...)
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
	var errs []error
	if address != "" {
		errs = append(errs, fmt.Errorf("payout_address = %q: must be empty when there are outputs", address))
	}
	var list []payout
	sum := 0
	for i, o := range outputs {
		script, err := network.PayoutScript(o.Address)
		if err != nil {
			errs = append(errs, fmt.Errorf("outputs[%d].address: %w", i, err))
		}
		if o.BasisPoints < 1 || o.BasisPoints > allBasisPoints {
			errs = append(errs, fmt.Errorf("outputs[%d].basis_points = %d: must be 1 to %d", i, o.BasisPoints, allBasisPoints))
		}
		sum += min(max(o.BasisPoints, 0), allBasisPoints)
		list = append(list, payout{script, int64(o.BasisPoints)})
	}
	if sum != allBasisPoints {
		errs = append(errs, fmt.Errorf("outputs: basis_points add up to %d instead of %d", sum, allBasisPoints))
	}
	return list, errors.Join(errs...)
}

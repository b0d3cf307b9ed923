package sserver

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"btcpool/internal/bus"
	"btcpool/internal/config"
	"btcpool/internal/handover"
	"btcpool/internal/service"
	"btcpool/internal/userchain"
	"btcpool/internal/users"
)

// Chain is one of several. What is not given is as at the top of the file.
type Chain struct {
	// Name is what users' nodes, metrics and logs call it.
	Name string `toml:"name"`
	// DataDir is the folder of the chain's spools, which no other chain has. "", the default: one named after the chain
	// in Config's.
	DataDir string `toml:"data_dir"`
	// Brokers are those of the chain's topics. None: as in [kafka].
	Brokers []string `toml:"brokers"`
	// The chain's topics, which no other chain has; those of merged mining may be "": none.
	JobTopic          string `toml:"job_topic"`
	ShareTopic        string `toml:"share_topic"`
	SolvedShareTopic  string `toml:"solved_share_topic"`
	CommonEventsTopic string `toml:"common_events_topic"`
	AuxSolvedTopic    string `toml:"aux_solved_topic"`
	RSKSolvedTopic    string `toml:"rsk_solved_topic"`
	// MiningNotifyInterval is as in Config.
	MiningNotifyInterval config.Duration `toml:"mining_notify_interval"`
	// NiceHash is as in Config. nil: the same.
	NiceHash *NiceHash `toml:"nicehash"`
	// SubPool is as in Config. nil: the same.
	SubPool *SubPool `toml:"sub_pool"`
	// SingleUserPUID is the id that Config.SingleUser has on the chain.
	SingleUserPUID int32 `toml:"single_user_puid"`
	// Users are who may mine the chain, with the ids that they have there. nil: as in [users].
	Users *users.Source `toml:"users"`
	// Handover names the chain's blkmakers.
	Handover handover.Config `toml:"handover"`
}

// several reports whether chains have sections of their own.
func (c Config) several() bool { return len(c.Chains) > 0 }

// PerChain returns what each chain is served by.
func (c Config) PerChain() []Config {
	if !c.several() {
		return []Config{c}
	}
	var all []Config
	for _, chain := range c.Chains {
		one := c
		one.Chains = nil
		one.DataDir = cmp.Or(chain.DataDir, filepath.Join(c.DataDir, chain.Name))
		if len(chain.Brokers) > 0 {
			one.Kafka.Brokers = chain.Brokers
		}
		topics := &one.Kafka.Topics
		topics.Job, topics.Share, topics.SolvedShare = chain.JobTopic, chain.ShareTopic, chain.SolvedShareTopic
		topics.CommonEvents, topics.AuxSolved, topics.RSKSolved = chain.CommonEventsTopic, chain.AuxSolvedTopic, chain.RSKSolvedTopic
		one.MiningNotifyInterval = cmp.Or(chain.MiningNotifyInterval, c.MiningNotifyInterval)
		if chain.NiceHash != nil {
			one.NiceHash = *chain.NiceHash
		}
		if chain.SubPool != nil {
			one.SubPool = *chain.SubPool
		}
		one.SingleUser.PUID = chain.SingleUserPUID
		if chain.Users != nil {
			one.Users.Source = *chain.Users
		}
		one.Handover = chain.Handover
		all = append(all, one)
	}
	return all
}

// sourceAt says who may mine a chain at a place: listeners have users of their own only where there is one chain.
func (c Config) sourceAt(place Listener, chain Config) users.Source {
	if c.several() {
		return chain.Users.Source
	}
	return *place.Users
}

// validateChains reports all faults of [[chains]]: no two chains may share what only one can have.
func (c Config) validateChains() error {
	if !c.several() {
		return nil
	}
	var faults config.Faults
	usual := DefaultConfig()
	if c.Kafka.Topics != usual.Kafka.Topics || len(c.Handover.URLs) > 0 {
		faults.Addf("kafka.topics, handover.urls: with [[chains]] each chain has its own")
	}
	if c.SingleUser.PUID != 0 {
		faults.Addf("single_user.puid = %d: with [[chains]] each chain has its own, single_user_puid", c.SingleUser.PUID)
	}
	if slices.ContainsFunc(c.Listeners, func(l Listener) bool { return l.Users != nil }) {
		faults.Addf("listeners.users: with [[chains]] each chain has its own, at all listeners")
	}
	if len(c.Chains) > maxChains {
		faults.Addf("chains: at most %d", maxChains)
	}
	taken := make(map[string]string)
	named := 0 // whose users have addresses for names
	for i, one := range c.PerChain() {
		section := fmt.Sprintf("chains[%d]", i)
		own := func(kind, key, value string) {
			if before := taken[kind+value]; before != "" {
				faults.Addf("%s.%s = %q: is %s already", section, key, value, before)
			}
			taken[kind+value] = section + "." + key
		}
		name := c.Chains[i].Name
		faults.Value(section+".name", name, userchain.CheckChain(name))
		if name == userchain.Auto {
			faults.Addf("%s.name = %q: is what users say who leave the choice to the pool", section, name)
		}
		own("chain ", "name", name)
		own("folder ", "data_dir", filepath.Clean(one.DataDir))
		topics := one.Kafka.Topics
		for _, topic := range []struct {
			key, name string
			optional  bool
		}{
			{"job_topic", topics.Job, false},
			{"share_topic", topics.Share, false},
			{"solved_share_topic", topics.SolvedShare, false},
			{"common_events_topic", topics.CommonEvents, false},
			{"aux_solved_topic", topics.AuxSolved, true},
			{"rsk_solved_topic", topics.RSKSolved, true},
		} {
			if topic.name == "" && topic.optional {
				continue
			}
			faults.Value(section+"."+topic.key, topic.name, bus.CheckTopic(topic.name))
			own(fmt.Sprint("topic of ", one.Kafka.Brokers), topic.key, topic.name)
		}
		for _, broker := range c.Chains[i].Brokers {
			if _, _, err := config.Peer(broker); err != nil {
				faults.Addf("%s.brokers has %q: %w", section, config.RedactURL(broker), err)
			}
		}
		faults.AtLeast(section+".mining_notify_interval", one.MiningNotifyInterval, minNotifyInterval)
		faults.In(section+".nicehash", one.NiceHash.validate())
		faults.In(section+".sub_pool", one.SubPool.validate())
		faults.Add(one.SingleUser.validatePUID(section + ".single_user_puid"))
		if c.Chains[i].Users != nil {
			faults.In(section+".users", one.Users.Source.Validate())
		}
		if kind := one.Users.Kind; kind == users.Address || kind == users.Open {
			named++
		}
		faults.In(section, one.Handover.Validate())
		faults.In(section+".management", c.Management.Validate(topics))
	}
	if named > 0 && named < len(c.Chains) || named > 0 && slices.ContainsFunc(c.PerChain(), func(one Config) bool { return one.Users.Kind != c.PerChain()[0].Users.Kind }) {
		faults.Addf("chains.users.source: %s or %s must be that of all chains, as names are read otherwise then", users.Open, users.Address)
	}
	if c.DefaultChain != "" && c.chainIndex(c.DefaultChain) < 0 {
		faults.Addf("default_chain = %q: must be one of [[chains]]", c.DefaultChain)
	}
	return faults.Err()
}

// validateUserChain wants users to be able to choose where there is something to choose from.
func (c Config) validateUserChain() error {
	var faults config.Faults
	faults.Add(c.UserChain.validate())
	switch path := c.UserChain.Path; {
	case path == "" && len(c.Chains) > 1:
		faults.Addf(`path = "": must be where users' nodes are, as there are several chains`)
	case path != "" && !c.several():
		faults.Addf("path = %q: needs [[chains]]", path)
	case path != "" && len(c.ZooKeeper.Servers) == 0:
		faults.Addf("path = %q: needs zookeeper.servers", path)
	case path == "" && c.SingleUser.Chain:
		faults.Addf(`path = "": must be where users' nodes are, with single_user.chain`)
	}
	return faults.Err()
}

// chainIndex returns which of the chains has a name; negative: none.
func (c Config) chainIndex(name string) int {
	return slices.IndexFunc(c.Chains, func(chain Chain) bool { return chain.Name == name })
}

// inOrderOf returns c with its chains in the order of another process that c's goes on for, and those that it does not have
// behind them: sessions and jobs have the index of their chain.
func (c Config) inOrderOf(theirs []chainState) Config {
	if !c.several() {
		return c
	}
	c.DefaultChain = cmp.Or(c.DefaultChain, c.Chains[0].Name)
	place := func(chain Chain) int {
		i := slices.IndexFunc(theirs, func(t chainState) bool { return t.name == chain.Name })
		if i < 0 {
			i = len(theirs)
		}
		return i
	}
	c.Chains = slices.Clone(c.Chains)
	slices.SortStableFunc(c.Chains, func(a, b Chain) int { return cmp.Compare(place(a), place(b)) })
	return c
}

// openChains opens all chains.
func (s *Service) openChains(deps service.Deps) error {
	if err := s.cfg.checkSpools(); err != nil {
		return err
	}
	for i, one := range s.cfg.PerChain() {
		its, name := deps, ""
		if s.cfg.several() {
			name = s.cfg.Chains[i].Name
			its.Log = deps.Log.With().Str("chain", name).Logger()
			its.Metrics = prometheus.WrapRegistererWith(prometheus.Labels{"chain": name}, deps.Metrics)
		}
		if err := s.openChain(name, one, its); err != nil {
			return err
		}
	}
	s.first = max(s.cfg.chainIndex(s.cfg.DefaultChain), 0)
	return nil
}

// checkSpools reports spools with records that nobody would send any more: of a chain that is not configured, or from
// when there was one chain only.
func (c Config) checkSpools() error {
	var used []string
	for _, one := range c.PerChain() {
		used = append(used, filepath.Clean(one.DataDir))
	}
	var faults config.Faults
	for _, pattern := range []string{"*/*.seg", "*/*/*.seg"} { // DataDir's own, and its chains'
		files, err := filepath.Glob(filepath.Join(c.DataDir, pattern))
		if err != nil {
			return err
		}
		for _, file := range files {
			dir := filepath.Dir(filepath.Dir(file))
			info, err := os.Stat(file)
			if err != nil || info.Size() == 0 || slices.Contains(used, filepath.Clean(dir)) {
				continue
			}
			used = append(used, filepath.Clean(dir)) // told once
			faults.Addf("%s has shares that wait for Kafka, and is the data_dir of no chain: name it as that of its chain in [[chains]], or remove it if they are worthless", dir)
		}
	}
	return faults.Err()
}

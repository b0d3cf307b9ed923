package main

import (
	"cmp"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"btcpool/auxmaker"
	"btcpool/blkmaker"
	"btcpool/gbtmaker"
	"btcpool/internal/bitcoin/noderpc"
	"btcpool/internal/bus"
	"btcpool/internal/config"
	"btcpool/internal/registry"
	"btcpool/internal/service"
	"btcpool/internal/store"
	"btcpool/jobmaker"
	"btcpool/poolwatcher"
	"btcpool/sharelogger"
	"btcpool/slparser"
	"btcpool/sserver"
	"btcpool/statshttpd"
)

// A finding is something that an operator has to see to.
type finding struct {
	where  string // parts, or what was asked
	what   string
	advice string // what to do; "": what says it
}

func (f finding) String() string {
	text := f.where + ": " + f.what
	if f.advice != "" {
		text += "\n    " + f.advice
	}
	return text
}

// rules are what the files of a pool have to agree in.
var rules = []func(*pool) []finding{
	oneNetwork, oneKafka, oneDatabase, oneShareLog, ownFolders, ownAddresses, ownIDs, solvedSharesArrive, blocksReachAllNodes, mergedChains, oneCount,
}

// faults returns what is wrong with each file, and then what the files do not agree in.
func (p *pool) faults() (all []finding) {
	for _, part := range p.parts {
		if part.err != nil {
			all = append(all, finding{part.name, strings.ReplaceAll(part.err.Error(), "\n", "\n    "), ""})
		}
	}
	for _, rule := range rules {
		all = append(all, rule(p)...)
	}
	return all
}

// same reports the parts whose value is not that of most.
func same[T any](values []T, names []string, key string, text func(T) string, advice string) []finding {
	holders := make(map[string][]string)
	for i, v := range values {
		holders[text(v)] = append(holders[text(v)], names[i])
	}
	if len(holders) < 2 {
		return nil
	}
	var said []string
	for value, names := range holders {
		said = append(said, fmt.Sprintf("%s in %s", value, strings.Join(names, ", ")))
	}
	slices.SortFunc(said, func(a, b string) int { return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b)) })
	return []finding{{key, "is " + strings.Join(said, ", but "), advice}}
}

func itself(text string) string { return fmt.Sprintf("%q", text) }

func oneNetwork(p *pool) []finding {
	values, names := ask(p, func(cfg service.Config) (string, bool) {
		switch c := cfg.(type) {
		case gbtmaker.Config:
			return c.Network, true
		case jobmaker.Config:
			return c.Network, true
		case sserver.Config:
			return c.Users.Network, c.NeedsNetwork()
		case blkmaker.Config:
			return c.Network, true
		case slparser.Config:
			return c.Network, true
		case statshttpd.Config:
			return c.Network, true
		case poolwatcher.Config:
			return c.Network, true
		}
		return "", false
	})
	return same(values, names, "network", itself, "All services work for one network.")
}

func oneKafka(p *pool) (all []finding) {
	values, names := ask(p, kafkaOf)
	brokers := func(c bus.Config) string { return fmt.Sprint(slices.Sorted(slices.Values(c.Brokers))) }
	all = same(values, names, "kafka.brokers", brokers, "Services of different clusters hear nothing of each other. Other names of the same brokers do no harm.")
	for _, topic := range topicUses {
		values, names := ask(p.only(topic.programs...), kafkaOf)
		all = append(all, same(values, names, "kafka.topics."+topic.key,
			func(c bus.Config) string { return itself(topic.get(c.Topics)) },
			"What one service writes another is to read.")...)
	}
	return append(all, same(values, names, "kafka.replication",
		func(c bus.Config) string { return fmt.Sprint(c.Replication) },
		"Whoever is first creates a topic: it is left to chance which of them counts.")...)
}

func oneDatabase(p *pool) []finding {
	twoOfThem := false
	for _, c := range first(configs[statshttpd.Config](p)) {
		twoOfThem = twoOfThem || c.StatisticsDatabase != store.Config{}
	}
	values, names := ask(p, func(cfg service.Config) (store.Config, bool) {
		if _, statistics := cfg.(slparser.Config); statistics && twoOfThem {
			return store.Config{}, false
		}
		return databaseOf(cfg)
	})
	found := same(values, names, "database", whichDatabase,
		"Users, blocks, workers and statistics are of one database: what one service writes the page does not find in another.")
	if !twoOfThem {
		return found
	}
	values, names = ask(p, func(cfg service.Config) (store.Config, bool) {
		switch c := cfg.(type) {
		case slparser.Config:
			return c.Database, true
		case statshttpd.Config:
			return c.StatisticsDatabase, true
		}
		return store.Config{}, false
	})
	return append(found, same(values, names, "statistics_database", whichDatabase, "It is that of slparser.")...)
}

// whichDatabase names a database without its login.
func whichDatabase(c store.Config) string {
	name, err := c.Name()
	if err != nil {
		return "unknown (" + err.Error() + ")"
	}
	return name
}

func oneShareLog(p *pool) []finding {
	type log struct{ dir, chain string }
	values, names := ask(p, func(cfg service.Config) (log, bool) {
		switch c := cfg.(type) {
		case sharelogger.Config:
			return log{c.DataDir, c.Chain}, len(c.Chains) == 0 // of several, each slparser reads one
		case slparser.Config:
			return log{c.DataDir, c.Chain}, true
		}
		return log{}, false
	})
	found := same(values, names, "data_dir and chain", func(l log) string { return fmt.Sprintf("%s of %s", l.dir, l.chain) },
		"slparser reads the files that sharelogger writes.")
	for i, l := range values {
		if !filepath.IsAbs(l.dir) && len(values) > 1 {
			found = append(found, finding{names[i], fmt.Sprintf("data_dir = %q depends on where the service is started", l.dir), "Write the whole path: sharelogger and slparser need the same."})
		}
	}
	return found
}

func ownFolders(p *pool) (found []finding) {
	owner := make(map[string]string)
	for _, part := range p.parts {
		dir := dataDir(part.config)
		if part.err != nil || !filepath.IsAbs(dir) { // under systemd each has a folder of its own to start in
			continue
		}
		dir = filepath.Clean(dir)
		if other, taken := owner[dir]; taken {
			found = append(found, finding{part.name, fmt.Sprintf("data_dir = %q is that of %s", dir, other), "Give each a folder of its own."})
		}
		owner[dir] = part.name
	}
	return found
}

// dataDir returns the folder that a service writes to, "" if there is none.
func dataDir(cfg service.Config) string {
	switch c := cfg.(type) {
	case gbtmaker.Config:
		return c.DataDir
	case sserver.Config:
		return c.DataDir
	case blkmaker.Config:
		return c.DataDir
	case sharelogger.Config:
		return c.DataDir
	}
	return ""
}

// ownAddresses takes files in one folder for services on one machine.
func ownAddresses(p *pool) (found []finding) {
	type listener struct{ name, key, addr string }
	var all []listener
	for _, part := range p.parts {
		if part.err != nil {
			continue
		}
		add := func(key string, addrs ...string) {
			for _, addr := range addrs {
				all = append(all, listener{part.name, key, addr})
			}
		}
		add("admin", part.config.Base().Admin)
		switch c := part.config.(type) {
		case gbtmaker.Config:
			add("notify_listen", c.NotifyListen)
		case auxmaker.Config:
			add("notify_listen", c.NotifyListen)
		case sserver.Config:
			add("listen", c.Listen)
			for i, l := range c.Listeners {
				add(fmt.Sprintf("listeners[%d].listen", i), l.Listen)
			}
			add("admin_api.listen", c.AdminAPI.Listen)
		case blkmaker.Config:
			add("handover.listen", c.Handover.Listen)
		case slparser.Config:
			add("listen", c.Listen)
		case statshttpd.Config:
			add("listen", c.Listen)
		}
	}
	for i, l := range all {
		for _, before := range all[:i] {
			if collide(before.addr, l.addr) {
				found = append(found, finding{l.name, fmt.Sprintf("%s = %q is taken by %s of %s", l.key, l.addr, before.key, before.name), "Choose another port."})
			}
		}
	}
	return found
}

// collide tells whether no two processes can listen at two addresses.
func collide(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	if errA != nil || errB != nil {
		return a == b && a != ""
	}
	anywhere := func(host string) bool { return host == "" || net.ParseIP(host).IsUnspecified() }
	return portA == portB && portA != "0" && (hostA == hostB || anywhere(hostA) || anywhere(hostB))
}

func ownIDs(p *pool) (found []finding) {
	servers, names := configs[sserver.Config](p)
	var leases []string
	for i, c := range servers {
		for j, other := range servers[:i] {
			if c.ServerID != 0 && c.ServerID == other.ServerID {
				found = append(found, finding{names[i], fmt.Sprintf("server_id = %d is that of %s", c.ServerID, names[j]), "Shares of two servers with one id count as repetitions of each other. Give each its own, or 0 with zookeeper.servers."})
			}
		}
		if c.ServerID == 0 {
			leases = append(leases, names[i])
		}
	}
	if len(leases) > 0 && len(leases) < len(servers) {
		found = append(found, finding{strings.Join(leases, ", "), "server_id = 0, while others have fixed ones", "A leased id may be one of those that are fixed: lease all, or fix all."})
	}
	zoo, names := ask(p, func(cfg service.Config) (registry.Config, bool) {
		switch c := cfg.(type) {
		case jobmaker.Config:
			return c.ZooKeeper, len(c.ZooKeeper.Servers) > 0
		case sserver.Config:
			return c.ZooKeeper, len(c.ZooKeeper.Servers) > 0
		}
		return registry.Config{}, false
	})
	found = append(found, same(zoo, names, "zookeeper.servers",
		func(c registry.Config) string { return fmt.Sprint(slices.Sorted(slices.Values(c.Servers))) }, "Ids are unique within one ensemble only.")...)
	makers, names := configs[jobmaker.Config](p)
	for i, c := range makers {
		if len(makers) > 1 && len(c.ZooKeeper.Servers) == 0 {
			found = append(found, finding{names[i], "is one of several jobmakers without zookeeper.servers", "All of them make jobs then. With ZooKeeper and leader_lock_path one does, and the others stand by."})
		}
	}
	return found
}

// solvedSharesArrive has each sserver hand its solved shares to the blkmakers that listen for them.
func solvedSharesArrive(p *pool) (found []finding) {
	makers, names := configs[blkmaker.Config](p)
	servers, serverNames := configs[sserver.Config](p)
	for i, m := range makers {
		_, port, err := net.SplitHostPort(m.Handover.Listen)
		if err != nil || port == "0" {
			continue
		}
		for j, s := range servers {
			called := slices.ContainsFunc(s.Handover.URLs, func(text string) bool {
				u, err := url.Parse(text)
				return err == nil && u.Port() == port
			})
			if !called {
				found = append(found, finding{serverNames[j], fmt.Sprintf("handover.urls does not name %s, which listens at %q", names[i], m.Handover.Listen), "A block goes through Kafka alone then, which costs time, and waits while Kafka is away."})
				continue
			}
			if s.Handover.Secret != m.Handover.Secret {
				if theirs, err := s.Handover.Read(); err == nil {
					if ours, err := m.Handover.Read(); err != nil || theirs == ours {
						continue
					}
				} else {
					continue // who may not read the files cannot tell
				}
				found = append(found, finding{serverNames[j], "handover: its token is not that of " + names[i], "Name the same token_file in both."})
			}
		}
	}
	return found
}

// nodes returns the RPC addresses of the nodes that make templates, and of those that get blocks.
func (p *pool) nodes() (templates, blocks []noderpc.Config) {
	for _, part := range p.parts {
		if part.err != nil {
			continue
		}
		switch c := part.config.(type) {
		case gbtmaker.Config:
			templates = append(templates, c.AllNodes()...)
		case blkmaker.Config:
			blocks = append(blocks, c.Nodes...)
		}
	}
	return templates, blocks
}

func blocksReachAllNodes(p *pool) (found []finding) {
	templates, blocks := p.nodes()
	if len(blocks) == 0 {
		return nil
	}
	for _, node := range templates {
		if !slices.ContainsFunc(blocks, func(b noderpc.Config) bool { return b.URL == node.URL }) {
			found = append(found, finding{"blkmaker", fmt.Sprintf("nodes: %s, which makes templates, is not among them", config.RedactURL(node.URL)), "Its own blocks reach it by the network only: name it, unless another name of it is there."})
		}
	}
	return found
}

func mergedChains(p *pool) (found []finding) {
	makers, _ := configs[auxmaker.Config](p)
	blocks, names := configs[blkmaker.Config](p)
	for _, a := range makers {
		for i, b := range blocks {
			for _, chain := range a.Chains {
				if !slices.ContainsFunc(b.AuxNodes, func(n blkmaker.AuxNode) bool { return n.Name == chain.Name }) {
					found = append(found, finding{names[i], fmt.Sprintf("aux_nodes: none is called %q, a chain of auxmaker", chain.Name), "Blocks of that chain are found, and lost: name its node."})
				}
			}
			if a.RSK.URL != "" && !slices.ContainsFunc(b.RSKNodes, func(n blkmaker.RSKNode) bool { return n.Name == a.RSK.Name }) {
				found = append(found, finding{names[i], fmt.Sprintf("rsk_nodes: none is called %q, as auxmaker's is", a.RSK.Name), "Blocks of RSK are found, and lost: name its node."})
			}
		}
	}
	return found
}

// oneCount has slparser and statshttpd count the same.
func oneCount(p *pool) []finding {
	type count struct {
		stale  bool
		single int32
	}
	values, names := ask(p, func(cfg service.Config) (count, bool) {
		switch c := cfg.(type) {
		case slparser.Config:
			return count{c.AcceptStale, c.SingleUserPUID}, true
		case statshttpd.Config:
			return count{c.AcceptStale, c.SingleUserPUID}, true
		}
		return count{}, false
	})
	return same(values, names, "accept_stale and single_user_puid",
		func(c count) string { return fmt.Sprintf("%v and %d", c.stale, c.single) }, "The page and the tables say different things otherwise.")
}

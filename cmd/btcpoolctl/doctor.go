package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"btcpool/gbtmaker"
	"btcpool/internal/bitcoin"
	"btcpool/internal/registry"
	"btcpool/internal/service"
	"btcpool/jobmaker"
	"btcpool/sserver"
)

// What the doctor finds too little, or too far off.
const (
	leastDisk  = 1 << 30
	leastPart  = 0.05 // of the disk
	leastFiles = 65536
	dialFor    = 3 * time.Second
	// maxLag is how many blocks a node may be behind its headers.
	maxLag = 1
)

func (t *tool) doctorCommand() *cobra.Command {
	return t.onPool(&cobra.Command{
		Use: "doctor", Short: "Say what is wrong, where, and what to do", Args: exactly(0),
		Long: `doctor looks, in the order in which work goes through the pool, at the configurations, the nodes, Kafka and its topics,
ZooKeeper, the database, the disks and the services. It changes nothing.`,
	}, func(ctx context.Context, p *pool, _ []string) (err error) {
		for _, step := range []struct {
			name string
			look func(context.Context, *pool) []finding
		}{
			{"configurations", func(_ context.Context, p *pool) []finding { return p.faults() }},
			{"nodes", lookAtNodes},
			{"Kafka", t.lookAtKafka},
			{"ZooKeeper", lookAtZooKeeper},
			{"database", lookAtDatabase},
			{"disks", lookAtDisks},
			{"services", lookAtServices},
		} {
			found := step.look(ctx, p)
			if len(found) == 0 {
				t.printf("%s: nothing wrong\n", step.name)
				continue
			}
			t.printf("%s:\n", step.name)
			for _, f := range found {
				t.printf("  %s\n", f)
			}
			err = errFound
		}
		return err
	})
}

func lookAtNodes(ctx context.Context, p *pool) (found []finding) {
	want := ""
	makers, _ := configs[gbtmaker.Config](p)
	for _, m := range makers {
		if n, err := bitcoin.NetworkByName(m.Network); err == nil {
			want = n.Chain
		}
	}
	nodes, err := p.nodeClients()
	if err != nil {
		return []finding{{"nodes", err.Error(), ""}}
	}
	for _, node := range nodes {
		is, err := node.ChainInfo(ctx)
		switch {
		case err != nil:
			found = append(found, finding{node.URL(), err.Error(), "Is the node running, and are rpc_url and the login right?"})
		case want != "" && is.Chain != want:
			found = append(found, finding{node.URL(), fmt.Sprintf("is on %s, the pool on %s", is.Chain, want), "Name a node of the pool's network."})
		case is.InitialBlockDownload:
			found = append(found, finding{node.URL(), fmt.Sprintf("downloads the chain still, it has block %d", is.Blocks), "Nothing can be mined before it is done."})
		case is.Headers-is.Blocks > maxLag:
			found = append(found, finding{node.URL(), fmt.Sprintf("has block %d and headers up to %d", is.Blocks, is.Headers), "It is behind: look at its disk and its log."})
		}
	}
	return found
}

func (t *tool) lookAtKafka(ctx context.Context, p *pool) (found []finding) {
	client, err := t.kafka(p)
	if err != nil {
		return []finding{{"kafka", err.Error(), ""}}
	}
	defer func() { _ = client.Close() }()
	if err := client.Ping(ctx); err != nil {
		return []finding{{"kafka.brokers", err.Error(), "Is Kafka running, and is kafka.brokers right?"}}
	}
	all, _ := ask(p, kafkaOf)
	for _, name := range p.topics() {
		is, err := client.Describe(ctx, name)
		switch {
		case err != nil:
			found = append(found, finding{name, err.Error(), "Services create topics when they start; btcpoolctl topics create does it now."})
		case is.Replicas < all[0].Replication:
			found = append(found, finding{name, fmt.Sprintf("has %d replicas, kafka.replication is %d", is.Replicas, all[0].Replication), "Raise it with kafka-reassign-partitions: with one, a disk that is lost takes shares with it."})
		}
	}
	return found
}

func lookAtZooKeeper(ctx context.Context, p *pool) (found []finding) {
	all, _ := ask(p, func(cfg service.Config) (registry.Config, bool) {
		switch c := cfg.(type) {
		case jobmaker.Config:
			return c.ZooKeeper, true
		case sserver.Config:
			return c.ZooKeeper, true
		}
		return registry.Config{}, false
	})
	asked := make(map[string]bool)
	for _, c := range all {
		for _, addr := range c.Servers {
			if asked[addr] {
				continue
			}
			asked[addr] = true
			dialCtx, cancel := context.WithTimeout(ctx, dialFor)
			conn, err := new(net.Dialer).DialContext(dialCtx, "tcp", addr)
			cancel()
			if err != nil {
				found = append(found, finding{addr, err.Error(), "Is ZooKeeper running, and is zookeeper.servers right? Who has an id keeps it while all are away."})
				continue
			}
			_ = conn.Close()
		}
	}
	return found
}

func lookAtDatabase(ctx context.Context, p *pool) []finding {
	db, name, err := p.database(ctx)
	if errors.Is(err, errNoDatabase) {
		return nil
	}
	if err != nil {
		return []finding{{"database " + name, err.Error(), "Is it running, and is database.dsn right? Shares and blocks are kept until it is back."}}
	}
	if err := db.Close(); err != nil {
		return []finding{{"database " + name, err.Error(), ""}}
	}
	return nil
}

// lookAtDisks looks at the folders that are named with their whole path.
func lookAtDisks(_ context.Context, p *pool) (found []finding) {
	for _, part := range p.parts {
		dir := dataDir(part.config)
		if part.err != nil || !filepath.IsAbs(dir) {
			continue
		}
		if _, err := os.Stat(dir); err != nil {
			found = append(found, finding{part.name, fmt.Sprintf("data_dir: %v", err), "The service makes it when it starts, if it may: give its user the folder."})
			continue
		}
		var disk unix.Statfs_t
		if err := unix.Statfs(dir, &disk); err != nil {
			found = append(found, finding{part.name, fmt.Sprintf("data_dir = %q: %v", dir, err), ""})
			continue
		}
		free, all := disk.Bavail*uint64(disk.Bsize), disk.Blocks*uint64(disk.Bsize)
		if free < leastDisk || float64(free) < leastPart*float64(all) {
			found = append(found, finding{part.name, fmt.Sprintf("data_dir = %q has %.1f GB left of %.1f", dir, float64(free)/1e9, float64(all)/1e9), "Make room: without it shares are refused, or wait in Kafka."})
		}
	}
	servers, names := configs[sserver.Config](p)
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err == nil && files.Max < leastFiles {
		for i, s := range servers {
			if uint64(s.MaxConnections) > files.Max {
				found = append(found, finding{names[i], fmt.Sprintf("max_connections = %d, and who asks here may open %d files", s.MaxConnections, files.Max), "The unit has LimitNOFILE=1048576; started by hand, raise it with ulimit -n."})
			}
		}
	}
	return found
}

func lookAtServices(ctx context.Context, p *pool) (found []finding) {
	versions := make(map[string]string)
	for _, s := range p.states(ctx) {
		if s.missing != nil {
			found = append(found, finding{s.part.name, s.missing.Error(), ""})
		}
		if s.version != "" {
			versions[s.version] = s.part.name
		}
	}
	if len(versions) > 1 {
		found = append(found, finding{"versions", fmt.Sprint(versions), "Upgrade all services: they work together in any order, but not all that is new does before."})
	}
	return found
}

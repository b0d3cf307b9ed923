//go:build integration

// Package upgrade runs the pool with the programs of the release before, of this tree, and of both beside each other,
// as an operator who upgrades and goes back does. Releases and their commits are those of CHANGELOG.md.
package upgrade

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"btcpool/internal/auxpow/auxpowtest"
	"btcpool/internal/share"
	"btcpool/internal/testkit"
	"btcpool/test/integration/rig"
)

var (
	from = flag.String("upgrade.from", "", "the release that is upgraded, as CHANGELOG.md names it; empty: the newest")
	seed = flag.Uint64("upgrade.seed", 1, "TestUpgrade: what the order of services is drawn from")
)

// difficulties are such that a CPU finds shares at once also behind the farm proxy, where nobody can ask for one.
const difficulties = "default_difficulty = 0.00001\nmin_difficulty = 0.00000001\nshare_interval = \"1s\"\n"

// patience is for what must come to hold on a machine that does much else.
const patience = 5 * time.Minute

// TestUpgrade upgrades one service after the other under load, in an order drawn from a seed, goes back to the release
// before in another order, and upgrades again. Nobody changes the configuration, which is one that the release before
// takes. One in four services is killed instead of stopped. After each step miners, at the pool and behind the farm
// proxy, have shares acknowledged, and blocks are found; after each round what was acknowledged is in the share log
// once, the tables and the API say what the log says, and the blocks on the chain are the rows of found_blocks.
//
//	go test -tags integration -count=1 -v -run TestUpgrade ./test/upgrade -upgrade.from 0.4.0 -upgrade.seed 7
func TestUpgrade(t *testing.T) {
	t.Parallel()
	previous, current := rig.Previous(t, *from), rig.Current(t)
	dir := t.TempDir()
	db, node := rig.StartMariaDB(t, dir), rig.StartBtcd(t, dir, rig.PayoutAddress)
	const easyBits = 0x207fffff // every second hash meets it
	aux := auxpowtest.StartNode(1, easyBits, false)
	t.Cleanup(aux.Close)
	p := &pool{t: t, dir: dir, node: node, aux: aux, Pool: rig.Setup{
		Kafka: rig.StartKafka(t, dir), DB: db, ZooKeeper: rig.StartZooKeeper(t, dir), Nodes: []rig.Node{node.Node()},
		Direct: true, Aux: aux, Farm: true, Release: previous, Difficulties: difficulties,
	}.Start(t, dir)}
	p.db = db.Open(t)
	rng := rand.New(rand.NewPCG(*seed, 0))
	for i, to := range []*rig.Release{current, previous, current} {
		began := time.Now()
		round := fmt.Sprintf("round %d, to %s", i+1, to.Version)
		p.startMiners()
		p.works(round + ", before it begins")
		order := slices.Clone(p.Names)
		rng.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		t.Logf("seed %d, %s: %s", *seed, round, strings.Join(order, ", "))
		for _, service := range order {
			p.replace(service, to, rng.IntN(4) == 0)
			p.works(round + ", with " + service)
		}
		p.stopMiners()
		p.settle(round)
		t.Logf("%s: %s, after %v", round, p.ledger.String(), time.Since(began).Round(time.Second))
	}
}

// TestUpgradeSingle upgrades the pool in one process, with what is embedded in it, goes back, and upgrades again.
func TestUpgradeSingle(t *testing.T) {
	t.Parallel()
	previous, current := rig.Previous(t, *from), rig.Current(t)
	dir := t.TempDir()
	node := rig.StartBtcd(t, dir, rig.PayoutAddress)
	p := &pool{t: t, dir: dir, node: node, Pool: rig.StartSingle(t, dir, node, previous)}
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "data", "regtest", "pool.db")+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	p.db = db
	for i, to := range []*rig.Release{current, previous, current} {
		round := fmt.Sprintf("round %d, to %s", i+1, to.Version)
		p.startMiners()
		p.works(round + ", before it begins")
		p.replace("btcpool", to, i == 1)
		p.works(round)
		p.stopMiners()
		p.settle(round)
		t.Logf("%s: %s", round, p.ledger.String())
	}
}

// pool is a pool, its miners and what it owes them.
type pool struct {
	*rig.Pool
	t    *testing.T
	dir  string
	db   *sql.DB
	node *rig.Btcd
	aux  *auxpowtest.Node // a chain that is mined along, if there is one

	rounds int
	direct *rig.Miner
	behind *rig.Miner // the farm proxy, if there is one
	ledger rig.Ledger
}

func (p *pool) startMiners() {
	p.t.Helper()
	p.rounds++
	load := func(name string, args ...string) (string, []string) {
		name = fmt.Sprint(name, p.rounds)
		return name, append(args, "-user", "farm."+name+"x%d", "-threads", "1", "-conns", "4", "-rate", "2", "-reconnect")
	}
	name, args := load("direct", "-password", "d=0.00001")
	p.direct = p.StartMiner(p.t, p.dir, name, args...)
	if p.Farm != "" {
		name, args := load("behind")
		p.behind = p.StartFarmMiner(p.t, p.dir, name, args...)
	}
}

// miners are those that run.
func (p *pool) miners() []*rig.Miner {
	if p.behind == nil {
		return []*rig.Miner{p.direct}
	}
	return []*rig.Miner{p.direct, p.behind}
}

// stopMiners ends them, and writes down what they were told.
func (p *pool) stopMiners() {
	p.t.Helper()
	for _, m := range p.miners() {
		if code, err := m.Stop(); err != nil || code != 0 {
			p.t.Errorf("%s ended with code %d, %v", m.Name, code, err)
		}
	}
	p.ledger.Add(p.direct.Acks(), p.direct.Report().Unanswered)
	if p.behind != nil {
		report := p.behind.Report()
		p.ledger.AddFarm(p.behind.Acks(), report.Unanswered+report.Refused())
	}
}

// replace ends a service and starts it again with the release's program.
func (p *pool) replace(service string, to *rig.Release, kill bool) {
	p.t.Helper()
	process := p.Service(service)
	if kill {
		process.Kill()
	} else if code, err := process.Stop(); err != nil || code != 0 {
		p.t.Errorf("%s ended with code %d, %v", service, code, err)
	}
	process.Use(to.Program(service))
	process.Start()
	testkit.Until(p.t, patience, service+" of "+to.Version+" is ready", func(ctx context.Context) error {
		if process.Exited() {
			p.t.Fatalf("%s of %s ended by itself", service, to.Version)
		}
		return p.Ready(ctx, service)
	})
}

// works waits until each miner has had shares acknowledged and the chain has grown.
func (p *pool) works(when string) {
	p.t.Helper()
	had := make([]int, 2)
	for i, m := range p.miners() {
		had[i] = len(m.Acks())
	}
	height, merged := int64(-1), 0
	if p.aux != nil {
		merged = len(p.aux.Accepted())
	}
	testkit.Until(p.t, patience, "mining goes on in "+when, func(ctx context.Context) error {
		var now int64
		if err := p.node.Call(ctx, "getblockcount", &now); err != nil {
			return err
		}
		if height < 0 {
			height = now
		}
		if now == height {
			return fmt.Errorf("no block beyond %d", height)
		}
		if p.aux != nil && len(p.aux.Accepted()) == merged {
			return fmt.Errorf("no block of the other chain beyond %d", merged)
		}
		for i, m := range p.miners() {
			if got := len(m.Acks()); got < had[i]+5 {
				return fmt.Errorf("%s has had %d shares acknowledged, %d before", m.Name, got, had[i])
			}
		}
		return nil
	})
}

// settle waits until log, tables, API and chain say the same.
func (p *pool) settle(round string) {
	p.t.Helper()
	p.WaitLog(p.t, patience, "what was acknowledged is in the log, in the tables and in the API, after "+round, func(ctx context.Context, log []share.Share) error {
		return errors.Join(p.ledger.Compare(log), rig.CompareStatistics(ctx, p.db, log), p.CompareLive(ctx, log))
	})
	testkit.Until(p.t, patience, "blocks are rows, after "+round, func(ctx context.Context) error {
		if _, err := rig.CompareBlocks(ctx, p.db, p.node.Client, nil); err != nil || p.aux == nil {
			return err
		}
		return rig.CompareMerged(ctx, p.db, p.aux)
	})
}

// TestWritten has the programs of this tree take what operators have written for the release before: the sample
// configurations, flags, and variables of the environment.
func TestWritten(t *testing.T) {
	t.Parallel()
	previous, current := rig.Previous(t, *from), rig.Current(t)
	samples, err := filepath.Glob(filepath.Join(previous.Source, "configs", "*.toml"))
	if err != nil || len(samples) == 0 {
		t.Fatalf("no samples: %v", err)
	}
	// The one key that has no default.
	payout := strings.NewReplacer(`network = "mainnet"`, `network = "regtest"`, "\npayout_address = \"\"", fmt.Sprintf("\npayout_address = %q", rig.PayoutAddress))
	for _, sample := range samples {
		text, err := os.ReadFile(sample)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(sample)
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, []byte(payout.Replace(string(text))), 0o600); err != nil {
			t.Fatal(err)
		}
		service := strings.TrimSuffix(name, ".toml")
		if out, err := exec.Command(current.Program(service), "-check", "-config", file).CombinedOutput(); err != nil {
			t.Errorf("%s of %s: %v\n%s", name, previous.Version, err, out)
		}
		before, now := flags(t, previous.Program(service)), flags(t, current.Program(service))
		for _, f := range before {
			if !slices.Contains(now, f) {
				t.Errorf("%s of %s has the flag %s, this one does not", service, previous.Version, f)
			}
		}
	}
	before, now := variables(t, previous), variables(t, current)
	for _, v := range before {
		if !slices.Contains(now, v) {
			t.Errorf("%s knows the variable %s, this tree does not", previous.Version, v)
		}
	}
}

var flagLine = regexp.MustCompile(`(?m)^  (-\S+)`)

// flags are those that a program says it has.
func flags(t *testing.T, program string) (all []string) {
	t.Helper()
	out, err := exec.Command(program, "-help").CombinedOutput()
	if err != nil && len(out) == 0 {
		t.Fatal(err)
	}
	for _, m := range flagLine.FindAllSubmatch(out, -1) {
		all = append(all, string(m[1]))
	}
	if len(all) == 0 {
		t.Fatalf("%s tells of no flag: %s", program, out)
	}
	return all
}

// variables are those that services read, without the prefix.
func variables(t *testing.T, r *rig.Release) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(r.Source, "internal", "service", "variables.txt"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(text))
}

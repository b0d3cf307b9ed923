//go:build integration

package faults

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"btcpool/internal/testkit"
	"btcpool/test/integration/rig"
)

var (
	driverSeed  = flag.Uint64("faults.seed", 0, "TestDriver: what the faults are drawn from; 0: one round of each of a few seeds")
	driverFor   = flag.Duration("faults.for", 0, "TestDriver: how long rounds are begun, with faults.seed")
	driverCount = flag.Int("faults.count", 0, "TestDriver: rounds are begun until there were so many faults, with faults.seed")
	driverKinds = flag.String("faults.kinds", "", "TestDriver: kinds of faults, separated by commas; empty: all")
)

// ciSeeds are the rounds of a run without flags: between them each kind of fault is drawn, and logflip before what
// keeps a day from being repaired.
var ciSeeds = []uint64{143, 23, 100}

// drawsARound is how often faults are drawn until it is calm again.
const drawsARound = 5

// TestDriver draws faults of all kinds from a seed, one or two at a time, while a miner mines. After each round it is
// calm: what was acknowledged is in the share log once, the tables and the API say what the log says, and the blocks on
// the node's chain are the rows of found_blocks.
//
// Of what a fault destroys by its nature the driver knows exactly what it was, and misses nothing else: see rig.Ledger.
func TestDriver(t *testing.T) {
	t.Parallel()
	kinds := allKinds()
	if *driverKinds != "" {
		kinds = strings.Split(*driverKinds, ",")
	}
	w := newWorld(t)
	if *driverSeed == 0 {
		for _, seed := range ciSeeds {
			w.round(t, fmt.Sprintf("seed %d", seed), drawRound(seed, kinds))
		}
		return
	}
	rng := rand.New(rand.NewPCG(*driverSeed, 0))
	defer w.table(t)
	for begin, n := time.Now(), 1; n == 1 || time.Since(begin) < *driverFor || w.faults < *driverCount; n++ {
		w.round(t, fmt.Sprintf("seed %d, round %d", *driverSeed, n), draw(rng, kinds, drawsARound))
	}
}

func drawRound(seed uint64, kinds []string) []draught {
	return draw(rand.New(rand.NewPCG(seed, 0)), kinds, drawsARound)
}

// TestSeedsDrawEveryKind is to fail when a new kind of fault has changed what is drawn: other seeds are needed then.
func TestSeedsDrawEveryKind(t *testing.T) {
	t.Parallel()
	drawn := map[string]bool{}
	for _, seed := range ciSeeds {
		for _, d := range drawRound(seed, allKinds()) {
			for _, f := range d.faults {
				if f.kind == "logflip" && (drawn["tail"] || drawn["anew"]) && !drawn["logflip"] {
					t.Error("a day's file is damaged only when nothing can repair it")
				}
				drawn[f.kind] = true
			}
		}
	}
	for _, kind := range allKinds() {
		if !drawn[kind] {
			t.Errorf("no seed draws %s", kind)
		}
	}
	drawn = map[string]bool{}
	for _, d := range drawExact(exactRand(exactEveryKind), exactDraughts) {
		for _, f := range d.faults {
			drawn[f.kind] = true
		}
	}
	for _, kind := range exactKinds {
		if !drawn[kind] {
			t.Errorf("TestExact does not draw %s", kind)
		}
	}
}

// world is a pool with everything it works with, and what it owes.
type world struct {
	t      *testing.T
	dir    string
	kafka  *rig.Kafka
	db     *rig.MariaDB
	zk     *rig.ZooKeeper
	node   *rig.Btcd
	pool   *rig.Pool
	lines  *rig.Lines
	clocks map[string]*rig.Clock
	miners int
	ledger rig.Ledger
	faults int
	// history has the draughts so far.
	history []happened
	// forgotten blocks were on the chain of the node when it was killed, and not afterwards. A row that was confirmed
	// before stays so: a block that a hundred others stood on is not looked at any more.
	forgotten map[string]bool

	began   time.Time
	clocked bool // a clock was wrong
}

func newWorld(t *testing.T) *world {
	dir := t.TempDir()
	lines := rig.NewLines(t)
	w := &world{
		t: t, dir: dir, began: time.Now(), clocks: map[string]*rig.Clock{}, forgotten: map[string]bool{}, lines: lines,
		kafka: rig.StartKafkaBehind(t, dir, lines), db: rig.StartMariaDB(t, dir), zk: rig.StartZooKeeper(t, dir),
		node: rig.StartBtcd(t, dir, rig.PayoutAddress),
	}
	for _, service := range rig.Services {
		w.clocks[service] = rig.NewClock(t)
	}
	w.pool = rig.Setup{
		Kafka: w.kafka, DB: w.db, ZooKeeper: w.zk, Nodes: []rig.Node{w.node.Node()}, Direct: true, Clocks: w.clocks, Lines: lines,
	}.Start(t, dir)
	jobEverywhere(t, w.pool)
	return w
}

// round lets all that was drawn happen, then waits for what must hold.
func (w *world) round(t *testing.T, name string, drawn []draught) {
	t.Helper()
	began := time.Now()
	t.Logf("%s: %v", name, drawn)
	w.miners++
	miner := w.pool.StartMiner(t, w.dir, fmt.Sprintf("miner-%d", w.miners),
		"-user", fmt.Sprintf("carol.rig%d", w.miners%3), "-password", "d=0.00001", "-threads", "1", "-conns", "3", "-rate", "2", "-reconnect")
	w.grows("before "+name, 2)
	for _, d := range drawn {
		w.endure(d)
		w.faults += len(d.faults)
	}
	for _, clock := range w.clocks {
		clock.Right(t)
	}
	for _, service := range w.pool.Names {
		w.ready(service)
	}
	w.grows("after "+name, 3)
	if code, err := miner.Stop(); err != nil || code != 0 {
		t.Fatalf("minersim ended with code %d, %v", code, err)
	}
	w.ledger.Add(miner.Acks(), miner.Report().Unanswered)
	w.settle(name)
	t.Logf("%s: holds after %v and %d faults: %s", name, time.Since(began).Round(time.Second), w.faults, w.ledger.String())
}

// endure lets the faults of a draught begin one after another, last, and end in the same order.
func (w *world) endure(d draught) {
	w.t.Logf("%s  %s", time.Now().UTC().Format("15:04:05"), d)
	var ends []func()
	for _, f := range d.faults {
		ends = append(ends, w.begin(f))
	}
	h := happened{draught: d, words: w.watch(d.length)}
	for _, end := range ends {
		end()
	}
	for service, words := range h.words {
		if slices.Contains(words, noWord) {
			w.t.Errorf("%s: %s is not ready and does not say why", d, service)
		}
	}
	w.history = append(w.history, h)
}

// patience is for what must come to hold on a machine that does much else.
const patience = 10 * time.Minute

func (w *world) ready(service string) {
	w.t.Helper()
	testkit.Until(w.t, patience, service+" is ready", func(ctx context.Context) error {
		if w.pool.Service(service).Exited() {
			w.t.Fatalf("%s ended by itself", service)
		}
		return w.pool.Ready(ctx, service)
	})
}

// grows waits until the chain has so many blocks more.
func (w *world) grows(when string, n int64) {
	w.t.Helper()
	before := int64(-1)
	testkit.Until(w.t, patience, "the chain grows "+when, func(ctx context.Context) error {
		var height int64
		if err := w.node.Call(ctx, "getblockcount", &height); err != nil {
			return err
		}
		if before < 0 {
			before = height
		}
		if height < before+n {
			return fmt.Errorf("height %d, %d at first", height, before)
		}
		return nil
	})
}

// draught is what is drawn at once: faults that begin together.
type draught struct {
	faults []fault
	length time.Duration
}

func (d draught) String() string {
	var names []string
	for _, f := range d.faults {
		names = append(names, f.String())
	}
	return fmt.Sprintf("[%s for %v]", strings.Join(names, " + "), d.length)
}

// draw draws n draughts of one or two faults. Faults that need the same thing to be there do not come together.
func draw(rng *rand.Rand, kinds []string, n int) (drawn []draught) {
	for range n {
		d := draught{length: time.Duration(1000+rng.IntN(9000)) * time.Millisecond}
		var taken []string
		for range 1 + rng.IntN(2) {
			f := drawFault(rng, kinds)
			if uses := f.uses(); !slices.ContainsFunc(uses, func(u string) bool { return slices.Contains(taken, u) }) {
				taken = append(taken, uses...)
				d.faults = append(d.faults, f)
			}
		}
		drawn = append(drawn, d)
	}
	return drawn
}

// segments returns the files of the spool of shares, oldest first.
func (w *world) segments() []string {
	names, err := filepath.Glob(filepath.Join(w.dir, "sserver", "shares", "*.seg"))
	if err != nil {
		w.t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

//go:build integration

package faults

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"

	"btcpool/internal/bus"
	"btcpool/internal/sharefile"
	"btcpool/internal/testkit"
	"btcpool/test/integration/rig"
)

const shareTopic = "BtcShare"

// fault is one drawn fault: its kind, whom it meets, and how hard.
type fault struct {
	kind   string
	target string
	amount float64       // from 0 to 1: how much, or where
	step   time.Duration // of a clock
}

func (f fault) String() string {
	switch f.kind {
	case "clock":
		return fmt.Sprintf("clock of %s %v", f.target, f.step)
	case "kill", "stop", "disk", "drift", "cut", "halfclose", "isolate":
		return f.kind + " " + f.target
	}
	return strings.ReplaceAll(fmt.Sprintf("%s %s %.2f", f.kind, f.target, f.amount), "  ", " ")
}

// A kind of fault has whom it may meet, what else it needs while it lasts, and what it does; that returns what ends it.
type kind struct {
	targets []string
	uses    []string
	begin   func(w *world, f fault) (end func())
}

var kinds map[string]kind

func init() {
	kinds = map[string]kind{
		"kill":      {rig.Services, nil, (*world).kill},
		"stop":      {rig.Services, nil, (*world).stop},
		"disk":      {[]string{"sserver", "sharelogger", "blkmaker", "gbtmaker"}, nil, (*world).disk},
		"clock":     {append(slices.Clone(rig.Services), everybody), nil, (*world).stepClock},
		"drift":     {append(slices.Clone(rig.Services), everybody), nil, (*world).driftClock},
		"kafka":     {nil, []string{"kafka"}, (*world).killKafka},
		"tail":      {nil, []string{"kafka"}, (*world).cutTail},
		"anew":      {nil, []string{"kafka", "sserver", "sharelogger"}, (*world).topicAnew},
		"partition": {nil, []string{"kafka"}, (*world).addPartition},
		"logflip":   {nil, []string{"kafka", "sharelogger"}, (*world).flipLog},
		"spoolflip": {nil, []string{"kafka", "sserver"}, (*world).flipSpool},
		"database":  {nil, []string{"database"}, (*world).killDatabase},
		"zookeeper": {nil, []string{"zookeeper"}, (*world).killZooKeeper},
		"node":      {nil, []string{"node"}, (*world).killNode},
		"nodehangs": {nil, []string{"node"}, (*world).stopNode},
		"slow":      {append(slices.Clone(rig.Services), everybody), nil, (*world).slowNetwork},
		"loss":      {append(slices.Clone(rig.Services), everybody), nil, (*world).lossyNetwork},
		"cut":       {append(slices.Clone(rig.Services), everybody), nil, (*world).cutOff},
		"halfclose": {append(slices.Clone(rig.Services), everybody), nil, (*world).halfClose},
		"part":      {rig.Services, nil, (*world).part},
		"isolate":   {rig.Services, nil, (*world).isolate},
	}
}

const everybody = "all"

func allKinds() []string { return slices.Sorted(maps.Keys(kinds)) }

func drawFault(rng *rand.Rand, names []string) fault {
	f := fault{kind: names[rng.IntN(len(names))], amount: rng.Float64()}
	steps := []time.Duration{-time.Hour, time.Hour, -2 * time.Hour, 2 * time.Hour, -5 * time.Second, 5 * time.Second}
	f.step = steps[rng.IntN(len(steps))]
	who := rng.IntN(1 << 16)
	if targets := kinds[f.kind].targets; len(targets) > 0 {
		f.target = targets[who%len(targets)]
	}
	return f
}

func (f fault) uses() []string {
	switch f.kind {
	case "clock", "drift": // clocks go together with anything but clocks
		return []string{"clocks"}
	}
	if f.target != "" {
		return []string{f.target}
	}
	return kinds[f.kind].uses
}

func (w *world) begin(f fault) (end func()) {
	w.t.Helper()
	k, ok := kinds[f.kind]
	if !ok {
		w.t.Fatalf("no kind of fault %q", f.kind)
	}
	return k.begin(w, f)
}

func (w *world) kill(f fault) func() {
	p := w.pool.Service(f.target)
	p.Kill()
	return p.Start
}

func (w *world) stop(f fault) func() {
	p := w.pool.Service(f.target)
	p.Pause()
	return p.Resume
}

func (w *world) disk(f fault) func() {
	p := w.pool.Service(f.target)
	p.DiskFull(true)
	return func() { p.DiskFull(false) }
}

// stepClock sets clocks wrong, and right at its end: that is a step, too.
func (w *world) stepClock(f fault) func() {
	for _, c := range w.clocksOf(f.target) {
		c.Step(w.t, f.step)
	}
	return func() {
		for _, c := range w.clocksOf(f.target) {
			c.Right(w.t)
		}
	}
}

// driftClock lets clocks run a tenth too fast.
func (w *world) driftClock(f fault) func() {
	for _, c := range w.clocksOf(f.target) {
		c.Drift(w.t, 100_000)
	}
	return func() {
		for _, c := range w.clocksOf(f.target) {
			c.Right(w.t)
		}
	}
}

func (w *world) clocksOf(target string) []*rig.Clock {
	w.clocked = true
	if target == everybody {
		return slices.Collect(maps.Values(w.clocks))
	}
	return []*rig.Clock{w.clocks[target]}
}

func (w *world) killKafka(fault) func() {
	w.kafka.Kill()
	return w.startKafka
}

func (w *world) startKafka() {
	w.kafka.Start()
	w.kafka.WaitReady(w.t)
}

func (w *world) killDatabase(fault) func() {
	w.db.Kill()
	return w.db.Start
}

func (w *world) killZooKeeper(fault) func() {
	w.zk.Kill()
	return w.zk.Start
}

// killNode kills the only node, which forgets the blocks that it had not written yet, be they a hundred deep: btcd
// writes every five minutes.
func (w *world) killNode(fault) func() {
	before := w.chain()
	w.node.Kill()
	return func() {
		w.node.Start()
		w.node.WaitReady(w.t)
		after := w.chain()
		for height, hash := range before {
			if height >= len(after) || after[height] != hash {
				w.forgotten[hash] = true
			}
		}
	}
}

// chain returns the hashes of the node's blocks by height.
func (w *world) chain() (hashes []string) {
	w.t.Helper()
	testkit.Until(w.t, patience, "the node tells its blocks", func(ctx context.Context) error {
		hashes = nil
		var tip int32
		if err := w.node.Call(ctx, "getblockcount", &tip); err != nil {
			return err
		}
		for height := range tip + 1 {
			var hash string
			if err := w.node.Call(ctx, "getblockhash", &hash, height); err != nil {
				return err
			}
			hashes = append(hashes, hash)
		}
		return nil
	})
	return hashes
}

func (w *world) stopNode(fault) func() {
	w.node.Pause()
	return w.node.Resume
}

// admin returns a client of the broker.
func (w *world) admin() *kafka.Client {
	transport := &kafka.Transport{}
	w.t.Cleanup(transport.CloseIdleConnections)
	return &kafka.Client{Addr: kafka.TCP(w.kafka.Addr), Timeout: 20 * time.Second, Transport: transport}
}

// maxPartitions bounds how far the topic of shares grows.
const maxPartitions = 4

func (w *world) addPartition(fault) func() {
	n := w.partitions()
	if n >= maxPartitions {
		w.t.Logf("%s has %d partitions: none is added", shareTopic, n)
		return func() {}
	}
	testkit.AddPartitions(w.t, bus.Config{Brokers: []string{w.kafka.Addr}}, shareTopic, n+1)
	return func() {}
}

// partitions returns how many the topic of shares has.
func (w *world) partitions() (n int) {
	testkit.Until(w.t, testkit.Patience, "partitions of "+shareTopic, func(ctx context.Context) error {
		answer, err := w.admin().Metadata(ctx, &kafka.MetadataRequest{Topics: []string{shareTopic}})
		if err == nil && len(answer.Topics) != 1 {
			err = errors.New("not told of")
		}
		if err == nil {
			err = answer.Topics[0].Error
		}
		if err != nil {
			return err
		}
		n = len(answer.Topics[0].Partitions)
		return nil
	})
	return n
}

// flipSpool damages a record that waits on sserver's disk, because Kafka is away, while sserver is down.
func (w *world) flipSpool(f fault) func() {
	w.kafka.Kill()
	return func() {
		sserver := w.pool.Service("sserver")
		sserver.Kill()
		for _, segment := range slices.Backward(w.segments()) { // the last is there before anything is in it
			if flip(w.t, segment, f.amount) {
				w.ledger.Flips++
				break
			}
		}
		sserver.Start()
		w.startKafka()
	}
}

// flipLog damages a day's file: its reader goes on behind the damage, and the repair takes what it lost from the topic
// again. Where the topic is not any more what it was nothing can, and nothing is done.
func (w *world) flipLog(f fault) func() {
	sharelogger := w.pool.Service("sharelogger")
	days, err := sharefile.Days(w.pool.Log, "BTC")
	if err != nil {
		w.t.Fatal(err)
	}
	if !w.ledger.Whole() || len(days) == 0 {
		w.t.Logf("no bit of %d days is turned over, or records are not in the topic any more", len(days))
		return func() {}
	}
	day := days[int(f.amount*float64(len(days)))]
	flip(w.t, sharefile.Path(w.pool.Log, "BTC", day), f.amount)
	return func() {
		sharelogger.Kill()
		if code, printed := w.pool.Once(w.t, "sharelogger", "-repair", strconv.Itoa(int(day))); code != 0 {
			w.t.Fatalf("repair of %d: code %d\n%s", day, code, printed)
		}
		sharelogger.Start()
	}
}

// flip turns over one bit of a file, somewhere, and reports whether there was one. The rest stays untouched, for
// somebody may be writing.
func flip(t interface{ Fatal(...any) }, path string, where float64) bool {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() == 0 {
		return false
	}
	bit := int64(where * float64(8*info.Size()))
	one := make([]byte, 1)
	if _, err := f.ReadAt(one, bit/8); err != nil {
		t.Fatal(err)
	}
	one[0] ^= 1 << (bit % 8)
	if _, err := f.WriteAt(one, bit/8); err != nil {
		t.Fatal(err)
	}
	return true
}

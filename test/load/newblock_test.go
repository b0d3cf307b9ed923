//go:build integration

package load

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"testing"
	"text/tabwriter"
	"time"

	"btcpool/internal/bus"
	"btcpool/internal/job"
	"btcpool/internal/testkit"
	"btcpool/test/integration/rig"
	"btcpool/test/latency/busynode"
)

// warmUpBlocks are not measured.
const warmUpBlocks = 10

// TestNewBlock measures how soon all miners work on a new block: from the node's hashblock, with a template of 3,000
// transactions behind it, through gbtmaker, Apache Kafka, jobmaker, Kafka again and sserver, each a process of its own.
// Beside it a program writes as many bytes to as many sockets and does nothing else. It fails when a miner is left out.
func TestNewBlock(t *testing.T) {
	needFiles(t)
	dir := t.TempDir()
	node := busynode.Start(t)
	kafka := rig.StartKafka(t, dir)
	config := bus.DefaultConfig()
	config.Brokers = []string{kafka.Addr}
	brokers := fmt.Sprintf("[kafka]\nbrokers = [%q]\n", kafka.Addr)
	stratum := netip.MustParseAddrPort(testkit.FreeAddr(t))
	run := func(service, text string) *rig.Process {
		return rig.StartService(t, dir, service, service, text+brokers)
	}
	// The node's other triggers rest, so that each template is a block's.
	processes := []*rig.Process{
		run("gbtmaker", fmt.Sprintf("network = \"regtest\"\npoll_interval = \"30s\"\nrepeat_interval = \"30s\"\ndata_dir = %q\n"+
			"[node]\nrpc_url = %q\nrpc_user = \"node\"\nrpc_password = \"secret\"\nzmq_hashblock = %q\n", filepath.Join(dir, "gbtmaker"), node.URL, node.ZMQ)),
		run("jobmaker", fmt.Sprintf("network = \"regtest\"\npayout_address = %q\n", rig.PayoutAddress)),
		run("sserver", fmt.Sprintf("listen = %q\ndata_dir = %q\nmining_notify_interval = \"10m\"\n", stratum, filepath.Join(dir, "sserver"))+
			noHashing()+"[users]\nsource = \"static\"\n[users.static]\nminer = 1\n"),
		kafka.Process,
	}
	b := &blocks{
		t: t, node: node, bus: testkit.Bus(t, config), topic: config.Topics.Job,
		miners: start(t, "miners"), control: start(t, "miners"), kernel: start(t, "bare"),
	}
	connect(t, b.control, ask[listening](t, b.kernel, order{Do: "where"}).Addr, *connections, "bare")
	connect(t, b.miners, stratum, *connections, "")
	ask[tally](t, b.miners, order{Do: "pace", Rate: *rate}) // as it is in a pool: the broker compiles its code
	hold(t, *duration)
	rest(t, b.miners)
	for range warmUpBlocks {
		b.next()
	}
	used := func() (all []time.Duration) {
		for _, p := range processes {
			u := usageOf(t, p.Pid())
			all = append(all, u.User+u.System)
		}
		return all
	}
	b.times = nil
	before := used()
	for range *rounds {
		b.next()
	}
	after := used()
	b.print(b.jobTimes())
	for i, p := range processes {
		t.Logf("%s took %s of processor a block", p.Name, short((after[i]-before[i])/time.Duration(*rounds)))
	}
}

// blocks are those of one test.
type blocks struct {
	t       *testing.T
	node    *busynode.Node
	bus     *bus.Client
	topic   string  // of jobs
	miners  *helper // of sserver
	control *helper // miners of the bare server
	kernel  *helper // the bare server
	times   []blockTimes
}

// blockTimes are when one block came by.
type blockTimes struct {
	height          int64
	announced       time.Time
	first, p50, p99 time.Duration // since then
	bare            time.Duration // until the 99th percentile of the bare server's miners had heard as much
}

// next has the node find a block, and measures when the miners hear of it.
func (b *blocks) next() {
	b.t.Helper()
	ask[tally](b.t, b.miners, order{Do: "watch"})
	x := blockTimes{announced: time.Now()}
	at := monotonic()
	x.height = b.node.Block(b.t)
	got := b.arrived(b.miners)
	x.first, x.p50, x.p99 = time.Duration(got.First-at), time.Duration(got.ArrivedP50-at), time.Duration(got.ArrivedP99-at)
	hold(b.t, time.Second) // until what comes behind the job is over

	ask[tally](b.t, b.control, order{Do: "watch"})
	s := ask[sent](b.t, b.kernel, order{Do: "send", Bytes: ask[[]byte](b.t, b.miners, order{Do: "line"})})
	x.bare = time.Duration(b.arrived(b.control).ArrivedP99 - s.Begin)
	b.times = append(b.times, x)
}

// arrived waits until all miners have heard.
func (b *blocks) arrived(m *helper) (got tally) {
	b.t.Helper()
	testkit.Until(b.t, time.Minute, "all miners have the job", func(context.Context) error {
		if got = ask[tally](b.t, m, order{Do: "report"}); got.Arrived < *connections {
			return fmt.Errorf("%d of %d have it", got.Arrived, *connections)
		}
		return nil
	})
	return got
}

// jobTimes returns when the first job on each block was given to Kafka, to the millisecond: the times of the records.
func (b *blocks) jobTimes() map[int64]time.Time {
	b.t.Helper()
	times := make(map[int64]time.Time)
	ctx, cancel := context.WithCancel(b.t.Context())
	defer cancel()
	err := b.bus.Read(ctx, b.topic, bus.Earliest(), func(m bus.Message) error {
		j, err := job.ParseStratumJob(m.Value)
		if err != nil {
			return err
		}
		if block := int64(j.Height) - 1; times[block].IsZero() {
			times[block] = m.Time
		}
		return nil
	}, bus.CaughtUp(cancel))
	if err != nil {
		b.t.Fatal(err)
	}
	return times
}

// print prints medians.
func (b *blocks) print(jobs map[int64]time.Time) {
	w := tabwriter.NewWriter(b.t.Output(), 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%d connections, %d blocks\tmedian\tworst\n", *connections, len(b.times))
	row := func(what string, of func(blockTimes) time.Duration) time.Duration {
		var list []time.Duration
		for _, x := range b.times {
			list = append(list, of(x))
		}
		m := median(list) // sorted now
		fmt.Fprintf(w, "%s\t%s\t%s\n", what, short(m), short(list[len(list)-1]))
		return m
	}
	toJob := func(x blockTimes) time.Duration { return jobs[x.height].Sub(x.announced) }
	row("new block to job", toJob)
	row("new block to first notify", func(x blockTimes) time.Duration { return x.first })
	row("new block to p50 of notifies", func(x blockTimes) time.Duration { return x.p50 })
	row("new block to p99 of notifies", func(x blockTimes) time.Duration { return x.p99 })
	row("first notify to p99", func(x blockTimes) time.Duration { return x.p99 - x.first })
	p99 := row("job to p99 of notifies", func(x blockTimes) time.Duration { return x.p99 - toJob(x) })
	bare := row("a bare loop of write(2) to p99", func(x blockTimes) time.Duration { return x.bare })
	fmt.Fprintf(w, "job to p99, as part of the bare loop\t%.2f\n", float64(p99)/float64(bare))
	w.Flush()
}

//go:build integration

package load

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"

	"btcpool/internal/bitcoin"
	"btcpool/internal/bus"
	"btcpool/internal/testkit"
)

// liveJobs are what a connection has when its memory is measured.
const liveJobs = 5

// TestFigures measures sserver beside the bare server, and fails when a share is lost or counted twice. Of the times
// and sizes it prints the reader is the judge.
func TestFigures(t *testing.T) {
	p := startPool(t, noHashing()+"mining_notify_interval = \"10m\"\n")
	f := &figures{t: t, pool: p, n: *connections, kernel: start(t, "bare"), miners: start(t, "miners"), control: start(t, "miners")}
	addr := ask[listening](t, f.kernel, order{Do: "where"}).Addr
	f.share = hashTime()

	before, bare, goroutines := p.usage(t), usageOf(t, f.kernel.pid), p.metrics(t)["go_goroutines"]
	limit := connect(t, f.control, addr, f.n, "bare")
	took := connect(t, f.miners, p.addr, f.n, "")
	f.row("connect, subscribe, authorize: all", took, "1.5 s", limit)
	f.memory(before, bare, goroutines)
	f.notifies()
	f.shares("at saturation", order{Do: "saturate"})
	f.shares(fmt.Sprintf("at %.0f/s", *rate), order{Do: "pace", Rate: *rate})
	f.print()

	ask[tally](t, f.miners, order{Do: "leave"})
	p.stop(t)
	p.verify(t, f.miners)
}

// figures is the table in the making.
type figures struct {
	t       *testing.T
	pool    *pool
	n       int
	kernel  *helper // the bare server
	miners  *helper // of sserver
	control *helper // miners of the bare server
	share   time.Duration
	rows    [][4]any
}

// row adds a figure, its goal and what the bare server takes for the same.
func (f *figures) row(what string, value any, goal string, limit any) {
	f.rows = append(f.rows, [4]any{what, value, goal, limit})
}

func (f *figures) print() {
	w := tabwriter.NewWriter(f.t.Output(), 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%d connections\tsserver\tgoal\tbare epoll\tratio\n", f.n)
	for _, row := range f.rows {
		ratio := ""
		if value, ok := row[1].(time.Duration); ok {
			if limit, ok := row[3].(time.Duration); ok && limit > 0 {
				ratio = fmt.Sprintf("%.2f", float64(value)/float64(limit))
			}
		}
		for i, cell := range row {
			if d, ok := cell.(time.Duration); ok {
				row[i] = short(d)
			}
		}
		fmt.Fprintf(w, "%v\t%v\t%v\t%v\t%s\n", row[0], row[1], row[2], row[3], ratio)
	}
	w.Flush()
}

// short is d with three digits or so.
func short(d time.Duration) string {
	switch size := d.Abs(); {
	case size >= time.Second:
		return fmt.Sprintf("%.2f s", d.Seconds())
	case size >= time.Millisecond:
		return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond))
	default:
		return fmt.Sprintf("%.2f µs", float64(d)/float64(time.Microsecond))
	}
}

// memory is what a connection takes when it has been told of the live jobs.
func (f *figures) memory(before, bare usage, goroutines float64) {
	for range liveJobs {
		f.broadcast(f.pool.newJob)
	}
	after, metrics := f.pool.usage(f.t), f.pool.metrics(f.t)
	perConnection := func(bytes float64) string { return fmt.Sprintf("%.2f KiB", bytes/float64(f.n)/(1<<10)) }
	f.row(fmt.Sprintf("memory a connection (VmRSS), %d live jobs", liveJobs), perConnection(float64(after.RSS-before.RSS)), "5 KiB",
		perConnection(float64(usageOf(f.t, f.kernel.pid).RSS-bare.RSS)))
	f.row("  of it Go's heap in use, with garbage", perConnection(metrics["go_memstats_heap_inuse_bytes"]), "", "")
	f.row("  of it goroutines' stacks", perConnection(metrics["go_memstats_stack_inuse_bytes"]), "", "")
	f.row("descriptors more, goroutines more", fmt.Sprintf("%d, %.0f", after.Descriptors-before.Descriptors, metrics["go_goroutines"]-goroutines), "", "")
}

// broadcast publishes a job and returns when, and what the miners say when all have it.
func (f *figures) broadcast(publish func(*testing.T) int64) (at int64, got tally) {
	f.t.Helper()
	ask[tally](f.t, f.miners, order{Do: "watch"})
	at = publish(f.t)
	return at, f.arrived(f.miners)
}

func (f *figures) arrived(m *helper) (got tally) {
	f.t.Helper()
	testkit.Until(f.t, time.Minute, "all miners have the job", func(context.Context) error {
		if got = ask[tally](f.t, m, order{Do: "report"}); got.Arrived < f.n {
			return fmt.Errorf("%d of %d have it", got.Arrived, f.n)
		}
		return nil
	})
	return got
}

// notifies measures the way of new blocks to the miners.
func (f *figures) notifies() {
	ctx, cancel := context.WithCancel(f.t.Context())
	reader, ended := make(chan int64, 100), make(chan error)
	begun := make(chan struct{})
	go func() {
		ended <- f.pool.bus.Read(ctx, f.pool.config.Topics.Job, bus.Last(1), func(bus.Message) error {
			reader <- monotonic()
			return nil
		}, bus.CaughtUp(func() { close(begun) }))
	}()
	<-begun
	for len(reader) > 0 {
		<-reader
	}
	type times struct{ written, read, p99, all, bareFirst, bareP99, bareAll, loop []time.Duration }
	var d times
	add := func(list *[]time.Duration, ns int64) { *list = append(*list, time.Duration(ns)) }
	var line []byte
	for range *rounds {
		at, got := f.broadcast(f.pool.newBlock)
		received := <-reader
		add(&d.written, got.First-at)
		add(&d.read, got.First-received)
		add(&d.p99, got.ArrivedP99-at)
		add(&d.all, got.ArrivedP99-got.First)

		line = ask[[]byte](f.t, f.miners, order{Do: "line"})
		ask[tally](f.t, f.control, order{Do: "watch"})
		s := ask[sent](f.t, f.kernel, order{Do: "send", Bytes: line})
		if s.Short > 0 {
			f.t.Fatalf("%d bare connections did not take a notify", s.Short)
		}
		bare := f.arrived(f.control)
		add(&d.bareFirst, bare.First-s.Begin)
		add(&d.bareP99, bare.ArrivedP99-s.Begin)
		add(&d.bareAll, bare.ArrivedP99-bare.First)
		add(&d.loop, s.End-s.Begin)
	}
	cancel()
	if err := <-ended; err != nil {
		f.t.Error(err)
	}
	f.row("job written to Kafka to first notify, median", median(d.written), "", median(d.bareFirst))
	f.row("job read by another consumer to first notify", median(d.read), "5 ms", "")
	f.row("job written to Kafka to p99 of notifies", median(d.p99), "100 ms", median(d.bareP99))
	f.row("first notify to p99", median(d.all), "1.3 × bare", median(d.bareAll))
	f.row(fmt.Sprintf("  the bare loop of write(2), %d bytes", len(line)), "", "", median(d.loop))
}

func median(list []time.Duration) time.Duration {
	slices.Sort(list)
	return list[len(list)/2]
}

// shares measures a load on both servers.
func (f *figures) shares(what string, load order) {
	f.pool.newBlock(f.t)
	bare := measure(f.t, server{pid: f.kernel.pid, miners: f.control}, load)
	got := measure(f.t, f.pool.server(f.t, f.miners), load)
	f.row("shares a second "+what, fmt.Sprintf("%.0f", got.perSecond), "", fmt.Sprintf("%.0f", bare.perSecond))
	f.row("  processor a share, spool and Kafka's client included", got.each, "", bare.each)
	f.row("    in user mode", got.user, "", bare.user)
	f.row("    in the kernel", got.system, "", bare.system)
	f.row("    bare, with the hash of a share", "", "", bare.each+f.share)
	f.row("  Kafka's", got.kafka, "", "")
	f.row("  the load generator's", got.clients, "", bare.clients)
	f.row("  answer p50", got.said.P50, "", bare.said.P50)
	f.row("  answer p99", got.said.P99, "", bare.said.P99)
}

// server is what a load is put on.
type server struct {
	pid    int
	more   []int // processes that belong to it
	kafka  int   // 0: it has none
	miners *helper
	finish func() // returns when all is done that shares cause; nil: at once
}

func (p *pool) server(t *testing.T, m *helper) server {
	return server{pid: p.cmd.Process.Pid, kafka: p.kafka.Pid(), miners: m, finish: func() { p.sent(t) }}
}

// used returns what the server has taken so far.
func (s server) used(t *testing.T) (own usage, kafka time.Duration) {
	t.Helper()
	own = usageOf(t, s.pid)
	for _, pid := range s.more {
		u := usageOf(t, pid)
		own.User, own.System = own.User+u.User, own.System+u.System
	}
	if s.kafka != 0 {
		u := usageOf(t, s.kafka)
		kafka = u.User + u.System
	}
	return own, kafka
}

// cost is what a server took for its shares.
type cost struct {
	each, user, system time.Duration // of processor a share
	kafka, clients     time.Duration // of Kafka's, of the load generator's
	perSecond          float64
	said               tally
}

// measure loads a server until it has finished, so that the figures have all in them that the shares cause, and none of
// it is left from before.
func measure(t *testing.T, s server, load order) (c cost) {
	t.Helper()
	finish := func() {
		rest(t, s.miners)
		if s.finish != nil {
			s.finish()
		}
	}
	ask[tally](t, s.miners, load)
	hold(t, *duration/4) // until all is warm
	finish()

	first := ask[tally](t, s.miners, order{Do: "report"})
	before, kafka := s.used(t)
	clients, begin := usageOf(t, s.miners.pid), time.Now()
	ask[tally](t, s.miners, load)
	hold(t, *duration)
	c.said = ask[tally](t, s.miners, order{Do: "report"})
	c.perSecond = float64(c.said.answered()-first.answered()) / time.Since(begin).Seconds()
	finish()
	after, kafkaAfter := s.used(t)
	clientsAfter := usageOf(t, s.miners.pid)

	n := time.Duration(ask[tally](t, s.miners, order{Do: "report"}).answered() - first.answered())
	if n == 0 {
		t.Fatalf("no share was answered: %+v", c.said)
	}
	c.user, c.system = (after.User-before.User)/n, (after.System-before.System)/n
	c.each = c.user + c.system
	c.kafka = (kafkaAfter - kafka) / n
	c.clients = (clientsAfter.User + clientsAfter.System - clients.User - clients.System) / n
	return c
}

// answered is how many shares got a verdict, whichever.
func (t tally) answered() int64 {
	n := t.Accepted + t.Unlucky + t.Stale
	for _, refused := range t.Refused {
		n += refused
	}
	return n
}

// hold lets a load go on.
func hold(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
		t.FailNow()
	}
}

// hashTime is what the hash of a share takes when nothing comes between: a coinbase of 250 bytes, 12 branches and the
// header.
func hashTime() time.Duration {
	var header [80]byte
	coinbase, branch := make([]byte, 250), make([]chainhash.Hash, 12)
	least := time.Hour
	for range 200 {
		const n = 100
		begin := time.Now()
		for i := range uint32(n) {
			binary.LittleEndian.PutUint32(coinbase, i)
			root := bitcoin.MerkleRoot(bitcoin.DoubleSHA256(coinbase), branch)
			copy(header[36:], root[:])
			branch[0] = bitcoin.DoubleSHA256(header[:])
		}
		least = min(least, time.Since(begin)/n)
	}
	return least
}

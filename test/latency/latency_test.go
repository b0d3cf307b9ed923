//go:build integration

// Package latency measures how soon a miner works on a new block: from the node's hashblock to the notify on the
// miner's socket, through gbtmaker, Apache Kafka, jobmaker, Kafka again and sserver, each a process of its own.
package latency

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/bits"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"btcpool/internal/bus"
	"btcpool/internal/job"
	"btcpool/internal/testkit"
	"btcpool/test/integration/rig"
	"btcpool/test/latency/busynode"
)

var rounds = flag.Int("rounds", 100, "how many blocks to measure, at least 1")

// warmUp blocks are not measured: the broker compiles its code meanwhile.
const warmUp = 20

// roundLimit is how long a job may take before it counts as lost. It is no
// goal: what is fast on this machine is for the reader of the report to say.
const roundLimit = 20 * time.Second

// TestLatency fails when a block does not reach the miner. The times that it prints are of everything on one machine,
// node and miner included.
func TestLatency(t *testing.T) {
	if *rounds < 1 {
		t.Fatalf("-rounds = %d: must be at least 1", *rounds)
	}
	dir := t.TempDir()
	rig.JVM = nil // Kafka's part is in the times
	node := busynode.Start(t)
	broker := rig.StartKafka(t, dir).Addr
	kafka := fmt.Sprintf("[kafka]\nbrokers = [%q]\n", broker)
	stratum, admin := testkit.FreeAddr(t), testkit.FreeAddr(t)
	start := func(service, config string) { rig.StartService(t, dir, service, service, config) }
	// The node's other triggers rest, so that each template is a block's.
	start("gbtmaker", "network = \"regtest\"\npoll_interval = \"30s\"\nrepeat_interval = \"30s\"\n"+
		fmt.Sprintf("data_dir = %q\n", filepath.Join(dir, "gbtmaker"))+
		fmt.Sprintf("[node]\nrpc_url = %q\nrpc_user = \"node\"\nrpc_password = \"secret\"\nzmq_hashblock = %q\n", node.URL, node.ZMQ)+kafka)
	start("jobmaker", fmt.Sprintf("network = \"regtest\"\npayout_address = %q\nadmin = %q\n", rig.PayoutAddress, admin)+kafka)
	start("sserver", fmt.Sprintf("listen = %q\ndata_dir = %q\n", stratum, filepath.Join(dir, "sserver"))+
		"[users]\nsource = \"static\"\n[users.static]\nminer = 1\n"+kafka)

	jobs := mine(t, stratum)
	// The subscription to the node's blocks takes a moment to arrive there.
	testkit.Until(t, testkit.Patience, "the miner hears of a block", func(context.Context) error {
		_, err := jobs.await(node.Block(t), 500*time.Millisecond)
		return err
	})
	var paths []path
	// Between blocks there is time for what comes behind the job.
	atRest := func() {
		t.Helper()
		testkit.Until(t, roundLimit, "jobmaker reads the whole template", func(context.Context) error {
			if light, whole := templatesRead(t, admin, "accepted"), templatesRead(t, admin, "duplicate"); light != whole {
				return fmt.Errorf("%d light ones, %d whole ones", light, whole)
			}
			return nil
		})
	}
	atRest()
	for round := range warmUp + *rounds {
		p := path{begin: time.Now()}
		p.height = node.Block(t)
		var err error
		if p.arrived, err = jobs.await(p.height, roundLimit); err != nil {
			t.Fatalf("block %d of %d: %v", round+1, warmUp+*rounds, err)
		}
		p.call = node.FirstCall(p.height)
		atRest()

		begin := time.Now()
		node.BareTemplate(t)
		p.bare = time.Since(begin)
		paths = append(paths, p)
	}
	report(t, paths[warmUp:], writeTimes(t, broker))
}

// templatesRead returns how many templates jobmaker has read with a result: a light one is accepted, and the whole of it
// is its duplicate.
func templatesRead(t *testing.T, admin, result string) int {
	t.Helper()
	resp, err := http.Get("http://" + admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if count, ok := strings.CutPrefix(lines.Text(), `btcpool_jobmaker_templates_total{result="`+result+`",service="jobmaker"} `); ok {
			n, err := strconv.Atoi(count)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("jobmaker does not count templates")
	return 0
}

// path is the way of one block to the miner.
type path struct {
	height         int64
	begin, arrived time.Time // of hashblock, of the notify
	call           busynode.Call
	bare           time.Duration // what a bare getblocktemplate took a moment later
}

// report prints what the paths took, as a whole and by stages.
func report(t *testing.T, paths []path, written writes) {
	t.Helper()
	for _, stage := range []struct {
		what string
		took func(p path) time.Duration
	}{
		{"hashblock to notify", func(p path) time.Duration { return p.arrived.Sub(p.begin) }},
		{"bare getblocktemplate", func(p path) time.Duration { return p.bare }},
		{"the rest", func(p path) time.Duration { return p.arrived.Sub(p.begin) - p.bare }},
		{"  hashblock to call", func(p path) time.Duration { return p.call.Begin.Sub(p.begin) }},
		{"  call to answer", func(p path) time.Duration { return p.call.End.Sub(p.call.Begin) }},
		{"  answer to template", func(p path) time.Duration { return written.template[p.height].Sub(p.call.End) }},
		{"  template to job", func(p path) time.Duration { return written.job[p.height].Sub(written.template[p.height]) }},
		{"  job to notify", func(p path) time.Duration { return p.arrived.Sub(written.job[p.height]) }},
	} {
		var took []time.Duration
		for _, p := range paths {
			took = append(took, stage.took(p))
		}
		slices.Sort(took)
		at := func(percent int) float64 { return took[len(took)*percent/100].Seconds() * 1000 }
		t.Logf("%-22s p50 %6.2f ms, p99 %6.2f ms, of %d", stage.what, at(50), at(99), len(took))
	}
}

// writes is when the first template and the first job on each block were given to Kafka, to the millisecond: the times
// of the records.
type writes struct{ template, job map[int64]time.Time }

func writeTimes(t *testing.T, broker string) writes {
	t.Helper()
	cfg := bus.DefaultConfig()
	cfg.Brokers = []string{broker}
	client := testkit.Bus(t, cfg)
	read := func(topic string, height func(message []byte) (int32, error)) map[int64]time.Time {
		times := make(map[int64]time.Time)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		err := client.Read(ctx, topic, bus.Earliest(), func(m bus.Message) error {
			h, err := height(m.Value)
			if block := int64(h) - 1; times[block].IsZero() {
				times[block] = m.Time
			}
			return err
		}, bus.CaughtUp(cancel))
		if err != nil {
			t.Fatal(err)
		}
		return times
	}
	return writes{
		template: read(job.LightTopic(cfg.Topics.RawGBT), func(message []byte) (int32, error) {
			light, err := job.ParseLightGBT(message)
			if err != nil {
				return 0, err
			}
			return light.Template.Height, nil
		}),
		job: read(cfg.Topics.Job, func(message []byte) (int32, error) {
			j, err := job.ParseStratumJob(message)
			if err != nil {
				return 0, err
			}
			return j.Height, nil
		}),
	}
}

// notify is a clean job that a miner was given.
type notify struct {
	at       time.Time
	prevHash string
	branch   int // hashes
}

type notifies <-chan notify

// await returns when the job of all the template's transactions on the block at height arrived.
func (jobs notifies) await(height int64, limit time.Duration) (time.Time, error) {
	// Stratum reverses the order of the hash's words; all but one are 0 here.
	const word = 8
	hash := busynode.Hash(height)
	prevHash := hash[len(hash)-word:] + hash[:len(hash)-word]
	timeout := time.After(limit)
	for {
		select {
		case n, ok := <-jobs:
			switch {
			case !ok:
				return time.Time{}, errors.New("sserver closed the connection")
			case n.prevHash != prevHash:
			case n.branch != bits.Len(busynode.Transactions):
				return time.Time{}, fmt.Errorf("job has a merkle branch of %d hashes", n.branch)
			default:
				return n.at, nil
			}
		case <-timeout:
			return time.Time{}, fmt.Errorf("no clean job on block %d within %v", height, limit)
		}
	}
}

// mine connects as a miner and returns the clean jobs that it is given.
func mine(t *testing.T, addr string) notifies {
	t.Helper()
	var conn net.Conn
	testkit.Until(t, testkit.Patience, "sserver listens", func(ctx context.Context) (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		return err
	})
	jobs := make(chan notify, 10)
	t.Cleanup(func() {
		conn.Close()
		for range jobs { // until the reader has ended
		}
	})
	if _, err := io.WriteString(conn, `{"id":1,"method":"mining.subscribe","params":["latency"]}`+"\n"+
		`{"id":2,"method":"mining.authorize","params":["miner.1","x"]}`+"\n"); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(jobs)
		for lines := bufio.NewScanner(conn); lines.Scan(); {
			n := notify{at: time.Now()}
			var message struct {
				Method string
				Params []json.RawMessage
			}
			// job id, previous block, coinbase 1 and 2, branch, version, bits, time, clean
			if json.Unmarshal(lines.Bytes(), &message) != nil || message.Method != "mining.notify" || len(message.Params) != 9 {
				continue
			}
			var branch []string
			var clean bool
			if err := errors.Join(json.Unmarshal(message.Params[1], &n.prevHash), json.Unmarshal(message.Params[4], &branch),
				json.Unmarshal(message.Params[8], &clean)); err != nil || !clean {
				continue
			}
			n.branch = len(branch)
			jobs <- n
		}
	}()
	return jobs
}

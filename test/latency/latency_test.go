//go:build integration

// Package latency measures how soon a miner works on a new block: from the
// node's hashblock to the notify on the miner's socket, through gbtmaker,
// Apache Kafka, jobmaker, Kafka again and sserver, each a process of its own.
package latency

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/bits"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"btcpool/test/integration/rig"
	"btcpool/test/latency/busynode"
)

var rounds = flag.Int("rounds", 100, "how many blocks to measure, at least 1")

// warmUp blocks are not measured: the broker compiles its code meanwhile.
const warmUp = 20

// roundLimit is how long a job may take before it counts as lost. It is no
// goal: what is fast on this machine is for the reader of the report to say.
const roundLimit = 20 * time.Second

// TestLatency fails when a block does not reach the miner. The times that it
// prints are of everything on one machine, node and miner included.
func TestLatency(t *testing.T) {
	if *rounds < 1 {
		t.Fatalf("-rounds = %d: must be at least 1", *rounds)
	}
	dir := t.TempDir()
	node := busynode.Start(t)
	kafka := fmt.Sprintf("[kafka]\nbrokers = [%q]\n", rig.StartKafka(t, dir).Addr)
	stratum := freeAddr(t)
	// The node's other triggers rest, so that each template is a block's.
	start(t, dir, "gbtmaker", "network = \"regtest\"\npoll_interval = \"30s\"\nrepeat_interval = \"30s\"\n"+
		fmt.Sprintf("[node]\nrpc_url = %q\nrpc_user = \"node\"\nrpc_password = \"secret\"\nzmq_hashblock = %q\n", node.URL, node.ZMQ)+kafka)
	start(t, dir, "jobmaker", fmt.Sprintf("network = \"regtest\"\npayout_address = %q\n", rig.PayoutAddress)+kafka)
	start(t, dir, "sserver", fmt.Sprintf("listen = %q\ndata_dir = %q\n", stratum, filepath.Join(dir, "sserver"))+
		"[users]\nsource = \"static\"\n[users.static]\nminer = 1\n"+kafka)

	jobs := mine(t, stratum)
	// The subscription to the node's blocks takes a moment to arrive there.
	rig.Until(t, time.Minute, "the miner hears of a block", func(context.Context) error {
		_, err := jobs.await(node.Block(t), 500*time.Millisecond)
		return err
	})
	var path, bare []time.Duration
	for round := range warmUp + *rounds {
		begin := time.Now()
		arrived, err := jobs.await(node.Block(t), roundLimit)
		if err != nil {
			t.Fatalf("block %d of %d: %v", round+1, warmUp+*rounds, err)
		}
		path = append(path, arrived.Sub(begin))

		begin = time.Now()
		node.BareTemplate(t)
		bare = append(bare, time.Since(begin))
	}
	report(t, "hashblock to notify", path[warmUp:])
	report(t, "bare getblocktemplate", bare[warmUp:])
}

func report(t *testing.T, what string, took []time.Duration) {
	t.Helper()
	slices.Sort(took)
	at := func(percent int) time.Duration { return took[len(took)*percent/100].Round(10 * time.Microsecond) }
	t.Logf("%-22s p50 %v, p99 %v, of %d", what, at(50), at(99), len(took))
}

// notify is a clean job that a miner was given.
type notify struct {
	at       time.Time
	prevHash string
	branch   int // hashes
}

type notifies <-chan notify

// await returns when the job of all the template's transactions on the block at
// height arrived.
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
	rig.Until(t, time.Minute, "sserver listens", func(ctx context.Context) (err error) {
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

// start runs a service until the test ends; its log is shown if the test failed.
func start(t *testing.T, dir, service, config string) {
	t.Helper()
	path := filepath.Join(dir, service+".toml")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cmd := exec.Command(rig.Bin(t, service), "-config", path)
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
		if t.Failed() {
			t.Logf("%s:\n%s", service, log.Bytes()[max(0, log.Len()-2<<10):])
		}
	})
}

// freeAddr returns an address of this host that was free a moment ago.
func freeAddr(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

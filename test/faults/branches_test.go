//go:build integration

package faults

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"btcpool/internal/bitcoin"
	"btcpool/internal/bus"
	"btcpool/internal/job"
	"btcpool/internal/testkit"
	"btcpool/test/integration/rig"
)

// branchNode answers as a mainnet node on a branch of its own, with a block every few seconds when grow is called.
type branchNode struct {
	*httptest.Server
	name   byte
	bits   uint32
	work   uint64 // in a block
	height atomic.Int64
	full   atomic.Bool // templates have a transaction
	silent atomic.Bool // it takes calls, and does not answer
}

const mainnetAddress = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"

func startBranchNode(t *testing.T, name byte, height int64, bits uint32, work uint64) *branchNode {
	n := &branchNode{name: name, bits: bits, work: work}
	n.height.Store(height)
	n.Server = httptest.NewServer(n)
	t.Cleanup(n.Close)
	return n
}

func (n *branchNode) block(height int64) string { return fmt.Sprintf("%02x%062d", n.name, height) }

func (n *branchNode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var call struct{ Method string }
	if err := json.NewDecoder(r.Body).Decode(&call); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if n.silent.Load() {
		<-r.Context().Done()
		return
	}
	transactions := ""
	if n.full.Load() {
		transactions = `{"data":"00","txid":"` + n.block(1) + `","hash":"` + n.block(1) + `","weight":400}`
	}
	height := n.height.Load()
	work := bitcoin.Work{Hi: n.work, Lo: uint64(height)}.ChainWork()
	result := "null"
	switch call.Method {
	case "getblockchaininfo":
		result = fmt.Sprintf(`{"chain":"main","blocks":%d,"headers":%[1]d,"bestblockhash":%q,"chainwork":%q}`, height, n.block(height), work)
	case "getblocktemplate":
		now := time.Now().Unix()
		result = fmt.Sprintf(`{"version":536870912,"previousblockhash":%q,"transactions":[%s],"coinbasevalue":%d,"mintime":%d,"curtime":%d,"bits":"%08x","height":%d}`,
			n.block(height), transactions, 312500000+now%1000, now-100, now, n.bits, height+1)
	}
	fmt.Fprintf(w, `{"result":%s,"error":null,"id":"1"}`, result)
}

// TestBranches has two gbtmakers, each with a node of its own, on branches of different rules. The first to be there is
// the wrong one: the name of its chain is right, it has more blocks, its bits are 2^24 times easier, and there is less
// work in it. When the right one comes all miners go to its branch within seconds, and never back, not even when it is
// gone: then jobmaker says what is the matter.
func TestBranches(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	kafka := rig.StartKafka(t, dir)
	wrong := startBranchNode(t, 0xbb, 978_100, 0x1a01ffff, 1)
	right := startBranchNode(t, 0xaa, 976_500, 0x17021fff, 2)
	admin := testkit.FreeAddr(t)
	brokers := fmt.Sprintf("[kafka]\nbrokers = [%q]\n", kafka.Addr)
	gbtmaker := func(name string, node *branchNode) *rig.Process {
		return rig.StartService(t, dir, name, "gbtmaker", fmt.Sprintf("network = \"mainnet\"\ndata_dir = %q\npoll_interval = \"500ms\"\nrepeat_interval = \"500ms\"\n",
			filepath.Join(dir, name))+brokers+fmt.Sprintf("[[nodes]]\nrpc_url = %q\nrpc_user = \"u\"\nrpc_password = \"p\"\n", node.URL))
	}
	rig.StartService(t, dir, "jobmaker", "jobmaker", fmt.Sprintf("admin = %q\nnetwork = \"mainnet\"\npayout_address = %q\njob_interval = \"1s\"\ngbt_life_time = \"10s\"\nempty_gbt_life_time = \"10s\"\n",
		admin, mainnetAddress)+brokers)
	jobs := watchJobs(t, kafka)

	gbtmaker("wrong", wrong)
	testkit.Until(t, testkit.Patience, "jobs on the wrong branch, as there is no other", jobs.of(978_101))
	began := time.Now()
	good := gbtmaker("right", right)
	testkit.Until(t, testkit.Patience, "jobs on the branch with more work", jobs.of(976_501))
	t.Logf("jobs on the branch with more work %v after its gbtmaker was started", time.Since(began).Round(time.Millisecond))
	if left := jobs.left.Load(); left == nil || *left != wrong.block(978_100) {
		t.Errorf("the first job there sends miners back from %v, want from %s", left, wrong.block(978_100))
	}

	wrong.height.Add(1)
	metric := func(ctx context.Context, text string) error {
		page, err := page(ctx, "http://"+admin+"/metrics")
		if err == nil && !strings.Contains(page, text) {
			err = errors.New("not so")
		}
		return err
	}
	testkit.Until(t, testkit.Patience, "jobmaker says since which block", func(ctx context.Context) error {
		return metric(ctx, `btcpool_jobmaker_templates_disagree_since_block{service="jobmaker"} 976500`)
	})
	right.height.Add(1)
	testkit.Until(t, testkit.Patience, "the next block of the right branch", jobs.of(976_502))

	good.Kill()
	testkit.Until(t, testkit.Patience, "jobmaker is not ready, and says why", func(ctx context.Context) error {
		text, err := page(ctx, "http://"+admin+"/readyz")
		if !strings.Contains(text, "since block 976500 or before, with less work than the block that miners are on") {
			err = fmt.Errorf("%s %w", text, errors.Join(err, errors.New("is not that")))
		}
		return err
	})
	wrong.height.Add(1)
	n := jobs.number.Load()
	testkit.Until(t, testkit.Patience, "more jobs", func(context.Context) error {
		if jobs.number.Load() < n+3 {
			return errors.New("not yet")
		}
		return nil
	})
	if back := jobs.wrong.Load(); back != 0 {
		t.Errorf("%d jobs were on the wrong branch after the right one had come", back)
	}
}

// page returns what a URL answers, whatever its status.
func page(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

// jobWatch is what was seen of the job topic.
type jobWatch struct {
	height, number atomic.Int64
	lowered        atomic.Int64 // jobs that were lower than the one before
	wrong          atomic.Int64 // jobs on the wrong branch that came after one on the right one
	left           atomic.Pointer[string]
}

func watchJobs(t *testing.T, kafka *rig.Kafka) *jobWatch {
	w := new(jobWatch)
	cfg := bus.DefaultConfig()
	cfg.Brokers = []string{kafka.Addr}
	reader := testkit.Bus(t, cfg, cfg.Topics.Job)
	seenRight := false
	testkit.Run(t, func(ctx context.Context) error {
		return reader.Read(ctx, cfg.Topics.Job, bus.Earliest(), func(m bus.Message) error {
			j, err := job.ParseStratumJob(m.Value)
			if err != nil {
				return err
			}
			right := j.PrevHash.String()[:2] == "aa"
			if right && !seenRight {
				left := j.Left.String()
				w.left.Store(&left)
			}
			seenRight = seenRight || right
			if seenRight && !right {
				w.wrong.Add(1)
			}
			if was := w.height.Swap(int64(j.Height)); was > int64(j.Height) {
				w.lowered.Add(1)
			}
			w.number.Add(1)
			return nil
		})
	})
	return w
}

// of returns an error until the last job is of this height.
func (w *jobWatch) of(height int64) func(context.Context) error {
	return func(context.Context) error {
		if got := w.height.Load(); got != height {
			return fmt.Errorf("height %d", got)
		}
		return nil
	}
}

// TestInvalidatedBlock has an operator take the node's newest block off the chain: miners get a job on the one before
// within seconds, though it is lower, and the pool goes on from there.
func TestInvalidatedBlock(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	kafka, db, node := rig.StartKafka(t, dir), rig.StartMariaDB(t, dir), rig.StartBtcd(t, dir, rig.PayoutAddress)
	pool := rig.Setup{Kafka: kafka, DB: db, Nodes: []rig.Node{node.Node()}, Direct: true}.Start(t, dir)
	jobs := watchJobs(t, kafka)
	miner := pool.StartMiner(t, dir, "miner", "-user", "ivan.rig", "-threads", "1", "-reconnect")
	reaches(t, node, 3)
	if code, err := miner.Stop(); err != nil || code != 0 {
		t.Errorf("minersim ended with code %d, %v", code, err)
	}
	tip := height(t, node)
	testkit.Until(t, testkit.Patience, "job on the tip", jobs.of(tip+1))
	has(t, pool, "sserver", `btcpool_sserver_job_height{service="sserver"}`, float64(tip+1))

	var off []string // all of the tip's height: the miner may have found two of it
	for height(t, node) == tip {
		var newest string
		if err := node.Call(t.Context(), "getbestblockhash", &newest); err != nil {
			t.Fatal(err)
		}
		if err := node.Call(t.Context(), "invalidateblock", nil, newest); err != nil {
			t.Fatal(err)
		}
		off = append(off, newest)
	}
	began := time.Now()
	testkit.Until(t, 30*time.Second, "job on the block before", jobs.of(tip))
	testkit.Until(t, testkit.Patience, "sserver's job is that", func(ctx context.Context) error {
		text, err := pool.Metrics(ctx, "sserver")
		if err == nil && !strings.Contains(text, fmt.Sprintf("btcpool_sserver_job_height{service=\"sserver\"} %d\n", tip)) {
			err = errors.New("not yet")
		}
		return err
	})
	t.Logf("miners' job is on the block before %v after the newest was invalidated", time.Since(began).Round(time.Millisecond))
	miner = pool.StartMiner(t, dir, "again", "-user", "ivan.rig", "-threads", "1", "-reconnect")
	reaches(t, node, tip+1)
	if code, err := miner.Stop(); err != nil || code != 0 {
		t.Errorf("minersim ended with code %d, %v", code, err)
	}
	var other string
	if err := node.Call(t.Context(), "getblockhash", &other, tip); err != nil || slices.Contains(off, other) {
		t.Errorf("block %d is %s, %v", tip, other, err)
	}
}

// TestSilentNode has the node hang right after a block, when it has given an empty template and nothing else: jobs stay
// on that block, however long its template is old.
func TestSilentNode(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	kafka := rig.StartKafka(t, dir)
	node := startBranchNode(t, 0xaa, 976_500, 0x17021fff, 2)
	node.full.Store(true)
	brokers := fmt.Sprintf("[kafka]\nbrokers = [%q]\n", kafka.Addr)
	rig.StartService(t, dir, "jobmaker", "jobmaker", fmt.Sprintf("network = \"mainnet\"\npayout_address = %q\njob_interval = \"1s\"\ngbt_life_time = \"8s\"\nempty_gbt_life_time = \"2s\"\n", mainnetAddress)+brokers)
	rig.StartService(t, dir, "gbtmaker", "gbtmaker", fmt.Sprintf("network = \"mainnet\"\ndata_dir = %q\npoll_interval = \"500ms\"\nrepeat_interval = \"500ms\"\n",
		filepath.Join(dir, "gbtmaker"))+brokers+fmt.Sprintf("[[nodes]]\nrpc_url = %q\nrpc_user = \"u\"\nrpc_password = \"p\"\n", node.URL))
	jobs := watchJobs(t, kafka)
	testkit.Until(t, testkit.Patience, "jobs with transactions", jobs.of(976_501))
	node.full.Store(false)
	node.height.Add(1)
	testkit.Until(t, testkit.Patience, "jobs on the new block", jobs.of(976_502))
	node.silent.Store(true)
	n := jobs.number.Load()
	testkit.Until(t, testkit.Patience, "jobs of longer than any template lives", func(context.Context) error {
		if got := jobs.number.Load(); got < n+10 {
			return fmt.Errorf("%d", got-n)
		}
		return nil
	})
	if lowest := jobs.lowered.Load(); lowest != 0 {
		t.Errorf("%d jobs were lower than one before", lowest)
	}
}

//go:build integration

// Package integration runs the pool as its operators do: every service a process, Apache Kafka,
// MariaDB and btcd beside them, miners on the other side of a socket. What must hold is checked from
// the outside: in the node's chain, the share files, the database and the HTTP API.
package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"math/big"
	"os/exec"
	"strings"
	"testing"
	"time"

	"btcpool/internal/auxpow/auxpowtest"
	"btcpool/internal/share"
	"btcpool/internal/testkit"
	"btcpool/test/integration/rig"
)

// TestMine mines on btcd through every service and compares what each of them says.
func TestMine(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	kafka, db, node := rig.StartKafka(t, dir), rig.StartMariaDB(t, dir), rig.StartBtcd(t, dir, rig.PayoutAddress)
	pool := rig.StartPool(t, dir, kafka, db, node)

	// Every share below difficulty 1 is a block on regtest, so two miners race each other.
	a := pool.StartMiner(t, dir, "alice", "-user", "alice.rig1", "-threads", "1", "-shares", "25")
	b := pool.StartMiner(t, dir, "bob", "-user", "bob.rig2", "-threads", "1", "-shares", "25", "-version-mask", "00000000")
	for _, m := range []*rig.Miner{a, b} {
		if code := m.Wait(3 * time.Minute); code != 0 {
			t.Fatalf("%s ended with code %d", m.Name, code)
		}
		r := m.Report()
		if got := len(m.Acks()); int64(got) != r.Accepted || r.Unanswered != 0 || r.Reconnects != 0 {
			t.Errorf("%s: %d shares in the ledger, report %+v", m.Name, got, r)
		}
	}
	acks := append(a.Acks(), b.Acks()...)

	pool.WaitLogged(t, acks, 0)
	checkBlocks(t, node, pool, db)
	log := pool.WaitStatistics(t, db)
	checkWorkers(t, pool)
	checkPrinted(t, dir, log)
	checkDashboard(t, pool)

	for _, service := range rig.Services {
		if code, err := pool.Service(service).Stop(); err != nil || code != 0 {
			t.Errorf("SIGTERM: %s ended with code %d, %v", service, code, err)
		}
	}
}

// TestKilled kills every service in turn, in the middle of mining, and starts it again: mining goes on on the chain
// that is mined along, too, and no acknowledged share is lost or counted twice.
func TestKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	kafka, db, node := rig.StartKafka(t, dir), rig.StartMariaDB(t, dir), rig.StartBtcd(t, dir, rig.PayoutAddress)
	const easyBits = 0x207fffff // every second hash meets it
	aux := auxpowtest.StartNode(1, easyBits, false)
	t.Cleanup(aux.Close)
	pool := rig.Setup{Kafka: kafka, DB: db, Nodes: []rig.Node{node.Node()}, Aux: aux}.Start(t, dir)
	miner := pool.StartMiner(t, dir, "miner", "-user", "carol.rig", "-threads", "1", "-reconnect")

	chain := func(ctx context.Context) (height int64, err error) {
		err = node.Call(ctx, "getblockcount", &height)
		return height, err
	}
	for _, service := range pool.Names {
		var before int64
		testkit.Until(t, testkit.Patience, "the chain grows before "+service+" is killed", func(ctx context.Context) error {
			height, err := chain(ctx)
			if before == 0 {
				before = height
			}
			if err == nil && height < before+3 {
				err = fmt.Errorf("height %d", height)
			}
			return err
		})
		pool.Service(service).Kill()
		killed, err := chain(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		auxKilled := len(aux.Accepted())
		pool.Service(service).Start()
		pool.WaitReady(t, service)
		testkit.Until(t, testkit.Patience, "mining goes on after "+service+" was killed", func(ctx context.Context) error {
			height, err := chain(ctx)
			if err == nil && height < killed+3 {
				err = fmt.Errorf("height %d, %d when it was killed", height, killed)
			}
			if n := len(aux.Accepted()); err == nil && n < auxKilled+2 {
				err = fmt.Errorf("%d blocks of the other chain, %d when it was killed", n, auxKilled)
			}
			return err
		})
	}
	if code, err := miner.Stop(); err != nil || code != 0 {
		t.Errorf("minersim ended with code %d, %v", code, err)
	}
	acks, report := miner.Acks(), miner.Report()
	if int64(len(acks)) != report.Accepted {
		t.Errorf("%d shares in the ledger, report %+v", len(acks), report)
	}

	pool.WaitLogged(t, acks, report.Unanswered)
	checkBlocks(t, node, pool, db)
	pool.WaitStatistics(t, db)
	checkWorkers(t, pool)
	checkMerged(t, db, aux)
}

// checkMerged holds found_nmc_blocks against what the node of the other chain has taken.
func checkMerged(t *testing.T, db *rig.MariaDB, aux *auxpowtest.Node) {
	t.Helper()
	conn := db.Open(t)
	testkit.Until(t, testkit.Patience, "found_nmc_blocks agrees with the other chain", func(ctx context.Context) error {
		return rig.CompareMerged(ctx, conn, aux)
	})
}

// checkBlocks holds found_blocks and the API against the node's chain: each block of the chain was found by the pool
// and recorded, and each accepted share is a block on regtest.
func checkBlocks(t *testing.T, node *rig.Btcd, pool *rig.Pool, db *rig.MariaDB) {
	t.Helper()
	type block struct {
		Height        int32
		Hash          string
		State         string
		Confirmations int64
		RewardSat     int64
		WorkerName    string
	}
	conn := db.Open(t)
	read := func(ctx context.Context) (blocks []block, err error) {
		rows, err := conn.QueryContext(ctx, "SELECT height, hash, state, rewards, worker_full_name FROM found_blocks ORDER BY height, hash")
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		for rows.Next() {
			var b block
			if err := rows.Scan(&b.Height, &b.Hash, &b.State, &b.RewardSat, &b.WorkerName); err != nil {
				return nil, err
			}
			blocks = append(blocks, b)
		}
		return blocks, rows.Err()
	}
	var blocks []block
	onChain := 0
	testkit.Until(t, testkit.Patience, "found_blocks agrees with the chain", func(ctx context.Context) error {
		var tip int32
		if err := node.Call(ctx, "getblockcount", &tip); err != nil {
			return err
		}
		chain := map[string]int32{}
		for height := int32(1); height <= tip; height++ {
			var hash string
			if err := node.Call(ctx, "getblockhash", &hash, height); err != nil {
				return err
			}
			chain[hash] = height
		}
		var err error
		if blocks, err = read(ctx); err != nil {
			return err
		}
		accepted, stale := 0, 0             // of late shares some are blocks, which are submitted beside the chain
		for _, s := range pool.ReadLog(t) { // which gets what was on its way when the miners left
			switch {
			case s.Status == share.StatusAccept:
				accepted++
			case s.Status.IsStale():
				stale++
			}
		}
		if len(blocks) < accepted || len(blocks) > accepted+stale {
			return fmt.Errorf("%d blocks, %d accepted shares, %d stale", len(blocks), accepted, stale)
		}
		onChain = 0
		for _, b := range blocks {
			height, active := chain[b.Hash]
			switch {
			case active && height != b.Height:
				return fmt.Errorf("%+v is at height %d", b, height)
			case active && b.State != "accepted" && b.State != "confirmed":
				return fmt.Errorf("%+v is on the chain", b)
			case !active && b.State != "orphaned" && b.Height < tip-6:
				return fmt.Errorf("%+v is not on the chain of height %d", b, tip)
			case active:
				onChain++
			}
		}
		if onChain != int(tip) {
			return fmt.Errorf("%d of the chain's %d blocks are recorded", onChain, tip)
		}
		return nil
	})
	if onChain == 0 {
		t.Error("no block was found")
	}
	for _, b := range blocks {
		if want := int64(50e8) >> (b.Height / 150); b.RewardSat != want { // regtest halves each 150 blocks; no fees
			t.Errorf("%+v: reward %d sat, want %d", b, b.RewardSat, want)
		}
	}
	var answer struct {
		Total  int
		Blocks []struct {
			Hash, State, Finder string
			Height              int32
			RewardSat           int64 `json:"reward"`
			Time                time.Time
		}
	}
	testkit.Until(t, testkit.Patience, "the API agrees with found_blocks", func(ctx context.Context) error {
		blocks, err := read(ctx) // states change
		if err == nil {
			err = pool.Get(ctx, "/api/v1/blocks?limit=5", &answer)
		}
		if err != nil {
			return err
		}
		if answer.Total != len(blocks) || len(answer.Blocks) != 5 {
			return fmt.Errorf("it tells of %d blocks and shows %d, want %d and 5", answer.Total, len(answer.Blocks), len(blocks))
		}
		byHash := map[string]block{}
		for _, b := range blocks {
			byHash[b.Hash] = b
		}
		for _, got := range answer.Blocks {
			want := byHash[got.Hash]
			if got.Height != want.Height || got.State != want.State || got.RewardSat != want.RewardSat || got.Finder != want.WorkerName || got.Time.IsZero() {
				return fmt.Errorf("it shows %+v, the database has %+v", got, want)
			}
		}
		return nil
	})
}

// checkWorkers holds the live figures of the API against the log.
func checkWorkers(t *testing.T, pool *rig.Pool) {
	t.Helper()
	pool.WaitLog(t, testkit.Patience, "the API agrees with the share log", func(ctx context.Context, log []share.Share) error {
		if err := pool.CompareLive(ctx, log); err != nil {
			return err
		}
		workers := map[int64]int64{}
		for _, s := range log {
			if s.Status == share.StatusAccept {
				workers[s.WorkerID]++
			}
		}
		var list struct {
			Total   int
			Workers []struct {
				WorkerID string                                    `json:"worker_id"`
				Shares   struct{ Accepted struct{ Shares int64 } } `json:"shares_1h"`
			}
		}
		if err := pool.Get(ctx, "/api/v1/workers", &list); err != nil {
			return err
		}
		if list.Total != len(workers) {
			return fmt.Errorf("/api/v1/workers has %d workers, the log %d", list.Total, len(workers))
		}
		for _, w := range list.Workers {
			id, _ := new(big.Int).SetString(w.WorkerID, 10)
			if id == nil || workers[id.Int64()] != w.Shares.Accepted.Shares {
				return fmt.Errorf("/api/v1/workers shows %+v, the log has %v", w, workers)
			}
		}
		return nil
	})
}

// checkPrinted holds what slparser prints of the days against the log.
func checkPrinted(t *testing.T, dir string, log []share.Share) {
	t.Helper()
	days := map[string]int{}
	for _, s := range log {
		days[time.Unix(s.Time, 0).UTC().Format("20060102")]++
	}
	for day, want := range days {
		out, err := exec.Command(rig.Bin(t, "slparser"), "-config", dir+"/slparser.toml", "-d", day, "-u", "0").Output()
		if err != nil {
			t.Fatalf("slparser -d %s -u 0: %v", day, err)
		}
		if got := strings.Count(string(out), "\n"); got != want {
			t.Errorf("slparser prints %d shares of %s, the log has %d", got, day, want)
		}
	}
}

// checkDashboard renders the page in a browser and looks for what it must show.
func checkDashboard(t *testing.T, pool *rig.Pool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testkit.Patience)
	defer cancel()
	page := dumpPage(ctx, t, pool.HTTP+"/")
	var blocks struct {
		Blocks []struct{ Height json.Number }
	}
	if err := pool.Get(ctx, "/api/v1/blocks?limit=1", &blocks); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"alice", "bob", "rig1", "rig2", "accepted", blocks.Blocks[0].Height.String()} {
		if !strings.Contains(page, want) {
			t.Errorf("the dashboard does not show %q", want)
		}
	}
}

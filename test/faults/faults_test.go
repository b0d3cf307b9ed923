//go:build integration

// Package faults takes away, in turn, what the pool works with while a block is found. Every service is a process,
// Apache Kafka, MariaDB and btcd are real; what must hold is read from the nodes' chains.
package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"btcpool/internal/testkit"
	"btcpool/test/integration/rig"
)

// TestKafkaAway stops the only broker for a minute while a block is found: it reaches the node meanwhile, by the direct
// way, and the shares of that minute reach the log when the broker is back.
func TestKafkaAway(t *testing.T) {
	const outage = time.Minute
	t.Parallel()
	dir := t.TempDir()
	kafka, db, node := rig.StartKafka(t, dir), rig.StartMariaDB(t, dir), rig.StartBtcd(t, dir, rig.PayoutAddress)
	pool := rig.Setup{Kafka: kafka, DB: db, Nodes: []rig.Node{node.Node()}, Direct: true}.Start(t, dir)
	jobEverywhere(t, pool)

	kafka.Kill()
	killed := time.Now()
	miner := pool.StartMiner(t, dir, "miner", "-user", "erin.rig", "-threads", "1", "-reconnect")
	reaches(t, node, 1)
	t.Logf("block on the chain %v after Kafka was killed", time.Since(killed).Round(time.Millisecond))
	has(t, pool, "blkmaker", `btcpool_blkmaker_arrivals_total{kind="block",service="blkmaker",way="direct"}`, 1)
	testkit.Eventually(t, "a share is acknowledged", func() bool { return len(miner.Acks()) > 0 })
	time.Sleep(outage - time.Since(killed)) // the length of the outage is what is tested
	if h := height(t, node); h != 1 {
		t.Errorf("height %d without jobs on the new block", h)
	}

	kafka.Start()
	kafka.WaitReady(t)
	back := time.Now()
	reaches(t, node, 4) // jobs on the new block come through Kafka
	t.Logf("3 more blocks %v after Kafka was back", time.Since(back).Round(time.Millisecond))
	if code, err := miner.Stop(); err != nil || code != 0 {
		t.Errorf("minersim ended with code %d, %v", code, err)
	}
	pool.WaitLogged(t, miner.Acks(), miner.Report().Unanswered)
}

// TestNodeKilled kills the node that the templates come from: mining goes on with the other, which takes the blocks,
// and the first catches up when it is back.
func TestNodeKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	kafka, db := rig.StartKafka(t, dir), rig.StartMariaDB(t, dir)
	first := rig.StartBtcd(t, t.TempDir(), rig.PayoutAddress)
	second := rig.StartBtcd(t, t.TempDir(), rig.PayoutAddress, first)
	pool := rig.Setup{Kafka: kafka, DB: db, Nodes: []rig.Node{first.Node(), second.Node()}}.Start(t, dir)
	miner := pool.StartMiner(t, dir, "miner", "-user", "frank.rig", "-threads", "1", "-reconnect")
	reaches(t, first, 3)

	first.Kill()
	before := height(t, second)
	killed := time.Now()
	reaches(t, second, before+3)
	t.Logf("3 blocks on the second node %v after the first was killed", time.Since(killed).Round(time.Millisecond))

	first.Start()
	first.WaitReady(t)
	reaches(t, first, height(t, second)) // it has what it missed from its peer
	if code, err := miner.Stop(); err != nil || code != 0 {
		t.Errorf("minersim ended with code %d, %v", code, err)
	}
	pool.WaitLogged(t, miner.Acks(), miner.Report().Unanswered)
}

// TestBlkmakerKilled kills blkmaker when it has a solved share that it cannot submit, because the node is
// away: started again, it submits the block to the node that is back.
func TestBlkmakerKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	kafka, db, node := rig.StartKafka(t, dir), rig.StartMariaDB(t, dir), rig.StartBtcd(t, dir, rig.PayoutAddress)
	pool := rig.Setup{Kafka: kafka, DB: db, Nodes: []rig.Node{node.Node()}}.Start(t, dir)
	jobEverywhere(t, pool)

	// Not SIGSTOP: the block would wait in the node's socket and need no blkmaker.
	if code, err := node.Stop(); err != nil || code != 0 {
		t.Fatalf("btcd ended with code %d, %v", code, err)
	}
	miner := pool.StartMiner(t, dir, "miner", "-user", "grace.rig", "-threads", "1", "-reconnect", "-shares", "1")
	if code := miner.Wait(testkit.Patience); code != 0 {
		t.Fatalf("minersim ended with code %d", code)
	}
	has(t, pool, "blkmaker", `btcpool_blkmaker_arrivals_total{kind="block",service="blkmaker",way="kafka"}`, 1)
	blkmaker := pool.Service("blkmaker")
	blkmaker.Kill()

	node.Start()
	node.WaitReady(t)
	if h := height(t, node); h != 0 {
		t.Fatalf("height %d before blkmaker is back", h)
	}
	blkmaker.Start()
	reaches(t, node, 1)
	pool.WaitReady(t, "blkmaker")
	conn := db.Open(t)
	testkit.Until(t, testkit.Patience, "the block is recorded as accepted", func(ctx context.Context) error {
		var tip, state string
		if err := node.Call(ctx, "getbestblockhash", &tip); err != nil {
			return err
		}
		err := conn.QueryRowContext(ctx, "SELECT state FROM found_blocks WHERE hash = ?", tip).Scan(&state)
		if err == nil && state != "accepted" {
			err = fmt.Errorf("block %s is %s", tip, state)
		}
		return err
	})
	pool.WaitLogged(t, miner.Acks(), miner.Report().Unanswered)
}

// TestDescriptorsUsedUp lets many more miners come than sserver has descriptors: those that there is room for mine on,
// every share and every block of theirs is taken, the others are turned away.
func TestDescriptorsUsedUp(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	kafka, db, node := rig.StartKafka(t, dir), rig.StartMariaDB(t, dir), rig.StartBtcd(t, dir, rig.PayoutAddress)
	pool := rig.Setup{Kafka: kafka, DB: db, Nodes: []rig.Node{node.Node()}, Direct: true, OpenFiles: 80}.Start(t, dir)
	jobEverywhere(t, pool)
	crowd := pool.StartMiner(t, dir, "crowd", "-user", "henry.rig", "-conns", "120", "-rate", "0.05", "-password", "d=0.00000006", "-reconnect")
	reaches(t, node, 2)
	has(t, pool, "sserver", `btcpool_sserver_connections_refused_total{reason="limit",service="sserver"}`, 100)
	page, err := pool.Metrics(t.Context(), "sserver")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "process_open_fds") || strings.HasPrefix(line, "btcpool_sserver_sessions{") {
			t.Log(strings.TrimSpace(line))
		}
	}
	if err := pool.Ready(t.Context(), "sserver"); err != nil {
		t.Error(err)
	}
	if code, err := crowd.Stop(); err != nil || code != 0 {
		t.Errorf("minersim ended with code %d, %v", code, err)
	}
	report := crowd.Report()
	if report.Refused() > 0 || report.Accepted == 0 {
		t.Errorf("%+v", report)
	}
	pool.WaitLogged(t, crowd.Acks(), report.Unanswered)
	t.Logf("%+v, height %d", report, height(t, node))
}

// TestDiskFull fills sserver's disk: it refuses shares and says why it is not ready, and takes them again when there is
// room. What it acknowledged before and after is in the log, and nothing else.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	kafka, db, node := rig.StartKafka(t, dir), rig.StartMariaDB(t, dir), rig.StartBtcd(t, dir, rig.PayoutAddress)
	pool := rig.Setup{Kafka: kafka, DB: db, Nodes: []rig.Node{node.Node()}, Direct: true, DiskBytes: 16 << 20}.Start(t, dir)
	jobEverywhere(t, pool)
	miner := pool.StartMiner(t, dir, "miner", "-user", "iris.rig", "-conns", "10", "-rate", "2", "-password", "d=0.00000006", "-reconnect")
	acknowledged := func(more int) {
		t.Helper()
		before := len(miner.Acks())
		testkit.Until(t, testkit.Patience, "shares are acknowledged", func(context.Context) error {
			if n := len(miner.Acks()) - before; n < more {
				return fmt.Errorf("%d", n)
			}
			return nil
		})
	}
	acknowledged(20)
	filler := pool.Service("sserver").Sees(filepath.Join(dir, "sserver", "filler"))
	if err := os.WriteFile(filler, make([]byte, 32<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("disk not full: %v", err)
	}
	testkit.Until(t, testkit.Patience, "it is not ready", func(ctx context.Context) error {
		if err := pool.Ready(ctx, "sserver"); err == nil || !strings.Contains(err.Error(), "no space left on device") {
			return fmt.Errorf("ready: %v", err) //nolint:errorlint // for people
		}
		return nil
	})
	has(t, pool, "sserver", `btcpool_spool_write_errors_total{service="sserver",spool="shares"}`, 1)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	pool.WaitReady(t, "sserver")
	acknowledged(20)
	if code, err := miner.Stop(); err != nil || code != 0 {
		t.Errorf("minersim ended with code %d, %v", code, err)
	}
	report := miner.Report()
	pool.WaitLogged(t, miner.Acks(), report.Unanswered)
	t.Logf("%+v", report)
}

// jobEverywhere waits until miners would get a job on the fresh chain of which blkmaker can make a block.
func jobEverywhere(t *testing.T, pool *rig.Pool) {
	t.Helper()
	has(t, pool, "sserver", `btcpool_sserver_job_height{service="sserver"}`, 1)
	has(t, pool, "blkmaker", `btcpool_blkmaker_cached_jobs{service="blkmaker"}`, 1)
	has(t, pool, "blkmaker", `btcpool_blkmaker_cached_templates{service="blkmaker"}`, 1)
}

// has waits until a metric of a service is at least so much.
func has(t *testing.T, pool *rig.Pool, service, metric string, want float64) {
	t.Helper()
	testkit.Until(t, testkit.Patience, metric, func(ctx context.Context) error {
		page, err := pool.Metrics(ctx, service)
		if err != nil {
			return err
		}
		for line := range strings.Lines(page) {
			if text, ok := strings.CutPrefix(line, metric+" "); ok {
				got, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
				if err == nil && got < want {
					err = fmt.Errorf("is %v, want %v", got, want)
				}
				return err
			}
		}
		return fmt.Errorf("not among the metrics of %s", service)
	})
}

// height returns how many blocks are on the node's chain, which may have too much to do to say so at once.
func height(t *testing.T, node *rig.Btcd) (height int64) {
	t.Helper()
	testkit.Until(t, testkit.Patience, "the node tells its height", func(ctx context.Context) error {
		return node.Call(ctx, "getblockcount", &height)
	})
	return height
}

// reaches waits until so many blocks are on the node's chain.
func reaches(t *testing.T, node *rig.Btcd, want int64) {
	t.Helper()
	testkit.Until(t, testkit.Patience, fmt.Sprintf("block %d is on the chain", want), func(ctx context.Context) error {
		var got int64
		err := node.Call(ctx, "getblockcount", &got)
		if err == nil && got < want {
			err = fmt.Errorf("height %d", got)
		}
		return err
	})
}

// TestDatabaseAway takes the database away while blocks are found, and kills blkmaker twice, the second time when the
// jobs are forgotten: every block of the node's chain has its row when the database is back, and `blkmaker -verify`
// says so.
func TestDatabaseAway(t *testing.T) {
	const forgotten = 13 // heights: more than blkmaker keeps
	t.Parallel()
	dir := t.TempDir()
	kafka, db, node := rig.StartKafka(t, dir), rig.StartMariaDB(t, dir), rig.StartBtcd(t, dir, rig.PayoutAddress)
	pool := rig.Setup{Kafka: kafka, DB: db, Nodes: []rig.Node{node.Node()}, Direct: true}.Start(t, dir)
	miner := pool.StartMiner(t, dir, "miner", "-user", "heidi.rig", "-threads", "1", "-reconnect")
	reaches(t, node, 2)

	db.Kill()
	blkmaker := pool.Service("blkmaker")
	reaches(t, node, height(t, node)+2)
	blkmaker.Kill()
	blkmaker.Start()
	reaches(t, node, height(t, node)+forgotten)
	blkmaker.Kill()
	blkmaker.Start()
	has(t, pool, "blkmaker", `btcpool_blkmaker_blocks_without_row{service="blkmaker"}`, forgotten)
	if code, err := miner.Stop(); err != nil || code != 0 {
		t.Errorf("minersim ended with code %d, %v", code, err)
	}

	db.Start()
	conn := db.Open(t)
	var hashes []string
	testkit.Until(t, testkit.Patience, "every block has a row, and there are no more", func(ctx context.Context) error {
		hashes = nil // the last may still have been under way
		for at := int64(1); at <= height(t, node); at++ {
			var hash string
			if err := node.Call(ctx, "getblockhash", &hash, at); err != nil {
				return err
			}
			hashes = append(hashes, hash)
			var height int64
			err := conn.QueryRowContext(ctx, "SELECT height FROM found_blocks WHERE hash = ? AND state IN ('accepted', 'confirmed')", hash).Scan(&height)
			if err == nil && height != at {
				err = fmt.Errorf("height %d", height)
			}
			if err != nil {
				return fmt.Errorf("block %d, %s: %w", at, hash, err)
			}
		}
		var rows int
		err := conn.QueryRowContext(ctx, "SELECT COUNT(*) FROM found_blocks WHERE state IN ('accepted', 'confirmed')").Scan(&rows)
		if err == nil && rows != len(hashes) {
			err = fmt.Errorf("%d rows of blocks on the chain, which has %d", rows, len(hashes))
		}
		return err
	})
	t.Logf("%d blocks", len(hashes))

	mark := []string{"-mark", rig.PayoutAddress, "-since", "1"}
	verify := func(want int, more ...string) string {
		t.Helper()
		code, report := pool.Once(t, "blkmaker", append([]string{"-verify"}, more...)...)
		if code != want {
			t.Errorf("blkmaker -verify %v ended with code %d, want %d:\n%s", more, code, want, report)
		}
		return report
	}
	verify(0, mark...)
	if _, err := conn.ExecContext(t.Context(), "DELETE FROM found_blocks WHERE hash = ?", hashes[4]); err != nil {
		t.Fatal(err)
	}
	if report := verify(1, mark...); !strings.Contains(report, hashes[4]+" no row") {
		t.Errorf("the lost row is not named:\n%s", report)
	}
	verify(0, "-mend")
	verify(0, mark...)
}

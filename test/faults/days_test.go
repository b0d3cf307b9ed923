//go:build integration

package faults

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"btcpool/internal/bitcoin"
	"btcpool/internal/share"
	"btcpool/internal/sharefile"
	"btcpool/internal/testkit"
	"btcpool/test/integration/rig"
)

// TestDayDamaged flips a bit in the middle of the day's file and starts slparser again: no row gets less. Then the day
// is repaired: tables equal the log, and the log what was acknowledged.
func TestDayDamaged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	kafka, db, node := rig.StartKafka(t, dir), rig.StartMariaDB(t, dir), rig.StartBtcd(t, dir, rig.PayoutAddress)
	pool := rig.Setup{Kafka: kafka, DB: db, Nodes: []rig.Node{node.Node()}}.Start(t, dir)
	jobEverywhere(t, pool)
	miner := pool.StartMiner(t, dir, "miner", "-user", "heidi.rig", "-threads", "1", "-reconnect")
	reaches(t, node, 5)
	conn := db.Open(t)
	log := pool.WaitLogged(t, miner.Acks(), 1<<20) // it still mines
	testkit.Until(t, testkit.Patience, "the tables have what the share log has", func(ctx context.Context) error {
		return atLeast(poolRows(ctx, t, conn), log)
	})

	slparser := pool.Service("slparser")
	if code, err := slparser.Stop(); err != nil || code != 0 {
		t.Fatalf("slparser ended with code %d, %v", code, err)
	}
	before := poolRows(t.Context(), t, conn)
	days, err := sharefile.Days(pool.Log, "BTC")
	if err != nil || len(days) == 0 {
		t.Fatalf("days %v, %v", days, err)
	}
	damaged := days[0]
	flipFlush(t, sharefile.Path(pool.Log, "BTC", damaged))
	slparser.Start()
	pool.WaitReady(t, "slparser")
	has(t, pool, "slparser", `btcpool_slparser_damages_total{service="slparser"}`, 1)
	for day, had := range before {
		if now := poolRows(t.Context(), t, conn)[day]; less(t, now, had) {
			t.Errorf("%d: %s hashes, it had %s", day, now, had)
		}
	}

	if code, err := miner.Stop(); err != nil || code != 0 {
		t.Errorf("minersim ended with code %d, %v", code, err)
	}
	repair := func() error {
		out, err := exec.Command(rig.Bin(t, "sharelogger"), "-config", filepath.Join(dir, "sharelogger.toml"),
			"-repair", fmt.Sprint(int(damaged))).CombinedOutput()
		t.Logf("%s", out)
		return err
	}
	if err := repair(); err == nil {
		t.Error("repaired beside who writes")
	}
	sharelogger := pool.Service("sharelogger")
	if code, err := sharelogger.Stop(); err != nil || code != 0 {
		t.Fatalf("sharelogger ended with code %d, %v", code, err)
	}
	if err := repair(); err != nil {
		t.Fatal(err)
	}
	sharelogger.Start()
	pool.WaitReady(t, "sharelogger")
	pool.WaitLogged(t, miner.Acks(), miner.Report().Unanswered)
	pool.WaitStatistics(t, db)
	if _, err := os.Stat(sharefile.Path(pool.Log, "BTC", damaged) + ".damaged-1"); err != nil {
		t.Error(err)
	}
	if page, err := pool.Metrics(t.Context(), "slparser"); err != nil || !strings.Contains(page, "btcpool_slparser_damaged_bytes{service=\"slparser\"} 0\n") {
		t.Errorf("damage is still told: %v", err)
	}
}

// flipFlush flips a bit in the data of a flush in the middle of a file that is being written.
func flipFlush(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	file, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	const sizeAt, trailer = 21, 8
	member := bytes.LastIndex(file[:len(file)/2], []byte("\x1f\x8b\x08\x04\x00\x00\x00\x00"))
	if member < 0 {
		t.Fatal("no flush begins in the first half")
	}
	at := member + int(binary.LittleEndian.Uint32(file[member+sizeAt:])) - trailer - 2
	if _, err := f.WriteAt([]byte{file[at] ^ 1}, int64(at)); err != nil {
		t.Fatal(err)
	}
}

// atLeast says which day's row has less than the accepted hashes of the log.
func atLeast(rows map[int]string, log []share.Share) error {
	sums := make(map[int]bitcoin.Work)
	for _, s := range log {
		if s.Status == share.StatusAccept {
			day := int(sharefile.DayOf(s.Time))
			sums[day] = sums[day].Add(s.Difficulty.Hashes())
		}
	}
	for day, sum := range sums {
		row, err := bitcoin.ParseWork(rows[day])
		if err != nil {
			return err
		}
		if row.Cmp(sum) < 0 {
			return fmt.Errorf("%d: %s hashes in the tables, %s in the log", day, row, sum)
		}
	}
	return nil
}

func less(t *testing.T, a, b string) bool {
	t.Helper()
	x, errX := bitcoin.ParseWork(a)
	y, errY := bitcoin.ParseWork(b)
	if err := errors.Join(errX, errY); err != nil {
		t.Fatal(err)
	}
	return x.Cmp(y) < 0
}

// poolRows are the hashes that were accepted each day.
func poolRows(ctx context.Context, t *testing.T, conn *sql.DB) map[int]string {
	t.Helper()
	rows, err := conn.QueryContext(ctx, "SELECT day, accept_hashes FROM stats_pool_day")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	all := make(map[int]string)
	for rows.Next() {
		var day int
		var hashes string
		if err := rows.Scan(&day, &hashes); err != nil {
			t.Fatal(err)
		}
		all[day] = hashes
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

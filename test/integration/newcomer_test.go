//go:build integration

package integration

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"btcpool/internal/testkit"
	"btcpool/test/integration/rig"
)

// TestNewcomerAmongNames logs in ten times as many workers from one address as statshttpd keeps, none of which ever has
// a share. Somebody who comes meanwhile is seen: in the API and in the table, at once and after a restart. Of the
// others the table knows nothing.
func TestNewcomerAmongNames(t *testing.T) {
	t.Parallel()
	const maxWorkers, connections, logins = 100, 10, 100
	dir := t.TempDir()
	kafka, db, node := rig.StartKafka(t, dir), rig.StartMariaDB(t, dir), rig.StartBtcd(t, dir, rig.PayoutAddress)
	pool := rig.Setup{Kafka: kafka, DB: db, Nodes: []rig.Node{node.Node()}, MaxWorkers: maxWorkers}.Start(t, dir)

	// Rows of an earlier attack, as releases that wrote them with the login have left them.
	old := db.Open(t)
	for i := range maxWorkers {
		if _, err := old.ExecContext(t.Context(), "INSERT INTO mining_workers (puid, worker_id, group_id, worker_name, created_at, updated_at) "+
			"VALUES (99, ?, -99, 'x', '2026-01-01', '2026-01-01')", i+1); err != nil {
			t.Fatal(err)
		}
	}
	attack := func(n int) {
		t.Helper()
		for c := range connections {
			logInMany(t, pool.Stratum, fmt.Sprintf("mallory.%d-%d", n, c), logins)
		}
	}
	seen := func(what string) {
		t.Helper()
		testkit.Until(t, testkit.Patience, what, func(ctx context.Context) error {
			var worker struct {
				User, Worker string
				Online       bool
				Shares       struct{ Accepted struct{ Shares int } } `json:"shares_1h"`
			}
			if err := pool.Get(ctx, "/api/v1/workers/honest/rig", &worker); err != nil {
				return err
			}
			if worker.User != "honest" || worker.Worker != "rig" || worker.Shares.Accepted.Shares == 0 {
				return fmt.Errorf("%+v", worker)
			}
			var names int
			if err := old.QueryRowContext(ctx, "SELECT COUNT(*) FROM mining_workers WHERE user_name = 'honest' AND worker_name = 'rig'").Scan(&names); err != nil {
				return err
			}
			if names != 1 {
				return fmt.Errorf("%d rows of the newcomer", names)
			}
			var answer struct {
				Online  int `json:"workers_online"`
				Waiting int `json:"workers_waiting"`
			}
			if err := pool.Get(ctx, "/api/v1/pool", &answer); err != nil {
				return err
			}
			if answer.Online != 1 || answer.Waiting > maxWorkers {
				return fmt.Errorf("%+v", answer)
			}
			return nil
		})
	}

	attack(1)
	miner := pool.StartMiner(t, dir, "honest", "-user", "honest.rig", "-threads", "1", "-duration", "10m")
	attack(2)
	seen("the newcomer during the attack")
	attack(3)
	seen("the newcomer after the attack")
	stats := pool.Service("statshttpd")
	for _, end := range []func(){stats.Kill, func() {
		if code, err := stats.Stop(); err != nil || code != 0 {
			t.Errorf("SIGTERM: code %d, %v", code, err)
		}
	}} {
		end()
		stats.Start()
		pool.WaitReady(t, "statshttpd")
		seen("the newcomer after a restart")
	}
	testkit.Until(t, testkit.Patience, "no row of who has no share", func(ctx context.Context) error {
		var rows int
		err := old.QueryRowContext(ctx, "SELECT COUNT(*) FROM mining_workers WHERE accept_count = 0").Scan(&rows)
		if err == nil && rows > 0 {
			err = fmt.Errorf("%d rows", rows)
		}
		return err
	})
	if _, err := miner.Stop(); err != nil {
		t.Error(err)
	}
}

// logInMany logs in n workers on one connection, from an address of its own.
func logInMany(t *testing.T, stratum, name string, n int) {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 66)}}
	conn, err := dialer.DialContext(t.Context(), "tcp", stratum)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	var text strings.Builder
	text.WriteString(`{"id":"s","method":"mining.subscribe","params":["x"]}` + "\n")
	for i := range n {
		fmt.Fprintf(&text, `{"id":%d,"method":"mining.authorize","params":["%s-%d","x"]}`+"\n", i, name, i)
	}
	if _, err := conn.Write([]byte(text.String())); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(testkit.Patience)); err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewScanner(conn)
	answers.Buffer(nil, 1<<20)
	for granted := 0; granted < n; {
		if !answers.Scan() {
			t.Fatalf("%d of %d logins, then %v", granted, n, answers.Err())
		}
		if strings.Contains(answers.Text(), `"result":true`) {
			granted++
		}
	}
}

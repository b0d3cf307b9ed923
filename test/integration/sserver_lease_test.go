//go:build integration

package integration

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"btcpool/internal/bus"
	"btcpool/internal/config"
	"btcpool/internal/service"
	"btcpool/internal/testkit"
	"btcpool/internal/users"
	"btcpool/sserver"
	"btcpool/test/integration/rig"
)

const serverPath = "/locks/sserver_btc"

// stratumServer is a sserver that leases its id.
type stratumServer struct {
	*sserver.Service
	t    *testing.T
	stop func()
}

func leasing(t *testing.T, zookeeper string, kafka bus.Config) *stratumServer {
	t.Helper()
	cfg := sserver.DefaultConfig()
	cfg.Listen = "127.0.0.1:0"
	cfg.DataDir = t.TempDir()
	cfg.ServerID = 0
	cfg.ZooKeeper.Servers = []string{zookeeper}
	cfg.ZooKeeper.SessionTimeout = config.Duration(3 * time.Second)
	cfg.Users.Kind = users.Static
	cfg.Users.Static = map[string]int32{"alice": 7}
	cfg.Kafka = kafka
	s, err := sserver.New(cfg, service.Deps{Log: zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.WarnLevel), Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	return &stratumServer{Service: s, t: t, stop: testkit.Run(t, s.Run)}
}

// miner returns a connection that is subscribed, as soon as there is one, and fails unless its extranonce1 is of the
// server id.
func (s *stratumServer) miner(id uint8) net.Conn {
	s.t.Helper()
	const limit = 20 * time.Second
	deadline := time.Now().Add(limit)
	var conn net.Conn
	testkit.Until(s.t, limit, "it listens", func(ctx context.Context) (err error) {
		conn, err = new(net.Dialer).DialContext(ctx, "tcp", s.Addr().String())
		return err
	})
	s.t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(deadline); err != nil {
		s.t.Fatal(err)
	}
	fmt.Fprintln(conn, `{"id":1,"method":"mining.subscribe","params":[]}`)
	line, err := bufio.NewReader(conn).ReadString('\n')
	if want := fmt.Sprintf(`,"%02x`, id); err != nil || !strings.Contains(line, want) {
		s.t.Fatalf("not an extranonce1 of server %d: %s, %v", id, line, err)
	}
	return conn
}

// TestServerID cuts a sserver off from ZooKeeper: its miners are gone before another can have its id, and it comes back
// with a new one.
func TestServerID(t *testing.T) {
	t.Parallel()
	z := rig.StartZooKeeper(t, t.TempDir())
	kafka := testkit.Broker(t)
	line := newLine(t, z.Addr)
	conn := observer(t, z.Addr)

	first := leasing(t, line.addr(), kafka)
	cutOff := first.miner(1)
	second := leasing(t, z.Addr, kafka)
	stays := second.miner(2)
	waitFor(t, conn, serverPath, "1", "2")

	line.cut()
	cut := time.Now()
	if _, err := io.Copy(io.Discard, cutOff); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("it serves on without its id")
	}
	t.Logf("miners were disconnected %v after the cut", time.Since(cut))
	if there, _, err := conn.Exists(serverPath + "/1"); err != nil || !there {
		t.Fatalf("its node was gone before its miners: %v", err)
	}
	if conn, err := net.Dial("tcp", first.Addr().String()); err == nil {
		conn.Close()
		t.Error("it listens without an id")
	}
	if first.Ready() == nil {
		t.Error("it is ready without an id")
	}
	waitFor(t, conn, serverPath, "2") // its session has expired
	third := leasing(t, z.Addr, kafka)
	third.miner(1)

	line.mend()
	first.miner(3)
	if _, err := stays.Write([]byte(`{"id":2,"method":"mining.ping","params":[]}` + "\n")); err != nil {
		t.Error(err)
	}
	if answer, err := bufio.NewReader(stays).ReadString('\n'); err != nil || !strings.Contains(answer, "pong") {
		t.Errorf("who keeps its id answers %q, %v", answer, err)
	}
	first.stop()
	waitFor(t, conn, serverPath, "1", "2")
}

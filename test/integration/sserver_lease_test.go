//go:build integration

package integration

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"btcpool/internal/bus"
	"btcpool/internal/config"
	"btcpool/internal/job"
	"btcpool/internal/service"
	"btcpool/internal/share"
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
	return leasingIn(t, t.TempDir(), zookeeper, kafka)
}

func leasingConfig(dir, zookeeper string, kafka bus.Config) sserver.Config {
	cfg := sserver.DefaultConfig()
	cfg.Listen = "127.0.0.1:0"
	cfg.DataDir = dir
	cfg.Development.Simulator = true // any share will do
	cfg.ServerID = 0
	cfg.LoginTimeout = config.Duration(2 * testkit.Patience) // its miners only subscribe
	cfg.ZooKeeper.Servers = []string{zookeeper}
	cfg.ZooKeeper.SessionTimeout = config.Duration(session)
	cfg.Users.Kind = users.Static
	cfg.Users.Static = map[string]int32{"alice": 7}
	cfg.Kafka = kafka
	return cfg
}

func leasingIn(t *testing.T, dir, zookeeper string, kafka bus.Config) *stratumServer {
	t.Helper()
	s, err := sserver.New(leasingConfig(dir, zookeeper, kafka), service.Deps{Log: zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.WarnLevel), Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	return &stratumServer{Service: s, t: t, stop: testkit.Run(t, s.Run)}
}

// miner returns a connection that is subscribed, as soon as there is one, and fails unless its extranonce1 is of the
// server id.
func (s *stratumServer) miner(id uint8) net.Conn {
	s.t.Helper()
	var conn net.Conn
	testkit.Until(s.t, testkit.Patience, "it listens", func(ctx context.Context) (err error) {
		conn, err = new(net.Dialer).DialContext(ctx, "tcp", s.Addr().String())
		return err
	})
	s.t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(testkit.Patience)); err != nil {
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

// mine has n shares acknowledged by the server, as the id.
func (s *stratumServer) mine(id uint8, n int) {
	s.t.Helper()
	conn := s.miner(id)
	defer conn.Close()
	fmt.Fprintln(conn, `{"id":2,"method":"mining.authorize","params":["alice.rig",""]}`)
	lines := bufio.NewScanner(conn)
	var job, time string
	for sent, accepted := 0, 0; accepted < n; {
		if !lines.Scan() {
			s.t.Fatalf("%d of %d shares: %v", accepted, n, lines.Err())
		}
		var m struct {
			ID     int
			Method string
			Params []any
			Result any
		}
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			s.t.Fatal(err)
		}
		switch {
		case m.Method == "mining.notify":
			job, time = m.Params[0].(string), m.Params[7].(string)
			for ; sent < n; sent++ {
				fmt.Fprintf(conn, `{"id":%d,"method":"mining.submit","params":["alice.rig","%s","%016x","%s","%08x"]}`+"\n", 10+sent, job, sent, time, sent)
			}
		case m.ID >= 10 && m.Result == true:
			accepted++
		case m.ID >= 10:
			s.t.Fatalf("a share was refused: %s", lines.Text())
		}
	}
}

// sendJob has whoever reads the topic have something for miners to do.
func sendJob(t *testing.T, client *bus.Client, topic string, ids *job.IDs) {
	t.Helper()
	now := time.Now()
	j := job.StratumJob{
		ID: ids.Next(now), GBTHash: strings.Repeat("ab", 32), PrevHash: chainhash.Hash{1}, Height: 100, Coinbase1: make([]byte, 60),
		Coinbase2: make([]byte, 120), Version: 0x20000000, Bits: 0x1d00ffff, Time: uint32(now.Unix()), MinTime: uint32(now.Unix()) - 3600,
	}
	if err := client.Write(t.Context(), topic, bus.Message{Value: j.AppendTo(nil)}); err != nil {
		t.Fatal(err)
	}
}

// TestLeasedEpochs has a server lease the id of another that began in the same second: each share that was acknowledged
// counts, for no two holders of an id share an epoch.
func TestLeasedEpochs(t *testing.T) {
	t.Parallel()
	z := rig.StartZooKeeper(t, t.TempDir())
	broker := rig.StartKafka(t, t.TempDir())
	kafka := bus.DefaultConfig()
	kafka.Brokers = []string{broker.Addr}
	topics := kafka.Topics
	client := testkit.Bus(t, kafka, topics.Job, topics.Share, topics.CommonEvents)
	ids := job.NewIDs(1)
	send := func() { sendJob(t, client, topics.Job, ids) }
	send()

	// What they had in common was the clock: the last epoch of both is the same here.
	last := fmt.Append(nil, time.Now().Add(time.Hour).Unix())
	begun := func() string {
		dir := t.TempDir()
		if err := os.MkdirAll(filepath.Join(dir, "shares"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "shares", "epoch"), last, 0o600); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	conn, line := observer(t, z.Addr), newLine(t, z.Addr)
	first := leasingIn(t, begun(), z.Addr, kafka)
	first.mine(1, 40)
	second := leasingIn(t, begun(), line.addr(), kafka)
	second.mine(2, 10)

	line.cut()
	waitFor(t, conn, serverPath, "1")
	first.stop()
	waitFor(t, conn, serverPath)
	line.mend()
	send()
	second.mine(1, 30)
	second.stop()

	const want = 40 + 10 + 30
	var dedup share.Dedup
	counted := 0
	epochs := map[uint8][]uint32{}
	ctx, cancel := context.WithTimeout(t.Context(), testkit.Patience)
	defer cancel()
	if err := client.Read(ctx, topics.Share, bus.Earliest(), func(m bus.Message) error {
		var one share.Share
		if err := one.Parse(m.Value); err != nil {
			return err
		}
		if !dedup.Seen(m.Partition, one.ID) {
			counted++
		}
		if of := epochs[one.ID.Server]; len(of) == 0 || of[len(of)-1] != one.ID.Epoch {
			epochs[one.ID.Server] = append(of, one.ID.Epoch)
		}
		return nil
	}, bus.CaughtUp(cancel)); err != nil {
		t.Fatal(err)
	}
	if counted != want {
		t.Errorf("%d of %d acknowledged shares count", counted, want)
	}
	if of := epochs[1]; len(of) != 2 || of[0] >= of[1] || of[1] <= epochs[2][0] {
		t.Fatalf("epochs of the ids: %v", epochs)
	}
	text, _, err := conn.Get(serverPath + "_epoch")
	if err != nil || string(text) != fmt.Sprint(epochs[1][1]) {
		t.Errorf("ZooKeeper has %q as the last epoch, %v", text, err)
	}
}

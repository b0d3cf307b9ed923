package statshttpd_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"btcpool/internal/bitcoin"
	"btcpool/internal/bus"
	"btcpool/internal/config"
	"btcpool/internal/job"
	"btcpool/internal/service"
	"btcpool/internal/share"
	"btcpool/internal/store"
	"btcpool/internal/testkit"
	"btcpool/statshttpd"
)

func TestMain(m *testing.M) {
	if text := os.Getenv(childConfig); text != "" {
		fmt.Fprintln(os.Stderr, child(text))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// rig is a statshttpd with everything round it.
type rig struct {
	t      *testing.T
	cfg    statshttpd.Config
	client *bus.Client
	db     *store.Store
	seq    uint64
}

func newRig(t *testing.T) *rig {
	t.Helper()
	cfg := statshttpd.DefaultConfig()
	cfg.Listen = "127.0.0.1:0"
	cfg.Kafka = testkit.Broker(t)
	cfg.FlushDBInterval = config.Duration(time.Second)
	cfg.Database.DSN = "sqlite:" + filepath.Join(t.TempDir(), "pool.db")
	topics := cfg.Kafka.Topics
	client := testkit.Bus(t, cfg.Kafka, topics.Share, topics.CommonEvents, topics.Job)
	db, err := store.Open(t.Context(), cfg.Database.DSN)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return &rig{t: t, cfg: cfg, client: client, db: db}
}

func (r *rig) write(topic string, values ...[]byte) {
	r.t.Helper()
	var msgs []bus.Message
	for _, v := range values {
		msgs = append(msgs, bus.Message{Value: v})
	}
	if err := r.client.Write(r.t.Context(), topic, msgs...); err != nil {
		r.t.Fatal(err)
	}
}

// share returns a message with the next sequence number.
func (r *rig) share(user int32, worker string, status share.Status) []byte {
	r.seq++
	s := share.Share{
		ID: share.ID{Server: 1, Epoch: 7, Seq: r.seq}, JobID: 1, UserID: user, WorkerID: share.WorkerID(worker), Status: status,
		Time: time.Now().Unix(), Difficulty: -3, Bits: 0x207fffff, Height: 5,
	}
	return s.AppendTo(nil)
}

func event(action share.Action, user int32, userName, worker string) []byte {
	e := share.Event{
		Time: time.Now(), Action: action, UserID: user, UserName: userName,
		WorkerID: share.WorkerID(worker), WorkerName: worker, Agent: "minersim/1",
	}
	return e.AppendTo(nil)
}

// start runs a service until stop is called or the test ends.
func (r *rig) start() (s *statshttpd.Service, stop func()) {
	r.t.Helper()
	s, err := statshttpd.New(r.cfg, service.Deps{Log: zerolog.New(zerolog.NewTestWriter(r.t)), Metrics: prometheus.NewRegistry()})
	if err != nil {
		r.t.Fatal(err)
	}
	return s, testkit.Run(r.t, s.Run)
}

// eventually waits until check returns nil.
func (r *rig) eventually(check func() error) {
	r.t.Helper()
	testkit.Until(r.t, testkit.Patience, "what the test waits for", func(context.Context) error { return check() })
}

func get(s *statshttpd.Service, path string, into any) error {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: testkit.Patience}
	res, err := client.Get("http://" + s.Addr().String() + path)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", path, res.Status, body)
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(body, into)
}

type amounts struct {
	Shares     uint64
	Difficulty float64
}

type pool struct {
	Starting bool
	Shares   struct{ Accepted, Stale, Rejected amounts } `json:"shares_1h"`
	Network  *struct{ Height int32 }
	Blocks   *struct{ Total, Accepted int64 }
	Online   int `json:"workers_online"`
	Round    *struct{ Difficulty, Effort float64 }
}

// counted returns nil once the pool has answered exactly these sums.
func counted(s *statshttpd.Service, accepted, stale, rejected uint64) func() error {
	return func() error {
		var p pool
		if err := get(s, "/api/v1/pool", &p); err != nil {
			return err
		}
		got := []amounts{p.Shares.Accepted, p.Shares.Stale, p.Shares.Rejected}
		want := []amounts{{accepted, float64(accepted) / 8}, {stale, float64(stale) / 8}, {rejected, float64(rejected) / 8}}
		if diff := cmp.Diff(want, got); diff != "" || p.Starting {
			return fmt.Errorf("starting is %t, shares (-want +got):\n%s", p.Starting, diff)
		}
		return nil
	}
}

func TestService(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	topics := r.cfg.Kafka.Topics
	first := r.share(1, "one", share.StatusAccept)
	r.write(topics.Share, first, r.share(1, "one", share.StatusAccept), r.share(2, "two", share.StatusAccept), r.share(2, "two", share.StatusStale))
	r.write(topics.CommonEvents, event(share.MinerConnect, 1, "ann", "one"), []byte("{"), []byte(`{"type":"other"}`))

	s, stop := r.start()
	r.eventually(s.Ready)
	r.eventually(counted(s, 3, 1, 0))

	// What is delivered again, or is no share, counts nothing and stops nothing.
	r.write(topics.Share, first, []byte("garbage"), nil, first[:20], r.share(0, "nobody", share.StatusAccept), r.share(2, "two", share.StatusLowDifficulty))
	r.write(topics.CommonEvents, event(share.MinerConnect, 2, "bob", "two"))
	r.write(topics.Job, []byte("garbage"), stratumJob())
	r.eventually(counted(s, 3, 1, 1))

	found := store.Block{
		UserID: 1, WorkerID: share.WorkerID("one"), WorkerName: "ann.one", Height: 5, Hash: fmt.Sprintf("%064d", 5),
		PrevHash: fmt.Sprintf("%064d", 4), RewardSat: 5_000_000_000, CreatedAt: time.Now().Add(-time.Minute), State: store.Accepted,
	}
	if err := r.db.AddBlock(t.Context(), found); err != nil {
		t.Fatal(err)
	}
	r.eventually(func() error {
		var p pool
		if err := get(s, "/api/v1/pool", &p); err != nil {
			return err
		}
		if p.Network == nil || p.Network.Height != 5 || p.Blocks == nil || p.Blocks.Accepted != 1 || p.Online != 2 {
			return fmt.Errorf("pool answers %+v", p)
		}
		if p.Round == nil || p.Round.Difficulty != 3.0/8 {
			return fmt.Errorf("round is %+v", p.Round)
		}
		return nil
	})
	var blocks struct {
		Blocks []struct {
			Hash, Finder, State string
			Reward              int64 `json:"reward"`
		}
	}
	if err := get(s, "/api/v1/blocks", &blocks); err != nil || len(blocks.Blocks) != 1 || blocks.Blocks[0].Reward != found.RewardSat || blocks.Blocks[0].Finder != "ann.one" {
		t.Errorf("blocks: %+v, %v", blocks, err)
	}

	r.eventually(func() error { return r.rowsAre(map[string]int64{"ann.one": 2, "bob.two": 1, "ann": 2, "bob": 1}) })
	r.write(topics.Share, r.share(1, "one", share.StatusAccept))
	r.eventually(counted(s, 4, 1, 1))
	stop()
	// The last share was written at the end at the latest.
	if err := r.rowsAre(map[string]int64{"ann.one": 3, "bob.two": 1, "ann": 3, "bob": 1}); err != nil {
		t.Error(err)
	}

	s, _ = r.start()
	r.eventually(s.Ready)
	r.eventually(counted(s, 4, 1, 1))
	var worker struct{ User, Worker, Agent string }
	if err := get(s, "/api/v1/workers/bob/two", &worker); err != nil || worker.Agent != "minersim/1" {
		t.Errorf("worker after the restart: %+v, %v", worker, err)
	}
}

// TestSharesWithoutTimes wants the history back that btcpool's sserver has written, which only shares tell the time of.
func TestSharesWithoutTimes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	old := share.Share{
		JobID: 1, UserID: 1, WorkerID: 1, Status: share.StatusAccept,
		Time: time.Now().Add(-2 * time.Hour).Unix(), Difficulty: -3, Bits: 0x207fffff, Height: 5,
	}
	for _, value := range [][]byte{old.AppendTo(nil), r.share(1, "one", share.StatusAccept), r.share(2, "two", share.StatusStale)} {
		if err := r.client.Write(t.Context(), r.cfg.Kafka.Topics.Share, bus.Message{Time: time.UnixMilli(-1), Value: value}); err != nil {
			t.Fatal(err)
		}
	}
	s, _ := r.start()
	r.eventually(counted(s, 1, 1, 0))
}

// rowsAre compares the counts of accepted shares in mining_workers; a user has the row of worker 0.
func (r *rig) rowsAre(want map[string]int64) error {
	workers, err := r.db.Workers(r.t.Context())
	if err != nil {
		return err
	}
	users := map[int32]string{1: "ann", 2: "bob"}
	got := make(map[string]int64)
	for _, w := range workers {
		name := users[w.UserID]
		if w.WorkerID != 0 {
			name += "." + w.Name
		}
		got[name] = w.AcceptCount
	}
	if diff := cmp.Diff(want, got); diff != "" {
		return fmt.Errorf("mining_workers (-want +got):\n%s", diff)
	}
	return nil
}

// Figures that a stopped service left in the table are set to zero by the next one.
func TestServiceClearsOldRows(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	old := store.Worker{UserID: 1, WorkerID: 9, Accept1h: bitcoin.Work{Lo: 77 << 32}, AcceptCount: 5, LastShareTime: time.Now().Add(-2 * time.Hour)}
	if err := r.db.UpsertWorkerStats(t.Context(), []store.Worker{old}); err != nil {
		t.Fatal(err)
	}
	if err := r.db.UpsertWorkerNames(t.Context(), []store.Worker{{UserID: 1, WorkerID: 9, Name: "gone", UserName: "ann"}}); err != nil {
		t.Fatal(err)
	}
	s, _ := r.start()
	r.eventually(func() error {
		workers, err := r.db.Workers(t.Context())
		for _, w := range workers {
			if !w.Accept1h.IsZero() {
				return fmt.Errorf("worker %d still has %s", w.WorkerID, w.Accept1h)
			}
			if w.WorkerID == 9 && (w.Name != "gone" || !w.LastShareTime.Equal(old.LastShareTime.Truncate(time.Second))) {
				t.Errorf("worker 9 is %q, last share %s", w.Name, w.LastShareTime)
			}
		}
		return err
	})
	r.eventually(func() error {
		var workers struct{ Total int }
		if err := get(s, "/api/v1/workers", &workers); err != nil || workers.Total == 0 {
			return err
		}
		return fmt.Errorf("%d workers are shown", workers.Total)
	})
}

// Without broker and database the API answers, says so, and the service stops when told.
func TestServiceAlone(t *testing.T) {
	t.Parallel()
	r := &rig{t: t, cfg: statshttpd.DefaultConfig()}
	r.cfg.Listen = "127.0.0.1:0"
	r.cfg.Kafka.Brokers = []string{"127.0.0.1:1"}
	r.cfg.Database.DSN = "mysql://user@tcp(127.0.0.1:1)/pool"
	s, _ := r.start()
	var p pool
	r.eventually(func() error { return get(s, "/api/v1/pool", &p) })
	if !p.Starting || p.Blocks != nil || p.Network != nil {
		t.Errorf("pool answers %+v", p)
	}
	if err := s.Ready(); err == nil {
		t.Error("ready without broker and database")
	}
}

// Who opens connections and says nothing keeps nobody away, and is counted.
func TestServiceCrowded(t *testing.T) {
	t.Parallel()
	cfg := statshttpd.DefaultConfig()
	cfg.Listen, cfg.MaxConnections = "127.0.0.1:0", 1
	cfg.Kafka.Brokers = []string{"127.0.0.1:1"}
	cfg.Database.DSN = "mysql://user@tcp(127.0.0.1:1)/pool"
	reg := prometheus.NewRegistry()
	s, err := statshttpd.New(cfg, service.Deps{Log: zerolog.Nop(), Metrics: reg})
	if err != nil {
		t.Fatal(err)
	}
	testkit.Run(t, s.Run)
	silent, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	var p pool
	if err := get(s, "/api/v1/pool", &p); err != nil {
		t.Error(err)
	}
	if n := testkit.Metric(t, reg, "btcpool_statshttpd_http_connections_crowded_out_total"); n != 1 {
		t.Errorf("%v counted", n)
	}
}

// TestClose wants nothing to be left of services that have not run: another one has the port.
func TestClose(t *testing.T) {
	t.Parallel()
	cfg := statshttpd.DefaultConfig()
	cfg.Listen = "127.0.0.1:0"
	cfg.Database.DSN = "sqlite:" + filepath.Join(t.TempDir(), "pool.db")
	first, err := statshttpd.New(cfg, service.Deps{Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Listen = first.Addr().String()
	if _, err := statshttpd.New(cfg, service.Deps{Log: zerolog.Nop()}); err == nil || !strings.Contains(err.Error(), "listen = ") {
		t.Errorf("two at one port: %v", err)
	}
	for range 2 {
		if err := first.Close(); err != nil {
			t.Error(err)
		}
	}
	second, err := statshttpd.New(cfg, service.Deps{Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
}

func stratumJob() []byte {
	j := job.StratumJob{
		ID: job.NewIDs(1).Next(time.Now()), GBTHash: fmt.Sprintf("%064d", 1), Height: 6, Coinbase1: []byte{1}, Coinbase2: []byte{2},
		Version: 0x20000000, Bits: 0x207fffff, Time: uint32(time.Now().Unix()), MinTime: 1, CoinbaseValue: 5_000_000_000,
	}
	return j.AppendTo(nil)
}

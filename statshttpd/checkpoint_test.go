package statshttpd_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"btcpool/internal/bus"
	"btcpool/internal/config"
	"btcpool/internal/service"
	"btcpool/internal/share"
	"btcpool/internal/testkit"
	"btcpool/statshttpd"
)

const childConfig = "STATSHTTPD_CHILD" // in the environment of a process that is to be killed

// child is a statshttpd, which says where it listens; it ends by a signal only.
func child(text string) error {
	cfg := statshttpd.DefaultConfig()
	if err := json.Unmarshal([]byte(text), &cfg); err != nil {
		return err
	}
	s, err := statshttpd.New(cfg, service.Deps{Log: zerolog.New(os.Stderr)})
	if err != nil {
		return err
	}
	fmt.Println(s.Addr())
	return s.Run(context.Background())
}

// TestCheckpointKilled kills statshttpd at random moments while shares come in, some of them again and again, and wants the
// figures of pool, users and workers to be those of all shares, each once.
func TestCheckpointKilled(t *testing.T) {
	t.Parallel()
	const workers, lives = 30, 8
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	cfg := statshttpd.DefaultConfig()
	cfg.Listen = "127.0.0.1:0"
	cfg.Kafka = testkit.Broker(t)
	cfg.Kafka.Partitions = 3
	cfg.Database.DSN = "sqlite:" + filepath.Join(t.TempDir(), "pool.db")
	cfg.CheckpointFile = filepath.Join(t.TempDir(), "checkpoint")
	cfg.CheckpointInterval = config.Duration(time.Second)
	topics := cfg.Kafka.Topics
	client := testkit.Bus(t, cfg.Kafka, topics.Share, topics.CommonEvents, topics.Job)
	text, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}

	want := make(map[string]uint64) // accepted shares by the end of a path
	ctx, stop := context.WithCancel(t.Context())
	var mining sync.WaitGroup
	mining.Go(func() {
		random := rand.New(rand.NewPCG(seed, 2))
		last := make(map[uint8]bus.Message)
		for seq := uint64(1); ctx.Err() == nil; seq++ {
			var batch []bus.Message
			for server := range uint8(5) {
				user := 1 + random.Int32N(3)
				worker := random.IntN(workers)
				s := share.Share{
					ID: share.ID{Server: server + 1, Epoch: 7, Seq: seq}, JobID: 1, UserID: user, WorkerID: int64(worker) + 1,
					Status: share.StatusAccept, Time: time.Now().Unix(), Difficulty: -3, Bits: 0x207fffff, Height: 5,
				}
				m := bus.Message{Key: []byte{server}, Value: s.AppendTo(nil)}
				if again, ok := last[server]; ok && random.IntN(10) == 0 {
					batch = append(batch, again)
				}
				batch, last[server] = append(batch, m), m
				for _, who := range []string{"pool", fmt.Sprintf("users/%d", user), fmt.Sprintf("workers/%d/%d", user, worker+1)} {
					want[who]++
				}
			}
			if err := client.Write(context.WithoutCancel(ctx), topics.Share, batch...); err != nil {
				t.Error(err)
				return
			}
		}
	})
	resumed := 0
	for range lives {
		var said bytes.Buffer
		process := exec.CommandContext(t.Context(), os.Args[0])
		process.Env = append(os.Environ(), childConfig+"="+string(text))
		process.Stderr = &said
		if err := process.Start(); err != nil {
			t.Fatal(err)
		}
		before, _ := os.Stat(cfg.CheckpointFile)
		testkit.Until(t, testkit.Patience, "a checkpoint", func(context.Context) error {
			now, err := os.Stat(cfg.CheckpointFile)
			if err == nil && before != nil && !now.ModTime().After(before.ModTime()) {
				err = fmt.Errorf("it is of %s", now.ModTime())
			}
			return err
		})
		time.Sleep(time.Duration(random.IntN(1500)) * time.Millisecond) // any moment will do
		if err := process.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = process.Wait()
		if bytes.Contains(said.Bytes(), []byte("checkpoint read")) {
			resumed++
		}
	}
	stop()
	mining.Wait()
	if resumed != lives-1 {
		t.Errorf("%d of %d starts went on from a checkpoint", resumed, lives)
	}

	if err := os.WriteFile(filepath.Join(filepath.Dir(cfg.CheckpointFile), ".checkpoint123"), nil, 0o600); err != nil { // as a kill amid writing leaves
		t.Fatal(err)
	}
	s, err := statshttpd.New(cfg, service.Deps{Log: zerolog.New(zerolog.NewTestWriter(t)), Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	end := testkit.Run(t, s.Run)
	testkit.Until(t, testkit.Patience, "ready", func(context.Context) error { return s.Ready() })
	got := make(map[string]uint64)
	for who := range want {
		var a struct {
			Shares struct{ Accepted amounts } `json:"shares_1h"`
		}
		if err := get(s, "/api/v1/"+who, &a); err != nil {
			t.Fatal(err)
		}
		got[who] = a.Shares.Accepted.Shares
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("shares (-want +got):\n%s", diff)
	}
	t.Logf("%d shares", want["pool"])
	end()
	if files, err := os.ReadDir(filepath.Dir(cfg.CheckpointFile)); err != nil || len(files) != 1 {
		t.Errorf("%v, beside the checkpoint are %v", err, files)
	}

	// A topic that was made anew has nothing of what was counted.
	testkit.DeleteTopic(t, cfg.Kafka, topics.Share)
	reg := prometheus.NewRegistry()
	if s, err = statshttpd.New(cfg, service.Deps{Log: zerolog.Nop(), Metrics: reg}); err != nil {
		t.Fatal(err)
	}
	testkit.Run(t, s.Run)
	testkit.Until(t, testkit.Patience, "ready", func(context.Context) error { return s.Ready() })
	if n := testkit.Metric(t, reg, "btcpool_statshttpd_checkpoints_unused_total", "reason", "moved"); n != 1 {
		t.Errorf("%v checkpoints of no use counted", n)
	}
	var p pool
	if err := get(s, "/api/v1/pool", &p); err != nil || p.Shares.Accepted.Shares != 0 {
		t.Errorf("%v, pool %+v", err, p)
	}
}

//go:build integration

package integration

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"btcpool/internal/bus"
	"btcpool/internal/config"
	"btcpool/internal/service"
	"btcpool/internal/share"
	"btcpool/internal/testkit"
	"btcpool/statshttpd"
	"btcpool/test/integration/rig"
)

// TestStatisticsInRedis has a real Redis hang, die and come back empty under statshttpd, which goes on answering and
// counting meanwhile, and gives Redis everything again.
func TestStatisticsInRedis(t *testing.T) {
	t.Parallel()
	server := rig.StartRedis(t, t.TempDir())
	cfg := statshttpd.DefaultConfig()
	cfg.Listen = "127.0.0.1:0"
	cfg.Kafka = testkit.Broker(t)
	cfg.FlushDBInterval = config.Duration(time.Second)
	cfg.Database.DSN = "sqlite:" + filepath.Join(t.TempDir(), "pool.db")
	cfg.Redis.URL = "redis://" + server.Addr + "/0"
	cfg.Redis.KeyPrefix, cfg.Redis.KeyExpire = "btc_", config.Duration(time.Hour)
	cfg.Redis.Indexes = []string{"accept_1h", "worker_name"}
	topics := cfg.Kafka.Topics
	client := testkit.Bus(t, cfg.Kafka, topics.Share, topics.CommonEvents, topics.Job)
	reg := prometheus.NewRegistry()
	s, err := statshttpd.New(cfg, service.Deps{Log: zerolog.Nop(), Metrics: reg})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()

	worker := share.WorkerID("rig")
	event := share.Event{
		Time: time.Now(), Action: share.MinerConnect, UserID: 7, UserName: "ann", WorkerID: worker, WorkerName: "rig", Agent: "cgminer", Desc: "new_conn",
	}
	if err := client.Write(ctx, topics.CommonEvents, bus.Message{Value: event.AppendTo(nil)}); err != nil {
		t.Fatal(err)
	}
	accepted := 0
	mine := func(n int) {
		t.Helper()
		for range n {
			accepted++
			one := share.Share{
				UserID: 7, WorkerID: worker, JobID: 1 << 40, Height: 1, Bits: 0x1d00ffff, Time: time.Now().Unix(), Status: share.StatusAccept,
				Difficulty: 4, ID: share.ID{Server: 1, Epoch: 1, Seq: uint64(accepted)},
			}
			if err := client.Write(ctx, topics.Share, bus.Message{Value: one.AppendTo(nil)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	reader := redis.NewClient(&redis.Options{Addr: server.Addr})
	defer reader.Close()
	key := fmt.Sprintf("btc_mining_workers/pu/7/wk/%d", worker)
	holds := func(what string) {
		t.Helper()
		testkit.Until(t, testkit.Patience, what, func(ctx context.Context) error {
			fields, err := reader.HGetAll(ctx, key).Result()
			if err == nil && (fields["accept_1h"] != fmt.Sprint(16*accepted) || fields["worker_name"] != "rig" || fields["accept_count"] != fmt.Sprint(accepted)) {
				err = fmt.Errorf("%s holds %v", key, fields)
			}
			if score := reader.ZScore(ctx, "btc_mining_workers/pu/7/sort/accept_1h", fmt.Sprint(worker)).Val(); err == nil && score != float64(16*accepted) {
				err = fmt.Errorf("the index has %v", score)
			}
			return err
		})
	}
	mine(10)
	holds("Redis has the worker")
	if ttl := reader.TTL(t.Context(), key).Val(); ttl <= 0 || ttl > time.Hour {
		t.Errorf("%s goes in %s", key, ttl)
	}
	if n := reader.HGet(t.Context(), "btc_mining_workers/pu/7/all", "worker_count").Val(); n != "1" {
		t.Errorf("the user has %s workers", n)
	}

	failed := func() float64 {
		return testkit.Metric(t, reg, "btcpool_statshttpd_redis_writes_total", "result", "failed")
	}
	goesOn := func(what string) {
		t.Helper()
		mine(5)
		testkit.Until(t, testkit.Patience, "shares are counted while Redis "+what, func(ctx context.Context) error {
			if n := testkit.Metric(t, reg, "btcpool_statshttpd_shares_total", "result", "accepted"); n != float64(accepted) {
				return fmt.Errorf("%v of %d", n, accepted)
			}
			answer, err := http.Get("http://" + s.Addr().String() + "/api/v1/workers/ann/rig")
			if err != nil {
				return err
			}
			defer answer.Body.Close()
			return errors.Join(s.Ready(), map[bool]error{false: fmt.Errorf("status %d", answer.StatusCode)}[answer.StatusCode == http.StatusOK])
		})
		before := failed()
		testkit.Until(t, testkit.Patience, "it is counted that Redis "+what, func(context.Context) error {
			if failed() <= before {
				return errors.New("no write has failed")
			}
			return nil
		})
	}
	server.Pause()
	goesOn("hangs")
	server.Resume()
	holds("Redis has what came while it hung")
	server.Kill()
	goesOn("is away")
	server.Start()
	server.WaitReady(t)
	holds("Redis, which came back empty, has all again")
}

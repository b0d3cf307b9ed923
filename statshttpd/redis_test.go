package statshttpd

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"btcpool/internal/config"
	"btcpool/internal/share"
	"btcpool/internal/testkit"
)

// withRedis has s write to the server of that address.
func (s *Service) withRedis(t *testing.T, addr string, set func(*RedisConfig)) {
	t.Helper()
	s.cfg.Redis.URL = "redis://" + addr + "/0"
	if set != nil {
		set(&s.cfg.Redis)
	}
	if err := s.cfg.Redis.Validate(); err != nil {
		t.Fatal(err)
	}
	out, err := newRedisOut(s.cfg, s.metrics, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	s.redis = out
	t.Cleanup(func() { out.client.Close() })
}

func (s *Service) toRedis(t *testing.T, now time.Time) {
	t.Helper()
	err := s.redis.write(t.Context(), s.board, now)
	if s.redis.done(err); err != nil {
		t.Fatal(err)
	}
}

func hash(server *miniredis.Miniredis, key string) map[string]string {
	fields := make(map[string]string)
	names, _ := server.HKeys(key)
	for _, name := range names {
		fields[name] = server.HGet(key, name)
	}
	return fields
}

// published returns what gives the messages that were published, once there are n.
func published(t *testing.T, server *miniredis.Miniredis) func(n int) []string {
	client := redis.NewClient(&redis.Options{Addr: server.Addr(), Protocol: 2})
	t.Cleanup(func() { client.Close() })
	sub := client.PSubscribe(t.Context(), "*")
	if _, err := sub.Receive(t.Context()); err != nil {
		t.Fatal(err)
	}
	messages := sub.Channel(redis.WithChannelSize(1000))
	t.Cleanup(func() { sub.Close() })
	var all []string
	return func(n int) []string {
		t.Helper()
		for len(all) < n {
			select {
			case m := <-messages:
				all = append(all, m.Channel+" "+m.Payload)
			case <-time.After(testkit.Patience):
				t.Fatalf("only %q were published", all)
			}
		}
		return all
	}
}

func TestRedis(t *testing.T) {
	t.Parallel()
	server := miniredis.RunT(t)
	s := newTestService(t, noon)
	s.small(t)
	s.withRedis(t, server.Addr(), func(c *RedisConfig) {
		c.KeyPrefix, c.KeyExpire, c.Publish, c.Indexes = "pool:", config.Duration(time.Hour), []string{"users", "workers"}, indexNames()
	})
	told := published(t, server)
	s.toRedis(t, noon)

	rig := share.WorkerID("rig.1")
	worker := fmt.Sprintf("pool:mining_workers/pu/1/wk/%d", rig)
	want := map[string]string{
		"accept_5m": "30720", "accept_15m": "92160", "accept_1h": "122880", "accept_count": "120", "stale_15m": "1024", "stale_1h": "1024",
		"reject_15m": "1024", "reject_1h": "2048", "reject_detail_15m": `{"22":1024}`, "reject_detail_1h": `{"22":1024,"23":1024}`,
		"last_share_ip": "192.0.2.1", "last_share_time": strconv.FormatInt(noon.Unix(), 10), "updated_at": strconv.FormatInt(noon.Unix(), 10),
		"worker_name": "rig.1", "miner_agent": "cgminer/4.12",
	}
	if diff := cmp.Diff(want, hash(server, worker)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", worker, diff)
	}
	user := "pool:mining_workers/pu/1/all"
	for _, name := range []string{"reject_detail_15m", "reject_detail_1h", "worker_name", "miner_agent"} {
		delete(want, name)
	}
	want["worker_count"] = "1"
	if diff := cmp.Diff(want, hash(server, user)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", user, diff)
	}
	for name, want := range map[string]float64{
		"accept_5m": 30720, "last_share_time": float64(noon.Unix()), "last_share_ip": 0xffffc0000201, "worker_name": textRank("rig.1"),
	} {
		set := "pool:mining_workers/pu/1/sort/" + name
		if score, err := server.ZScore(set, strconv.FormatInt(rig, 10)); err != nil || score != want {
			t.Errorf("%s: %v, %v, want %v", set, score, err, want)
		}
		if ttl := server.TTL(set); ttl != time.Hour {
			t.Errorf("%s goes in %s", set, ttl)
		}
	}
	if ttl := server.TTL(worker); ttl != time.Hour {
		t.Errorf("%s goes in %s", worker, ttl)
	}
	for _, want := range []string{"1/all 1", fmt.Sprintf("1/wk/%d 1", rig), fmt.Sprintf("1/wk/%d 0", rig), "2/all 2"} {
		if all := told(2 + 3 + 2); !slices.Contains(all, "pool:mining_workers/pu/"+want) { // 2 users, 3 workers, 2 of them with names
			t.Errorf("%q was not published, but %q", want, all)
		}
	}

	// A name is told when it has changed only.
	s.connect(t, noon, 1, "ann", "rig.1", "bmminer/1")
	before := len(told(0))
	s.toRedis(t, noon)
	s.toRedis(t, noon)
	names := 0
	for _, m := range told(before + 2*5 + 1)[before:] {
		if strings.HasSuffix(m, " 0") {
			names++
		}
	}
	if agent := server.HGet(worker, "miner_agent"); names != 1 || agent != "bmminer/1" {
		t.Errorf("%d names were told, the agent is %q", names, agent)
	}

	// Who is silent has zeros, and who was forgotten is in no index any more.
	later := noon.Add(2 * time.Hour)
	s.board.expire(later, 0)
	s.board.mu.Lock()
	s.board.drop(workerKey{2, share.WorkerID("a/x|e^")})
	s.board.mu.Unlock()
	s.toRedis(t, later)
	if accepted, last := server.HGet(worker, "accept_1h"), server.HGet(worker, "last_share_time"); accepted != "0" || last != want["last_share_time"] {
		t.Errorf("of a silent worker: accept_1h %s, last_share_time %s", accepted, last)
	}
	if members, _ := server.ZMembers("pool:mining_workers/pu/2/sort/accept_1h"); len(members) != 1 {
		t.Errorf("index of a user with one worker: %q", members)
	}
	if n := len(s.redis.known); n != 0 {
		t.Errorf("%d silent ones are to be written again", n)
	}
}

// A server that is away, or hangs, keeps nobody, is counted and said, and has everything again once it is back, whatever
// it forgot.
func TestRedisAway(t *testing.T) {
	t.Parallel()
	server := miniredis.RunT(t)
	addr := server.Addr()
	reg := prometheus.NewRegistry()
	deps := testDeps()
	deps.Metrics = reg
	cfg := newTestService(t, noon).cfg
	cfg.Redis.URL = "redis://" + addr
	s, err := New(cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	id := s.connect(t, noon, 1, "ann", "rig", "")
	s.now = func() time.Time { return noon }
	s.mine(t, share.Share{UserID: 1, WorkerID: id, Time: noon.Unix(), Status: share.StatusAccept, Difficulty: 10})
	write := func(ctx context.Context) error {
		err := s.redis.write(ctx, s.board, noon)
		s.redis.done(err)
		return err
	}
	if err := write(t.Context()); err != nil {
		t.Fatal(err)
	}
	server.Close()
	if err := write(t.Context()); err == nil || s.redis.fault.Err() == nil {
		t.Fatal("no error of a server that is away")
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := write(gone); err == nil {
		t.Error("it is written after the end")
	}
	if err := s.Ready(); strings.Contains(fmt.Sprint(err), "redis") {
		t.Errorf("not ready without Redis: %v", err)
	}
	server.FlushAll()
	s.board.mu.Lock()
	s.board.workers[workerKey{1, id}].cleared = true // its zeros are in the database
	s.board.mu.Unlock()
	if err := server.StartAddr(addr); err != nil {
		t.Fatal(err)
	}
	if err := write(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := server.HGet(fmt.Sprintf("mining_workers/pu/1/wk/%d", id), "worker_name"); got != "rig" {
		t.Errorf("the name is %q", got)
	}
	for result, want := range map[string]float64{"ok": 2, "failed": 2} {
		if got := testkit.Metric(t, reg, "btcpool_statshttpd_redis_writes_total", "result", result); got != want {
			t.Errorf("%v writes were %s, want %v", got, result, want)
		}
	}
}

// What the server refuses keeps nothing else from being written, and is said once.
func TestRedisRefuses(t *testing.T) {
	t.Parallel()
	server := miniredis.RunT(t)
	s := newTestService(t, noon)
	s.withRedis(t, server.Addr(), func(c *RedisConfig) { c.KeyExpire, c.Indexes = config.Duration(time.Hour), []string{"accept_1h"} })
	const workers = redisRows + 100 // in two pipelines
	key := func(worker int64) string { return fmt.Sprintf("mining_workers/pu/1/wk/%d", worker) }
	for i := range int64(workers) {
		s.mine(t, share.Share{UserID: 1, WorkerID: i + 1, Time: noon.Unix(), Status: share.StatusAccept, Difficulty: 10})
		if i%10 == 0 { // in each pipeline, whatever order they have
			if err := server.Set(key(i+1), "of another program"); err != nil {
				t.Fatal(err)
			}
		}
	}
	err := s.redis.write(t.Context(), s.board, noon)
	if n := strings.Count(fmt.Sprint(err), "WRONGTYPE"); n != 1 || !strings.Contains(err.Error(), "[hset mining_workers/pu/1/wk/") {
		t.Errorf("error is %v", err)
	}
	written, known := 0, len(s.redis.known)
	for i := range int64(workers) {
		if i%10 != 0 && server.HGet(key(i+1), "accept_count") == "1" {
			written++
		}
	}
	if want := workers * 9 / 10; written != want || known != want+1 {
		t.Errorf("%d of %d are written, %d are known", written, want, known)
	}

	// Indexes are told once a pass when they go.
	for i := range int64(workers) {
		server.Del(key(i + 1))
	}
	before := server.CommandCount()
	s.toRedis(t, noon)
	if got, want := server.CommandCount()-before, workers*(2+1)+1+2; got != want {
		t.Errorf("%d commands for %d workers and their user, want %d", got, workers, want)
	}

	server.RequireAuth("geheim")
	s.redis.client.Close()
	s.withRedis(t, server.Addr(), nil)
	if err := s.redis.write(t.Context(), s.board, noon); err == nil || len(s.redis.known) != 0 {
		t.Errorf("without a password: %v, %d are known", err, len(s.redis.known))
	}
}

func TestRedisConfig(t *testing.T) {
	t.Parallel()
	bad := RedisConfig{
		URL: "http://user:geheim@host", URLFile: "x", KeyExpire: config.Duration(time.Second), Publish: []string{"all"}, Indexes: []string{"accept_1m"},
	}
	err := fmt.Sprint(bad.Validate())
	for _, part := range []string{"redis.url, redis.url_file", "redis.url = ", "redis.key_expire", `redis.publish: "all"`, `redis.indexes: "accept_1m"`} {
		if !strings.Contains(err, part) {
			t.Errorf("%q is not in:\n%v", part, err)
		}
	}
	if strings.Contains(err, "geheim") {
		t.Errorf("the password is in:\n%v", err)
	}
}

// Indexes of texts order as btcpool's: letters, digits, others, by 9 characters.
func TestTextRank(t *testing.T) {
	t.Parallel()
	last := -1.0
	for _, text := range []string{"", "B", "bb", "c", "z9", "z_", "0", "9zzzzzzzz", "_", "___________"} {
		if rank := textRank(text); rank <= last {
			t.Errorf("%q: %v, after %v", text, rank, last)
		} else {
			last = rank
		}
	}
	if textRank("a") != textRank("") || textRank("abcdefghij") != textRank("ABCDEFGHIK") || textRank("b") != 37*37*37*37*37*37*37*37 {
		t.Error("padding, case or length counts otherwise")
	}
	for text, want := range map[string]float64{"": 0xffff00000000, "192.0.2.1": 0xffffc0000201, "2001:db8::5": 5, "x": 0} {
		if got := addressRank(text); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

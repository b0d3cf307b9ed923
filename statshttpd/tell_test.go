package statshttpd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"btcpool/internal/bitcoin"
	"btcpool/internal/config"
	"btcpool/internal/notify"
	"btcpool/internal/share"
	"btcpool/internal/store"
	"btcpool/internal/testkit"
)

// toldService is a service that tells a webhook, and its clock.
type toldService struct {
	*Service
	t     *testing.T
	clock time.Time
	cfg   notify.Config
	told  chan string
}

func newToldService(t *testing.T) *toldService {
	t.Helper()
	b := &toldService{Service: newTestService(t, noon), t: t, clock: noon, told: make(chan string, 100)}
	b.now = func() time.Time { return b.clock }
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var body struct{ Text string }
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		b.told <- body.Text
	}))
	t.Cleanup(srv.Close)
	b.cfg = notify.DefaultConfig()
	b.cfg.DataDir, b.cfg.Pause, b.cfg.HoldFor = t.TempDir(), 0, config.Duration(time.Minute)
	b.cfg.Targets = []notify.Target{{Name: "hook", Kind: notify.Webhook, URL: srv.URL, AllowPrivate: true}}
	b.start()
	return b
}

// start tells as a new process does.
func (b *toldService) start() {
	b.t.Helper()
	n, err := notify.New(b.cfg, testDeps())
	if err != nil {
		b.t.Fatal(err)
	}
	b.teller = n
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	b.t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, n.Close()); err != nil {
			b.t.Error(err)
		}
	})
}

// pass lets time pass while the workers work: each of ids has a share every 15 seconds, of that status.
func (b *toldService) pass(long time.Duration, status share.Status, ids ...int64) {
	b.t.Helper()
	for end := b.clock.Add(long); b.clock.Before(end); {
		b.clock = b.clock.Add(15 * time.Second)
		for _, id := range ids {
			b.mine(b.t, share.Share{UserID: 1, WorkerID: id, Difficulty: bitcoin.Difficulty(20), Time: b.clock.Unix(), Status: status})
		}
		if err := b.tellNow(b.t.Context()); err != nil {
			b.t.Fatal(err)
		}
	}
}

// hears waits for messages, and wants no others to be on their way.
func (b *toldService) hears(want ...string) {
	b.t.Helper()
	var got []string
	for range want {
		got = append(got, b.waitFor(""))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		b.t.Errorf("told (-want +got):\n%s", diff)
	}
	if len(b.told) > 0 {
		b.t.Errorf("told, too: %s", <-b.told)
	}
}

// waitFor waits for a message that has part. A message waits for the end of the one before it, so the board is looked at
// again meanwhile.
func (b *toldService) waitFor(part string) string {
	b.t.Helper()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for late := time.After(testkit.Patience); ; {
		select {
		case text := <-b.told:
			if strings.Contains(text, part) {
				return text
			}
		case <-look.C:
			if err := b.tellNow(b.t.Context()); err != nil {
				b.t.Fatal(err)
			}
		case <-late:
			b.t.Fatalf("waited for %q", part)
		}
	}
}

func TestTelling(t *testing.T) {
	t.Parallel()
	b := newToldService(t)
	rig1, rig2 := b.connect(t, noon, 1, "alice", "rig1", ""), b.connect(t, noon, 1, "alice", "<b>rig2", "")
	b.connect(t, noon, 1, "alice", "waits", "") // never had a share: is not missed
	b.pass(time.Hour, share.StatusAccept, rig1, rig2)
	b.hears()

	b.pass(12*time.Minute, share.StatusAccept, rig1)
	b.hears("alice.<b>rig2 is silent, last share at 2026-03-14 13:00 UTC")
	b.pass(2*time.Minute, share.StatusAccept, rig1, rig2)
	b.hears("alice.<b>rig2 works again")

	b.pass(15*time.Minute, share.StatusAccept, rig1, rig2)
	b.pass(4*time.Minute, share.StatusLowDifficulty, rig1, rig2) // 32 of 120 shares
	b.waitFor("many shares of the pool are refused: ")
	b.pass(20*time.Minute, share.StatusAccept, rig1, rig2)
	b.waitFor("shares of the pool are accepted again: ")
}

func TestTellingOfBlocks(t *testing.T) {
	t.Parallel()
	b := newToldService(t)
	db := b.db.Load()
	add := func(height int32, hash string, state store.BlockState) {
		t.Helper()
		if err := db.AddBlock(t.Context(), store.Block{UserID: 1, WorkerID: 1, WorkerName: "alice.rig.1", Height: height, Hash: hash, RewardSat: 312_500_000, CreatedAt: b.clock, State: state}); err != nil {
			t.Fatal(err)
		}
	}
	b.connect(t, noon, 1, "alice", "rig.1", "")
	for i := range int32(150) { // more than a page
		add(i, fmt.Sprint("old", i), store.Confirmed)
	}
	add(200, "aa", store.Accepted)
	b.pass(time.Minute, share.StatusAccept)
	b.hears()
	add(201, "bb", store.Submitted)
	b.pass(time.Minute, share.StatusAccept)
	b.hears()
	if err := db.SetBlockState(t.Context(), "bb", store.Accepted, 1); err != nil {
		t.Fatal(err)
	}
	b.pass(15*time.Second, share.StatusAccept)
	b.hears("block 201 found by alice.rig.1: 3.125 BTC, bb")
	if err := db.SetBlockState(t.Context(), "bb", store.Orphaned, 0); err != nil {
		t.Fatal(err)
	}
	if err := db.SetBlockState(t.Context(), "aa", store.Confirmed, 100); err != nil {
		t.Fatal(err)
	}
	b.pass(15*time.Second, share.StatusAccept)
	b.hears("block 200 of alice.rig.1 is confirmed: 3.125 BTC, aa\nblock 201 of alice.rig.1 is orphaned: 3.125 BTC, bb")
}

// While Kafka is away everybody looks silent, and nobody is told so.
func TestTellingWithoutKafka(t *testing.T) {
	t.Parallel()
	b := newToldService(t)
	rig := b.connect(t, noon, 1, "alice", "rig", "")
	b.pass(20*time.Minute, share.StatusAccept, rig)
	b.kafka.Set(errors.New("away"))
	b.pass(time.Hour, share.StatusAccept)
	b.kafka.Set(nil)
	b.pass(45*time.Second, share.StatusAccept) // what it has is still read
	b.pass(time.Hour, share.StatusAccept, rig)
	b.hears()
}

func TestSights(t *testing.T) {
	t.Parallel()
	s := newTestService(t, noon)
	s.farm(t)
	got := make(map[notify.Subject]notify.Figures)
	for sight := range s.board.sights(noon) {
		got[sight.Subject] = sight.Figures
	}
	view := s.board.find(noon, "basement", "m60s")
	f := got[notify.Subject{UserID: view.UserID, WorkerID: view.WorkerID, User: "basement", Worker: "m60s"}]
	if f.Last != view.Last || f.Shares < 20 || f.Refused > f.Shares {
		t.Errorf("worker: %+v", f)
	}
	pool := s.poolView(noon)
	f = got[notify.Subject{}]
	if !f.RateKnown || f.Rate != pool.Rate15m.HashesPerSecond || f.Mean != pool.Rate1h.HashesPerSecond || f.Expected < 100 || f.Last != pool.Last {
		t.Errorf("pool: %+v", f)
	}
	if _, ok := got[notify.Subject{UserID: 1, User: "aurora"}]; !ok {
		t.Error("no user")
	}
}

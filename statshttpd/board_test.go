package statshttpd

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"btcpool/internal/bitcoin"
	"btcpool/internal/bus"
	"btcpool/internal/share"
)

func accepted(user int32, worker int64, at time.Time) *share.Share {
	return &share.Share{UserID: user, WorkerID: worker, Status: share.StatusAccept, Time: at.Unix()}
}

func TestBoardBoundsTime(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		at   time.Duration
		want error
	}{
		{"now", 0, nil},
		{"an hour old", -time.Hour, errShareOld},
		{"nearly an hour old", -time.Hour + time.Second, nil},
		{"from 1970", -time.Duration(noon.Unix()) * time.Second, errShareOld},
		{"a clock that is ahead", maxAhead, nil},
		{"a clock that is wrong", maxAhead + time.Second, errShareFuture},
		{"from 2099", 73 * 365 * 24 * time.Hour, errShareFuture},
	}
	for _, test := range tests {
		b := newBoard(10)
		_, err := b.addShare(noon, accepted(1, 1, noon.Add(test.at)))
		if !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
		if counted := b.pool.coarse.sum(noon.Unix(), coarseBuckets).Shares == 1; counted != (test.want == nil) {
			t.Errorf("%s: counted is %t", test.name, counted)
		}
		if b.pool.last > noon.Unix() {
			t.Errorf("%s: last share lies %d s ahead", test.name, b.pool.last-noon.Unix())
		}
	}
}

// Whatever the clock does, what comes after it is counted as it comes.
func TestBoardFollowsTheClock(t *testing.T) {
	t.Parallel()
	for _, step := range []time.Duration{-time.Hour, time.Hour, -5 * time.Second, 5 * time.Second, 24 * time.Hour, -24 * time.Hour} {
		b := newBoard(10)
		mine := func(now time.Time, minutes int) time.Time {
			for range 6 * minutes {
				now = now.Add(10 * time.Second)
				if _, err := b.addShare(now, accepted(1, 1, now)); err != nil {
					t.Fatal(err)
				}
			}
			return now
		}
		now := mine(noon, 20)
		now = mine(now.Add(step), 1) // the clock is wrong,
		now = mine(now.Add(-step), 20)
		v := b.poolView(now)
		if got, want := v.Rate15m.HashesPerSecond, float64(1<<32)/10; got < 0.9*want || got > 1.1*want {
			t.Errorf("%v: %v hashes/s in 15 minutes, want %v", step, got, want)
		}
		if got := v.Accepted.Shares; got < 120 || got > 240+6 {
			t.Errorf("%v: %d shares in an hour", step, got)
		}
		if w := b.workers[workerKey{1, 1}]; w.last != now.Unix() || w.seen != now.Unix() {
			t.Errorf("%v: last share %v, seen %v, now %v", step, w.last, w.seen, now.Unix())
		}
	}
}

func TestBoardBoundsWorkers(t *testing.T) {
	t.Parallel()
	const limit = 5
	b := newBoard(limit)
	for i := range 20 {
		kept, err := b.addShare(noon, accepted(int32(1+i%2), int64(i+1), noon))
		if err != nil || kept != (i < limit) {
			t.Fatalf("worker %d: kept %t, %v", i, kept, err)
		}
	}
	for i := range 20 {
		e := share.Event{
			Time: noon, Action: share.MinerConnect, UserID: int32(100 + i), WorkerID: 1,
			UserName: strings.Repeat("u", 10_000), WorkerName: strings.Repeat("\xff\u00e9", 5000), Agent: strings.Repeat("a", 10_000),
		}
		b.addEvent(noon, &e, true)
	}
	if len(b.workers) > limit || len(b.names) > limit || len(b.userIDs) > limit || len(b.renamed) > limit {
		t.Errorf("%d workers, %d names, %d users, %d renamed", len(b.workers), len(b.names), len(b.userIDs), len(b.renamed))
	}
	for _, n := range b.names {
		if len(n.Name) > maxNameBytes || len(n.Agent) > maxNameBytes || strings.ContainsRune(n.Name, '\ufffd') {
			t.Errorf("name of %d, agent of %d bytes", len(n.Name), len(n.Agent))
		}
	}
	if got := b.pool.acceptedSum(noon.Unix(), hour).Shares; got != 20 {
		t.Errorf("the pool counts %d shares of 20", got)
	}
	if got := b.users[1].acceptedSum(noon.Unix(), hour).Shares; got != 10 {
		t.Errorf("user 1 counts %d shares of 10", got)
	}
}

func TestBoardBoundsRejects(t *testing.T) {
	t.Parallel()
	b := newBoard(10)
	add := func(status share.Status, d bitcoin.Difficulty) {
		s := accepted(1, 1, noon)
		s.Status, s.Difficulty = status, d
		if _, err := b.addShare(noon, s); err != nil {
			t.Fatal(err)
		}
	}
	add(share.StatusAccept, 3)
	add(share.StatusLowDifficulty, bitcoin.MaxDifficulty)
	for code := range share.Status(1000) {
		add(1_000_000+code, 0)
	}
	_, reasons := b.pool.rejectedSum(noon.Unix(), hour)
	want := map[share.Status]amount{
		share.StatusLowDifficulty: {bitcoin.Difficulty(5).Hashes(), 1},
		share.StatusUnknown:       {bitcoin.Work{Lo: 1000 << 32}, 1000},
	}
	if diff := cmp.Diff(want, reasons); diff != "" {
		t.Error(diff)
	}
}

func TestBoardOnline(t *testing.T) {
	t.Parallel()
	type step struct {
		at    time.Duration
		what  string // share, miner_connect or miner_dead
		after bool   // online after it
	}
	tests := []struct {
		name  string
		steps []step
	}{
		{"share", []step{{0, "share", true}, {onlineFor - time.Second, "", true}, {onlineFor, "", false}}},
		{"connects and leaves", []step{{0, "miner_connect", true}, {time.Second, "share", true}, {2 * time.Second, "miner_dead", false}}},
		{"comes back", []step{{0, "miner_connect", true}, {1 * time.Second, "miner_dead", false}, {1 * time.Second, "miner_connect", true}}},
		{"one of two connections goes", []step{{0, "miner_connect", true}, {0, "miner_connect", true}, {time.Second, "miner_dead", true}, {2 * time.Second, "miner_dead", false}}},
		{"an older connection goes on", []step{{0, "miner_dead", false}, {1 * time.Second, "share", true}, {2 * time.Second, "miner_dead", false}, {3 * time.Second, "share", true}}},
		{"the server has died", []step{{0, "miner_connect", true}, {time.Second, "server_dead", false}, {2 * time.Second, "miner_connect", true}}},
		{"only one of two servers has", []step{{0, "miner_connect", true}, {time.Second, "server_dead", false}, {2 * time.Second, "share", true}}},
	}
	for _, test := range tests {
		b := newBoard(10)
		for i, step := range test.steps {
			now := noon.Add(step.at)
			switch step.what {
			case "share":
				b.addShare(now, accepted(1, 1, now))
			case "":
			default:
				b.addEvent(now, &share.Event{Time: now, Action: share.Action(step.what), UserID: 1, WorkerID: 1, WorkerName: "w"}, true)
			}
			if online := b.poolView(now).Online == 1; online != step.after {
				t.Errorf("%s, step %d: online is %t", test.name, i, online)
			}
		}
	}
}

func TestBoardExpires(t *testing.T) {
	t.Parallel()
	b := newBoard(10)
	b.addShare(noon, accepted(1, 1, noon))
	b.addShare(noon, accepted(2, 1, noon.Add(-time.Minute)))
	b.addEvent(noon, &share.Event{Time: noon, Action: share.MinerConnect, UserID: 3, WorkerID: 1, WorkerName: "w"}, true)
	b.addKnown(workerKey{4, 1}, workerName{"old", ""}, noon.Add(-30*24*time.Hour), true)
	b.addKnown(workerKey{5, 1}, workerName{"zero", ""}, noon.Add(-30*24*time.Hour), false)
	if len(b.workers) != 4 || len(b.users) != 4 {
		t.Fatalf("%d workers, %d users", len(b.workers), len(b.users))
	}
	for _, step := range []struct {
		after time.Duration
		left  int
	}{{0, 3}, {time.Hour, 3}, {time.Hour + 30*time.Second, 2}, {time.Hour + 2*time.Minute, 0}} {
		now := noon.Add(step.after)
		for _, row := range b.rows(now) {
			if row.Accept1h.IsZero() == (row.UserID < 3 && step.after < time.Hour) {
				t.Errorf("%s: user %d has %s", step.after, row.UserID, row.Accept1h)
			}
		}
		if left := b.expire(now); left != step.left || len(b.users) != left {
			t.Errorf("%s: %d workers and %d users are left, want %d", step.after, left, len(b.users), step.left)
		}
	}
	if len(b.names) != 3 {
		t.Errorf("%d names are known, want those of 3, 4 and 5", len(b.names))
	}
}

func TestBoardFinds(t *testing.T) {
	t.Parallel()
	b := newBoard(10)
	for i, name := range []string{"rig", "2", "7", ""} {
		e := share.Event{Time: noon, Action: share.MinerConnect, UserID: 1, UserName: "ann", WorkerID: int64(i + 1), WorkerName: name}
		b.addEvent(noon, &e, true)
	}
	for question, want := range map[[2]string]int64{
		{"ann", "rig"}: 1, {"1", "rig"}: 1, {"ann", "2"}: 2, {"ann", "1"}: 1, {"1", "4"}: 4, {"ann", "7"}: 3,
		{"ann", ""}: 4, {"bob", "rig"}: 0, {"ann", "x"}: 0, {"2", "1"}: 0,
	} {
		var got int64
		if v := b.find(noon, question[0], question[1]); v != nil {
			got = v.WorkerID
		}
		if got != want {
			t.Errorf("%q is worker %d, want %d", question, got, want)
		}
	}
}

func fullBoard(b *testing.B, workers int) *board {
	board := newBoard(workers)
	for i := range workers {
		for minute := range 60 {
			at := noon.Add(-time.Duration(minute) * time.Minute)
			if _, err := board.addShare(noon, accepted(int32(1+i%100), int64(i+1), at)); err != nil {
				b.Fatal(err)
			}
		}
		board.names[workerKey{int32(1 + i%100), int64(i + 1)}] = workerName{Name: fmt.Sprintf("rig-%06d", i)}
	}
	return board
}

func BenchmarkBoardAddShare(b *testing.B) {
	board := fullBoard(b, 10_000)
	s := accepted(1, 1, noon)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		s.UserID, s.WorkerID = int32(1+i%100), int64(i%10_000+1)
		if _, err := board.addShare(noon, s); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

func BenchmarkBoardPage(b *testing.B) {
	board := fullBoard(b, 20_000)
	for _, order := range []string{"hashrate_5m", "reject_ratio", "name"} {
		b.Run(order, func(b *testing.B) {
			sel := selection{
				keep: func(string, workerName, bool) bool { return true },
				rank: workerOrders[order], down: true, limit: 100,
			}
			b.ReportAllocs()
			for b.Loop() {
				board.page(noon, sel)
			}
		})
	}
}

// A worker that is in memory only until its row is cleared must not be shown.
func TestBoardHidesOldRows(t *testing.T) {
	t.Parallel()
	b := newBoard(10)
	b.addKnown(workerKey{1, 1}, workerName{"old", ""}, noon.Add(-5*time.Hour), true)
	everybody := selection{keep: func(string, workerName, bool) bool { return true }, limit: 10}
	if _, total := b.page(noon, everybody); total != 0 {
		t.Errorf("%d workers on the page", total)
	}
	if v := b.poolView(noon); v.Known != 0 || v.KnownUsers != 0 || v.Online != 0 {
		t.Errorf("%+v", v)
	}
	if v := b.find(noon, "1", "old"); v != nil {
		t.Errorf("found %+v", v)
	}
	b.addShare(noon, accepted(1, 1, noon))
	if _, total := b.page(noon, everybody); total != 1 {
		t.Errorf("%d workers on the page after a share", total)
	}
}

// What replaying history costs a share.
func BenchmarkHandleShare(b *testing.B) {
	s := newTestService(b, noon)
	var values [1000][]byte
	for i := range values {
		one := accepted(int32(1+i%10), int64(i+1), noon)
		one.JobID, one.Height, one.Bits = 1, 1, 1
		values[i] = one.AppendTo(nil)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if err := s.handleShare(bus.Message{Value: values[i%len(values)]}); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

package statshttpd

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"btcpool/internal/bitcoin"
	"btcpool/internal/bus"
	"btcpool/internal/share"
	"btcpool/internal/store"
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
		v := b.poolView(now, b.count(now))
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
	if len(b.workers) != 2*limit || b.lobby.size != limit || len(b.users) > 2*limit || len(b.renamed) > limit {
		t.Errorf("%d workers, %d of them waiting, %d users, %d renamed", len(b.workers), b.lobby.size, len(b.users), len(b.renamed))
	}
	for _, w := range b.workers {
		if len(w.Name) > maxNameBytes || len(w.Agent) > maxNameBytes || strings.ContainsRune(w.Name, '\ufffd') {
			t.Errorf("name of %d, agent of %d bytes", len(w.Name), len(w.Agent))
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
			if v := b.poolView(now, b.count(now)); (v.Online+v.Waiting == 1) != step.after {
				t.Errorf("%s, step %d: %d online, %d waiting", test.name, i, v.Online, v.Waiting)
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
	b.addEvent(noon, &share.Event{Time: noon, Action: share.MinerDead, UserID: 3, WorkerID: 1}, true)
	b.addEvent(noon, &share.Event{Time: noon, Action: share.MinerConnect, UserID: 6, WorkerID: 1, WorkerName: "patient"}, true)
	old := store.Worker{UserID: 4, WorkerID: 1, Name: "old", LastShareTime: noon.Add(-30 * 24 * time.Hour)}
	zero := old
	zero.UserID, old.Accept1h = 5, difficulties(1)
	b.learn(noon, []store.Worker{old, zero}, nil)
	if len(b.workers) != 6 || len(b.users) != 6 {
		t.Fatalf("%d workers, %d users", len(b.workers), len(b.users))
	}
	b.takeUnread(100) // nobody has a row
	const keep = 60 * 24 * time.Hour
	for _, step := range []struct {
		after  time.Duration
		active int
		waits  int
		rows   int
		left   int // workers
	}{
		{0, 2, 2, 7, 6}, // two with figures, one whose row is to be cleared, and all users
		{time.Hour, 2, 2, 4, 6},
		{time.Hour + 30*time.Second, 1, 2, 4, 6},
		{time.Hour + 2*time.Minute, 0, 1, 4, 5},
		{time.Hour + 3*time.Minute + 30*time.Second, 0, 1, 4, 5}, // minutes are cut
		{time.Hour + 5*time.Minute, 0, 1, 2, 5},                  // the other one is cleared
		{time.Hour + 6*time.Minute, 0, 1, 0, 5},
		{keep - 10*24*time.Hour, 0, 1, 0, 3},
		{keep + time.Minute, 0, 1, 0, 1},
	} {
		now := noon.Add(step.after)
		rows := b.rows(now, b.rowKeys())
		for _, row := range rows {
			if row.Accept1h.IsZero() == (row.UserID < 3 && step.after < time.Hour) {
				t.Errorf("%s: user %d has %s", step.after, row.UserID, row.Accept1h)
			}
		}
		if active := b.expire(now, keep); active != step.active || b.lobby.size != step.waits || len(rows) != step.rows || len(b.workers) != step.left {
			t.Errorf("%s: %d workers are active and %d wait of %d, %d rows; want %+v", step.after, active, b.lobby.size, len(b.workers), len(rows), step)
		}
	}
	if w := b.workers[workerKey{6, 1}]; w == nil || w.Name != "patient" {
		t.Errorf("who is connected and waits is %+v", w)
	}
}

func (b *board) logIn(now time.Time, user int32, worker int64, name, from string) {
	b.addEvent(now, &share.Event{
		Time: now, Action: share.MinerConnect, UserID: user, UserName: fmt.Sprint("user", user), WorkerID: worker, WorkerName: name, IP: netip.MustParseAddr(from),
	}, true)
}

// One address logs in more workers than there is room for, none of which ever has a share.
func TestBoardKeepsNewcomers(t *testing.T) {
	t.Parallel()
	const limit = 1000
	b := newBoard(limit)
	attack := func(from int) {
		for i := range 3 * limit {
			b.logIn(noon, 666, int64(1_000_000*from+i), "x", fmt.Sprintf("2001:db8:bad:1::%x", i+1))
		}
	}
	b.logIn(noon, 1, 1, "before", "192.0.2.1")
	attack(1)
	for i := range 5 {
		b.logIn(noon, 2, int64(10+i), fmt.Sprint("rig", i), "192.0.2.2")
	}
	attack(2)
	b.addShare(noon, accepted(1, 1, noon))
	for i := range 5 {
		b.addShare(noon, accepted(2, int64(10+i), noon))
	}
	attack(3)
	for question, want := range map[[2]string]int64{{"user1", "before"}: 1, {"user2", "rig0"}: 10, {"user2", "rig4"}: 14} {
		if v := b.find(noon, question[0], question[1]); v == nil || v.WorkerID != want || !v.Online {
			t.Errorf("%s is %+v", question, v)
		}
	}
	if v := b.poolView(noon, b.count(noon)); v.Online != 6 || v.Users != 2 || v.Known != 6 || v.Waiting > limit {
		t.Errorf("%d workers of %d users online, %d waiting", v.Online, v.Users, v.Waiting)
	}
	b.takeUnread(100)
	if rows := b.rows(noon, b.rowKeys()); len(rows) != 8 || len(b.takeRenamed()) != 6 {
		t.Errorf("%d rows", len(rows))
	}
	if len(b.workers) > limit+6 || b.givenUp < 5*limit {
		t.Errorf("%d workers in memory, %d given up", len(b.workers), b.givenUp)
	}
}

// Where all places are taken those silent for the longest go, none that may be mining.
func TestBoardMakesRoom(t *testing.T) {
	t.Parallel()
	b := newBoard(3)
	for i := range 3 {
		at := noon.Add(time.Duration(i) * time.Second)
		b.addShare(at, accepted(1, int64(i+1), at))
	}
	now := noon.Add(onlineFor - time.Second)
	if kept, _ := b.addShare(now, accepted(2, 9, now)); kept {
		t.Error("a worker that may be mining went")
	}
	now = now.Add(11 * time.Second)
	if kept, _ := b.addShare(now, accepted(2, 9, now)); !kept || b.workers[workerKey{1, 1}] != nil || len(b.workers) != 3 {
		t.Errorf("kept %t of %d workers", kept, len(b.workers))
	}
	left := b.takeLeft()
	if len(left) != 1 || left[0].WorkerID != 1 || !left[0].Accept1h.IsZero() || left[0].LastShareTime.Unix() != noon.Unix() || left[0].AcceptCount != 1 {
		t.Errorf("rows to clear: %+v", left)
	}
	if got := b.users[1].acceptedSum(now.Unix(), hour).Shares; got != 3 {
		t.Errorf("user 1 counts %d shares", got)
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
		board.workers[workerKey{int32(1 + i%100), int64(i + 1)}].Name = fmt.Sprintf("rig-%06d", i)
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

func BenchmarkWorkersPage(b *testing.B) {
	s := newTestService(b, noon)
	s.board = fullBoard(b, 20_000)
	everybody := func(*listed, brief) bool { return true }
	for _, sort := range []string{"-hashrate_5m", "-reject_ratio", "name"} {
		b.Run("made/"+sort, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s.workerOrders, s.now = newOrders[listed](), func() time.Time { return noon }
				s.workerPage(noon, sort, everybody, "", 100, 0)
			}
		})
		b.Run("kept/"+sort, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s.workerPage(noon, sort, everybody, "", 100, 0)
			}
		})
	}
}

// Who is silent for longer than an hour is still known, but not among those that are active.
func TestSilentWorkersAreShown(t *testing.T) {
	t.Parallel()
	s := newTestService(t, noon)
	b := s.board
	row := store.Worker{
		UserID: 1, WorkerID: share.WorkerID("old"), Name: "old", UserName: "ann", Accept1h: difficulties(1), LastShareTime: noon.Add(-5 * time.Hour),
		FirstShare: 1000, Best: store.Record{Bits: 0x1a00ffff, At: 2000},
	}
	b.learn(noon, []store.Worker{row}, nil)
	totals := func() (active, silent int) {
		t.Helper()
		s.workerOrders = newOrders[listed]()
		_, active = s.workerPage(noon, "name", func(_ *listed, b brief) bool { return states["active"](b.state) }, "", 10, 0)
		_, silent = s.workerPage(noon, "name", func(_ *listed, b brief) bool { return states["silent"](b.state) }, "", 10, 0)
		return active, silent
	}
	if active, silent := totals(); active != 0 || silent != 1 {
		t.Errorf("%d active, %d silent", active, silent)
	}
	if v := b.poolView(noon, b.count(noon)); v.Known != 0 || v.KnownUsers != 0 || v.Online != 0 || v.Silent != 1 {
		t.Errorf("%+v", v)
	}
	v := b.find(noon, "ann", "old")
	if v == nil || v.Online || v.First != 1000 || v.Best.At != 2000 || v.Last != row.LastShareTime.Unix() {
		t.Fatalf("found %+v", v)
	}
	one := accepted(1, row.WorkerID, noon)
	one.BitsReached = 0x1b00ffff // not as good
	b.addShare(noon, one)
	if active, silent := totals(); active != 1 || silent != 0 {
		t.Errorf("%d active, %d silent after a share", active, silent)
	}
	if v := b.find(noon, "ann", "old"); v.Best.Bits != 0x1a00ffff || v.RoundBest.Bits != 0x1b00ffff || v.First != 1000 {
		t.Errorf("after a share %+v", v)
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

package statshttpd

import (
	"math"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"btcpool/internal/bitcoin"
	"btcpool/internal/share"
	"btcpool/internal/store"
)

// mineMinutes gives one worker a share of difficulty 1 in each minute from..to-1 of an hour, and one more that is stale in
// each tenth.
func (s *Service) mineMinutes(t *testing.T, start time.Time, from, to int) {
	t.Helper()
	clock := s.now
	defer func() { s.now = clock }()
	for minute := from; minute < to; minute++ {
		at := start.Add(time.Duration(minute)*time.Minute + 30*time.Second)
		s.now = func() time.Time { return at }
		one := share.Share{UserID: 1, WorkerID: 5, Time: at.Unix(), Status: share.StatusAccept}
		s.mine(t, one)
		if minute%10 == 0 {
			one.Status = share.StatusStale
			s.mine(t, one)
		}
	}
}

// TestMinutes follows a service over the end of an hour, a stop, and a start that counts what it finds in Kafka.
func TestMinutes(t *testing.T) {
	t.Parallel()
	start := noon.Truncate(time.Hour)
	at := func(minute int) time.Time { return start.Add(time.Duration(minute) * time.Minute) }
	s := newTestService(t, at(0))
	db := s.db.Load()
	keep := func(s *Service, now time.Time) {
		t.Helper()
		s.now = func() time.Time { return now }
		s.cutDue(now)
		if err := s.writeMinutes(t.Context(), db); err != nil {
			t.Fatal(err)
		}
	}
	rows := func() int {
		t.Helper()
		all, err := db.ReadMinutes(t.Context(), 1, 5, 0, 1<<31-1)
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	keep(s, at(1))
	before := rows() // of the hour before, where nobody mined
	s.mineMinutes(t, start, 0, 61)
	keep(s, at(61))
	if rows() != before {
		t.Error("the hour is cut before late shares may have come")
	}
	keep(s, at(62).Add(time.Second))
	keep(s, at(63))
	want := store.Minutes{StatsKey: store.StatsKey{UserID: 1, WorkerID: 5, Period: store.Hour.Period(start)}, To: store.MinutesPerHour}
	for minute := range store.MinutesPerHour {
		want.Accept[minute] = 1 << 32
		if minute%10 == 0 {
			want.Stale[minute] = 1 << 32
		}
	}
	for _, of := range []store.StatsKey{want.StatsKey, {UserID: 1}, {}} {
		got, err := db.ReadMinutes(t.Context(), of.UserID, of.WorkerID, want.Period, want.Period)
		of.Period = want.Period
		want := want
		want.StatsKey = of
		if diff := cmp.Diff([]store.Minutes{want}, got); err != nil || diff != "" {
			t.Errorf("%v: %v\n%s", of, err, diff)
		}
	}

	// The next process counts the last hour of shares again, and knows less of the one that is cut.
	next := newTestService(t, at(90))
	next.db.Store(db)
	next.cfg = s.cfg
	next.mineMinutes(t, start, 30, 90)
	next.countedSince.Store(at(30).Unix())
	keep(next, at(90))
	got, err := db.ReadMinutes(t.Context(), 1, 5, want.Period, want.Period)
	if diff := cmp.Diff([]store.Minutes{want}, got); err != nil || diff != "" {
		t.Errorf("after the restart: %v\n%s", err, diff)
	}
	p := newParts(steps["minute"], next.now(), minutesAsked)
	if err := next.fromMinutes(t.Context(), p, store.StatsKey{UserID: 1, WorkerID: 5}); err != nil {
		t.Fatal(err)
	}
	var sum float64
	known := 0
	for i, hashes := range p.accepted {
		if !math.IsNaN(hashes) {
			known++
			sum += hashes
			if hashes != 1<<32 && !p.time(i).Before(start) {
				t.Errorf("%s: %v", p.time(i), hashes)
			}
		}
	}
	if sum != 90<<32 || known < 90 || known > 150 {
		t.Errorf("%v shares in %d minutes", sum/(1<<32), known)
	}
}

// Memory is not given back before the hour of the last share is cut, and does not hide what was.
func TestMinutesOfWhoLeft(t *testing.T) {
	t.Parallel()
	start := noon.Truncate(time.Hour)
	s := newTestService(t, start)
	who := store.StatsKey{UserID: 1, WorkerID: 5}
	s.mineMinutes(t, start, 0, 1)
	s.board.expire(start.Add(61*time.Minute+55*time.Second), 0)
	now := start.Add(62*time.Minute + time.Second)
	s.now = func() time.Time { return now }
	s.cutDue(now)
	if err := s.writeMinutes(t.Context(), s.db.Load()); err != nil {
		t.Fatal(err)
	}
	hour := store.Hour.Period(start)
	rows, err := s.db.Load().ReadMinutes(t.Context(), who.UserID, who.WorkerID, hour, hour)
	if err != nil || len(rows) != 1 || rows[0].Accept[0] != 1<<32 {
		t.Fatalf("%v, rows %v", err, rows)
	}
	s.board.mu.Lock()
	s.board.drop(workerKey{UserID: who.UserID, WorkerID: who.WorkerID})
	s.board.mu.Unlock()
	p := newParts(steps["minute"], now, minutesAsked)
	if err := s.fromMinutes(t.Context(), p, who); err != nil || p.accepted[p.at(start)] != 1<<32 {
		t.Errorf("%v, the first minute has %v", err, p.accepted[p.at(start)])
	}
}

// A clock that was ahead does not keep hours from being cut.
func TestMinutesAfterAClockAhead(t *testing.T) {
	t.Parallel()
	s := newTestService(t, noon)
	start := noon.Truncate(time.Hour)
	s.mineMinutes(t, start, 0, 60)
	s.lastCut = start.Add(5 * time.Hour)
	s.cutDue(start.Add(time.Hour + cutAfter))
	if len(s.cuts) != 1 || !s.cuts[0].start.Equal(start) {
		t.Errorf("cut: %v", s.cuts)
	}
}

// A database that is away gets its hours when it is back, a few at most.
func TestMinutesWait(t *testing.T) {
	t.Parallel()
	s := newTestService(t, noon)
	start := noon.Truncate(time.Hour)
	for n := range maxCutHours + 2 {
		from := start.Add(time.Duration(n) * time.Hour)
		s.mineMinutes(t, from, 0, 60)
		s.cutDue(from.Add(time.Hour + cutAfter))
	}
	if len(s.cuts) != maxCutHours {
		t.Errorf("%d hours wait", len(s.cuts))
	}
	if err := s.writeMinutes(t.Context(), s.db.Load()); err != nil {
		t.Fatal(err)
	}
	got, err := s.db.Load().ReadMinutes(t.Context(), 0, 0, 0, 1<<31-1)
	if err != nil || len(got) != maxCutHours || got[0].Period != store.Hour.Period(start.Add(2*time.Hour)) {
		t.Errorf("%v, %d rows", err, len(got))
	}
}

func TestDayRate(t *testing.T) {
	t.Parallel()
	now := noon.Truncate(time.Hour).Add(30 * time.Minute)
	s := newTestService(t, now)
	s.mineMinutes(t, now.Truncate(time.Hour), 0, 30)
	s.board.learn(now, []store.Worker{{UserID: 1, WorkerID: 5, FirstShare: 1000, LastShareTime: now}}, nil)
	of := func() rate { return s.board.find(now, "1", "5").Rate1d }
	if r := of(); r.Known {
		t.Errorf("before the tables are read: %v", r)
	}
	read := func() {
		t.Helper()
		if err := s.readHours(t.Context(), s.db.Load()); err != nil {
			t.Fatal(err)
		}
	}
	read()
	if r := of(); r.Known {
		t.Errorf("before slparser has counted the hour: %v", r)
	}
	count := func(from, to int) { // those of more than a day are not for it
		t.Helper()
		var rows []store.Stats
		for ago := from; ago <= to; ago++ {
			for _, key := range []store.StatsKey{{}, {UserID: 1}, {UserID: 1, WorkerID: 5}} {
				key.Period = store.Hour.Period(now.Add(-time.Duration(ago) * time.Hour))
				rows = append(rows, store.Stats{StatsKey: key, Accept: difficulties(60)})
			}
		}
		if err := s.db.Load().WriteStats(t.Context(), nil, rows); err != nil {
			t.Fatal(err)
		}
	}
	count(1, 30)
	read()
	if r := of(); r.Known {
		t.Errorf("while slparser may be within the hour: %v", r)
	}
	count(0, 0)
	away, err := store.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "away.db"))
	if err != nil {
		t.Fatal(err)
	}
	away.Close()
	s.refreshHours(t.Context(), away)
	if failed := testutil.ToFloat64(s.metrics.hoursFailed); s.hours.Err() == nil || failed != 1 {
		t.Errorf("of hours that were not read: %v, %v counted", s.hours.Err(), failed)
	}
	s.refreshHours(t.Context(), s.db.Load())
	if s.hours.Err() != nil {
		t.Errorf("hours are not read again: %v", s.hours.Err())
	}
	want := bitcoin.Work{Lo: 60 << 32}.Float() / 3600
	if r := of(); !r.Known || math.Abs(r.HashesPerSecond/want-1) > 1e-3 {
		t.Errorf("%v, want %v", r, want)
	}
	later := now.Add(2 * time.Hour) // and slparser does not go on
	if r := s.board.find(later, "1", "5").Rate1d; r.Known {
		t.Errorf("two hours later %v", r)
	}
	w := &window{}
	w.add(now.Unix()-5*3600, share.StatusAccept, bitcoin.Work{Lo: 1 << 32}, netip.Addr{})
	w.hours = 3600 * 4.5 * 7 // whoever came 5 hours ago is not idle for the rest of the day
	if r := w.dayRate(now.Unix(), s.board.dayEnd); !r.Known || math.Abs(r.HashesPerSecond-7*4.5/5) > 1e-9 {
		t.Errorf("%v", r)
	}
}

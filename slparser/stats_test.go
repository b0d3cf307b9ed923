package slparser

import (
	"math"
	"math/big"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"btcpool/internal/bitcoin"
	"btcpool/internal/share"
	"btcpool/internal/store"
)

const (
	monday     = 1700438400 // 2023-11-20 00:00:00 UTC
	mondayDay  = 20231120
	difficulty = 0x1d00ffff // compact form of difficulty 1
)

var cmpBig = cmp.Comparer(func(a, b *big.Int) bool { return a.Cmp(b) == 0 })

func mainnet(t rapid.TB) bitcoin.Network {
	t.Helper()
	n, err := bitcoin.NetworkByName("mainnet")
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// count adds a share that counts.
func count(t testing.TB, d *dayStats, s share.Share) {
	t.Helper()
	c, ok := d.rules.creditOf(&s)
	if !ok {
		t.Fatalf("%+v does not count", s)
	}
	d.add(&c)
}

// takeAll makes the rows of all that changed.
func takeAll(d *dayStats) (p part) {
	for c := d.takeChanges(); len(c.left) > 0; {
		next := c.take()
		p.days, p.hours, p.of = append(p.days, next.days...), append(p.hours, next.hours...), append(p.of, next.of...)
	}
	return p
}

func tenTo(n int64) *big.Int { return new(big.Int).Exp(big.NewInt(10), big.NewInt(n), nil) }

func TestScore(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		bits       uint32
		difficulty bitcoin.Difficulty
		want       *big.Int
	}{
		{difficulty, 0, tenTo(25)},
		{difficulty, 1, tenTo(25)}, // a share is never worth more than a block
		{difficulty, -1, new(big.Int).Mul(big.NewInt(5), tenTo(24))},
		{0x207fffff, 0, tenTo(25)},
		{0x1c7fff80, 0, new(big.Int).Mul(big.NewInt(5), tenTo(24))}, // network difficulty 2
		{0, 0, new(big.Int)},
		{0x1d80ffff, 0, new(big.Int)},
	} {
		if got := score(test.bits, test.difficulty); got.Cmp(test.want) != 0 {
			t.Errorf("score(%08x, 2^%d) = %d, want %d", test.bits, test.difficulty, got, test.want)
		}
	}
}

func TestScoreAgainstFloat(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		bits := rapid.Uint32Range(0x15010000, 0x1d00ffff).Draw(t, "bits")
		d := bitcoin.Difficulty(rapid.Int8Range(-32, 62).Draw(t, "difficulty"))
		target, err := bitcoin.TargetFromBits(bits)
		if err != nil {
			t.Skip()
		}
		want := math.Min(1, d.Float()/target.Difficulty())
		got, _ := new(big.Float).SetInt(score(bits, d)).Float64()
		if math.Abs(got/1e25-want) > want*1e-9+1e-25 {
			t.Fatalf("score(%08x, 2^%d) = %g, want %g", bits, d, got/1e25, want)
		}
	})
}

func TestStatistics(t *testing.T) {
	t.Parallel()
	d := newDayStats(mondayDay, rules{network: mainnet(t)})
	add := func(user int32, worker int64, status share.Status, exponent bitcoin.Difficulty, at int64) {
		count(t, d, share.Share{
			JobID: 1, UserID: user, WorkerID: worker, Status: status, Difficulty: exponent, Time: monday + at,
			Bits: 0x1b00ffff, Height: 840000, // network difficulty 65536, subsidy 3.125 BTC
		})
	}
	add(1, 11, share.StatusLowDifficulty, 20, 0)     // no limit is known yet: counts 2^20
	add(1, 11, share.StatusAccept, 4, 1)             // 16
	add(1, 11, share.StatusLowDifficulty, 20, 2)     // limited to 64
	add(1, 11, share.StatusStale, 20, 3)             // limited to 64
	add(1, 11, share.StatusJobNotFoundOrStale, 5, 4) // 32
	add(1, 11, share.StatusDuplicate, 5, 3599)
	add(1, 11, share.StatusAccept, -1, 3600) // half
	add(1, 11, share.StatusAccept, -1, 3601)
	add(1, 11, share.StatusAccept, -1, 3602)
	add(1, 12, share.StatusLowDifficulty, 6, 86399) // another worker has another limit
	add(2, 11, share.StatusAccept, 17, 86399)       // worth a block, and no more

	work := func(difficulty float64) bitcoin.Work {
		return bitcoin.Work{Lo: uint64(difficulty * (1 << 32))}
	}
	row := func(user int32, worker int64, period int, accept, stale float64, reject map[share.Status]float64) store.Stats {
		st := store.Stats{StatsKey: store.StatsKey{UserID: user, WorkerID: worker, Period: period}, Accept: work(accept), Stale: work(stale)}
		for status, d := range reject {
			if st.RejectDetail == nil {
				st.RejectDetail = make(map[share.Status]bitcoin.Work)
			}
			st.RejectDetail[status] = work(d)
			st.Reject = st.Reject.Add(work(d))
		}
		parts := accept // of a block, times 65536
		if user != 1 && accept > 0 {
			parts = accept - 65536 // user 2's share was worth 131072
		}
		st.Score = new(big.Int).Mul(big.NewInt(int64(parts*2)), tenTo(25))
		st.Score.Div(st.Score, big.NewInt(131072))
		st.EarnSat = new(big.Int).Mul(st.Score, big.NewInt(312500000))
		st.EarnSat.Add(st.EarnSat, new(big.Int).Div(tenTo(25), big.NewInt(2)))
		st.EarnSat.Div(st.EarnSat, tenTo(25))
		return st
	}
	type rejects = map[share.Status]float64
	reject0 := rejects{share.StatusLowDifficulty: 1<<20 + 64, share.StatusDuplicate: 32}
	late := rejects{share.StatusLowDifficulty: 64}
	both := rejects{share.StatusLowDifficulty: 1<<20 + 128, share.StatusDuplicate: 32}
	want := map[store.StatsKey]store.Stats{}
	for _, st := range []store.Stats{
		row(1, 11, 2023112000, 16, 96, reject0), row(1, 11, 2023112001, 1.5, 0, nil), row(1, 11, mondayDay, 17.5, 96, reject0),
		row(1, 12, 2023112023, 0, 0, late), row(1, 12, mondayDay, 0, 0, late),
		row(1, 0, 2023112000, 16, 96, reject0), row(1, 0, 2023112001, 1.5, 0, nil), row(1, 0, 2023112023, 0, 0, late),
		row(1, 0, mondayDay, 17.5, 96, both),
		row(2, 11, 2023112023, 131072, 0, nil), row(2, 11, mondayDay, 131072, 0, nil),
		row(2, 0, 2023112023, 131072, 0, nil), row(2, 0, mondayDay, 131072, 0, nil),
	} {
		want[st.StatsKey] = st
	}
	c := takeAll(d)
	got := map[store.StatsKey]store.Stats{}
	for _, st := range append(c.days, c.hours...) {
		if st.UserID != 0 { // the pool's are checked below
			got[st.StatsKey] = st
			if _, twice := want[st.StatsKey]; !twice {
				t.Errorf("row %+v", st.StatsKey)
			}
		}
	}
	if diff := cmp.Diff(want, got, cmpBig); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	checkPool(t, c)
}

// checkPool holds the pool's day against the sum of the users'.
func checkPool(t *testing.T, c part) {
	t.Helper()
	var pool, sum store.Stats
	sum.Score = new(big.Int)
	for _, st := range c.days {
		switch {
		case st.UserID == 0:
			pool = st
		case st.WorkerID == 0:
			sum.Accept, sum.Stale, sum.Reject = sum.Accept.Add(st.Accept), sum.Stale.Add(st.Stale), sum.Reject.Add(st.Reject)
			sum.Score.Add(sum.Score, st.Score)
		}
	}
	if pool.Accept != sum.Accept || pool.Stale != sum.Stale || pool.Reject != sum.Reject || pool.Score.Cmp(sum.Score) != 0 {
		t.Errorf("pool %+v, sum of users %+v", pool, sum)
	}
}

func TestChanges(t *testing.T) {
	t.Parallel()
	d := newDayStats(mondayDay, rules{network: mainnet(t)})
	s := share.Share{JobID: 1, UserID: 1, WorkerID: 11, Status: share.StatusAccept, Time: monday, Bits: difficulty, Height: 1}
	count(t, d, s)
	if c := takeAll(d); len(c.days) != 3 || len(c.hours) != 3 {
		t.Errorf("%d days and %d hours changed, want 3 and 3", len(c.days), len(c.hours))
	}
	if c := takeAll(d); len(c.days) != 0 || len(c.hours) != 0 {
		t.Errorf("changed without a share: %+v", c)
	}
	s.Time += 7200
	count(t, d, s)
	c := takeAll(d)
	s.Time += 3600
	s.WorkerID = 12
	count(t, d, s)
	c.giveBack()
	if c := takeAll(d); len(c.days) != 4 || len(c.hours) != 6 {
		t.Errorf("%d days and %d hours changed, want 4 and 6", len(c.days), len(c.hours))
	}
}

func BenchmarkAdd(b *testing.B) {
	d := newDayStats(mondayDay, rules{network: mainnet(b)})
	s := share.Share{JobID: 1, Status: share.StatusAccept, Time: monday, Bits: 0x1704ed7f, Height: 840000, Difficulty: 14}
	b.ReportAllocs()
	for b.Loop() {
		s.Time++
		s.UserID, s.WorkerID = int32(s.Time%100+1), s.Time%10000+1
		count(b, d, s)
	}
}

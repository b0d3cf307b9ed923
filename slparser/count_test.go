package slparser

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"btcpool/internal/bitcoin"
	"btcpool/internal/share"
	"btcpool/internal/store"
)

var allStatuses = append(share.Statuses(), 77, -5) // nobody knows the last two

func drawShare(t *rapid.T) share.Share {
	return share.Share{
		JobID: 1, UserID: rapid.Int32Range(1, 3).Draw(t, "user"), ExtUserID: rapid.Int32Range(0, 2).Draw(t, "external user"),
		WorkerID: rapid.SampledFrom([]int64{-3, -2, -1, 1, 2, 3}).Draw(t, "worker"),
		Status:   rapid.SampledFrom(allStatuses).Draw(t, "status"), Time: monday + rapid.Int64Range(0, 86399).Draw(t, "time"),
		Difficulty: bitcoin.Difficulty(rapid.Int8Range(-32, 62).Draw(t, "difficulty")),
		Bits:       rapid.SampledFrom([]uint32{difficulty, 0x1704ed7f, 0x1b00ffff}).Draw(t, "bits"), Height: rapid.Uint32Range(839_990, 840_010).Draw(t, "height"),
	}
}

func appendRecord(dst []byte, s *share.Share) []byte {
	body := s.AppendBody(nil)
	return append(binary.LittleEndian.AppendUint32(dst, uint32(len(body))), body...)
}

// TestLanes holds what several lanes count against what one does that sees all shares in their order.
func TestLanes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		how := rules{
			network: mainnet(t), acceptStale: rapid.Bool().Draw(t, "accept stale"), singleUser: rapid.SampledFrom([]int32{0, 0, 2}).Draw(t, "single user"),
			earnings: Earnings{BlockFeesSat: rapid.SampledFrom([]int64{0, 12_345_678}).Draw(t, "fees"), PoolFeePercent: 1.5},
		}
		one, lanes := newDayStats(mondayDay, how), newCounter(mondayDay, how, rapid.IntRange(1, 4).Draw(t, "lanes"))
		var want tally
		for range rapid.IntRange(0, 20).Draw(t, "batches") {
			var records []byte
			for range rapid.IntRange(0, 10).Draw(t, "shares") {
				s := drawShare(t)
				switch rapid.IntRange(0, 20).Draw(t, "spoil") {
				case 0:
					s.Bits = 0
					want.invalid++
				case 1:
					records = append(records, 2, 0, 0, 0, 0xff, 0xff)
					want.malformed++
					continue
				default:
					if c, ok := how.creditOf(&s); ok {
						want.shares++
						one.add(&c)
					} else {
						want.others++
					}
				}
				records = appendRecord(records, &s)
			}
			lanes.take(records)
		}
		got, t2 := lanes.end()
		if diff := cmp.Diff(want, t2, cmp.AllowUnexported(tally{})); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		a, b := takeAll(one), takeAll(got)
		if diff := cmp.Diff(a.days, b.days, cmpBig); diff != "" {
			t.Errorf("days (-one +lanes):\n%s", diff)
		}
		if diff := cmp.Diff(a.hours, b.hours, cmpBig); diff != "" {
			t.Errorf("hours (-one +lanes):\n%s", diff)
		}
	})
}

// TestSums wants whatever shares are worth to be added up without a rounding: against big numbers.
func TestSums(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		d := newDayStats(mondayDay, rules{network: mainnet(t), earnings: Earnings{BlockFeesSat: mostBlockFees}})
		wantScore, wantEarn := tenTo(0), tenTo(0)
		wantScore.SetInt64(0)
		wantEarn.SetInt64(0)
		for range rapid.IntRange(0, 30).Draw(t, "shares") {
			s := drawShare(t)
			s.Status = share.StatusAccept
			c, _ := d.rules.creditOf(&s)
			d.add(&c)
			worth := score(s.Bits, s.Difficulty)
			wantScore.Add(wantScore, worth)
			reward := tenTo(0)
			reward.SetInt64(mainnet(t).Subsidy(int32(s.Height)) + mostBlockFees)
			wantEarn.Add(wantEarn, worth.Mul(worth, reward))
		}
		total := d.pool.day()
		if total.score.big().Cmp(wantScore) != 0 || total.earn.big().Cmp(wantEarn) != 0 {
			t.Errorf("score %s, earned %s, want %s and %s", total.score.big(), total.earn.big(), wantScore, wantEarn)
		}
		if back := sumOf(wantEarn); back != total.earn {
			t.Errorf("%s becomes %s", wantEarn, back.big())
		}
	})
}

// TestRules counts a few shares by each rule.
func TestRules(t *testing.T) {
	t.Parallel()
	of := func(user, extUser int32, status share.Status) share.Share {
		return share.Share{
			JobID: 1, UserID: user, ExtUserID: extUser, WorkerID: 11, Status: status, Time: monday, Bits: 0x1b00ffff, Height: 840000, Difficulty: 16,
		}
	}
	shares := []share.Share{
		of(1, 5, share.StatusAccept), of(1, 6, share.StatusAcceptStale), of(1, 0, share.StatusAccept), of(2, 5, share.StatusAccept), of(1, 5, 4711),
	}
	for name, test := range map[string]struct {
		rules
		accept, stale uint64 // shares
		earn          int64  // of one
		keys          int
	}{
		"as btcpool":       {rules{}, 3, 1, 312_500_000, 1 + 2 + 2},
		"stale ones count": {rules{acceptStale: true}, 4, 0, 312_500_000, 1 + 2 + 2},
		"single user":      {rules{singleUser: 1}, 1, 1, 312_500_000, 1 + 2 + 2},
		"fees":             {rules{earnings: Earnings{BlockFeesSat: 10_000_001}}, 3, 1, 322_500_001, 1 + 2 + 2},
		"pool's fee":       {rules{earnings: Earnings{BlockFeesSat: 1, PoolFeePercent: 1.25}}, 3, 1, 308_593_750, 1 + 2 + 2},
	} {
		test.network = mainnet(t)
		d := newDayStats(mondayDay, test.rules)
		for _, s := range shares {
			if c, ok := d.rules.creditOf(&s); ok {
				d.add(&c)
			}
		}
		pool := d.pool.day()
		if pool.accept.Difficulty() != test.accept<<16 || pool.stale.Difficulty() != test.stale<<16 {
			t.Errorf("%s: %s accepted, %s stale", name, pool.accept, pool.stale)
		}
		if got := pool.earnSat().Int64(); got != int64(test.accept)*test.earn {
			t.Errorf("%s: %d satoshi, want %d a share", name, got, test.earn)
		}
		if p := takeAll(d); len(p.days) != test.keys || len(p.hours) != test.keys {
			t.Errorf("%s: %d days, %d hours, want %d", name, len(p.days), len(p.hours), test.keys)
		}
		if r := pool.rejects; len(r) != 1 || r[0].status != share.StatusUnknown {
			t.Errorf("%s: %+v rejected, want a number that nobody knows under %d", name, r, share.StatusUnknown)
		}
	}
}

// TestParts wants rows of a large day to be made a part at a time, each of them once.
func TestParts(t *testing.T) {
	t.Parallel()
	d := newDayStats(mondayDay, rules{network: mainnet(t)})
	for n := range int64(rowsAtOnce) {
		d.add(&credit{key: key{1 + n%7, n - 5000 | 1}, shares: 1, status: share.StatusAccept, hour: uint8(n % 24), bits: difficulty})
	}
	seen := map[store.StatsKey]bool{}
	var last []store.StatsKey
	for c := d.takeChanges(); len(c.left) > 0; {
		p := c.take()
		if n := len(p.days) + len(p.hours); n > rowsAtOnce+25 {
			t.Errorf("%d rows at once", n)
		}
		for _, row := range append(p.days, p.hours...) {
			if seen[row.StatsKey] {
				t.Fatalf("%+v comes twice", row.StatsKey)
			}
			seen[row.StatsKey] = true
			last = append(last, row.StatsKey)
		}
	}
	for _, k := range last {
		kind := store.Day
		if k.Period != mondayDay {
			kind = store.Hour
		}
		if !d.has(kind, k) {
			t.Errorf("%+v is not among what is there", k)
		}
	}
	if p := takeAll(d); len(p.of) != 0 {
		t.Errorf("%d entries are changed still", len(p.of))
	}
	for _, k := range []store.StatsKey{{Period: 2023112023 + 100}, {UserID: 99, Period: mondayDay}, {UserID: 1, WorkerID: 1 << 40, Period: mondayDay}} {
		if d.has(store.Day, k) && k.UserID != 0 {
			t.Errorf("%+v is among what is there", k)
		}
	}
}

func TestProgress(t *testing.T) {
	t.Parallel()
	var to bytes.Buffer
	p := newProgress(&to, mondayDay)
	p.read(1, 100) // less than a second ago
	p.end()
	if to.Len() > 0 {
		t.Errorf("%q at once", to.String())
	}
	p.start, p.told = p.start.Add(-2*time.Second), p.told.Add(-2*time.Second)
	p.read(50_000_000, 200_000_000)
	p.told = p.told.Add(-time.Second)
	p.wrote(3, 4)
	p.end()
	for _, want := range []string{"\r\x1b[K20231120 [=====               ]  25% of 200 MB, ", " left\r", "[===============     ]  75% of the rows of 4\r\x1b[K"} {
		if !strings.Contains(to.String(), want) {
			t.Errorf("no %q in %q", want, to.String())
		}
	}
	newProgress(nil, mondayDay).read(1, 2) // nobody looks
}

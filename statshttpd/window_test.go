package statshttpd

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"btcpool/internal/bitcoin"
	"btcpool/internal/share"
)

// arrival is a share as a window sees it.
type arrival struct {
	t    int64
	work bitcoin.Work
}

// naiveSum adds up what lies in the bucket of now and the n-1 before it.
func naiveSum(all []arrival, width, now int64, n int) (sum amount) {
	for _, a := range all {
		if b := a.t / width; b <= now/width && b > now/width-int64(n) {
			sum.add(amount{a.work, 1})
		}
	}
	return sum
}

func TestRingSumsAreExact(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		width := rapid.Int64Range(1, 60).Draw(t, "width")
		size := rapid.IntRange(1, 20).Draw(t, "size")
		r := newRing(width, size)
		var all []arrival
		now := rapid.Int64Range(0, 1<<40).Draw(t, "start")
		easiest := rapid.Int8Range(-32, 30).Draw(t, "easiest") // work of floats is exact within 2^53
		for range rapid.IntRange(0, 60).Draw(t, "shares") {
			now += rapid.Int64Range(0, width*int64(size)/2+1).Draw(t, "passes")
			late := rapid.Int64Range(0, width*int64(size)*2).Draw(t, "late")
			one := arrival{max(now-late, 0), bitcoin.Difficulty(easiest + rapid.Int8Range(0, 32).Draw(t, "harder")).Hashes()}
			r.add(one.t, one.work.Float())
			if one.t/width > r.newest-int64(size) {
				all = append(all, one)
			}
			at := now + rapid.Int64Range(0, width*3).Draw(t, "later")
			n := rapid.IntRange(1, size).Draw(t, "buckets")
			// Buckets that the ring reused since they were last current are gone for a look into the past only.
			if diff := cmp.Diff(naiveSum(all, width, at, n), r.sum(at, n)); diff != "" {
				t.Fatal(diff)
			}
		}
	})
}

// A ring takes shares of any worth, and goes back to few bits where it can.
func TestRingWidth(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		works  []float64 // of a share in each bucket
		narrow bool
	}{
		{"one worth", []float64{8, 8, 8}, true},
		{"easier and easier", []float64{64, 8, 1}, true},
		{"harder and harder", []float64{1, 8, 64}, true},
		{"no multiple", []float64{4, 7}, false},
		{"far apart", []float64{1, 1 << 20}, false},
		{"far apart, the easier one later", []float64{1 << 20, 1}, false},
		{"far apart, but the easy one has left", []float64{1, 8, 8, 8, 8, 8, 1 << 16}, true},
		{"far apart, but all have left", []float64{1, 0, 0, 0, 0, 0, 1 << 30}, true},
	}
	for _, test := range tests {
		const size = 4
		r := newRing(1, size)
		for at, work := range test.works {
			if work > 0 {
				r.add(int64(at), work)
			}
		}
		for at := max(len(test.works)-size, 0); at < len(test.works); at++ {
			want := amount{workOf(test.works[at]), uint64(min(test.works[at], 1))}
			if got := r.at(int64(at)); got != want {
				t.Errorf("%s: bucket %d is %v, want %v", test.name, at, got, want)
			}
		}
		if narrow := r.wide == nil; narrow != test.narrow {
			t.Errorf("%s: narrow %v", test.name, narrow)
		}
	}
	many := newRing(1, 2)
	for range 1<<16 + 5 {
		many.add(0, 2)
	}
	if got := many.at(0); got != (amount{bitcoin.Work{Lo: 2 * (1<<16 + 5)}, 1<<16 + 5}) {
		t.Errorf("many shares are %v", got)
	}
}

func TestRingSince(t *testing.T) {
	t.Parallel()
	r := newRing(10, 6)
	for second := int64(1000); second < 1060; second++ {
		r.add(second, 7)
	}
	tests := []struct {
		name   string
		now, t int64
		want   float64
	}{
		{"all of it", 1059, 1000, 60 * 7},
		{"whole buckets", 1059, 1030, 30 * 7},
		{"part of a bucket", 1059, 1034, 26 * 7},
		{"within the running bucket", 1059, 1055, 5 * 7},
		{"nothing yet", 1059, 1060, 0},
		{"from the future", 1059, 2000, 0},
		{"further back than it reaches", 1059, 10, 60 * 7},
		{"forgotten", 9000, 1000, 0},
	}
	for _, test := range tests {
		if got := r.since(test.now, test.t); math.Abs(got-test.want) > 1e-9 {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

func TestWindow(t *testing.T) {
	t.Parallel()
	const start = 1_700_000_000
	one := bitcoin.Difficulty(4).Hashes()
	w := window{}
	last := netip.MustParseAddr("2001:db8::7")
	for i := range int64(3600) { // one share a second for an hour
		w.add(start+i, share.StatusAccept, one, last)
	}
	w.add(start+3599, share.StatusStale, one, last)
	w.add(start+3599, share.StatusJobNotFoundOrStale, one, last)
	w.add(start+3000, share.StatusDuplicate, one, last)
	w.add(start+3599, share.StatusLowDifficulty, one, last)
	w.add(start+100, share.StatusLowDifficulty, one, netip.MustParseAddr("192.0.2.1"))
	times := func(n uint64) amount { return amount{bitcoin.Work{Lo: n * one.Lo}, n} }

	now := int64(start + 3599) // 19 s into a minute, 9 s into a bucket
	for span, want := range map[span]uint64{minute: 60, fiveMinutes: 300, quarterHour: 900, hour: 3560} {
		wanted := times(want)
		if span <= quarterHour {
			wanted.Shares = 0
		}
		if diff := cmp.Diff(wanted, w.acceptedSum(now, span)); diff != "" {
			t.Errorf("accepted in %d s: %s", span, diff)
		}
		if got, want := w.rate(now, span).HashesPerSecond, one.Float(); math.Abs(got/want-1) > 0.02 {
			t.Errorf("rate over %d s is %v, want about %v", span, got, want)
		}
	}
	if diff := cmp.Diff(times(2), w.staleSum(now, quarterHour)); diff != "" {
		t.Errorf("stale: %s", diff)
	}
	total, reasons := w.rejectedSum(now, hour)
	want := map[share.Status]amount{share.StatusDuplicate: times(1), share.StatusLowDifficulty: times(2)}
	if diff := cmp.Diff(times(3), total) + cmp.Diff(want, reasons); diff != "" {
		t.Errorf("rejected in an hour: %s", diff)
	}
	total, reasons = w.rejectedSum(now, quarterHour)
	want[share.StatusLowDifficulty] = times(1)
	if diff := cmp.Diff(times(2), total) + cmp.Diff(want, reasons); diff != "" {
		t.Errorf("rejected in a quarter of an hour: %s", diff)
	}
	if w.accepted != 3600 || w.began != start || w.last != now || w.lastIP != last {
		t.Errorf("accepted %d, began %d, last %d from %s", w.accepted, w.began, w.last, w.lastIP)
	}

	later := now + 2*int64(hour)
	if a := w.acceptedSum(later, hour); a != (amount{}) {
		t.Errorf("two hours later %v is left", a)
	}
	if r := w.rate(later, hour); r.HashesPerSecond != 0 || r.relativeError() != nil {
		t.Errorf("two hours later the rate is %v", r)
	}
}

// A worker that has just come must not look as if it had been idle for the rest of the span, nor its first share as a feat.
func TestRateOfNewcomer(t *testing.T) {
	t.Parallel()
	const start = 1_700_000_000
	one := bitcoin.Difficulty(0).Hashes()
	w := window{}
	if r := w.rate(start, hour); r.Known {
		t.Errorf("before any share the rate is %v", r)
	}
	w.add(start, share.StatusAccept, one, netip.Addr{})
	if r := w.rate(start+3, hour); r.Known || r.relativeError() != nil {
		t.Errorf("after one share the rate is %v", r)
	}
	for i := int64(1); i <= 300; i++ {
		w.add(start+i, share.StatusAccept, one, netip.Addr{})
	}
	for _, s := range []span{minute, fiveMinutes, quarterHour, hour} {
		if got, want := w.rate(start+300, s).HashesPerSecond, one.Float(); math.Abs(got/want-1) > 0.03 {
			t.Errorf("rate over %d s is %v, want about %v", s, got, want)
		}
	}
}

// TestRateOfFirstMinute looks at the first minute of many miners, whose shares come as they do, by chance: rates are
// right on average, and the error beside a rate contains the truth about as often as a standard error does.
func TestRateOfFirstMinute(t *testing.T) {
	t.Parallel()
	const miners, start = 4000, 1_700_000_000
	random := rand.New(rand.NewPCG(1, 2))
	one := bitcoin.Difficulty(0).Hashes()
	for i, after := range []int64{20, 20, 40, 40, 59, 59} {
		login := i%2 == 0
		var sum float64
		known, contained := 0, 0
		for range miners {
			w := window{}
			if login {
				w.begin(start)
			}
			for at := random.ExpFloat64() * 2; at < float64(after); at += random.ExpFloat64() * 2 {
				w.add(start+int64(at), share.StatusAccept, one, netip.Addr{})
			}
			r := w.rate(start+after, fiveMinutes)
			if !r.Known {
				continue
			}
			known++
			got := r.HashesPerSecond / (one.Float() / 2)
			sum += got
			if e := *r.relativeError(); got*(1-e) <= 1 && 1 <= got*(1+e) {
				contained++
			}
		}
		if mean := sum / float64(known); known < miners*9/10 || math.Abs(mean-1) > 0.06 {
			t.Errorf("after %d s %d of %d miners have a rate, %.2f of the true one on average, login %t", after, known, miners, mean, login)
		}
		if part := float64(contained) / float64(known); part < 0.6 {
			t.Errorf("after %d s the error contains the truth in %.2f of all cases", after, part)
		}
	}
}

func BenchmarkWindowAdd(b *testing.B) {
	b.ReportAllocs()
	w := window{}
	one := bitcoin.Difficulty(20).Hashes()
	var t int64 = 1_700_000_000
	for b.Loop() {
		w.add(t, share.StatusAccept, one, netip.Addr{})
		t += rand.Int64N(2)
	}
}

package sealed_test

import (
	"errors"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"testing"

	"github.com/rs/zerolog"

	"btcpool/internal/bitcoin"
	"btcpool/internal/bus"
	"btcpool/internal/sealed"
	"btcpool/internal/share"
	"btcpool/internal/sharefile"
)

// day is that of the tests, and its first second.
const (
	day      = sharefile.Day(20240131)
	midnight = 1706659200
)

// farm makes shares as a pool has them: each worker at one session with one address, jobs each 30 s, one share of a
// hundred rejected, and random what a hash makes random.
type farm struct {
	*rand.Rand
	workers []worker
	seq     [4]uint64
}

type worker struct {
	id         int64
	user       int32
	session    uint32
	ip         netip.Addr
	difficulty bitcoin.Difficulty
}

func newFarm(seed uint64, workers int) *farm {
	f := &farm{Rand: rand.New(rand.NewPCG(seed, 1))}
	for i := range workers {
		f.workers = append(f.workers, worker{
			id: int64(f.Uint64()), user: int32(1 + f.IntN(1+workers/20)), session: uint32(i%4+1)<<24 | f.Uint32()>>8,
			ip: netip.AddrFrom4([4]byte{10, byte(i >> 12), byte(i >> 4), 1}), difficulty: bitcoin.Difficulty(14 + f.IntN(6)),
		})
	}
	return f
}

func (f *farm) share(second int64) *share.Share {
	w := &f.workers[f.IntN(len(f.workers))]
	server := w.session >> 24
	f.seq[server-1]++
	s := &share.Share{
		ID:       share.ID{Server: uint8(server), Epoch: midnight - 5000*server, Seq: f.seq[server-1]},
		JobID:    uint64(midnight+second/30*30)<<32 | uint64(second/30),
		WorkerID: w.id, UserID: w.user, Status: share.StatusAccept, Time: midnight + second, IP: w.ip, Difficulty: w.difficulty,
		Bits: 0x17034219, Height: uint32(828000 + second/600), Nonce: f.Uint32(), SessionID: w.session,
		VersionBits: f.Uint32() & 0x1fffe000, BitsReached: 0x18<<24 | f.Uint32()>>9,
	}
	if f.IntN(100) == 0 {
		s.Status = []share.Status{share.StatusStale, share.StatusDuplicate, share.StatusAcceptStale}[f.IntN(3)]
	}
	return s
}

// writeDay writes n shares of a farm to the day's file, with a flush each two seconds of theirs.
func writeDay(tb testing.TB, dir string, f *farm, n, perSecond int) {
	tb.Helper()
	w, err := sharefile.OpenWriter(dir, "BTC", zerolog.Nop())
	if err != nil {
		tb.Fatal(err)
	}
	for i := range n {
		s := f.share(int64(i / perSecond))
		if _, err := w.Add(&bus.Message{Offset: int64(i)}, s, s.AppendBody(nil)); err != nil {
			tb.Fatal(err)
		}
		if i%(2*perSecond) == 2*perSecond-1 {
			if _, err := w.Flush(); err != nil {
				tb.Fatal(err)
			}
		}
	}
	if _, err := w.Flush(); err != nil {
		tb.Fatal(err)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
}

func size(tb testing.TB, path string) int64 {
	tb.Helper()
	info, err := os.Stat(path)
	if err != nil {
		tb.Fatal(err)
	}
	return info.Size()
}

// BenchmarkSeal is for 1,000 shares a second of 10,000 workers. The bytes to beat are the live form's, 38.9 a share, and
// what is random in a share is about 12 of them.
func BenchmarkSeal(b *testing.B) {
	const shares = 1 << 20
	dir := b.TempDir()
	writeDay(b, dir, newFarm(1, 10_000), shares, 1000)
	for b.Loop() {
		if _, err := sealed.Seal(b.Context(), dir, "BTC", day); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := os.Rename(sealed.Path(dir, "BTC", day), dir+"/last"); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/shares, "ns/share")
	b.ReportMetric(float64(size(b, dir+"/last"))/shares, "B/share")
	b.ReportMetric(float64(size(b, sharefile.Path(dir, "BTC", day)))/shares, "liveB/share")
}

// BenchmarkRead is for a day that only its sealed file is left of.
func BenchmarkRead(b *testing.B) {
	const shares = 1 << 18
	dir := b.TempDir()
	writeDay(b, dir, newFarm(1, 10_000), shares, 1000)
	if _, err := sealed.Seal(b.Context(), dir, "BTC", day); err != nil {
		b.Fatal(err)
	}
	if err := os.Remove(sharefile.Path(dir, "BTC", day)); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		r, err := sealed.OpenDay(dir, "BTC", day)
		if err != nil {
			b.Fatal(err)
		}
		for err == nil {
			_, err = r.NextBatch()
		}
		if !errors.Is(err, io.EOF) {
			b.Fatal(err)
		}
		if err := r.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/shares, "ns/share")
}

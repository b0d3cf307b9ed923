package slparser

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"btcpool/internal/bitcoin"
	"btcpool/internal/bus"
	"btcpool/internal/sealed"
	"btcpool/internal/service"
	"btcpool/internal/share"
	"btcpool/internal/sharefile"
)

var (
	benchShares  = flag.Int("shares", 1_000_000, "shares of the benchmarks' day")
	benchTimes   = flag.Int("times", 1, "how often the day's file has them")
	benchWorkers = flag.Int("workers", 10_000, "workers of the benchmarks' day, ten a user")
	benchDSN     = flag.String("dsn", "", "database of the benchmarks instead of a new SQLite file")
)

const benchDay = sharefile.Day(20260310)

// makeDay writes a day as sharelogger does: 2,000 shares a flush, in the order of their times, of workers at random.
func makeDay(b *testing.B, dir string) {
	b.Helper()
	w, err := sharefile.OpenWriter(dir, "BTC", zerolog.Nop())
	if err != nil {
		b.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	var body []byte
	for n := range *benchShares {
		of := random.IntN(*benchWorkers)
		at := int64(n) * 86400 / int64(*benchShares)
		s := share.Share{
			ID: share.ID{Server: uint8(1 + n%3), Epoch: 1_770_000_000, Seq: uint64(n/3 + 1)}, JobID: uint64(1_770_000_000+at/30)<<32 | 1,
			WorkerID: share.WorkerID(fmt.Sprint("rig", of)), UserID: int32(of/10 + 1), Status: share.StatusAccept, Time: benchDay.Start().Unix() + at,
			IP: netip.AddrFrom4([4]byte{10, byte(of >> 16), byte(of >> 8), byte(of)}), Difficulty: bitcoin.Difficulty(12 + of%8),
			Bits: 0x17034219, Height: uint32(890_000 + at/600), Nonce: random.Uint32(), SessionID: uint32(1<<24 | of),
			VersionBits: random.Uint32() & 0x1fffe000, BitsReached: 0x19000000 | random.Uint32()>>9,
		}
		switch random.IntN(100) {
		case 0:
			s.Status = share.StatusStale
		case 1:
			s.Status = share.StatusDuplicate
		case 2:
			s.Status = share.StatusLowDifficulty
		}
		body = s.AppendBody(body[:0])
		if _, err := w.Add(&bus.Message{Offset: int64(n)}, &s, body); err != nil {
			b.Fatal(err)
		}
		if n%2000 == 1999 || n == *benchShares-1 {
			if _, err := w.Flush(); err != nil {
				b.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	repeatFile(b, sharefile.Path(dir, "BTC", benchDay))
}

func repeatFile(b *testing.B, path string) {
	b.Helper()
	once, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	for range *benchTimes - 1 {
		if _, err := f.Write(once); err != nil {
			b.Fatal(err)
		}
	}
}

// cost is what the process has used.
type cost struct {
	at  time.Time
	cpu time.Duration
}

func costNow(b *testing.B) cost {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return cost{time.Now(), time.Duration(u.Utime.Nano() + u.Stime.Nano())}
}

// peak returns the most memory that the process had since it was called last, in bytes, where the kernel tells.
func peak() (bytes float64) {
	defer func() { _ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) }()
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return 0
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if n, err := fmt.Sscanf(lines.Text(), "VmHWM: %f kB", &bytes); n == 1 && err == nil {
			return bytes * 1024
		}
	}
	return 0
}

func countAll(b *testing.B, s *Service, shares float64) error {
	b.Helper()
	_, t, _, err := s.count(b.Context(), benchDay, func(int64, int64) {})
	if float64(t.shares) != shares {
		err = fmt.Errorf("%+v counted, %v are there: %w", t, shares, err)
	}
	return err
}

// measure reports what doing something with so many shares costs.
func measure(b *testing.B, shares float64, cfg Config, do func(s *Service) error) {
	b.Helper()
	peak()
	began := costNow(b)
	for b.Loop() {
		s, err := New(cfg, service.Deps{Log: zerolog.Nop(), Metrics: prometheus.NewRegistry()})
		if err == nil {
			err = do(s)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	used, n := costNow(b), float64(b.N)
	b.ReportMetric(used.at.Sub(began.at).Seconds()/n, "s/day")
	b.ReportMetric((used.cpu-began.cpu).Seconds()/n, "cpu-s/day")
	b.ReportMetric(float64(used.at.Sub(began.at).Nanoseconds())/n/shares, "ns/share")
	b.ReportMetric(float64(used.cpu-began.cpu)/n/shares, "cpu-ns/share")
	b.ReportMetric(peak(), "peak-B")
}

// BenchmarkDay computes a day and writes its rows, and with no database only inflates it, which is what all of it takes at
// least, or reads and adds, or prints it:
//
//	go test -run xxx -bench Day -benchtime 1x ./slparser -args -shares 5000000 -workers 100000
func BenchmarkDay(b *testing.B) {
	dir := b.TempDir()
	makeDay(b, dir)
	runtime.GC()
	shares := float64(*benchShares) * float64(*benchTimes)
	cfg := DefaultConfig()
	cfg.DataDir, cfg.Day, cfg.Force = dir, benchDay, true
	b.Run("compute", func(b *testing.B) {
		if cfg.Database.DSN = *benchDSN; cfg.Database.DSN == "" {
			cfg.Database.DSN = "sqlite:" + filepath.Join(b.TempDir(), "pool.db")
		}
		measure(b, shares, cfg, func(s *Service) error { return s.compute(b.Context()) })
	})
	cfg.Database.DSN = "sqlite:unused"
	b.Run("inflate", func(b *testing.B) {
		nothing := into{func([]byte) {}, func([]sealed.Streak) {}}
		measure(b, shares, cfg, func(s *Service) error {
			_, err := s.readWhole(b.Context(), benchDay, runtime.GOMAXPROCS(0)+1, nothing, func(int64, int64) {})
			return err
		})
	})
	b.Run("count", func(b *testing.B) {
		measure(b, shares, cfg, func(s *Service) error { return countAll(b, s, shares) })
	})
	for _, format := range strings.Split(formatNames(), ", ") {
		cfg.Print = Print{User: "0", Format: format}
		b.Run("print "+format, func(b *testing.B) {
			measure(b, shares, cfg, func(s *Service) error { return s.print(b.Context(), io.Discard) })
		})
	}
}

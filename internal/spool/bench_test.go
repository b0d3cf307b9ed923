package spool_test

import (
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"btcpool/internal/config"
	"btcpool/internal/spool"
)

// BenchmarkSteady appends as many records a second as a quiet, a middling and a busy pool, drains them to nowhere and
// tells what that costs: one operation is one record. BenchmarkBareSync is the limit of its latency.
func BenchmarkSteady(b *testing.B) {
	const tick = time.Millisecond
	for _, gap := range []time.Duration{-1, 0} {
		for _, perSecond := range []int{10, 1000, 30_000} {
			b.Run(fmt.Sprintf("gap=%v/rate=%d", gap >= 0, perSecond), func(b *testing.B) {
				s := open(b, spool.Config{Dir: b.TempDir(), SyncGap: config.Duration(gap)})
				var syncs atomic.Int64
				s.SetSync(func(f *os.File) error { syncs.Add(1); return spool.Fdatasync(f) })
				type appended struct {
					seq uint64
					at  time.Time
				}
				waiting := make(chan appended, 1<<16)
				var took []time.Duration
				told := make(chan uint64, 1<<10)
				s.OnDurable(func(durable uint64, _ error) {
					now := time.Now()
					for len(waiting) > 0 {
						a := <-waiting
						took = append(took, now.Sub(a.at))
						if a.seq == durable {
							break
						}
					}
					told <- durable
				})
				stop := run(b, s, discard)
				value := make([]byte, 110)
				encode := func(dst []byte, _ uint64) []byte { return append(dst, value...) }

				cpu, begin := cpuTime(), time.Now()
				ticks := time.NewTicker(tick)
				defer ticks.Stop()
				for n := 0; n < b.N; {
					<-ticks.C
					for due := int(time.Since(begin).Seconds() * float64(perSecond)); n < min(due, b.N); n++ {
						at := time.Now()
						seq, err := s.Append(1, encode)
						if err != nil {
							b.Fatal(err)
						}
						waiting <- appended{seq, at}
					}
					for len(told) > 0 {
						<-told
					}
				}
				for durable := uint64(0); durable < uint64(b.N); {
					durable = <-told
				}
				elapsed := time.Since(begin)
				cpu = cpuTime() - cpu
				slices.Sort(took)
				b.ReportMetric(float64(syncs.Load())/elapsed.Seconds(), "syncs/s")
				b.ReportMetric(float64(cpu.Nanoseconds())/float64(b.N), "cpu-ns/op")
				b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
				b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
				stop()
			})
		}
	}
}

// cpuTime returns what this process has used.
func cpuTime() time.Duration {
	var use syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
		panic(err)
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}

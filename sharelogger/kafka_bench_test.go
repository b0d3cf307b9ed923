//go:build integration

package sharelogger_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"btcpool/internal/bitcoin"
	"btcpool/internal/bus"
	"btcpool/internal/service"
	"btcpool/internal/share"
	"btcpool/internal/sharefile"
	"btcpool/internal/testkit"
	"btcpool/sharelogger"
	"btcpool/test/integration/rig"
)

var kafkaShares = flag.Int("kafka-shares", 300_000, "shares that BenchmarkKafka has in the topic")

// poolShare is the n-th of a pool with 10,000 workers on four servers and 1,000 shares a second.
func poolShare(random *rand.Rand, n int) share.Share {
	of, at := random.IntN(10_000), int64(n/1000)
	s := share.Share{
		ID: share.ID{Server: uint8(1 + n%4), Epoch: 1_700_000_000, Seq: uint64(n/4 + 1)}, JobID: uint64(monday+at/30*30)<<32 | uint64(at/30+1),
		WorkerID: share.WorkerID(fmt.Sprint("rig", of)), UserID: int32(of/10 + 1), Status: share.StatusAccept, Time: monday + at,
		IP: netip.AddrFrom4([4]byte{10, byte(of >> 8), byte(of), 1}), Difficulty: bitcoin.Difficulty(14 + of%6), Bits: 0x17034219,
		Height: uint32(828_000 + at/600), Nonce: random.Uint32(), SessionID: uint32(1+n%4)<<24 | uint32(of),
		VersionBits: random.Uint32() & 0x1fffe000, BitsReached: 0x18<<24 | random.Uint32()>>9,
	}
	if random.IntN(100) == 0 {
		s.Status = share.StatusStale
	}
	return s
}

// BenchmarkKafka takes shares out of Apache Kafka, on one core, until all are on disk: CPU a share. The limits of the same
// shares are beside it: to read them from Kafka and do nothing, and to compress the records.
//
//	go test -tags integration -run xxx -bench Kafka -benchtime 1x ./sharelogger -args -kafka-shares 5000000
func BenchmarkKafka(b *testing.B) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	cfg := testConfig("", rig.StartKafka(b, b.TempDir()).Addr)
	cfg.Kafka.Partitions, cfg.FlushInterval = 1, sharelogger.DefaultConfig().FlushInterval
	client := testkit.Bus(b, cfg.Kafka, cfg.Kafka.Topics.Share)
	random := rand.New(rand.NewPCG(1, 2))
	dir := b.TempDir()
	var msgs []bus.Message
	for n := range *kafkaShares {
		s := poolShare(random, n)
		msgs = append(msgs, bus.Message{Value: s.AppendTo(nil)})
		if len(msgs) == 1000 || n == *kafkaShares-1 { // as sserver at some 100,000 shares a second
			if err := client.Write(b.Context(), cfg.Kafka.Topics.Share, msgs...); err != nil {
				b.Fatal(err)
			}
			msgs = msgs[:0]
		}
	}
	each := func(b *testing.B, began time.Duration) {
		b.Helper()
		cpu := cpuTime(b) - began
		b.ReportMetric(float64(cpu.Nanoseconds())/float64(b.N)/float64(*kafkaShares), "cpu-ns/share")
		b.ReportMetric(float64(b.N)*float64(*kafkaShares)/cpu.Seconds(), "shares/cpu-s")
	}
	b.Run("log", func(b *testing.B) {
		began := cpuTime(b)
		for n := 0; b.Loop(); n++ {
			cfg.DataDir = filepath.Join(dir, strconv.Itoa(n))
			registry := prometheus.NewRegistry()
			svc, err := sharelogger.New(cfg, service.Deps{Log: zerolog.Nop(), Metrics: registry})
			if err != nil {
				b.Fatal(err)
			}
			stop := testkit.Run(b, svc.Run)
			testkit.Until(b, 10*time.Minute, "all shares on disk", func(context.Context) error {
				if n := testkit.Metric(b, registry, "btcpool_sharelogger_shares_written_total"); n < float64(*kafkaShares) {
					return fmt.Errorf("%v are", n)
				}
				return nil
			})
			stop()
		}
		each(b, began)
	})
	b.Run("fetch", func(b *testing.B) {
		began := cpuTime(b)
		for b.Loop() {
			ctx, stop := context.WithCancel(b.Context())
			left := *kafkaShares
			if err := client.Read(ctx, cfg.Kafka.Topics.Share, bus.Earliest(), func(bus.Message) error {
				if left--; left == 0 {
					stop()
				}
				return nil
			}); err != nil {
				b.Fatal(err)
			}
		}
		each(b, began)
	})
	b.Run("gzip", func(b *testing.B) {
		r, err := sharefile.Open(sharefile.Path(cfg.DataDir, cfg.Chain, sharefile.DayOf(monday)))
		if err != nil {
			b.Fatal(err)
		}
		defer r.Close()
		var members [][]byte
		for {
			records, err := r.NextBatch()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				b.Fatal(err)
			}
			members = append(members, slices.Clone(records))
		}
		gz := gzip.NewWriter(io.Discard)
		began := cpuTime(b)
		for b.Loop() {
			for _, records := range members {
				gz.Reset(io.Discard)
				if _, err := gz.Write(records); err != nil {
					b.Fatal(err)
				}
				if err := gz.Close(); err != nil {
					b.Fatal(err)
				}
			}
		}
		each(b, began)
	})
}

func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

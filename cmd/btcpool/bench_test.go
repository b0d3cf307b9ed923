package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"btcpool/internal/miner"
	"btcpool/internal/testkit"
)

var (
	benchMiners = flag.Int("miners", 1000, "miners of BenchmarkPool, each of which sends a share a second")
	benchTime   = flag.Duration("time", 30*time.Second, "how long BenchmarkPool measures")
)

// BenchmarkPool measures what the whole pool in one process takes: with nothing to do, and with miners. The miners are
// in another process, this one:
//
//	go test -run xxx -bench Pool -benchtime 1x ./cmd/btcpool -args -miners 1000
func BenchmarkPool(b *testing.B) {
	dir := b.TempDir()
	program := filepath.Join(dir, "btcpool")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	// A chain that is there keeps its difficulty: nobody finds a block of this one.
	if err := os.MkdirAll(filepath.Join(dir, "embedded", "chain", "chain-1d00ffff"), 0o755); err != nil {
		b.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	stratum := ln.Addr().String()
	ln.Close()
	var out lockedBuffer
	cmd := exec.Command(program, "-data", dir, "-stratum", stratum, "-http", "127.0.0.1:0")
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			b.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			b.Error(err)
		}
	}()
	testkit.Until(b, testkit.Patience, "the pool is ready", func(context.Context) error {
		if !strings.Contains(out.String(), "Dashboard") {
			return fmt.Errorf("it says %q", out.String())
		}
		return nil
	})
	measure := func(b *testing.B) {
		b.Helper()
		for b.Loop() {
			before := used(b, cmd.Process.Pid)
			began := time.Now()
			select {
			case <-time.After(*benchTime):
			case <-b.Context().Done():
			}
			took := used(b, cmd.Process.Pid) - before
			b.ReportMetric(took.Seconds()/time.Since(began).Seconds(), "cores")
		}
		b.ReportMetric(resident(b, cmd.Process.Pid)/(1<<20), "MiB")
	}
	b.Run("idle", measure)
	b.Run(fmt.Sprintf("miners=%d", *benchMiners), func(b *testing.B) {
		m, err := miner.New(miner.Config{
			URL: stratum, User: demoUser + "%d", Password: "d=0.00000006", Conns: *benchMiners, Rate: 1, Ramp: 5 * time.Second,
		}, zerolog.Nop())
		if err != nil {
			b.Fatal(err)
		}
		ctx, stop := context.WithCancel(b.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = m.Run(ctx) // which ends with ctx
		}()
		testkit.Until(b, testkit.Patience, "all have sent some shares", func(context.Context) error {
			if n := m.Report().Accepted; n < 5*int64(*benchMiners) {
				return fmt.Errorf("%d are accepted", n)
			}
			return nil
		})
		first := m.Report()
		measure(b)
		last := m.Report()
		stop()
		<-ended
		b.ReportMetric(float64(last.Accepted-first.Accepted)/(last.Seconds-first.Seconds), "shares/s")
	})
}

// used is the processor time of a process.
func used(b *testing.B, pid int) time.Duration {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Skipf("the kernel does not tell: %v", err)
	}
	var user, system int64
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:]) // from the third on
	if _, err := fmt.Sscan(string(fields[14-3])+" "+string(fields[15-3]), &user, &system); err != nil {
		b.Fatal(err)
	}
	const tick = 10 * time.Millisecond
	return time.Duration(user+system) * tick
}

// resident is how much memory a process has, in bytes.
func resident(b *testing.B, pid int) float64 {
	b.Helper()
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		b.Fatal(err)
	}
	var size, pages float64
	if _, err := fmt.Sscan(string(statm), &size, &pages); err != nil {
		b.Fatal(err)
	}
	return pages * float64(os.Getpagesize())
}

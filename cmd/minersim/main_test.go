package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"btcpool/internal/miner"
	"btcpool/internal/miner/pooltest"
	"btcpool/internal/service"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAcksAreTheAcceptedShares(t *testing.T) {
	t.Parallel()
	pool := (&pooltest.Pool{VersionMask: 0x1fffe000}).Start(t)
	path := filepath.Join(t.TempDir(), "acks")
	var stdout, stderr bytes.Buffer
	for range 2 { // the second run appends
		stdout.Reset()
		args := []string{
			"-url", "stratum+tcp://" + pool.Addr(), "-conns", "4", "-rate", "100", "-invalid", "duplicate",
			"-shares", "20", "-acks", path, "-json", "-user", "farm.%d",
		}
		if code := run(t.Context(), args, &stdout, &stderr); code != exitDone {
			t.Fatalf("exit code %d\n%s", code, &stderr)
		}
	}
	var report miner.Report
	if err := json.Unmarshal(stdout.Bytes(), &report); err != nil {
		t.Fatal(err)
	}
	if report.Accepted < 20 || report.Latency.Submit.Count == 0 || report.Latency.Subscribe.Max == 0 || len(report.RejectedBy) == 0 {
		t.Errorf("report: %s", &stdout)
	}

	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	got := make(map[pooltest.Share]int)
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var a ack
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			t.Fatalf("%s: %v", lines.Bytes(), err)
		}
		if a.AckedAt < pooltest.FirstTime {
			t.Errorf("acked at %d", a.AckedAt)
		}
		extranonce2, err := strconv.ParseUint(a.Extranonce2, 16, 64)
		if err != nil || len(a.Extranonce2) != 8 {
			t.Errorf("extranonce2 %q", a.Extranonce2)
		}
		got[pooltest.Share{
			Extranonce1: a.Session, User: a.User, JobID: a.JobID, Extranonce2: extranonce2,
			Time: a.Time, Nonce: a.Nonce, VersionBits: a.VersionBits,
		}]++
	}
	want := make(map[pooltest.Share]int)
	for _, s := range pool.Accepted() {
		want[s]++
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("shares accepted (-) and recorded (+):\n%s", diff)
	}
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	pool := (&pooltest.Pool{}).Start(t)
	var closing sync.Once
	kicking := &pooltest.Pool{Handle: func(c *pooltest.Conn, req pooltest.Request) bool {
		if req.Method == "mining.submit" {
			closing.Do(func() { c.Close() })
		}
		return false
	}}
	kicking.Start(t)
	refusing := (&pooltest.Pool{Handle: func(c *pooltest.Conn, _ pooltest.Request) bool { c.Close(); return true }}).Start(t)
	tests := map[string]struct {
		args   []string
		code   int
		stderr string
		stdout string
	}{
		"done":            {[]string{"-url", pool.Addr(), "-shares", "5"}, exitDone, "", "shares: "},
		"duration":        {[]string{"-url", pool.Addr(), "-rate", "1", "-duration", "1s"}, exitDone, "", "hashrate"},
		"too few shares":  {[]string{"-url", kicking.Addr(), "-shares", "1000000"}, exitFailed, "minersim: ", "unanswered"},
		"no connection":   {[]string{"-url", refusing.Addr()}, exitFailed, "minersim: ", "1 connections asked for"},
		"never connected": {[]string{"-url", refusing.Addr(), "-reconnect", "-duration", "50ms"}, exitFailed, "no connection was authorized", ""},
		"acks not opened": {[]string{"-url", pool.Addr(), "-acks", t.TempDir()}, exitFailed, "is a directory", ""},
		"acks not kept":   {[]string{"-url", pool.Addr(), "-acks", "/dev/full"}, exitFailed, "not recorded", ""},
		"version":         {[]string{"-version"}, exitDone, "minersim " + service.Version(), ""},
		"help":            {[]string{"-help"}, exitDone, "-invalid", ""},
		"unknown flag":    {[]string{"-colour"}, exitUsage, "-colour", ""},
		"argument":        {[]string{"pool"}, exitUsage, `unexpected argument "pool"`, ""},
		"kind":            {[]string{"-invalid", "ugly", "-rate", "1"}, exitUsage, "not one of lowdiff", ""},
		"no rate":         {[]string{"-invalid", "badjob"}, exitUsage, "need a rate", ""},
		"url":             {[]string{"-url", "stratum+udp://h:1"}, exitUsage, "scheme", ""},
		"mask":            {[]string{"-version-mask", "1fff"}, exitUsage, "8 hex digits", ""},
		"conns":           {[]string{"-conns", "0"}, exitUsage, "conns", ""},
		"rate":            {[]string{"-rate", "NaN"}, exitUsage, "rate", ""},
		"long":            {[]string{"-duration", "-1s"}, exitUsage, "duration", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), test.args, &stdout, &stderr)
			if code != test.code || !strings.Contains(stderr.String(), test.stderr) || !strings.Contains(stdout.String(), test.stdout) {
				t.Errorf("exit code %d, want %d\nstdout: %s\nstderr: %s", code, test.code, &stdout, &stderr)
			}
		})
	}
}

func TestInterruptIsNoFailure(t *testing.T) {
	t.Parallel()
	ctx, interrupt := context.WithCancel(t.Context())
	pool := (&pooltest.Pool{Handle: func(_ *pooltest.Conn, req pooltest.Request) bool {
		if req.Method == "mining.submit" {
			interrupt()
		}
		return false
	}}).Start(t)
	var stdout, stderr bytes.Buffer
	if code := run(ctx, []string{"-url", pool.Addr()}, &stdout, &stderr); code != exitDone {
		t.Errorf("exit code %d\n%s", code, &stderr)
	}
}

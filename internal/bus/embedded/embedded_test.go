package embedded_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"btcpool/internal/bus"
	"btcpool/internal/bus/embedded"
	"btcpool/internal/durable"
	"btcpool/internal/telemetry"
	"btcpool/internal/testkit"
)

// childDir makes this test's binary a broker that can be killed.
const childDir = "EMBEDDED_TEST_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		b, err := embedded.Start(dir, "127.0.0.1:0", zerolog.Nop())
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(b.Addr())
		_, _ = io.Copy(io.Discard, os.Stdin) // until the parent goes
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func start(t *testing.T, dir string) *embedded.Broker {
	t.Helper()
	b, err := embedded.Start(dir, "127.0.0.1:0", zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func newClient(t *testing.T, addr string) (*bus.Client, string) {
	t.Helper()
	cfg := bus.DefaultConfig()
	cfg.Brokers = []string{addr}
	return testkit.Bus(t, cfg), cfg.Topics.Share
}

func messages(from, to int) []bus.Message {
	var msgs []bus.Message
	for i := from; i < to; i++ {
		msgs = append(msgs, bus.Message{Value: fmt.Appendf(nil, "%d", i)})
	}
	return msgs
}

func values(msgs []bus.Message) (values []string) {
	for _, m := range msgs {
		values = append(values, string(m.Value))
	}
	return values
}

// readAll returns what is in topic.
func readAll(t *testing.T, c *bus.Client, topic string) (got []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testkit.Patience)
	defer cancel()
	caughtUp := false
	err := c.Read(ctx, topic, bus.Earliest(), func(m bus.Message) error {
		got = append(got, string(m.Value))
		return nil
	}, bus.CaughtUp(func() { caughtUp = true; cancel() }))
	if err != nil || !caughtUp {
		t.Fatalf("read: %v, caught up: %v", err, caughtUp)
	}
	return got
}

func TestRestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := start(t, dir)
	if _, err := embedded.Start(dir, "127.0.0.1:0", zerolog.Nop()); !errors.Is(err, durable.ErrLocked) {
		t.Errorf("second broker on the directory: got %v, want ErrLocked", err)
	}
	c, topic := newClient(t, b.Addr())
	msgs := messages(0, 100)
	if err := errors.Join(c.EnsureTopics(t.Context(), topic), c.Write(t.Context(), topic, msgs...)); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}

	b = start(t, dir)
	defer b.Close()
	c, _ = newClient(t, b.Addr())
	if diff := cmp.Diff(values(msgs), readAll(t, c, topic)); diff != "" {
		t.Error(diff)
	}
}

func TestKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for round := range 3 {
		child := exec.Command(exe)
		child.Env = append(os.Environ(), childDir+"="+dir)
		stdin, _ := child.StdinPipe() // closes with us, so that the child never outlives the test
		stdout, _ := child.StdoutPipe()
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		addr, err := bufio.NewReader(stdout).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		c, topic := newClient(t, strings.TrimSpace(addr))
		if err := c.EnsureTopics(t.Context(), topic); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, readAll(t, c, topic)); diff != "" {
			t.Fatalf("round %d: %s", round, diff)
		}
		msgs := messages(round*100, round*100+100)
		if err := c.Write(t.Context(), topic, msgs...); err != nil {
			t.Fatal(err)
		}
		want = append(want, values(msgs)...)
		_ = child.Process.Kill()
		_ = child.Wait()
		stdin.Close()
	}
}

func TestRefusesTakenAddress(t *testing.T) {
	t.Parallel()
	b := start(t, t.TempDir())
	defer b.Close()
	dir := t.TempDir()
	if _, err := embedded.Start(dir, b.Addr(), zerolog.Nop()); err == nil {
		t.Fatal("two brokers on one address")
	}
	start(t, dir).Close() // and nothing of the failure stays
}

func TestRetention(t *testing.T) {
	t.Parallel()
	b := start(t, t.TempDir())
	defer b.Close()
	c, _ := newClient(t, b.Addr())
	ctx, cancel := context.WithTimeout(t.Context(), testkit.Patience)
	defer cancel()
	topic := bus.DefaultConfig().Topics.RawGBT // kept for an hour
	now := time.Now()
	if err := errors.Join(
		c.EnsureTopics(ctx, topic),
		c.Write(ctx, topic, bus.Message{Time: now.Add(-3 * time.Hour), Value: []byte("old")}),
		c.Write(ctx, topic, bus.Message{Time: now.Add(-2 * time.Hour), Value: []byte("also old")}),
		c.Write(ctx, topic, bus.Message{Time: now, Value: []byte("young")}),
	); err != nil {
		t.Fatal(err)
	}
	b.ApplyRetention()
	for _, tc := range []struct {
		name    string
		last    bus.Mark // what a reader that was away has read
		skipped float64
	}{
		{"one was not read", bus.Mark{Offset: 0, Checksum: 7}, 1},
		{"one was not read, by an old checkpoint", bus.Mark{Offset: 0}, 1},
		{"all were read", bus.Mark{Offset: 1, Checksum: 7}, 0},
	} {
		registry := prometheus.NewRegistry()
		cfg := bus.DefaultConfig()
		cfg.Brokers = []string{b.Addr()}
		c, err := bus.New(cfg, telemetry.Deps{Log: zerolog.Nop(), Metrics: registry})
		if err != nil {
			t.Fatal(err)
		}
		var got []int64
		reading, caughtUp := context.WithCancel(ctx)
		err = c.Read(reading, topic, bus.After(map[int]bus.Mark{0: tc.last}, 0), func(m bus.Message) error {
			got = append(got, m.Offset)
			return nil
		}, bus.CaughtUp(caughtUp))
		caughtUp()
		c.Close()
		if diff := cmp.Diff([]int64{2}, got); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", tc.name, err, diff)
		}
		if n := testkit.Metric(t, registry, "btcpool_bus_read_skipped_total"); n != tc.skipped {
			t.Errorf("%s: %v skipped, want %v", tc.name, n, tc.skipped)
		}
		if n := testkit.Metric(t, registry, "btcpool_bus_read_rewinds_total"); n != 0 {
			t.Errorf("%s: %v rewinds", tc.name, n)
		}
	}
}

func TestStrangers(t *testing.T) {
	t.Parallel()
	b := start(t, t.TempDir())
	defer b.Close()
	for _, in := range []string{
		"",
		"GET / HTTP/1.1\r\nHost: pool\r\n\r\n",
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
		"\x00\x00\x00\x00",
		"\x00\x00\x00\x00\x00\x00\x00\x00",
		"\xff\xff\xff\xff\x00\x03",
		"\x00\x00\x00\x0a\x7f\xff\x00\x00\x00\x00\x00\x00\x00\x00",
		"\x00\x00\x00\x0a\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00",
		"\x00\x00\x00\x0a\x00\x03\x7f\xff\x00\x00\x00\x00\xff\xff",
		"\x00\x00\x00\x12\x00\x01\x00\x04\x00\x00\x00\x00\xff\xff\x7f\xff\xff\xff\x7f\xff\xff\xff",
	} {
		conn, err := net.Dial("tcp", b.Addr())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, in); err != nil {
			t.Fatal(err)
		}
		// The broker has taken it all when it answers or ends the connection.
		_ = conn.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, conn)
		conn.Close()
	}
	c, _ := newClient(t, b.Addr())
	if err := c.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

package notify

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"btcpool/internal/telemetry"
)

// childDir makes this test's binary a process that can be killed.
const childDir = "NOTIFY_TEST_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		if err := child(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	goleak.VerifyTestMain(m)
}

func testConfig(dir string) Config {
	cfg := DefaultConfig()
	cfg.DataDir, cfg.HoldFor, cfg.Pause = dir, 0, 0
	cfg.Targets = []Target{{Name: "ops", Kind: Webhook, URL: "https://example.org/hook"}}
	return cfg
}

func blocksUpTo(n int32) (blocks []Block) {
	for i := n; i > 0 && i > n-100; i-- {
		blocks = append(blocks, Block{Hash: fmt.Sprintf("%064x", i), Height: i, User: "alice", State: "confirmed", Time: noon})
	}
	return blocks
}

// child finds a block again and again, says so ("found n"), and then what is sent ("sent id first last").
func child(dir string) error {
	first, err := os.ReadFile(filepath.Join(dir, "first"))
	if err != nil {
		return err
	}
	var n int32
	if _, err := fmt.Sscan(string(first), &n); err != nil {
		return err
	}
	notifier, err := New(testConfig(filepath.Join(dir, "notify")), telemetry.Deps{Log: zerolog.Nop()})
	if err != nil {
		return err
	}
	notifier.targets[0].sender = senderFunc(func(_ context.Context, m *Message) error {
		pause() // between taken up and sent
		if _, err := fmt.Println("sent", m.ID, *m.Items[0].Height, *m.Items[len(m.Items)-1].Height); err != nil {
			os.Exit(1) // the parent has gone
		}
		pause() // between sent and noted
		return nil
	})
	go func() { _ = notifier.Run(context.Background()) }() // ends with the process
	for ; ; n++ {
		if _, err := fmt.Println("found", n); err != nil {
			return err
		}
		notifier.Blocks(time.Now(), blocksUpTo(n))
		pause()
	}
}

func pause() { time.Sleep(time.Duration(rand.IntN(3000)) * time.Microsecond) }

// TestKilled kills a process that finds blocks at random moments, and looks whether each is told, and twice only by the
// same message. It is not parallel to other tests: a process that is being started holds their locks for a moment.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	told := make(map[int32]string) // ids by block
	found := int32(1)
	repeated := 0
	for range 10 {
		if err := os.WriteFile(filepath.Join(dir, "first"), fmt.Append(nil, found), 0o600); err != nil {
			t.Fatal(err)
		}
		process := exec.Command(exe)
		process.Env = append(os.Environ(), childDir+"="+dir)
		process.Stderr = os.Stderr
		out, err := process.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := process.Start(); err != nil {
			t.Fatal(err)
		}
		lines := rand.IntN(40) + 5
		for in := bufio.NewScanner(out); in.Scan(); lines-- {
			if lines == 0 {
				if err := process.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
			var id string
			var first, last int32
			if n, _ := fmt.Sscanf(in.Text(), "found %d", &first); n == 1 {
				found = first
				continue
			}
			if _, err := fmt.Sscanf(in.Text(), "sent %s %d %d", &id, &first, &last); err != nil {
				continue // a line that was cut off
			}
			for n := first; n <= last; n++ {
				if told[n] != "" && told[n] != id {
					t.Errorf("block %d is told by %s and %s", n, told[n], id)
				}
				if told[n] == id && n == first {
					repeated++
				}
				told[n] = id
			}
		}
		_ = process.Wait() // it was killed
	}
	n, err := New(testConfig(filepath.Join(dir, "notify")), telemetry.Deps{Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	n.Blocks(time.Now(), blocksUpTo(found))
	for len(n.state.Queue) > 0 { // what is there, and then what had to wait for it
		for _, i := range n.state.Queue[0].Message.Items {
			told[*i.Height] = n.state.Queue[0].Message.ID
		}
		n.state.drop(n.state.Queue[0])
		n.Blocks(time.Now(), blocksUpTo(found))
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	heights := slices.Sorted(maps.Keys(told))
	if len(heights) == 0 || heights[len(heights)-1] != found {
		t.Fatalf("block %d is not told, of %d", found, len(heights))
	}
	for i := int32(2); i <= found; i++ { // the first one was there before
		if told[i] == "" {
			t.Errorf("block %d was never told", i)
		}
	}
	t.Logf("%d blocks, %d messages came twice", found, repeated)
}

// A target that does not answer is tried ever more slowly, what happens meanwhile is one message, and after a day it is
// given up.
func TestRetries(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		n, err := New(testConfig(dir), telemetry.Deps{Log: zerolog.Nop()})
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		began := time.Now()
		var tries []time.Duration
		var got []string
		ids := make(map[string]bool)
		failure := errors.New("away")
		var mu sync.Mutex // of the four, which sleep lets go
		sleep := func(d time.Duration) {
			mu.Unlock()
			time.Sleep(d)
			synctest.Wait()
			mu.Lock()
		}
		mu.Lock()
		defer mu.Unlock()
		n.targets[0].sender = senderFunc(func(_ context.Context, m *Message) error {
			mu.Lock()
			defer mu.Unlock()
			tries = append(tries, time.Since(began))
			ids[m.ID] = true
			if failure == nil {
				got = append(got, m.Text())
			}
			return failure
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- n.Run(ctx) }()
		high := func(refused uint64) {
			n.Look(time.Now(), slices.Values([]Sight{{Figures: Figures{Shares: 100, Refused: refused}}, {Subject{UserID: 1, User: "alice"}, Figures{Shares: 100, Refused: refused}}}))
			sleep(0)
		}
		high(50)
		sleep(4 * time.Hour)
		high(0)
		high(60)
		high(70)
		sleep(time.Minute)
		want := []time.Duration{0, 30 * time.Second, 90 * time.Second, 210 * time.Second, 450 * time.Second, 930 * time.Second, 1890 * time.Second}
		if len(tries) < 9 || len(tries) > 12 || !slices.Equal(tries[:len(want)], want) {
			t.Errorf("tries after %v", tries)
		}
		if len(ids) != 1 || n.oldest(time.Now()) != 4*time.Hour+time.Minute {
			t.Errorf("%d messages, the oldest of %v", len(ids), n.oldest(time.Now()))
		}
		failure = nil
		sleep(time.Hour)
		high(0)
		if len(got) != 2 || strings.Count(got[1], "accepted again") != 2 {
			t.Errorf("got %q", got)
		}
		failure = errors.New("away for good")
		high(80)
		sleep(26 * time.Hour)
		if n.oldest(time.Now()) != 0 {
			t.Errorf("the oldest is of %v", n.oldest(time.Now()))
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// Nothing is sent that is not on disk; it is when the disk takes it again.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		n, err := New(testConfig(dir), telemetry.Deps{Log: zerolog.Nop()})
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		var sent atomic.Int64
		n.targets[0].sender = senderFunc(func(context.Context, *Message) error { sent.Add(1); return nil })
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- n.Run(ctx) }()
		n.Blocks(time.Now(), blocksUpTo(1))
		whole := n.cfg.DataDir
		n.mu.Lock()
		n.cfg.DataDir = filepath.Join(dir, "gone")
		n.mu.Unlock()
		n.Blocks(time.Now(), blocksUpTo(2))
		time.Sleep(time.Hour)
		if sent.Load() != 0 || n.Ready() == nil {
			t.Errorf("%d are sent, ready: %v", sent.Load(), n.Ready())
		}
		n.mu.Lock()
		n.cfg.DataDir = whole
		n.mu.Unlock()
		time.Sleep(time.Minute)
		if sent.Load() != 1 || n.Ready() != nil {
			t.Errorf("%d are sent, ready: %v", sent.Load(), n.Ready())
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestOff(t *testing.T) {
	t.Parallel()
	n, err := New(DefaultConfig(), telemetry.Deps{Log: zerolog.Nop()})
	if n != nil || err != nil {
		t.Fatal(n, err)
	}
	n.Look(noon, slices.Values([]Sight{}))
	n.Blocks(noon, nil)
	if err := errors.Join(n.Run(t.Context()), n.Ready(), n.Close()); err != nil || !n.Covered(nil) {
		t.Error(err)
	}
	if err := Test(t.Context(), DefaultConfig(), zerolog.Nop()); err == nil {
		t.Error("a test without targets went well")
	}
}

// A folder is one process's, and a file that is damaged is put aside.
func TestState(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t.TempDir())
	deps := telemetry.Deps{Log: zerolog.Nop()}
	n, err := New(cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(cfg, deps); err == nil || !strings.Contains(err.Error(), "notify.data_dir") {
		t.Errorf("a second one: %v", err)
	}
	n.Blocks(noon, blocksUpTo(1))
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(cfg.DataDir, stateFile)
	for _, damage := range []string{"", "{", `{"format":2}`, `{"format":1,"conditions":[null]}`, "null", `{"format":1,"queue":[{}]}`} {
		if err := os.WriteFile(file, []byte(damage), 0o600); err != nil {
			t.Fatal(err)
		}
		n, err := New(cfg, deps)
		if err != nil {
			t.Fatalf("%q: %v", damage, err)
		}
		aside, err := os.Open(file + ".unreadable")
		if err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(aside); string(text) != damage || err != nil {
			t.Errorf("%q became %q, %v", damage, text, err)
		}
		aside.Close()
		n.Blocks(noon, blocksUpTo(3))
		if len(n.state.Queue) != 0 {
			t.Errorf("%q: history is told", damage)
		}
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// What is written is read as it was.
func FuzzState(f *testing.F) {
	f.Add([]byte(`{"format":1,"looked":1,"blocks":[{"hash":"a","state":"accepted","told":{"ops":"accepted"}}],"queue":[{"target":"ops","message":{"id":"msg_1","type":"block_found","items":[]}}],"last":{"ops/block_found":1},"targets":["ops"],"conditions":[{"event":"worker_silent","user_id":1,"worker_id":2,"raised":true,"since":1,"told":["ops"]}]}`))
	f.Add([]byte(`{"format":1}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := parseState(text)
		if err != nil {
			return
		}
		s.dirty = true
		dir := t.TempDir()
		if err := s.write(dir); err != nil {
			return // a time that JSON does not hold
		}
		first, err := os.ReadFile(filepath.Join(dir, stateFile))
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseState(first)
		if err != nil {
			t.Fatalf("%s: %v", first, err)
		}
		again.dirty = true
		if err := again.write(dir); err != nil {
			t.Fatal(err)
		}
		second, err := os.ReadFile(filepath.Join(dir, stateFile))
		if err != nil || string(first) != string(second) {
			t.Errorf("%v:\n%s\n%s", err, first, second)
		}
		s.take([]*target{{Target: Target{Name: "ops"}}})
	})
}

package spool_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"btcpool/internal/bus"
	"btcpool/internal/spool"
	"btcpool/internal/telemetry"
)

// childDir makes this test's binary a process that can be killed.
const childDir = "SPOOL_TEST_DIR"

// child appends for ever and says on standard output what was acknowledged ("acked epoch/seq") and what was sent ("sent
// epoch/seq").
func child(dir string) {
	var mu sync.Mutex
	say := func(word string, names ...string) {
		mu.Lock()
		defer mu.Unlock()
		w := bufio.NewWriter(os.Stdout)
		for _, name := range names {
			fmt.Fprintln(w, word, name)
		}
		if w.Flush() != nil { // the parent has gone
			os.Exit(1)
		}
	}
	s, err := spool.Open(spool.Config{Dir: dir}, telemetry.Deps{Log: zerolog.New(os.Stderr).Level(zerolog.WarnLevel)}, "child")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for range 8 {
		go func() {
			for {
				seq, err := s.Append(1, text(s.Epoch()))
				if err == nil {
					err = s.Wait(context.Background(), seq)
				}
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				say("acked", fmt.Sprintf("%d/%d", s.Epoch(), seq))
			}
		}()
	}
	_ = s.Run(context.Background(), topic(func(_ context.Context, msgs []bus.Message) error {
		names := make([]string, len(msgs))
		for i, m := range msgs {
			names[i] = string(m.Value)
		}
		say("sent", names...)
		time.Sleep(time.Duration(rand.IntN(3)) * time.Millisecond) // so that a queue forms
		return nil
	}))
}

// TestKilled kills a process that spools at random moments and looks whether all that it acknowledged is sent, in
// order, with no more than the tail of the life before repeated. It is not parallel to other tests: a process that is
// being started holds their locks for a moment.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const rounds = 30
	acked := make(map[string]bool)
	check := sentCheck{t: t}
	for round := range rounds {
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), childDir+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		check.opened()
		lines := bufio.NewReader(out)
		if round%2 == 0 { // the others may die while they open
			_, _ = lines.Peek(1)
		}
		killer := time.AfterFunc(time.Duration(20+rand.IntN(80))*time.Millisecond, func() { _ = cmd.Process.Kill() })
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				break // what has no end may be half a name
			}
			switch word, name, _ := strings.Cut(strings.TrimSpace(line), " "); word {
			case "acked":
				acked[name] = true
			case "sent":
				check.sent(name)
			}
		}
		_ = cmd.Wait()
		killer.Stop()
	}
	check.opened()
	for _, name := range drain(t, open(t, spool.Config{Dir: dir})) {
		check.sent(name)
	}
	lost := 0
	for name := range acked {
		if _, ok := check.at[name]; !ok {
			lost++
		}
	}
	t.Logf("%d acknowledged, %d sent, %d of them again", len(acked), len(check.at), check.repeated)
	if lost > 0 || len(acked) == 0 {
		t.Errorf("%d of %d acknowledged records were lost", lost, len(acked))
	}
}

// sentCheck knows in which order records came for the first time.
type sentCheck struct {
	t        *testing.T
	order    []string
	at       map[string]int // index in order
	next     int            // index that comes next, -1 after an opening
	repeated int
}

func (c *sentCheck) opened() { c.next = -1 }

func (c *sentCheck) sent(name string) {
	if c.at == nil {
		c.at = make(map[string]int)
	}
	i, again := c.at[name]
	switch {
	case !again && (c.next == len(c.order) || c.next == -1):
		var epoch, seq, lastEpoch, lastSeq uint64
		fmt.Sscanf(name, "%d/%d", &epoch, &seq)
		if len(c.order) > 0 {
			fmt.Sscanf(c.order[len(c.order)-1], "%d/%d", &lastEpoch, &lastSeq)
		}
		if epoch < lastEpoch || epoch == lastEpoch && seq != lastSeq+1 || epoch > lastEpoch && seq != 1 {
			c.t.Fatalf("%s was sent after %d/%d", name, lastEpoch, lastSeq)
		}
		i = len(c.order)
		c.at[name] = i
		c.order = append(c.order, name)
	case again && (c.next == i || c.next == -1):
		c.repeated++
	default:
		c.t.Fatalf("%s was sent out of order", name)
	}
	c.next = i + 1
}

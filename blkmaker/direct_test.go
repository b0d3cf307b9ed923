package blkmaker

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"

	"btcpool/internal/bitcoin/noderpc"
	"btcpool/internal/bus"
	"btcpool/internal/handover"
	"btcpool/internal/job"
	"btcpool/internal/service"
	"btcpool/internal/share"
	"btcpool/internal/store"
	"btcpool/internal/testkit"
)

const testToken = "0123456789abcdef"

// sender hands shares over as sserver does.
func sender(t testing.TB, addr string) *handover.Client {
	t.Helper()
	c, err := handover.New(handover.Config{URLs: []string{"http://" + addr}, Secret: handover.Secret{Token: testToken}}, service.Deps{Log: zerolog.Nop()})
	must(t, err)
	testkit.Run(t, c.Run)
	return c
}

// listen turns the direct way on.
func (p *pool) listen(t *testing.T) {
	p.cfg.Handover = handover.ServerConfig{Listen: testkit.FreeAddr(t), Secret: handover.Secret{Token: testToken}}
}

// publish sends job and template of a block, and returns its solved share.
func (p *pool) publish(t *testing.T) (solved bus.Message, hash string) {
	t.Helper()
	template, stratumJob, solved, hash := p.messages(t)
	p.write(t, p.cfg.Kafka.Topics.RawGBT, template)
	p.write(t, p.cfg.Kafka.Topics.Job, stratumJob)
	return solved, hash
}

// A share that comes both ways is worked on once.
func TestBothWays(t *testing.T) {
	t.Parallel()
	p := startPool(t)
	p.listen(t)
	s, stop := p.start(t)
	direct := sender(t, s.Addr().String())
	solved, hash := p.publish(t)
	direct.Send(solved.Value)
	p.eventuallyState(t, hash, store.Accepted)
	p.write(t, p.cfg.Kafka.Topics.SolvedShare, solved)
	testkit.Eventually(t, "Kafka's copy read", func() bool { return s.journal.lastRead(p.cfg.Kafka.Topics.SolvedShare) != nil })
	testkit.Eventually(t, "share done", func() bool { return len(s.room)+len(s.waiting) == 0 })

	solved, hash = p.publish(t)
	p.write(t, p.cfg.Kafka.Topics.SolvedShare, solved)
	p.eventuallyState(t, hash, store.Accepted)
	direct.Send(solved.Value)
	stop() // ends the requests under way
	for way, want := range map[string]float64{wayDirect: 1, wayKafka: 1} {
		if got := testutil.ToFloat64(s.metrics.arrivals.WithLabelValues(string(kindBlock), way)); got != want {
			t.Errorf("%v shares came by %s first, want %v", got, way, want)
		}
	}
	if counts, err := p.store.BlockCount(t.Context()); err != nil || counts[store.Accepted] != 2 {
		t.Errorf("%v, %v", counts, err)
	}
}

// Who found a block is written down whole, whichever way the share came and across a restart.
func TestLongFinder(t *testing.T) {
	t.Parallel()
	const name = "bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr.garage-1"
	p := startPool(t)
	p.listen(t)
	s, stop := p.start(t)
	rename := func(m bus.Message) []byte {
		solved, err := share.ParseSolved(m.Value)
		must(t, err)
		solved.WorkerName = name
		return solved.AppendTo(nil)
	}
	wantName := func(hash string) {
		if got := p.eventuallyState(t, hash, store.Accepted); got.WorkerName != name {
			t.Errorf("found by %s", got.WorkerName)
		}
	}
	solved, hash := p.publish(t)
	sender(t, s.Addr().String()).Send(share.WithName(name, rename(solved)))
	wantName(hash)
	solved, hash = p.publish(t)
	p.write(t, p.cfg.Kafka.Topics.SolvedShare, bus.Message{Key: []byte(name), Value: rename(solved)})
	wantName(hash)

	template, stratumJob, solved, hash := p.messages(t)
	p.write(t, p.cfg.Kafka.Topics.SolvedShare, bus.Message{Key: []byte(name), Value: rename(solved)})
	testkit.Eventually(t, "share in the journal", func() bool { return len(s.journal.pending()) == 1 })
	stop()
	p.start(t)
	p.write(t, p.cfg.Kafka.Topics.RawGBT, template)
	p.write(t, p.cfg.Kafka.Topics.Job, stratumJob)
	wantName(hash)
}

// With Kafka away, and a restart since the job came, a share that is handed over directly still becomes a block.
func TestKafkaAway(t *testing.T) {
	t.Parallel()
	p := startPool(t)
	p.listen(t)
	s, stop := p.start(t)
	solved, hash := p.publish(t)
	solvedLater, later := p.publish(t)
	for _, m := range []bus.Message{solved, solvedLater} {
		parsed, err := share.ParseSolved(m.Value)
		must(t, err)
		testkit.Eventually(t, "job and template read", func() bool {
			_, _, _, err := s.cache.find(job.ID(parsed.JobID))
			return err == nil
		})
	}
	must(t, p.stopBroker())
	sender(t, s.Addr().String()).Send(solved.Value)
	p.eventuallyState(t, hash, store.Accepted)
	stop()

	s, _ = p.start(t)
	sender(t, s.Addr().String()).Send(solvedLater.Value)
	testkit.Eventually(t, "second block at the node", func() bool {
		where, err := p.rpc.Block(t.Context(), later)
		return err == nil && where.Confirmations == -1 // the first block was first
	})
	if err := s.Ready(); err == nil || !strings.Contains(err.Error(), "still being read") {
		t.Errorf("ready: %v", err)
	}
}

// While too much is under way a share is not taken, and comes again.
func TestBusy(t *testing.T) {
	t.Parallel()
	p := startPool(t)
	p.listen(t)
	s, _ := p.start(t)
	for range maxSolving {
		s.room <- struct{}{}
	}
	solved, hash := p.publish(t)
	sender(t, s.Addr().String()).Send(solved.Value)
	p.write(t, p.cfg.Kafka.Topics.SolvedShare, solved)
	if err := (worker{Service: s}).takeDirect(t.Context(), solved.Value); !errors.Is(err, errBusy) {
		t.Errorf("%v, want errBusy", err)
	}
	for range maxSolving {
		<-s.room
	}
	p.eventuallyState(t, hash, store.Accepted)
}

// In a crowd a block that is beside the chain gives its room back, so that others go ahead.
func TestCrowd(t *testing.T) {
	t.Parallel()
	p := startPool(t)
	s, _ := p.start(t)
	for range maxSolving/2 + 1 {
		s.room <- struct{}{}
	}
	first, hash := p.publish(t)
	second, beside := p.publish(t) // of the same height
	p.write(t, p.cfg.Kafka.Topics.SolvedShare, first)
	p.eventuallyState(t, hash, store.Accepted)
	testkit.Eventually(t, "first share done", func() bool { return len(s.room) == maxSolving/2+1 })
	p.write(t, p.cfg.Kafka.Topics.SolvedShare, second)
	p.eventuallyState(t, beside, store.Submitted)
	testkit.Eventually(t, "the share beside the chain gives its room back", func() bool { return len(s.room) == maxSolving/2+1 })
	for range maxSolving/2 + 1 {
		<-s.room
	}
}

// childConfig names the variable that makes this test's binary a blkmaker.
const childConfig = "BLKMAKER_TEST_CONFIG"

// TestChild is no test: it is the process that the tests below kill.
func TestChild(t *testing.T) {
	text := os.Getenv(childConfig)
	if text == "" {
		return
	}
	var cfg Config
	must(t, json.Unmarshal([]byte(text), &cfg))
	s, err := New(cfg, service.Deps{Log: zerolog.Nop()})
	must(t, err)
	fmt.Println("started")
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	must(t, s.Run(ctx))
}

// child starts a blkmaker as a process of its own; kill is SIGKILL.
func (p *pool) child(t *testing.T) (kill func()) {
	t.Helper()
	text, err := json.Marshal(p.cfg)
	must(t, err)
	cmd := exec.Command(os.Args[0], "-test.run=^TestChild$")
	cmd.Env = append(os.Environ(), childConfig+"="+string(text))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	killed := false
	kill = func() {
		if !killed {
			killed = true
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}
	t.Cleanup(kill)
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if lines.Text() == "started" {
			return kill
		}
	}
	t.Fatal("child did not start")
	return nil
}

// testKilledAfterTaking has a blkmaker killed right after it has a solved share, while its node is away, and wants the
// block to be there after the restart.
func testKilledAfterTaking(t *testing.T, p *pool, send func(solved bus.Message)) {
	addr, dir := testkit.FreeAddr(t), t.TempDir()
	stopNode := p.startNode(t, dir, addr)
	kill := p.child(t)
	solved, hash := p.publish(t)
	stopNode()
	send(solved)
	testkit.Eventually(t, "share in the journal", func() bool {
		text, err := os.ReadFile(p.cfg.DataDir + "/journal")
		return err == nil && strings.Contains(string(text), hash)
	})
	kill()

	p.startNode(t, dir, addr)
	p.child(t)
	p.eventuallyState(t, hash, store.Accepted)
}

func TestKilledAfterHandover(t *testing.T) {
	t.Parallel()
	p := startPool(t)
	p.listen(t)
	testKilledAfterTaking(t, p, func(solved bus.Message) { sender(t, p.cfg.Handover.Listen).Send(solved.Value) })
}

func TestKilledAfterReading(t *testing.T) {
	t.Parallel()
	p := startPool(t)
	testKilledAfterTaking(t, p, func(solved bus.Message) { p.write(t, p.cfg.Kafka.Topics.SolvedShare, solved) })
}

// Killed at any moment, a blkmaker loses no block.
func TestKilledAnytime(t *testing.T) {
	t.Parallel()
	p := startPool(t)
	p.listen(t)
	for round := range 8 {
		kill := p.child(t)
		solved, hash := p.publish(t)
		if round%2 == 0 {
			p.write(t, p.cfg.Kafka.Topics.SolvedShare, solved)
		} else {
			sender(t, p.cfg.Handover.Listen).Send(solved.Value)
		}
		time.Sleep(rand.N(100 * time.Millisecond)) // the moment is what this is about
		kill()
		kill = p.child(t)
		p.eventuallyState(t, hash, store.Accepted)
		kill()
	}
}

// Btcd takes a block whose parent it lacks without a word. It is not accepted until the node knows it.
func TestNodeWithoutParent(t *testing.T) {
	t.Parallel()
	p := startPool(t)
	node := newFakeNode(t)
	p.cfg.Nodes = []noderpc.Config{{URL: node.URL, User: "u", Password: "p"}}
	s, _ := p.start(t)
	hash := p.find(t)
	p.eventuallyState(t, hash, store.Submitted)
	before := node.submitted.Load()
	testkit.Eventually(t, "submitted again", func() bool { return node.submitted.Load() >= before+2 })
	if state := p.block(t, hash).State; state != store.Submitted {
		t.Errorf("block is %s, want submitted", state)
	}
	node.knows.Store(&hash)
	p.eventuallyState(t, hash, store.Accepted)
	testkit.Eventually(t, "share done", func() bool { return len(s.room)+len(s.waiting) == 0 })
}

// Solved shares that cannot be blocks are refused at once, and thousands whose jobs are unknown do not hold up one
// whose job is here.
func TestUnknownJobsDoNotBlock(t *testing.T) {
	t.Parallel()
	p := startPool(t)
	p.listen(t)
	s, _ := p.start(t)
	testkit.Eventually(t, "node known", func() bool { best, _ := s.best(); return best != nil })
	solved, hash := p.publish(t)
	w := worker{s, t.Context(), t.Context()}
	good, err := share.ParseSolved(solved.Value)
	must(t, err)
	if err := w.takeDirect(t.Context(), make([]byte, 500)); !errors.Is(err, share.ErrSolved) {
		t.Errorf("zeros: %v", err)
	}
	for name, change := range map[string]func(*share.Solved){
		"height 0":  func(s *share.Solved) { s.Height = 0 },
		"far ahead": func(s *share.Solved) { s.Height += 2 * farOff },
		"job 0":     func(s *share.Solved) { s.JobID = 0 },
		"no bits":   func(s *share.Solved) { clear(s.Header[72:76]) },
	} {
		bad := good
		change(&bad)
		if err := w.takeDirect(t.Context(), bad.AppendTo(nil)); !errors.Is(err, share.ErrSolved) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range maxSolving + 100 {
		fake := good
		fake.JobID = 1<<40 + uint64(i)
		binary.LittleEndian.PutUint32(fake.Header[76:], uint32(i))
		fake.Header[0] ^= 0x55
		testkit.Eventually(t, "there is room", func() bool { return w.takeDirect(t.Context(), fake.AppendTo(nil)) == nil })
	}
	must(t, w.takeDirect(t.Context(), solved.Value))
	p.eventuallyState(t, hash, store.Accepted)
}

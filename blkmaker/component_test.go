package blkmaker

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"btcpool/internal/bitcoin"
	"btcpool/internal/bitcoin/noderpc"
	"btcpool/internal/bitcoin/regnode"
	"btcpool/internal/bus"
	"btcpool/internal/bus/embedded"
	"btcpool/internal/durable"
	"btcpool/internal/handover"
	"btcpool/internal/job"
	"btcpool/internal/service"
	"btcpool/internal/share"
	"btcpool/internal/store"
	"btcpool/internal/testkit"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/go-zeromq/zmq4.(*pubMWriter).run")) // the test's node: a leak of its ZeroMQ library
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pool is all that a blkmaker works with. The test itself is gbtmaker, jobmaker, sserver and miner.
type pool struct {
	cfg        Config
	stopBroker func() error // the embedded Kafka
	bus        *bus.Client
	node       *regnode.Node
	rpc        *noderpc.Client
	jobs       *job.IDs
	dsn        string
	store      *store.Store
}

func startPool(t *testing.T) *pool {
	t.Helper()
	broker, err := embedded.Start(t.TempDir(), testkit.FreeAddr(t), zerolog.Nop())
	must(t, err)
	stopBroker := sync.OnceValue(broker.Close)
	t.Cleanup(func() { _ = stopBroker() })

	p := &pool{cfg: DefaultConfig(), stopBroker: stopBroker, jobs: job.NewIDs(1), dsn: "sqlite:" + filepath.Join(t.TempDir(), "pool.db")}
	p.cfg.Network = "regtest"
	p.cfg.DataDir = t.TempDir()
	p.cfg.Confirmations = 3
	p.cfg.Kafka.Brokers = []string{broker.Addr()}
	p.cfg.Database.DSN = p.dsn
	p.startNode(t, t.TempDir(), testkit.FreeAddr(t))

	topics := p.cfg.Kafka.Topics
	p.bus = testkit.Bus(t, p.cfg.Kafka, topics.RawGBT, topics.Job, topics.SolvedShare)
	p.store, err = store.Open(t.Context(), p.dsn)
	must(t, err)
	t.Cleanup(func() { p.store.Close() })
	return p
}

// startNode starts the node and puts it into the configuration.
func (p *pool) startNode(t *testing.T, dir, addr string) (stop func()) {
	t.Helper()
	node, err := regnode.Open(regnode.Config{Dir: dir, RPCAddr: addr, User: "user", Password: "password", Bits: easyBits}, zerolog.Nop())
	must(t, err)
	stop = testkit.Run(t, func(ctx context.Context) error { return errors.Join(node.Run(ctx), node.Close()) })
	cfg := noderpc.Config{URL: node.RPCURL(), User: node.User(), Password: node.Password()}
	p.node, p.cfg.Nodes = node, []noderpc.Config{cfg}
	p.rpc, err = noderpc.New(cfg)
	must(t, err)
	t.Cleanup(p.rpc.Close)
	return stop
}

// start runs a blkmaker until stop or the end of the test.
func (p *pool) start(t *testing.T) (s *Service, stop func()) {
	t.Helper()
	s, err := New(p.cfg, service.Deps{Log: zerolog.New(zerolog.NewTestWriter(t))})
	must(t, err)
	return s, testkit.Run(t, s.Run)
}

// messages makes the three messages of a block on the node's tip.
func (p *pool) messages(t *testing.T) (template, stratumJob, solved bus.Message, hash string) {
	t.Helper()
	raw, j := p.job(t, nil)
	s := testkit.Solve(t, j)
	return bus.Message{Value: raw.AppendTo(nil)}, bus.Message{Value: j.AppendTo(nil)}, bus.Message{Value: s.AppendTo(nil)},
		chainhash.Hash(bitcoin.DoubleSHA256(s.Header[:])).String()
}

// job makes a job on the node's tip whose coinbase commits to blocks of other chains.
func (p *pool) job(t *testing.T, aux []byte, rsk ...wire.TxOut) (job.RawGBT, *job.StratumJob) {
	t.Helper()
	response, err := p.rpc.BlockTemplate(t.Context(), "", nil)
	must(t, err)
	return testkit.JobOf(t, p.jobs, response, aux, rsk...)
}

func (p *pool) write(t *testing.T, topic string, m ...bus.Message) {
	t.Helper()
	must(t, p.bus.Write(t.Context(), topic, m...))
}

// find has a block found, in the order of a healthy pool.
func (p *pool) find(t *testing.T) (hash string) {
	t.Helper()
	template, stratumJob, solved, hash := p.messages(t)
	topics := p.cfg.Kafka.Topics
	p.write(t, topics.RawGBT, template)
	p.write(t, topics.Job, stratumJob)
	p.write(t, topics.SolvedShare, solved)
	return hash
}

// findForSubPool has a block found whose coinbase is that of a sub-pool.
func (p *pool) findForSubPool(t *testing.T, name string) (hash string) {
	t.Helper()
	raw, j := p.job(t, nil)
	s := testkit.Solve(t, j)
	of := j.With(job.SubPool{Coinbase1: j.Coinbase1, Coinbase2: append([]byte{j.Coinbase2[0] ^ 1}, j.Coinbase2[1:]...)})
	of.SubPools = map[string]job.SubPool{"another": {Coinbase1: []byte{1}, Coinbase2: []byte{2}}, name: j.Own()}
	topics := p.cfg.Kafka.Topics
	p.write(t, topics.RawGBT, bus.Message{Value: raw.AppendTo(nil)})
	p.write(t, topics.Job, bus.Message{Value: of.AppendTo(nil)})
	p.write(t, topics.SolvedShare, bus.Message{Value: s.AppendTo(nil)})
	return chainhash.Hash(bitcoin.DoubleSHA256(s.Header[:])).String()
}

func (p *pool) block(t *testing.T, hash string) store.Block {
	t.Helper()
	blocks, err := p.store.Blocks(t.Context(), 1000, 0)
	must(t, err)
	for _, b := range blocks {
		if b.Hash == hash {
			return b
		}
	}
	return store.Block{}
}

func (p *pool) eventuallyState(t *testing.T, hash string, want store.BlockState) store.Block {
	t.Helper()
	testkit.Eventually(t, "block "+hash+" "+string(want), func() bool { return p.block(t, hash).State == want })
	return p.block(t, hash)
}

func TestBlockIsAcceptedAndConfirmed(t *testing.T) {
	t.Parallel()
	p := startPool(t)
	s, _ := p.start(t)
	testkit.Eventually(t, "ready", func() bool { return s.Ready() == nil })

	hash := p.find(t)
	got := p.eventuallyState(t, hash, store.Accepted)
	if p.node.Height() != 1 || got.SubPool != "" || got.Height != 1 || got.UserID != 7 || got.WorkerID != 5 || got.WorkerName != "alice.rig" ||
		got.RewardSat != 50e8 || got.Bits != easyBits || got.Size < 200 || time.Since(got.CreatedAt) > testkit.Patience {
		t.Errorf("height %d, %+v", p.node.Height(), got)
	}
	testkit.Eventually(t, "block kept", func() bool {
		text, err := os.ReadFile(filepath.Join(p.cfg.DataDir, "blocks", "1-"+hash+".hex"))
		return err == nil && len(text) == 2*got.Size
	})

	_, err := p.node.Generate(t.Context(), 2)
	must(t, err)
	if got := p.eventuallyState(t, hash, store.Confirmed); got.Confirmations != 3 {
		t.Errorf("%d confirmations, want 3", got.Confirmations)
	}
	if n := testutil.ToFloat64(s.metrics.solved.WithLabelValues(resultAccepted)); n != 1 {
		t.Errorf("%v solved shares accepted, want 1", n)
	}
}

// Topics are independent of each other: what comes first may be read last.
func TestSolvedShareBeforeItsJob(t *testing.T) {
	t.Parallel()
	p := startPool(t)
	s, _ := p.start(t)
	template, stratumJob, solved, hash := p.messages(t)
	topics := p.cfg.Kafka.Topics
	p.write(t, topics.SolvedShare, solved, solved) // twice: sserver repeats what was not acknowledged
	testkit.Eventually(t, "solved share taken up", func() bool { return len(s.room)+len(s.waiting) == 1 })
	p.write(t, topics.Job, stratumJob)
	p.write(t, topics.RawGBT, template)
	p.eventuallyState(t, hash, store.Accepted)
	if counts, err := p.store.BlockCount(t.Context()); err != nil || counts[store.Accepted] != 1 {
		t.Errorf("%v, %v", counts, err)
	}
}

// What comes live is of now, though the clock of its sserver is an hour behind: it waits for its job.
func TestSolvedShareOfAClockBehind(t *testing.T) {
	t.Parallel()
	p := startPool(t)
	s, _ := p.start(t)
	p.eventuallyState(t, p.find(t), store.Accepted) // so that it reads what is new
	template, stratumJob, solved, hash := p.messages(t)
	topics := p.cfg.Kafka.Topics
	solved.Time = time.Now().Add(-time.Hour)
	p.write(t, topics.SolvedShare, solved)
	testkit.Eventually(t, "solved share waits", func() bool { return len(s.waiting) == 1 })
	p.write(t, topics.Job, stratumJob)
	p.write(t, topics.RawGBT, template)
	p.eventuallyState(t, hash, store.Accepted)
}

func TestGarbageIsSkipped(t *testing.T) {
	t.Parallel()
	p := startPool(t)
	s, _ := p.start(t)
	topics := p.cfg.Kafka.Topics
	garbage := []bus.Message{{Value: nil}, {Value: []byte("{}")}, {Value: make([]byte, 200)}}
	p.write(t, topics.RawGBT, garbage...)
	p.write(t, topics.Job, garbage...)
	p.write(t, topics.SolvedShare, garbage[:2]...)

	_, _, solved, _ := p.messages(t) // no block: the work was done for other transactions
	template, stratumJob, other, _ := p.messages(t)
	parsed, err := share.ParseSolved(solved.Value)
	must(t, err)
	wrong, err := share.ParseSolved(other.Value)
	must(t, err)
	wrong.Coinbase = parsed.Coinbase
	p.write(t, topics.RawGBT, template)
	p.write(t, topics.Job, stratumJob)
	p.write(t, topics.SolvedShare, bus.Message{Value: wrong.AppendTo(nil)})

	p.eventuallyState(t, p.find(t), store.Accepted)
	for topic, want := range map[string]float64{topics.RawGBT: 3, topics.Job: 3, topics.SolvedShare: 2} {
		testkit.Eventually(t, "invalid messages counted", func() bool { return testutil.ToFloat64(s.metrics.invalid.WithLabelValues(topic)) == want })
	}
	testkit.Eventually(t, "one solved share is invalid", func() bool {
		return testutil.ToFloat64(s.metrics.solved.WithLabelValues(resultInvalid)) == 1
	})
}

// While the only node is away the block is kept, over a restart too.
func TestNodeAway(t *testing.T) {
	t.Parallel()
	p := startPool(t)
	addr, dir := testkit.FreeAddr(t), t.TempDir()
	stopNode := p.startNode(t, dir, addr)
	s, stop := p.start(t)
	testkit.Eventually(t, "ready", func() bool { return s.Ready() == nil })
	template, stratumJob, solved, hash := p.messages(t)
	stopNode()

	topics := p.cfg.Kafka.Topics
	p.write(t, topics.RawGBT, template)
	p.write(t, topics.Job, stratumJob)
	p.write(t, topics.SolvedShare, solved)
	p.eventuallyState(t, hash, store.Submitted)
	testkit.Eventually(t, "submission tried", func() bool {
		return testutil.ToFloat64(s.metrics.submissions.WithLabelValues("0", verdictError)) > 0
	})
	stop()

	s, _ = p.start(t)
	testkit.Eventually(t, "submission tried after restart", func() bool {
		return testutil.ToFloat64(s.metrics.submissions.WithLabelValues("0", verdictError)) > 0
	})
	testkit.Eventually(t, "not ready without the node", func() bool {
		err := s.Ready()
		return err != nil && strings.Contains(err.Error(), "node 0")
	})
	p.startNode(t, dir, addr)
	p.eventuallyState(t, hash, store.Accepted)
}

// One node of two is enough.
func TestOneNodeAway(t *testing.T) {
	t.Parallel()
	p := startPool(t)
	p.cfg.Nodes = append([]noderpc.Config{{URL: "http://" + testkit.FreeAddr(t), User: "u", Password: "p"}}, p.cfg.Nodes...)
	s, _ := p.start(t)
	p.eventuallyState(t, p.find(t), store.Accepted)
	testkit.Eventually(t, "ready", func() bool { return s.Ready() == nil })
}

// The database takes no part in the submission.
func TestDatabaseAway(t *testing.T) {
	t.Parallel()
	p := startPool(t)
	dsnFile := filepath.Join(t.TempDir(), "dsn")
	p.cfg.Database = store.Config{DSNFile: dsnFile}
	p.start(t)
	var found []string
	for height := range int32(3) {
		found = append(found, p.find(t))
		testkit.Eventually(t, "block at the node", func() bool { return p.node.Height() == height+1 })
	}
	must(t, os.WriteFile(dsnFile, []byte(p.dsn), 0o600))
	for _, hash := range found[1:] {
		p.eventuallyState(t, hash, store.Accepted)
	}
	p.eventuallyState(t, found[0], store.Confirmed)
}

// A block that its node never puts on its chain is orphaned.
func TestStaleBlock(t *testing.T) {
	t.Parallel()
	p := startPool(t)
	p.start(t)
	template, stratumJob, solved, hash := p.messages(t)
	_, err := p.node.Generate(t.Context(), 1) // is faster
	must(t, err)
	topics := p.cfg.Kafka.Topics
	p.write(t, topics.RawGBT, template)
	p.write(t, topics.Job, stratumJob)
	p.write(t, topics.SolvedShare, solved)
	testkit.Eventually(t, "block written down", func() bool { return p.block(t, hash).Hash == hash })
	_, err = p.node.Generate(t.Context(), buriedBy)
	must(t, err)
	p.eventuallyState(t, hash, store.Orphaned)
}

// TestClose wants nothing to be left of services that have not run, or could not be
// made: another one has the folder and the port.
func TestClose(t *testing.T) {
	t.Parallel()
	cfg := DefaultConfig()
	cfg.Network, cfg.DataDir = "regtest", t.TempDir()
	cfg.Nodes = []noderpc.Config{{URL: "http://127.0.0.1:1", User: "u", Password: "p"}}
	cfg.Database.DSN = "sqlite:" + filepath.Join(t.TempDir(), "pool.db")
	cfg.Handover = handover.ServerConfig{Listen: "127.0.0.1:0", Secret: handover.Secret{Token: testToken}}
	deps := service.Deps{Log: zerolog.Nop()}
	first, err := New(cfg, deps)
	must(t, err)
	if _, err := New(cfg, deps); !errors.Is(err, durable.ErrLocked) {
		t.Errorf("two in one folder: %v", err)
	}
	cfg.Handover.Listen = first.Addr().String()
	other := cfg
	other.DataDir = t.TempDir()
	if _, err := New(other, deps); err == nil || !strings.Contains(err.Error(), "handover.listen") {
		t.Errorf("two at one port: %v", err)
	}
	lock, err := durable.Lock(other.DataDir)
	must(t, err)
	must(t, lock.Close())
	must(t, first.Close())
	must(t, first.Close())
	second, err := New(cfg, deps)
	must(t, err)
	must(t, second.Close())
}

// TestReadyWithoutDisk takes data_dir away: the service is not ready until it is back, though no block is found.
func TestReadyWithoutDisk(t *testing.T) {
	t.Parallel()
	cfg := DefaultConfig()
	cfg.Network, cfg.DataDir = "regtest", filepath.Join(t.TempDir(), "data")
	cfg.Nodes = []noderpc.Config{{URL: "http://127.0.0.1:1", User: "u", Password: "p"}}
	cfg.Database.DSN = "sqlite:" + filepath.Join(t.TempDir(), "pool.db")
	s, err := New(cfg, service.Deps{Log: zerolog.Nop()})
	must(t, err)
	defer s.Close()
	testkit.Run(t, func(ctx context.Context) error { s.watchDisk(ctx, time.Millisecond); return nil })
	says := func() bool { return strings.Contains(s.Ready().Error(), "data_dir cannot be written") }
	must(t, os.Rename(cfg.DataDir, cfg.DataDir+"-away"))
	testkit.Eventually(t, "it says so", says)
	must(t, os.Rename(cfg.DataDir+"-away", cfg.DataDir))
	testkit.Eventually(t, "it does no more", func() bool { return !says() })
}

func TestWrongNetwork(t *testing.T) {
	t.Parallel()
	p := startPool(t)
	p.cfg.Network = "signet"
	s, _ := p.start(t)
	testkit.Eventually(t, "node refused", func() bool {
		err := s.Ready()
		return err != nil && strings.Contains(err.Error(), `is on chain "regtest", but network = "signet"`)
	})
}

// Solved shares are read from where the last run has come to, and those it is done with are not begun again.
func TestSolvedShareWhileStopped(t *testing.T) {
	t.Parallel()
	p := startPool(t)
	s, stop := p.start(t)
	first := p.find(t)
	p.eventuallyState(t, first, store.Accepted)
	testkit.Eventually(t, "first one done", func() bool { return len(s.room)+len(s.waiting) == 0 })
	stop()

	template, stratumJob, solved, second := p.messages(t)
	solved.Time = time.Now().Add(-2 * firstReadBack)
	topics := p.cfg.Kafka.Topics
	p.write(t, topics.RawGBT, template)
	p.write(t, topics.Job, stratumJob)
	p.write(t, topics.SolvedShare, solved)
	s, _ = p.start(t)
	p.eventuallyState(t, second, store.Accepted)
	testkit.Eventually(t, "second one done", func() bool { return len(s.room)+len(s.waiting) == 0 })
	if n := testutil.ToFloat64(s.metrics.arrivals.WithLabelValues(string(kindBlock), wayKafka)); n != 1 {
		t.Errorf("%v solved shares begun, want 1", n)
	}
}

// A topic that was made anew, and grown beyond where the last run has come to, is read from its start. What was read
// before is read again at every start, and nothing comes of it.
func TestSolvedTopicMadeAnew(t *testing.T) {
	t.Parallel()
	p := startPool(t)
	s, stop := p.start(t)
	p.eventuallyState(t, p.find(t), store.Accepted)
	testkit.Eventually(t, "first one done", func() bool { return len(s.room)+len(s.waiting) == 0 })
	stop()

	topics := p.cfg.Kafka.Topics
	testkit.DeleteTopic(t, p.cfg.Kafka, topics.SolvedShare)
	p.bus = testkit.Bus(t, p.cfg.Kafka, topics.SolvedShare)
	garbage := bus.Message{Value: []byte("no solved share")}
	counted := func(s *Service) (arrived, invalid float64) {
		return testutil.ToFloat64(s.metrics.arrivals.WithLabelValues(string(kindBlock), wayKafka)),
			testutil.ToFloat64(s.metrics.invalid.WithLabelValues(topics.SolvedShare))
	}
	hash := p.find(t)
	p.write(t, topics.SolvedShare, garbage, garbage)
	s, stop = p.start(t)
	p.eventuallyState(t, hash, store.Accepted)
	testkit.Eventually(t, "all read", func() bool {
		arrived, invalid := counted(s)
		return arrived == 1 && invalid == 2 && len(s.room)+len(s.waiting) == 0
	})
	stop()

	s, _ = p.start(t)
	hash = p.find(t)
	p.eventuallyState(t, hash, store.Accepted)
	if arrived, invalid := counted(s); arrived != 1 || invalid != 0 {
		t.Errorf("%v shares and %v other messages are news, want 1 and 0", arrived, invalid)
	}
}

// A topic that was made anew, and has not grown to where the last run has come to, is news once.
func TestSolvedTopicShorter(t *testing.T) {
	t.Parallel()
	p := startPool(t)
	topic := p.cfg.Kafka.Topics.SolvedShare
	garbage := bus.Message{Value: []byte("no solved share")}
	invalid := func(s *Service) float64 { return testutil.ToFloat64(s.metrics.invalid.WithLabelValues(topic)) }
	reaches := func(s *Service, offset int64) {
		t.Helper()
		testkit.Eventually(t, "journal knows where the topic was read", func() bool { return s.journal.lastRead(topic)[0].Offset == offset })
	}
	p.write(t, topic, garbage, garbage, garbage)
	s, stop := p.start(t)
	reaches(s, 2)
	stop()
	for _, n := range []int{2, 0} {
		testkit.DeleteTopic(t, p.cfg.Kafka, topic)
		p.bus = testkit.Bus(t, p.cfg.Kafka, topic)
		for range n {
			p.write(t, topic, garbage)
		}
		s, stop = p.start(t)
		reaches(s, int64(n-1))
		if got := invalid(s); got != float64(n) {
			t.Errorf("%v of %d messages are news", got, n)
		}
		stop()
		s, stop = p.start(t)
		p.write(t, topic, garbage)
		reaches(s, int64(n))
		if got := invalid(s); got != 1 {
			t.Errorf("%v messages are news, want one", got)
		}
		stop()
	}
}

// What came too long ago is given up, and holds up nothing.
func TestSolvedShareWithoutJob(t *testing.T) {
	t.Parallel()
	p := startPool(t)
	_, _, solved, _ := p.messages(t)
	solved.Time = time.Now().Add(-templateWait)
	p.write(t, p.cfg.Kafka.Topics.SolvedShare, solved)
	s, _ := p.start(t)
	p.eventuallyState(t, p.find(t), store.Accepted)
	testkit.Eventually(t, "given up", func() bool { return testutil.ToFloat64(s.metrics.solved.WithLabelValues(resultUnknown)) == 1 })
}

// What btcpool's services have written has no time: jobs and templates of before the start are there, and all solved
// shares are read, of which the old ones wait for nothing.
func TestTopicsWithoutTimes(t *testing.T) {
	t.Parallel()
	p := startPool(t)
	template, stratumJob, solved, hash := p.messages(t)
	past, err := share.ParseSolved(solved.Value)
	must(t, err)
	past.JobID = 1
	binary.LittleEndian.PutUint32(past.Header[68:], uint32(time.Now().Add(-templateWait).Unix()))
	old := bus.Message{Value: past.AppendTo(nil)}
	topics := p.cfg.Kafka.Topics
	for topic, msgs := range map[string][]bus.Message{
		topics.RawGBT: {template}, topics.Job: {stratumJob}, topics.SolvedShare: {old, solved},
	} {
		for _, m := range msgs {
			m.Time = time.UnixMilli(-1)
			p.write(t, topic, m)
		}
	}
	s, _ := p.start(t)
	p.eventuallyState(t, hash, store.Accepted)
	testkit.Eventually(t, "the old one is given up", func() bool {
		return testutil.ToFloat64(s.metrics.solved.WithLabelValues(resultUnknown)) == 1
	})
}

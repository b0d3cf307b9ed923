package jobmaker_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"btcpool/internal/auxwork"
	"btcpool/internal/bitcoin"
	"btcpool/internal/bus"
	"btcpool/internal/config"
	"btcpool/internal/job"
	"btcpool/internal/service"
	"btcpool/internal/testkit"
	"btcpool/jobmaker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pool is a jobmaker with the topics before and behind it.
type pool struct {
	t       *testing.T
	cfg     jobmaker.Config
	bus     *bus.Client
	jobs    chan *job.StratumJob
	metrics *prometheus.Registry
	service *jobmaker.Service
}

// start runs a jobmaker for the time of the test. before is done when the broker is there and the jobmaker is not.
func start(t *testing.T, cfg jobmaker.Config, before func(*pool)) *pool {
	t.Helper()
	cfg.Kafka.Brokers = testkit.Broker(t).Brokers
	p := &pool{t: t, cfg: cfg, jobs: make(chan *job.StratumJob, 100), metrics: prometheus.NewRegistry()}
	topics := []string{cfg.Kafka.Topics.RawGBT, cfg.Kafka.Topics.Job, cfg.Kafka.Topics.AuxWork, cfg.Kafka.Topics.RSKWork}
	p.bus = testkit.Bus(t, cfg.Kafka, slices.DeleteFunc(topics, func(topic string) bool { return topic == "" })...)
	if before != nil {
		before(p)
	}
	var err error
	p.service, err = jobmaker.New(cfg, service.Deps{Log: zerolog.New(zerolog.NewTestWriter(t)), Metrics: p.metrics})
	if err != nil {
		t.Fatal(err)
	}
	testkit.Run(t, p.service.Run)
	testkit.Run(t, func(ctx context.Context) error {
		return p.bus.Read(ctx, cfg.Kafka.Topics.Job, bus.Earliest(), func(m bus.Message) error {
			j, err := job.ParseStratumJob(m.Value)
			if err != nil {
				return err
			}
			p.jobs <- j
			return nil
		})
	})
	return p
}

func (p *pool) send(message []byte) {
	p.t.Helper()
	p.sendTo(p.cfg.Kafka.Topics.RawGBT, message)
}

func (p *pool) sendTo(topic string, message []byte) {
	p.t.Helper()
	if err := p.bus.Write(p.t.Context(), topic, bus.Message{Value: message}); err != nil {
		p.t.Fatal(err)
	}
}

// sendTemplate sends a template made at created, with some values changed, and returns its hash.
func (p *pool) sendTemplate(file string, height int, created time.Time, changes ...func(map[string]any)) string {
	p.t.Helper()
	response := testdata(p.t, file)
	var answer map[string]any
	if err := json.Unmarshal(response, &answer); err != nil {
		p.t.Fatal(err)
	}
	result := answer["result"].(map[string]any)
	result["height"] = height
	for _, change := range changes {
		change(result)
	}
	response, err := json.Marshal(answer)
	if err != nil {
		p.t.Fatal(err)
	}
	raw := job.NewRawGBT(response, created)
	p.send(raw.AppendTo(nil))
	return raw.Hash
}

func testdata(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile("../internal/job/testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (p *pool) nextJob() *job.StratumJob {
	p.t.Helper()
	select {
	case j := <-p.jobs:
		return j
	case <-time.After(testkit.Patience):
		p.t.Fatal("no job")
		return nil
	}
}

// count returns a metric by the names and values of its labels.
func (p *pool) count(name string, labels ...string) float64 {
	p.t.Helper()
	return testkit.Metric(p.t, p.metrics, "btcpool_jobmaker_"+name, labels...)
}

// counts waits until a metric is as it should be: what is counted is counted behind the message that a test hears of.
func (p *pool) counts(want float64, name string, labels ...string) {
	p.t.Helper()
	testkit.Eventually(p.t, fmt.Sprintf("%s%v = %v", name, labels, want), func() bool { return p.count(name, labels...) == want })
}

func TestJobs(t *testing.T) {
	t.Parallel()
	cfg := regtestConfig()
	cfg.ServerID = 200
	p := start(t, cfg, nil)
	if err := p.service.Ready(); err == nil {
		t.Error("ready before there is a template")
	}

	hash := p.sendTemplate("core.gbt", 500, time.Now())
	j := p.nextJob()
	template, err := job.ParseTemplate(testdata(t, "core.gbt"))
	if err != nil {
		t.Fatal(err)
	}
	want := &job.StratumJob{
		ID: j.ID, GBTHash: hash, PrevHash: template.PrevHash, Height: 500, Coinbase1: j.Coinbase1, Coinbase2: j.Coinbase2,
		MerkleBranch: template.MerkleBranch, Version: template.Version, Bits: template.Bits,
		Time: template.CurTime, MinTime: template.MinTime, CoinbaseValue: template.CoinbaseValue,
		WitnessCommitment: template.WitnessCommitment,
	}
	if diff := cmp.Diff(want, j); diff != "" {
		t.Errorf("job:\n%s", diff)
	}
	if j.ID.Server() != 200 || time.Since(j.ID.Time()).Abs() > time.Minute {
		t.Errorf("id %x", uint64(j.ID))
	}
	if err := p.service.Ready(); err != nil && !strings.Contains(err.Error(), "no job sent yet") {
		t.Errorf("not ready with a fresh job: %v", err)
	}

	// Garbage changes nothing; an empty template of a new height leaves at once, and the full one after it.
	p.send([]byte("garbage"))
	p.send(job.NewRawGBT([]byte(`{"result":null,"error":{"code":-10},"id":1}`), time.Now()).AppendTo(nil))
	p.sendTemplate("core.gbt", 501, time.Now().Add(-2*time.Minute))
	p.sendTemplate("core.gbt", 499, time.Now())
	p.sendTemplate("core.gbt", 502, time.Now(), func(result map[string]any) { result["rules"] = []string{"!signet"} })
	p.sendTemplate("core.gbt", 502, time.Now(), func(result map[string]any) { result["rules"] = []string{"!unheard-of"} })
	p.sendTemplate("core.gbt", 502, time.Now(), func(result map[string]any) { result["curtime"] = time.Now().Unix() + 2*3600 + 60 })
	p.sendTemplate("empty.gbt", 501, time.Now())
	if j = p.nextJob(); j.Height != 501 || len(j.MerkleBranch) != 0 {
		t.Errorf("job of height %d with %d hashes, want an empty one of 501", j.Height, len(j.MerkleBranch))
	}
	p.sendTemplate("core.gbt", 501, time.Now())
	if next := p.nextJob(); next.Height != 501 || len(next.MerkleBranch) != 2 || next.ID <= j.ID {
		t.Errorf("job of height %d with %d hashes, want a full one of 501", next.Height, len(next.MerkleBranch))
	}

	for result, want := range map[string]float64{
		"accepted": 3, "invalid": 3, "skewed": 1, "wrong_network": 1, "far_future": 1, "low_height": 1, "other_branch": 0, "duplicate": 0,
	} {
		p.counts(want, "templates_total", "result", result)
	}
	if problems, err := testutil.GatherAndLint(p.metrics); err != nil || len(problems) > 0 {
		t.Errorf("metrics: %v, %v", problems, err)
	}
}

// A job leaves as soon as what it needs is here, and the whole template behind it makes no second one.
func TestLightTemplate(t *testing.T) {
	t.Parallel()
	p := start(t, regtestConfig(), nil)
	p.sendTemplate("core.gbt", 500, time.Now())
	if j := p.nextJob(); j.Height != 500 {
		t.Fatalf("job of height %d, want 500", j.Height)
	}
	raw := job.NewRawGBT(testdata(t, "core.gbt"), time.Now())
	template, err := job.ParseTemplate(raw.Response)
	if err != nil {
		t.Fatal(err)
	}
	topic := job.LightTopic(p.cfg.Kafka.Topics.RawGBT)
	p.sendTo(topic, []byte("garbage"))
	p.sendTo(topic, job.LightGBT{CreatedAt: raw.CreatedAt, Hash: raw.Hash, Template: template}.AppendTo(nil))
	j := p.nextJob()
	if j.GBTHash != raw.Hash || !slices.Equal(j.MerkleBranch, template.MerkleBranch) || j.Height != template.Height {
		t.Errorf("job %+v of template %+v", j, template)
	}
	p.send(raw.AppendTo(nil))
	p.sendTemplate("core.gbt", int(template.Height)+1, time.Now())
	if next := p.nextJob(); next.Height != template.Height+1 {
		t.Errorf("job of height %d, want %d", next.Height, template.Height+1)
	}
	for result, want := range map[string]float64{"accepted": 3, "invalid": 1, "duplicate": 1} {
		p.counts(want, "templates_total", "result", result)
	}
}

// A reorganisation that keeps the height reaches the miners at once, and does
// so once: the node that stays behind is not followed.
func TestReorganisation(t *testing.T) {
	t.Parallel()
	p := start(t, regtestConfig(), nil)
	on := func(block byte) func(map[string]any) {
		return func(result map[string]any) {
			result["previousblockhash"] = strings.Repeat(fmt.Sprintf("%02x", block), 32)
		}
	}
	for _, block := range []byte{1, 2} {
		p.sendTemplate("core.gbt", 500, time.Now(), on(block))
		if j := p.nextJob(); j.PrevHash[0] != block {
			t.Fatalf("job on %s, want one on block %d", j.PrevHash, block)
		}
	}
	p.sendTemplate("core.gbt", 500, time.Now().Add(time.Second), on(1), func(result map[string]any) { result["coinbasevalue"] = 1 })
	p.sendTemplate("core.gbt", 501, time.Now(), on(3))
	if j := p.nextJob(); j.PrevHash[0] != 3 {
		t.Fatalf("job on %s, want one on block 3", j.PrevHash)
	}
	p.counts(1, "templates_total", "result", "other_branch")
	p.counts(1, "jobs_total", "reason", "branch")
}

// Jobs commit to the work of other chains; news of it make a job at once.
func TestMergedMining(t *testing.T) {
	t.Parallel()
	cfg := regtestConfig()
	cfg.Kafka.Topics.AuxWork, cfg.Kafka.Topics.RSKWork = "AuxPowBlock", "RskRawGw"
	p := start(t, cfg, nil)
	p.sendTemplate("core.gbt", 500, time.Now())
	if j := p.nextJob(); j.Aux.BlockHash != "" || j.RSK.BlockHash != "" || j.MergedMiningClean {
		t.Fatalf("job with merged mining that nobody asked for: %+v", j)
	}

	now := uint32(time.Now().Unix())
	aux := auxwork.Aux{CreatedAt: now, Hash: chainhash.Hash{1}, Height: 7, MerkleSize: 1, Bits: 0x1d00ffff}
	p.sendTo(cfg.Kafka.Topics.AuxWork, []byte("garbage"))
	p.counts(1, "merged_mining_works_total", "kind", "aux", "result", "invalid")
	p.sendTo(cfg.Kafka.Topics.AuxWork, aux.AppendTo(nil))
	j := p.nextJob()
	if j.Aux.BlockHash != aux.Hash.String() || j.RSK.BlockHash != "" || !j.MergedMiningClean {
		t.Fatalf("job after aux work: %+v", j)
	}
	if !bytes.HasSuffix(j.Coinbase1, bitcoin.AuxPoWCommitment(aux.Hash, 1, 0)) {
		t.Errorf("coinbase1 %x", j.Coinbase1)
	}

	rsk := auxwork.RSK{CreatedAt: now, BlockHash: auxwork.RSKHash{2}, Target: auxwork.RSKHash{3}, FeesForMiner: "1", Notify: true}
	p.sendTo(cfg.Kafka.Topics.RSKWork, []byte("garbage"))
	p.counts(1, "merged_mining_works_total", "kind", "rsk", "result", "invalid")
	p.sendTo(cfg.Kafka.Topics.RSKWork, rsk.AppendTo(nil))
	j = p.nextJob()
	if j.Aux.BlockHash != aux.Hash.String() || j.RSK.BlockHash != rsk.BlockHash.String() || !j.MergedMiningClean {
		t.Fatalf("job after RSK work: %+v", j)
	}

	p.sendTemplate("core.gbt", 501, time.Now())
	if j = p.nextJob(); j.Aux.BlockHash == "" || j.RSK.BlockHash == "" || j.MergedMiningClean {
		t.Fatalf("job on a new block: %+v", j)
	}
	for _, kind := range []string{"aux", "rsk"} {
		for _, result := range []string{"accepted", "invalid"} {
			p.counts(1, "merged_mining_works_total", "kind", kind, "result", result)
		}
	}
}

// Templates that were there before say where the chain stands: the first job is of the best of them.
func TestFirstJobIsOfTheBestTemplate(t *testing.T) {
	t.Parallel()
	p := start(t, regtestConfig(), func(p *pool) {
		p.sendTemplate("core.gbt", 500, time.Now().Add(-10*time.Second))
		p.sendTemplate("core.gbt", 501, time.Now())
		p.sendTemplate("core.gbt", 500, time.Now())
	})
	if j := p.nextJob(); j.Height != 501 {
		t.Errorf("first job of height %d, want 501", j.Height)
	}
}

// Jobs go on by the clock when no template comes.
func TestRoutineJobs(t *testing.T) {
	t.Parallel()
	cfg := regtestConfig()
	cfg.JobInterval = config.Duration(time.Second)
	p := start(t, cfg, nil)
	p.sendTemplate("btcd.gbt", 500, time.Now())
	first := p.nextJob()
	second := p.nextJob()
	if second.ID <= first.ID || string(second.Coinbase1) == string(first.Coinbase1) {
		t.Errorf("job %x with coinbase %x after %x with %x", second.ID, second.Coinbase1, first.ID, first.Coinbase1)
	}
	if err := p.service.Ready(); err != nil {
		t.Error(err)
	}
}

// A jobmaker that does not lead reads along: it is ready to begin, and silent.
func TestStandingBy(t *testing.T) {
	t.Parallel()
	cfg := regtestConfig()
	cfg.ZooKeeper.Servers = []string{"127.0.0.1:1"}
	cfg.LeaderLockPath = "/locks/jobmaker_lead"
	p := start(t, cfg, nil)
	p.sendTemplate("core.gbt", 500, time.Now())
	testkit.Eventually(t, "ready", func() bool { return p.service.Ready() == nil })
	if n := len(p.jobs); n != 0 {
		t.Errorf("%d jobs", n)
	}
	want := "# HELP btcpool_jobmaker_since_last_job_seconds Time since the last job was sent, or since the start before the first; " +
		"0 while another jobmaker leads.\n# TYPE btcpool_jobmaker_since_last_job_seconds gauge\nbtcpool_jobmaker_since_last_job_seconds 0\n"
	if err := testutil.GatherAndCompare(p.metrics, strings.NewReader(want), "btcpool_jobmaker_since_last_job_seconds"); err != nil {
		t.Error(err)
	}
}

// TestClose has jobmakers that never run: none leaves a goroutine.
func TestClose(t *testing.T) {
	t.Parallel()
	s, err := jobmaker.New(regtestConfig(), service.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Error(err)
	}
}

func TestNewRefusesConfig(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	if _, err := jobmaker.New(jobmaker.DefaultConfig(), service.Deps{Log: zerolog.Nop(), Metrics: reg}); err == nil {
		t.Error("a jobmaker without a payout address")
	}
	if problems, err := reg.Gather(); err != nil || len(problems) != 0 {
		t.Errorf("metrics registered for nothing: %v", err)
	}
}

// Without brokers a jobmaker waits, says what is missing and stops when told.
func TestNoBroker(t *testing.T) {
	t.Parallel()
	cfg := regtestConfig()
	cfg.Kafka.Brokers = []string{"127.0.0.1:1"}
	s, err := jobmaker.New(cfg, service.Deps{Log: zerolog.Nop(), Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := s.Run(ctx); err != nil || !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		t.Errorf("Run returned %v, context %v", err, ctx.Err())
	}
	if err := s.Ready(); err == nil || err.Error() != "no template yet" {
		t.Errorf("ready: %v", err)
	}
}

// No job is made of a template whose blocks would be too heavy, and Ready says why; the next one that leaves room is
// taken.
func TestHeavyTemplate(t *testing.T) {
	t.Parallel()
	p := start(t, regtestConfig(), nil)
	weigh := func(weight int) func(map[string]any) {
		return func(result map[string]any) {
			for _, tx := range result["transactions"].([]any) {
				tx.(map[string]any)["weight"] = weight
			}
		}
	}
	p.sendTemplate("core.gbt", 500, time.Now(), weigh(2_000_000-100))
	testkit.Eventually(t, "not ready for the weight", func() bool {
		err := p.service.Ready()
		return err != nil && strings.Contains(err.Error(), "no job can be sent") && strings.Contains(err.Error(), "blockreservedweight")
	})
	testkit.Eventually(t, "a job has failed", func() bool { return p.count("jobs_failed_total") >= 1 })
	p.sendTemplate("core.gbt", 501, time.Now(), weigh(1_990_000))
	if j := p.nextJob(); j.Height != 501 {
		t.Errorf("job of height %d", j.Height)
	}
	testkit.Eventually(t, "ready", func() bool { return p.service.Ready() == nil })
}

// On testnets a block of before the 20 minutes must not have the easy bits of after them: jobs with those begin then.
// Other networks' jobs begin as early as the node says.
func TestEasyBitsBegin(t *testing.T) {
	t.Parallel()
	for network, easy := range map[string]bool{"testnet4": true, "regtest": false} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			cfg := regtestConfig()
			cfg.Network = network
			if network == "testnet4" {
				cfg.PayoutAddress = "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx"
			}
			p := start(t, cfg, nil)
			now := time.Now()
			p.sendTemplate("core.gbt", 100_000, now, func(result map[string]any) {
				result["bits"], result["mintime"], result["curtime"] = "1d00ffff", now.Unix()-1000, now.Unix()
			})
			want := uint32(now.Unix() - 1000)
			if easy {
				want = uint32(now.Unix())
			}
			if j := p.nextJob(); j.MinTime != want || j.Time != uint32(now.Unix()) {
				t.Errorf("times from %d, want %d", j.MinTime, want)
			}
		})
	}
}

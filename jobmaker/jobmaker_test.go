package jobmaker_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"btcpool/internal/bitcoin"
	"btcpool/internal/bus"
	"btcpool/internal/bus/embedded"
	"btcpool/internal/job"
	"btcpool/internal/service"
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

// start runs a jobmaker for the time of the test. before is done when the
// broker is there and the jobmaker is not.
func start(t *testing.T, cfg jobmaker.Config, before func(*pool)) *pool {
	t.Helper()
	broker, err := embedded.Start(t.TempDir(), "127.0.0.1:0", zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := broker.Close(); err != nil {
			t.Error(err)
		}
	})
	cfg.Kafka.Brokers = []string{broker.Addr()}
	p := &pool{t: t, cfg: cfg, jobs: make(chan *job.StratumJob, 100), metrics: prometheus.NewRegistry()}
	p.bus, err = bus.New(cfg.Kafka, service.Deps{Log: zerolog.Nop(), Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.bus.Close() })
	if err := p.bus.EnsureTopics(t.Context(), cfg.Kafka.Topics.RawGBT, cfg.Kafka.Topics.Job); err != nil {
		t.Fatal(err)
	}
	if before != nil {
		before(p)
	}
	p.service, err = jobmaker.New(cfg, service.Deps{Log: zerolog.New(zerolog.NewTestWriter(t)), Metrics: p.metrics})
	if err != nil {
		t.Fatal(err)
	}
	p.background(p.service.Run)
	p.background(func(ctx context.Context) error {
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

// background runs f until the test ends, where it must return nil.
func (p *pool) background(f func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	p.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			p.t.Error(err)
		}
	})
}

func (p *pool) send(message []byte) {
	p.t.Helper()
	if err := p.bus.Write(p.t.Context(), p.cfg.Kafka.Topics.RawGBT, bus.Message{Value: message}); err != nil {
		p.t.Fatal(err)
	}
}

// sendTemplate sends a template made at created and returns its hash.
func (p *pool) sendTemplate(file string, height int, created time.Time) string {
	p.t.Helper()
	response := testdata(p.t, file)
	var answer map[string]any
	if err := json.Unmarshal(response, &answer); err != nil {
		p.t.Fatal(err)
	}
	answer["result"].(map[string]any)["height"] = height
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
	case <-time.After(20 * time.Second):
		p.t.Fatal("no job")
		return nil
	}
}

// templates returns how many templates had a result.
func (p *pool) templates(result string) float64 {
	p.t.Helper()
	families, err := p.metrics.Gather()
	if err != nil {
		p.t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == "btcpool_jobmaker_templates_total" && m.GetLabel()[0].GetValue() == result {
				return m.GetCounter().GetValue()
			}
		}
	}
	p.t.Fatalf("templates are not counted as %s", result)
	return 0
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
		MerkleBranch: bitcoin.MerkleBranch(template.TxIDs), Version: template.Version, Bits: template.Bits,
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

	// Garbage changes nothing; an empty template of a new height leaves at
	// once, and the full one after it.
	p.send([]byte("garbage"))
	p.send(job.NewRawGBT([]byte(`{"result":null,"error":{"code":-10},"id":1}`), time.Now()).AppendTo(nil))
	p.sendTemplate("core.gbt", 501, time.Now().Add(-2*time.Minute))
	p.sendTemplate("core.gbt", 499, time.Now())
	p.sendTemplate("empty.gbt", 501, time.Now())
	if j = p.nextJob(); j.Height != 501 || len(j.MerkleBranch) != 0 {
		t.Errorf("job of height %d with %d hashes, want an empty one of 501", j.Height, len(j.MerkleBranch))
	}
	p.sendTemplate("core.gbt", 501, time.Now())
	if next := p.nextJob(); next.Height != 501 || len(next.MerkleBranch) != 2 || next.ID <= j.ID {
		t.Errorf("job of height %d with %d hashes, want a full one of 501", next.Height, len(next.MerkleBranch))
	}

	for result, want := range map[string]float64{"accepted": 3, "invalid": 2, "skewed": 1, "low_height": 1, "duplicate": 0} {
		if got := p.templates(result); got != want {
			t.Errorf("%v templates are %s, want %v", got, result, want)
		}
	}
	if problems, err := testutil.GatherAndLint(p.metrics); err != nil || len(problems) > 0 {
		t.Errorf("metrics: %v, %v", problems, err)
	}
}

// Templates that were there before say where the chain stands: the first job is
// of the best of them.
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
	cfg.JobInterval = service.Duration(time.Second)
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

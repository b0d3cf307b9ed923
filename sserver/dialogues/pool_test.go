package dialogues_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/pelletier/go-toml/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"btcpool/internal/bus"
	"btcpool/internal/job"
	"btcpool/internal/service"
	"btcpool/internal/testkit"
	"btcpool/internal/users"
	"btcpool/sserver"
)

// config is that of a pool whose shares a test can find, 4096 hashes each, with topics of its own on a broker that
// others use too.
func testConfig(t *testing.T, brokers []string, name, settings string) sserver.Config {
	t.Helper()
	cfg := sserver.DefaultConfig()
	cfg.Listen = "127.0.0.1:0"
	cfg.DataDir = t.TempDir()
	cfg.Limits.Exempt = nil // or nothing would be limited, and nobody banned
	cfg.DefaultDifficulty = 1.0 / (1 << 20)
	cfg.MinDifficulty = 1.0 / (1 << 30)
	cfg.Users.Kind = users.Static
	cfg.Users.Static = map[string]int32{"alice": 7}
	cfg.Kafka.Brokers = brokers
	topics := &cfg.Kafka.Topics
	for _, topic := range []*string{
		&topics.Job, &topics.Share, &topics.SolvedShare, &topics.CommonEvents, &topics.AuxSolved, &topics.RSKSolved,
	} {
		*topic += "-" + name
	}
	if err := toml.NewDecoder(strings.NewReader(settings)).DisallowUnknownFields().Decode(&cfg); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// pool is an sserver and what makes its jobs.
type pool struct {
	*sserver.Service
	t       *testing.T
	bus     *bus.Client
	topic   string
	metrics *prometheus.Registry
	ids     *job.IDs
	block   byte // the current one
}

// startPool returns a pool that has a job.
func startPool(t *testing.T, cfg sserver.Config) *pool {
	t.Helper()
	log := zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.ErrorLevel)
	p := &pool{t: t, topic: cfg.Kafka.Topics.Job, metrics: prometheus.NewRegistry(), ids: job.NewIDs(1)}
	topics := cfg.Kafka.Topics
	p.bus = testkit.Bus(t, cfg.Kafka, topics.Job, topics.Share, topics.SolvedShare, topics.CommonEvents)
	var err error
	if p.Service, err = sserver.New(cfg, service.Deps{Log: log, Metrics: p.metrics}); err != nil {
		t.Fatal(err)
	}
	testkit.Run(t, p.Run)
	p.newBlock()
	p.publish(jobSize{})
	testkit.Eventually(t, "a job", func() bool { return p.Ready() == nil })
	return p
}

// newBlock makes the jobs to come those of the next block.
func (p *pool) newBlock() { p.block++ }

// jobSize is how large a job is, as far as miners care. What is 0 is as in a small block that pays one address.
type jobSize struct{ branches, coinbase int }

// publish sends the miners a job on the current block.
func (p *pool) publish(size jobSize) {
	p.t.Helper()
	const head = 60 // bytes of the coinbase before the extranonce
	if size.branches == 0 {
		size.branches = 3
	}
	if size.coinbase == 0 {
		size.coinbase = 200
	}
	now := time.Now()
	j := &job.StratumJob{
		ID:                p.ids.Next(now),
		GBTHash:           strings.Repeat("ab", 32),
		PrevHash:          chainhash.Hash{0: p.block, 31: 1},
		Height:            100 + int32(p.block),
		Coinbase1:         bytes.Repeat([]byte{0x11}, head),
		Coinbase2:         bytes.Repeat([]byte{0x22}, size.coinbase-head-job.ExtranonceSize),
		Version:           0x20000000,
		Bits:              0x1d00ffff,
		Time:              uint32(now.Unix()),
		MinTime:           uint32(now.Unix()) - 3600,
		MergedMiningClean: true, // not to be waited for
	}
	for i := range size.branches {
		j.MerkleBranch = append(j.MerkleBranch, chainhash.DoubleHashH([]byte{byte(i)}))
	}
	if err := p.bus.Write(p.t.Context(), p.topic, bus.Message{Value: j.AppendTo(nil)}); err != nil {
		p.t.Fatal(err)
	}
}

// connections returns how many there are.
func (p *pool) connections() int {
	return int(testkit.Metric(p.t, p.metrics, "btcpool_sserver_sessions"))
}

package sharelogger_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"btcpool/internal/service"
	"btcpool/internal/sharefile"
	"btcpool/internal/testkit"
	"btcpool/sharelogger"
)

// TestChains keeps the logs of two chains in one process, across restarts. When one of them cannot be kept the other is,
// and it goes on once it can.
func TestChains(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t.TempDir(), testkit.Broker(t).Brokers[0])
	cfg.Chains = []sharelogger.Chain{
		{Chain: "BTC", ShareTopic: "BtcShare", GroupID: "log-btc"},
		{Chain: "BCH", ShareTopic: "BchShare", GroupID: "log-bch", DataDir: t.TempDir()},
	}
	var chains []*pool // of each chain
	for _, one := range cfg.PerChain() {
		chains = append(chains, &pool{cfg: one, client: testkit.Bus(t, one.Kafka, one.Kafka.Topics.Share)})
	}
	btc, bch := chains[0], chains[1]
	if want := filepath.Join(cfg.DataDir, "BTC"); btc.cfg.DataDir != want {
		t.Fatalf("data_dir of BTC is %s, want %s", btc.cfg.DataDir, want)
	}
	start := func() (svc *sharelogger.Service, registry *prometheus.Registry, stop func()) {
		registry = prometheus.NewRegistry()
		svc, err := sharelogger.New(cfg, service.Deps{Log: zerolog.Nop(), Metrics: registry})
		if err != nil {
			t.Fatal(err)
		}
		return svc, registry, testkit.Run(t, svc.Run)
	}
	nonce := uint32(0)
	sent := map[*pool][]uint32{}
	send := func(p *pool) {
		for range 10 {
			nonce++
			sent[p] = append(sent[p], nonce)
			p.writeTo(t, byte(nonce%3), newShare(nonce, monday))
		}
	}
	logged := func(p *pool) {
		t.Helper()
		testkit.Eventually(t, "all shares of "+p.cfg.Chain, func() bool { return len(p.nonces(t)) >= len(sent[p]) })
		if diff := cmp.Diff(sent[p], p.nonces(t)); diff != "" {
			t.Fatalf("%s (-want +got):\n%s", p.cfg.Chain, diff)
		}
	}
	_, stop := btc.start(t) // it was the only one once
	send(btc)
	logged(btc)
	stop()
	for range 3 {
		svc, registry, stop := start()
		send(btc)
		send(bch)
		logged(btc)
		logged(bch)
		testkit.Eventually(t, "readiness", func() bool { return svc.Ready() == nil })
		for _, p := range chains {
			testkit.Eventually(t, "the count of "+p.cfg.Chain, func() bool {
				return testkit.Metric(t, registry, "btcpool_sharelogger_shares_written_total", "chain", p.cfg.Chain) == 10
			})
		}
		stop()
	}

	// A file that nothing can be appended to is in the way of one chain.
	bad := sharefile.Path(bch.cfg.DataDir, "BCH", 20231121)
	if err := os.WriteFile(bad, rawPlain(), 0o600); err != nil {
		t.Fatal(err)
	}
	svc, _, _ := start()
	send(btc)
	send(bch)
	logged(btc)
	testkit.Eventually(t, "what is wrong", func() bool {
		err := svc.Ready()
		return err != nil && strings.HasPrefix(err.Error(), "BCH: ") && strings.Contains(err.Error(), "is not compressed")
	})
	if err := svc.Ready(); strings.Contains(err.Error(), "BTC: ") {
		t.Errorf("BTC is written, but: %v", err)
	}
	send(btc)
	logged(btc)
	if err := os.Remove(bad); err != nil {
		t.Fatal(err)
	}
	logged(bch)
	testkit.Eventually(t, "readiness", func() bool { return svc.Ready() == nil })
}

// TestChainsSecondLog wants the log of what was the only chain not to begin again in a folder of its own.
func TestChainsSecondLog(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t.TempDir(), testkit.Broker(t).Brokers[0])
	only := &pool{cfg: cfg, client: testkit.Bus(t, cfg.Kafka, cfg.Kafka.Topics.Share)}
	only.writeTo(t, 0, newShare(1, monday))
	_, stop := only.start(t)
	testkit.Eventually(t, "a share", func() bool { return len(only.nonces(t)) == 1 })
	stop()
	cfg.Chains = []sharelogger.Chain{{Chain: "BTC", ShareTopic: "BtcShare"}, {Chain: "BCH", ShareTopic: "BchShare"}}
	start := func() (ready func() error, stop func()) {
		svc, err := sharelogger.New(cfg, service.Deps{Log: zerolog.Nop(), Metrics: prometheus.NewRegistry()})
		if err != nil {
			t.Fatal(err)
		}
		return svc.Ready, testkit.Run(t, svc.Run)
	}
	ready, stop := start()
	testkit.Eventually(t, "what is wrong", func() bool {
		err := ready()
		return err != nil && strings.Contains(err.Error(), "BTC: "+cfg.DataDir+" has day files of BTC already: set data_dir") &&
			!strings.Contains(err.Error(), "BCH: ")
	})
	stop()
	if exists(t, filepath.Join(cfg.DataDir, "BTC")) {
		t.Error("a folder was made")
	}
	cfg.Chains[0].DataDir = cfg.DataDir
	only.writeTo(t, 0, newShare(2, monday))
	start()
	testkit.Eventually(t, "the next share", func() bool { return len(only.nonces(t)) == 2 })
}

// rawPlain is a record that is not compressed.
func rawPlain() []byte {
	s := newShare(1, monday+86400)
	body := s.AppendBody(nil)
	return append([]byte{byte(len(body)), 0, 0, 0}, body...)
}

// TestSealOneChain seals a day of one of the chains.
func TestSealOneChain(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t.TempDir(), testkit.Broker(t).Brokers[0])
	cfg.Chains = []sharelogger.Chain{{Chain: "BTC", ShareTopic: "BtcShare"}, {Chain: "BCH", ShareTopic: "BchShare"}}
	bch := &pool{cfg: cfg.PerChain()[1]}
	bch.client = testkit.Bus(t, bch.cfg.Kafka, bch.cfg.Kafka.Topics.Share)
	bch.writeTo(t, 0, newShare(1, monday))
	_, stop := bch.start(t)
	testkit.Eventually(t, "a share", func() bool { return len(bch.nonces(t)) == 1 })
	stop()
	cfg.SealDay, cfg.Only = 20231120, "BCH"
	svc, err := sharelogger.New(cfg, service.Deps{Log: zerolog.Nop()})
	if err == nil {
		err = svc.Run(t.Context())
	}
	if sealed := strings.Replace(sharefile.Path(bch.cfg.DataDir, "BCH", 20231120), ".bin", ".parquet", 1); err != nil || !exists(t, sealed) {
		t.Errorf("not sealed: %v", err)
	}
}

func TestValidateChains(t *testing.T) {
	t.Parallel()
	cfg := sharelogger.DefaultConfig()
	cfg.GroupID = "log"
	cfg.Chains = []sharelogger.Chain{
		{Chain: "BTC", ShareTopic: "BtcShare", GroupID: "log"},
		{Chain: "BTC", GroupID: "log", Start: "now"},
		{Chain: "B/H", ShareTopic: "BtcShare", DataDir: "sharelog/./BTC"},
	}
	err := cfg.Validate()
	if err == nil {
		t.Fatal("valid")
	}
	for _, want := range []string{
		"chain, kafka_group_id, start, kafka.topics.share: with [[chains]] each chain has its own",
		`chains[1].chain = "BTC": another chain has it`,
		`chains[1].data_dir = "sharelog/BTC": another chain has it`,
		`chains[1].kafka_group_id = "log": another chain has it`,
		`chains[1].start = "now"`,
		`chains[1].share_topic = ""`,
		`chains[2].chain = "B/H"`,
		`chains[2].data_dir = "sharelog/BTC": another chain has it`,
		`chains[2].share_topic = "BtcShare": another chain has it`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in:\n%v", want, err)
		}
	}
}

// TestValidateAbove wants what each of several chains has to be set in its section alone.
func TestValidateAbove(t *testing.T) {
	t.Parallel()
	for name, set := range map[string]func(*sharelogger.Config){
		"nothing":            func(*sharelogger.Config) {},
		"chain":              func(c *sharelogger.Config) { c.Chain = "LTC" },
		"kafka_group_id":     func(c *sharelogger.Config) { c.GroupID = "log" },
		"start":              func(c *sharelogger.Config) { c.Start = "latest" },
		"kafka.topics.share": func(c *sharelogger.Config) { c.Kafka.Topics.Share = "LtcShare" },
	} {
		cfg := sharelogger.DefaultConfig()
		cfg.Chains = []sharelogger.Chain{{Chain: "BTC", ShareTopic: "BtcShare"}}
		set(&cfg)
		if err := cfg.Validate(); (err == nil) != (name == "nothing") || err != nil && !strings.Contains(err.Error(), name) {
			t.Errorf("%s set: %v", name, err)
		}
	}
}

func TestValidateOnly(t *testing.T) {
	t.Parallel()
	several := []sharelogger.Chain{{Chain: "BTC", ShareTopic: "BtcShare"}, {Chain: "BCH", ShareTopic: "BchShare"}}
	for _, c := range []struct {
		chains []sharelogger.Chain
		only   string
		seal   sharefile.Day
		want   string
	}{
		{nil, "", 20240101, ""},
		{nil, "BTC", 20240101, ""},
		{nil, "BCH", 20240101, "-chain BCH: there is only BTC"},
		{nil, "BTC", 0, "-chain: needs -repair, -seal or -verify"},
		{several, "BCH", 20240101, ""},
		{several, "", 0, ""},
		{several, "", 20240101, "-chain: must name one of BTC, BCH"},
		{several, "LTC", 20240101, "-chain LTC: there is only BTC, BCH"},
		{several, "BCH", 0, "-chain: needs -repair, -seal or -verify"},
	} {
		cfg := sharelogger.DefaultConfig()
		cfg.Chains, cfg.Only, cfg.SealDay = c.chains, c.only, c.seal
		if err := cfg.Validate(); (err == nil) != (c.want == "") || err != nil && err.Error() != c.want {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

package sserver_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/google/go-cmp/cmp"

	"btcpool/internal/auxwork"
	"btcpool/internal/bus"
	"btcpool/internal/handover"
	"btcpool/internal/job"
	"btcpool/internal/share"
	"btcpool/internal/testkit"
	"btcpool/sserver"
)

// blkmaker receives solved shares directly.
func blkmaker(t *testing.T, cfg *sserver.Config) <-chan share.Solved {
	t.Helper()
	solved := make(chan share.Solved, 10)
	cfg.Handover.Token = "a-secret-of-the-tests"
	server := httptest.NewServer(handover.Handler(cfg.Handover.Token, func(_ context.Context, text []byte) error {
		s, err := share.ParseSolved(text)
		solved <- s
		return err
	}))
	t.Cleanup(server.Close)
	cfg.Handover.URLs = append(cfg.Handover.URLs, server.URL)
	return solved
}

// A block reaches every blkmaker while Kafka is away, and Kafka later.
func TestHandover(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	brokers := cfg.Kafka.Brokers
	cfg.Kafka.Brokers = []string{"127.0.0.1:1"}
	one, two := blkmaker(t, &cfg), blkmaker(t, &cfg)
	cfg.Handover.URLs = append(cfg.Handover.URLs, "http://127.0.0.1:1")
	p := startPool(t, cfg)
	j := p.newJob(1, 100)
	j.Bits = 0x1f00ffff
	p.TakeJob(j)
	c, w := p.miner()
	header := c.header(w, 1, unhex32(t, w.version), unhex32(t, w.time))
	header.Nonce = c.mine(w, header, 1.0/(1<<16), 1e30)
	c.wantSubmit(find{job: w.id, extraNonce2: fmt.Sprintf("%016x", 1), time: w.time, nonce: fmt.Sprintf("%08x", header.Nonce)}, 0)
	for _, solved := range []<-chan share.Solved{one, two} {
		select {
		case s := <-solved:
			if s.JobID != uint64(j.ID) || s.WorkerName != "alice.rig" || chainhash.DoubleHashH(s.Header[:]) != header.BlockHash() {
				t.Errorf("solved %+v", s)
			}
		case <-time.After(patience):
			t.Fatal("not handed over")
		}
	}
	p.stop()

	cfg.Kafka.Brokers, cfg.Handover.URLs = brokers, nil
	startPool(t, cfg)
	if s, err := share.ParseSolved(readTopic(t, cfg, cfg.Kafka.Topics.SolvedShare, 1)[0]); err != nil || s.JobID != uint64(j.ID) {
		t.Errorf("through Kafka: %+v, %v", s, err)
	}
}

// The whole name of who found a block goes both ways, beside btcpool's 39 bytes.
func TestLongFinder(t *testing.T) {
	t.Parallel()
	const user = "bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr"
	cfg := testConfig(t)
	cfg.Users.Static = map[string]int32{user: 7}
	direct := blkmaker(t, &cfg)
	p := startPool(t, cfg)
	j := p.newJob(1, 100)
	j.Bits = 0x1f00ffff
	p.TakeJob(j)
	c := p.dial()
	c.resume("")
	c.mustCall(nil, "mining.authorize", user+".garage-1", "")
	w := c.work()
	header := c.header(w, 1, unhex32(t, w.version), unhex32(t, w.time))
	header.Nonce = c.mine(w, header, 1.0/(1<<16), 1e30)
	params := find{job: w.id, extraNonce2: fmt.Sprintf("%016x", 1), time: w.time, nonce: fmt.Sprintf("%08x", header.Nonce)}
	if code := p.submitAs(c, user+".garage-1", params); code != 0 {
		t.Fatalf("code %d", code)
	}
	select {
	case s := <-direct:
		if s.WorkerName != user+".garage-1" {
			t.Errorf("directly: %s", s.WorkerName)
		}
	case <-time.After(patience):
		t.Fatal("not handed over")
	}
	p.stop()

	var got bus.Message
	readMessages(t, cfg, cfg.Kafka.Topics.SolvedShare, func(m bus.Message) (bool, error) {
		got = m
		return true, nil
	})
	if string(got.Key) != user+".garage-1" || len(got.Value) < 144 || string(got.Value[104:144]) != user[:39]+"\x00" {
		t.Errorf("through Kafka: key %q, value %x", got.Key, got.Value)
	}
}

// mergedJob is a job whose shares may solve blocks of other chains, of difficulty 2^-16 each.
func (p *pool) mergedJob(prev byte, height int32) *job.StratumJob {
	j := p.newJob(prev, height)
	j.Aux = job.AuxWork{BlockHash: strings.Repeat("0a", 32), Bits: 0x1f00ffff, Height: 5, RPCAddr: "namecoin", RPCUserPass: "u:p"}
	j.RSK = job.RSKWork{
		BlockHash: "0x" + strings.Repeat("0b", 32), NetworkTarget: "0x0000ffff" + strings.Repeat("0", 56),
		FeesForMiner: "21000", RPCAddr: "rsk", RPCUserPass: "x:y",
	}
	return j
}

func TestMergedMining(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	testkit.Bus(t, cfg.Kafka, cfg.Kafka.Topics.AuxSolved, cfg.Kafka.Topics.RSKSolved)
	p := startPool(t, cfg)
	j := p.mergedJob(1, 100)
	p.TakeJob(j)
	c, w := p.miner()
	version, now := unhex32(t, w.version), unhex32(t, w.time)
	const aux = 1.0 / (1 << 16)
	mined := func(extraNonce2 uint64, time uint32, low, high float64) find {
		nonce := c.mine(w, c.header(w, extraNonce2, version, time), low, high)
		return find{job: w.id, extraNonce2: fmt.Sprintf("%016x", extraNonce2), time: fmt.Sprintf("%08x", time), nonce: fmt.Sprintf("%08x", nonce)}
	}
	c.wantSubmit(mined(1, now, w.difficulty, aux), 0) // solves nothing
	c.wantSubmit(mined(2, now, 2*aux, 1e30), 0)       // solves both
	c.wantSubmit(mined(3, now-3601, 2*aux, 1e30), 31) // illegal, whatever it solves
	c.wantSubmit(mined(4, now+601, 2*aux, 1e30), 32)  // likewise
	late := mined(5, now, 2*aux, 1e30)
	next := p.mergedJob(2, 101)
	next.RSK.NetworkTarget = "0x00" // not usable: the rest is
	p.TakeJob(next)
	c.work()
	c.wantSubmit(late, 21) // stale here, but not there
	c.wantSubmit(late, 22) // and not twice
	if got := p.metric("jobs_total", "result", "bad merged"); got != 1 {
		t.Errorf("%v jobs with bad merged mining", got)
	}
	if got := p.metric("solved_total"); got != 0 {
		t.Errorf("%v blocks solved", got)
	}
	c.conn.Close()
	p.stop()

	var got []string
	for _, value := range readTopic(t, cfg, cfg.Kafka.Topics.AuxSolved, 2) {
		s, err := auxwork.ParseAuxSolved(value)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprint("aux ", s.JobID, " ", s.Hash, " ", s.RPCAddr, " ", s.RPCUserPass, " ", len(s.Coinbase)))
	}
	for _, value := range readTopic(t, cfg, cfg.Kafka.Topics.RSKSolved, 2) {
		s, err := auxwork.ParseRSKSolved(value)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprint("rsk ", s.JobID, " ", s.Height, " ", s.WorkerName, " ", s.FeesForMiner, " ", s.RPCAddr, " ", s.RPCUserPass, " ", len(s.Coinbase)))
	}
	auxLine := fmt.Sprint("aux ", uint64(j.ID), " ", strings.Repeat("0a", 32), " namecoin u:p 192")
	rskLine := fmt.Sprint("rsk ", uint64(j.ID), " 100 alice.rig 21000 rsk x:y 192")
	if diff := cmp.Diff([]string{auxLine, auxLine, rskLine, rskLine}, got); diff != "" {
		t.Error(diff)
	}
}

// Without topics for them nobody looks for other chains' blocks.
func TestNoMergedMining(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.Kafka.Topics.AuxSolved, cfg.Kafka.Topics.RSKSolved = "", ""
	p := startPool(t, cfg)
	p.TakeJob(p.mergedJob(1, 100))
	c, w := p.miner()
	header := c.header(w, 1, unhex32(t, w.version), unhex32(t, w.time))
	f := find{job: w.id, extraNonce2: fmt.Sprintf("%016x", 1), time: w.time, nonce: fmt.Sprintf("%08x", c.mine(w, header, 1.0/(1<<16), 1e30))}
	c.wantSubmit(f, 0)
	if got := p.metric("solved_merged_total"); got != 0 {
		t.Errorf("%v solved", got)
	}
}

// A share that solves a block of the height before is handed over: nodes may hear of it first. It stays stale. One of
// an older block is not.
func TestSolvedTooLate(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	solved := blkmaker(t, &cfg)
	p := startPool(t, cfg)
	j := p.newJob(1, 100)
	j.Bits = 0x1f00ffff
	p.TakeJob(j)
	c, w := p.miner()
	var finds []find
	for extraNonce2 := uint64(1); extraNonce2 < 3; extraNonce2++ {
		header := c.header(w, extraNonce2, unhex32(t, w.version), unhex32(t, w.time))
		nonce := c.mine(w, header, 1.0/(1<<16), 1e30)
		finds = append(finds, find{job: w.id, extraNonce2: fmt.Sprintf("%016x", extraNonce2), time: w.time, nonce: fmt.Sprintf("%08x", nonce)})
	}
	p.TakeJob(p.newJob(2, 101))
	c.work()
	c.wantSubmit(finds[0], 21)
	c.wantSubmit(finds[0], 22)
	select {
	case s := <-solved:
		if s.JobID != uint64(j.ID) {
			t.Errorf("solved %+v", s)
		}
	case <-time.After(patience):
		t.Fatal("not handed over")
	}
	p.TakeJob(p.newJob(3, 102))
	c.work()
	c.wantSubmit(finds[1], 21)
	if got := p.metric("solved_total"); got != 1 {
		t.Errorf("%v blocks solved", got)
	}
}

// A block that is easier than the share difficulty is handed over once, however often its share comes.
func TestSolvedBelowDifficulty(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.DefaultDifficulty = 1.0 / (1 << 12)
	p := startPool(t, cfg)
	j := p.newJob(1, 100)
	j.Bits = 0x1f00ffff
	p.TakeJob(j)
	c, w := p.miner()
	header := c.header(w, 1, unhex32(t, w.version), unhex32(t, w.time))
	nonce := c.mine(w, header, 1.0/(1<<16), 1.0/(1<<12))
	again := find{job: w.id, extraNonce2: fmt.Sprintf("%016x", 1), time: w.time, nonce: fmt.Sprintf("%08x", nonce)}
	c.wantSubmit(again, 23)
	for range 199 {
		c.wantSubmit(again, 22)
	}
	if got := p.metric("solved_total"); got != 1 {
		t.Errorf("%v blocks solved", got)
	}
}

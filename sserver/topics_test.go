package sserver_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"btcpool/internal/bitcoin"
	"btcpool/internal/bus"
	"btcpool/internal/job"
	"btcpool/internal/share"
	"btcpool/internal/testkit"
	"btcpool/sserver"
)

// readMessages reads a topic from its beginning until enough returns true, or for long no message has come.
func readMessages(t *testing.T, cfg sserver.Config, topic string, enough func(m bus.Message) (bool, error)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	quiet := time.AfterFunc(patience, cancel)
	defer quiet.Stop()
	if err := testkit.Bus(t, cfg.Kafka).Read(ctx, topic, bus.Earliest(), func(m bus.Message) error {
		quiet.Reset(patience)
		end, err := enough(m)
		if end {
			cancel()
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// readTopic returns the first n messages of a topic.
func readTopic(t *testing.T, cfg sserver.Config, topic string, n int) (values [][]byte) {
	t.Helper()
	readMessages(t, cfg, topic, func(m bus.Message) (bool, error) {
		values = append(values, m.Value)
		return len(values) == n, nil
	})
	if len(values) != n {
		t.Fatalf("%d messages in %s, want %d", len(values), topic, n)
	}
	return values
}

// minerEvents waits for n events of miners and returns them.
func minerEvents(t *testing.T, cfg sserver.Config, n int) (events []share.Event) {
	t.Helper()
	readMessages(t, cfg, cfg.Kafka.Topics.CommonEvents, func(m bus.Message) (bool, error) {
		e, err := share.ParseEvent(m.Value)
		if err == nil && e.Action != share.ServerServing {
			events = append(events, e)
		}
		return len(events) == n, err
	})
	if len(events) != n {
		t.Fatalf("%d events of miners, want %d, the last of them %v", len(events), n, events[max(0, len(events)-20):])
	}
	return events
}

// All the way: a job from Kafka, and back to Kafka what miners did with it.
func TestTopics(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.DefaultDifficulty = 1.0 / (1 << 18)
	p := startPool(t, cfg)
	j := p.newJob(1, 100)
	j.Bits = 0x1f00ffff // difficulty 2^-16: a few shares are blocks

	client := testkit.Bus(t, cfg.Kafka)
	for _, value := range [][]byte{[]byte("no job"), j.AppendTo(nil), j.AppendTo(nil)} {
		if err := client.Write(t.Context(), cfg.Kafka.Topics.Job, bus.Message{Value: value}); err != nil {
			t.Fatal(err)
		}
	}
	testkit.Eventually(t, "ready", func() bool { return p.Ready() == nil })

	c, w := p.miner()
	header := c.header(w, 1, unhex32(t, w.version), unhex32(t, w.time))
	plain := find{job: w.id, extraNonce2: fmt.Sprintf("%016x", 1), time: w.time}
	plain.nonce = fmt.Sprintf("%08x", c.mine(w, header, w.difficulty, 4*w.difficulty))
	block := plain
	block.nonce = fmt.Sprintf("%08x", c.mine(w, header, 4*w.difficulty, 1e30))
	late := plain
	late.time = "00000000"
	c.wantSubmit(plain, 0)
	c.wantSubmit(block, 0)
	c.wantSubmit(late, 31)
	c.wantSubmit(plain, 22)
	c.conn.Close()
	testkit.Eventually(t, "disconnect", func() bool { return p.Sessions() == 0 })
	p.stop()

	var shares []share.Share
	for _, value := range readTopic(t, cfg, cfg.Kafka.Topics.Share, 3) {
		var s share.Share
		if err := s.Parse(value); err != nil {
			t.Fatal(err)
		}
		if err := s.Validate(); err != nil {
			t.Error(err)
		}
		shares = append(shares, s)
	}
	if shares[0].ID.Epoch == 0 || time.Since(time.Unix(shares[0].Time, 0)) > time.Minute {
		t.Errorf("share %+v", shares[0])
	}
	want := share.Share{
		ID: share.ID{Server: 1, Epoch: shares[0].ID.Epoch, Seq: 1}, JobID: uint64(j.ID), UserID: 7, WorkerID: share.WorkerID("rig"),
		Status: share.StatusAccept, IP: netip.MustParseAddr("127.0.0.1"), Difficulty: -18, Bits: j.Bits, Height: 100,
		Nonce: unhex32(t, plain.nonce), SessionID: unhex32(t, c.extraNonce1),
	}
	header.Nonce = want.Nonce
	plainHash := header.BlockHash()
	want.BitsReached = bitcoin.BitsOfHash(&plainHash)
	wantBlock, wantLate := want, want
	wantBlock.ID.Seq, wantBlock.Nonce = 2, unhex32(t, block.nonce)
	header.Nonce = wantBlock.Nonce
	blockHash := header.BlockHash()
	wantBlock.BitsReached = bitcoin.BitsOfHash(&blockHash)
	wantLate.ID.Seq, wantLate.Status, wantLate.BitsReached = 3, share.StatusTimeTooOld, 0
	if diff := cmp.Diff([]share.Share{want, wantBlock, wantLate}, shares,
		cmpopts.IgnoreFields(share.Share{}, "Time"), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Error(diff)
	}

	solved, err := share.ParseSolved(readTopic(t, cfg, cfg.Kafka.Topics.SolvedShare, 1)[0])
	if err != nil {
		t.Fatal(err)
	}
	if chainhash.DoubleHashH(solved.Header[:]) != blockHash {
		t.Error("the header is not that of the block")
	}
	coinbase := unhex(t, w.coinbase1+c.extraNonce1+block.extraNonce2+w.coinbase2)
	if diff := cmp.Diff(share.Solved{
		JobID: uint64(j.ID), WorkerID: want.WorkerID, UserID: 7, Height: 100, Header: solved.Header, WorkerName: "alice.rig", Coinbase: coinbase,
	}, solved); diff != "" {
		t.Error(diff)
	}

	events := minerEvents(t, cfg, 2)
	for i, want := range []struct {
		action share.Action
		desc   string
	}{{share.MinerConnect, "new_conn"}, {share.MinerDead, "del_conn"}} {
		e := events[i]
		if e.Action != want.action || e.Desc != want.desc || e.UserID != 7 || e.UserName != "alice" || e.WorkerName != "rig" ||
			e.Agent != "test/1" || e.SessionID != shares[0].SessionID {
			t.Errorf("event %+v", e)
		}
	}
}

// The latest job of btcpool's jobmaker, whose messages have no time, is there at the start.
func TestJobWithoutTime(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	j := (&pool{jobs: job.NewIDs(1)}).newJob(1, 100)
	client := testkit.Bus(t, cfg.Kafka)
	if err := client.Write(t.Context(), cfg.Kafka.Topics.Job, bus.Message{Time: time.UnixMilli(-1), Value: j.AppendTo(nil)}); err != nil {
		t.Fatal(err)
	}
	p := startPool(t, cfg)
	testkit.Eventually(t, "ready", func() bool { return p.Ready() == nil })
}

// What was acknowledged while Kafka was away is sent by the next process.
func TestKafkaAway(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	there := cfg.Kafka.Brokers
	cfg.Kafka.Brokers = []string{"127.0.0.1:1"}
	p := startPool(t, cfg)
	p.TakeJob(p.newJob(1, 100))
	c, w := p.miner()
	for i := range uint64(3) {
		c.wantSubmit(c.share(w, i), 0)
	}
	p.stop()

	cfg.Kafka.Brokers = there
	p = startPool(t, cfg)
	p.TakeJob(p.newJob(1, 100))
	c, w = p.miner()
	c.wantSubmit(c.share(w, 1), 0)
	p.stop()
	seen := make(map[share.ID]bool)
	for _, value := range readTopic(t, cfg, cfg.Kafka.Topics.Share, 4) {
		var s share.Share
		if err := s.Parse(value); err != nil {
			t.Fatal(err)
		}
		seen[s.ID] = true
	}
	if len(seen) != 4 {
		t.Errorf("ids %v", seen)
	}
}

// Two servers with one fixed id are both told of, within seconds, and the later one is not ready for as long as the other
// is there. Their shares do not meet even if they began in the same epoch.
func TestSameID(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	first := startPool(t, cfg)
	first.TakeJob(first.newJob(1, 100))
	testkit.Eventually(t, "the first is ready", func() bool { return first.Ready() == nil })

	cfg.DataDir = t.TempDir()
	second := startPool(t, cfg)
	second.TakeJob(second.newJob(1, 100))
	began := time.Now()
	testkit.Eventually(t, "both know", func() bool { return first.metric("twins") == 1 && second.metric("twins") == 1 })
	t.Logf("known after %v", time.Since(began).Round(time.Millisecond))
	if err := second.Ready(); err == nil || !strings.Contains(err.Error(), "same server id") {
		t.Errorf("the second: %v", err)
	}
	if err := first.Ready(); err != nil {
		t.Errorf("the first: %v", err)
	}
	if a, b := first.Epoch(), second.Epoch(); a == b {
		t.Errorf("both have epoch %d", a)
	}
	other := cfg
	other.DataDir, other.ServerID = t.TempDir(), 2
	third := startPool(t, other)
	third.TakeJob(third.newJob(1, 100))
	testkit.Eventually(t, "one with another id is ready", func() bool { return third.Ready() == nil })

	same := max(first.Epoch(), second.Epoch()) + 5
	if err := errors.Join(first.SetEpoch(same), second.SetEpoch(same)); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the later one has another epoch", func() bool { return second.Epoch() > same })
	if first.Epoch() != same {
		t.Errorf("the first left its epoch, too")
	}

	first.stop()
	testkit.Until(t, testkit.Patience, "the second is ready alone", func(context.Context) error { return second.Ready() })
	if n := third.metric("twins"); n != 0 {
		t.Errorf("%v twins of the third", n)
	}
}

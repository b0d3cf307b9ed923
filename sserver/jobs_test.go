package sserver

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"

	"btcpool/internal/config"
	"btcpool/internal/job"
	"btcpool/internal/testkit"
)

func TestJobBook(t *testing.T) {
	t.Parallel()
	start := time.Unix(1_700_000_000, 0)
	type step struct {
		at       int // seconds: the time of arrival
		made     int // seconds: the time in the id
		id       int // low part
		prev     byte
		height   int32
		left     byte // the block that miners are sent back from
		full     bool // has transactions
		merged   bool // MergedMiningClean
		easy     bool // of other bits
		wantSent bool
		wantErr  error
		wantNow  int // id of the newest job afterwards
	}
	for _, test := range []struct {
		name  string
		steps []step
	}{
		{"heights", []step{
			{id: 1, prev: 1, height: 10, wantSent: true, wantNow: 1},
			{at: 1, made: 1, id: 2, prev: 1, height: 10, wantNow: 2},
			{at: 2, made: 2, id: 3, prev: 2, height: 11, wantSent: true, wantNow: 3},
			{at: 2, made: 2, id: 3, prev: 2, height: 11, wantErr: errJobKnown, wantNow: 3},
		}},
		{"same height, another block, and no way back", []step{
			{id: 1, prev: 1, height: 10, wantSent: true, wantNow: 1},
			{at: 1, made: 1, id: 2, prev: 2, height: 10, full: true, wantSent: true, wantNow: 2},
			{at: 2, made: 2, id: 3, prev: 1, height: 10, wantErr: errJobBehind, wantNow: 2},
			{at: 3, made: 3, id: 4, prev: 3, height: 9, wantErr: errJobBehind, wantNow: 2},
			{at: 40, made: 40, id: 5, prev: 2, height: 10, wantNow: 5},
			{at: 70, made: 70, id: 6, prev: 1, height: 10, wantErr: errJobBehind, wantNow: 5},
		}},
		{"jobmaker's clock is an hour behind", []step{
			{id: 1, prev: 1, height: 10, wantSent: true, wantNow: 1},
			{at: 10, made: -3590, id: 2, prev: 2, height: 11, wantErr: errJobLate, wantNow: 1},
			{at: 30, made: -3570, id: 3, prev: 2, height: 11, wantSent: true, wantNow: 3},
			{at: 31, made: -3569, id: 4, prev: 3, height: 12, wantSent: true, wantNow: 4},
			{at: 60, made: -3540, id: 5, prev: 3, height: 12, wantNow: 5},
			{at: 80, made: 80, id: 6, prev: 4, height: 13, wantSent: true, wantNow: 6},
		}},
		{"what comes an hour late comes at once", []step{
			{made: -3600, id: 1, prev: 1, height: 10, wantErr: errJobLate},
			{made: -3580, id: 2, prev: 1, height: 10, wantErr: errJobLate},
			{made: -3560, id: 3, prev: 1, height: 10, wantErr: errJobLate},
			{id: 4, prev: 7, height: 16, wantSent: true, wantNow: 4},
		}},
		{"back when nothing else comes", []step{
			{id: 1, prev: 1, height: 10, wantSent: true, wantNow: 1},
			{at: 1, made: 1, id: 2, prev: 2, height: 10, wantSent: true, wantNow: 2},
			{at: 62, made: 62, id: 3, prev: 1, height: 10, wantSent: true, wantNow: 3},
			{at: 63, made: 63, id: 4, prev: 2, height: 10, wantErr: errJobBehind, wantNow: 3},
			{at: 124, made: 124, id: 5, prev: 7, height: 1, wantSent: true, wantNow: 5},
		}},
		{"a block is left because jobmaker knows better", []step{
			{id: 1, prev: 1, height: 10, full: true, wantSent: true, wantNow: 1},
			{at: 1, made: 1, id: 2, prev: 2, height: 11, wantSent: true, wantNow: 2},
			{at: 2, made: 2, id: 3, prev: 1, height: 10, full: true, wantErr: errJobBehind, wantNow: 2},
			{at: 3, made: 3, id: 3, prev: 1, height: 10, left: 9, full: true, wantErr: errJobBehind, wantNow: 2},
			{at: 16, made: 16, id: 4, prev: 1, height: 10, left: 2, full: true, wantSent: true, wantNow: 4},
			{at: 18, made: 18, id: 5, prev: 2, height: 11, full: true, wantSent: true, wantNow: 5}, // our own node has it now
		}},
		{"first transactions", []step{
			{id: 1, prev: 1, height: 10, wantSent: true, wantNow: 1},
			{at: 1, made: 1, id: 2, prev: 1, height: 10, full: true, wantSent: true, wantNow: 2},
			{at: 2, made: 2, id: 3, prev: 1, height: 10, full: true, wantNow: 3},
		}},
		{"other bits on the same block", []step{
			{id: 1, prev: 1, height: 10, full: true, wantSent: true, wantNow: 1},
			{at: 1, made: 1, id: 2, prev: 1, height: 10, full: true, easy: true, wantSent: true, wantNow: 2},
		}},
		{"merged mining", []step{
			{id: 1, prev: 1, height: 10, full: true, wantSent: true, wantNow: 1},
			{at: 1, made: 1, id: 2, prev: 1, height: 10, full: true, merged: true, wantSent: true, wantNow: 2},
		}},
		{"an older job does not replace a newer one", []step{
			{at: 1, made: 1, id: 1, prev: 1, height: 10, wantSent: true, wantNow: 1},
			{at: 2, made: 0, id: 2, prev: 1, height: 10, full: true, wantNow: 1},
		}},
		{"late and early", []step{
			{at: 61, made: 0, id: 1, prev: 1, height: 10, wantErr: errJobLate},
			{at: 0, made: 61, id: 2, prev: 1, height: 10, wantSent: true, wantNow: 2},
		}},
		{"just in time", []step{
			{at: 60, made: 0, id: 3, prev: 1, height: 10, wantSent: true, wantNow: 3},
		}},
		{"jobmaker's clock was ahead and is set right", []step{
			{at: 0, made: 3000, id: 1, prev: 1, height: 10, full: true, wantSent: true, wantNow: 1},
			{at: 20, made: 20, id: 2, prev: 1, height: 10, full: true, wantNow: 2},
			{at: 25, made: 25, id: 3, prev: 2, height: 11, full: true, wantSent: true, wantNow: 3},
			{at: 95, made: 95, id: 4, prev: 1, height: 10, full: true, wantSent: true, wantNow: 4}, // nothing else for long
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b := newJobBook(DefaultConfig())
			for i, s := range test.steps {
				at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
				j := &job.StratumJob{
					ID: job.ID(at(s.made).Unix())<<32 | job.ID(s.id), PrevHash: chainhash.Hash{s.prev}, Height: s.height,
					Left: chainhash.Hash{s.left},
					Bits: 0x1d00ffff, MergedMiningClean: s.merged,
				}
				if s.easy {
					j.Bits = 0x1e00ffff
				}
				if s.full {
					j.MerkleBranch = []chainhash.Hash{{1}}
				}
				sent, err := b.add(j, merged{}, at(s.at))
				if sent != s.wantSent || !errors.Is(err, s.wantErr) {
					t.Errorf("step %d: sent %v, error %v", i, sent, err)
				}
				now := 0
				if w := b.newest(); w != nil {
					now = int(uint32(w.ID))
				}
				if now != s.wantNow {
					t.Errorf("step %d: newest job %d, want %d", i, now, s.wantNow)
				}
			}
		})
	}
}

func TestJobBookRefusesProxyJobs(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	j := &job.StratumJob{ID: job.NewIDs(1).Next(now), Bits: 0x1d00ffff, Proxy: job.Proxy{Difficulty: 1}}
	if _, err := newJobBook(DefaultConfig()).add(j, merged{}, now); !errors.Is(err, errJobProxy) {
		t.Errorf("error %v", err)
	}
}

func TestJobBookForgets(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	b := newJobBook(DefaultConfig())
	ids := job.NewIDs(1)
	add := func(prev byte) job.ID {
		id := ids.Next(now)
		if _, err := b.add(&job.StratumJob{ID: id, PrevHash: chainhash.Hash{prev}, Height: int32(prev), Bits: 0x1d00ffff}, merged{}, now); err != nil {
			t.Fatal(err)
		}
		return id
	}
	first := add(1)
	now = now.Add(20 * time.Second)
	second := add(2)
	if b.tick(now.Add(29*time.Second)) || !b.tick(now.Add(30*time.Second)) || b.tick(now.Add(59*time.Second)) {
		t.Error("not repeated each 30 s")
	}
	if !b.stale(b.find(first)) || b.stale(b.find(second)) {
		t.Error("the first job must be stale, the second not")
	}
	b.tick(now.Add(281 * time.Second))
	if b.find(first) != nil || b.find(second) == nil {
		t.Error("the first job must be forgotten, the second not")
	}
	b.tick(now.Add(time.Hour))
	if b.find(second) == nil {
		t.Error("the newest job must be kept")
	}
	for range 2 * maxWorks {
		add(2)
	}
	if n := len(*b.works.Load()); n != maxWorks {
		t.Errorf("%d jobs kept", n)
	}
}

// Ready tells of jobs that are dropped, and of clocks that differ.
func TestJobFault(t *testing.T) {
	t.Parallel()
	start := time.Unix(1_700_000_000, 0)
	cfg := DefaultConfig()
	c := &chain{cfg: cfg, srv: new(Service), jobs: newJobBook(cfg)}
	c.metrics = newChainMetrics(nil, c)
	ids := job.NewIDs(1)
	take := func(made, now time.Time) {
		j := &job.StratumJob{
			ID: ids.Next(made), GBTHash: chainhash.Hash{}.String(), Height: 10, Bits: 0x1d00ffff,
			Coinbase1: []byte{1}, Coinbase2: []byte{1}, PrevHash: chainhash.Hash{1},
		}
		c.takeJob(j.AppendTo(nil), now)
	}
	for _, step := range []struct {
		made, at, asked int // seconds
		want            string
	}{
		{made: -61, at: 0, asked: 0, want: "no job yet: those that come are dropped: too old"},
		{made: 1, at: 1, asked: 1},
		{made: -60, at: 2, asked: 62},
		{made: -60, at: 10, asked: 63, want: "jobs have been dropped for 1m1s"},
		{made: 64, at: 64, asked: 64},
		{made: 3000, at: 65, asked: 100, want: "latest job is 48m20s ahead of the clock"},
		{made: 131, at: 131, asked: 131},
		{made: 131, at: 131, asked: 432, want: "latest job is 5m1s old"},
		{made: -3160, at: 440, asked: 440, want: "latest job is 5m9s old"},
		{made: -3140, at: 460, asked: 470, want: "latest job is 1h0m0s behind the clock"},
		{made: 480, at: 480, asked: 501},
	} {
		at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
		take(at(step.made), at(step.at))
		c.jobs.tick(at(step.asked))
		err := c.jobFault(at(step.asked))
		if (err == nil) != (step.want == "") || err != nil && !strings.Contains(err.Error(), step.want) {
			t.Errorf("at %d: %v, want %q", step.asked, err, step.want)
		}
	}
}

// Shares of the block that was left are credited for a time, whatever the clock says meanwhile.
func TestStaleGraceAndClock(t *testing.T) {
	t.Parallel()
	cfg := DefaultConfig()
	cfg.StaleGrace = config.Duration(5 * time.Second)
	b := newJobBook(cfg)
	now := time.Now() // with a monotonic reading, as in service
	ids := job.NewIDs(1)
	add := func(height int32) *work {
		j := &job.StratumJob{ID: ids.Next(now), Height: height, Bits: 0x1d00ffff, PrevHash: chainhash.Hash{byte(height)}}
		if _, err := b.add(j, merged{}, now); err != nil {
			t.Fatal(err)
		}
		return b.newest()
	}
	left := add(10)
	add(11)
	steps := []time.Duration{0, -time.Hour, time.Hour, -5 * time.Second}
	for _, step := range steps {
		if at := testkit.Stepped(t, now.Add(4*time.Second), step); !b.late(left, at) {
			t.Errorf("not after 4 s when the clock steps by %v", step)
		}
		if at := testkit.Stepped(t, now.Add(6*time.Second), step); b.late(left, at) {
			t.Errorf("still after 6 s when the clock steps by %v", step)
		}
	}
}

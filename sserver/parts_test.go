package sserver

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"btcpool/internal/bitcoin"
	"btcpool/internal/job"
	"btcpool/internal/service"
	"btcpool/internal/store"
	v1 "btcpool/internal/stratum/v1"
	"btcpool/internal/users"
)

func TestSplitLogin(t *testing.T) {
	t.Parallel()
	cfg := users.DefaultConfig()
	lists, err := users.New("sserver", cfg, []users.Source{cfg.Source}, t.TempDir(), store.Config{}, service.Deps{Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	none := bitcoin.Difficulty(-99)
	for _, test := range []struct {
		login, user, worker string
		start               bitcoin.Difficulty
	}{
		{"Alice.rig1", "alice", "rig1", none},
		{"alice.a.b", "alice", "a.b", none},
		{"alice", "alice", "__default__", none},
		{"alice.", "alice", "__default__", none},
		{".rig", "", "rig", none},
		{"", "", "__default__", none},
		{"alice.r(i)g", "alice", "rig", none},
		{"a-b_c:d|e^f/g.w", "a-b_c:d|e^f/g", "w", none},
		{"alice." + strings.Repeat("w", 30), "alice", strings.Repeat("w", 20), none},
		{"\"';--.x", "", "x", none},
		{"al ice.rig", "", "rig", none},
		{"alice\u00e9", "", "__default__", none},
		{"alice+1000", "alice", "__default__", 10},
		{"alice+500K.rig", "alice", "rig", 19},
		{"alice+inf.rig", "", "rig", none},
		{"alice+.rig", "", "rig", none},
		{"alice+rig", "", "__default__", none},
		{"bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4+50000", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "__default__", 16},
		{"bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4_rig.1", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "rig.1", none},
	} {
		t.Run(test.login, func(t *testing.T) {
			t.Parallel()
			user, worker, start, hasStart := splitLogin(test.login, lists.Of(cfg.Source))
			if user != test.user || worker != test.worker || hasStart != (test.start != none) || hasStart && start != test.start {
				t.Errorf("got %q, %q and %v, %v", user, worker, start, hasStart)
			}
		})
	}
}

func TestIDPool(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	p := newIDPool(7, time.Minute)
	p.first = sessionIDs - 2
	get := func() uint32 {
		id, ok := p.get(now)
		if !ok {
			t.Fatal("no id")
		}
		return id
	}
	got := []uint32{get(), get(), get()}
	if diff := cmp.Diff([]uint32{0x07fffffe, 0x07ffffff, 0x07000000}, got); diff != "" {
		t.Error(diff)
	}
	p.put(0x07ffffff, now)
	now = now.Add(59 * time.Second)
	if id := get(); id != 0x07000001 {
		t.Errorf("id %08x", id)
	}
	now = now.Add(time.Second)
	if id := get(); id != 0x07ffffff {
		t.Errorf("id %08x", id)
	}
	p.given = sessionIDs
	if id, ok := p.get(now); ok {
		t.Errorf("id %08x of none", id)
	}
}

func TestIDPoolClaim(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	ip, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	p := newIDPool(7, time.Minute)
	id, _ := p.get(now)
	claim := func(ip netip.Addr, want bool) {
		t.Helper()
		got, ok := p.claim(id, ip, false, now)
		if ok != want || ok && got.Next != 9 {
			t.Errorf("claimed %v, %+v", ok, got)
		}
	}
	claim(ip, false) // in use
	p.putPast(id, past{Next: 9}, ip, now)
	claim(other, false)
	claim(netip.Addr{}, false)
	claim(ip, true)
	claim(ip, false) // in use again
	now = now.Add(2 * time.Minute)
	if fresh, _ := p.get(now); fresh == id {
		t.Error("an id in use was given")
	}
	p.putPast(id, past{Next: 9}, ip, now)
	claim(ip, true)
	p.putPast(id, past{Next: 9}, ip, now)
	now = now.Add(time.Minute)
	claim(ip, false) // too late
	if again, _ := p.get(now); again != id {
		t.Errorf("id %08x, want %08x", again, id)
	}
	claim(ip, false) // another's now
	if len(p.claimed)+len(p.pasts)+len(p.freed) > 0 {
		t.Errorf("left over: %v, %v, %v", p.claimed, p.pasts, p.freed)
	}
}

func TestDifficultyOfJobs(t *testing.T) {
	t.Parallel()
	var m miner
	m.tell(10, 3, 3)
	m.tell(12, 5, 3)
	m.tell(8, 9, 3)
	for job, want := range map[uint32]bitcoin.Difficulty{3: 10, 4: 10, 5: 12, 8: 12, 9: 8, 300: 8} {
		if got := m.difficultyOf(job); got != want {
			t.Errorf("job %d: %d, want %d", job, got, want)
		}
	}
	m.tell(9, 20, 6) // jobs before 6 are forgotten
	if diff := cmp.Diff([]told{{5, 12}, {9, 8}, {20, 9}}, m.Told); diff != "" {
		t.Error(diff)
	}
}

// Frames say no difficulty below 1, and only what is new.
func TestFarmDifficulties(t *testing.T) {
	t.Parallel()
	f := farm{Miners: make(map[uint16]*farmMiner)}
	const agents = 0 // its own: what miners begin with
	for id := range uint16(4) {
		m := new(farmMiner)
		m.Difficulty.Difficulty = agents
		m.tell(agents, 0, 0)
		f.Miners[id] = m
	}
	set := func(difficulties ...bitcoin.Difficulty) {
		for id, d := range difficulties {
			f.Miners[uint16(id)].Difficulty.Difficulty = d
		}
	}
	for i, step := range []struct {
		have []bitcoin.Difficulty
		want map[uint16]bitcoin.Difficulty
	}{
		{[]bitcoin.Difficulty{-20, -20, -20, -20}, nil},
		{[]bitcoin.Difficulty{-5, 0, 3, 14}, map[uint16]bitcoin.Difficulty{2: 3, 3: 14}},
		{[]bitcoin.Difficulty{-1, -3, -3, 14}, map[uint16]bitcoin.Difficulty{2: 0}},
		{[]bitcoin.Difficulty{-1, -20, -20, -20}, map[uint16]bitcoin.Difficulty{3: 0}},
		{[]bitcoin.Difficulty{1, -20, -20, 1}, map[uint16]bitcoin.Difficulty{0: 1, 3: 1}},
	} {
		set(step.have...)
		if diff := cmp.Diff(step.want, f.tell(uint32(i+1), 0, 0)); diff != "" {
			t.Errorf("step %d: %s", i, diff)
		}
	}
}

func TestRejectRate(t *testing.T) {
	t.Parallel()
	var r rejectRate
	now := time.Unix(1_700_000_000, 0)
	for i := range 25 {
		if got, want := r.add(now.Add(time.Duration(i)*time.Second)), i >= 19; got != want {
			t.Errorf("reject %d: %v", i+1, got)
		}
	}
	for i := range 20 { // one each 4 s
		if r.add(now.Add(time.Duration(100+4*i) * time.Second)) {
			t.Errorf("slow reject %d", i)
		}
	}
	for i := range 20 { // after the clock was set back an hour
		if got, want := r.add(now.Add(time.Duration(i)*time.Second-time.Hour)), i == 19; got != want {
			t.Errorf("reject %d an hour before: %v", i+1, got)
		}
	}
}

// The first block, as if a miner had found it: its coinbase cut where an extranonce could stand.
func TestHashOfTheFirstBlock(t *testing.T) {
	t.Parallel()
	genesis := chaincfg.MainNetParams.GenesisBlock
	var raw bytes.Buffer
	if err := genesis.Transactions[0].SerializeNoWitness(&raw); err != nil {
		t.Fatal(err)
	}
	text := raw.Bytes()
	const at = 60
	j := &job.StratumJob{Coinbase1: text[:at], Coinbase2: text[at+job.ExtranonceSize:], Bits: genesis.Header.Bits}
	w := &work{StratumJob: j, coinbases: []coinbase{{SubPool: j.Own()}}}
	var sc scratch
	got := w.hash(&sc, binary.BigEndian.Uint32(text[at:]), &submission{Submission: v1.Submission{
		ExtraNonce2: binary.BigEndian.Uint64(text[at+job.Extranonce1Size:]),
		Time:        uint32(genesis.Header.Timestamp.Unix()),
		Nonce:       genesis.Header.Nonce,
	}}, 1)
	if want := "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f"; got.String() != want {
		t.Errorf("hash %s", got)
	}
	if diff := cmp.Diff(text, sc.coinbase); diff != "" {
		t.Error(diff)
	}
}

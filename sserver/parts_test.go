package sserver

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/google/go-cmp/cmp"

	"btcpool/internal/job"
)

func TestSplitName(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, user, worker string }{
		{"Alice.rig1", "alice", "rig1"},
		{"alice.a.b", "alice", "a.b"},
		{"alice", "alice", "__default__"},
		{"alice.", "alice", "__default__"},
		{".rig", "", "rig"},
		{"", "", "__default__"},
		{"al ice\x00<>\u00e9.r(i)g", "alice", "rig"},
		{"a-b_c:d|e^f/g.w", "a-b_c:d|e^f/g", "w"},
		{"alice." + strings.Repeat("w", 30), "alice", strings.Repeat("w", 20)},
		{strings.Repeat("u", 201) + ".w", "", "w"},
		{"\"';--.x", "--", "x"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			user, worker := splitName(test.name, true)
			if user != test.user || worker != test.worker {
				t.Errorf("got %q and %q", user, worker)
			}
		})
	}
	if user, _ := splitName("Alice.x", false); user != "Alice" {
		t.Errorf("got %q", user)
	}
}

func TestParsePassword(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		password string
		want     passwordOptions
	}{
		{"x", passwordOptions{}},
		{"", passwordOptions{}},
		{"d=1024", passwordOptions{start: 10, hasStart: true}},
		{"x, d=1025 ,md=0.5", passwordOptions{start: 11, hasStart: true, floor: -1, hasFloor: true}},
		{"d=0,md=-1", passwordOptions{}},
		{"d=NaN,md=x,d", passwordOptions{}},
	} {
		t.Run(test.password, func(t *testing.T) {
			t.Parallel()
			if got := parsePassword(test.password); got != test.want {
				t.Errorf("got %+v", got)
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
}

// The first block, as if a miner had found it: its coinbase cut where an
// extranonce could stand.
func TestHashOfTheFirstBlock(t *testing.T) {
	t.Parallel()
	genesis := chaincfg.MainNetParams.GenesisBlock
	var coinbase bytes.Buffer
	if err := genesis.Transactions[0].SerializeNoWitness(&coinbase); err != nil {
		t.Fatal(err)
	}
	text := coinbase.Bytes()
	const at = 60
	w := &work{StratumJob: &job.StratumJob{
		Coinbase1: text[:at], Coinbase2: text[at+job.ExtranonceSize:], Bits: genesis.Header.Bits,
	}}
	var sc scratch
	got := w.hash(&sc, binary.BigEndian.Uint32(text[at:]), submission{
		extraNonce2: binary.BigEndian.Uint64(text[at+job.Extranonce1Size:]),
		time:        uint32(genesis.Header.Timestamp.Unix()),
		nonce:       genesis.Header.Nonce,
	}, 1)
	if want := "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f"; got.String() != want {
		t.Errorf("hash %s", got)
	}
	if diff := cmp.Diff(text, sc.coinbase); diff != "" {
		t.Error(diff)
	}
}

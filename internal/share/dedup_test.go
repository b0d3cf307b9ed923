package share_test

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"

	"btcpool/internal/share"
)

func TestDedup(t *testing.T) {
	t.Parallel()
	var d share.Dedup
	for i, step := range []struct {
		partition int
		id        share.ID
		want      bool
	}{
		{0, share.ID{Server: 1, Epoch: 100, Seq: 1}, false},
		{0, share.ID{Server: 1, Epoch: 100, Seq: 1}, true},
		{0, share.ID{Server: 1, Epoch: 100, Seq: 5}, false},
		{0, share.ID{Server: 1, Epoch: 100, Seq: 4}, true},
		{1, share.ID{Server: 1, Epoch: 100, Seq: 4}, false}, // another partition
		{0, share.ID{Server: 2, Epoch: 100, Seq: 4}, false}, // another server
		{0, share.ID{Server: 1, Epoch: 101, Seq: 1}, false}, // after a restart
		{0, share.ID{Server: 1, Epoch: 100, Seq: 5}, true},  // what was left from before, again
		{0, share.ID{Server: 1, Epoch: 100, Seq: 6}, false},
		{0, share.ID{Server: 1, Epoch: 101, Seq: 1}, true},
		{0, share.ID{}, false}, // foreign shares are all different
		{0, share.ID{}, false},
	} {
		if got := d.Seen(step.partition, step.id); got != step.want {
			t.Errorf("step %d: Seen(%d, %+v) = %t", i, step.partition, step.id, got)
		}
	}
}

// TestDedupReadsAgain delivers a topic a second time, from its start, after any number of epochs and a restart.
func TestDedupReadsAgain(t *testing.T) {
	t.Parallel()
	for _, n := range []uint32{1, share.EpochsKept, share.EpochsKept + 1, 10 * share.EpochsKept} {
		for _, limit := range []int{1 << 16, 50} {
			d := new(share.Dedup)
			deliver := func() (news int) {
				for epoch := uint32(1); epoch <= n; epoch++ {
					for seq := uint64(1); seq <= 3; seq++ {
						if !d.Seen(0, share.ID{Server: 1, Epoch: 1000 * epoch, Seq: seq}) {
							news++
						}
					}
				}
				return news
			}
			if news := deliver(); news != int(3*n) {
				t.Errorf("%d epochs: %d of %d shares are news", n, news, 3*n)
			}
			state, left := d.AppendTo(nil, limit)
			if len(state) > limit || left != 0 {
				t.Errorf("state has %d bytes, %d sources are left out", len(state), left)
			}
			var err error
			if d, err = share.ParseDedup(state); err != nil {
				t.Fatal(err)
			}
			if news := deliver(); news != 0 {
				t.Errorf("%d epochs, %d bytes of state: %d of %d shares are counted again", n, limit, news, 3*n)
			}
			if d.Seen(0, share.ID{Server: 1, Epoch: 1000*n + 1, Seq: 1}) {
				t.Errorf("%d epochs: a new one is taken for an old one", n)
			}
		}
	}
}

// TestDedupLateEpoch: what a server could not send for long comes under an epoch older than those seen since.
func TestDedupLateEpoch(t *testing.T) {
	t.Parallel()
	var d share.Dedup
	for epoch := uint32(2); epoch <= share.EpochsKept; epoch++ {
		d.Seen(0, share.ID{Server: 1, Epoch: epoch, Seq: 10})
	}
	for seq := uint64(1); seq <= 3; seq++ {
		if d.Seen(0, share.ID{Server: 1, Epoch: 1, Seq: seq}) {
			t.Errorf("share %d of an epoch that was never seen is taken for a repetition", seq)
		}
	}
	if !d.Seen(0, share.ID{Server: 1, Epoch: 1, Seq: 3}) {
		t.Error("share 3 is counted twice")
	}
}

func TestDedupStateBounded(t *testing.T) {
	t.Parallel()
	var d share.Dedup
	for epoch := range uint32(4) {
		for server := range 200 {
			d.Seen(3, share.ID{Server: uint8(server), Epoch: 1 + epoch, Seq: 1 << 40})
		}
	}
	state, left := d.AppendTo([]byte("x"), 5000)
	if len(state) > 5001 || len(state) < 3000 || left != 0 {
		t.Errorf("state has %d bytes, %d sources are left out", len(state), left)
	}
	restored, err := share.ParseDedup(state[1:])
	if err != nil {
		t.Fatal(err)
	}
	for server := range 200 {
		if !restored.Seen(3, share.ID{Server: uint8(server), Epoch: 4, Seq: 1 << 40}) {
			t.Fatalf("the last epoch of server %d is forgotten", server)
		}
	}
	state, left = d.AppendTo(nil, 1000)
	if restored, err = share.ParseDedup(state); err != nil || len(state) > 1000 {
		t.Fatalf("state has %d bytes: %v", len(state), err)
	}
	for server := range 200 {
		if got, want := restored.Seen(3, share.ID{Server: uint8(server), Epoch: 4, Seq: 1 << 40}), server < 200-left; got != want {
			t.Fatalf("%d sources are left out, server %d is remembered: %t", left, server, got)
		}
	}
}

// TestDedupAgainstModel: with no more than EpochsKept epochs, a Dedup restored at any time answers like a plain map.
func TestDedupAgainstModel(t *testing.T) {
	t.Parallel()
	type key struct {
		partition int
		server    uint8
		epoch     uint32
	}
	rapid.Check(t, func(t *rapid.T) {
		d := new(share.Dedup)
		var state []byte
		model := make(map[key]uint64)
		t.Repeat(map[string]func(*rapid.T){
			"share": func(t *rapid.T) {
				k := key{rapid.IntRange(0, 2).Draw(t, "partition"), rapid.Uint8Range(0, 2).Draw(t, "server"), rapid.Uint32Range(1, share.EpochsKept).Draw(t, "epoch")}
				seq := rapid.Uint64Range(1, 20).Draw(t, "seq")
				want := seq <= model[k]
				if got := d.Seen(k.partition, share.ID{Server: k.server, Epoch: k.epoch, Seq: seq}); got != want {
					t.Fatalf("Seen(%+v, %d) = %t", k, seq, got)
				}
				model[k] = max(model[k], seq)
			},
			"begin": func(*rapid.T) {
				state, _ = d.AppendTo(nil, 1<<16)
				d.Begin()
			},
			"restart": func(t *rapid.T) {
				news := d.AppendNews(nil)
				var err error
				if d, err = share.ParseDedup(state); err == nil {
					err = d.Learn(news)
				}
				if err != nil {
					t.Fatal(err)
				}
			},
		})
	})
}

func stateOf(d *share.Dedup, limit int) []byte {
	state, _ := d.AppendTo(nil, limit)
	return state
}

func FuzzParseDedup(f *testing.F) {
	var d share.Dedup
	d.Seen(0, share.ID{Server: 1, Epoch: 1700000000, Seq: 77})
	d.Seen(300, share.ID{Server: 255, Epoch: 1700000001, Seq: 1 << 63})
	d.Seen(300, share.ID{Server: 255, Epoch: 1700000002, Seq: 1})
	f.Add(stateOf(&d, 1<<16))
	f.Add(stateOf(&d, 32)) // without the oldest epoch
	f.Fuzz(func(t *testing.T, in []byte) {
		d, err := share.ParseDedup(in)
		if err != nil {
			return
		}
		state := stateOf(d, 1<<30)
		again, err := share.ParseDedup(state)
		if err != nil || !bytes.Equal(stateOf(again, 1<<30), state) {
			t.Fatalf("%x is not stable: %v", in, err)
		}
		if err := again.Learn(in); err == nil && !bytes.Equal(stateOf(again, 1<<30), state) {
			t.Fatalf("%x is news to its own state", in)
		}
	})
}

func BenchmarkDedup(b *testing.B) {
	var d share.Dedup
	id := share.ID{Server: 3, Epoch: 1700000000}
	b.ReportAllocs()
	for b.Loop() {
		id.Seq++
		if d.Seen(5, id) {
			b.Fatal("seen")
		}
	}
}

//go:build integration

package rig_test

import (
	"slices"
	"testing"

	"btcpool/internal/share"
	"btcpool/test/integration/rig"
)

// TestLedger has logs that hold what was acknowledged, and logs that lack a share, have one twice, or one too many: all
// that is proved of shares stands on the ledger's telling them apart.
func TestLedger(t *testing.T) {
	t.Parallel()
	const unanswered = 1
	worker := share.WorkerID(share.WorkerName("rig"))
	var whole []share.Share
	for seq := range uint64(4) {
		s := share.Share{ID: share.ID{Server: 1, Epoch: 2, Seq: seq}, SessionID: 0xa0b1c2d3, WorkerID: worker, Nonce: uint32(seq), Status: share.StatusAccept}
		if seq == 3 { // behind a farm proxy the session is the proxy's
			s.SessionID = 7
		}
		whole = append(whole, s)
	}
	refused := share.Share{ID: share.ID{Server: 1, Epoch: 2, Seq: 99}, Status: share.StatusLowDifficulty}
	also := func(s share.Share, seq uint64) share.Share {
		s.ID.Seq = seq
		return s
	}
	for _, test := range []struct {
		name  string
		log   []share.Share
		fault func(l *rig.Ledger)
		wrong bool
	}{
		{name: "whole", log: append(slices.Clone(whole), refused)},
		{name: "a share lost", log: whole[1:], wrong: true},
		{name: "a share lost behind the proxy", log: whole[:3], wrong: true},
		{name: "a share refused", log: append(slices.Clone(whole[:3]), refused), wrong: true},
		{name: "a share twice", log: append(slices.Clone(whole), whole[0]), wrong: true},
		{name: "a refused share twice", log: append(slices.Clone(whole), refused, refused), wrong: true},
		{name: "as many more as were left unanswered", log: append(slices.Clone(whole), also(whole[0], 10))},
		{name: "more than were left unanswered", log: append(slices.Clone(whole), also(whole[0], 10), also(whole[0], 11)), wrong: true},
		{
			name: "a share destroyed", log: whole[1:],
			fault: func(l *rig.Ledger) { l.Destroyed([][]byte{whole[0].AppendTo(nil)}) },
		},
		{
			name: "another share destroyed", log: whole[1:], wrong: true,
			fault: func(l *rig.Ledger) { l.Destroyed([][]byte{whole[1].AppendTo(nil)}) },
		},
		{name: "a bit turned over", log: whole[1:], fault: func(l *rig.Ledger) { l.Flips = 1 }},
		{name: "a bit turned over, two shares lost", log: whole[2:], fault: func(l *rig.Ledger) { l.Flips = 1 }, wrong: true},
	} {
		var l rig.Ledger
		l.Add([]rig.Ack{{Session: "a0b1c2d3", Nonce: 0}, {Session: "a0b1c2d3", Nonce: 1}, {Session: "a0b1c2d3", Nonce: 2}}, 0)
		l.AddFarm([]rig.Ack{{User: "farm.rig", Nonce: 3}}, unanswered)
		if test.fault != nil {
			test.fault(&l)
		}
		if err := l.Compare(test.log); (err != nil) != test.wrong {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

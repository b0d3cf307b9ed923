package jobmaker

import (
	"testing"

	"github.com/btcsuite/btcd/chainhash/v2"

	"btcpool/internal/auxwork"
)

func auxMessage(created float64, height int32, hash byte) []byte {
	a := auxwork.Aux{CreatedAt: uint32(at(created).Unix()), Height: height, Hash: chainhash.Hash{hash}, MerkleSize: 1, Bits: 0x1d00ffff}
	return a.AppendTo(nil)
}

func rskMessage(created float64, notify bool, hash byte) []byte {
	r := auxwork.RSK{CreatedAt: uint32(at(created).Unix()), Notify: notify, BlockHash: auxwork.RSKHash{hash}}
	return r.AppendTo(nil)
}

// checkAdd compares what became of a message with what should have, by policy.
func checkAdd(t *testing.T, i int, policy notify, r result, urgent bool, err error, want result, urgentFor []notify) {
	t.Helper()
	wantUrgent := false
	for _, p := range urgentFor {
		wantUrgent = wantUrgent || p == policy
	}
	if r != want || urgent != wantUrgent || (err != nil) != (want == invalid) {
		t.Errorf("message %d with policy %d: %s, urgent %v, error %v; want %s, %v", i, policy, r, urgent, err, want, wantUrgent)
	}
}

func TestAddAux(t *testing.T) {
	t.Parallel()
	for policy := notifyNever; policy <= notifyHash; policy++ {
		m := mergedMining{auxNotify: policy}
		for i, step := range []struct {
			now     float64
			message []byte
			want    result
			urgent  []notify // the policies with which it is
		}{
			{0, []byte("garbage"), invalid, nil},
			{61, auxMessage(0, 100, 'x'), skewed, nil},
			{0, auxMessage(61, 100, 'x'), skewed, nil},
			{0, auxMessage(0, 100, 'a'), accepted, []notify{notifyHeight, notifyHash}},
			{1, auxMessage(1, 100, 'a'), accepted, nil},
			{2, auxMessage(2, 100, 'b'), accepted, []notify{notifyHash}},
			{3, auxMessage(3, 101, 'c'), accepted, []notify{notifyHeight, notifyHash}},
			{4, auxMessage(2, 102, 'd'), duplicate, nil},
			{5, auxMessage(5, 99, 'e'), accepted, []notify{notifyHash}},
			{5, []byte("{}"), invalid, nil},
		} {
			r, urgent, err := m.addAux(step.message, at(step.now))
			checkAdd(t, i, policy, r, urgent, err, step.want, step.urgent)
		}
		if aux, rsk := m.fresh(at(65)); aux == nil || aux.Hash[0] != 'e' || rsk != nil {
			t.Errorf("fresh are %v and %v", aux, rsk)
		}
		if aux, _ := m.fresh(at(65.1)); aux != nil {
			t.Errorf("still fresh: %v", aux)
		}
	}
}

func TestAddRSK(t *testing.T) {
	t.Parallel()
	for policy := notifyNever; policy <= notifyHash; policy++ {
		m := mergedMining{rskNotify: policy}
		for i, step := range []struct {
			now     float64
			message []byte
			want    result
			urgent  []notify // the policies with which it is
		}{
			{0, []byte("garbage"), invalid, nil},
			{61, rskMessage(0, true, 'x'), skewed, nil},
			{0, rskMessage(61, true, 'x'), skewed, nil},
			{0, rskMessage(0, false, 'a'), accepted, []notify{notifyHash}},
			{1, rskMessage(1, true, 'a'), accepted, []notify{notifyHeight}},
			{2, []byte("garbage"), invalid, nil}, // does not repeat what the one before asked for
			{3, rskMessage(3, true, 'b'), accepted, []notify{notifyHeight, notifyHash}},
			{4, rskMessage(2, true, 'c'), duplicate, nil},
		} {
			r, urgent, err := m.addRSK(step.message, at(step.now))
			checkAdd(t, i, policy, r, urgent, err, step.want, step.urgent)
		}
		// The only work there was gets too old as well.
		if aux, rsk := m.fresh(at(123)); aux != nil || rsk == nil || rsk.BlockHash[0] != 'b' {
			t.Errorf("fresh are %v and %v", aux, rsk)
		}
		if _, rsk := m.fresh(at(123.1)); rsk != nil {
			t.Errorf("still fresh: %v", rsk)
		}
	}
}

package blkmaker

import (
	"errors"
	"os"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"btcpool/internal/bitcoin/noderpc"
	"btcpool/internal/store"
)

func TestFollow(t *testing.T) {
	t.Parallel()
	const height, need = 100, 10
	on := func(confirmations int64) *noderpc.BlockInfo {
		return &noderpc.BlockInfo{Height: height, Confirmations: confirmations}
	}
	off := &noderpc.BlockInfo{Confirmations: -1}
	const early, late = height + buriedBy - 1, height + buriedBy
	for _, test := range []struct {
		name      string
		state     store.BlockState
		where     *noderpc.BlockInfo
		tip       int32
		want      store.BlockState
		confirmed int64
	}{
		{"first confirmation", store.Submitted, on(1), height, store.Accepted, 1},
		{"more", store.Accepted, on(9), height + 8, store.Accepted, 9},
		{"enough", store.Accepted, on(10), height + 9, store.Confirmed, 10},
		{"found late", store.Submitted, on(5000), height + 4999, store.Confirmed, 5000},
		{"counting ends", store.Confirmed, on(11), height + 10, store.Confirmed, 10},
		{"behind another", store.Accepted, off, early, store.Accepted, 0},
		{"left behind", store.Accepted, off, late, store.Orphaned, 0},
		{"never on the chain", store.Submitted, off, late, store.Orphaned, 0},
		{"back", store.Orphaned, on(2), late + 1, store.Accepted, 2},
		{"not back", store.Orphaned, off, late + 1, store.Orphaned, 0},
		{"deep reorganisation", store.Confirmed, off, early, store.Accepted, 0},
		{"deep reorganisation, buried", store.Confirmed, off, late, store.Orphaned, 0},
		{"shorter after reorganisation", store.Confirmed, on(9), height + 8, store.Accepted, 9},
		{"on its way", store.Submitted, nil, early, store.Submitted, 0},
		{"never arrived", store.Submitted, nil, late, store.Rejected, 0},
		{"accepted by a node that is gone", store.Accepted, nil, late, store.Orphaned, 0},
		{"rejected", store.Rejected, nil, early, store.Rejected, 0},
		{"rejected and buried", store.Rejected, nil, late, store.Rejected, 0},
		{"taken after all", store.Rejected, on(1), height, store.Accepted, 1},
	} {
		before := int64(0)
		if test.state == store.Confirmed {
			before = need
		}
		state, confirmations := follow(test.state, before, test.where, test.tip < height+buriedBy, need)
		if state != test.want || confirmations != test.confirmed {
			t.Errorf("%s: %s with %d, want %s with %d", test.name, state, confirmations, test.want, test.confirmed)
		}
	}
}

// A young block that no node knows any more is submitted again, one that a node knows, or that is not young, is not.
func TestResubmit(t *testing.T) {
	t.Parallel()
	const height, hash = 100, "00ab"
	for _, test := range []struct {
		name  string
		known bool
		tip   int32
		want  int32
	}{
		{"lost", false, height - 1, 1},
		{"lost with its parents", false, height - 4, 1},
		{"another node knows it", true, height - 1, 0},
		{"buried", false, height + buriedBy, 0},
		{"node begins anew", false, 0, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := &Service{log: zerolog.Nop(), metrics: newMetrics(prometheus.NewRegistry(), 2), archive: archive(t.TempDir())}
			must(t, os.WriteFile(s.archive.path(height, hash), []byte("00"), 0o600))
			var fakes []*fakeNode
			for i := range 2 {
				fake := newFakeNode(t)
				if known := hash; test.known && i == 1 {
					fake.knows.Store(&known)
				}
				client, err := noderpc.New(noderpc.Config{URL: fake.URL, User: "user", Password: "secret"})
				must(t, err)
				t.Cleanup(client.Close)
				n := &node{client: client}
				n.state.Store(&nodeState{})
				s.nodes, fakes = append(s.nodes, n), append(fakes, fake)
			}
			s.resubmit(t.Context(), store.Block{Height: height, Hash: hash, State: store.Accepted}, test.tip)
			for i, fake := range fakes {
				if got := fake.submitted.Load(); got != test.want {
					t.Errorf("node %d got %d blocks, want %d", i, got, test.want)
				}
			}
		})
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		answer noderpc.Verdict
		err    error
		want   string
		final  bool
	}{
		{"accepted", noderpc.Verdict{Outcome: noderpc.Accepted}, nil, verdictAccepted, false},
		{"duplicate", noderpc.Verdict{Outcome: noderpc.Duplicate, Reason: "duplicate"}, nil, verdictDuplicate, false},
		{"inconclusive", noderpc.Verdict{Outcome: noderpc.Inconclusive, Reason: "inconclusive"}, nil, verdictInconclusive, false},
		{"rejected", noderpc.Verdict{Reason: "bad-txnmrklroot"}, nil, verdictRejected, true},
		{"parent missing", noderpc.Verdict{Reason: "prev-blk-not-found"}, nil, verdictRejected, false},
		{"clock behind", noderpc.Verdict{Reason: "time-too-new"}, nil, verdictRejected, false},
		{"no decoding", noderpc.Verdict{}, &noderpc.Error{Code: -22, Message: "Block decode failed"}, verdictRejected, true},
		{"warming up", noderpc.Verdict{}, &noderpc.Error{Code: -28, Message: "Loading block index"}, verdictError, false},
		{"away", noderpc.Verdict{}, errors.New("connection refused"), verdictError, false},
	} {
		if got, final := judge(test.answer, test.err); got != test.want || final != test.final {
			t.Errorf("%s: %s, final %t, want %s, %t", test.name, got, final, test.want, test.final)
		}
	}
}

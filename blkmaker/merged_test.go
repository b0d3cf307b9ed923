package blkmaker

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"btcpool/internal/auxpow"
	"btcpool/internal/auxpow/auxpowtest"
	"btcpool/internal/auxwork"
	"btcpool/internal/auxwork/rskrpc"
	"btcpool/internal/bitcoin"
	"btcpool/internal/bitcoin/noderpc"
	"btcpool/internal/bus"
	"btcpool/internal/job"
	"btcpool/internal/store"
	"btcpool/internal/testkit"
)

// others are the nodes of other chains.
type others struct {
	aux []*auxpowtest.Node
	rsk *auxpowtest.RSKNode
}

// startOthers starts so many AuxPoW chains, every second one with an old node, and RSK.
func startOthers(t *testing.T, chains int) *others {
	t.Helper()
	o := &others{rsk: auxpowtest.StartRSK(easyBits)}
	t.Cleanup(o.rsk.Close)
	for i := range chains {
		node := auxpowtest.StartNode(int32(i+1), easyBits, i%2 == 1)
		t.Cleanup(node.Close)
		o.aux = append(o.aux, node)
	}
	return o
}

func chainName(i int) string { return string(rune('a' + i)) }

// configure names the nodes in the configuration of blkmaker.
func (o *others) configure(cfg *Config) {
	for i, node := range o.aux {
		cfg.AuxNodes = append(cfg.AuxNodes, AuxNode{chainName(i), noderpc.Config{URL: node.URL(), User: "user", Password: "secret"}})
	}
	cfg.RSKNodes = []RSKNode{{"rsk", rskrpc.Config{URL: o.rsk.URL()}}}
}

// publish sends a job on the blocks of all chains. It returns the job and the messages of a share that solves them all.
func (o *others) publish(t *testing.T, p *pool, edit func(*job.StratumJob)) (aux, rsk bus.Message) {
	t.Helper()
	var chains []auxpow.Chain
	for i, node := range o.aux {
		hash, err := chainhash.NewHashFromStr(node.Hash())
		must(t, err)
		chains = append(chains, auxpow.Chain{Name: chainName(i), ID: int32(i + 1), Hash: *hash, Height: 1, Bits: easyBits})
	}
	tree, err := auxpow.Plant(chains)
	must(t, err)
	var rskHash auxwork.RSKHash
	must(t, rskHash.UnmarshalText([]byte(o.rsk.Hash())))
	raw, j := p.job(t, tree.Commitment(), wire.TxOut{PkScript: bitcoin.RSKCommitmentScript(rskHash)})
	j.Aux = job.AuxWork{BlockHash: tree.Root.String(), Bits: easyBits, Height: 1, Chains: chains}
	j.RSK = job.RSKWork{BlockHash: o.rsk.Hash(), NetworkTarget: "0x" + strings.Repeat("f", 64), FeesForMiner: "1", RPCAddr: "rsk"}
	edit(j)
	p.write(t, p.cfg.Kafka.Topics.RawGBT, bus.Message{Value: raw.AppendTo(nil)})
	p.write(t, p.cfg.Kafka.Topics.Job, bus.Message{Value: j.AppendTo(nil)})
	s := testkit.Solve(t, j)
	auxSolved := auxwork.AuxSolved{
		JobID: s.JobID, Hash: tree.Root, Header: s.Header, Coinbase: s.Coinbase, RPCAddr: j.Aux.RPCAddr, RPCUserPass: j.Aux.RPCUserPass,
	}
	rskSolved := auxwork.RSKSolved{Solved: *s, FeesForMiner: "1", RPCAddr: j.RSK.RPCAddr, RPCUserPass: j.RSK.RPCUserPass}
	return bus.Message{Value: auxSolved.AppendTo(nil)}, bus.Message{Value: rskSolved.AppendTo(nil)}
}

// merged waits for so many rows and returns them by chain.
func (p *pool) merged(t *testing.T, rows int) map[string]store.MergedBlock {
	t.Helper()
	byChain := make(map[string]store.MergedBlock)
	testkit.Eventually(t, "merged blocks written down", func() bool {
		all, err := p.store.MergedBlocks(t.Context(), 100, 0)
		must(t, err)
		for _, b := range all {
			byChain[b.Chain] = b
		}
		return len(all) == rows
	})
	return byChain
}

// A share that solves several chains is proved to each. Chains whose nodes are away get their proof when they are back,
// over a restart too.
func TestMergedMining(t *testing.T) {
	t.Parallel()
	p := startPool(t)
	o := startOthers(t, 3)
	o.configure(&p.cfg)
	want := []string{o.aux[0].Hash(), o.aux[1].Hash(), o.aux[2].Hash(), o.rsk.Hash()}
	o.aux[1].SetDown(true)
	o.rsk.SetDown(true)
	_, stop := p.start(t)
	aux, rsk := o.publish(t, p, func(*job.StratumJob) {})
	topics := p.cfg.Kafka.Topics
	p.write(t, topics.AuxSolved, bus.Message{Value: []byte("{}")}, aux, aux)
	p.write(t, topics.RSKSolved, bus.Message{Value: []byte("{}")}, rsk)
	p.merged(t, 2)
	stop()

	o.aux[1].SetDown(false)
	o.rsk.SetDown(false)
	s, _ := p.start(t)
	byChain := p.merged(t, 4)
	got := []string{byChain["a"].Hash, byChain["b"].Hash, byChain["c"].Hash, "0x" + byChain["rsk"].Hash}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for i, node := range o.aux {
		if !slices.Equal(node.Accepted(), want[i:i+1]) {
			t.Errorf("chain %d accepted %v", i, node.Accepted())
		}
	}
	if !slices.Equal(o.rsk.Accepted(), want[3:]) {
		t.Errorf("RSK accepted %v", o.rsk.Accepted())
	}
	if b := byChain["b"]; b.Response != "true" || b.State != store.Accepted || b.Proof == "" || len(b.ParentHash) != 64 || time.Since(b.CreatedAt) > testkit.Patience {
		t.Errorf("%+v", b)
	}
	testkit.Eventually(t, "all done", func() bool { return len(s.room)+len(s.waiting) == 0 })
	if n := len(s.journal.pending()); n != 0 {
		t.Errorf("%d shares left", n)
	}
}

// Messages of btcpool name node and login instead of a chain.
func TestMergedMiningByAddress(t *testing.T) {
	t.Parallel()
	p := startPool(t)
	o := startOthers(t, 1)
	wantAux, wantRSK := o.aux[0].Hash(), o.rsk.Hash()
	p.start(t)
	aux, rsk := o.publish(t, p, func(j *job.StratumJob) {
		j.Aux.Chains = nil
		j.Aux.RPCAddr, j.Aux.RPCUserPass = o.aux[0].URL(), "user:secret"
		j.RSK.RPCAddr = strings.TrimPrefix(o.rsk.URL(), "http://")
	})
	p.write(t, p.cfg.Kafka.Topics.AuxSolved, aux)
	p.write(t, p.cfg.Kafka.Topics.RSKSolved, rsk)
	byChain := p.merged(t, 2)
	if !slices.Equal(o.aux[0].Accepted(), []string{wantAux}) || !slices.Equal(o.rsk.Accepted(), []string{wantRSK}) {
		t.Errorf("accepted %v and %v", o.aux[0].Accepted(), o.rsk.Accepted())
	}
	if byChain["aux"].Hash != wantAux || "0x"+byChain["rsk"].Hash != wantRSK {
		t.Errorf("%+v", byChain)
	}
}

// A node that refuses is believed, and a chain without node or a job without chains costs nothing.
func TestMergedMiningRefused(t *testing.T) {
	t.Parallel()
	p := startPool(t)
	o := startOthers(t, 2)
	o.configure(&p.cfg)
	p.cfg.AuxNodes = p.cfg.AuxNodes[:1]
	s, _ := p.start(t)
	aux, rsk := o.publish(t, p, func(j *job.StratumJob) { j.RSK = job.RSKWork{} })
	o.aux[0].Advance()
	p.write(t, p.cfg.Kafka.Topics.AuxSolved, aux)
	p.write(t, p.cfg.Kafka.Topics.RSKSolved, rsk)
	byChain := p.merged(t, 2)
	if a, b := byChain["a"].Response, byChain["b"].Response; !strings.Contains(a, "block hash unknown") || b != "no node configured" {
		t.Errorf("responses %q and %q", a, b)
	}
	for kind, result := range map[kind]string{kindAux: resultRejected, kindRSK: resultInvalid} {
		testkit.Eventually(t, string(kind)+" counted", func() bool { return testutil.ToFloat64(s.metrics.merged.WithLabelValues(string(kind), result)) > 0 })
	}
}

// A block that RSK's node refuses is recorded at once, as refused.
func TestMergedMiningRefusedByRSK(t *testing.T) {
	t.Parallel()
	p := startPool(t)
	o := startOthers(t, 1)
	o.configure(&p.cfg)
	s, _ := p.start(t)
	_, rsk := o.publish(t, p, func(*job.StratumJob) {})
	o.rsk.Advance() // another block than ours
	p.write(t, p.cfg.Kafka.Topics.RSKSolved, rsk)
	b := p.merged(t, 1)["rsk"]
	if b.State != store.Rejected || !strings.Contains(b.Response, "node error -33000") {
		t.Errorf("%+v", b)
	}
	testkit.Eventually(t, "counted", func() bool {
		return testutil.ToFloat64(s.metrics.merged.WithLabelValues(string(kindRSK), resultRejected)) == 1
	})
}

// A proof is made of what is in the header only.
func TestMergedMiningWrongCoinbase(t *testing.T) {
	t.Parallel()
	p := startPool(t)
	o := startOthers(t, 1)
	o.configure(&p.cfg)
	s, _ := p.start(t)
	aux, _ := o.publish(t, p, func(*job.StratumJob) {})
	solved, err := auxwork.ParseAuxSolved(aux.Value)
	must(t, err)
	solved.Coinbase[len(solved.Coinbase)-1]++
	p.write(t, p.cfg.Kafka.Topics.AuxSolved, bus.Message{Value: solved.AppendTo(nil)})
	testkit.Eventually(t, "refused", func() bool {
		return testutil.ToFloat64(s.metrics.merged.WithLabelValues(string(kindAux), resultInvalid)) == 1
	})
	if n := o.aux[0].Calls("submitauxblock"); n != 0 {
		t.Errorf("submitted %d times", n)
	}
}

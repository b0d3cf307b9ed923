package job_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/google/go-cmp/cmp"

	"btcpool/internal/auxpow"
	"btcpool/internal/bitcoin"
	"btcpool/internal/job"
	"btcpool/internal/testkit"
)

// plainJob is a job on mainnet's genesis block.
func plainJob() *job.StratumJob {
	return &job.StratumJob{
		ID:                0x6553f100_00000001,
		GBTHash:           strings.Repeat("0f", 32),
		PrevHash:          *chaincfg.MainNetParams.GenesisHash,
		Height:            1,
		Coinbase1:         []byte{2, 0, 0, 0},
		Coinbase2:         []byte{0xff, 0xff, 0xff, 0xff},
		MerkleBranch:      []chainhash.Hash{{1}, {31: 2}},
		Version:           0x20000000,
		Bits:              0x1d00ffff,
		Time:              1700000000,
		MinTime:           1699990000,
		CoinbaseValue:     50e8,
		WitnessCommitment: bitcoin.WitnessCommitment(nil),
	}
}

func emptyJob() *job.StratumJob {
	j := plainJob()
	j.MerkleBranch = nil
	j.WitnessCommitment = nil
	j.Version = -1
	return j
}

// fullJob has every part.
func fullJob() *job.StratumJob {
	j := plainJob()
	j.ID = 0xffffffff_ffffffff
	j.MergedMiningClean = true
	j.GrandCoinbase1 = []byte{1}
	j.SubPools = map[string]job.SubPool{
		"b":         {Coinbase1: []byte{1}, Coinbase2: []byte{2}, GrandCoinbase1: []byte{3}},
		`a "quote"`: {Coinbase1: []byte{4}, Coinbase2: []byte{5}},
	}
	j.Proxy = job.Proxy{Extranonce2Size: 8, Difficulty: 1 << 63}
	j.Aux = job.AuxWork{
		BlockHash: strings.Repeat("ab", 32), Bits: 0x1b00ffff, Height: 500000,
		RPCAddr: "http://127.0.0.1:8336", RPCUserPass: "user:päss",
	}
	j.RSK = job.RSKWork{
		BlockHash: "0x" + strings.Repeat("cd", 32), NetworkTarget: "0x" + strings.Repeat("01", 32), FeesForMiner: "1000",
		RPCAddr: "http://127.0.0.1:4444", RPCUserPass: "user:pass",
	}
	j.VCash = job.VCashWork{
		BlockHash: "0x" + strings.Repeat("ef", 32), NetworkTarget: "0x" + strings.Repeat("02", 32), Height: 1 << 40,
		RPCAddr: "http://127.0.0.1:5555", RPCUserPass: "user:pass",
	}
	return j
}

// chainsJob commits to two AuxPoW chains at once.
func chainsJob() *job.StratumJob {
	j := plainJob()
	j.Aux = job.AuxWork{
		BlockHash: strings.Repeat("ab", 32), Bits: 0x1b00ffff, Height: 12,
		Chains: []auxpow.Chain{
			{Name: "namecoin", ID: 1, Hash: chainhash.Hash{1}, Height: 7, Bits: 0x1b00ffff, Branch: []chainhash.Hash{{2}}},
			{Name: "other", ID: 2, Hash: chainhash.Hash{2}, Height: 5, Bits: 0x1b00fffe, Index: 1, Branch: []chainhash.Hash{{1}}},
		},
	}
	return j
}

func TestStratumJob(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]*job.StratumJob{
		"plain.stratumjob": plainJob(), "empty.stratumjob": emptyJob(), "full.stratumjob": fullJob(), "chains.stratumjob": chainsJob(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := want.AppendTo(nil)
			testkit.Golden(t, name, text)
			if !json.Valid(text) {
				t.Error("not JSON")
			}
			got, err := job.ParseStratumJob(text)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("read back:\n%s", diff)
			}
		})
	}
}

func TestAppendPrevHashBE(t *testing.T) {
	t.Parallel()
	// From the published dialogue of the Stratum protocol's documentation.
	const notify = "4d16b6f85af6e2198f44ae2a6de67f78487ae5611b77c6c0440b921e00000000"
	const display = "00000000440b921e1b77c6c0487ae5616de67f788f44ae2a5af6e2194d16b6f8"
	prev, err := chainhash.NewHashFromStrStrict(display)
	if err != nil {
		t.Fatal(err)
	}
	j := job.StratumJob{PrevHash: *prev}
	if got := string(j.AppendPrevHashBE(nil)); got != notify {
		t.Errorf("%s, want %s", got, notify)
	}
}

// A job as a btcpool without the optional parts would write it, keys in another order and some of them unknown.
func TestParseStratumJobMinimal(t *testing.T) {
	t.Parallel()
	const text = `{"future":{"deep":[1]},"minTime":1699990000,"nTime":1700000000,"nBits":486604799,"nVersion":536870912,
		"coinbaseValue":5000000000,"merkleBranch":"","coinbase2":"ffffffff","coinbase1":"02000000","height":1,
		"prevHashBeStr":"0a8ce26f72b3f1b646a2a6c14ff763ae65831e939c085ae10019d66800000000",
		"prevHash":"000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f",
		"gbtHash":"0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f","jobId":7301444403200000001}`
	want := plainJob()
	want.ID = 7301444403200000001
	want.MerkleBranch = nil
	want.WitnessCommitment = nil
	got, err := job.ParseStratumJob([]byte(text))
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("error %v\n%s", err, diff)
	}
}

func TestParseStratumJobRefuses(t *testing.T) {
	t.Parallel()
	full := fullJob().AppendTo(nil)
	for _, tt := range []struct {
		key   string
		value any    // nil removes the key
		want  string // a part of the error, "" for none
	}{
		{"unknown", "x", ""},
		{"jobId", nil, "jobId"},
		{"jobId", "1", "jobId"},
		{"jobId", -1, "jobId"},
		{"jobId", 1.5, "jobId"},
		{"gbtHash", "0f", "gbtHash"},
		{"prevHash", strings.Repeat("0", 63), "prevHash"},
		{"prevHashBeStr", strings.Repeat("0", 64), "does not fit"},
		{"prevHashBeStr", nil, "prevHashBeStr"},
		{"height", nil, "height"},
		{"height", -1, "height"},
		{"coinbase1", nil, "coinbase1"},
		{"coinbase1", "", "empty"},
		{"coinbase1", "0", "coinbase1"},
		{"coinbase2", "", "empty"},
		{"coinbase2", 1, "coinbase2"},
		{"merkleBranch", "00", "merkleBranch"},
		{"merkleBranch", strings.Repeat("0", 64*33), "merkleBranch"},
		{"merkleBranch", nil, "merkleBranch"},
		{"nVersion", 1 << 31, "nVersion"},
		{"nBits", 0, "nBits"},
		{"nBits", 1 << 32, "nBits"},
		{"nTime", nil, "nTime"},
		{"minTime", -1, "minTime"},
		{"coinbaseValue", -1, "coinbaseValue"},
		{"witnessCommitment", "00", "witnessCommitment"},
		{"witnessCommitment", nil, ""},
		{"grandCoinbase1", nil, ""},
		{"grandCoinbase1", "x", "grandCoinbase1"},
		{"subPool", nil, ""},
		{"subPool", []any{}, "subPool"},
		{"subPool", map[string]any{"a": map[string]any{"coinbase1": ""}}, "subPool"},
		{"mergedMiningClean", nil, ""},
		{"mergedMiningClean", 1, "mergedMiningClean"},
		{"isRskCleanJob", "ignored", ""},
		{"proxyJobDifficulty", nil, "proxyJobDifficulty: missing"},
		{"nmcBits", nil, "nmcBits: missing"},
		{"nmcHeight", 1 << 31, "nmcHeight"},
		{"auxChains", []any{}, ""},
		{"auxChains", []any{map[string]any{"name": "x"}}, "auxChains"},
		{"rskNetworkTarget", nil, "rskNetworkTarget: missing"},
		{"rskdRpcAddress", 1, "rskdRpcAddress"},
		{"vcashHeight", nil, "vcashHeight: missing"},
		{"vcashNetworkTarget", true, "vcashNetworkTarget"},
	} {
		var object map[string]any
		decoder := json.NewDecoder(bytes.NewReader(full))
		decoder.UseNumber()
		if err := decoder.Decode(&object); err != nil {
			t.Fatal(err)
		}
		if object[tt.key] = tt.value; tt.value == nil {
			delete(object, tt.key)
		}
		text, err := json.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		got, err := job.ParseStratumJob(text)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s = %.70v: error %v, want %q", tt.key, tt.value, err, tt.want)
		}
		if err != nil && got != nil {
			t.Errorf("%s = %.70v: a value beside the error", tt.key, tt.value)
		}
	}
	notUTF8 := bytes.Replace(full, []byte("päss"), []byte("p\xe4ss"), 1)
	if _, err := job.ParseStratumJob(notUTF8); err == nil || !strings.Contains(err.Error(), "UTF-8") {
		t.Errorf("text that is not UTF-8: %v", err)
	}
}

func FuzzParseStratumJob(f *testing.F) {
	testkit.Seeds(f, "*.stratumjob")
	f.Fuzz(func(t *testing.T, in []byte) {
		j, err := job.ParseStratumJob(in)
		if err != nil {
			return
		}
		text := j.AppendTo(nil)
		again, err := job.ParseStratumJob(text)
		if err != nil {
			t.Fatalf("%q becomes %q: %v", in, text, err)
		}
		if !bytes.Equal(text, again.AppendTo(nil)) {
			t.Fatalf("%q is not stable: %q", in, text)
		}
	})
}

func BenchmarkParseStratumJob(b *testing.B) {
	text := fullJob().AppendTo(nil)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := job.ParseStratumJob(text); err != nil {
			b.Fatal(err)
		}
	}
}

// The work of the chain is optional in light templates.
func TestLightWork(t *testing.T) {
	t.Parallel()
	for _, work := range []bitcoin.Work{{}, {Lo: 1}, {Hi: 1 << 63, Lo: 2}} {
		l := light(t, "core")
		l.Work = work
		text := l.AppendTo(nil)
		if bytes.Contains(text, []byte("chainwork")) == work.IsZero() {
			t.Errorf("%s", text)
		}
		if got, err := job.ParseLightGBT(text); err != nil || got.Work != work {
			t.Errorf("work %s read back: %v, %v", work, got.Work, err)
		}
	}
}

// The block that is left is optional, in jobs and in light templates.
func TestLeftBlock(t *testing.T) {
	t.Parallel()
	j, l := fullJob(), light(t, "core")
	for _, left := range []chainhash.Hash{{}, {1, 2, 3}} {
		j.Left, l.Left = left, left
		jobText, lightText := j.AppendTo(nil), l.AppendTo(nil)
		if written := bytes.Contains(jobText, []byte("leftBlock")) && bytes.Contains(lightText, []byte("left_block")); written != (left != chainhash.Hash{}) {
			t.Errorf("left block %s written: %t", left, written)
		}
		if got, err := job.ParseStratumJob(jobText); err != nil || got.Left != left {
			t.Errorf("job read back: %v, %v", got, err)
		}
		if got, err := job.ParseLightGBT(lightText); err != nil || got.Left != left {
			t.Errorf("light template read back: %v, %v", got, err)
		}
	}
}

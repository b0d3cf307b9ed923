package auxwork_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/google/go-cmp/cmp"

	"btcpool/internal/auxpow"
	"btcpool/internal/auxwork"
	"btcpool/internal/bitcoin"
	"btcpool/internal/share"
	"btcpool/internal/testkit"
)

func hash(text string) chainhash.Hash { return bitcoin.DoubleSHA256([]byte(text)) }

// oneChain is what btcpool writes for a single chain.
func oneChain() auxwork.Aux {
	return auxwork.Aux{
		CreatedAt:   1713571901,
		Hash:        hash("namecoin"),
		Height:      700000,
		MerkleSize:  1,
		ChainID:     1,
		Bits:        0x17053894,
		RPCAddr:     "http://127.0.0.1:8336",
		RPCUserPass: "pool:a&b",
	}
}

func threeChains(t testing.TB) auxwork.Aux {
	t.Helper()
	chains := []auxpow.Chain{
		{Name: "namecoin", ID: 1, Hash: hash("namecoin"), Height: 700000, Bits: 0x17053894},
		{Name: "syscoin", ID: 16, Hash: hash("syscoin"), Height: 1800000, Bits: 0x1802f9c5},
		{Name: "elastos", ID: 1224, Hash: hash("elastos"), Height: 1600000, Bits: 0x180a3bcd},
	}
	tree, err := auxpow.Plant(chains)
	if err != nil {
		t.Fatal(err)
	}
	return auxwork.Aux{
		CreatedAt:   1713571901,
		Hash:        tree.Root,
		Height:      4100000,
		MerkleSize:  tree.Size,
		MerkleNonce: tree.Nonce,
		ChainID:     1,
		Bits:        0x180a3bcd,
		Chains:      chains,
	}
}

func aProxys() auxwork.Aux {
	a := oneChain()
	a.MerkleSize, a.MerkleNonce = 1<<30, 1<<32-1
	return a
}

func TestAux(t *testing.T) {
	t.Parallel()
	for golden, want := range map[string]auxwork.Aux{
		"one.aux":   oneChain(),
		"proxy.aux": aProxys(),
		"three.aux": threeChains(t),
	} {
		text := want.AppendTo(nil)
		testkit.Golden(t, golden, text)
		got, err := auxwork.ParseAux(text)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s read back: %v\n%s", golden, err, diff)
		}
	}
}

func TestParseAuxRefuses(t *testing.T) {
	t.Parallel()
	one := oneChain()
	three := threeChains(t)
	oneText, threeText := string(one.AppendTo(nil)), string(three.AppendTo(nil))
	for _, tt := range []struct{ name, valid, old, with, want string }{
		{"unchanged", oneText, "{", "{", ""},
		{"unknown key", oneText, "{", `{"new":[{}],`, ""},
		{"without the keys of proxies", oneText, `"merkle_size":1,"merkle_nonce":0,`, "", ""},
		{"cut", oneText, "}", "", "unexpected end"},
		{"more behind it", oneText, "}", "}{}", "invalid character"},
		{"no time", oneText, "created_at_ts", "created", "missing"},
		{"no hash", oneText, `"hash"`, `"hush"`, "missing"},
		{"no height", oneText, `"height"`, `"width"`, "missing"},
		{"no bits", oneText, `"bits"`, `"bytes"`, "missing"},
		{"no chain id", oneText, "chainid", "id", "missing"},
		{"short hash", oneText, `"hash":"`, `"hash":"","x":"`, "64 hex digits"},
		{"height is text", oneText, "700000", `"700000"`, "height"},
		{"bits of a negative target", oneText, "17053894", "17853894", "negative"},
		{"bits with sign", oneText, "17053894", "+7053894", "compact target"},
		{"bits too long", oneText, "17053894", "170538940", "compact target"},
		{"size is no power of two", oneText, `"merkle_size":1`, `"merkle_size":3`, "power of two"},
		{"size 0", oneText, `"merkle_size":1`, `"merkle_size":0`, "power of two"},
		{"size 2^31", oneText, `"merkle_size":1`, `"merkle_size":2147483648`, "power of two"},
		{"nonce of 33 bits", oneText, `"merkle_nonce":0`, `"merkle_nonce":4294967296`, "32 bits"},
		{"nameless chain", threeText, `"name":"syscoin"`, `"name":""`, "missing"},
		{"leaf outside the tree", threeText, `"index":`, `"index":100`, "leaf"},
		{"chain of another id", threeText, `"chainid":16`, `"chainid":17`, "chain id 17 has leaf"},
		{"other root", threeText, `"hash":"` + three.Hash.String(), `"hash":"` + one.Hash.String(), "does not lead"},
		{"other size", threeText, `"merkle_size":`, `"merkle_size":32,"x":`, "a branch of"},
		{"too many chains", oneText, "}", `,"chains":[{}` + strings.Repeat(",{}", 64) + `]}`, "limit of 64"},
		{"huge", oneText, "{", `{"x":"` + strings.Repeat("x", 1<<20) + `",`, "limit of"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			in := strings.Replace(tt.valid, tt.old, tt.with, 1)
			if in == tt.valid && tt.want != "" {
				t.Fatalf("%s has no %s", tt.valid, tt.old)
			}
			got, err := auxwork.ParseAux([]byte(in))
			if (err == nil) != (tt.want == "") || err != nil && (!strings.Contains(err.Error(), tt.want) || !errors.Is(err, auxwork.ErrMessage)) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			if diff := cmp.Diff(auxwork.Aux{}, got); err != nil && diff != "" {
				t.Errorf("half a value beside the error: %s", diff)
			}
		})
	}
}

func TestChains(t *testing.T) {
	t.Parallel()
	want := threeChains(t).Chains
	got, err := auxwork.ParseChains(auxwork.AppendChains(nil, want))
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("read back: %v\n%s", err, diff)
	}
	if got, err := auxwork.ParseChains(auxwork.AppendChains(nil, nil)); err != nil || got != nil {
		t.Errorf("no chains: %v, %v", got, err)
	}
}

func auxSolved() auxwork.AuxSolved {
	s := auxwork.AuxSolved{
		JobID:    0x6553f10000a10701,
		Hash:     hash("namecoin"),
		Coinbase: []byte("\x02\x00\x00\x00 coinbase transaction"),
		RPCAddr:  "namecoin",
	}
	for i := range s.Header {
		s.Header[i] = byte(i)
	}
	return s
}

func TestAuxSolved(t *testing.T) {
	t.Parallel()
	want := auxSolved()
	text := want.AppendTo(nil)
	testkit.Golden(t, "share.auxsolved", text)
	got, err := auxwork.ParseAuxSolved(text)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("read back: %v\n%s", err, diff)
	}
	for _, tt := range []struct{ name, old, with, want string }{
		{"no job", "job_id", "job", "missing"},
		{"no hash", "aux_block_hash", "hash", "missing"},
		{"short header", "0001", "01", "block_header of 79"},
		{"no coinbase", "coinbase_tx", "coinbase", "coinbase_tx of 0"},
		{"header is no hex", "0001", "0x01", "invalid byte"},
		{"job is text", `"job_id":`, `"job_id":"1","x":`, "job_id"},
	} {
		_, err := auxwork.ParseAuxSolved(bytes.Replace(text, []byte(tt.old), []byte(tt.with), 1))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.want)
		}
	}
}

func rsk() auxwork.RSK {
	r := auxwork.RSK{
		CreatedAt:    1713571901,
		RPCAddr:      "rsk",
		FeesForMiner: "21000",
		Notify:       true,
	}
	r.Target[3] = 0x55
	r.ParentBlockHash = auxwork.RSKHash(hash("parent"))
	r.BlockHash = auxwork.RSKHash(hash("rsk"))
	return r
}

func TestRSK(t *testing.T) {
	t.Parallel()
	want := rsk()
	text := want.AppendTo(nil)
	testkit.Golden(t, "work.rsk", text)
	got, err := auxwork.ParseRSK(text)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("read back: %v\n%s", err, diff)
	}
	for _, tt := range []struct{ name, old, with, want string }{
		{"no time", "created_at_ts", "created", "missing"},
		{"no notify", "notify", "tell", "notify is \"\""},
		{"notify is no text", `"true"`, `true`, "notify"},
		{"notify is other text", `"true"`, `"yes"`, "notify"},
		{"short target", `"0x000000`, `"0x0000`, "64 hex digits"},
		{"fees are a number", `"21000"`, `21000`, "feesPaidToMiner"},
	} {
		_, err := auxwork.ParseRSK(bytes.Replace(text, []byte(tt.old), []byte(tt.with), 1))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestRSKTarget(t *testing.T) {
	t.Parallel()
	r := rsk()
	below, above := chainhash.Hash{28: 0x54}, chainhash.Hash{28: 0x56}
	if target := r.Target.Target(); !target.Met(&below) || target.Met(&above) {
		t.Errorf("%s is the target %x", r.Target, target)
	}
}

func rskSolved() auxwork.RSKSolved {
	s := auxSolved()
	return auxwork.RSKSolved{
		Solved: share.Solved{
			JobID: s.JobID, WorkerID: -5, UserID: 42, Height: 816000,
			Header: s.Header, WorkerName: "alice.rig-1", Coinbase: s.Coinbase,
		},
		FeesForMiner: "21000",
		RPCAddr:      "http://127.0.0.1:4444",
		RPCUserPass:  "user:pass",
	}
}

func TestRSKSolved(t *testing.T) {
	t.Parallel()
	want := rskSolved()
	wire := want.AppendTo(nil)
	testkit.Golden(t, "share.rsksolved", wire)
	got, err := auxwork.ParseRSKSolved(wire)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("read back: %v\n%s", err, diff)
	}
	// Offsets of btcpool.
	for offset, text := range map[int]string{104: "alice.rig-1", 144: "21000", 224: "http://127.0.0.1:4444", 304: "user:pass", 384: string(want.Coinbase)} {
		if !bytes.HasPrefix(wire[offset:], []byte(text)) {
			t.Errorf("at %d: %q, want %q", offset, wire[offset:], text)
		}
	}
	long := want
	long.RPCAddr = strings.Repeat("x", 200)
	if got, err := auxwork.ParseRSKSolved(long.AppendTo(nil)); err != nil || got.RPCAddr != long.RPCAddr[:auxwork.MaxRSKText] || got.RPCUserPass != want.RPCUserPass {
		t.Errorf("long address: %v, %+v", err, got)
	}
	endless := bytes.Clone(wire)
	copy(endless[224:304], bytes.Repeat([]byte("x"), 80))
	for name, in := range map[string][]byte{"empty": nil, "no coinbase": wire[:384], "only the head": wire[:144], "endless": endless} {
		if got, err := auxwork.ParseRSKSolved(in); !errors.Is(err, auxwork.ErrMessage) {
			t.Errorf("%s: %v, %+v", name, err, got)
		}
	}
}

// stable fails when what parse understands of in is not what it understands of its own text.
func stable[T any](t *testing.T, in []byte, parse func([]byte) (T, error), appendTo func(*T, []byte) []byte) {
	t.Helper()
	got, err := parse(in)
	if err != nil {
		return
	}
	again, err := parse(appendTo(&got, nil))
	if diff := cmp.Diff(got, again); err != nil || diff != "" {
		t.Fatalf("%q is not stable: %v\n%s", in, err, diff)
	}
}

func FuzzParseAux(f *testing.F) {
	testkit.Seeds(f, "*.aux")
	f.Fuzz(func(t *testing.T, in []byte) { stable(t, in, auxwork.ParseAux, (*auxwork.Aux).AppendTo) })
}

func FuzzParseChains(f *testing.F) {
	f.Add(auxwork.AppendChains(nil, threeChains(f).Chains))
	f.Fuzz(func(t *testing.T, in []byte) {
		stable(t, in, auxwork.ParseChains, func(chains *[]auxpow.Chain, dst []byte) []byte { return auxwork.AppendChains(dst, *chains) })
	})
}

func FuzzParseAuxSolved(f *testing.F) {
	testkit.Seeds(f, "*.auxsolved")
	f.Fuzz(func(t *testing.T, in []byte) {
		stable(t, in, auxwork.ParseAuxSolved, (*auxwork.AuxSolved).AppendTo)
	})
}

func FuzzParseRSK(f *testing.F) {
	testkit.Seeds(f, "*.rsk")
	f.Fuzz(func(t *testing.T, in []byte) { stable(t, in, auxwork.ParseRSK, (*auxwork.RSK).AppendTo) })
}

func FuzzParseRSKSolved(f *testing.F) {
	testkit.Seeds(f, "*.rsksolved")
	f.Fuzz(func(t *testing.T, in []byte) {
		stable(t, in, auxwork.ParseRSKSolved, (*auxwork.RSKSolved).AppendTo)
	})
}

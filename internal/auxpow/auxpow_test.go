package auxpow_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"math/big"
	"slices"
	"testing"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"btcpool/internal/auxpow"
	"btcpool/internal/auxpow/auxpowtest"
	"btcpool/internal/bitcoin"
	"btcpool/internal/testkit"
)

const namecoin = 1 // its chain id

// published returns a block of Namecoin: its header's hash and target, and the proof behind the header.
func published(t testing.TB, name string) (proof []byte, hash [32]byte, target *big.Int) {
	t.Helper()
	block := testkit.Hex(t, name)
	return block[80:], bitcoin.DoubleSHA256(block[:80]), blockchain.CompactToBig(binary.LittleEndian.Uint32(block[72:]))
}

// TestPublished has blocks of Namecoin's main chain: 19414 without the header in the coinbase, 37174 with a tree of
// sixteen chains.
func TestPublished(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"namecoin-19414.hex", "namecoin-37174.hex"} {
		proof, hash, target := published(t, name)
		if err := auxpowtest.Validate(proof, hash, namecoin, target); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestProofOfPublished takes a published proof apart and puts it together again.
func TestProofOfPublished(t *testing.T) {
	t.Parallel()
	want, hash, _ := published(t, "namecoin-37174.hex")
	var tx wire.MsgTx
	if err := tx.Deserialize(bytes.NewReader(want)); err != nil {
		t.Fatal(err)
	}
	rest := want[tx.SerializeSize()+32:]
	hashes := func() (branch []chainhash.Hash) {
		n := int(rest[0])
		for h := range slices.Chunk(rest[1:1+32*n], 32) {
			branch = append(branch, chainhash.Hash(h))
		}
		rest = rest[1+32*n+4:]
		return branch
	}
	parent := auxpow.Parent{Coinbase: want[:tx.SerializeSize()], Branch: hashes()}
	chain := auxpow.Chain{ID: namecoin, Hash: hash, Index: 11, Branch: hashes()}
	copy(parent.Header[:], rest)
	if diff := cmp.Diff(hex.EncodeToString(want), hex.EncodeToString(parent.Proof(&chain))); diff != "" {
		t.Error(diff)
	}
	script := tx.TxIn[0].SignatureScript
	root := chainhash.Hash(script[17:49])
	slices.Reverse(root[:])
	tree := auxpow.Tree{Root: root, Size: 16}
	if err := chain.Check(tree); err != nil {
		t.Error(err)
	}
	if !bytes.Contains(script, tree.Commitment()) {
		t.Errorf("%x is not in %x", tree.Commitment(), script)
	}
}

// solve returns a parent block that commits to a tree and has a branch to its coinbase. bits are those that its hash
// meets.
func solve(t rapid.TB, tree auxpow.Tree, branch []chainhash.Hash, bits uint32) *auxpow.Parent {
	t.Helper()
	coinbase1, coinbase2, err := bitcoin.Coinbase{
		Height: 840000, Time: 1713571767, Aux: tree.Commitment(), Text: "/pool/",
		Outputs: []wire.TxOut{{Value: 312500000, PkScript: []byte{0x51}}}, ExtranonceSize: 12,
	}.Build()
	if err != nil {
		t.Fatal(err)
	}
	p := &auxpow.Parent{Coinbase: slices.Concat(coinbase1, make([]byte, 12), coinbase2), Branch: branch}
	root := bitcoin.MerkleRoot(bitcoin.DoubleSHA256(p.Coinbase), branch)
	binary.LittleEndian.PutUint32(p.Header[:], 0x20000000)
	copy(p.Header[36:], root[:])
	for nonce := uint32(0); ; nonce++ {
		binary.LittleEndian.PutUint32(p.Header[76:], nonce)
		if hash := p.Hash(); (&auxpow.Chain{Bits: bits}).Met(&hash) {
			return p
		}
	}
}

const easyBits = 0x207fffff // every second hash meets it

// drawChains draws n chains of different ids, none of which is that of a parent block's version.
func drawChains(t *rapid.T, n int) []auxpow.Chain {
	ids := rapid.SliceOfNDistinct(rapid.OneOf(
		rapid.Int32Range(0, 0x1fff), // what there is
		rapid.Int32Range(0x4000, 1<<29),
	), n, n, rapid.ID).Draw(t, "ids")
	chains := make([]auxpow.Chain, n)
	for i := range chains {
		hash := rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "hash")
		chains[i] = auxpow.Chain{ID: ids[i], Hash: chainhash.Hash(hash), Bits: easyBits}
	}
	return chains
}

// TestEveryChainAccepts has one to eight chains in one tree: the node of each accepts the proof made for it, and no
// other.
func TestEveryChainAccepts(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		chains := drawChains(t, rapid.IntRange(1, 8).Draw(t, "chains"))
		tree, err := auxpow.Plant(chains)
		if err != nil {
			t.Fatal(err)
		}
		txids := make([]chainhash.Hash, rapid.IntRange(0, 20).Draw(t, "transactions"))
		for i := range txids {
			txids[i] = bitcoin.DoubleSHA256([]byte{byte(i)})
		}
		parent := solve(t, tree, bitcoin.MerkleBranch(txids), easyBits)
		solved := parent.Solved(chains)
		if diff := cmp.Diff(chains, solved); diff != "" {
			t.Fatalf("not all are solved:\n%s", diff)
		}
		target := blockchain.CompactToBig(easyBits)
		for i := range solved {
			c := &solved[i]
			if err := c.Check(tree); err != nil {
				t.Fatalf("chain %d: %v", c.ID, err)
			}
			proof := parent.Proof(c)
			if err := auxpowtest.Validate(proof, c.Hash, c.ID, target); err != nil {
				t.Fatalf("chain %d of %d: %v", c.ID, len(chains), err)
			}
			for _, other := range chains {
				if other.ID != c.ID && auxpowtest.Validate(proof, other.Hash, other.ID, target) == nil {
					t.Fatalf("the proof for chain %d passes for chain %d", c.ID, other.ID)
				}
			}
		}
	})
}

// TestSmallestTree holds Plant against a search over all nonces that matter: no smaller tree has room for the chains.
func TestSmallestTree(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 8).Draw(t, "chains")
		ids := rapid.SliceOfNDistinct(rapid.Int32Range(0, 63), n, n, rapid.ID).Draw(t, "ids")
		chains := make([]auxpow.Chain, n)
		for i, id := range ids {
			chains[i].ID = id
		}
		tree, err := auxpow.Plant(chains)
		if err != nil {
			t.Fatal(err)
		}
		height := len(chains[0].Branch)
		for nonce := range tree.Size {
			slots := make(map[uint32]bool)
			for _, id := range ids {
				slots[auxpow.Slot(nonce, id, height-1)] = true
			}
			if len(slots) == n {
				t.Fatalf("nonce %d has room for %v in a tree of height %d", nonce, ids, height-1)
			}
		}
	})
}

func TestPlantRefuses(t *testing.T) {
	t.Parallel()
	for name, chains := range map[string][]auxpow.Chain{
		"none":     nil,
		"same id":  {{ID: 5}, {ID: 5}},
		"too wide": {{ID: 0}, {ID: 1 << 30}},
	} {
		if tree, err := auxpow.Plant(chains); err == nil {
			t.Errorf("%s: %+v", name, tree)
		}
	}
	far := []auxpow.Chain{{ID: 0}, {ID: 1 << 29}}
	if tree, err := auxpow.Plant(far); err != nil || tree.Size != 1<<30 || far[0].Check(tree) != nil || far[1].Check(tree) != nil {
		t.Errorf("ids 2^29 apart: %+v, %v", tree, err)
	}
}

func TestEasiestBits(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		bits []uint32
		want uint32
	}{
		{nil, 0},
		{[]uint32{0}, 0},
		{[]uint32{0x17053894}, 0x17053894},
		{[]uint32{0x17053894, 0x1802f9c5, 0x1702f9c5, 0x01800000}, 0x1802f9c5},
	} {
		var chains []auxpow.Chain
		for _, bits := range tt.bits {
			chains = append(chains, auxpow.Chain{Bits: bits})
		}
		if got := auxpow.EasiestBits(chains); got != tt.want {
			t.Errorf("%08x: %08x, want %08x", tt.bits, got, tt.want)
		}
	}
}

// TestSolvedByTarget has a hard chain beside an easy one.
func TestSolvedByTarget(t *testing.T) {
	t.Parallel()
	chains := []auxpow.Chain{{Name: "hard", ID: 1, Bits: 0x1702f9c5}, {Name: "easy", ID: 2, Bits: easyBits}}
	tree, err := auxpow.Plant(chains)
	if err != nil {
		t.Fatal(err)
	}
	solved := solve(t, tree, nil, easyBits).Solved(chains)
	if len(solved) != 1 || solved[0].Name != "easy" {
		t.Errorf("solved %+v", solved)
	}
}

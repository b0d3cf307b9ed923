package auxpowtest_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"math/big"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"btcpool/internal/auxpow/auxpowtest"
)

// published returns what follows the header of a block of Namecoin, the hash of that header, and its target.
func published(t testing.TB, name string) (proof []byte, hash [32]byte, target *big.Int) {
	t.Helper()
	text, err := os.ReadFile("../testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	block, err := hex.DecodeString(strings.ReplaceAll(string(text), "\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	return block[80:], chainhash.DoubleHashH(block[:80]), blockchain.CompactToBig(binary.LittleEndian.Uint32(block[72:]))
}

// proof is a proof in parts that can be changed.
type proof struct {
	coinbase              wire.MsgTx
	branch, chainBranch   [][]byte
	index, chainIndex     uint32
	header                []byte
	hash                  [32]byte
	id                    int32
	target                *big.Int
	keepRoot, behindProof bool // keepRoot: the header's merkle root is not mended
}

func take(t *testing.T, name string) *proof {
	t.Helper()
	raw, hash, target := published(t, name)
	p := &proof{hash: hash, id: 1, target: target}
	if err := p.coinbase.Deserialize(bytes.NewReader(raw)); err != nil {
		t.Fatal(err)
	}
	rest := raw[p.coinbase.SerializeSize()+32:]
	for _, part := range []struct {
		branch *[][]byte
		index  *uint32
	}{{&p.branch, &p.index}, {&p.chainBranch, &p.chainIndex}} {
		n := int(rest[0])
		*part.branch = slices.Collect(slices.Chunk(rest[1:1+32*n], 32))
		*part.index = binary.LittleEndian.Uint32(rest[1+32*n:])
		rest = rest[1+32*n+4:]
	}
	p.header = rest
	return p
}

// bytes puts the proof together. Parents with a merkle root of their own have no proof of work, so every target is met
// by them.
func (p *proof) bytes() []byte {
	if id := p.coinbase.TxHash(); !p.keepRoot {
		for _, other := range p.branch {
			id = chainhash.DoubleHashH(slices.Concat(id[:], other))
		}
		copy(p.header[36:], id[:])
	}
	var out bytes.Buffer
	_ = p.coinbase.Serialize(&out)
	out.Write(make([]byte, 32))
	for _, part := range []struct {
		branch [][]byte
		index  uint32
	}{{p.branch, p.index}, {p.chainBranch, p.chainIndex}} {
		out.WriteByte(byte(len(part.branch)))
		out.Write(slices.Concat(part.branch...))
		out.Write(binary.LittleEndian.AppendUint32(nil, part.index))
	}
	out.Write(p.header)
	if p.behindProof {
		out.WriteByte(0)
	}
	return out.Bytes()
}

func TestValidateRefuses(t *testing.T) {
	t.Parallel()
	const explicit, implicit = "namecoin-37174.hex", "namecoin-19414.hex"
	everything := new(big.Int).Lsh(big.NewInt(1), 256)
	script := func(p *proof) *[]byte { return &p.coinbase.TxIn[0].SignatureScript }
	magic := []byte{0xfa, 0xbe, 'm', 'm'}
	for _, tt := range []struct {
		name, block string
		change      func(*proof)
		want        string // "" = accepted
	}{
		{"unchanged", explicit, func(*proof) {}, ""},
		{"unchanged, without header in the coinbase", implicit, func(*proof) {}, ""},
		{"bytes behind", explicit, func(p *proof) { p.behindProof = true }, "behind the proof"},
		{"other block", explicit, func(p *proof) { p.hash[0]++ }, "root is not in the coinbase"},
		{"other chain", explicit, func(p *proof) { p.id = 2 }, "leaf 11, want"},
		{"other leaf", explicit, func(p *proof) { p.chainIndex++ }, "root is not in the coinbase"},
		{"harder target", explicit, func(p *proof) { p.target = new(big.Int).Rsh(p.target, 20) }, "above the target"},
		{"not the coinbase", explicit, func(p *proof) { p.index = 1 }, "not a coinbase"},
		{"parent of the same chain", explicit, func(p *proof) { p.header[2] = 1 }, "has our chain id"},
		{"long chain branch", explicit, func(p *proof) { p.chainBranch = slices.Repeat([][]byte{make([]byte, 32)}, 31) }, "too long"},
		{"other coinbase", explicit, func(p *proof) { p.coinbase.LockTime++; p.keepRoot = true }, "not in the parent's merkle tree"},
		{"no input", explicit, func(p *proof) { p.coinbase.TxIn = nil; p.coinbase.TxOut = p.coinbase.TxOut[:0] }, "coinbase"},
		{"two headers", explicit, func(p *proof) { *script(p) = append(*script(p), magic...) }, "several"},
		{"header elsewhere", implicit, func(p *proof) { *script(p) = append(*script(p), magic...) }, "not just before"},
		{"no header, root early", explicit, func(p *proof) { *script(p) = bytes.Replace(*script(p), magic, nil, 1) }, ""},
		{"no header, root late", implicit, func(p *proof) { *script(p) = append(make([]byte, 20), *script(p)...) }, "first 20 bytes"},
		{"no size", explicit, func(p *proof) { *script(p) = (*script(p))[:50] }, "missing"},
		{"other size", explicit, func(p *proof) { (*script(p))[49] = 8 }, "tree of 8"},
		{"other nonce", explicit, func(p *proof) { (*script(p))[53]++ }, "leaf 11, want"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := take(t, tt.block)
			if tt.name != "harder target" {
				p.target = everything
			}
			tt.change(p)
			err := auxpowtest.Validate(p.bytes(), p.hash, p.id, p.target)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
	raw, hash, target := published(t, explicit)
	for n := range raw {
		if auxpowtest.Validate(raw[:n], hash, 1, target) == nil {
			t.Fatalf("the first %d bytes of %d are accepted", n, len(raw))
		}
	}
}

package miner_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"btcpool/internal/bitcoin"
	"btcpool/internal/miner"
	"btcpool/internal/stratum"
	"btcpool/internal/testkit"
)

// block100000 is a mainnet block of four transactions.
func block100000(t testing.TB) *wire.MsgBlock {
	t.Helper()
	block := new(wire.MsgBlock)
	if err := block.Deserialize(bytes.NewReader(testkit.Hex(t, "block100000.hex"))); err != nil {
		t.Fatal(err)
	}
	return block
}

// notifyLine renders the work of a block as a pool would: the coinbase is split so that its bytes 10 to 18 are extranonces.
func notifyLine(t testing.TB, block *wire.MsgBlock) (line string, extranonce1, extranonce2 []byte) {
	t.Helper()
	var coinbase bytes.Buffer
	if err := block.Transactions[0].SerializeNoWitness(&coinbase); err != nil {
		t.Fatal(err)
	}
	raw := coinbase.Bytes()
	txids := make([]chainhash.Hash, len(block.Transactions))
	for i, tx := range block.Transactions {
		txids[i] = tx.TxHash()
	}
	var branch []string
	for _, h := range bitcoin.MerkleBranch(txids[1:]) {
		branch = append(branch, fmt.Sprintf(`"%x"`, h[:]))
	}
	prev := block.Header.PrevBlock
	for i := 0; i < len(prev); i += 4 {
		binary.BigEndian.PutUint32(prev[i:], binary.LittleEndian.Uint32(prev[i:]))
	}
	line = fmt.Sprintf(`{"id":null,"method":"mining.notify","params":["7","%x","%x","%x",[%s],"%08x","%08x","%08x",true]}`,
		prev[:], raw[:10], raw[18:], strings.Join(branch, ","), block.Header.Version, block.Header.Bits, block.Header.Timestamp.Unix())
	return line, raw[10:14], raw[14:18]
}

func TestHeaderOfRealBlocks(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		block *wire.MsgBlock
		hash  string
	}{
		"genesis": {chaincfg.MainNetParams.GenesisBlock, "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f"},
		"100000":  {block100000(t), "000000000003ba27aa200b1cecaad478d2b00432346c3f1f3986da1afd33e506"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			line, extranonce1, extranonce2 := notifyLine(t, test.block)
			message, err := stratum.ParseMessage([]byte(line))
			if err != nil {
				t.Fatal(err)
			}
			job := miner.Job{Job: new(stratum.Job), Extranonce1: extranonce1, Extranonce2Size: len(extranonce2)}
			if err := job.Parse(message.Params); err != nil {
				t.Fatal(err)
			}
			header := job.Header(extranonce2, job.Time, 0, 0)
			got := miner.Hash(&header, test.block.Header.Nonce)
			if got.String() != test.hash {
				t.Errorf("hash %s, want %s", got, test.hash)
			}

			target, err := bitcoin.TargetFromBits(job.Bits)
			if err != nil {
				t.Fatal(err)
			}
			scan := miner.Scanner(&header)
			nonce, tried, found := scan(test.block.Header.Nonce-1000, 5000, &target)
			if nonce != test.block.Header.Nonce || tried != 1001 || !found {
				t.Errorf("scan: nonce %d after %d, found %t; want %d", nonce, tried, found, test.block.Header.Nonce)
			}
		})
	}
}

func TestHashEqualsDoubleSHA256(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		header := [80]byte(rapid.SliceOfN(rapid.Byte(), 80, 80).Draw(t, "header"))
		nonce := rapid.Uint32().Draw(t, "nonce")
		got := miner.Hash(&header, nonce)
		binary.LittleEndian.PutUint32(header[76:], nonce)
		if want := chainhash.Hash(bitcoin.DoubleSHA256(header[:])); got != want {
			t.Fatalf("hash %s, want %s", got, want)
		}
	})
}

// BIP 310: (version AND NOT mask) OR (bits AND mask).
func TestVersionBits(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ version, mask, bits, want uint32 }{
		{0x20000000, 0, 0x1fffe000, 0x20000000},
		{0x20000000, 0x1fffe000, 0x00006000, 0x20006000},
		{0x30000000, 0x1fffe000, 0x00006000, 0x20006000}, // the job's own bit in the mask is the miner's to clear
		{0x20000001, 0x00006000, 0xffffffff, 0x20006001},
	} {
		job := miner.Job{Job: &stratum.Job{Version: test.version}, VersionMask: test.mask}
		header := job.Header(nil, 0, test.bits, 0)
		if got := binary.LittleEndian.Uint32(header[:]); got != test.want {
			t.Errorf("version %08x mask %08x bits %08x: %08x, want %08x", test.version, test.mask, test.bits, got, test.want)
		}
	}
}

func TestVariationsDiffer(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		size  int
		mask  uint32
		count uint64 // of variations that must differ
	}{
		{1, 0, 256 * 100}, {1, 0x0000a000, 256 * 4 * 20}, {2, 0x00006000, 1 << 17}, {8, 0x1fffe000, 1 << 16}, {32, 0, 1000},
	} {
		t.Run(fmt.Sprint(test), func(t *testing.T) {
			t.Parallel()
			job := miner.Job{Job: &stratum.Job{Time: 1000}, Extranonce2Size: test.size, VersionMask: test.mask}
			type variation struct {
				extranonce2 string
				time, bits  uint32
			}
			seen := make(map[variation]bool)
			for counter := range test.count {
				extranonce2, time, bits := job.Variation(counter)
				if len(extranonce2) != test.size || bits&^test.mask != 0 || time < 1000 || time >= 1600 {
					t.Fatalf("counter %d: extranonce2 %x, time %d, bits %08x", counter, extranonce2, time, bits)
				}
				seen[variation{string(extranonce2), time, bits}] = true
			}
			if uint64(len(seen)) != test.count {
				t.Errorf("%d of %d variations differ", len(seen), test.count)
			}
		})
	}
}

func TestTargetOf(t *testing.T) {
	t.Parallel()
	for d := bitcoin.MinDifficulty + 1; d <= bitcoin.MaxDifficulty; d++ {
		if diff := cmp.Diff(d.Target(), miner.TargetOf(d.Float())); diff != "" {
			t.Errorf("2^%d: %s", d, diff)
		}
	}
	one := new(big.Int).Lsh(big.NewInt(0xffff), 208)
	highest := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 256), big.NewInt(1))
	rapid.Check(t, func(t *rapid.T) {
		d := rapid.Float64Range(math.SmallestNonzeroFloat64, math.MaxFloat64).Draw(t, "difficulty")
		target := miner.TargetOf(d)
		got, _ := new(big.Int).SetString(chainhash.Hash(target).String(), 16)
		// got is the largest whole number with got × d <= 0xffff·2^208, or the largest there is.
		exact := new(big.Rat).SetFloat64(d)
		product := func(n *big.Int) *big.Rat { return new(big.Rat).Mul(new(big.Rat).SetInt(n), exact) }
		if product(got).Cmp(new(big.Rat).SetInt(one)) > 0 {
			t.Fatalf("difficulty %g: target %x is too high", d, got)
		}
		next := new(big.Int).Add(got, big.NewInt(1))
		if got.Cmp(highest) != 0 && product(next).Cmp(new(big.Rat).SetInt(one)) <= 0 {
			t.Fatalf("difficulty %g: target %x is too low", d, got)
		}
	})
}

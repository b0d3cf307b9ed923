package bitcoin_test

import (
	"bytes"
	"encoding/hex"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"btcpool/internal/bitcoin"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestCoinbase(t *testing.T) {
	t.Parallel()
	output := wire.TxOut{Value: 5_000_000_000, PkScript: []byte{0x51}}
	const (
		version  = "02000000"
		input    = "01" + "0000000000000000000000000000000000000000000000000000000000000000" + "ffffffff"
		sequence = "ffffffff"
		oneOut   = "01 00f2052a01000000 01 51"
		lockTime = "00000000"
	)
	for _, tt := range []struct {
		name         string
		coinbase     bitcoin.Coinbase
		want1, want2 string
	}{
		{
			name: "mainnet height",
			coinbase: bitcoin.Coinbase{
				Height: 840_000, Time: 0x662306be, Text: "/pool/", Outputs: []wire.TxOut{output}, ExtranonceSize: 12,
			},
			want1: version + input + "1b" + "03 40d10c" + "04 be062366" + "2f706f6f6c2f",
			want2: sequence + oneOut + lockTime,
		}, {
			name: "height 1, coinbaseaux, commitment",
			coinbase: bitcoin.Coinbase{
				Height: 1, Time: 1, Aux: []byte{0xaa, 0xbb}, Text: "x", ExtranonceSize: 12,
				Outputs: []wire.TxOut{output, {PkScript: bitcoin.WitnessCommitment(nil)}},
			},
			want1: version + input + "11" + "51" + "51" + "aabb" + "78",
			want2: sequence + "02 00f2052a01000000 01 51" + "0000000000000000 26 6a24aa21a9ed" +
				"e2f61c3f71d1defd3fa999dfa36953755c690689799962b48bebd836974e8cf9" + lockTime,
		}, {
			name:     "height 16 and 17 differ in kind",
			coinbase: bitcoin.Coinbase{Height: 16, Time: 17, Outputs: []wire.TxOut{output}},
			want1:    version + input + "03" + "60" + "0111",
			want2:    sequence + oneOut + lockTime,
		}, {
			name:     "a sign byte where the top bit is set",
			coinbase: bitcoin.Coinbase{Height: 128, Time: 1<<31 - 1, Outputs: []wire.TxOut{output}},
			want1:    version + input + "08" + "028000" + "04ffffff7f",
			want2:    sequence + oneOut + lockTime,
		}, {
			name: "after 2038",
			coinbase: bitcoin.Coinbase{
				Height: 2_000_000, Time: time.Date(2040, 1, 1, 0, 0, 0, 0, time.UTC).Unix(), Outputs: []wire.TxOut{output},
			},
			want1: version + input + "0a" + "0380841e" + "05 807eaa8300",
			want2: sequence + oneOut + lockTime,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			coinbase1, coinbase2, err := tt.coinbase.Build()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(hex.EncodeToString(unhex(t, tt.want1)), hex.EncodeToString(coinbase1)); diff != "" {
				t.Errorf("coinbase1:\n%s", diff)
			}
			if diff := cmp.Diff(hex.EncodeToString(unhex(t, tt.want2)), hex.EncodeToString(coinbase2)); diff != "" {
				t.Errorf("coinbase2:\n%s", diff)
			}
		})
	}
}

// Whatever is built is a sane coinbase to btcd, holds the height where BIP 34 wants it, and has the extranonce where
// the parts meet.
func TestCoinbaseAgainstBtcd(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		script := make([]byte, rapid.SampledFrom([]int{0, 22, 38, 0xfc, 0xfd, 1000}).Draw(t, "script"))
		var outputs []wire.TxOut
		for range rapid.SampledFrom([]int{1, 2, 3, 0xfc, 0xfd}).Draw(t, "outputs") {
			outputs = append(outputs, wire.TxOut{Value: int64(len(outputs)), PkScript: script})
		}
		c := bitcoin.Coinbase{
			Height:         rapid.Int32Range(0, 1<<31-1).Draw(t, "height"),
			Time:           rapid.Int64Range(0, 1<<32).Draw(t, "time"),
			Aux:            rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "aux"),
			Text:           rapid.StringN(0, 40, 80).Draw(t, "text"),
			Outputs:        outputs,
			ExtranonceSize: rapid.IntRange(0, 16).Draw(t, "extranonce"),
			LockToHeight:   rapid.Bool().Draw(t, "lock"),
		}
		coinbase1, coinbase2, err := c.Build()
		if err != nil {
			if !strings.Contains(err.Error(), "input script") {
				t.Fatal(err)
			}
			return
		}
		extranonce := bytes.Repeat([]byte{0xee}, c.ExtranonceSize)
		var tx wire.MsgTx
		r := bytes.NewReader(slices.Concat(coinbase1, extranonce, coinbase2))
		if err := tx.Deserialize(r); err != nil || r.Len() != 0 {
			t.Fatalf("not a transaction: %v, %d bytes left", err, r.Len())
		}
		if err := blockchain.CheckTransactionSanity(btcutil.NewTx(&tx)); err != nil {
			t.Fatal(err)
		}
		if height, err := blockchain.ExtractCoinbaseHeight(btcutil.NewTx(&tx)); err != nil || height != c.Height {
			t.Fatalf("height %d, want %d, error %v", height, c.Height, err)
		}
		if tx.LockTime < 500_000_000 && !blockchain.IsFinalizedTransaction(btcutil.NewTx(&tx), c.Height, time.Unix(0, 0)) {
			t.Fatalf("not final at height %d", c.Height)
		}
		tail := slices.Concat(c.Aux, []byte(c.Text), extranonce)
		if !bytes.HasSuffix(tx.TxIn[0].SignatureScript, tail) {
			t.Fatalf("script %x does not end in %x", tx.TxIn[0].SignatureScript, tail)
		}
		for i, out := range tx.TxOut {
			if out.Value != outputs[i].Value || !bytes.Equal(out.PkScript, outputs[i].PkScript) {
				t.Fatalf("output %d: %v, want %v", i, out, outputs[i])
			}
		}
	})
}

func TestCoinbaseRefuses(t *testing.T) {
	t.Parallel()
	valid := func() bitcoin.Coinbase {
		return bitcoin.Coinbase{Height: 840_000, Time: 1e9, ExtranonceSize: 12, Outputs: []wire.TxOut{{Value: 1}}}
	}
	for _, tt := range []struct {
		name   string
		change func(*bitcoin.Coinbase)
		want   string // a part of the error, "" for none
	}{
		{"nothing", func(*bitcoin.Coinbase) {}, ""},
		{"longest script", func(c *bitcoin.Coinbase) { c.Text = strings.Repeat("x", 100-4-5-12) }, ""},
		{"script too long", func(c *bitcoin.Coinbase) { c.Text = strings.Repeat("x", 100-4-5-12+1) }, "101 bytes, allowed are 2 to 100"},
		{"coinbaseaux too long", func(c *bitcoin.Coinbase) { c.Aux = make([]byte, 20_000) }, "coinbase: "},
		{"merged mining in all the room", func(c *bitcoin.Coinbase) {
			c.Text = strings.Repeat("x", 100-4-5-44-12)
			c.MergedMining = bitcoin.AuxPoWCommitment(chainhash.Hash{}, 1, 0)
		}, ""},
		{"merged mining in more than the room", func(c *bitcoin.Coinbase) {
			c.Text = strings.Repeat("x", 100-4-5-44-12+1)
			c.MergedMining = bitcoin.AuxPoWCommitment(chainhash.Hash{}, 1, 0)
		}, "merged mining 44"},
		{"merged mining marked twice", func(c *bitcoin.Coinbase) {
			c.Text = "a\xfa\xbemmb"
			c.MergedMining = bitcoin.AuxPoWCommitment(chainhash.Hash{}, 1, 0)
		}, "only once"},
		{"negative height", func(c *bitcoin.Coinbase) { c.Height = -1 }, "height -1"},
		{"negative time", func(c *bitcoin.Coinbase) { c.Time = -1 }, "time -1"},
		{"negative extranonce", func(c *bitcoin.Coinbase) { c.ExtranonceSize = -1 }, "extranonce size -1"},
		{"no outputs", func(c *bitcoin.Coinbase) { c.Outputs = nil }, "no outputs"},
		{"negative output", func(c *bitcoin.Coinbase) { c.Outputs[0].Value = -1 }, "output 0"},
		{"all money", func(c *bitcoin.Coinbase) { c.Outputs[0].Value = btcutil.MaxSatoshi }, ""},
		{"more than all money", func(c *bitcoin.Coinbase) {
			c.Outputs = []wire.TxOut{{Value: btcutil.MaxSatoshi}, {Value: 1}}
		}, "output 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := valid()
			tt.change(&c)
			_, _, err := c.Build()
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

func TestCoinbaseHeight(t *testing.T) {
	t.Parallel()
	const head = "02000000010000000000000000000000000000000000000000000000000000000000000000ffffffff"
	for text, want := range map[string]int32{
		head + "35" + "0340d10c" + "04": 840000,
		head + "05" + "5104":            1,
		head + "05" + "6004":            16,
		head + "05" + "0111":            17,
		head + "05" + "028000":          128,
		head + "05" + "04ffffff7f":      1<<31 - 1,
	} {
		if got, err := bitcoin.CoinbaseHeight(unhex(t, text)); err != nil || got != want {
			t.Errorf("%s: %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", head, head + "05", head + "05" + "0340d1", head + "05" + "00", head + "05" + "0180", head + "05" + "04ffffffff",
		head + "05" + "050000000001", "0200000002" + head[10:] + "350340d10c",
	} {
		if got, err := bitcoin.CoinbaseHeight(unhex(t, text)); err == nil {
			t.Errorf("%s: %d", text, got)
		}
	}
}

// coinbaseOf returns the first part of a coinbase whose height is read back, 0 aside.
func coinbaseOf(t interface{ Fatalf(string, ...any) }, height int32) []byte {
	coinbase1, _, err := bitcoin.Coinbase{
		Height: height, Time: 1713571767, ExtranonceSize: 12, Outputs: []wire.TxOut{{Value: 1, PkScript: []byte{0x51}}},
	}.Build()
	if err != nil {
		t.Fatalf("height %d: %v", height, err)
	}
	if got, err := bitcoin.CoinbaseHeight(coinbase1); (err != nil || got != height) && height != 0 {
		t.Fatalf("%d is read as %d, %v", height, got, err)
	}
	return coinbase1
}

func TestCoinbaseHeightIsReadBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) { coinbaseOf(t, rapid.Int32Range(1, 1<<31-1).Draw(t, "height")) })
}

// Whatever comes is refused or a height that there can be.
func FuzzCoinbaseHeight(f *testing.F) {
	for _, height := range []int32{1, 16, 17, 127, 128, 840000, 1<<31 - 1} {
		f.Add(coinbaseOf(f, height))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		height, err := bitcoin.CoinbaseHeight(in)
		if err != nil {
			return
		}
		if height < 0 {
			t.Fatalf("height %d", height)
		}
		coinbaseOf(t, height)
	})
}

package bitcoin_test

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/wire/v2"
	"github.com/google/go-cmp/cmp"

	"btcpool/internal/bitcoin"
)

// splitCoinbase returns the parts of a coinbase with outputs.
func splitCoinbase(tb testing.TB, outputs ...wire.TxOut) (coinbase1, coinbase2 []byte) {
	tb.Helper()
	coinbase1, coinbase2, err := bitcoin.Coinbase{Height: 840_000, Time: 1, Text: "/pool/", Outputs: outputs, ExtranonceSize: 12}.Build()
	if err != nil {
		tb.Fatal(err)
	}
	return coinbase1, coinbase2
}

func TestCoinbaseOutputs(t *testing.T) {
	t.Parallel()
	want := []wire.TxOut{{Value: 312_500_000, PkScript: []byte{0x51}}, {Value: 0, PkScript: bytes.Repeat([]byte{0x6a}, 300)}}
	c1, c2 := splitCoinbase(t, want...)
	for _, moved := range []int{0, 2, len("/pool/")} { // of the script into the second part
		head, tail := c1[:len(c1)-moved], append(bytes.Clone(c1[len(c1)-moved:]), c2...)
		got, err := bitcoin.CoinbaseOutputs(head, 12, tail)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%d bytes moved: %v %s", moved, err, diff)
		}
	}
	many := bytes.Clone(c2)
	copy(many[4:], "\xfe\xff\xff\xff\x00")
	rich := bytes.Clone(c2)
	copy(rich[5:], "\xff\xff\xff\xff\xff\xff\xff\x7f")
	for name, bad := range map[string]struct {
		c1, c2 []byte
		size   int
		want   string
	}{
		"empty":                       {nil, nil, 0, "not one with one input"},
		"two inputs":                  {bytes.Replace(c1, []byte{1}, []byte{2}, 1), c2, 12, "not one with one input"},
		"the extranonce behind":       {c1, c2, 13, "not within the input script"},
		"outputs in the first part":   {append(bytes.Clone(c1), make([]byte, 30)...), c2, 0, "not within the input script"},
		"cut in the sequence":         {c1, c2[:3], 12, "cut off"},
		"cut in the outputs":          {c1, c2[:20], 12, "cut off"},
		"more outputs than there are": {c1, many, 12, "cut off"},
		"no lock time":                {c1, c2[:len(c2)-4], 12, "0 bytes behind the outputs"},
		"more behind":                 {c1, append(bytes.Clone(c2), 0), 12, "5 bytes behind the outputs"},
		"more than there can be":      {c1, rich, 12, "out of range"},
	} {
		if _, err := bitcoin.CoinbaseOutputs(bad.c1, bad.size, bad.c2); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%s: got %v, want %s", name, err, bad.want)
		}
	}
}

func TestPayoutScriptOfAnyNetwork(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]string{
		"1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa":           "76a91462e907b15cbf27d5425399ebf6f0fb50ebb88f1888ac",
		"bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080": "0014751e76e8199196d454941c45d1b3a323f1433bd6",
	} {
		if got, err := bitcoin.PayoutScript(addr); err != nil || hex.EncodeToString(got) != want {
			t.Errorf("%s: got %x, %v", addr, got, err)
		}
	}
	if _, err := bitcoin.PayoutScript("bc1qnothing"); err == nil || !strings.Contains(err.Error(), `address "bc1qnothing" for mainnet`) {
		t.Errorf("got %v", err)
	}
}

// FuzzCoinbaseOutputs compares with btcd's reader: whatever is taken is a transaction with these outputs, whatever the
// extranonce is.
func FuzzCoinbaseOutputs(f *testing.F) {
	c1, c2 := splitCoinbase(f, wire.TxOut{Value: 5, PkScript: []byte{0x51}}, wire.TxOut{PkScript: []byte{0x6a, 1, 2}})
	f.Add(c1, byte(12), c2)
	f.Add(c1, byte(13), c2)
	f.Add(c1[:50], byte(0), append(bytes.Clone(c1[50:]), c2...))
	f.Fuzz(func(t *testing.T, c1 []byte, size byte, c2 []byte) {
		outputs, err := bitcoin.CoinbaseOutputs(c1, int(size), c2)
		if err != nil {
			return
		}
		for _, b := range []byte{0, 0xff} {
			var tx wire.MsgTx
			r := bytes.NewReader(append(append(bytes.Clone(c1), bytes.Repeat([]byte{b}, int(size))...), c2...))
			if err := tx.DeserializeNoWitness(r); err != nil || r.Len() > 0 || len(tx.TxIn) != 1 || len(tx.TxOut) != len(outputs) {
				t.Fatalf("%d inputs, %d outputs, want 1, %d; %d bytes left: %v", len(tx.TxIn), len(tx.TxOut), len(outputs), r.Len(), err)
			}
			for i, out := range tx.TxOut {
				if out.Value != outputs[i].Value || !bytes.Equal(out.PkScript, outputs[i].PkScript) {
					t.Fatalf("output %d: %v, want %v", i, outputs[i], out)
				}
			}
		}
	})
}

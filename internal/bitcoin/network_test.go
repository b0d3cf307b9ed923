package bitcoin_test

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/address/v2/bech32"
	"github.com/btcsuite/btcd/blockchain"
	"pgregory.net/rapid"

	"btcpool/internal/bitcoin"
)

func network(t testing.TB, name string) bitcoin.Network {
	t.Helper()
	n, err := bitcoin.NetworkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestNetworkNames(t *testing.T) {
	t.Parallel()
	for name, chain := range map[string]string{
		"mainnet": "main", "testnet3": "test", "testnet4": "testnet4", "signet": "signet", "regtest": "regtest",
	} {
		if n := network(t, name); n.Name != name || n.Chain != chain {
			t.Errorf("%s = %+v", name, n)
		}
	}
	if _, err := bitcoin.NetworkByName("main"); err == nil || !strings.Contains(err.Error(), "testnet4") {
		t.Errorf("the error for an unknown name does not list the known ones: %v", err)
	}
}

func TestPayoutScript(t *testing.T) {
	t.Parallel()
	program20 := func(hrp string, version byte) string {
		words, err := bech32.ConvertBits(make([]byte, 20), 8, 5, true)
		if err != nil {
			t.Fatal(err)
		}
		addr, err := bech32.EncodeM(hrp, append([]byte{version}, words...))
		if err != nil {
			t.Fatal(err)
		}
		return addr
	}
	for _, tt := range []struct {
		name, network, address string
		want                   string // hex, or a part of the error
	}{
		{"P2PKH, genesis", "mainnet", "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", "76a91462e907b15cbf27d5425399ebf6f0fb50ebb88f1888ac"},
		{"P2SH", "mainnet", "3QJmV3qfvL9SuYo34YihAf3sRCW3qSinyC", "a914f815b036d9bbbce5e9f2a00abd1bf3dc91e9551087"},
		{"P2WPKH, BIP 173", "mainnet", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "0014751e76e8199196d454941c45d1b3a323f1433bd6"},
		{"P2WPKH in capitals", "mainnet", "BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4", "0014751e76e8199196d454941c45d1b3a323f1433bd6"},
		{"P2WSH, BIP 173", "testnet4", "tb1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3q0sl5k7", "00201863143c14c5166804bd19203356da136c985678cd4d27a1b8c6329604903262"},
		{"P2WSH on signet", "signet", "tb1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3q0sl5k7", "00201863143c14c5166804bd19203356da136c985678cd4d27a1b8c6329604903262"},
		{"P2TR, BIP 350", "mainnet", "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0", "512079be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"},
		{"mainnet on testnet", "testnet4", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "not for testnet4 but for mainnet"},
		{"mainnet P2PKH on regtest", "regtest", "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", "not for regtest but for mainnet"},
		{"testnet on regtest", "regtest", "tb1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3q0sl5k7", "not for regtest but for testnet4"},
		{"checksum", "mainnet", "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNb", "checksum"},
		{"taproot with the old checksum", "mainnet", "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqh2y7hd", "bech32m"},
		{"version 1, 20 bytes", "mainnet", program20("bc", 1), "unsupported witness program"},
		{"version 2", "mainnet", program20("bc", 2), "unsupported"},
		{"public key", "mainnet", "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798", "unsupported kind"},
		{"anchor", "mainnet", "bc1pfeessrawgf", "unsupported kind"},
		{"empty", "mainnet", "", "unknown"},
		{"garbage", "mainnet", "garbage", "checksum"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			script, err := network(t, tt.network).PayoutScript(tt.address)
			if err != nil {
				if !strings.Contains(err.Error(), tt.want) {
					t.Errorf("error %q does not say %q", err, tt.want)
				}
			} else if got := hex.EncodeToString(script); got != tt.want {
				t.Errorf("script %s, want %s", got, tt.want)
			}
		})
	}
}

func TestSubsidyAgainstBtcd(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"mainnet", "regtest"} {
		n := network(t, name)
		rapid.Check(t, func(t *rapid.T) {
			height := rapid.Int32Range(0, 1<<31-1).Draw(t, "height")
			if got, want := n.Subsidy(height), blockchain.CalcBlockSubsidy(height, n.Params); got != want {
				t.Fatalf("%s: subsidy of %d = %d, want %d", name, height, got, want)
			}
		})
	}
	mainnet := network(t, "mainnet")
	for height, want := range map[int32]int64{-1: 0, 0: 50e8, 209_999: 50e8, 210_000: 25e8, 840_000: 312_500_000} {
		if got := mainnet.Subsidy(height); got != want {
			t.Errorf("subsidy of %d = %d, want %d", height, got, want)
		}
	}
}

func TestConsensusAgainstBtcd(t *testing.T) {
	t.Parallel()
	if got := bitcoin.MaxFutureBlockTime.Seconds(); got != blockchain.MaxTimeOffsetSeconds {
		t.Errorf("MaxFutureBlockTime is %v s", got)
	}
	for _, name := range bitcoin.NetworkNames() {
		if p := network(t, name).Params; p.TargetTimespan != bitcoin.RetargetInterval*p.TargetTimePerBlock {
			t.Errorf("%s has another difficulty after %s of blocks of %s", name, p.TargetTimespan, p.TargetTimePerBlock)
		}
	}
}

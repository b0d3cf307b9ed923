package bitcoin

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/txscript/v2"
)

// Network is a Bitcoin network as a configuration file and a node name it.
type Network struct {
	Name   string // in configuration: "mainnet", "testnet4", …
	Chain  string // getblockchaininfo's "chain": "main", "testnet4", …
	Params *chaincfg.Params

	OnDemand     bool // a block comes when somebody wants one: the newest may be of any age
	SignedBlocks bool // blocks are signed by those who run the network (BIP 325)
}

// networks is all that has to know of another network. The slice is built on demand so that nobody can change a shared
// one.
func networks() []Network {
	return []Network{
		{Name: "mainnet", Chain: "main", Params: &chaincfg.MainNetParams},
		{Name: "testnet4", Chain: "testnet4", Params: &chaincfg.TestNet4Params},
		{Name: "signet", Chain: "signet", Params: &chaincfg.SigNetParams, SignedBlocks: true},
		{Name: "regtest", Chain: "regtest", Params: &chaincfg.RegressionNetParams, OnDemand: true},
		{Name: "testnet3", Chain: "test", Params: &chaincfg.TestNet3Params},
	}
}

// NetworkNames returns what configuration files call the networks.
func NetworkNames() []string {
	var names []string
	for _, n := range networks() {
		names = append(names, n.Name)
	}
	return names
}

// NetworkByName returns the network that configuration files call name.
func NetworkByName(name string) (Network, error) {
	for _, n := range networks() {
		if n.Name == name {
			return n, nil
		}
	}
	return Network{}, fmt.Errorf("unknown network %q, known are %s", name, strings.Join(NetworkNames(), ", "))
}

// PayoutScript returns the output script that pays to an address of this
// network: P2PKH, P2SH, P2WPKH, P2WSH or P2TR. The test networks share their
// address prefixes, so an address of one is valid on the others.
func (n Network) PayoutScript(addr string) ([]byte, error) {
	decoded, err := n.decodeAddress(addr)
	if err != nil {
		for _, other := range networks() {
			if _, otherErr := other.decodeAddress(addr); otherErr == nil {
				return nil, fmt.Errorf("address %q is not for %s but for %s", addr, n.Name, other.Name)
			}
		}
		return nil, fmt.Errorf("address %q for %s: %w", addr, n.Name, err)
	}
	return txscript.PayToAddrScript(decoded)
}

// PayoutScript returns the output script that pays to an address of any network.
func PayoutScript(addr string) (script []byte, err error) {
	for _, n := range slices.Backward(networks()) { // what is said is of the main network
		if script, err = n.PayoutScript(addr); err == nil {
			break
		}
	}
	return script, err
}

func (n Network) decodeAddress(addr string) (address.Address, error) {
	decoded, err := address.DecodeAddress(addr, n.Params)
	if err != nil {
		return nil, err
	}
	switch decoded.(type) {
	case *address.AddressPubKeyHash, *address.AddressScriptHash, *address.AddressWitnessPubKeyHash,
		*address.AddressWitnessScriptHash, *address.AddressTaproot:
	default:
		return nil, fmt.Errorf("unsupported kind %T", decoded)
	}
	if !decoded.IsForNet(n.Params) {
		return nil, errors.New("wrong network")
	}
	// The decoder reads a 20-byte program of version 1 as one of version 0.
	if !strings.EqualFold(decoded.EncodeAddress(), addr) {
		return nil, errors.New("unsupported witness program")
	}
	return decoded, nil
}

// MaxFutureBlockTime is how far ahead of a node's clock the time of a block may be (MAX_FUTURE_BLOCK_TIME in Bitcoin
// Core's src/chain.h).
const MaxFutureBlockTime = 2 * time.Hour

// RetargetInterval is the number of blocks of the same difficulty, in every network that changes it; the first has a
// height that is a multiple (DifficultyAdjustmentInterval in Bitcoin Core's src/consensus/params.h).
const RetargetInterval = 2016

// EasyBlocks reports whether blocks get as easy as can be when none came for Params.MinDiffReductionTime, for one
// block: on testnets.
func (n Network) EasyBlocks() bool {
	return n.Params.ReduceMinDifficulty && !n.Params.PoWNoRetargeting
}

// SamePeriod reports whether blocks of heights a and b have the same difficulty by consensus.
func (n Network) SamePeriod(a, b int32) bool {
	if n.Params.ReduceMinDifficulty { // a late block of a test network may be easy
		return false
	}
	return a/RetargetInterval == b/RetargetInterval
}

// Reachable reports whether one chain can have both targets at these heights: from one period to the next difficulty
// changes by a factor of 4 at most.
func (n Network) Reachable(a Target, heightA int32, b Target, heightB int32) bool {
	if n.Params.ReduceMinDifficulty {
		return true
	}
	periods := heightA/RetargetInterval - heightB/RetargetInterval
	factor := math.Pow(4, math.Abs(float64(periods))) * 1.01 // compact targets are rounded
	ratio := b.Difficulty() / a.Difficulty()
	return ratio <= factor && ratio >= 1/factor
}

// Subsidy returns the newly created satoshi of the block at height.
func (n Network) Subsidy(height int32) int64 {
	if height < 0 {
		return 0
	}
	const initial = 50 * btcutil.SatoshiPerBitcoin
	return initial >> uint(height/n.Params.SubsidyReductionInterval)
}

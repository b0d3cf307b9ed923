// Package auxwork has the messages of merged mining: the work of other chains on its way to jobmaker, and the shares
// that solve it on their way to blkmaker.
//
// They are btcpool's, with optional keys of our own that its readers ignore. A message names a chain and not how to log
// in to its node, unless an installation still has readers that cannot look the name up.
package auxwork

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/btcsuite/btcd/chainhash/v2"

	"btcpool/internal/auxpow"
	"btcpool/internal/bitcoin"
)

// ErrMessage says that a message is not what its topic is for.
var ErrMessage = errors.New("not a message of merged mining")

// MaxChains is how many chains one message may have.
const MaxChains = 64

const maxMessage = 1 << 20 // bytes

// Aux is the work of the AuxPoW chains that one commitment in the coinbase covers.
type Aux struct {
	CreatedAt   uint32         // unix seconds
	Hash        chainhash.Hash // what the coinbase commits to: root of the tree of chains, and for a single one its block
	Height      int32          // sum of all chains': it grows with every block
	MerkleSize  uint32         // leaves of the tree, a power of two
	MerkleNonce uint32
	ChainID     int32  // the first chain's
	Bits        uint32 // compact form of the easiest target
	RPCAddr     string // the node of a single chain: its name for blkmaker, or its address
	RPCUserPass string // user:password for an address, else empty

	Chains []auxpow.Chain // what Hash stands for; none in a message of btcpool, whose RPCAddr knows
}

// Tree returns what the coinbase commits to.
func (a *Aux) Tree() auxpow.Tree {
	return auxpow.Tree{Root: a.Hash, Size: a.MerkleSize, Nonce: a.MerkleNonce}
}

// The JSON, keys in btcpool's order. Pointers tell the keys a reader cannot do without.
type (
	auxJSON struct {
		CreatedAt   *uint32     `json:"created_at_ts"`
		Hash        *hashText   `json:"hash"`
		Height      *int32      `json:"height"`
		MerkleSize  uint32      `json:"merkle_size"`
		MerkleNonce int64       `json:"merkle_nonce"`
		ChainID     *int32      `json:"chainid"`
		Bits        *bitsText   `json:"bits"`
		RPCAddr     string      `json:"rpc_addr"`
		RPCUserPass string      `json:"rpc_userpass"`
		Chains      []chainJSON `json:"chains,omitempty"`
	}
	chainJSON struct {
		Name   string     `json:"name"`
		ID     *int32     `json:"chainid"`
		Hash   *hashText  `json:"hash"`
		Height *int32     `json:"height"`
		Bits   *bitsText  `json:"bits"`
		Index  uint32     `json:"index"`
		Branch []hashText `json:"branch"`
	}
)

// AppendTo appends a as a message of the aux work topic.
func (a *Aux) AppendTo(dst []byte) []byte {
	return appendJSON(dst, auxJSON{
		CreatedAt:   &a.CreatedAt,
		Hash:        (*hashText)(&a.Hash),
		Height:      &a.Height,
		MerkleSize:  a.MerkleSize,
		MerkleNonce: int64(int32(a.MerkleNonce)),
		ChainID:     &a.ChainID,
		Bits:        (*bitsText)(&a.Bits),
		RPCAddr:     a.RPCAddr,
		RPCUserPass: a.RPCUserPass,
		Chains:      chainsToJSON(a.Chains),
	})
}

// ParseAux reads a message of the aux work topic. Chains that do not lead to its hash are an error.
func ParseAux(src []byte) (Aux, error) {
	in := auxJSON{MerkleSize: 1}
	if err := parseJSON(src, &in); err != nil {
		return Aux{}, err
	}
	if in.CreatedAt == nil || in.Hash == nil || in.Height == nil || in.ChainID == nil || in.Bits == nil {
		return Aux{}, fmt.Errorf("%w: created_at_ts, hash, height, chainid or bits is missing", ErrMessage)
	}
	if n := in.MerkleSize; n == 0 || n&(n-1) != 0 || n > 1<<auxpow.MaxHeight {
		return Aux{}, fmt.Errorf("%w: merkle_size %d is not a power of two up to 2^%d", ErrMessage, n, auxpow.MaxHeight)
	}
	if in.MerkleNonce < math.MinInt32 || in.MerkleNonce > math.MaxUint32 {
		return Aux{}, fmt.Errorf("%w: merkle_nonce %d has more than 32 bits", ErrMessage, in.MerkleNonce)
	}
	a := Aux{
		CreatedAt:   *in.CreatedAt,
		Hash:        chainhash.Hash(*in.Hash),
		Height:      *in.Height,
		MerkleSize:  in.MerkleSize,
		MerkleNonce: uint32(in.MerkleNonce),
		ChainID:     *in.ChainID,
		Bits:        uint32(*in.Bits),
		RPCAddr:     in.RPCAddr,
		RPCUserPass: in.RPCUserPass,
	}
	var err error
	if a.Chains, err = chainsFromJSON(in.Chains); err != nil {
		return Aux{}, err
	}
	for _, c := range a.Chains {
		if err := c.Check(a.Tree()); err != nil {
			return Aux{}, fmt.Errorf("%w: chain %q: %w", ErrMessage, c.Name, err)
		}
	}
	return a, nil
}

// AppendChains appends chains as a JSON array, for other messages to carry.
func AppendChains(dst []byte, chains []auxpow.Chain) []byte {
	return appendJSON(dst, chainsToJSON(chains))
}

// ParseChains reads what AppendChains wrote. It knows no root to check them against.
func ParseChains(src []byte) ([]auxpow.Chain, error) {
	var in []chainJSON
	if err := parseJSON(src, &in); err != nil {
		return nil, err
	}
	return chainsFromJSON(in)
}

func chainsToJSON(chains []auxpow.Chain) []chainJSON {
	out := make([]chainJSON, len(chains))
	for i := range chains {
		c := &chains[i]
		branch := make([]hashText, len(c.Branch))
		for j, hash := range c.Branch {
			branch[j] = hashText(hash)
		}
		out[i] = chainJSON{c.Name, &c.ID, (*hashText)(&c.Hash), &c.Height, (*bitsText)(&c.Bits), c.Index, branch}
	}
	return out
}

func chainsFromJSON(in []chainJSON) ([]auxpow.Chain, error) {
	if len(in) > MaxChains {
		return nil, fmt.Errorf("%w: %d chains exceed the limit of %d", ErrMessage, len(in), MaxChains)
	}
	var chains []auxpow.Chain
	for _, c := range in {
		if c.Name == "" || c.ID == nil || c.Hash == nil || c.Height == nil || c.Bits == nil {
			return nil, fmt.Errorf("%w: name, chainid, hash, height or bits of a chain is missing", ErrMessage)
		}
		if len(c.Branch) > auxpow.MaxHeight || c.Index>>len(c.Branch) != 0 {
			return nil, fmt.Errorf("%w: chain %q: leaf %d with a branch of %d", ErrMessage, c.Name, c.Index, len(c.Branch))
		}
		var branch []chainhash.Hash
		for _, hash := range c.Branch {
			branch = append(branch, chainhash.Hash(hash))
		}
		chains = append(chains, auxpow.Chain{
			Name:   c.Name,
			ID:     *c.ID,
			Hash:   chainhash.Hash(*c.Hash),
			Height: *c.Height,
			Bits:   uint32(*c.Bits),
			Index:  c.Index,
			Branch: branch,
		})
	}
	return chains, nil
}

// AuxSolved is a share that solves the work of at least one AuxPoW chain.
type AuxSolved struct {
	JobID       uint64
	Hash        chainhash.Hash // Aux.Hash of the job
	Header      [80]byte       // the parent block's
	Coinbase    []byte         // the parent block's, serialized without witness
	RPCAddr     string         // Aux.RPCAddr of the job
	RPCUserPass string         // Aux.RPCUserPass of the job
}

type auxSolvedJSON struct {
	JobID       *uint64   `json:"job_id"`
	Hash        *hashText `json:"aux_block_hash"`
	Header      hexText   `json:"block_header"`
	Coinbase    hexText   `json:"coinbase_tx"`
	RPCAddr     string    `json:"rpc_addr"`
	RPCUserPass string    `json:"rpc_userpass"`
}

// AppendTo appends s as a message of the topic of solved aux shares.
func (s *AuxSolved) AppendTo(dst []byte) []byte {
	return appendJSON(dst, auxSolvedJSON{&s.JobID, (*hashText)(&s.Hash), s.Header[:], s.Coinbase, s.RPCAddr, s.RPCUserPass})
}

// ParseAuxSolved reads a message of the topic of solved aux shares.
func ParseAuxSolved(src []byte) (AuxSolved, error) {
	var in auxSolvedJSON
	if err := parseJSON(src, &in); err != nil {
		return AuxSolved{}, err
	}
	if in.JobID == nil || in.Hash == nil {
		return AuxSolved{}, fmt.Errorf("%w: job_id or aux_block_hash is missing", ErrMessage)
	}
	if len(in.Header) != len(AuxSolved{}.Header) || len(in.Coinbase) == 0 {
		return AuxSolved{}, fmt.Errorf("%w: block_header of %d bytes, coinbase_tx of %d", ErrMessage, len(in.Header), len(in.Coinbase))
	}
	return AuxSolved{
		JobID:       *in.JobID,
		Hash:        chainhash.Hash(*in.Hash),
		Header:      [80]byte(in.Header),
		Coinbase:    in.Coinbase,
		RPCAddr:     in.RPCAddr,
		RPCUserPass: in.RPCUserPass,
	}, nil
}

func appendJSON(dst []byte, v any) []byte {
	buf := bytes.NewBuffer(dst)
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false) // btcpool does not undo \u escapes
	_ = enc.Encode(v)        // numbers and strings always encode
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n"))
}

func parseJSON(src []byte, v any) error {
	if len(src) > maxMessage {
		return fmt.Errorf("%w: %d bytes exceed the limit of %d", ErrMessage, len(src), maxMessage)
	}
	if err := json.Unmarshal(src, v); err != nil {
		return fmt.Errorf("%w: %w", ErrMessage, err)
	}
	return nil
}

// hashText is a hash in display order.
type hashText chainhash.Hash

func (h hashText) MarshalText() ([]byte, error) {
	return []byte(chainhash.Hash(h).String()), nil
}

func (h *hashText) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err != nil || len(b) != len(h) {
		return fmt.Errorf("%.80q is not a hash of 64 hex digits", text)
	}
	slices.Reverse(b)
	*h = hashText(b)
	return nil
}

// bitsText is a valid compact target in hex.
type bitsText uint32

func (b bitsText) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%08x", uint32(b)), nil }

func (b *bitsText) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 16, 32)
	if err != nil {
		return fmt.Errorf("%.80q is not a compact target in hex", text)
	}
	*b = bitsText(n)
	_, err = bitcoin.TargetFromBits(uint32(n))
	return err
}

type hexText []byte

func (h hexText) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h), nil }

func (h *hexText) UnmarshalText(text []byte) (err error) {
	*h, err = hex.AppendDecode(nil, text)
	return err
}

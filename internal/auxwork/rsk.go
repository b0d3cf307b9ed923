package auxwork

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"

	"btcpool/internal/bitcoin"
	"btcpool/internal/share"
)

// RSKHash is 32 bytes in the order RSK writes them, which is also the order in the coinbase. Its text is 0x and 64 hex
// digits.
type RSKHash [32]byte

func (h RSKHash) String() string { return "0x" + hex.EncodeToString(h[:]) }

// MarshalText returns the text of h.
func (h RSKHash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads the text of a hash, of which "0x" may be missing.
func (h *RSKHash) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(bytes.TrimPrefix(text, []byte("0x"))))
	if err != nil || len(b) != len(h) {
		return fmt.Errorf("%.80q is not 0x and 64 hex digits", text)
	}
	*h = RSKHash(b)
	return nil
}

// Target returns h as the largest hash that solves RSK's block.
func (h RSKHash) Target() bitcoin.Target {
	slices.Reverse(h[:])
	return bitcoin.Target(h)
}

// MaxRSKText is how much of FeesForMiner, RPCAddr and RPCUserPass a solved RSK share carries, bytes each.
const MaxRSKText = 79

// RSK is the work of RSK.
type RSK struct {
	CreatedAt       uint32 // unix seconds
	RPCAddr         string // RSK's name for blkmaker, or the address of its node
	RPCUserPass     string // user:password for an address, else empty
	Target          RSKHash
	ParentBlockHash RSKHash
	BlockHash       RSKHash // for merged mining
	FeesForMiner    string  // as the node gave it
	Notify          bool    // the node asks for the miners to be told
}

type rskJSON struct {
	CreatedAt       *uint32  `json:"created_at_ts"`
	ChainType       string   `json:"chainType"`
	RPCAddr         string   `json:"rskdRpcAddress"`
	RPCUserPass     string   `json:"rskdRpcUserPwd"`
	Target          *RSKHash `json:"target"`
	ParentBlockHash *RSKHash `json:"parentBlockHash"`
	BlockHash       *RSKHash `json:"blockHashForMergedMining"`
	FeesForMiner    *string  `json:"feesPaidToMiner"`
	Notify          string   `json:"notify"` // "true" or "false"
}

// AppendTo appends r as a message of the RSK work topic.
func (r *RSK) AppendTo(dst []byte) []byte {
	return appendJSON(dst, rskJSON{
		CreatedAt:       &r.CreatedAt,
		ChainType:       "RSK",
		RPCAddr:         r.RPCAddr,
		RPCUserPass:     r.RPCUserPass,
		Target:          &r.Target,
		ParentBlockHash: &r.ParentBlockHash,
		BlockHash:       &r.BlockHash,
		FeesForMiner:    &r.FeesForMiner,
		Notify:          strconv.FormatBool(r.Notify),
	})
}

// ParseRSK reads a message of the RSK work topic.
func ParseRSK(src []byte) (RSK, error) {
	var in rskJSON
	if err := parseJSON(src, &in); err != nil {
		return RSK{}, err
	}
	if in.CreatedAt == nil || in.Target == nil || in.ParentBlockHash == nil || in.BlockHash == nil || in.FeesForMiner == nil {
		return RSK{}, fmt.Errorf("%w: created_at_ts, target, parentBlockHash, blockHashForMergedMining or feesPaidToMiner is missing", ErrMessage)
	}
	if in.Notify != "true" && in.Notify != "false" {
		return RSK{}, fmt.Errorf("%w: notify is %.30q, neither true nor false", ErrMessage, in.Notify)
	}
	return RSK{
		CreatedAt:       *in.CreatedAt,
		RPCAddr:         in.RPCAddr,
		RPCUserPass:     in.RPCUserPass,
		Target:          *in.Target,
		ParentBlockHash: *in.ParentBlockHash,
		BlockHash:       *in.BlockHash,
		FeesForMiner:    *in.FeesForMiner,
		Notify:          in.Notify == "true",
	}, nil
}

// RSKSolved is a share that solves RSK's work.
type RSKSolved struct {
	share.Solved
	FeesForMiner string // these three are cut to MaxRSKText bytes on the wire
	RPCAddr      string // RSK.RPCAddr of the job
	RPCUserPass  string // RSK.RPCUserPass of the job
}

const rskTexts = 3 * (MaxRSKText + 1)

// AppendTo appends s as a message of the topic of solved RSK shares.
func (s *RSKSolved) AppendTo(dst []byte) []byte {
	head := s.Solved
	head.Coinbase = nil
	dst = head.AppendTo(dst)
	for _, text := range []string{s.FeesForMiner, s.RPCAddr, s.RPCUserPass} {
		var field [MaxRSKText + 1]byte
		copy(field[:MaxRSKText], text)
		dst = append(dst, field[:]...)
	}
	return append(dst, s.Coinbase...)
}

// ParseRSKSolved reads a message of the topic of solved RSK shares. The result shares no memory with src.
func ParseRSKSolved(src []byte) (RSKSolved, error) {
	solved, err := share.ParseSolved(src)
	if err != nil {
		return RSKSolved{}, fmt.Errorf("%w: %w", ErrMessage, err)
	}
	if len(solved.Coinbase) <= rskTexts {
		return RSKSolved{}, fmt.Errorf("%w: solved RSK share of %d bytes", ErrMessage, len(src))
	}
	var texts [3]string
	for i := range texts {
		text, _, ok := bytes.Cut(solved.Coinbase[i*(MaxRSKText+1):][:MaxRSKText+1], []byte{0})
		if !ok {
			return RSKSolved{}, fmt.Errorf("%w: a text does not end", ErrMessage)
		}
		texts[i] = string(text)
	}
	solved.Coinbase = solved.Coinbase[rskTexts:]
	return RSKSolved{solved, texts[0], texts[1], texts[2]}, nil
}

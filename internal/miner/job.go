package miner

import (
	"encoding/binary"
	"encoding/hex"
	"math/big"
	"math/bits"

	"btcpool/internal/bitcoin"
	"btcpool/internal/stratum"
)

// Job is a pool's job together with what the session had agreed on when it came: a later mining.set_difficulty or
// mining.set_extranonce is for the next job. Jobs are immutable.
type Job struct {
	*stratum.Job
	Extranonce1     []byte
	Extranonce2Size int
	Difficulty      float64
	Target          bitcoin.Target // the hash that Difficulty asks for
	VersionMask     uint32         // bits the miner may choose (BIP 310)
}

// Share is a solution of a job.
type Share struct {
	Extranonce1     string // hex; the session's, not submitted
	Extranonce2Size int    // bytes
	stratum.Submit         // Worker is set by Client
	Fault           Fault  // what was made wrong on purpose, NoFault otherwise
}

// Header returns the block header of a variation of the job. The version follows BIP 310: (job version AND NOT mask) OR
// (bits AND mask).
func (j *Job) Header(extranonce2 []byte, time, versionBits, nonce uint32) [headerSize]byte {
	coinbase := make([]byte, 0, len(j.Coinbase1)+len(j.Extranonce1)+len(extranonce2)+len(j.Coinbase2))
	coinbase = append(coinbase, j.Coinbase1...)
	coinbase = append(coinbase, j.Extranonce1...)
	coinbase = append(coinbase, extranonce2...)
	coinbase = append(coinbase, j.Coinbase2...)
	root := bitcoin.MerkleRoot(bitcoin.DoubleSHA256(coinbase), j.Branch)

	var h [headerSize]byte
	binary.LittleEndian.PutUint32(h[0:], j.Version&^j.VersionMask|versionBits&j.VersionMask)
	copy(h[4:], j.PrevHash[:])
	copy(h[36:], root[:])
	binary.LittleEndian.PutUint32(h[68:], time)
	binary.LittleEndian.PutUint32(h[72:], j.Bits)
	binary.LittleEndian.PutUint32(h[76:], nonce)
	return h
}

// maxTimeRoll bounds in seconds how far a share's time may run ahead of its job's; pools take 600 s and more.
const maxTimeRoll = 600

// variation spreads a counter over what a miner may vary beside the nonce. The extranonce2 runs fastest, then the
// version bits, then the time: no two counters give the same header until all three are used up.
func (j *Job) variation(counter uint64) (extranonce2 []byte, time, versionBits uint32) {
	extranonce2 = make([]byte, j.Extranonce2Size)
	rest := counter
	for i := len(extranonce2) - 1; i >= 0; i-- {
		extranonce2[i] = byte(rest)
		rest >>= 8
	}
	maskBits := bits.OnesCount32(j.VersionMask)
	// Adding the counter lets the version bits change from header to header; for each extranonce2 it only shifts the
	// order in which rest goes through them.
	versionBits = spread(uint32(counter+rest), j.VersionMask)
	return extranonce2, j.Time + uint32(rest>>maskBits%maxTimeRoll), versionBits
}

// spread puts the low bits of v where mask has ones.
func spread(v, mask uint32) uint32 {
	var out uint32
	for ; mask != 0; mask &= mask - 1 {
		out |= v & 1 << bits.TrailingZeros32(mask)
		v >>= 1
	}
	return out
}

func (j *Job) share(extranonce2 []byte, time, versionBits, nonce uint32) Share {
	s := Share{
		Extranonce1:     hex.EncodeToString(j.Extranonce1),
		Extranonce2Size: len(extranonce2),
		Submit:          stratum.Submit{JobID: j.ID, Time: time, Nonce: nonce, VersionBits: versionBits, Rolled: j.VersionMask != 0},
	}
	for _, b := range extranonce2 {
		s.ExtraNonce2 = s.ExtraNonce2<<8 | uint64(b)
	}
	return s
}

// TargetOf returns the target of any positive difficulty: floor(0xffff·2^208 / d), at most 2^256 - 1. Pools other than
// ours ask for difficulties that are no power of two.
func TargetOf(difficulty float64) bitcoin.Target {
	d := new(big.Rat).SetFloat64(difficulty)
	t := new(big.Int).Lsh(big.NewInt(0xffff), 208)
	t.Mul(t, d.Denom()).Quo(t, d.Num())

	var target bitcoin.Target
	if t.BitLen() > len(target)*8 {
		t.Sub(t.Lsh(big.NewInt(1), uint(len(target)*8)), big.NewInt(1))
	}
	var big32 [len(target)]byte
	t.FillBytes(big32[:])
	for i, b := range big32 {
		target[len(target)-1-i] = b
	}
	return target
}

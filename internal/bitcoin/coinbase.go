package bitcoin

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
)

// The length that consensus allows for the input script of a coinbase, bytes.
const (
	minCoinbaseScript = 2
	maxCoinbaseScript = 100
)

// Coinbase describes the first transaction of a block. Its input script holds, in this order: the height (BIP 34), the
// time, Aux, Text, MergedMining, the extranonce.
type Coinbase struct {
	Height         int32
	Time           int64  // unix seconds; makes two jobs on the same transactions differ
	Aux            []byte // the values of a template's coinbaseaux (BIP 22)
	Text           string
	MergedMining   []byte // what AuxPoWCommitment returned, or none
	Outputs        []wire.TxOut
	ExtranonceSize int // bytes left for miners

	// LockToHeight sets nLockTime to Height-1 and nSequence so that it counts, as BIP 54 asks of future blocks. Blocks
	// of today may have it.
	LockToHeight bool
}

// Build returns the transaction without witness, cut at the extranonce: what goes before and what goes after it. A
// script that consensus would refuse, and outputs that are none, are errors.
func (c Coinbase) Build() (coinbase1, coinbase2 []byte, err error) {
	if c.Height < 0 || c.Time < 0 || c.ExtranonceSize < 0 {
		return nil, nil, fmt.Errorf("coinbase: negative height %d, time %d or extranonce size %d",
			c.Height, c.Time, c.ExtranonceSize)
	}
	if err := c.checkOutputs(); err != nil {
		return nil, nil, err
	}
	script, err := txscript.NewScriptBuilder().
		AddInt64(int64(c.Height)).AddInt64(c.Time).
		AddOps(c.Aux).AddOps([]byte(c.Text)).AddOps(c.MergedMining).Script()
	if err != nil {
		return nil, nil, fmt.Errorf("coinbase: %w", err)
	}
	size := len(script) + c.ExtranonceSize
	if size < minCoinbaseScript || size > maxCoinbaseScript {
		return nil, nil, fmt.Errorf("coinbase: input script of %d bytes, allowed are %d to %d; "+
			"text has %d, coinbaseaux %d, merged mining %d, extranonce %d", size, minCoinbaseScript, maxCoinbaseScript,
			len(c.Text), len(c.Aux), len(c.MergedMining), c.ExtranonceSize)
	}
	if len(c.MergedMining) > 0 && bytes.Index(script, []byte(auxPoWMagic)) != len(script)-len(c.MergedMining) {
		return nil, nil, errors.New("coinbase: text or coinbaseaux holds the mark of merged mining, which may be there only once")
	}
	sequence, lockTime := wire.MaxTxInSequenceNum, uint32(0)
	if c.LockToHeight && c.Height > 0 {
		sequence, lockTime = wire.MaxTxInSequenceNum-1, uint32(c.Height)-1
	}

	const version = 2
	coinbase1 = binary.LittleEndian.AppendUint32(coinbase1, version)
	coinbase1 = append(coinbase1, 1)                                    // inputs
	coinbase1 = append(coinbase1, make([]byte, 32)...)                  // no previous transaction
	coinbase1 = binary.LittleEndian.AppendUint32(coinbase1, 0xffffffff) // nor output of it
	coinbase1 = append(coinbase1, byte(size))
	coinbase1 = append(coinbase1, script...)

	tail := bytes.NewBuffer(binary.LittleEndian.AppendUint32(nil, sequence))
	_ = wire.WriteVarInt(tail, 0, uint64(len(c.Outputs))) // a buffer takes everything
	for i := range c.Outputs {
		_ = wire.WriteTxOut(tail, 0, version, &c.Outputs[i])
	}
	return coinbase1, binary.LittleEndian.AppendUint32(tail.Bytes(), lockTime), nil
}

// scriptAt is where a serialized coinbase has the length of its script: behind version, number of inputs and the null
// outpoint.
const scriptAt = 4 + 1 + 36

var errNoHeight = errors.New("the coinbase does not begin with a height")

// CoinbaseHeight returns the height that BIP 34 wants at the start of the script, from the first part of a coinbase:
// what Build has put there, unless that is 0.
func CoinbaseHeight(coinbase1 []byte) (int32, error) {
	if len(coinbase1) < scriptAt+2 || coinbase1[4] != 1 {
		return 0, errNoHeight
	}
	script := coinbase1[scriptAt+1:] // its length is at most maxCoinbaseScript, one byte
	op, rest := script[0], script[1:]
	switch {
	case op >= txscript.OP_1 && op <= txscript.OP_16:
		return int32(op-txscript.OP_1) + 1, nil
	case op < 1 || op > 4 || len(rest) < int(op):
		return 0, errNoHeight
	}
	var number [4]byte
	copy(number[:], rest[:op])
	height := int32(binary.LittleEndian.Uint32(number[:]))
	if height < 0 || rest[op-1]&0x80 != 0 {
		return 0, fmt.Errorf("%w: it is negative", errNoHeight)
	}
	return height, nil
}

// CoinbaseOutputs returns the outputs of a coinbase without witness that comes in two parts, between which miners have
// extranonceSize bytes. What they choose must change nothing but the input script, and nothing may be left over.
func CoinbaseOutputs(coinbase1 []byte, extranonceSize int, coinbase2 []byte) ([]wire.TxOut, error) {
	if len(coinbase1) <= scriptAt || coinbase1[4] != 1 {
		return nil, errors.New("the first part of the coinbase is not one with one input")
	}
	rest := int(coinbase1[scriptAt]) - (len(coinbase1) - scriptAt - 1) - extranonceSize // of the script
	if coinbase1[scriptAt] > maxCoinbaseScript || rest < 0 {
		return nil, errors.New("the extranonce is not within the input script")
	}
	const sequence, lockTime = 4, 4
	if len(coinbase2) < rest+sequence {
		return nil, errCutCoinbase
	}
	r := bytes.NewReader(coinbase2[rest+sequence:])
	count, err := wire.ReadVarInt(r, 0)
	const least = 8 + 1 // bytes of an output
	if err != nil || count > uint64(r.Len()/least) {
		return nil, errCutCoinbase
	}
	outputs := make([]wire.TxOut, 0, count)
	for range count {
		var value uint64
		err := binary.Read(r, binary.LittleEndian, &value)
		size, sizeErr := wire.ReadVarInt(r, 0)
		if err != nil || sizeErr != nil || size > uint64(r.Len()) {
			return nil, errCutCoinbase
		}
		script := make([]byte, size)
		_, _ = r.Read(script) // is there
		outputs = append(outputs, wire.TxOut{Value: int64(value), PkScript: script})
	}
	if r.Len() != lockTime {
		return nil, fmt.Errorf("%d bytes behind the outputs of the coinbase, want %d", r.Len(), lockTime)
	}
	return outputs, Coinbase{Outputs: outputs}.checkOutputs()
}

var errCutCoinbase = errors.New("the outputs of the coinbase are cut off")

func (c Coinbase) checkOutputs() error {
	if len(c.Outputs) == 0 {
		return errors.New("coinbase: no outputs")
	}
	var sum int64
	for i, out := range c.Outputs {
		if out.Value < 0 || out.Value > btcutil.MaxSatoshi-sum {
			return fmt.Errorf("coinbase: output %d of %d satoshi is out of range", i, out.Value)
		}
		sum += out.Value
	}
	return nil
}

package auxpowtest

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
)

// ValidateRSK judges the parameters of mnr_submitBitcoinBlockPartialMerkle for a block ("0x" and hex) as RSK's node
// does: hash, header and coinbase of the parent, the coinbase's id and its branch, and the number of transactions.
func ValidateRSK(params []string, hash string, target *big.Int) error {
	header, headerErr := hex.DecodeString(params[1])
	coinbase, coinbaseErr := hex.DecodeString(params[2])
	want, hashErr := hex.DecodeString(strings.TrimPrefix(hash, "0x"))
	transactions, countErr := strconv.ParseUint(params[4], 16, 32)
	if err := errors.Join(headerErr, coinbaseErr, hashErr, countErr); err != nil {
		return err
	}
	if len(header) != 80 {
		return fmt.Errorf("header of %d bytes", len(header))
	}
	work := sha256d(header)
	slices.Reverse(work[:])
	if params[0] != hex.EncodeToString(work[:]) {
		return errors.New("hash is not the header's")
	}
	if new(big.Int).SetBytes(work[:]).Cmp(target) > 0 {
		return errors.New("the parent's hash is above the target")
	}
	var branch [][32]byte
	for text := range strings.FieldsSeq(params[3]) {
		b, err := hex.DecodeString(text)
		if err != nil || len(b) != 32 {
			return fmt.Errorf("%q is not a hash", text)
		}
		branch = append(branch, [32]byte(b))
	}
	if len(branch) == 0 || branch[0] != sha256d(coinbase) {
		return errors.New("hashes do not start with the coinbase's")
	}
	if follow(branch[0], branch[1:], 0) != [32]byte(header[36:68]) {
		return errors.New("coinbase is not in the parent's merkle tree")
	}
	if levels := len(branch) - 1; transactions == 0 || transactions > 1<<levels || levels > 0 && transactions <= 1<<(levels-1) {
		return fmt.Errorf("%d transactions with a branch of %d", transactions, levels)
	}
	mark := []byte("RSKBLOCK:")
	at := bytes.LastIndex(coinbase, mark)
	if at < 0 || !bytes.HasPrefix(coinbase[at+len(mark):], want) {
		return errors.New("the block is not behind the last mark in the coinbase")
	}
	if behind := len(coinbase) - at - len(mark) - len(want); behind > 128 {
		return fmt.Errorf("%d bytes behind the block in the coinbase, 128 are allowed", behind)
	}
	return nil
}

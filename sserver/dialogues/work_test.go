package dialogues_test

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
)

// work is a job as a miner's firmware reads it: nothing here is shared with the pool's code.
type work struct {
	id, prev, coinbase1, coinbase2 string
	branch                         []string
	version, bits, time            string
	clean                          bool

	extraNonce1 string
	difficulty  float64 // of the last mining.set_difficulty before it
}

const extraNonce2Size = 8

// parse reads the parameters of mining.notify.
func (w *work) parse(text []byte) error {
	var params []json.RawMessage
	if err := json.Unmarshal(text, &params); err != nil {
		return err
	}
	fields := []any{&w.id, &w.prev, &w.coinbase1, &w.coinbase2, &w.branch, &w.version, &w.bits, &w.time, &w.clean}
	if len(params) != len(fields) {
		return fmt.Errorf("mining.notify has %d parameters", len(params))
	}
	for i, field := range fields {
		if err := json.Unmarshal(params[i], field); err != nil {
			return err
		}
	}
	if w.difficulty == 0 {
		return fmt.Errorf("job %s came before a difficulty", w.id)
	}
	for _, text := range []string{w.version, w.bits, w.time} {
		if len(text) != 8 {
			return fmt.Errorf("%q in mining.notify: want 8 digits", text)
		}
	}
	return nil
}

// coinbaseSize is that of the transaction, in bytes, without its witness.
func (w *work) coinbaseSize() int {
	return (len(w.coinbase1)+len(w.extraNonce1)+len(w.coinbase2))/2 + extraNonce2Size
}

// mine finds a share whose difficulty is from low to below high. Bits, as hex, are set in the version; the time is
// later than the job's by some seconds.
func (w *work) mine(extraNonce2, bits string, later int, low, high float64) (time, nonce uint32, err error) {
	header, err := w.header(extraNonce2)
	if err != nil {
		return 0, 0, err
	}
	if bits != "" {
		set, err := strconv.ParseUint(bits, 16, 32)
		if err != nil {
			return 0, 0, err
		}
		version := header[:4]
		binary.LittleEndian.PutUint32(version, binary.LittleEndian.Uint32(version)|uint32(set))
	}
	ntime := header[68:72]
	time = binary.LittleEndian.Uint32(ntime) + uint32(later)
	binary.LittleEndian.PutUint32(ntime, time)
	for ; nonce < 1<<26; nonce++ {
		binary.LittleEndian.PutUint32(header[76:], nonce)
		hash := doubleSHA256(header)
		top := binary.LittleEndian.Uint64(hash[24:])   // of the number that the hash is
		d := float64(0xffff<<(208-192)) / float64(top) // difficulty 1: 0xffff << 208
		if low <= d && d < high {
			return time, nonce, nil
		}
	}
	return 0, 0, fmt.Errorf("no share of difficulty %g to %g", low, high)
}

// header returns the block header with the job's time and without a nonce.
func (w *work) header(extraNonce2 string) ([]byte, error) {
	coinbase, err := hex.DecodeString(w.coinbase1 + w.extraNonce1 + extraNonce2 + w.coinbase2)
	if err != nil {
		return nil, err
	}
	root := doubleSHA256(coinbase)
	for _, sibling := range w.branch {
		b, err := hex.DecodeString(sibling)
		if err != nil {
			return nil, err
		}
		root = doubleSHA256(append(root[:], b...))
	}
	header, err := hex.DecodeString(w.version + w.prev + hex.EncodeToString(root[:]) + w.time + w.bits + "00000000")
	if err != nil || len(header) != 80 {
		return nil, fmt.Errorf("job %s makes a header of %d bytes: %w", w.id, len(header), err)
	}
	// All but the root comes as big-endian words.
	for i := 0; i < len(header); i += 4 {
		if i < 36 || i >= 68 {
			binary.LittleEndian.PutUint32(header[i:], binary.BigEndian.Uint32(header[i:]))
		}
	}
	return header, nil
}

func doubleSHA256(b []byte) [32]byte {
	once := sha256.Sum256(b)
	return sha256.Sum256(once[:])
}

//go:build integration

package load

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strconv"

	"github.com/btcsuite/btcd/chainhash/v2"

	"btcpool/internal/bitcoin"
	"btcpool/internal/job"
	"btcpool/internal/miner"
)

// work is what a mining.notify says besides the job's id: the same for all.
type work struct {
	text []byte
	time []byte // hex
	miner.Notify
}

// find returns the next nonce that nobody has tried, and that the miner's difficulty takes when
// hashes count.
func (m *miners) find(c *connection) uint32 {
	if !m.hashing || c.difficulty == bitcoin.MinDifficulty {
		m.nonce++
		return m.nonce - 1
	}
	if !c.fresh {
		j := miner.Job{Notify: &c.work.Notify, Extranonce1: c.extranonce1[:]}
		c.header = j.Header(make([]byte, job.Extranonce2Size), c.work.Time, 0, 0)
		c.fresh = true
	}
	for target := c.difficulty.Target(); ; {
		nonce := m.nonce
		m.nonce++
		binary.LittleEndian.PutUint32(c.header[76:], nonce)
		if hash := chainhash.Hash(bitcoin.DoubleSHA256(c.header[:])); target.Met(&hash) {
			return nonce
		}
	}
}

func hashes(d bitcoin.Difficulty) float64 { return d.Hashes().Float() }

// parseWork reads a mining.notify.
func parseWork(line []byte) (*work, error) {
	var message struct{ Params []json.RawMessage }
	if err := json.Unmarshal(line, &message); err != nil || len(message.Params) != 9 {
		return nil, errLine
	}
	var texts [8]string // job id, previous block, coinbase 1 and 2, (branch), version, bits, time
	for i := range texts {
		if i != 4 {
			if err := json.Unmarshal(message.Params[i], &texts[i]); err != nil {
				return nil, err
			}
		}
	}
	var branch []string
	if err := json.Unmarshal(message.Params[4], &branch); err != nil {
		return nil, err
	}
	w := &work{time: []byte(texts[7])}
	var err error
	decode := func(text string) []byte {
		b, bad := hex.DecodeString(text)
		err = errors.Join(err, bad)
		return b
	}
	number := func(text string) uint32 {
		n, bad := strconv.ParseUint(text, 16, 32)
		err = errors.Join(err, bad)
		return uint32(n)
	}
	w.Coinbase1, w.Coinbase2 = decode(texts[2]), decode(texts[3])
	for _, text := range branch {
		var hash chainhash.Hash
		copy(hash[:], decode(text))
		w.Branch = append(w.Branch, hash)
	}
	prev := decode(texts[1])
	for word := 0; word+4 <= len(prev) && word < len(w.PrevHash); word += 4 {
		binary.LittleEndian.PutUint32(w.PrevHash[word:], binary.BigEndian.Uint32(prev[word:]))
	}
	w.Version, w.Bits, w.Time = number(texts[5]), number(texts[6]), number(texts[7])
	return w, err
}

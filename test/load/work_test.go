//go:build integration

package load

import (
	"encoding/binary"
	"fmt"

	"github.com/btcsuite/btcd/chainhash/v2"

	"btcpool/internal/bitcoin"
	"btcpool/internal/job"
	"btcpool/internal/miner"
	"btcpool/internal/stratum"
)

// work is what a mining.notify says besides the job's id: the same for all.
type work struct {
	text []byte
	time []byte // hex
	stratum.Job
}

// find returns the next nonce that nobody has tried, and that the miner's difficulty takes when hashes count.
func (m *miners) find(c *connection) uint32 {
	if !m.hashing || c.difficulty == bitcoin.MinDifficulty {
		m.nonce++
		return m.nonce - 1
	}
	if !c.fresh {
		j := miner.Job{Job: &c.work.Job, Extranonce1: c.extranonce1[:]}
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
	message, err := stratum.ParseMessage(line)
	if err != nil {
		return nil, err
	}
	w := new(work)
	if err := w.Parse(message.Params); err != nil {
		return nil, err
	}
	w.time = fmt.Appendf(nil, "%08x", w.Time)
	return w, nil
}

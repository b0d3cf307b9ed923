package stratum

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"

	"github.com/btcsuite/btcd/chainhash/v2"

	"btcpool/internal/job"
	"btcpool/internal/jsonscan"
)

// Notify is mining.notify of one job and coinbase, rendered once for all
// miners: only the job id, the time and the clean flag differ between them. It is
// safe for concurrent use.
type Notify struct {
	rest []byte // from behind the job id to before the time
	time uint32
}

// NewNotify renders the notification of j with these parts of the coinbase.
func NewNotify(j *job.StratumJob, coinbase1, coinbase2 []byte) Notify {
	const perHash = len(`"",`) + 2*chainhash.HashSize
	size := len(`","","","",[],"","","",`) + 2*chainhash.HashSize + 2*len(coinbase1) + 2*len(coinbase2) +
		perHash*len(j.MerkleBranch) + 3*8
	dst := make([]byte, 0, size)
	dst = append(dst, `","`...)
	dst = j.AppendPrevHashBE(dst)
	dst = append(dst, `","`...)
	dst = hex.AppendEncode(dst, coinbase1)
	dst = append(dst, `","`...)
	dst = hex.AppendEncode(dst, coinbase2)
	dst = append(dst, `",[`...)
	for i := range j.MerkleBranch {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, '"')
		dst = hex.AppendEncode(dst, j.MerkleBranch[i][:])
		dst = append(dst, '"')
	}
	dst = append(dst, `],"`...)
	dst = appendHex32(dst, uint32(j.Version))
	dst = append(dst, `","`...)
	dst = appendHex32(dst, j.Bits)
	dst = append(dst, `","`...)
	return Notify{dst, j.Time}
}

// AppendTo appends the notification that gives the job to one miner, who knows it as jobID, with a time that is so many
// seconds later than the job's. A clean job makes the ones before worthless.
func (n Notify) AppendTo(dst []byte, jobID uint64, later uint32, clean bool) []byte {
	dst = append(dst, `{"id":null,"method":"mining.notify","params":["`...)
	dst = strconv.AppendUint(dst, jobID, 10)
	dst = append(dst, n.rest...)
	dst = appendHex32(dst, n.time+later)
	dst = append(dst, `",`...)
	dst = strconv.AppendBool(dst, clean)
	return append(dst, "]}\n"...)
}

// What is taken of a pool's job.
const (
	maxJobID  = 256 // bytes
	maxBranch = 32  // hashes
)

// Job is the work of one mining.notify as a miner hears it.
type Job struct {
	ID                   []byte // as written, without its quotes: it is sent back like that
	PrevHash             chainhash.Hash
	Coinbase1, Coinbase2 []byte
	Branch               []chainhash.Hash
	Version, Bits, Time  uint32
	Clean                bool // the jobs before are worthless
}

// Parse reads the parameters of mining.notify. It reuses what j holds, keeps nothing of params, and leaves j of no use
// when it returns an error.
func (j *Job) Parse(params []byte) error {
	var list [9]jsonscan.Value
	if n := elements(params, list[:]); n < len(list) {
		return fmt.Errorf("%d parameters, want %d", n, len(list))
	}
	id := unquoted(list[0])
	if id == nil || len(id) > maxJobID {
		return fmt.Errorf("job id is not a string of at most %d bytes", maxJobID)
	}
	j.ID = append(j.ID[:0], id...)
	var err error
	if j.PrevHash, err = parseHash(list[1]); err != nil {
		return fmt.Errorf("previous hash: %w", err)
	}
	for i := 0; i < len(j.PrevHash); i += 4 { // every 4 bytes come in reverse
		four := j.PrevHash[i : i+4]
		binary.LittleEndian.PutUint32(four, binary.BigEndian.Uint32(four))
	}
	if j.Coinbase1, err = list[2].AppendHex(j.Coinbase1[:0]); err != nil {
		return fmt.Errorf("coinbase 1: %w", err)
	}
	if j.Coinbase2, err = list[3].AppendHex(j.Coinbase2[:0]); err != nil {
		return fmt.Errorf("coinbase 2: %w", err)
	}
	if !list[4].IsArray() {
		return errors.New("merkle branch is not an array")
	}
	j.Branch = j.Branch[:0]
	for _, v := range list[4].Each() {
		if len(j.Branch) == maxBranch {
			return fmt.Errorf("merkle branch of more than %d hashes", maxBranch)
		}
		hash, err := parseHash(v)
		if err != nil {
			return fmt.Errorf("merkle branch: %w", err)
		}
		j.Branch = append(j.Branch, hash)
	}
	if j.Version, err = word(list[5]); err != nil {
		return fmt.Errorf("version: %w", err)
	}
	if j.Bits, err = word(list[6]); err != nil {
		return fmt.Errorf("bits: %w", err)
	}
	if j.Time, err = word(list[7]); err != nil {
		return fmt.Errorf("time: %w", err)
	}
	switch string(list[8]) {
	case "true":
		j.Clean = true
	case "false":
		j.Clean = false
	default:
		return errors.New("clean flag is not a boolean")
	}
	return nil
}

func parseHash(v jsonscan.Value) (h chainhash.Hash, err error) {
	digits := unquoted(v)
	if len(digits) != 2*len(h) {
		return h, fmt.Errorf("not a string of %d hex digits", 2*len(h))
	}
	_, err = hex.Decode(h[:], digits)
	return h, err
}

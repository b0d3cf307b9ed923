package stratum

import (
	"encoding/hex"
	"encoding/json"
	"strconv"

	"github.com/btcsuite/btcd/chainhash/v2"

	"btcpool/internal/bitcoin"
	"btcpool/internal/job"
	"btcpool/internal/share"
)

// The functions below append one line each and return the extended buffer. An
// id is Request.ID.

func appendID(dst, id []byte) []byte {
	if id == nil {
		return append(dst, "null"...)
	}
	return append(dst, id...)
}

// AppendResult appends an answer; result is JSON text.
func AppendResult(dst, id []byte, result string) []byte {
	dst = append(dst, `{"id":`...)
	dst = appendID(dst, id)
	dst = append(dst, `,"result":`...)
	dst = append(dst, result...)
	return append(dst, ",\"error\":null}\n"...)
}

// AppendTrue appends the answer to what was accepted.
func AppendTrue(dst, id []byte) []byte { return AppendResult(dst, id, "true") }

// AppendError appends the answer to what was not.
func AppendError(dst, id []byte, status share.Status) []byte {
	status = status.Told()
	dst = append(dst, `{"id":`...)
	dst = appendID(dst, id)
	dst = append(dst, `,"result":null,"error":[`...)
	dst = strconv.AppendInt(dst, int64(status), 10)
	dst = append(dst, `,"`...)
	dst = append(dst, status.Text()...)
	return append(dst, "\",null]}\n"...)
}

// AppendSubscribed appends the answer to mining.subscribe.
func AppendSubscribed(dst, id []byte, extraNonce1 uint32, extraNonce2Size int) []byte {
	dst = append(dst, `{"id":`...)
	dst = appendID(dst, id)
	dst = append(dst, `,"result":[[["mining.set_difficulty","`...)
	dst = appendHex32(dst, extraNonce1)
	dst = append(dst, `"],["mining.notify","`...)
	dst = appendHex32(dst, extraNonce1)
	dst = append(dst, `"]],"`...)
	dst = appendHex32(dst, extraNonce1)
	dst = append(dst, `",`...)
	dst = strconv.AppendInt(dst, int64(extraNonce2Size), 10)
	return append(dst, "],\"error\":null}\n"...)
}

// AppendConfigured appends the answer to mining.configure: what c asked for, by
// name, and whether it is granted. The mask is 0 when there is no version
// rolling.
func AppendConfigured(dst, id []byte, c Configure, mask uint32) []byte {
	dst = append(dst, `{"id":`...)
	dst = appendID(dst, id)
	dst = append(dst, `,"result":{`...)
	for i, extension := range c.Extensions {
		if i > 0 {
			dst = append(dst, ',')
		}
		name, _ := json.Marshal(extension) // a string always encodes
		dst = append(dst, name...)
		dst = append(dst, ':')
		switch extension {
		case VersionRolling:
			dst = strconv.AppendBool(dst, mask != 0)
			if mask != 0 {
				dst = append(dst, `,"version-rolling.mask":"`...)
				dst = appendHex32(dst, mask)
				dst = append(dst, '"')
			}
		case MinimumDifficulty:
			dst = strconv.AppendBool(dst, c.MinimumDifficulty != nil)
		case SubscribeExtranonce, Info:
			dst = append(dst, "true"...)
		default:
			dst = append(dst, "false"...)
		}
	}
	return append(dst, "},\"error\":null}\n"...)
}

// AppendCapabilities appends the answer to agent.get_capabilities, which has no
// member for an error.
func AppendCapabilities(dst, id []byte) []byte {
	dst = append(dst, `{"id":`...)
	dst = appendID(dst, id)
	return append(dst, `,"result":{"capabilities":["`+VersionRollingFrames+`","`+SubmitResponses+"\"]}}\n"...)
}

// AppendReconnect appends the notification that asks a miner to connect to
// another place, host:port, or, if that is empty, to the same again. It should
// wait some seconds before it does.
func AppendReconnect(dst []byte, host string, port uint16, wait int) []byte {
	dst = append(dst, `{"id":null,"method":"client.reconnect","params":[`...)
	if host != "" {
		name, _ := json.Marshal(host) // a string always encodes
		dst = append(dst, name...)
		dst = append(dst, ',')
		dst = strconv.AppendUint(dst, uint64(port), 10)
		dst = append(dst, ',')
		dst = strconv.AppendInt(dst, int64(wait), 10)
	}
	return append(dst, "]}\n"...)
}

// AppendSetDifficulty appends the notification of the difficulty of the jobs
// to come.
func AppendSetDifficulty(dst []byte, d bitcoin.Difficulty) []byte {
	dst = append(dst, `{"id":null,"method":"mining.set_difficulty","params":[`...)
	dst = d.AppendTo(dst)
	return append(dst, "]}\n"...)
}

// AppendGetVersion appends a question for the miner's software. The id is a
// number because cgminer answers with one.
func AppendGetVersion(dst []byte) []byte {
	return append(dst, `{"id":1,"method":"client.get_version","params":[]}`+"\n"...)
}

// AppendSetVersionMask appends the notification of the version bits that may
// be rolled.
func AppendSetVersionMask(dst []byte, mask uint32) []byte {
	dst = append(dst, `{"id":null,"method":"mining.set_version_mask","params":["`...)
	dst = appendHex32(dst, mask)
	return append(dst, "\"]}\n"...)
}

func appendHex32(dst []byte, n uint32) []byte {
	return hex.AppendEncode(dst, []byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

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

// AppendTo appends the notification that gives the job to one miner, who knows
// it as jobID, with a time that is so many seconds later than the job's. A clean
// job makes the ones before worthless.
func (n Notify) AppendTo(dst []byte, jobID uint64, later uint32, clean bool) []byte {
	dst = append(dst, `{"id":null,"method":"mining.notify","params":["`...)
	dst = strconv.AppendUint(dst, jobID, 10)
	dst = append(dst, n.rest...)
	dst = appendHex32(dst, n.time+later)
	dst = append(dst, `",`...)
	dst = strconv.AppendBool(dst, clean)
	return append(dst, "]}\n"...)
}

// AppendShowMessage appends the notification of a text that a miner is to show.
func AppendShowMessage(dst []byte, text string) []byte {
	dst = append(dst, `{"id":null,"method":"client.show_message","params":[`...)
	quoted, _ := json.Marshal(text) // a string always encodes
	dst = append(dst, quoted...)
	return append(dst, "]}\n"...)
}

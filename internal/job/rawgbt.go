package job

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/tidwall/gjson"

	"btcpool/internal/bitcoin"
)

// RawGBT is a node's answer to getblocktemplate on its way to jobmaker and blkmaker.
type RawGBT struct {
	CreatedAt uint32 // unix seconds
	Response  []byte // the complete text of the RPC response
	Hash      string // double SHA-256 of Response in display order: the template's name
	FromPool  string // the other pool a template was derived from, usually none

	// Left is a block that the template's node had on its chain and has left for a lower one: miners may be sent back.
	// Zero: none.
	Left chainhash.Hash

	// Work is that of the chain up to the block that the template follows, as the node tells. Zero: unknown.
	Work bitcoin.Work
}

// NewRawGBT wraps an RPC response, which it retains, received at now.
func NewRawGBT(response []byte, now time.Time) RawGBT {
	return RawGBT{CreatedAt: uint32(now.Unix()), Response: response, Hash: gbtHash(response)}
}

// A Naming computes what RawGBT calls Hash while the response arrives.
type Naming struct {
	arrived chan []byte // the latest that has not been looked at
	name    chan string
}

// NewNaming returns one that waits for a response. End must be called.
func NewNaming() *Naming {
	n := &Naming{make(chan []byte, 1), make(chan string, 1)}
	go func() {
		hash, done := sha256.New(), 0
		for soFar := range n.arrived {
			hash.Write(soFar[done:])
			done = len(soFar)
		}
		n.name <- chainhash.Hash(sha256.Sum256(hash.Sum(nil))).String()
	}()
	return n
}

// Arrived is given all of the response that has come so far, which the caller does not change any more. It does not wait.
func (n *Naming) Arrived(soFar []byte) {
	select {
	case <-n.arrived: // a part of this
	default:
	}
	n.arrived <- soFar
}

// End says that all has arrived, or that nobody wants to know the name.
func (n *Naming) End() { close(n.arrived) }

// Name waits for the name. It is called once, if at all.
func (n *Naming) Name() string { return <-n.name }

func gbtHash(response []byte) string {
	return chainhash.Hash(bitcoin.DoubleSHA256(response)).String()
}

// AppendTo appends the message of the raw template topic.
func (r RawGBT) AppendTo(dst []byte) []byte {
	dst = slices.Grow(dst, base64.StdEncoding.EncodedLen(len(r.Response))+len(r.FromPool)+256) // megabytes are not to be moved
	dst = append(dst, `{"created_at_ts":`...)
	dst = strconv.AppendUint(dst, uint64(r.CreatedAt), 10)
	dst = append(dst, `,"block_template_base64":"`...)
	dst = base64.StdEncoding.AppendEncode(dst, r.Response)
	dst = append(dst, `","gbthash":`...)
	dst = gjson.AppendJSONString(dst, r.Hash)
	if r.FromPool != "" {
		dst = append(dst, `,"from_pool":`...)
		dst = gjson.AppendJSONString(dst, r.FromPool)
	}
	if r.Left != (chainhash.Hash{}) {
		dst = append(dst, `,"left_block":"`...)
		dst = append(append(dst, r.Left.String()...), '"')
	}
	if !r.Work.IsZero() {
		dst = append(dst, `,"chainwork":"`...)
		dst = append(append(dst, r.Work.ChainWork()...), '"')
	}
	return append(dst, '}')
}

// ParseRawGBT reads a message of the raw template topic. A hash that is not that of the response is an error; the
// response itself is not looked into.
func ParseRawGBT(b []byte) (RawGBT, error) {
	return parse("raw template", b, readRawGBT)
}

func readRawGBT(f *fields) RawGBT {
	r := RawGBT{
		CreatedAt: uint32(f.unsigned("created_at_ts", math.MaxUint32)),
		Response:  f.base64("block_template_base64"),
		Hash:      f.text("gbthash"),
	}
	if f.has("from_pool") {
		r.FromPool = f.text("from_pool")
	}
	if f.has("left_block") {
		r.Left = f.hash("left_block")
	}
	r.Work = f.chainWork("chainwork")
	if f.err == nil && r.Hash != gbtHash(r.Response) {
		f.err = errors.New("gbthash is not the hash of the template")
	}
	return r
}

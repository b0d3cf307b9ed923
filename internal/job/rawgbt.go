package job

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/tidwall/gjson"

	"btcpool/internal/bitcoin"
)

// RawGBT is a node's answer to getblocktemplate on its way to jobmaker and
// blkmaker.
type RawGBT struct {
	CreatedAt uint32 // unix seconds
	Response  []byte // the complete text of the RPC response
	Hash      string // double SHA-256 of Response in display order: the template's name
	FromPool  string // the other pool a template was derived from, usually none

	// Left is a block that the template's node had on its chain and has left for
	// a lower one: miners may be sent back. Zero: none.
	Left chainhash.Hash
}

// NewRawGBT wraps an RPC response, which it retains, received at now.
func NewRawGBT(response []byte, now time.Time) RawGBT {
	return RawGBT{CreatedAt: uint32(now.Unix()), Response: response, Hash: gbtHash(response)}
}

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
	return append(dst, '}')
}

// ParseRawGBT reads a message of the raw template topic. A hash that is not
// that of the response is an error; the response itself is not looked into.
func ParseRawGBT(b []byte) (RawGBT, error) {
	r, err := parseRawGBT(b)
	if err != nil {
		return RawGBT{}, fmt.Errorf("raw template: %w", err)
	}
	return r, nil
}

func parseRawGBT(b []byte) (RawGBT, error) {
	object, err := parseObject(b)
	if err != nil {
		return RawGBT{}, err
	}
	const created, template, hash, fromPool, leftBlock = "created_at_ts", "block_template_base64", "gbthash", "from_pool", "left_block"
	f := fieldsOf(object)
	r := RawGBT{
		CreatedAt: uint32(f.unsigned(created, math.MaxUint32)),
		Hash:      f.text(hash),
	}
	r.Response, err = base64Of(f.values[template])
	f.fail(template, err)
	if f.has(fromPool) {
		r.FromPool = f.text(fromPool)
	}
	if f.has(leftBlock) {
		r.Left = f.hash(leftBlock)
	}
	if f.err != nil {
		return RawGBT{}, f.err
	}
	if r.Hash != gbtHash(r.Response) {
		return RawGBT{}, errors.New("gbthash is not the hash of the template")
	}
	return r, nil
}

package job

import (
	"errors"
	"math"
	"math/bits"

	"github.com/btcsuite/btcd/chainhash/v2"

	"btcpool/internal/bitcoin"
)

// LightGBT is what jobs need of a RawGBT, in one or two kilobytes: jobs of it leave while the megabytes that blocks are
// made of are still on their way.
type LightGBT struct {
	CreatedAt uint32         // unix seconds
	Hash      string         // the RawGBT's
	Left      chainhash.Hash // as RawGBT.Left
	Work      bitcoin.Work   // as RawGBT.Work
	Template  *Template
}

// LightTopic returns the topic of the light templates that go with those of topic raw. btcpool does not know it.
func LightTopic(raw string) string { return raw + "Light" }

// AppendTo appends the message of the light template topic: a template with its merkle branch in place of its
// transactions, and no longpollid.
func (l LightGBT) AppendTo(dst []byte) []byte {
	t := l.Template
	w := objectWriter{append(dst, '{')}
	w.unsigned("created_at_ts", uint64(l.CreatedAt))
	w.text("gbthash", l.Hash)
	w.terms(t)
	w.integer("transactions", int64(t.Transactions))
	if t.Weight > 0 {
		w.integer("weight", int64(t.Weight))
	}
	w.hashes("merkle_branch", t.MerkleBranch)
	if l.Left != (chainhash.Hash{}) {
		w.text("left_block", l.Left.String())
	}
	if !l.Work.IsZero() {
		w.text("chainwork", l.Work.ChainWork())
	}
	w.end()
	return w.dst
}

// ParseLightGBT reads a message of the light template topic. What makes ParseTemplate refuse a template makes it refuse
// a light one.
func ParseLightGBT(b []byte) (LightGBT, error) {
	return parse("light template", b, readLightGBT)
}

func readLightGBT(f *fields) LightGBT {
	l := LightGBT{
		CreatedAt: uint32(f.unsigned("created_at_ts", math.MaxUint32)),
		Hash:      f.hash("gbthash").String(),
		Template:  parseTerms(f),
	}
	l.Template.Transactions = int(f.unsigned("transactions", maxTransactions))
	l.Template.MerkleBranch = f.hashes("merkle_branch", maxBranch)
	if f.has("weight") {
		l.Template.Weight = int(f.unsigned("weight", math.MaxInt32))
	}
	if f.has("left_block") {
		l.Left = f.hash("left_block")
	}
	l.Work = f.chainWork("chainwork")
	if f.err == nil && len(l.Template.MerkleBranch) != bits.Len(uint(l.Template.Transactions)) {
		f.fail("merkle_branch", errors.New("not of that many transactions"))
	}
	return l
}

package sealed

import (
	"fmt"
	"strconv"

	"github.com/cespare/xxhash/v2"

	"btcpool/internal/bitcoin"
	"btcpool/internal/share"
)

// tally is what records add up to, in whatever order they come.
type tally struct {
	records   int64
	malformed int64
	digest    Digest
	byStatus  map[share.Status]*sum
}

type sum struct {
	shares int64
	hashes bitcoin.Work
}

func newTally() *tally { return &tally{byStatus: make(map[share.Status]*sum)} }

// add counts a record; s is nil when it is no share.
func (t *tally) add(record []byte, s *share.Share) {
	t.digest += digestOf(record)
	t.records++
	if s == nil {
		t.malformed++
		return
	}
	of := t.byStatus[s.Status]
	if of == nil {
		of = new(sum)
		t.byStatus[s.Status] = of
	}
	of.shares++
	of.hashes = of.hashes.Add(s.Difficulty.Hashes())
}

// Digest names records in any order: the sum, modulo 2^64, of their XXH64.
type Digest uint64

func digestOf(record []byte) Digest { return Digest(xxhash.Sum64(record)) }

// MarshalText writes 16 hexadecimal digits: many readers of JSON do not keep such numbers.
func (d Digest) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%016x", uint64(d)), nil }

// UnmarshalText reads what MarshalText has written.
func (d *Digest) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 16, 64)
	*d = Digest(n)
	return err
}

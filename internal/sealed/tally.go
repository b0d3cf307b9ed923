package sealed

import (
	"encoding/binary"
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
	counted   Digest
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
	t.counted += countedDigest(s)
	t.of(s.Status).add(1, s.Difficulty.Hashes())
}

// addStreak counts records without their digest.
func (t *tally) addStreak(r *Streak) {
	t.records += r.Records
	if r.Malformed {
		t.malformed += r.Records
		return
	}
	t.counted += Digest(r.Records) * countedDigest(&r.Share)
	t.of(r.Share.Status).add(r.Records, r.Share.Difficulty.Hashes().Times(uint64(r.Records)))
}

func (t *tally) of(status share.Status) *sum {
	of := t.byStatus[status]
	if of == nil {
		of = new(sum)
		t.byStatus[status] = of
	}
	return of
}

func (s *sum) add(shares int64, hashes bitcoin.Work) {
	s.shares += shares
	s.hashes = s.hashes.Add(hashes)
}

// period is the hour that a time is in. Times of before the second hour of Bitcoin are their own: share.Validate draws its
// line within the first.
func period(time int64) int64 {
	if time < secondHour {
		return time
	}
	return time - time%hourSeconds
}

const (
	hourSeconds = 3600
	secondHour  = 1231009200
)

// countedDigest names what statistics are made of in a share: the same for all of a streak.
func countedDigest(s *share.Share) Digest {
	var of [48]byte
	le := binary.LittleEndian
	le.PutUint64(of[0:], uint64(s.WorkerID))
	le.PutUint32(of[8:], uint32(s.UserID))
	le.PutUint32(of[12:], uint32(s.ExtUserID))
	le.PutUint64(of[16:], uint64(period(s.Time)))
	le.PutUint32(of[24:], uint32(s.Status))
	le.PutUint32(of[28:], uint32(s.Difficulty))
	le.PutUint32(of[32:], s.Bits)
	le.PutUint32(of[36:], s.Height)
	if s.JobID != 0 {
		of[40] = 1
	}
	return Digest(xxhash.Sum64(of[:]))
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

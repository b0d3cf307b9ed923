// Package share defines what miners' work looks like once it is judged: the share, the solved share and the common
// event, each with its wire format, and the watermarks that turn repeated delivery into one effect.
//
// The formats are btcpool's. A share travels in Kafka as a 4-byte version and a protobuf message; the daily files hold
// the protobuf message alone. Fields above 15 are this project's and are ignored by btcpool:
//
//	16 sint32  difficulty exponent n of 2^n; rules over field 8, which cannot say less than 1
//	17 uint32  server id    \
//	18 uint32  boot epoch    } the share's unique id, see ID
//	19 uint64  sequence     /
package share

import (
	"errors"
	"fmt"
	"net/netip"

	"btcpool/internal/bitcoin"
)

// ID names a share uniquely: the server that judged it, that server's boot epoch in unix seconds, and the share's
// number within the epoch, counted from 1. Shares of other software have none: their Epoch is 0.
type ID struct {
	Server uint8
	Epoch  uint32
	Seq    uint64
}

// Share is one judged submission.
type Share struct {
	ID          ID
	JobID       uint64
	WorkerID    int64 // see WorkerID
	UserID      int32 // who is credited; > 0
	ExtUserID   int32 // who mined, when one user stands for all; at most 0 for a sub-pool's work; 0 otherwise
	Status      Status
	Time        int64 // unix seconds by the server's clock
	IP          netip.Addr
	Difficulty  bitcoin.Difficulty // of the job, not of the hash
	Bits        uint32             // network target, compact
	Height      uint32
	Nonce       uint32
	SessionID   uint32 // extranonce1
	VersionBits uint32 // as submitted
	BitsReached uint32 // the hash itself, compact; 0 when it was not computed
}

// Bounds of a plausible Time: the first block, and the last second whose date has a four-digit year.
const (
	minTime = 1231006505
	maxTime = 253402300799
)

// Validate reports why s must not be counted: what btcpool's consumers drop too, and times outside the years a daily
// file can be named after.
func (s *Share) Validate() error {
	if s.JobID != 0 && s.UserID != 0 && s.WorkerID != 0 && s.Height != 0 && s.Bits != 0 && minTime <= s.Time && s.Time <= maxTime &&
		bitcoin.MinDifficulty <= s.Difficulty && s.Difficulty <= bitcoin.MaxDifficulty {
		return nil // as nearly always
	}
	var missing []error
	for _, field := range []struct {
		name string
		zero bool
	}{
		{"job id", s.JobID == 0},
		{"user id", s.UserID == 0},
		{"worker id", s.WorkerID == 0},
		{"height", s.Height == 0},
		{"bits", s.Bits == 0},
	} {
		if field.zero {
			missing = append(missing, fmt.Errorf("share has no %s", field.name))
		}
	}
	if s.Time < minTime || s.Time > maxTime {
		missing = append(missing, fmt.Errorf("share time %d is not between %d and %d", s.Time, int64(minTime), int64(maxTime)))
	}
	if s.Difficulty < bitcoin.MinDifficulty || s.Difficulty > bitcoin.MaxDifficulty {
		missing = append(missing, fmt.Errorf("share difficulty exponent %d is not between %d and %d",
			s.Difficulty, bitcoin.MinDifficulty, bitcoin.MaxDifficulty))
	}
	return errors.Join(missing...)
}

// RejectedDifficulty returns what a share of difficulty d counts with that was not accepted: at most four times the
// difficulty of its worker's last accepted share, as in btcpool. It proves no work, and without a bound a miner could
// make its pool's statistics show any amount refused.
func RejectedDifficulty(d, lastAccepted bitcoin.Difficulty) bitcoin.Difficulty {
	return min(d, lastAccepted+2)
}

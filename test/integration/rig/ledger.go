//go:build integration

package rig

import (
	"fmt"
	"strings"

	"btcpool/internal/share"
)

// Ledger is what a pool owes: every share that it acknowledged, once. Two kinds of faults destroy shares by their
// nature, and the ledger knows which:
//
//   - Records that were cut off the only replica of a topic, or deleted with the topic, are missing if nobody had read
//     them: those shares may be missing, and no other.
//   - Of a spool segment with a bit turned over one record cannot be read: one share a bit may be missing.
//
// A share that was on disk when sserver died was accepted though its answer got lost: the log may hold it, but no more
// of them than were left unanswered.
type Ledger struct {
	// Flips are the bits turned over in spools.
	Flips int
	// Acknowledged, Unanswered and Missing are shares; those that are missing are known once the ledger was compared.
	Acknowledged int
	Unanswered   int64
	Missing      int

	acks map[key]int
	gone map[key]int
}

// key tells shares apart on both sides of the socket, nearly always: it is counted how often each was there. A machine
// behind a farm proxy knows its worker and not the session, others are known by the session alone.
type key struct {
	session, nonce, versionBits uint32
	worker                      int64
}

func keyOf(s *share.Share) key {
	return key{session: s.SessionID, nonce: s.Nonce, versionBits: s.VersionBits}
}

func farmKey(worker int64, nonce, versionBits uint32) key {
	return key{worker: worker, nonce: nonce, versionBits: versionBits}
}

// Add adds what a miner wrote down.
func (l *Ledger) Add(acks []Ack, unanswered int64) {
	if l.acks == nil {
		l.acks = map[key]int{}
	}
	for _, a := range acks {
		var session uint32
		_, _ = fmt.Sscanf(a.Session, "%08x", &session) // one that cannot be read is not in the log
		l.acks[key{session: session, nonce: a.Nonce, versionBits: a.VersionBits}]++
	}
	l.Acknowledged += len(acks)
	l.Unanswered += unanswered
}

// AddFarm adds what a miner behind a farm proxy wrote down. Unanswered are also those that the proxy did not know the
// end of.
func (l *Ledger) AddFarm(acks []Ack, unanswered int64) {
	l.Add(nil, unanswered)
	for _, a := range acks {
		_, worker, _ := strings.Cut(a.User, ".")
		l.acks[farmKey(share.WorkerID(share.WorkerName(worker)), a.Nonce, a.VersionBits)]++
	}
	l.Acknowledged += len(acks)
}

// Destroyed notes the records that a fault took away.
func (l *Ledger) Destroyed(records [][]byte) {
	if l.gone == nil {
		l.gone = map[key]int{}
	}
	for _, record := range records {
		if s := (share.Share{}); s.Parse(record) == nil && s.Status == share.StatusAccept {
			l.gone[keyOf(&s)]++
		}
	}
}

// Whole says that no fault has taken a record away.
func (l *Ledger) Whole() bool { return len(l.gone) == 0 }

func (l *Ledger) String() string {
	return fmt.Sprintf("%d shares acknowledged, %d left unanswered, %d missing that were destroyed, %d bits turned over in spools",
		l.Acknowledged, l.Unanswered, l.Missing, l.Flips)
}

// Compare holds the share log against the ledger.
func (l *Ledger) Compare(log []share.Share) error {
	ids := map[share.ID]bool{}
	logged := map[key]int{}
	accepted := 0
	for i := range log {
		s := &log[i]
		if ids[s.ID] {
			return fmt.Errorf("share %+v is in the log twice", s)
		}
		ids[s.ID] = true
		if s.Status == share.StatusAccept {
			logged[keyOf(s)]++
			logged[farmKey(s.WorkerID, s.Nonce, s.VersionBits)]++
			accepted++
		}
	}
	var lost []key
	l.Missing = 0
	for k, n := range l.acks {
		for range n - logged[k] {
			if l.Missing++; l.gone[k] == 0 {
				lost = append(lost, k)
			}
		}
	}
	if len(lost) > l.Flips {
		return fmt.Errorf("%d of %d acknowledged shares are not in the log of %d, though nothing has destroyed them (%d bits turned over): %+v",
			len(lost), l.Acknowledged, accepted, l.Flips, lost[:min(len(lost), 5)])
	}
	if extra := accepted - (l.Acknowledged - l.Missing); int64(extra) > l.Unanswered {
		return fmt.Errorf("the log has %d accepted shares more than were acknowledged, %d were left unanswered", extra, l.Unanswered)
	}
	return nil
}

package farm

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"btcpool/internal/bus"
	"btcpool/internal/miner"
	"btcpool/internal/share"
	"btcpool/internal/testkit"
)

// ledger is what miners were told of their shares.
type ledger struct {
	mu       sync.Mutex
	told     map[found][]miner.Result
	accepted map[string]int // by user
}

// found tells shares apart on both sides: what a miner did, and what the pool has counted.
type found struct {
	worker             int64
	nonce, versionBits uint32
}

func (l *ledger) note(r miner.Result) {
	_, name, _ := strings.Cut(r.User, ".")
	k := found{share.WorkerID(share.WorkerName(name)), r.Nonce, r.VersionBits}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.told == nil {
		l.told, l.accepted = make(map[found][]miner.Result), make(map[string]int)
	}
	l.told[k] = append(l.told[k], r)
	if r.Outcome == miner.Accepted {
		l.accepted[r.User]++
	}
}

// each returns how many shares of every user were accepted.
func (l *ledger) each() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := make(map[string]int, len(l.accepted))
	for user, n := range l.accepted {
		now[user] = n
	}
	return now
}

// unknown is the code of the answer to a share of which nobody knows what the pool thinks.
const unknown = int(share.StatusUnknown)

// verify holds what miners were told against what the pool has counted: the shares that it accepted, each once, and no
// other. Of shares without an answer, or with one that says so, it may have counted any. The pool must have stopped.
func (p *pool) verify(miners ...*rigs) {
	p.tb.Helper()
	counted := make(map[found]int)
	ctx, cancel := context.WithTimeout(p.tb.Context(), testkit.Patience)
	defer cancel()
	whole := false
	err := p.bus.Read(ctx, p.cfg.Kafka.Topics.Share, bus.Earliest(), func(msg bus.Message) error {
		var s share.Share
		if err := s.Parse(msg.Value); err != nil {
			return err
		}
		if s.Status.IsAccepted() {
			counted[found{s.WorkerID, s.Nonce, s.VersionBits}]++
		}
		return nil
	}, bus.CaughtUp(func() { whole = true; cancel() }))
	if err != nil || !whole {
		p.tb.Fatalf("share topic: whole %v, %v", whole, err)
	}
	var accepted, refused, open int
	for _, r := range miners {
		for k, results := range r.told {
			for _, res := range results {
				sure := res.Outcome != miner.Unanswered && res.Code != unknown
				good := res.Outcome == miner.Accepted
				n := counted[k]
				switch {
				case good:
					accepted++
				case sure:
					refused++
				default:
					open++
				}
				if good && n != 1 || sure && !good && n != 0 || n > 1 {
					p.tb.Errorf("share %+v of %s: told %d %q, counted %d times", k, res.User, res.Code, res.Text, n)
				}
			}
			delete(counted, k)
		}
	}
	if len(counted) > 0 {
		p.tb.Errorf("%d shares were counted that nobody has found", len(counted))
	}
	if accepted == 0 {
		p.tb.Error("no share was accepted")
	}
	p.tb.Logf("%d shares accepted, %d refused, %d of unknown fate", accepted, refused, open)
}

// everyone waits until each of n miners has had a share accepted from now on.
func (r *rigs) everyone(tb testing.TB, what string, n int) {
	tb.Helper()
	before := r.each()
	var lacks []string
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
		now := r.each()
		if lacks = lacks[:0]; len(now) < n {
			lacks = append(lacks, fmt.Sprintf("%d miners", n-len(now)))
		}
		for user, had := range now {
			if had <= before[user] {
				lacks = append(lacks, user)
			}
		}
		if len(lacks) == 0 {
			return
		}
		if time.Now().After(deadline) {
			tb.Fatalf("%s: not mining again: %v; all: %v", what, lacks, r.lags())
		}
	}
}

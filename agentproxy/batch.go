package agentproxy

import (
	"cmp"
	"slices"
	"time"

	"btcpool/internal/agentwire"
)

// row is a share in a batch.
type row struct {
	share agentwire.Submit
	question
}

// pack puts the rows into the batch, those of one job together.
func (l *link) pack() {
	if len(l.rows) == 0 {
		return
	}
	slices.SortStableFunc(l.rows, func(a, b row) int {
		return cmp.Or(cmp.Compare(a.share.JobID, b.share.JobID), cmp.Compare(a.share.Session, b.share.Session))
	})
	var shares agentwire.Shares
	for i, r := range l.rows {
		l.expect(r.question)
		shares.JobID = r.share.JobID
		shares.Rows = append(shares.Rows, r.share)
		if i+1 < len(l.rows) && l.rows[i+1].share.JobID == shares.JobID {
			continue
		}
		for len(shares.Rows) > 0 {
			var n int
			l.batch, n = shares.AppendTo(l.batch, maxBatch)
			shares.Rows = shares.Rows[n:]
		}
	}
	clear(l.rows)
	l.rows = l.rows[:0]
}

const (
	// maxBatch is what fits into one segment, in bytes.
	maxBatch = 1400
	// rowBytes is what a row takes at most, as a rule.
	rowBytes = 14
)

// flushSoon has the batch sent when it has waited long enough for more.
func (l *link) flushSoon() {
	hold := l.acct.svc.cfg.Hold.Std()
	switch {
	case hold <= 0 || len(l.batch)+rowBytes*len(l.rows) >= maxBatch:
		l.flush()
	case l.flushing:
	case l.holding == nil:
		l.flushing = true
		l.holding = time.AfterFunc(hold, func() { l.acct.svc.loop.Post(l.flush) })
	default:
		l.flushing = true
		l.holding.Reset(hold)
	}
}

func (l *link) flush() {
	if l.flushing {
		l.flushing = false
		l.holding.Stop()
	}
	l.pack()
	if len(l.batch) > 0 {
		l.send(l.batch)
		l.batch, l.blind = l.batch[:0], 0
	}
}

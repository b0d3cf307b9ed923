//go:build integration

package rig

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"btcpool/internal/share"
	"btcpool/internal/sharefile"
	"btcpool/internal/testkit"
)

// WaitLogged waits until the share log holds every acknowledged share, once, and returns all that it holds, refused
// shares too.
func (p *Pool) WaitLogged(t testing.TB, acks []Ack, unanswered int64) (log []share.Share) {
	t.Helper()
	var ledger Ledger
	ledger.Add(acks, unanswered)
	return p.WaitLog(t, testkit.Patience, "the share log holds what was acknowledged", func(_ context.Context, log []share.Share) error {
		return ledger.Compare(log)
	})
}

// WaitLog waits until check finds nothing wrong with the share log, and returns it. The log is read anew each time: it
// may still get what was on its way when miners left, so that nothing may be held against a log that was read before.
func (p *Pool) WaitLog(t testing.TB, limit time.Duration, what string, check func(context.Context, []share.Share) error) (log []share.Share) {
	t.Helper()
	testkit.Until(t, limit, what, func(ctx context.Context) error {
		log = p.ReadLog(t)
		return check(ctx, log)
	})
	return log
}

// ReadLog returns every share of the log, judged or refused.
func (p *Pool) ReadLog(t testing.TB) (log []share.Share) {
	t.Helper()
	days, err := sharefile.Days(p.Log, "BTC")
	if err != nil {
		t.Fatal(err)
	}
	for _, day := range days {
		r, err := sharefile.Open(sharefile.Path(p.Log, "BTC", day))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for {
			record, err := r.Next()
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			var s share.Share
			if err := s.ParseBody(record); err != nil {
				t.Fatal(err)
			}
			log = append(log, s)
		}
	}
	return log
}

//go:build integration

package rig

import (
	"context"
	"errors"
	"io"
	"testing"

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
	testkit.Until(t, testkit.Patience, "the share log holds what was acknowledged", func(context.Context) error {
		log = p.ReadLog(t)
		return ledger.Compare(log)
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
